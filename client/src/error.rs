//! Why a snapshot could not be read.

use std::path::PathBuf;

use sherwood_shared::batch::DecodeError;
use sherwood_shared::file::OpenError;
use sherwood_shared::index::IndexError;
use sherwood_shared::root::RootError;
use thiserror::Error;

/// Why a snapshot could not be opened, refreshed or decoded.
///
/// After a failed refresh the snapshot one holds is still whole: it never changes.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file cannot be used: missing, not trusted, of another version, or the
    /// operating system is out of something.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What the file says of itself does not hold.
    #[error(
        "snapshot {path:?} is damaged at byte {at}; restart sherwoodd, which makes a new one from the Parquet state"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damaged part begins.
        at: u64,
        /// What is wrong there.
        #[source]
        source: Damage,
    },
    /// The daemon publishes faster than the file's regions could be copied. Only
    /// happens where leases do not work (another kernel's file system).
    #[error("snapshot {path:?} changes faster than it can be copied; read it on the daemon's host")]
    Overtaken {
        /// The file.
        path: PathBuf,
    },
}

/// What is wrong with a part of a snapshot.
#[derive(Debug, Error)]
pub enum Damage {
    /// The root record.
    #[error(transparent)]
    Root(#[from] RootError),
    /// A part's chunk index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A chunk.
    #[error(transparent)]
    Chunk(#[from] DecodeError),
    /// A footer.
    #[error("the footer is damaged")]
    Footer(#[source] arrow_schema::ArrowError),
    /// Points outside the file, or into a region that the root does not name.
    #[error("{what} lies outside the regions of the snapshot")]
    OutOfBounds {
        /// What was looked for there.
        what: &'static str,
    },
    /// A table that lacks what every table has.
    #[error("table {table} {what}")]
    Table {
        /// Its name.
        table: &'static str,
        /// What it lacks.
        what: String,
    },
}
