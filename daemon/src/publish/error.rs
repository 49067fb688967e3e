//! Why nothing was published.

use std::io;
use std::path::{Path, PathBuf};

use arrow_schema::ArrowError;
use nix::libc;
use sherwood_client::ReadError;
use sherwood_store::ApplyError;
use thiserror::Error;

/// Why nothing was published. What was published before stays, whole.
#[derive(Debug, Error)]
pub enum PublishError {
    /// The run directory has no room for what the publish needs (W2).
    #[error(
        "no room for {needed} more bytes of snapshot {path:?}: enlarge the file system \
         (a tmpfs: mount -o remount,size=...) or end readers that hold old snapshots"
    )]
    Full {
        /// The snapshot file.
        path: PathBuf,
        /// Bytes that could not be reserved.
        needed: u64,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The state is larger than a snapshot file can be.
    #[error("snapshot {path:?} would grow beyond {limit} bytes, which is the format's limit")]
    Limit {
        /// The snapshot file.
        path: PathBuf,
        /// In bytes.
        limit: u64,
    },
    /// One row alone is too large to be a chunk.
    #[error(
        "a row of table {table} takes {bytes} bytes, and no row may take more than {limit}: \
         key {key:?}"
    )]
    Row {
        /// Its table.
        table: &'static str,
        /// Its key.
        key: String,
        /// Encoded.
        bytes: u64,
        /// The most there may be.
        limit: u64,
    },
    /// Effects that do not fit the state.
    #[error(transparent)]
    Effects(#[from] ApplyError),
    /// Rows of a table that cannot be put together.
    #[error("cannot change rows of table {table}")]
    Rows {
        /// The table.
        table: &'static str,
        /// What does not fit.
        #[source]
        source: ArrowError,
    },
    /// A table would outgrow the document's form, and no checkpoint could ever hold it (W10).
    #[error(
        "{column} of table {table} would come to more than {limit} bytes, items or rows, which is all \
         that a column of a checkpoint can hold: delete rows first"
    )]
    TooLarge {
        /// The table.
        table: &'static str,
        /// The column, with its path if it is nested; the table's name if it has too many rows.
        column: String,
        /// The most that fits.
        limit: u64,
    },
    /// A generation is staged (W9): nothing else can be written before it is committed or abandoned.
    #[error(
        "generation {generation} is staged: commit or abandon it before anything else is written"
    )]
    Staged {
        /// The staged generation.
        generation: u64,
    },
    /// An index, a footer or the root is larger than a region.
    #[error(
        "{bytes} bytes do not fit into a region of {limit} of snapshot {path:?}: \
         start the daemon with a larger region_bytes"
    )]
    Region {
        /// The snapshot file.
        path: PathBuf,
        /// Bytes that should stand together.
        bytes: u64,
        /// Bytes of a region.
        limit: u64,
    },
    /// The operating system refused something.
    #[error("cannot {action} {path:?}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The state cannot be encoded.
    #[error("cannot encode the state for snapshot {path:?}")]
    Encode {
        /// The snapshot file.
        path: PathBuf,
        /// What Arrow said.
        #[source]
        source: ArrowError,
    },
    /// Our own snapshot could not be read back.
    #[error("cannot read back what was published")]
    ReadBack(#[from] ReadError),
}

impl PublishError {
    /// An error of the operating system; a full one is told apart.
    pub(super) fn io(action: &'static str, path: &Path, needed: u64, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => Self::Full {
                path,
                needed,
                source,
            },
            _ => Self::Io {
                action,
                path,
                source,
            },
        }
    }
}
