//! Why no state came back, and what helps.

use std::io;
use std::path::PathBuf;

use sherwood_client::import::{ImportError, WriteError};
use sherwood_client::locate::{BadClusterId, ClusterId, LocateError};

use crate::apply::ApplyError;
use crate::checkpoint::CheckpointError;
use crate::lock::LockError;
use crate::log::LogError;

/// Why a state was not recovered. Nothing was changed (B1).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// The state directory, or what is in it, does not tell which file is the state.
    #[error(transparent)]
    Locate(#[from] LocateError),
    /// Nothing says which cluster this is.
    #[error("{dir:?} holds no cluster state; to start an empty cluster there, give --cluster-id")]
    NoCluster {
        /// The state directory.
        dir: PathBuf,
    },
    /// A directory that is not empty is never taken for an empty cluster.
    #[error(
        "{dir:?} holds no state of the cluster {cluster}, but is not empty either: {}; \
         restore the state, or move these files away to start an empty cluster",
        found.iter().map(|name| name.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    NotEmpty {
        /// The state directory.
        dir: PathBuf,
        /// The cluster that would be started.
        cluster: ClusterId,
        /// What is in the way.
        found: Vec<PathBuf>,
    },
    /// A file cannot be read at all.
    #[error("cannot read {path:?}: check its permissions and the disk")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A state file is not good; it stays where it is.
    #[error("the state in {path:?} is not loaded")]
    Load {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ImportError,
    },
    /// A writer that does not come to an end.
    #[error("{path:?} changes all the time while it is read; stop its writer")]
    Changing {
        /// The file.
        path: PathBuf,
    },
    /// The state names no cluster, and neither does anything else.
    #[error("{path:?} names no cluster; give --cluster-id")]
    Unnamed {
        /// The file.
        path: PathBuf,
    },
    /// The cluster's id cannot be a file name.
    #[error("the state {path:?} has a cluster id that cannot name a snapshot")]
    ClusterId {
        /// The file.
        path: PathBuf,
        /// What is wrong with the id.
        #[source]
        source: BadClusterId,
    },
    /// The checkpoints are another cluster's.
    #[error(
        "{path:?} is a checkpoint of the cluster {found}, not of {wanted}: \
         correct the cluster id or the directory"
    )]
    WrongCluster {
        /// The checkpoint.
        path: PathBuf,
        /// The cluster asked for.
        wanted: String,
        /// The cluster found.
        found: String,
    },
    /// None of the checkpoints is good.
    #[error(
        "no checkpoint in {dir:?} is good: {}. Nothing was changed. `sherwood recover verify` says more, \
         `sherwood recover salvage OUT` saves what can be read; or put good copies of the files back",
        bad.iter().map(|(path, what)| format!("{path:?}: {what}")).collect::<Vec<_>>().join("; ")
    )]
    Checkpoints {
        /// Where they are.
        dir: PathBuf,
        /// Each, and what is wrong with it.
        bad: Vec<(PathBuf, String)>,
    },
    /// B3.
    #[error(
        "there is a log in {log:?}, and no checkpoint that it continues: entries alone are no state. Nothing was changed. \
         Put the checkpoints back, or save what can be read with `sherwood recover salvage OUT`"
    )]
    NoCheckpoint {
        /// The log's directory.
        log: PathBuf,
    },
    /// B3.
    #[error(
        "the log in {dir:?} is gone, and with it every change after entry {sequence}, which the newest checkpoint holds. \
         Nothing was changed. Put the log back, or go on from the checkpoint with \
         `sherwood recover restore --to {sequence}`"
    )]
    NoLog {
        /// The log's directory.
        dir: PathBuf,
        /// The last entry of the newest checkpoint.
        sequence: u64,
    },
    /// B5.
    #[error(
        "a restore was not finished ({path:?} says what it moved where): run `sherwood recover restore` again, \
         or move the files back and remove {path:?}"
    )]
    Restoring {
        /// The marker.
        path: PathBuf,
    },
    /// The log, which says what helps.
    #[error(transparent)]
    Log(#[from] LogError),
    /// An entry does not fit the state that it continues.
    #[error(
        "the log does not fit the checkpoint that it continues. Nothing was changed. \
         `sherwood recover verify` says more, `sherwood recover restore --to SEQ` goes back to an earlier state"
    )]
    Apply(#[from] ApplyError),
    /// A checkpoint was not written, or the directory cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Decoding failed in a way it should not have.
    #[error(
        "reading the log in {path:?} failed in a way that is a mistake in this program (its message is on stderr)"
    )]
    Panicked {
        /// The log's directory.
        path: PathBuf,
    },
    /// A daemon runs.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// No checkpoint and log reach that far back, or ahead.
    #[error(
        "the state after entry {wanted} cannot be restored: {reach}; \
         `sherwood recover list` shows what is there"
    )]
    Unreachable {
        /// The sequence asked for.
        wanted: u64,
        /// What can be.
        reach: String,
    },
    /// The salvaged state was not written.
    #[error("the salvaged state is not written to {path:?}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: WriteError,
    },
    /// Salvage overwrites nothing.
    #[error("{path:?} is there already: give a path of a new file")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file operation of a restore failed.
    #[error(
        "cannot {action} {path:?}: the restore is not finished; mend this and run `sherwood recover restore` again"
    )]
    Restore {
        /// `move`, `create`, ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}
