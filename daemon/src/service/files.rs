//! Checkpoints and metadata: when, and what came of them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sherwood_store::checkpoint::{Checkpoints, Free, Position};
use tracing::{debug, info, warn};

use super::{Event, RETRY_INTERVAL, Service, StartError, part};
use crate::cadence::{COURTESY, Cadence};
use crate::ends::{Ends, Publish};
use crate::engine::Stage;
use crate::log::chain;
use crate::log_keeper::Chore;
use crate::metadata::{MetadataError, MetadataKeeper};
use crate::observe::FileId;
use crate::scribe::{Job, Known, Report, Scribe, checkpoint, is_here, publish};
use crate::served::ServedEngine;

/// How soon to try the public name again while somebody else is at work there.
const HELD_FOR: Duration = Duration::from_millis(500);

/// How soon to make room again on a full disk that still has none.
const ROOM_INTERVAL: Duration = Duration::from_secs(1);

/// What the loop knows of the files that it keeps true.
pub(super) struct Files {
    scribe: Scribe,
    cadence: Cadence,
    /// The newest private checkpoint.
    newest: PathBuf,
    /// The public file is to become the newest checkpoint, at that time.
    public_due: Option<Instant>,
    pub(super) is_publishing: bool,
    /// What that was allowed to take the name from.
    replaces: Option<FileId>,
    metadata_due: Option<Instant>,
    is_writing_metadata: bool,
    /// Room is not made again before.
    next_room: Instant,
    is_making_room: bool,
}

impl Files {
    /// Makes the metadata true, so that readers find the snapshot, and starts the scribe.
    pub(super) fn begin<P: Publish>(
        engine: &mut ServedEngine<P>,
        checkpoints: &Arc<Checkpoints>,
        events: &Sender<Event>,
        (newest, through): (PathBuf, u64),
        public_is_stale: bool,
        is_behind: bool,
        epoch: u64,
    ) -> Result<Self, StartError> {
        let now = Instant::now();
        // L15.
        let bytes = std::fs::metadata(&newest).map_or(0, |found| found.len());
        engine.journal().keeper().has_checkpoint(bytes, through);
        let mut keeper = MetadataKeeper::new(engine.publisher().dir().path());
        let metadata_due = match keeper.tend(&engine.publisher().facts(), now) {
            Ok(due) => due,
            Err(error) => {
                warn!(error = chain(&error), "the metadata is not up to date");
                Some(now + RETRY_INTERVAL)
            }
        };
        let events = events.clone();
        let report = move |report| {
            let _loop_has_ended = events.send(Event::Report(epoch, report));
        };
        let dir = engine.publisher().dir().clone();
        let scribe = Scribe::start(Arc::clone(checkpoints), keeper, dir, report)
            .map_err(part("the thread that writes checkpoints"))?;
        let mut cadence = Cadence::default();
        if is_behind {
            cadence.changed(now);
        }
        Ok(Self {
            scribe,
            cadence,
            newest,
            public_due: public_is_stale.then_some(now),
            is_publishing: false,
            replaces: None,
            metadata_due,
            is_writing_metadata: false,
            next_room: now,
            is_making_room: false,
        })
    }

    /// The state changed.
    pub(super) fn changed(&mut self, now: Instant) {
        self.cadence.changed(now);
        self.owe_metadata(now);
    }

    /// The metadata does not say what is so.
    pub(super) fn owe_metadata(&mut self, now: Instant) {
        if !self.is_writing_metadata {
            self.metadata_due.get_or_insert(now);
        }
    }

    /// A look has ended: what it held up may go on.
    pub(super) fn tend_metadata_at(&mut self, now: Instant) {
        self.owe_metadata(now);
    }

    /// The public file is missing, cannot be found or was refused: give whoever may be replacing or finishing it a moment.
    pub(super) fn owe_public(&mut self, now: Instant) {
        self.public_due.get_or_insert(now + COURTESY);
    }

    /// The log has no room (L5, L15). The next checkpoint lets some of it go; where none is owed only what is kept in case is left.
    pub(super) fn log_is_full(&mut self, now: Instant) {
        if self.cadence.is_idle() {
            self.make_room(now);
        }
    }

    /// The disk is full, of our own files perhaps.
    fn make_room(&mut self, now: Instant) {
        if now >= self.next_room && !self.is_making_room && self.ask(Job::MakeRoom) {
            self.next_room = now + ROOM_INTERVAL;
            self.is_making_room = true;
        }
    }

    /// Asks the scribe.
    fn ask(&self, job: Job) -> bool {
        self.scribe.ask(job)
    }

    /// A foreign file becomes the base (SC4).
    pub(super) fn set_base(&self, merged: Bytes) -> bool {
        self.scribe.set_base(merged)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let public = self.public_due.filter(|_| !self.is_publishing);
        let metadata = self.metadata_due.filter(|_| !self.is_writing_metadata);
        [self.cadence.due(), public, metadata]
            .into_iter()
            .flatten()
            .min()
    }
}

impl<E: Ends> Service<E> {
    pub(super) fn tend_files(&mut self, now: Instant) {
        if self.files.cadence.due().is_some_and(|due| due <= now) {
            // The snapshot of exactly this position, or none.
            let position = self.position();
            let asked = match self.engine.publisher().snapshot() {
                Ok(snapshot) => self.files.ask(Job::Checkpoint { snapshot, position }),
                Err(error) => {
                    let text = chain(&error);
                    if self.troubles.checkpoint.is_new(&text) {
                        warn!(
                            error = text,
                            "the snapshot cannot be read for a checkpoint; it is tried again"
                        );
                    }
                    false
                }
            };
            match asked {
                true => self.files.cadence.began(),
                false => self.files.cadence.failed(now),
            }
        }
        let public_is_due = self.files.public_due.is_some_and(|due| due <= now);
        if public_is_due && self.looks.is_base_asked() {
            // What it would take the name from becomes the base first, or would be later than it.
            self.files.public_due = Some(now + HELD_FOR);
        } else if public_is_due && !self.files.is_publishing {
            self.files.public_due = None;
            self.files.replaces = self.looks.known.id();
            self.files.is_publishing = self.files.ask(Job::Publish {
                checkpoint: self.files.newest.clone(),
                known: self.looks.known.clone(),
            });
        }
        if !self.files.is_writing_metadata && self.files.metadata_due.is_some_and(|due| due <= now)
        {
            self.files.metadata_due = None;
            // What somebody has just written there is looked at first, so that what is wrong with
            // it is told and not painted over. The end of that look comes back here.
            if !self.looks.is_due() {
                let facts = self.engine.publisher().facts();
                self.files.is_writing_metadata = self.files.ask(Job::Metadata(facts));
            }
        }
    }

    /// Where the published state stands in the log.
    fn position(&mut self) -> Position {
        Position {
            sequence: self.engine.journal().next_sequence() - 1,
            generation: self.engine.publisher().generation(),
        }
    }

    pub(super) fn on_report(&mut self, report: Report) {
        let now = Instant::now();
        match report {
            Report::Checkpoint {
                path,
                position,
                bytes,
                release,
            } => {
                self.files.cadence.succeeded();
                let keeper = self.engine.journal().keeper();
                keeper.has_checkpoint(bytes, position.sequence);
                self.files.newest = path;
                self.files.public_due.get_or_insert(now);
                debug!(
                    sequence = position.sequence,
                    generation = position.generation,
                    bytes,
                    "checkpoint"
                );
                if self.troubles.checkpoint.is_over() {
                    info!("checkpoints are written again");
                }
                if release > 0 {
                    let _it_lives = self.log_keeper.send(Chore::Release(release));
                }
            }
            Report::CheckpointFailed(error) => {
                self.files.cadence.failed(now);
                if error.is_full() {
                    self.files.make_room(now);
                }
                let text = chain(&error);
                if self.troubles.checkpoint.is_new(&text) {
                    warn!(
                        error = text,
                        "no checkpoint is written; the log holds everything, grows, and it is tried again"
                    );
                }
            }
            Report::Published {
                id,
                displaced,
                checkpoint,
            } => {
                self.files.is_publishing = false;
                let public = self.checkpoints.public_path().to_path_buf();
                let came_out = displaced.is_some();
                let displaced = displaced.filter(|displaced| !self.looks.has_merged(displaced));
                let is_merged = came_out && displaced.is_none();
                if is_merged || !self.looks.known.is_newer(self.files.replaces, id) {
                    self.looks.wrote(&public, id);
                }
                self.ask_for_base();
                self.engine.publisher().parquet_path = Some(public);
                self.files.owe_metadata(now);
                if self.files.newest != checkpoint {
                    self.files.public_due.get_or_insert(now);
                }
                if let Some(displaced) = displaced {
                    warn!(
                        file = %displaced.path.display(),
                        reason = %displaced.reason.display(),
                        "a foreign file was moved aside, and is looked at there for a while"
                    );
                    self.looks
                        .moved_aside(displaced.path, displaced.reason, now);
                }
                if self.troubles.public.is_over() {
                    info!("the state file is written again");
                }
            }
            Report::Held { .. } => {
                self.files.is_publishing = false;
                self.ask_for_base();
                self.files.public_due.get_or_insert(now + HELD_FOR);
                // What stands there may be new to us.
                self.looks.poll_at(now);
            }
            Report::PublishFailed { error, .. } => {
                self.files.is_publishing = false;
                self.ask_for_base();
                self.files.public_due.get_or_insert(now + RETRY_INTERVAL);
                let text = chain(&error);
                if self.troubles.public.is_new(&text) {
                    warn!(
                        error = text,
                        "the state file is not written; the private checkpoint and the log hold everything"
                    );
                }
            }
            Report::Room(Ok(room)) => {
                self.files.is_making_room = false;
                if room.through > 0 {
                    let _it_lives = self.log_keeper.send(Chore::Release(room.through));
                }
                if room.given_up > 0 {
                    // There may be more to give up, if that was not enough.
                    self.files.next_room = now;
                    warn!(
                        files = room.given_up,
                        sequence = room.through,
                        "the disk is full: what is kept in case of damage is given up for room: an older checkpoint, the log before the newest, and then older bases"
                    );
                    // Enough for a checkpoint, perhaps, and then more of the log goes.
                    self.files.cadence.hurry();
                }
            }
            Report::Room(Err(error)) => {
                self.files.is_making_room = false;
                debug!(error = chain(&error), "no room is made on the full disk");
            }
            Report::Base(result) => {
                self.looks.base_came(result.is_ok(), now);
                match result {
                    Ok(()) => {
                        if self.troubles.base.is_over() {
                            info!("foreign files are kept as the next base again");
                        }
                    }
                    Err(error) => {
                        if error.is_full() {
                            self.files.make_room(now);
                        }
                        let text = chain(&error);
                        if self.troubles.base.is_new(&text) {
                            warn!(
                                error = text,
                                "a foreign file is merged, but cannot be kept for comparison on disk; it is kept in memory, and tried again"
                            );
                        }
                    }
                }
            }
            Report::Metadata(result) => {
                self.files.is_writing_metadata = false;
                self.on_metadata(result, now);
            }
        }
    }

    fn on_metadata(&mut self, result: Result<Option<Instant>, MetadataError>, now: Instant) {
        match result {
            Ok(Some(due)) => self.files.metadata_due = Some(due),
            Ok(None) => {
                if self.troubles.metadata.is_over() {
                    info!("the metadata is up to date again");
                }
            }
            // The look says so too, and better.
            Err(MetadataError::Unreadable(error)) => {
                debug!(error = chain(&error), "the metadata is left alone");
            }
            Err(error) => {
                self.files.metadata_due = Some(now + RETRY_INTERVAL);
                let text = chain(&error);
                if self.troubles.metadata.is_new(&text) {
                    warn!(error = text, "the metadata is not up to date");
                }
            }
        }
    }

    /// At a stop, so that who reads the file reads the last state: best effort, the log holds it all.
    pub(super) fn last_checkpoint(&mut self) {
        self.files.scribe.stop();
        if !is_here(self.engine.publisher().dir()) {
            return;
        }
        let snapshot = self.engine.publisher().snapshot();
        if let (false, Ok(snapshot)) = (self.files.cadence.is_idle(), snapshot) {
            let position = self.position();
            match checkpoint(&self.checkpoints, &snapshot, position, &mut Free) {
                Report::Checkpoint { path, .. } => {
                    self.files.newest = path;
                    self.files.public_due = Some(Instant::now());
                }
                Report::CheckpointFailed(error) => warn!(
                    error = chain(&error),
                    "no last checkpoint; the log holds everything"
                ),
                _ => {}
            }
        }
        if self.files.public_due.is_some() || self.files.is_publishing {
            let (newest, known): (PathBuf, Known) =
                (self.files.newest.clone(), self.looks.known.clone());
            match publish(&self.checkpoints, newest, &known, &mut Free) {
                Report::Published { .. } => {}
                other => debug!(?other, "the state file is not the last checkpoint"),
            }
        }
        let mut keeper = MetadataKeeper::new(self.engine.publisher().dir().path());
        let facts = self.engine.publisher().facts();
        if let Err(error) = keeper.tend(&facts, Instant::now()) {
            debug!(error = chain(&error), "the metadata is not up to date");
        }
    }
}
