//! Foreign files: looking, merging, refusing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sherwood_store::checkpoint::Rejected;
use sherwood_store::merge::Diff;
use sherwood_store::recover::Adopted;
use tracing::{debug, error, info, warn};

use super::aside::Aside;
use super::{Event, RETRY_INTERVAL, Requests, Service, StartError, part};
use crate::ends::Ends;
use crate::engine::Stage;
use crate::foreign::{Comparer, Content, aside_id, merge_id};
use crate::observe::{FileId, Request, Sight, Tried, observe};
use crate::scribe::Known;
use crate::served::micros;
use crate::watch::{Hint, Settle};

/// How soon to look again after a look that was not conclusive.
const SECOND_LOOK: Duration = Duration::from_millis(100);

/// So many looks in a row that find the file changing are a writer's mistake.
const RESTLESS_LOOKS: u32 = 50;

/// So often a merge is tried that fails, some seconds apart: a full disk may be over by then.
const MERGES: u32 = 12;

/// What the loop knows of foreign files.
pub(super) struct Looks {
    looker: Requests,
    settle: Settle,
    tried: Option<Tried>,
    looking: bool,
    owed: bool,
    /// Looks in a row that found the file changing.
    restless: u32,
    next_poll: Instant,
    /// Merges in a row that failed.
    failed_merges: u32,
    /// When to read again what could not be merged.
    next_retry: Option<Instant>,
    /// FO4: what was merged last, until the scribe has made it the base.
    merged: Option<Bytes>,
    /// So often is the scribe asked for that now.
    bases_asked: u32,
    /// When to ask again.
    base_due: Option<Instant>,
    /// What stands at the public name.
    pub(super) known: Known,
    /// Files that were moved aside and may be finished there.
    pub(super) aside: Vec<Aside>,
}

/// A foreign file's changes.
struct Found {
    changes: Box<Diff>,
    bytes: Bytes,
    content: Content,
    file: PathBuf,
    tried: Tried,
}

impl Looks {
    /// Starts the looker.
    pub(super) fn begin<E: Ends>(
        ends: &Arc<E>,
        events: &Sender<Event>,
        (merged, aside): (Option<Bytes>, Vec<Aside>),
        now: Instant,
    ) -> Result<Self, StartError> {
        let (looker, requests) = mpsc::channel::<Request>();
        let (ends, events) = (Arc::clone(ends), events.clone());
        let work = move || {
            for request in requests {
                let sight = observe(ends.as_ref(), &request);
                if events.send(Event::Sight(sight)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("looker".to_owned())
            .spawn(work)
            .map_err(part("the thread that reads states"))?;
        Ok(Self {
            looker,
            settle: Settle::default(),
            tried: None,
            looking: false,
            owed: false,
            restless: 0,
            next_poll: now,
            failed_merges: 0,
            next_retry: None,
            base_due: merged.is_some().then_some(now),
            merged,
            bases_asked: 0,
            known: Known::Nothing,
            aside,
        })
    }

    /// The next look tries whatever stands there.
    pub(super) fn forget(&mut self) {
        self.tried = None;
        self.next_retry = None;
    }

    /// Another directory is served from now on.
    pub(super) fn begin_anew(
        &mut self,
        (merged, aside): (Option<Bytes>, Vec<Aside>),
        now: Instant,
    ) {
        self.forget();
        self.failed_merges = 0;
        self.base_due = merged.is_some().then_some(now);
        self.merged = merged;
        self.bases_asked = 0;
        self.known = Known::Nothing;
        self.aside = aside;
    }

    /// What stood there at the start is the state, and need not be read again.
    pub(super) fn adopted(&mut self, adopted: Option<Adopted>, now: Instant) {
        if let Some(Adopted { path, seen, at }) = adopted {
            let id = FileId::from(&seen);
            // Else a write of the same moment, after it was read, would not show.
            if id.is_settled(at) {
                self.tried = Some(Tried::of(&path, id, None));
                self.known = Known::Merged(id, now);
            }
        }
    }

    pub(super) fn poll_at(&mut self, now: Instant) {
        self.next_poll = self.next_poll.min(now);
    }

    /// A look is owed or about to be.
    pub(super) fn is_due(&self) -> bool {
        self.owed || self.settle.due().is_some()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.settle.due(), self.next_retry, self.base_due]
            .into_iter()
            .flatten()
            .chain([self.next_poll])
            .min()
    }

    /// We have written the public file ourselves.
    pub(super) fn wrote(&mut self, path: &Path, id: FileId) {
        self.tried = Some(Tried::ours(path.to_path_buf(), id));
        self.known = Known::Ours(id);
        self.merged = None;
        self.base_due = None;
    }

    /// Was this file merged while our checkpoint was on its way to its place? Then it goes: what it changed is in the state, and once
    /// more would undo what came after.
    pub(super) fn has_merged(&self, displaced: &Rejected) -> bool {
        let found = FileId::of(&displaced.path);
        let is_it = matches!(&self.known, Known::Merged(id, _) if found.is_ok_and(|found| id.is_renamed(found)));
        if is_it {
            for path in [&displaced.path, &displaced.reason] {
                if let Err(error) = std::fs::remove_file(path) {
                    debug!(path = %path.display(), %error, "a merged file stays aside");
                }
            }
        }
        is_it
    }

    /// The scribe has made a foreign file the base, or could not. Until it can, the base is in memory (FO4).
    pub(super) fn base_came(&mut self, is_there: bool, now: Instant) {
        self.bases_asked = self.bases_asked.saturating_sub(1);
        if self.bases_asked > 0 || self.merged.is_none() {
            return;
        }
        match is_there {
            true => self.merged = None,
            false => self.base_due = Some(now + RETRY_INTERVAL),
        }
    }

    /// Is a foreign file being made the base at this moment?
    pub(super) fn is_base_asked(&self) -> bool {
        self.bases_asked > 0
    }
}

impl<E: Ends> Service<E> {
    pub(super) fn tend_looks(&mut self, now: Instant) -> Result<(), StartError> {
        if self.looks.settle.take(now) {
            self.look();
        }
        if now >= self.looks.next_poll {
            self.looks.next_poll = now + self.poll_interval();
            if self.watch.is_none() {
                self.start_watch();
            }
            self.look();
        }
        if self.looks.base_due.is_some_and(|due| due <= now) {
            self.ask_for_base();
        }
        if self.looks.next_retry.is_some_and(|due| due <= now) {
            self.looks.forget();
            for aside in &mut self.looks.aside {
                aside.seen = None;
            }
            self.look();
        }
        Ok(())
    }

    pub(super) fn on_hint(&mut self, hint: Hint) {
        if hint == Hint::Gone {
            // The inode's watch is gone with it, or follows it elsewhere.
            self.watch = None;
            self.blind = true;
            self.looks.next_poll = Instant::now();
        } else {
            self.looks.settle.note(hint, Instant::now());
        }
    }

    /// V3.
    pub(super) fn look(&mut self) {
        if self.looks.looking {
            self.looks.owed = true;
            return;
        }
        let tried = self.looks.tried.clone();
        let request = self.request(tried, None);
        self.ask(request);
    }

    pub(super) fn request(&mut self, tried: Option<Tried>, aside: Option<PathBuf>) -> Request {
        let served = self.engine.publisher();
        Request {
            dir: served.dir().clone(),
            cluster: served.cluster().clone(),
            without_file: served.parquet_path.is_none(),
            tried,
            comparer: Comparer {
                checkpoints: Arc::clone(&self.checkpoints),
                access: Arc::clone(&self.access),
                cluster: served.cluster().clone(),
                merged: self.looks.merged.clone(),
            },
            aside,
        }
    }

    pub(super) fn ask(&mut self, request: Request) {
        self.looks.looking = self.looks.looker.send(request).is_ok();
        if !self.looks.looking && self.troubles.watch.is_new("looker") {
            error!("the thread that reads states has ended; restart sherwoodd");
        }
    }

    pub(super) fn on_sight(&mut self, sight: Sight) -> Result<(), StartError> {
        self.looks.looking = false;
        if !matches!(sight, Sight::Changing { .. }) {
            self.looks.restless = 0;
        }
        let now = Instant::now();
        match sight {
            Sight::Unchanged { tried } => {
                let aside = tried.as_ref().filter(|tried| !self.is_public(tried.path()));
                if let Some(aside) = aside.map(|tried| tried.path().to_owned()) {
                    // Kept, it would be compared with later bases, and its values be taken for changes.
                    self.finished_aside(&aside);
                } else {
                    self.state_is_good();
                }
                if let Some(tried) = tried {
                    debug!(file = %tried.path().display(), "read again: nothing differs");
                    self.came_to_know(&tried, now);
                    self.conclude(tried, now);
                }
            }
            Sight::Foreign {
                changes,
                bytes,
                content,
                file,
                tried,
            } => {
                self.state_is_good();
                self.conclude(tried.clone(), now);
                self.merge_found(Found {
                    changes,
                    bytes,
                    content,
                    file,
                    tried,
                })?;
            }
            Sight::Refused { what, tried } => {
                match tried.as_ref().map(Tried::path) {
                    Some(path) if !self.is_public(path) => self.refuse_aside(path, &what),
                    _ => self.refuse(&what),
                }
                match tried {
                    Some(tried) => {
                        self.came_to_know(&tried, now);
                        self.conclude(tried, now);
                    }
                    // No file there, or none that can be told: ours comes back, in time.
                    None => self.files.owe_public(now),
                }
            }
            Sight::Changing { file } => self.on_changing(&file, now),
            Sight::Replaced => self.move_to_successor()?,
        }
        if !self.looks.looking {
            self.look_aside(now);
        }
        if !self.looks.looking && std::mem::take(&mut self.looks.owed) {
            self.look();
        }
        self.files.tend_metadata_at(now);
        Ok(())
    }

    /// For the next look.
    fn conclude(&mut self, tried: Tried, now: Instant) {
        if !tried.is_conclusive() {
            self.looks.next_poll = self.looks.next_poll.min(now + SECOND_LOOK);
        }
        if self.is_public(tried.path()) {
            self.looks.tried = Some(tried);
        }
    }

    fn is_public(&self, path: &Path) -> bool {
        !self.looks.is_aside(path)
    }

    fn came_to_know(&mut self, tried: &Tried, now: Instant) {
        if self.is_public(tried.path()) && self.looks.known.id() != Some(tried.id()) {
            self.looks.known = match tried.refusal() {
                None => Known::Merged(tried.id(), now),
                Some(why) => {
                    // Who reads the file there deserves a good one, also while nobody writes.
                    self.files.owe_public(now);
                    Known::Refused(tried.id(), now, why.to_owned())
                }
            };
        }
    }

    fn merge_found(&mut self, found: Found) -> Result<(), StartError> {
        let began = Instant::now();
        let rows = found.changes.rows();
        // Nothing comes between this and the entry: all of it is this thread's work.
        let id = match self.is_public(&found.file) {
            true => merge_id(&found.content, self.engine.journal().next_sequence()),
            false => aside_id(&found.content, &found.file),
        };
        match self.merge(id, found.changes)? {
            Ok(generation) => {
                self.looks.failed_merges = 0;
                if self.troubles.merge.is_over() {
                    info!("foreign changes are merged again");
                }
                let [nodes, tasks, content] = rows.map(|(set, deleted)| set + deleted);
                info!(
                    file = %found.file.display(),
                    generation,
                    nodes,
                    tasks,
                    content,
                    took_us = micros(began),
                    "merged a foreign state: so many rows had changed"
                );
                if self.is_public(&found.file) {
                    self.looks.known = Known::Merged(found.tried.id(), Instant::now());
                    self.engine.publisher().parquet_path = Some(found.file);
                    self.looks.merged = Some(found.bytes);
                    self.ask_for_base();
                } else {
                    self.finished_aside(&found.file);
                }
            }
            Err(why) => {
                if self.troubles.merge.is_new(&why) {
                    warn!(
                        reason = why,
                        retry_s = RETRY_INTERVAL.as_secs(),
                        "a foreign state cannot be merged for now; nothing of it was applied, and it is tried again"
                    );
                }
                self.looks.failed_merges += 1;
                if self.looks.failed_merges < MERGES {
                    self.looks.next_retry = Some(Instant::now() + RETRY_INTERVAL);
                } else {
                    // It does not fit, and time does not help: like any file that is refused.
                    self.looks.failed_merges = 0;
                    self.refuse(&why);
                    let tried = found.tried.refused(why);
                    self.came_to_know(&tried, Instant::now());
                    self.conclude(tried, Instant::now());
                }
            }
        }
        Ok(())
    }

    /// Not while our checkpoint takes the name: it becomes the base too, and must not be that after what came later.
    pub(super) fn ask_for_base(&mut self) {
        self.looks.base_due = None;
        if !self.files.is_publishing
            && let Some(merged) = &self.looks.merged
            && self.files.set_base(merged.clone())
        {
            self.looks.bases_asked += 1;
        }
    }

    /// A writer was at work during the look; the next one finds what it left. Not worth a word,
    /// unless it never ends.
    fn on_changing(&mut self, file: &Path, now: Instant) {
        self.looks.restless += 1;
        self.looks.next_poll = self.looks.next_poll.min(now + SECOND_LOOK);
        debug!(file = %file.display(), "the state changed while it was read; it is read again");
        if self.looks.restless >= RESTLESS_LOOKS {
            self.refuse(&format!(
                "{file:?} changes all the time while it is read: its writer is too fast, or never done"
            ));
        }
    }

    /// V1, V2.
    pub(super) fn refuse(&mut self, what: &str) {
        if self.troubles.state.is_new(what) {
            warn!(
                reason = what,
                generation = self.engine.publisher().generation(),
                "the state is refused; the last good snapshot stays, and the state is tried again when it changes"
            );
        }
    }

    pub(super) fn state_is_good(&mut self) {
        if self.troubles.state.is_over() {
            info!("the state is good again");
        }
    }
}
