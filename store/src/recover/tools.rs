//! What `sherwood recover` does when a start cannot: show, check, go back, save what is left.
//!
//! - **T1** Nothing is deleted. What a restore replaces is moved to `set-aside/<time>/`, whole.
//! - **T2** A restore builds everything beside the old, durably, and then only moves. It says in `sherwood.restoring` what
//!   it moves where; one that was cut off is finished by the next, and no daemon starts before (B5).
//! - **T3** A restored state begins a new history of generations: without `sherwood.generation` (G3).
//! - **T4** [`list`], [`verify`] and [`salvage`] change nothing. While a daemon runs they may see its files come and go.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sherwood_client::Snapshot;
use sherwood_client::import::seal;
use sherwood_client::locate::{ClusterId, StateDir};
use sherwood_shared::schema::TableId;
use sherwood_shared::state::State;

pub use super::salvage::{Salvaged, salvage};
use super::{RESTORING, RecoverError, chain, has_log, load, replay};
use crate::checkpoint::{
    self, CheckpointError, Checkpoints, Free, Position, read_position, sync_directory,
};
use crate::durable;
use crate::lock::{Holder, Lock, STATE_LOCK};
use crate::log::{self, Log, RealDisk};

/// What a state directory has to recover from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Private checkpoints, the newest first.
    pub checkpoints: Vec<CheckpointLine>,
    /// The log.
    pub log: LogLine,
}

/// One checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointLine {
    /// The file.
    pub path: PathBuf,
    /// The last entry in it, by its name.
    pub sequence: u64,
    /// By its metadata.
    pub generation: Option<u64>,
    /// Length.
    pub bytes: u64,
    /// When it was written.
    pub modified: Option<SystemTime>,
    /// Rows of nodes, tasks and content; known after [`verify`].
    pub rows: Option<[usize; 3]>,
    /// What is wrong with it; `None`: nothing was found.
    pub problem: Option<String>,
}

/// The log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogLine {
    /// Its segments, oldest first.
    pub segments: Vec<SegmentLine>,
    /// The first entry that can be read.
    pub first: Option<Position>,
    /// The last one before the end or before what is wrong.
    pub last: Option<Position>,
    /// When that was committed: milliseconds since the epoch.
    pub last_at_ms: Option<i64>,
    /// What is wrong with it, and which entries cannot be read for that; `None`: every entry was read.
    pub problem: Option<String>,
    /// The entry that was being written when the log stopped: no problem.
    pub torn: Option<u64>,
}

/// One segment of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentLine {
    /// The file.
    pub path: PathBuf,
    /// Its first entry, by its name.
    pub first_sequence: u64,
    /// Length, reserved room included.
    pub bytes: u64,
    /// When it was written last.
    pub modified: Option<SystemTime>,
}

/// What is there, with the checksums of the checkpoints and every record of the log checked.
///
/// # Errors
///
/// Only if a directory cannot be listed; what is wrong with a file stands in its line.
pub fn list(dir: &StateDir) -> Result<Listing, RecoverError> {
    look(dir, false)
}

/// As [`list`], but decodes the checkpoints too.
///
/// # Errors
///
/// As [`list`].
pub fn verify(dir: &StateDir) -> Result<Listing, RecoverError> {
    look(dir, true)
}

fn look(dir: &StateDir, decode: bool) -> Result<Listing, RecoverError> {
    let lines = checkpoint::list(dir)?.into_iter().map(|listed| {
        let found = fs::metadata(&listed.path);
        let mut line = CheckpointLine {
            path: listed.path.clone(),
            sequence: listed.sequence,
            generation: None,
            bytes: found.as_ref().map_or(0, fs::Metadata::len),
            modified: found.and_then(|found| found.modified()).ok(),
            rows: None,
            problem: None,
        };
        match decode {
            true => match load(&listed, None) {
                Ok((state, position)) => {
                    line.generation = Some(position.generation);
                    line.rows = Some(rows(&state));
                }
                Err(error) => line.problem = Some(chain(&error)),
            },
            false => match fs::read(&listed.path).map(Bytes::from) {
                Err(error) => line.problem = Some(error.to_string()),
                Ok(bytes) => match (seal::check(&bytes), read_position(&bytes)) {
                    (Ok(()), Some(position)) if position.sequence == listed.sequence => {
                        line.generation = Some(position.generation);
                    }
                    (Ok(()), Some(position)) => {
                        line.problem = Some(format!("it holds entry {}", position.sequence));
                    }
                    (Ok(()), None) => line.problem = Some("it is no checkpoint".to_owned()),
                    (Err(_), _) => line.problem = Some("its checksum is wrong".to_owned()),
                },
            },
        }
        line
    });
    Ok(Listing {
        checkpoints: lines.collect(),
        log: look_at_log(&log::log_dir(dir.path()))?,
    })
}

pub(super) fn rows(state: &State) -> [usize; 3] {
    TableId::ALL.map(|table| state.table(table).num_rows())
}

fn look_at_log(dir: &Path) -> Result<LogLine, RecoverError> {
    let mut line = LogLine {
        segments: segments(dir)?,
        ..LogLine::default()
    };
    let Some(oldest) = line.segments.first() else {
        return Ok(line);
    };
    // Released segments may still stand before the first that counts.
    let starts = line.segments.iter().map(|segment| segment.first_sequence);
    let entries = starts
        .map(|first| log::read(dir, first))
        .find(|read| !matches!(read, Err(log::LogError::Released { .. })));
    let entries = entries.unwrap_or_else(|| log::read(dir, oldest.first_sequence));
    let mut entries = match entries {
        Ok(entries) => entries,
        Err(error) => {
            line.problem = Some(wrong(dir, &error)?);
            return Ok(line);
        }
    };
    for entry in entries.by_ref() {
        match entry {
            Ok(entry) => {
                let at = Position {
                    sequence: entry.sequence,
                    generation: entry.generation,
                };
                line.first.get_or_insert(at);
                line.last = Some(at);
                line.last_at_ms = Some(entry.committed_at_ms);
            }
            Err(error) => line.problem = Some(wrong(dir, &error)?),
        }
    }
    line.torn = entries.torn().map(|torn| torn.sequence);
    Ok(line)
}

/// The first thing that is wrong, and all that it and what comes behind it cost.
fn wrong(dir: &Path, first: &log::LogError) -> Result<String, RecoverError> {
    let unreadable = log::unreadable(dir)?;
    let what = chain(first);
    Ok(match unreadable.is_empty() {
        true => what,
        false => format!("{what}. In all, these entries cannot be read: {unreadable}"),
    })
}

fn segments(dir: &Path) -> Result<Vec<SegmentLine>, RecoverError> {
    let failed = |source| RecoverError::Read {
        path: dir.to_owned(),
        source,
    };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let Some(first_sequence) = name
            .strip_suffix(".log")
            .and_then(|digits| digits.parse().ok())
        else {
            continue;
        };
        let metadata = fs::metadata(&path);
        found.push(SegmentLine {
            first_sequence,
            bytes: metadata.as_ref().map_or(0, fs::Metadata::len),
            modified: metadata.and_then(|found| found.modified()).ok(),
            path,
        });
    }
    found.sort_by_key(|segment| segment.first_sequence);
    Ok(found)
}

/// What a restore did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What kept outcomes of transactions from being carried over: a retry of one of them may be done twice. Damage behind
    /// the restored entry is in it too.
    pub missing: Vec<String>,
    /// Where the state stands now.
    pub position: Position,
    /// Where everything that was replaced is.
    pub set_aside: PathBuf,
    /// Rows of nodes, tasks and content.
    pub rows: [usize; 3],
}

/// What a restore moves, in order: `sherwood.restoring`.
#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    position: u64,
    generation: u64,
    rows: [usize; 3],
    set_aside: PathBuf,
    /// From and to, in the state directory.
    moves: Vec<(PathBuf, PathBuf)>,
    #[serde(default)]
    missing: Vec<String>,
}

/// Where a restore builds.
const NEW: &str = "sherwood.restore";

/// Makes the state after entry `to` the newest, and begins a new history (T1 to T3). Takes the state's lock.
///
/// A restore that was cut off is finished instead, whatever `to` is.
///
/// # Errors
///
/// [`RecoverError::Unreachable`] and what keeps files from being read: nothing was changed.
/// [`RecoverError::Restore`]: run it again.
pub fn restore(dir: &StateDir, to: u64) -> Result<Restored, RecoverError> {
    let root = dir.path();
    let _lock = Lock::acquire(
        &root.join(STATE_LOCK),
        &Holder::this_process(root, Path::new("")),
    )?;
    let marker = root.join(RESTORING);
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| RecoverError::Restore {
            action,
            path,
            source,
        }
    };
    let plan = match fs::read(&marker) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(io::Error::other)
            .map_err(failed("understand", &marker))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let plan = prepare(dir, to)?;
            serde_json::to_vec_pretty(&plan)
                .map_err(io::Error::other)
                .and_then(|bytes| durable::replace(root, RESTORING, &bytes))
                .map_err(failed("write", &marker))?;
            plan
        }
        Err(error) => return Err(failed("read", &marker)(error)),
    };
    let aside = root.join(&plan.set_aside);
    fs::create_dir_all(&aside).map_err(failed("make", &aside))?;
    for (from, to) in &plan.moves {
        let (from, to) = (root.join(from), root.join(to));
        let is_there = |path: &Path| fs::symlink_metadata(path).is_ok();
        // What was planned was there: a target that is there was moved before.
        if is_there(&from) && !is_there(&to) {
            fs::rename(&from, &to).map_err(failed("move", &from))?;
        }
    }
    for dir in [&aside, &root.join(SET_ASIDE), &root.to_path_buf()] {
        sync_directory(dir)?;
    }
    fs::remove_file(&marker).map_err(failed("remove", &marker))?;
    sync_directory(root)?;
    // Empty but for a hard link's name by now; nothing reads it.
    let _ = fs::remove_dir_all(root.join(NEW));
    Ok(Restored {
        position: Position {
            sequence: plan.position,
            generation: plan.generation,
        },
        set_aside: aside,
        rows: plan.rows,
        missing: plan.missing,
    })
}

/// Where a restore puts what it replaces, in the state directory.
pub const SET_ASIDE: &str = "set-aside";

/// Builds the restored state in [`NEW`] (T2).
fn prepare(dir: &StateDir, to: u64) -> Result<Plan, RecoverError> {
    let root = dir.path();
    let (state, position) = state_at(dir, to)?;
    let cluster = ClusterId::new(state.cluster_id()).map_err(|source| RecoverError::ClusterId {
        path: root.to_owned(),
        source,
    })?;
    let new = root.join(NEW);
    let failed = |action| {
        let path = new.clone();
        move |source| RecoverError::Restore {
            action,
            path,
            source,
        }
    };
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove")(error));
        }
        _ => {}
    }
    fs::create_dir(&new).map_err(failed("make"))?;
    let options = log::Options {
        position: position.sequence,
        base_generation: position.generation,
        ..log::Options::default()
    };
    // C6: the log first.
    drop(Log::open(&log::log_dir(&new), options, Arc::new(RealDisk))?);
    // A retry of what was acknowledged before is still answered, and not done again (O1).
    let missing = log::carry_outcomes(
        &log::log_dir(root),
        &log::log_dir(&new),
        position,
        &RealDisk,
    )?;
    // The public file stays as readable as it was; without one, as the daemon's default is.
    let mode = fs::metadata(root.join(cluster.state_file_name()))
        .map_or(0o644, |found| found.permissions().mode() & 0o777);
    let checkpoints = Checkpoints::open(&StateDir::open(&new)?, &cluster, mode)?;
    let snapshot = Snapshot::from_state(&state).map_err(CheckpointError::from)?;
    let written = checkpoints.write(&snapshot, position, &mut Free)?;
    checkpoints.publish(&written.path, &mut Free)?;
    sync_directory(&new)?;

    let set_aside = Path::new(SET_ASIDE).join(checkpoint::stamp());
    let public = cluster.state_file_name();
    let replaced = ["log", checkpoint::DIRECTORY, &public];
    let old = replaced.iter().chain(&["sherwood.generation"]);
    let mut moves: Vec<(PathBuf, PathBuf)> = old
        .filter(|name| fs::symlink_metadata(root.join(name)).is_ok())
        .map(|name| (PathBuf::from(name), set_aside.join(name)))
        .collect();
    moves.extend(
        replaced
            .iter()
            .map(|name| (Path::new(NEW).join(name), PathBuf::from(name))),
    );
    Ok(Plan {
        position: position.sequence,
        generation: position.generation,
        rows: rows(&state),
        set_aside,
        moves,
        missing,
    })
}

/// The state after entry `to`, from the newest good checkpoint before it.
fn state_at(dir: &StateDir, to: u64) -> Result<(State, Position), RecoverError> {
    let log_dir = log::log_dir(dir.path());
    let mut reasons = Vec::new();
    for listed in checkpoint::list(dir)? {
        if listed.sequence > to {
            reasons.push(format!(
                "{:?} holds entry {} already",
                listed.path, listed.sequence
            ));
            continue;
        }
        let (state, position) = match load(&listed, None) {
            Ok(loaded) => loaded,
            Err(error) => {
                reasons.push(format!(
                    "{:?} cannot be used ({})",
                    listed.path,
                    chain(&error)
                ));
                continue;
            }
        };
        if listed.sequence == to {
            return Ok((state, position));
        }
        if !has_log(&log_dir) {
            reasons.push(format!("there is no log behind {:?}", listed.path));
            continue;
        }
        match replay(&log_dir, listed.sequence, to) {
            Ok(replayed) => match replayed.position {
                Some(position) if position.sequence == to => {
                    return Ok((replayed.fold.finish(state)?, position));
                }
                last => {
                    let last = last.map_or(listed.sequence, |last| last.sequence);
                    reasons.push(format!("the log ends with entry {last}"));
                }
            },
            Err(error) => reasons.push(chain(&error)),
        }
    }
    if reasons.is_empty() {
        reasons.push("there is no checkpoint".to_owned());
    }
    Err(RecoverError::Unreachable {
        wanted: to,
        reach: reasons.join("; "),
    })
}

/// For tests: a restore that ends after some of its moves. Says how many there are.
#[cfg(test)]
pub(super) fn cut_off(dir: &StateDir, to: u64, moves: usize) -> Result<usize, RecoverError> {
    let plan = prepare(dir, to)?;
    let root = dir.path();
    let text = serde_json::to_vec(&plan).unwrap_or_default();
    durable::replace(root, RESTORING, &text).unwrap_or_default();
    let _ = fs::create_dir_all(root.join(&plan.set_aside));
    for (from, to) in plan.moves.iter().take(moves) {
        let _ = fs::rename(root.join(from), root.join(to));
    }
    Ok(plan.moves.len())
}
