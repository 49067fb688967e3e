//! A cluster that is being served: its locks, its generations, its snapshot file.
//!
//! [`begin`] is the start, in the order that makes it safe: the state's lock before
//! anything is looked at (W1); the state, from the checkpoint and the log; the lock of the snapshot's name; a generation
//! that is durable (G1); the log, open for new entries; and only then the snapshot file (W8). Whatever fails on the way,
//! the last snapshot file has not been touched.
//!
//! - **V4** Whatever may put a file at the snapshot's name (a publish, a beat, a start) or an entry into the log first looks
//!   whether both locks are still the files at their names. A run directory that was wiped may
//!   hold the lock and the file of another daemon by now, and a living daemon's file must
//!   neither lose its name nor be marked.
//!
//! Not promised: V4 between that look and the rename. Who wipes a run directory and starts
//! another daemon there within that moment has two; the loser ends at its next beat.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use sherwood_client::locate::{ClusterId, LocateError, StateDir};
use sherwood_client::{ReadError, Reader, Snapshot};
use sherwood_shared::schema::{SCHEMA_VERSION, TableId};
use sherwood_store::checkpoint::{CheckpointError, Checkpoints, Free, Position};
use sherwood_store::lock::{Holder, Lock, LockError, STATE_LOCK};
use sherwood_store::log::{self as store_log, Log, LogError};
use sherwood_store::recover::{Adopted, RecoverError, Recovered, recover};
use sherwood_store::{Effects, Outcomes};
use tracing::{debug, info, warn};

use crate::config::Config;
use crate::ends::{Ends, Publish};
use crate::engine::{Engine, Stage, StageError, is_of_effects, wall_clock};
use crate::flight::Access;
use crate::foreign::{self, may_count};
use crate::generation::{GenerationError, Generations, Seen};
use crate::log::chain;
use crate::metadata::Facts;
use crate::publish::{Options, PublishError};
use crate::run_dir::{self, RunDirError};
use crate::scribe::is_here;

/// The engine of a served cluster.
pub type ServedEngine<P> = Engine<Served<P>, Log, Outcomes>;

/// Why a cluster is not served. The last snapshot file is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// W1, or the second lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The state directory cannot be looked at.
    #[error(transparent)]
    Locate(#[from] LocateError),
    /// The state does not come back. Everything is where it was.
    #[error("the state is not loaded")]
    Recover(#[source] Box<RecoverError>),
    /// A state that somebody left who may not write (FO1).
    #[error("the state is not loaded: {what}")]
    Owner {
        /// Whose it is, and what to do.
        what: String,
    },
    /// The log cannot be opened. Nothing in it was changed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The snapshot that was just made cannot be read.
    #[error("the snapshot cannot be read")]
    Read(#[from] ReadError),
    /// The first checkpoint cannot be written, without which no change may be logged.
    #[error("the first checkpoint is not written")]
    Checkpoint(#[from] CheckpointError),
    /// The run directory cannot be made, or is not safe to publish into.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// No generation to publish with.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// The snapshot file was not made.
    #[error("the snapshot is not published")]
    Publish(#[source] PublishError),
    /// No thread or no socket.
    #[error("cannot start {what}")]
    Part {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The log failed, and only a new start knows what it holds.
    #[error(transparent)]
    Fatal(#[from] crate::engine::Fatal),
}

impl From<RecoverError> for StartError {
    fn from(error: RecoverError) -> Self {
        Self::Recover(Box::new(error))
    }
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
    /// The state directory is gone, or another stands at its path: what is written now would be in the wrong place.
    #[error(
        "the state directory {path:?} was moved or replaced: put it back, or wait until the new one is served"
    )]
    Elsewhere {
        /// The path.
        path: PathBuf,
    },
    /// V4: another daemon has taken our place.
    #[error("another daemon serves this cluster by now, and this one stops")]
    Lost,
    /// The publisher's reason.
    #[error("{}", advice(source))]
    Publish {
        /// What it said.
        #[source]
        source: PublishError,
    },
}

/// What a person can do about it, where the error alone does not say.
fn advice(error: &PublishError) -> &'static str {
    match error {
        PublishError::Full { .. } => {
            "the snapshot is not published: free space on the run directory's file system, or enlarge it"
        }
        PublishError::TooLarge { .. } => "the state would outgrow the document's types",
        _ => "the snapshot is not published",
    }
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
    /// Of the last snapshot that could be read: nodes, tasks, content.
    rows: [usize; 3],
    /// Another daemon has taken our place (V4).
    lost: Option<LockError>,
    is_lost: bool,
    /// The state file that readers of files find; `None`: there is none yet.
    pub parquet_path: Option<PathBuf>,
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

/// A cluster whose start is done.
pub struct Begun<P> {
    /// The engine, with the cluster in it.
    pub engine: ServedEngine<P>,
    /// Its checkpoints.
    pub checkpoints: Arc<Checkpoints>,
    /// Where the log stood.
    pub position: Position,
    /// The newest private checkpoint.
    pub checkpoint: PathBuf,
    /// Is the public file to be written again?
    pub public_is_stale: bool,
    /// The file that the state was read from, if no checkpoint was there.
    pub adopted: Option<Adopted>,
    /// Entries behind the newest checkpoint.
    pub replayed: u64,
    /// A foreign file that is the base, and cannot be written as such (FO4).
    pub merged: Option<Bytes>,
}

/// Begins to serve. With `before`, only the same cluster and never an empty one: a state that
/// vanishes while the daemon runs is not replaced by nothing.
pub fn begin<E: Ends>(
    ends: &E,
    config: &Config,
    before: Option<Before>,
) -> Result<Begun<E::Publisher>, StartError> {
    let began = Instant::now();
    let dir = StateDir::open(&config.state_dir)?;
    let run_dir = run_dir::absolute(&config.run_dir);
    let holder = Holder::this_process(dir.path(), &run_dir);
    let state_lock = Lock::acquire(&dir.path().join(STATE_LOCK), &holder)?;
    let wanted = before.as_ref().map(|before| &before.cluster);
    let recovered = recover(&dir, wanted.or(config.cluster_id.as_ref()))?;
    let is_empty = recovered.checkpoint.is_none() && recovered.adopted.is_none();
    if before.is_some() && is_empty {
        let dir = dir.path().to_path_buf();
        return Err(LocateError::Nothing { dir }.into());
    }
    if let Some(adopted) = &recovered.adopted {
        let owner = adopted.seen.uid();
        let (access, _) = Access::resolve(&config.access.users, &config.access.groups);
        may_count(&adopted.path, owner, &access).map_err(|what| StartError::Owner { what })?;
    }
    tell(&recovered, &dir, is_empty);
    let cluster = recovered.cluster.clone();
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
    // Before anything is written: what it removes may be all the room there is.
    let checkpoints = Checkpoints::open(&dir, &cluster, config.snapshot_mode & 0o666)?;
    let (generations, first) = {
        let path = run_dir.join(cluster.snapshot_file_name());
        let above = above.max(recovered.position.generation);
        Generations::open(&dir, above, last_published(&path))?
    };
    let position = recovered.position;
    let (log, opened) = Log::open_real(
        &store_log::log_dir(dir.path()),
        store_log::Options {
            position: position.sequence,
            base_generation: first,
            history: generations.history(),
            segment_bytes: config.log_segment_bytes,
            ..store_log::Options::default()
        },
    )?;
    checkpoints.set_damaged_aside(&recovered.damaged)?;
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
        .start(options, &recovered.state, first)
        .map_err(StartError::Publish)?;
    drop(recovered.state);
    let public = checkpoints.public_path().to_path_buf();
    let mut served = Served {
        began,
        dir,
        cluster,
        holder,
        state_lock,
        run_lock,
        generations,
        publisher,
        rows: [0; 3],
        lost: None,
        is_lost: false,
        parquet_path: recovered
            .adopted
            .as_ref()
            .map(|adopted| adopted.path.clone())
            .or_else(|| public.exists().then_some(public)),
    };
    let replayed = match &recovered.checkpoint {
        Some(checkpoint) => position.sequence - checkpoint.sequence,
        None => 0,
    };
    let mut merged = None;
    let checkpoint = match recovered.checkpoint {
        Some(checkpoint) => {
            match foreign::settle(&checkpoints, &opened.outcomes, recovered.foreign.as_deref()) {
                Ok(unwritten) => merged = unwritten,
                Err(why) => warn!(
                    reason = why,
                    "what was merged last is not told from what is new: if the last daemon ended in that moment, it is merged once more"
                ),
            }
            checkpoint.path
        }
        // Before the first entry is logged (C6).
        None => {
            let snapshot = served.publisher.snapshot()?;
            let written = checkpoints.write(&snapshot, position, &mut Free)?;
            // What another program left is the first base: as we read it, since it may have been replaced meanwhile.
            checkpoints.base_on(&written.path)?;
            written.path
        }
    };
    Ok(Begun {
        engine: Engine::new(served, log, opened.outcomes, wall_clock()),
        checkpoints: Arc::new(checkpoints),
        position,
        checkpoint,
        public_is_stale: recovered.public_is_stale,
        adopted: recovered.adopted,
        replayed,
        merged,
    })
}

fn tell(recovered: &Recovered, dir: &StateDir, is_empty: bool) {
    for warning in &recovered.warnings {
        warn!("{warning}");
    }
    if is_empty {
        info!(
            cluster = %recovered.cluster,
            state_dir = %dir.path().display(),
            "the state directory is empty: starting an empty cluster"
        );
    }
}

impl<P: Publish> Served<P> {
    /// Says in the log that readers find the snapshot: once the metadata leads there too.
    pub fn announce(&mut self, replayed: u64) {
        let facts = self.facts();
        info!(
            cluster = %self.cluster,
            nodes = facts.rows[0],
            tasks = facts.rows[1],
            content = facts.rows[2],
            generation = facts.generation,
            snapshot = %facts.snapshot_path.display(),
            state = %facts.parquet_path.as_deref().unwrap_or(self.dir.path()).display(),
            log_entries = replayed,
            took_us = micros(self.began),
            "ready"
        );
    }

    /// To be called after a publish, when nobody waits any more: what it would have to wait for
    /// is made ready for the next one.
    pub fn housekeep(&mut self) -> Result<(), ServeError> {
        self.publisher
            .housekeep()
            .map_err(|source| ServeError::Publish { source })?;
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
        let made_again = self
            .publisher
            .beat()
            .map_err(|source| ServeError::Publish { source })?;
        self.generations.top_up(self.publisher.generation())?;
        Ok(made_again)
    }

    /// What the metadata should say now.
    pub fn facts(&mut self) -> Facts {
        if let Ok(snapshot) = self.publisher.snapshot() {
            let rows = |id| usize::try_from(snapshot.table(id).len()).unwrap_or(usize::MAX);
            self.rows = TableId::ALL.map(rows);
        }
        Facts {
            cluster_id: self.cluster.to_string(),
            state_path: self.dir.path().to_path_buf(),
            parquet_path: self.parquet_path.clone(),
            snapshot_path: self.publisher.path().to_path_buf(),
            generation: self.publisher.generation(),
            history: self.generations.history_hex().to_owned(),
            schema_version: SCHEMA_VERSION,
            rows: self.rows,
            daemon_pid: std::process::id(),
        }
    }

    /// V4: who has taken our place, if somebody did; then this daemon must stop.
    pub fn take_lost(&mut self) -> Option<LockError> {
        self.lost.take()
    }

    /// The directory that is served.
    pub fn dir(&self) -> &StateDir {
        &self.dir
    }

    /// The cluster that is served.
    pub fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    /// The snapshot file.
    pub fn snapshot_path(&self) -> &Path {
        self.publisher.path()
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

impl<P: Publish> Stage for Served<P> {
    type Staged = P::Staged;

    fn stage(&mut self, effects: &Effects) -> Result<Option<P::Staged>, StageError> {
        self.may_log()?;
        self.generations
            .ensure(self.publisher.generation())
            .map_err(|error| StageError::Passing(ServeError::from(error).into()))?;
        self.publisher.stage(effects).map_err(|source| {
            let is_of_effects = is_of_effects(&source);
            let told = ServeError::Publish { source }.into();
            match is_of_effects {
                true => StageError::Effects(told),
                false => StageError::Passing(told),
            }
        })
    }

    /// V4, once and for all: who has our place may have logged by now, even if it ends again.
    fn may_log(&mut self) -> Result<(), StageError> {
        if self.is_lost {
            return Err(StageError::Lost(ServeError::Lost.into()));
        }
        if !is_here(&self.dir) {
            let path = self.dir.path().to_path_buf();
            return Err(StageError::Passing(ServeError::Elsewhere { path }.into()));
        }
        match self.keep_locks() {
            Ok(()) => Ok(()),
            Err(ServeError::Lock(error @ LockError::Held { .. })) => {
                self.is_lost = true;
                self.lost = Some(error);
                Err(StageError::Lost(ServeError::Lost.into()))
            }
            Err(error) => Err(StageError::Passing(error.into())),
        }
    }

    fn staged_generation(&self, staged: &P::Staged) -> u64 {
        P::staged_generation(staged)
    }

    fn commit(&mut self, staged: P::Staged) {
        let published = self.publisher.commit(staged);
        debug!(
            generation = published.generation,
            chunks_written = published.chunks_written,
            chunks_moved = published.chunks_moved,
            chunks_shared = published.chunks_shared,
            bytes_written = published.bytes_written,
            "published"
        );
    }

    fn abandon(&mut self, staged: P::Staged) {
        self.publisher.abandon(staged);
    }

    fn snapshot(&mut self) -> Result<Snapshot, ReadError> {
        self.publisher.snapshot()
    }

    fn generation(&self) -> u64 {
        self.publisher.generation()
    }
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
