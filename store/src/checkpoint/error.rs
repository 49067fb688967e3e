//! Why no checkpoint was written.

use std::io;
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;
use sherwood_client::ReadError;
use sherwood_shared::state::StateError;

use crate::log::is_full;

/// Why a checkpoint was not written or not made public. Those that were there still are, and the log holds
/// everything that a new one would: try again later.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The pace said so.
    #[error("the checkpoint was stopped before it was done")]
    Stopped,
    /// A file operation failed.
    #[error(
        "cannot {action} {path:?}: check the disk, its room and the permissions of the state directory"
    )]
    Io {
        /// `create`, `write`, `sync`, ...
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The snapshot cannot be read.
    #[error("the snapshot cannot be read for a checkpoint")]
    Read(#[from] ReadError),
    /// The snapshot's tables do not make a document.
    #[error("the snapshot does not fit into one document")]
    State(#[source] StateError),
    /// Parquet's encoder gave up: a carried-through column of a type that it does not know, or a column beyond what
    /// one page holds.
    #[error("the state cannot be encoded as Parquet")]
    Encode(#[source] ParquetError),
    /// The encoder wrote a footer without a place for the checksum.
    #[error(
        "the checkpoint {path:?} has no place for its checksum, which is a mistake in this program"
    )]
    Unsealed {
        /// The file.
        path: PathBuf,
    },
}

impl CheckpointError {
    /// Is it for want of room on the disk?
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_full(source))
    }
}

/// Names what failed.
pub(crate) fn failed(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |source| CheckpointError::Io {
        action,
        path,
        source,
    }
}
