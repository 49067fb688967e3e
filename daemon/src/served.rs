//! A cluster that is being served: its locks, its generations, its snapshot file.
//!
//! [`Served::begin`] is the start, in the order that makes it safe: the state's lock before
//! anything is looked at (W1), the state, the lock of the snapshot's name, a generation that is
//! durable (G1), and only then the snapshot file (W8). Whatever fails on the way, the last
//! snapshot file has not been touched.
//!
//! - **V4** Whatever may put a file at the snapshot's name (a publish, a beat, a start) first looks
//!   whether both locks are still the files at their names. A run directory that was wiped may
//!   hold the lock and the file of another daemon by now, and a living daemon's file must
//!   neither lose its name nor be marked.
//!
//! Not promised: V4 between that look and the rename. Who wipes a run directory and starts
//! another daemon there within that moment has two; the loser ends at its next beat.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use sherwood_client::Reader;
use sherwood_client::locate::{BadClusterId, ClusterId, LocateError, StateDir};
use sherwood_shared::schema::{SCHEMA_VERSION, TableId};
use sherwood_shared::state::State;
use tracing::{debug, info, warn};

use crate::config::Config;
use crate::ends::{Ends, Publish};
use crate::generation::{GenerationError, Generations, Seen};
use crate::lock::{Holder, Lock, LockError, STATE_LOCK};
use crate::log::chain;
use crate::metadata::Facts;
use crate::observe::{Attempt, FileId, Tried, try_file};
use crate::publish::{Options, PublishError, Published};
use crate::run_dir::{self, RunDirError};
use crate::watch::QUIET;

/// How often a start reads again a state file that changed under its reading.
const ATTEMPTS: u32 = 50;

/// Why a cluster is not served. The last snapshot file is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// W1, or the second lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The state directory or what is in it does not tell which file is the state.
    #[error(transparent)]
    Locate(#[from] LocateError),
    /// The state file is not good; it stays where it is.
    #[error("the state is not loaded: {what}")]
    Load {
        /// What is wrong with it, causes included.
        what: String,
    },
    /// Nothing says which cluster this is.
    #[error("{dir:?} holds no cluster state; to start an empty cluster there, give --cluster-id")]
    NoCluster {
        /// The state directory.
        dir: PathBuf,
    },
    /// A directory that is not empty is never taken for an empty cluster.
    #[error(
        "{dir:?} holds no state of the cluster {cluster}, but is not empty either: {}; restore the state, or move these files away to start an empty cluster",
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
    /// The state file's own cluster id cannot be a file name.
    #[error("the state file {path:?} has a cluster id that cannot name a snapshot")]
    ClusterId {
        /// The state file.
        path: PathBuf,
        /// What is wrong with the id.
        #[source]
        source: BadClusterId,
    },
    /// The run directory cannot be made, or is not safe to publish into.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// No generation to publish with.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// The snapshot file was not made.
    #[error("the snapshot is not published")]
    Publish(#[source] PublishError),
}

/// Why a state was not published. The last snapshot stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// V4. After [`LockError::Held`] this daemon must stop: another has the name.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// V4: the lock's directory is gone and cannot be made again.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// No generation to publish with.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// The publisher's reason.
    #[error("the snapshot is not published")]
    Publish(#[source] PublishError),
}

/// A cluster that is being served.
pub struct Served<P> {
    /// When its start began.
    began: Instant,
    dir: StateDir,
    cluster: ClusterId,
    holder: Holder,
    state_lock: Lock,
    run_lock: Arc<Lock>,
    generations: Generations,
    publisher: P,
    facts: Facts,
}

/// What is carried over when a replaced state directory is served anew.
pub struct Before {
    /// The cluster that is served, and stays.
    pub cluster: ClusterId,
    /// The lock of the snapshot's name.
    pub run_lock: Arc<Lock>,
    /// The published generation. Another directory may have counted less far, or not at all;
    /// readers still never see a smaller number under this name.
    pub generation: u64,
}

impl<P: Publish> Served<P> {
    /// Begins to serve. The second value is for the first look. With `before`, only the same cluster and never an empty one: a state that
    /// vanishes while the daemon runs is not replaced by nothing.
    pub fn begin<E: Ends<Publisher = P>>(
        ends: &E,
        config: &Config,
        before: Option<Before>,
    ) -> Result<(Self, Option<Tried>), StartError> {
        let began = Instant::now();
        let dir = StateDir::open(&config.state_dir)?;
        let run_dir = run_dir::absolute(&config.run_dir);
        let holder = Holder::this_process(dir.path(), &run_dir);
        let state_lock = Lock::acquire(&dir.path().join(STATE_LOCK), &holder)?;
        let Loaded {
            cluster,
            state,
            file,
            tried,
        } = load_state(ends, &dir, config, before.as_ref(), ATTEMPTS)?;
        let run_dir = run_dir::make(&run_dir)?;
        let (run_lock, above) = match before {
            Some(before) if before.run_lock.in_place() => (before.run_lock, before.generation),
            other => {
                let path = run_dir.join(format!("{cluster}.lock"));
                let lock = Arc::new(Lock::acquire(&path, &holder)?);
                (lock, other.map_or(0, |before| before.generation))
            }
        };
        if !run_dir::is_memory(&run_dir) {
            warn!(
                run_dir = %run_dir.display(),
                "the run directory is not on a tmpfs: snapshots work, but are written to a disk; prefer a directory under /run or /dev/shm"
            );
        }
        let (generations, first) = {
            let path = run_dir.join(cluster.snapshot_file_name());
            Generations::open(&dir, above, last_published(&path))?
        };
        let options = Options {
            run_dir,
            cluster_id: cluster.to_string(),
            state_dir: dir.identity(),
            history: generations.history(),
            region_bytes: config.region_bytes,
            chunk_bytes: config.chunk_bytes,
            mode: config.snapshot_mode,
        };
        let publisher = ends
            .start(options, &state, first)
            .map_err(StartError::Publish)?;
        let facts = Facts {
            cluster_id: cluster.to_string(),
            state_path: dir.path().to_path_buf(),
            parquet_path: file,
            snapshot_path: publisher.path().to_path_buf(),
            generation: publisher.generation(),
            history: generations.history_hex().to_owned(),
            schema_version: SCHEMA_VERSION,
            rows: rows(&state),
            daemon_pid: std::process::id(),
        };
        let served = Self {
            began,
            dir,
            cluster,
            holder,
            state_lock,
            run_lock,
            generations,
            publisher,
            facts,
        };
        Ok((served, tried))
    }

    /// Says in the log that readers find the snapshot: once the metadata leads there too.
    pub fn announce(&self) {
        let facts = &self.facts;
        info!(
            cluster = %self.cluster,
            nodes = facts.rows[0],
            tasks = facts.rows[1],
            content = facts.rows[2],
            generation = facts.generation,
            snapshot = %facts.snapshot_path.display(),
            state = %facts.parquet_path.as_deref().unwrap_or(self.dir.path()).display(),
            took_us = micros(self.began),
            "ready"
        );
    }

    /// Publishes what differs in `state`, read from `file`. `None`: nothing does.
    pub fn publish(&mut self, state: &State, file: &Path) -> Result<Option<Published>, ServeError> {
        self.keep_locks()?;
        self.generations.ensure(self.publisher.generation())?;
        let published = self.publisher.publish(state);
        // Also without room: the old state may have been moved together under a new number.
        self.facts.generation = self.publisher.generation();
        let published = published.map_err(ServeError::Publish)?;
        self.facts.rows = rows(state);
        self.facts.parquet_path = Some(file.to_path_buf());
        Ok(published)
    }

    /// To be called after a publish, when nobody waits any more: what it would have to wait for
    /// is made ready for the next one.
    pub fn housekeep(&mut self) -> Result<(), ServeError> {
        self.publisher.housekeep().map_err(ServeError::Publish)?;
        self.generations.top_up(self.publisher.generation())?;
        Ok(())
    }

    /// To be called each second. True: the snapshot file was gone and has been made again (W8).
    ///
    /// Whatever fails, a daemon that calls this has said that it lives (F11): readers take one
    /// that does not beat for hung, and a full disk is no reason to leave it.
    pub fn beat(&mut self) -> Result<bool, ServeError> {
        self.publisher.pulse();
        self.keep_locks()?;
        // W8 may come again in a beat, and takes a generation.
        self.generations.ensure(self.publisher.generation())?;
        let made_again = self.publisher.beat().map_err(ServeError::Publish)?;
        self.facts.generation = self.publisher.generation();
        self.generations.top_up(self.facts.generation)?;
        Ok(made_again)
    }

    /// What the metadata should say now.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The directory that is served.
    pub fn dir(&self) -> &StateDir {
        &self.dir
    }

    /// The cluster that is served.
    pub fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    /// V4: takes a lock again whose file was removed or replaced (K1).
    fn keep_locks(&mut self) -> Result<(), ServeError> {
        // In a directory that took the place of ours there is nothing to mend.
        let here = StateDir::open(self.dir.path());
        let is_ours = here.is_ok_and(|dir| dir.identity() == self.dir.identity());
        if is_ours && !self.state_lock.in_place() {
            self.state_lock = Lock::acquire(self.state_lock.path(), &self.holder)?;
            warn_of_lock(&self.state_lock);
        }
        if !self.run_lock.in_place() {
            // Gone with its directory, maybe, which then comes again as a start would make it.
            if let Some(run_dir) = self.run_lock.path().parent() {
                run_dir::make(run_dir)?;
            }
            self.run_lock = Arc::new(Lock::acquire(self.run_lock.path(), &self.holder)?);
            warn_of_lock(&self.run_lock);
        }
        Ok(())
    }

    /// What to carry over to the directory's successor.
    pub fn before(&self) -> Before {
        Before {
            cluster: self.cluster.clone(),
            run_lock: Arc::clone(&self.run_lock),
            generation: self.publisher.generation(),
        }
    }
}

struct Loaded {
    cluster: ClusterId,
    state: State,
    /// None for an empty cluster.
    file: Option<PathBuf>,
    tried: Option<Tried>,
}

fn load_state(
    ends: &impl Ends,
    dir: &StateDir,
    config: &Config,
    before: Option<&Before>,
    attempts_left: u32,
) -> Result<Loaded, StartError> {
    let served = before.map(|before| &before.cluster);
    let wanted = served.or(config.cluster_id.as_ref());
    let file = match (dir.state_file(wanted), wanted, before) {
        (Ok(file), _, _) => file,
        (Err(LocateError::Nothing { .. }), Some(cluster), None) => {
            return Ok(Loaded {
                cluster: cluster.clone(),
                state: begin_empty(ends, dir, cluster)?,
                file: None,
                tried: None,
            });
        }
        (Err(LocateError::Nothing { dir }), None, _) => {
            return Err(StartError::NoCluster { dir });
        }
        (Err(error), _, _) => return Err(error.into()),
    };
    let bad = |what| StartError::Load { what };
    let id = FileId::of(&file.path).map_err(|error| bad(format!("{:?}: {error}", file.path)))?;
    let (state, tried) = match try_file(ends, &file, id, None) {
        Attempt::Good(state, tried) => (state, tried),
        Attempt::Bad(_, what) => return Err(bad(what)),
        Attempt::Changed => {
            // A writer at work: the next turn finds what it left. Not endlessly many.
            return match attempts_left {
                0 => Err(bad(format!(
                    "{:?} changes all the time while it is read",
                    file.path
                ))),
                _ => {
                    std::thread::sleep(QUIET);
                    load_state(ends, dir, config, before, attempts_left - 1)
                }
            };
        }
    };
    let named = wanted.cloned().or_else(|| file.expected_cluster.clone());
    let cluster = match (named, cluster_in(&state)) {
        (Some(cluster), _) => cluster,
        (None, Some(id)) => ClusterId::new(&id).map_err(|source| StartError::ClusterId {
            path: file.path.clone(),
            source,
        })?,
        (None, None) => file.cluster_in_name.clone().ok_or_else(|| {
            bad(format!(
                "{:?} names no cluster; give --cluster-id",
                file.path
            ))
        })?,
    };
    Ok(Loaded {
        cluster,
        state,
        file: Some(file.path),
        tried: Some(tried),
    })
}

fn begin_empty(ends: &impl Ends, dir: &StateDir, cluster: &ClusterId) -> Result<State, StartError> {
    let found = dir.leftovers()?;
    if !found.is_empty() {
        return Err(StartError::NotEmpty {
            dir: dir.path().to_path_buf(),
            cluster: cluster.clone(),
            found,
        });
    }
    info!(
        cluster = %cluster,
        state_dir = %dir.path().display(),
        "the state directory is empty: starting an empty cluster"
    );
    Ok(ends.empty(cluster.as_str()))
}

/// The cluster's own word on its id.
fn cluster_in(state: &State) -> Option<String> {
    let column = state.cluster.column_by_name("cluster_id")?;
    let column = column.as_string_opt::<i32>()?;
    (column.len() == 1 && column.is_valid(0)).then(|| column.value(0).to_owned())
}

fn rows(state: &State) -> [usize; 3] {
    TableId::ALL.map(|table| state.table(table).num_rows())
}

/// What the snapshot file says that stands at `path`, if one does that can be read. The caller
/// holds the lock of the name, so it is the last one.
fn last_published(path: &Path) -> Option<Seen> {
    match Reader::open(path).and_then(|reader| reader.snapshot()) {
        Ok(snapshot) => Some(Seen {
            history: snapshot.history(),
            generation: snapshot.generation(),
        }),
        Err(error) => {
            debug!(error = chain(&error), "no earlier snapshot can be read");
            None
        }
    }
}

fn warn_of_lock(lock: &Lock) {
    warn!(
        path = %lock.path().display(),
        "the lock file had been removed or replaced; it was made again: leave it alone"
    );
}

/// Since `began`, in whole microseconds.
pub fn micros(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
}
