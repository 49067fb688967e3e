//! Thorough checks of a state's files: is everything in them as it should be?
//!
//! A reader checks what it must to be safe, and only what it touches. This looks at all of
//! the newest generation, from a copy, so that any file may be given: one that somebody else
//! may write, one that is damaged anywhere. It goes on after a finding as far as the damage
//! allows, and reports them all.
//!
//! Not promised: that a value of a snapshot that was changed into another valid value is
//! noticed; chunks carry no checksum. Parquet files that Sherwood wrote do.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc;
use sherwood_shared::layout::ARROW_MAGIC;
use sherwood_shared::schema::TableId;

use crate::import::{self, ImportError};

mod copy;
mod snapshot;
mod table;

pub use snapshot::verify_snapshot;

/// Why a file could not be looked at. Says nothing about what is in it.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The operating system would not give the file's bytes.
    #[error("cannot read {path:?}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// A directory, a pipe, a device.
    #[error("{path:?} is not a regular file: give the path of a snapshot or a Parquet state")]
    NotAFile {
        /// What was given.
        path: PathBuf,
    },
    /// A live daemon writes faster than one can copy.
    #[error(
        "{path:?} changes faster than it can be copied: try again, or as its owner on the daemon's host"
    )]
    Overtaken {
        /// The file.
        path: PathBuf,
    },
}

/// What kind of file it is, by its first bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Neither of the two.
    #[default]
    Unknown,
    /// A daemon's snapshot file.
    Snapshot,
    /// A state in Parquet.
    Parquet,
}

/// What was found. The numbers are those of a good file; of a damaged one as far as they
/// could be read.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What kind of file it is.
    pub kind: Kind,
    /// Everything that is wrong, in the order it was met. Empty: the file is good.
    pub findings: Vec<Finding>,
    /// Whose state it is.
    pub cluster_id: Option<String>,
    /// Of a snapshot: the generation that was checked.
    pub generation: Option<u64>,
    /// Rows by [`TableId`].
    pub rows: [u64; 3],
    /// Of a snapshot: chunks in all tables.
    pub chunks: u64,
    /// Of a snapshot: regions it lives in.
    pub regions: usize,
    /// Of a snapshot: bytes that the generation consists of.
    pub live_bytes: u64,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The byte of the file where the damaged thing begins, where it has one place.
    pub at: Option<u64>,
    /// What it is.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(at) => write!(f, "byte {at}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

impl Report {
    /// Nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.findings.is_empty()
    }

    fn new(kind: Kind) -> Self {
        Self {
            kind,
            ..Self::default()
        }
    }

    fn find(&mut self, at: impl Into<Option<u64>>, what: impl Into<String>) {
        self.findings.push(Finding {
            at: at.into(),
            what: what.into(),
        });
    }
}

/// Checks a snapshot file or a Parquet state, told apart by their first bytes.
///
/// # Errors
///
/// [`VerifyError`], if the file cannot be looked at. What is wrong *in* it is in the report.
pub fn verify(path: &Path) -> Result<Report, VerifyError> {
    let (mut file, _) = open(path)?;
    let mut magic = Vec::new();
    file.by_ref()
        .take(8)
        .read_to_end(&mut magic)
        .map_err(|source| unreadable(path, source))?;
    if magic == ARROW_MAGIC {
        verify_snapshot(path)
    } else if magic.starts_with(b"PAR1") {
        verify_parquet(path)
    } else {
        let mut report = Report::new(Kind::Unknown);
        let what = if magic.is_empty() {
            "the file is empty"
        } else {
            "the file begins neither as a snapshot (ARROW1) nor as a Parquet file (PAR1)"
        };
        report.find(0, what);
        Ok(report)
    }
}

/// Checks a Parquet state: everything that [`import::read_parquet`] does, which is all there
/// is.
///
/// # Errors
///
/// [`VerifyError`], if the file cannot be looked at. What is wrong *in* it is in the report.
pub fn verify_parquet(path: &Path) -> Result<Report, VerifyError> {
    let mut report = Report::new(Kind::Parquet);
    match import::read_parquet(path, None) {
        Ok(state) => {
            report.cluster_id = Some(state.cluster_id().to_owned());
            report.rows = TableId::ALL.map(|table| state.table(table).num_rows() as u64);
        }
        Err(ImportError::Io { path, source }) => return Err(VerifyError::Io { path, source }),
        Err(ImportError::NotAFile { path }) => return Err(VerifyError::NotAFile { path }),
        Err(ImportError::Missing { path }) => {
            let source = io::ErrorKind::NotFound.into();
            return Err(VerifyError::Io { path, source });
        }
        Err(error) => report.find(None, chain(&error)),
    }
    Ok(report)
}

/// The file and its length. A pipe does not hold us up.
fn open(path: &Path) -> Result<(File, u64), VerifyError> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
        .map_err(|source| unreadable(path, source))?;
    let metadata = file.metadata().map_err(|source| unreadable(path, source))?;
    if !metadata.is_file() {
        return Err(VerifyError::NotAFile {
            path: path.to_owned(),
        });
    }
    Ok((file, metadata.len()))
}

fn unreadable(path: &Path, source: io::Error) -> VerifyError {
    VerifyError::Io {
        path: path.to_owned(),
        source,
    }
}

/// An error and its causes, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
