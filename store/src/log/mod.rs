//! The log: what was committed since the last checkpoint, durable before anybody is told.
//!
//! A directory of segments, files of records, one record for each [`Entry`](crate::Entry). Bytes: docs/format.md,
//! section 11; rules: docs/design.md, section 10. The daemon appends ([`Log`]) and keeps the directory in order ([`Keeper`]);
//! anybody reads: a recovery ([`read()`]), a check ([`verify`]), watchers beside the daemon ([`Follower`]).
//!
//! Not promised: safety from a second process that appends (W1), or from who writes into the directory on purpose.

mod arrays;
pub(crate) mod bytes;
mod chain;
mod cursor;
mod disk;
mod error;
#[doc(hidden)]
pub mod faults;
mod follow;
#[doc(hidden)]
pub mod fuzzing;
mod keeper;
mod manifest;
mod payload;
mod read;
mod record;
mod segment;
mod verify;
mod writer;

#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;

pub use self::bytes::Malformed;
pub use self::chain::TornTail;
pub(crate) use self::disk::is_full;
pub use self::disk::{Disk, DiskFile, RealDisk};
pub use self::error::{AppendError, KeepError, Last, LogError, Sequences};
pub use self::follow::{FollowError, Follower};
pub use self::keeper::Keeper;
pub use self::read::{Entries, log_dir, read, salvage, unreadable};
pub(crate) use self::read::{carry_outcomes, load_outcomes};
pub(crate) use self::segment::open_to_read;
pub use self::segment::{LOG_FORMAT, SegmentHeader, SegmentId};
pub use self::verify::{Report, SegmentReport, verify};
pub use self::writer::{Log, Opened, Options};

/// Writes a file whole and durably: under another name, synced, renamed, and the directory synced.
pub(crate) fn write_whole(
    disk: &dyn Disk,
    dir: &Path,
    path: &Path,
    bytes: &[u8],
) -> io::Result<()> {
    let aside = path.with_extension("tmp");
    let _there_or_not = disk.unlink(&aside);
    let written = || {
        let file = disk.create(&aside)?;
        disk::write_all(&*file, bytes, 0).map_err(|(_, error)| error)?;
        file.fdatasync()?;
        disk.rename(&aside, path)?;
        disk.sync_dir(dir)
    };
    written().inspect_err(|_| {
        let _gone_or_not = disk.unlink(&aside);
    })
}
