//! Why no state was found, or it could not be read.

use std::io;
use std::path::PathBuf;

use sherwood_shared::file::OpenError;
use sherwood_shared::layout::HeaderError;

use crate::error::ReadError;
use crate::import::ImportError;
use crate::locate::{BadClusterId, LocateError};
use crate::snapshot::ParquetError;

/// Why no state was found, or it could not be read. [`kind`](Self::kind) tells what a program may want to tell apart.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// A state directory that does not lead to a state.
    #[error(transparent)]
    Locate(Box<LocateError>),
    /// A Parquet state that cannot be read.
    #[error(transparent)]
    Import(Box<ImportError>),
    /// A snapshot that cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Looked everywhere.
    #[error(
        "no cluster state found{}: name its directory, or set $SHERWOOD_STATE_DIR or $SHERWOOD_RUN_DIR; looked in {}",
        of(cluster),
        list(looked)
    )]
    Nowhere {
        /// The cluster asked for.
        cluster: Option<String>,
        /// Every place.
        looked: Vec<PathBuf>,
    },
    /// A run directory without a snapshot.
    #[error("no snapshot in {dir:?}: is sherwoodd running with this run directory?")]
    NoSnapshot {
        /// The directory.
        dir: PathBuf,
    },
    /// A run directory that cannot be listed.
    #[error("cannot list the run directory {dir:?}")]
    RunDir {
        /// The directory.
        dir: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Nothing chooses between several snapshots.
    #[error(
        "several snapshots: {}; choose one by its cluster's id",
        list(candidates)
    )]
    SeveralSnapshots {
        /// All of them.
        candidates: Vec<PathBuf>,
    },
    /// A name that cannot be a cluster's.
    #[error("{place}: not a cluster id")]
    ClusterId {
        /// Where it came from.
        place: &'static str,
        /// What is wrong with it.
        #[source]
        source: BadClusterId,
    },
    /// The file given is another cluster's.
    #[error("{path:?} is the state of cluster {found:?}, not of {wanted:?}")]
    WrongCluster {
        /// The file.
        path: PathBuf,
        /// The cluster it is of.
        found: String,
        /// The cluster asked for.
        wanted: String,
    },
}

/// What an error means to a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FindErrorKind {
    /// There is no state there, or none yet. Waiting may help.
    Missing,
    /// There is one, and it is damaged or no state: it has to be restored, or written again.
    Corrupt,
    /// There is one, of a version that this code does not know.
    Incompatible,
    /// There are several, or it is another cluster's: the question has to be put more exactly.
    Ambiguous,
    /// The operating system would not give it: permissions, descriptors, memory, a disk.
    Unreadable,
}

impl FindError {
    /// What it means to a program.
    #[must_use]
    pub fn kind(&self) -> FindErrorKind {
        match self {
            Self::Locate(error) => of_locate(error),
            Self::Import(error) => of_import(error),
            Self::Read(error) => of_read(error),
            Self::Nowhere { .. } | Self::NoSnapshot { .. } => FindErrorKind::Missing,
            Self::RunDir { source, .. } => of_io(source),
            Self::SeveralSnapshots { .. } | Self::WrongCluster { .. } | Self::ClusterId { .. } => {
                FindErrorKind::Ambiguous
            }
        }
    }
}

fn of_io(error: &io::Error) -> FindErrorKind {
    match error.kind() {
        io::ErrorKind::NotFound => FindErrorKind::Missing,
        _ => FindErrorKind::Unreadable,
    }
}

fn of_locate(error: &LocateError) -> FindErrorKind {
    match error {
        LocateError::Directory { source, .. }
        | LocateError::Inspect { source, .. }
        | LocateError::MetadataRead { source, .. } => of_io(source),
        LocateError::Missing { .. } | LocateError::Nothing { .. } => FindErrorKind::Missing,
        LocateError::Several { .. }
        | LocateError::NotThisCluster { .. }
        | LocateError::ClusterId { .. } => FindErrorKind::Ambiguous,
        LocateError::NotADirectory { .. }
        | LocateError::MetadataFile { .. }
        | LocateError::MetadataJson { .. }
        | LocateError::MetadataShape { .. }
        | LocateError::Outside { .. }
        | LocateError::LinkOut { .. }
        | LocateError::NotAFile { .. } => FindErrorKind::Corrupt,
    }
}

fn of_import(error: &ImportError) -> FindErrorKind {
    match error {
        ImportError::Missing { .. } => FindErrorKind::Missing,
        ImportError::Io { source, .. } => of_io(source),
        ImportError::Newer { .. } => FindErrorKind::Incompatible,
        ImportError::WrongCluster { .. } => FindErrorKind::Ambiguous,
        _ => FindErrorKind::Corrupt,
    }
}

fn of_read(error: &ReadError) -> FindErrorKind {
    match error {
        ReadError::Open(OpenError::Missing { .. } | OpenError::Unpublished { .. }) => {
            FindErrorKind::Missing
        }
        ReadError::Open(OpenError::Io { source, .. }) => of_io(source),
        ReadError::Open(OpenError::Header {
            source: HeaderError::Version { .. },
            ..
        }) => FindErrorKind::Incompatible,
        ReadError::Open(OpenError::Header { .. } | OpenError::Truncated { .. })
        | ReadError::Damaged { .. } => FindErrorKind::Corrupt,
        ReadError::Open(OpenError::Resources { .. } | OpenError::Untrusted { .. })
        | ReadError::Overtaken { .. } => FindErrorKind::Unreadable,
    }
}

impl From<LocateError> for FindError {
    fn from(error: LocateError) -> Self {
        Self::Locate(Box::new(error))
    }
}

impl From<ImportError> for FindError {
    fn from(error: ImportError) -> Self {
        Self::Import(Box::new(error))
    }
}

impl From<ParquetError> for FindError {
    fn from(error: ParquetError) -> Self {
        match error {
            ParquetError::Import(error) => error.into(),
            ParquetError::Read(error) => error.into(),
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(", ")
}

fn of(cluster: &Option<String>) -> String {
    cluster
        .as_ref()
        .map_or(String::new(), |id| format!(" of cluster {id:?}"))
}
