//! Why a Parquet state could not be read, or written.

use std::io;
use std::path::PathBuf;

use parquet::errors::ParquetError;
use sherwood_shared::schema::NewerSchema;
use sherwood_shared::state::StateError;

/// Why a file gave no state. The file is untouched.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Nothing of that name.
    #[error("there is no file {path:?}: check the path, or let its writer write it first")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The operating system would not give the file's bytes.
    #[error("cannot read {path:?}: check its permissions and its disk")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// A directory, a pipe, a device.
    #[error("{path:?} is not a regular file: give the path of a Parquet file")]
    NotAFile {
        /// What was given.
        path: PathBuf,
    },
    /// The first bytes are not Parquet's.
    #[error(
        "{path:?} is not a Parquet file ({bytes} bytes, no PAR1 at their start): check the path"
    )]
    NotParquet {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// It begins as Parquet and does not end so.
    #[error(
        "{path:?} has no end: it is being written, or was cut short at byte {bytes}; \
         try again when its writer is done, or restore it"
    )]
    CutShort {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// The bytes are not those that Sherwood wrote.
    #[error(
        "{path:?} is damaged: its checksum is {expected:08x}, its bytes give {found:08x}; \
         restore it from a copy"
    )]
    Checksum {
        /// The file.
        path: PathBuf,
        /// As written.
        expected: u32,
        /// As computed.
        found: u32,
    },
    /// It looks like Parquet, but this part of it cannot be decoded.
    #[error("{path:?} is damaged in {place}: restore it from a copy, or write it again")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// `the footer`, or the column.
        place: String,
        /// What the decoder said.
        #[source]
        source: ParquetError,
    },
    /// The decoder gave up in a way it should not have. As [`Corrupt`](Self::Corrupt) for the caller.
    #[error(
        "{path:?} is damaged in {place} ({message}): restore it from a copy, or write it again"
    )]
    Panicked {
        /// The file.
        path: PathBuf,
        /// `the footer`, or the column.
        place: String,
        /// What the decoder said.
        message: String,
    },
    /// It says it holds far more than a file of its size can.
    #[error(
        "{path:?} claims {claimed} {unit} of data in {bytes} bytes of file, and was not decoded: \
         it is damaged or made to exhaust memory"
    )]
    Implausible {
        /// The file.
        path: PathBuf,
        /// How much its footer claims.
        claimed: u64,
        /// Of what.
        unit: &'static str,
        /// The file's length.
        bytes: usize,
    },
    /// A good Parquet file, but not a state.
    #[error("{path:?} is not a usable cluster state")]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        #[source]
        source: Box<StateError>,
    },
    /// A state, but another cluster's.
    #[error(
        "{path:?} holds the state of cluster {found:?}, not of {expected:?}: \
         check the path and the cluster id"
    )]
    WrongCluster {
        /// The file.
        path: PathBuf,
        /// The cluster asked for.
        expected: String,
        /// The cluster found.
        found: String,
    },
    /// Written in a version of the schema that came after this code.
    #[error("{path:?} was written by a newer Sherwood")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Which version.
        #[source]
        source: NewerSchema,
    },
    /// The version key holds no version.
    #[error(
        "{path:?} has {value:?} as its sherwood.schema_version, which is not a version: \
         leave the key out, or write a number"
    )]
    BadVersion {
        /// The file.
        path: PathBuf,
        /// What the key holds.
        value: String,
    },
}

/// Why a state was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The state breaks its own rules, or is too large for one document. Nothing was written.
    #[error("the state cannot be put into one document")]
    State(#[source] StateError),
    /// A carried-through column has a type that Parquet does not know. Nothing was written.
    #[error("the state cannot be encoded as Parquet")]
    Encode(#[source] ParquetError),
    /// A file operation failed; see the function for what that leaves behind.
    #[error("cannot {action} {path:?}")]
    Io {
        /// `create`, `write`, `sync`, ...
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}
