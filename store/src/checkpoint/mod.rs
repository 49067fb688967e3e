//! Checkpoints: the whole state as Parquet, so that the log before it may go.
//!
//! ```text
//! <state-dir>/state_<cluster_id>.parquet          public: what other programs read and replace
//! <state-dir>/checkpoints/<position>.parquet      private: the two newest; position: the last entry in it, 20 digits
//! <state-dir>/checkpoints/base.parquet            what stood at the public name last, as far as we know
//! <state-dir>/rejected/<time>-<name>              foreign files that were no state, each with a `.reason.txt`
//! ```
//!
//! Others overwrite the public file as they like, in place too. So nothing of ours depends on it: recovery starts
//! from a private checkpoint, and a foreign replacement is compared with `base.parquet`
//! (docs/decisions/0009-private-checkpoints.md).
//!
//! One thread writes them, beside one that may [set the base](Checkpoints::set_base), in a process that holds the state's lock (W1). It
//! may die between any two steps:
//!
//! - **C1** A name in `checkpoints/` but for `*.tmp` is a whole file: written, synced, renamed, and the directory synced.
//! - **C2** The public file is a copy of a private checkpoint that is already durable, and takes its name in one step.
//! - **C3** `base.parquet` becomes what the public file is only after that: a base that is too old makes a merge keep
//!   more of ours, one that is too new would let old values of ours come back.
//! - **C4** The second newest private checkpoint stays until a newer one is durable (C1), and so does the log from it on: who
//!   releases the log asks [`Checkpoints::oldest_kept`].
//!   Only a full disk is a reason to give the older one up (C7), once the newest was read whole.
//! - **C5** Beside the snapshot there is one column on the heap at a time, as an array and encoded, then encoded and compressed. A row is
//!   not split between pages and the document is one row, so a column is one page, and all of it is encoded before any is written.
//! - **C6** A log exists before the first checkpoint does, so that a checkpoint without a log is always a loss.
//! - **C7** A disk that our own files fill empties itself: [`Checkpoints::make_room`], then the log goes up to the newest
//!   checkpoint, and a new checkpoint has room. Only when that did not help do the bases of the last minutes go. Nor does the public file take the room of the next one: it stays what it is.
//!
//! Not promised: that the public file is the newest checkpoint at every moment; nothing of ours reads it for that.

mod bases;
mod encode;
mod error;
mod export;
mod files;
mod keys;
mod pace;
mod public;
mod rejected;
mod sink;
#[cfg(test)]
pub(crate) mod tests;

pub use self::error::CheckpointError;
pub use self::export::export;
#[cfg(test)]
pub(crate) use self::files::file_name;
pub(crate) use self::files::sync_directory;
pub use self::files::{Checkpoints, Listed, Room, Written, list};
pub use self::keys::{Position, is_checkpoint, read_position};
pub use self::pace::{Free, Halt, Pace, Share, Step};
pub use self::public::{Exchanged, Public};
pub use self::rejected::Rejected;
pub(crate) use self::rejected::stamp;

/// The directory of private checkpoints, in the state directory.
pub const DIRECTORY: &str = "checkpoints";
/// Where refused foreign files go, in the state directory.
pub const REJECTED: &str = "rejected";
/// In [`DIRECTORY`]: see the module.
pub const BASE: &str = "base.parquet";
/// In [`DIRECTORY`]: what the base has been in the last minutes, by the time in milliseconds.
pub const BASES: &str = "bases";
