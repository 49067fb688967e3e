//! Saving what is left: one file of the newest state that can be read, and every entry behind it.
//!
//! - **T5** An entry is applied to what does not hold it, and to nothing else: an old entry over a newer state would bring old values
//!   back. A checkpoint of ours says which entries it holds (C1), and so does a file that was made from one and kept its keys. Of
//!   any other file only the time of its state is known, which the engine sets with every entry: what was committed later is not in it.
//!   What was committed before is, if the time is that of an entry; else nobody knows, and it is not applied but named.
//! - **T6** What it begins with is, in this order: the newest good checkpoint of ours that the log continues, wherever it
//!   stands (the public file and the bases are copies); another program's public file; a checkpoint before a gap; nothing.

use std::cmp::Reverse;
use std::fs;
use std::iter;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use sherwood_client::import::{read_parquet_bytes, write_parquet_atomic};
use sherwood_client::locate::{ClusterId, StateDir};
use sherwood_shared::state::State;

use super::tools::rows;
use super::{RecoverError, chain, has_log, is_damage, load};
use crate::apply::Fold;
use crate::checkpoint::{self, Listed, is_checkpoint, read_position};
use crate::entry::Entry;
use crate::log::{self, LogError};

/// What a salvage saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salvaged {
    /// The file that the state was begun with; `None`: nothing but the log was there.
    pub base: Option<PathBuf>,
    /// The last entry in it, as far as that is known.
    pub through: u64,
    /// Rows of nodes, tasks and content.
    pub rows: [usize; 3],
    /// What is missing or may be, a sentence each. Empty: nothing is.
    pub missing: Vec<String>,
}

/// Writes what can be read to `out`, a new Parquet file (T5, T6). Changes nothing in `dir`, and needs no lock.
///
/// # Errors
///
/// [`RecoverError::Exists`], [`RecoverError::Write`]; what keeps the public file from being used, if there is nothing else at all.
pub fn salvage(dir: &StateDir, out: &Path) -> Result<Salvaged, RecoverError> {
    if fs::symlink_metadata(out).is_ok() {
        return Err(RecoverError::Exists {
            path: out.to_owned(),
        });
    }
    let log_dir = log::log_dir(dir.path());
    let first_entry = first_entry(&log_dir)?;
    let mut missing = Vec::new();
    let base = best_base(dir, first_entry, &mut missing)?;
    let mut replay = Replay::new(&base);
    if !has_log(&log_dir) {
        missing.push(match replay.after {
            Some(after) => format!("the log is gone: every change after entry {after}"),
            None => "the log is gone: every change that the file does not hold".to_owned(),
        });
    } else if let Some(after) = replay.after
        && let Err(LogError::EndsBefore { last, .. }) = log::read(&log_dir, after + 1)
    {
        missing.push(format!(
            "the log ends with entry {last}, before entry {after}, which the file holds: whether there were entries behind {after} cannot be known"
        ));
    }
    let from = replay.after.map_or(0, |after| after.saturating_add(1));
    log::salvage(&log_dir, from, |entry| replay.add(entry, &mut missing))?;
    replay.say_what_is_held(&base, &mut missing);
    let Replay { fold, after, .. } = replay;
    let state = fold.finish(base.state)?;
    if state.cluster_id().is_empty() {
        return Err(RecoverError::Unnamed { path: log_dir });
    }
    write_parquet_atomic(&state, out).map_err(|source| RecoverError::Write {
        path: out.to_owned(),
        source,
    })?;
    Ok(Salvaged {
        base: base.path,
        through: after.unwrap_or(0),
        rows: rows(&state),
        missing,
    })
}

/// The first entry of the log that can be read; 0 without any.
fn first_entry(log_dir: &Path) -> Result<u64, RecoverError> {
    let mut first = 0;
    log::salvage(log_dir, 0, |entry| match entry {
        Ok(entry) if first == 0 => first = entry.sequence,
        _ => {}
    })?;
    Ok(first)
}

/// What a salvage begins with.
struct Base {
    path: Option<PathBuf>,
    state: State,
    holds: Holds,
}

/// Which entries it holds.
#[derive(Clone, Copy)]
enum Holds {
    /// Those up to this one.
    Through(u64),
    /// None that was committed later than this, in milliseconds since the epoch.
    Until(i64),
}

/// The log, on its way onto a base.
struct Replay {
    fold: Fold,
    holds: Holds,
    /// The last entry that is in the state; `None`: not known yet.
    after: Option<u64>,
    /// Of those that are not applied because the base may hold them: the first, the last, the last one's time, and the
    /// first that was committed at that time.
    held: Option<(u64, u64, i64, u64)>,
}

impl Replay {
    fn new(base: &Base) -> Self {
        Self {
            fold: Fold::new(),
            holds: base.holds,
            after: match base.holds {
                Holds::Through(sequence) => Some(sequence),
                Holds::Until(_) => None,
            },
            held: None,
        }
    }

    fn add(&mut self, entry: Result<Entry, LogError>, missing: &mut Vec<String>) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => return missing.push(chain(&error)),
        };
        let (sequence, time) = (entry.sequence, entry.committed_at_ms);
        // The first that came later ends it: a clock may have been set back behind it.
        if let (None, Holds::Until(until)) = (self.after, self.holds)
            && time <= until
        {
            let (first, same) = match self.held {
                Some((first, _, last_time, same)) if last_time == time => (first, same),
                Some((first, ..)) => (first, sequence),
                None => (sequence, sequence),
            };
            self.held = Some((first, sequence, time, same));
            return;
        }
        if let Err(error) = self.fold.add(&entry.effects) {
            return missing.push(chain(&error));
        }
        let after = self.after.or(self.held.map(|(_, last, ..)| last));
        let expected = after.map_or(sequence, |after| after.saturating_add(1));
        if sequence > expected {
            let last = sequence - 1;
            missing.push(format!("entries {expected} to {last} cannot be read"));
        }
        if self.held.is_none() && self.after.is_none() && sequence > 1 {
            missing.push(format!(
                "the file is older than entry {sequence}, the first of the log: changes between the two, if there were any"
            ));
        }
        self.after = Some(sequence);
    }

    /// T5, of a base that does not say it itself.
    fn say_what_is_held(&mut self, base: &Base, missing: &mut Vec<String>) {
        let (Holds::Until(until), Some((first, last, time, same))) = (self.holds, self.held) else {
            return;
        };
        self.after = self.after.or(Some(last));
        let path = base.name();
        if time != until {
            missing.push(format!(
                "whether {path} holds entries {first} to {last} cannot be known: they were committed before its time, and are not applied"
            ));
        } else if same < last {
            missing.push(format!(
                "{path} may lack the last of entries {same} to {last}, which were committed in the millisecond of its time: they are not applied"
            ));
        }
    }
}

/// T6.
fn best_base(
    dir: &StateDir,
    first_entry: u64,
    missing: &mut Vec<String>,
) -> Result<Base, RecoverError> {
    let ours = best_of_ours(dir, missing)?;
    let is_continued = |base: &Base| match base.holds {
        Holds::Through(sequence) => sequence.saturating_add(1) >= first_entry,
        Holds::Until(_) => false,
    };
    let before_gap = match ours {
        Some(base) if is_continued(&base) => return Ok(base),
        other => other,
    };
    match (anothers(dir), before_gap) {
        (Ok(base), _) => {
            missing.push(format!(
                "no checkpoint that the log continues is good: {} is used, which other programs may have changed",
                base.name()
            ));
            Ok(base)
        }
        (Err(_), Some(base)) => Ok(base),
        (Err(error), None) if first_entry == 0 => Err(error),
        (Err(error), None) => {
            missing.push(format!(
                "there is no state to begin with ({}): what was there before entry {first_entry}, the first of the log, and has not changed since is missing",
                chain(&error)
            ));
            let metadata = dir.metadata().ok().flatten();
            let named = metadata.and_then(|metadata| metadata.cluster_id().ok().flatten());
            Ok(Base {
                path: None,
                state: State::empty(named.as_ref().map_or("", ClusterId::as_str)),
                holds: Holds::Through(first_entry - 1),
            })
        }
    }
}

/// The newest good checkpoint of ours, wherever it stands.
fn best_of_ours(dir: &StateDir, missing: &mut Vec<String>) -> Result<Option<Base>, RecoverError> {
    let private = checkpoint::list(dir)?;
    // A copy is never newer than the newest, and most often there is no need to read any.
    let rest = || {
        let older = private.iter().skip(1).cloned();
        let mut rest: Vec<Listed> = older.chain(copies(dir)).collect();
        rest.sort_by_key(|listed| Reverse(listed.sequence));
        rest
    };
    let newest = private.iter().take(1).cloned();
    for listed in newest.chain(iter::once_with(rest).flatten()) {
        let is_private = private.contains(&listed);
        match load(&listed, None) {
            Ok((state, position)) => {
                let base = Base {
                    path: Some(listed.path),
                    state,
                    holds: Holds::Through(position.sequence),
                };
                if !is_private {
                    let name = base.name();
                    missing.push(format!(
                        "{name} is used, a copy of the checkpoint of entry {}",
                        position.sequence
                    ));
                }
                return Ok(Some(base));
            }
            // The same bytes under another name, most often.
            Err(_) if !is_private => {}
            Err(error) if is_damage(&error) => {
                missing.push(format!(
                    "{:?} cannot be used: {}",
                    listed.path,
                    chain(&error)
                ));
            }
            Err(error) => {
                return Err(RecoverError::Checkpoints {
                    dir: dir.path().join(checkpoint::DIRECTORY),
                    bad: vec![(listed.path, chain(&error))],
                });
            }
        }
    }
    Ok(None)
}

/// Checkpoints of ours that stand at other names.
fn copies(dir: &StateDir) -> Vec<Listed> {
    let private = dir.path().join(checkpoint::DIRECTORY);
    let bases = fs::read_dir(private.join(checkpoint::BASES));
    let bases = bases.into_iter().flatten().flatten();
    let public = dir.state_file(None).ok().map(|file| file.path);
    let all = public.into_iter().chain([private.join(checkpoint::BASE)]);
    let all = all.chain(bases.map(|entry| entry.path()));
    all.filter_map(|path| {
        let bytes = Bytes::from(fs::read(&path).ok()?);
        let position = read_position(&bytes).filter(|_| is_checkpoint(&bytes))?;
        Some(Listed {
            path,
            sequence: position.sequence,
        })
    })
    .collect()
}

/// The public file, if another program wrote it.
fn anothers(dir: &StateDir) -> Result<Base, RecoverError> {
    let path = dir.state_file(None)?.path;
    let unread = |source| RecoverError::Read {
        path: path.clone(),
        source,
    };
    let bytes = Bytes::from(fs::read(&path).map_err(unread)?);
    let modified = fs::metadata(&path)
        .and_then(|found| found.modified())
        .map_err(unread)?;
    let (position, is_ours) = (read_position(&bytes), is_checkpoint(&bytes));
    let state = read_parquet_bytes(bytes, &path, None).map_err(|source| RecoverError::Load {
        path: path.clone(),
        source,
    })?;
    if is_ours {
        let dir = dir.path().to_path_buf();
        return Err(RecoverError::NoCluster { dir });
    }
    let holds = match (position, state.updated_at_millis()) {
        (Some(position), _) => Holds::Through(position.sequence),
        (None, Some(time)) => Holds::Until(time),
        (None, None) => Holds::Until(DateTime::<Utc>::from(modified).timestamp_millis()),
    };
    Ok(Base {
        path: Some(path),
        state,
        holds,
    })
}

impl Base {
    fn name(&self) -> String {
        let path = self.path.as_deref().unwrap_or(Path::new(""));
        format!("{path:?}")
    }
}
