//! How a state comes back: the newest good checkpoint, then the log.
//!
//! [`recover`] is what a daemon's start does, [`tools`] what an operator does when that fails. The caller holds the
//! state's lock (W1), or knows that no daemon runs.
//!
//! - **B1** Recovery changes nothing. What cannot be read is left where it is, and the error says which `sherwood recover`
//!   command helps.
//! - **B2** The newest private checkpoint that is good, and every entry after it. If the newest is damaged, the older one and the
//!   longer log give the same state, with a warning. Damage of the log before the checkpoint is a warning too (L12).
//! - **B3** A checkpoint without a log is an error, at any position: the log was there before the first checkpoint (C6), so
//!   entries that were acknowledged may be gone. So is a log that ends before the checkpoint or begins after it, and a log
//!   without any checkpoint. A damaged last record that the checkpoint holds does not end the log, if its header is whole (L12).
//! - **B4** Only a directory that never had a private checkpoint is adopted: its public file is the state, as another program
//!   left it. After the first checkpoint the public file is never needed.
//! - **B5** While a restore is not finished (`sherwood.restoring`) nothing is recovered.
//!
//! A checkpoint and the log behind it are decoded at the same time. Beside the state there is never more on the heap than
//! the file, one more copy of its largest columns, and what the log changes.

#![expect(
    clippy::result_large_err,
    reason = "an error here ends a start or a command: its size costs nothing"
)]

mod adopt;
mod error;
mod salvage;
#[cfg(test)]
mod tests;
pub mod tools;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::SystemTime;

use bytes::Bytes;
use sherwood_client::import::{ImportError, read_parquet_bytes};
use sherwood_client::locate::{ClusterId, StateDir};
use sherwood_shared::state::State;

pub use self::error::RecoverError;
use crate::apply::Fold;
use crate::checkpoint::{Checkpoints, Listed, Position, Public, read_position};
use crate::log::{self, TornTail};

/// Stands in the state directory while a restore moves files (B5).
pub const RESTORING: &str = "sherwood.restoring";

/// A state, as it was when the last daemon stopped.
#[derive(Debug)]
pub struct Recovered {
    /// The state.
    pub state: State,
    /// Whose it is.
    pub cluster: ClusterId,
    /// The last entry in it.
    pub position: Position,
    /// The private checkpoint that it was read from, and the position there; `None`: there is none yet, and the log
    /// (C6) and then one of position 0 have to be written before the first entry is logged.
    pub checkpoint: Option<Listed>,
    /// B4: the file that the state was read from, if there was no private checkpoint. It stands at the public name, or at another that
    /// the metadata names.
    pub adopted: Option<Adopted>,
    /// Another program's file at the public name, to be merged once the daemon serves.
    pub foreign: Option<PathBuf>,
    /// Does the public file have to be written again? It is missing, or was a checkpoint before this one, or has nothing that this one
    /// lacks.
    pub public_is_stale: bool,
    /// The record that was being written when the log stopped.
    pub torn: Option<TornTail>,
    /// What an operator should know.
    pub warnings: Vec<String>,
    /// Private checkpoints that are newer and not good: for [`Checkpoints::set_damaged_aside`], once the state is served.
    pub damaged: Vec<PathBuf>,
}

/// A file that a state was read from, and that did not change meanwhile.
#[derive(Clone, Debug)]
pub struct Adopted {
    /// Where it is.
    pub path: PathBuf,
    /// What its inode said before and after.
    pub seen: fs::Metadata,
    /// Before it was read.
    pub at: SystemTime,
}

/// The state in `dir`, of the cluster `wanted` where one is named.
///
/// # Errors
///
/// [`RecoverError`]; nothing was changed (B1).
pub fn recover(dir: &StateDir, wanted: Option<&ClusterId>) -> Result<Recovered, RecoverError> {
    let marker = dir.path().join(RESTORING);
    if fs::symlink_metadata(&marker).is_ok() {
        return Err(RecoverError::Restoring { path: marker });
    }
    let found = crate::checkpoint::list(dir)?;
    let log_dir = log::log_dir(dir.path());
    if found.is_empty() {
        if has_log(&log_dir) && has_entries(&log_dir)? {
            return Err(RecoverError::NoCheckpoint { log: log_dir });
        }
        return adopt::adopt(dir, wanted);
    }
    if !has_log(&log_dir) {
        let sequence = found.first().map_or(0, |newest| newest.sequence);
        return Err(RecoverError::NoLog {
            dir: log_dir,
            sequence,
        });
    }
    let mut warnings = Vec::new();
    let mut bad = Vec::new();
    for listed in found {
        // B2, both at once.
        let (loaded, replayed) = thread::scope(|scope| {
            let log = scope.spawn(|| replay(&log_dir, listed.sequence, u64::MAX));
            let loaded = load(&listed, wanted);
            let replayed = log.join().unwrap_or_else(|_| {
                let path = log_dir.clone();
                Err(RecoverError::Panicked { path })
            });
            (loaded, replayed)
        });
        let (state, checkpoint) = match loaded {
            Ok(loaded) => loaded,
            Err(error) if is_damage(&error) => {
                bad.push((listed.path, chain(&error)));
                continue;
            }
            Err(error) => return Err(refused(listed.path, error, wanted)),
        };
        let damaged = bad.iter().map(|(path, _): &(PathBuf, String)| path.clone());
        let damaged = damaged.collect();
        for (path, what) in bad {
            warnings.push(format!(
                "the checkpoint {path:?} is not used: {what}; the one before it and the log give the same state"
            ));
        }
        let replayed = replayed?;
        for what in &replayed.passed {
            warnings.push(format!(
                "{what}. The checkpoint {:?} holds these entries, so nothing of the state is lost; but the outcomes of their \
                 transactions are not remembered: a retry of one of them would be done twice", listed.path
            ));
        }
        let state = replayed.fold.finish(state)?;
        let cluster =
            ClusterId::new(state.cluster_id()).map_err(|source| RecoverError::ClusterId {
                path: listed.path.clone(),
                source,
            })?;
        if let Some(torn) = &replayed.torn {
            warnings.push(format!(
                "the log ended in the middle of entry {}, which was never acknowledged: it is cut off ({:?}, byte {})",
                torn.sequence, torn.path, torn.offset
            ));
        }
        let checkpoints = Checkpoints::at(dir, &cluster);
        let (public, why) = checkpoints.look_at_public();
        warnings.extend(why);
        return Ok(Recovered {
            position: replayed.position.unwrap_or(checkpoint),
            foreign: (public == Public::Foreign).then(|| checkpoints.public_path().to_owned()),
            public_is_stale: match public {
                Public::Missing => true,
                Public::Ours => !checkpoints.is_public(&listed.path).unwrap_or(false),
                // Nothing is owed for the log's sake, which would come there by itself.
                Public::Merged => replayed.position.is_none(),
                Public::Foreign => false,
            },
            state,
            cluster,
            checkpoint: Some(listed),
            adopted: None,
            torn: replayed.torn,
            warnings,
            damaged,
        });
    }
    Err(RecoverError::Checkpoints {
        dir: dir.path().join(crate::checkpoint::DIRECTORY),
        bad,
    })
}

/// Is a log there, be it empty? It has a manifest before its first record.
pub(crate) fn has_log(log_dir: &Path) -> bool {
    let names = fs::read_dir(log_dir).into_iter().flatten().flatten();
    names
        .map(|entry| entry.file_name())
        .any(|name| name == "manifest" || name.to_string_lossy().ends_with(".log"))
}

fn has_entries(log_dir: &Path) -> Result<bool, RecoverError> {
    match log::read(log_dir, 1) {
        Ok(mut entries) => Ok(entries.next().transpose()?.is_some()),
        Err(log::LogError::Released { .. }) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// What a log does to a state.
pub(crate) struct Replayed {
    pub(crate) fold: Fold,
    /// The last entry; `None` without any.
    pub(crate) position: Option<Position>,
    pub(crate) torn: Option<TornTail>,
    /// What is wrong with the log before them.
    pub(crate) passed: Vec<String>,
}

/// The entries behind `after`, up to `through`.
pub(crate) fn replay(log_dir: &Path, after: u64, through: u64) -> Result<Replayed, RecoverError> {
    let mut entries = log::read(log_dir, after.saturating_add(1))?;
    let mut fold = Fold::new();
    let mut position = None;
    while position.is_none_or(|position: Position| position.sequence < through) && after < through {
        let Some(entry) = entries.next() else { break };
        let entry = entry?;
        fold.add(&entry.effects)?;
        position = Some(Position {
            sequence: entry.sequence,
            generation: entry.generation,
        });
    }
    Ok(Replayed {
        fold,
        position,
        torn: entries.torn().cloned(),
        passed: entries.passed().iter().map(|error| chain(error)).collect(),
    })
}

/// Reads a private checkpoint, which stands where its name says.
pub(crate) fn load(
    listed: &Listed,
    wanted: Option<&ClusterId>,
) -> Result<(State, Position), LoadError> {
    let bytes = Bytes::from(fs::read(&listed.path).map_err(LoadError::Io)?);
    let position = read_position(&bytes);
    let state = read_parquet_bytes(bytes, &listed.path, wanted.map(ClusterId::as_str))?;
    match position {
        Some(position) if position.sequence == listed.sequence => Ok((state, position)),
        Some(position) => Err(LoadError::Renamed {
            holds: position.sequence,
        }),
        None => Err(LoadError::NoPosition),
    }
}

/// Why a private checkpoint is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("it cannot be read")]
    Io(#[source] io::Error),
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error("it holds the state after entry {holds}, not what its name says")]
    Renamed { holds: u64 },
    #[error("it does not say where in the log it stands")]
    NoPosition,
}

/// Does an older checkpoint help? Not against a wrong user, a wrong cluster or a file of a newer version.
pub(crate) fn is_damage(error: &LoadError) -> bool {
    match error {
        LoadError::Io(error) => error.kind() != io::ErrorKind::PermissionDenied,
        LoadError::Import(error) => !matches!(
            error,
            ImportError::Newer { .. } | ImportError::WrongCluster { .. }
        ),
        LoadError::Renamed { .. } | LoadError::NoPosition => true,
    }
}

fn refused(path: PathBuf, error: LoadError, wanted: Option<&ClusterId>) -> RecoverError {
    match error {
        LoadError::Import(ImportError::WrongCluster { found, .. }) => RecoverError::WrongCluster {
            path,
            wanted: wanted.map(ToString::to_string).unwrap_or_default(),
            found,
        },
        LoadError::Import(source) => RecoverError::Load { path, source },
        LoadError::Io(source) => RecoverError::Read { path, source },
        other => RecoverError::Checkpoints {
            dir: path.parent().unwrap_or(&path).to_owned(),
            bad: vec![(path, chain(&other))],
        },
    }
}

/// An error and its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
