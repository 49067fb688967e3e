//! The loop: look, publish, keep the metadata true, beat, obey.
//!
//! One thread owns everything that changes and waits for one thing: the next event, or the next
//! of a few deadlines. Plain threads and a channel rather than an async runtime: there is one
//! loop, its work (Parquet, mmap, fsync) blocks anyway, and the order of what it does is the
//! order in which it is written here. Beside it run inotify's thread, the signals' thread, and
//! the *looker*, which reads state files, so that a large one never holds up a beat or a stop.
//!
//! - **V1** A state is published whole or not at all; what is refused changes nothing, is told
//!   once, and is tried again when it changes.
//! - **V2** Whatever happens after the start, the last good snapshot stays published. Only an
//!   order to stop and another daemon that holds the lock end the loop.
//! - **V3** At most one look is under way, and one more is owed if something happened meanwhile.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use sherwood_shared::state::State;
use tracing::{debug, error, info, warn};

use crate::config::{Config, Sources};
use crate::ends::Ends;
use crate::lock::LockError;
use crate::log::{LevelHandle, Trouble, chain};
use crate::metadata::{MetadataError, MetadataKeeper};
use crate::observe::{Request, Sight, Tried, observe};
use crate::publish::PublishError;
use crate::served::{ServeError, Served, StartError, micros};
use crate::systemd;
use crate::watch::{Hint, SAFETY_INTERVAL, Settle, Watch};

/// Readers age the publisher's beat; they expect one a second.
const BEAT_INTERVAL: Duration = Duration::from_secs(1);

/// How soon a failed publish or metadata write is tried again, if nothing changes before.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// How soon to look again after a look that was not conclusive.
const SECOND_LOOK: Duration = Duration::from_millis(100);

/// So many looks in a row that find the file changing are a writer's mistake.
const RESTLESS_LOOKS: u32 = 50;

/// What the loop waits for.
#[derive(Debug)]
pub enum Event {
    /// Somebody wants something.
    Order(Order),
    /// From the watch.
    Hint(Hint),
    /// From the looker.
    Sight(Sight),
}

/// What the daemon can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Stop cleanly; the snapshot file stays.
    Stop,
    /// Read the configuration and the state again.
    Reload,
}

/// A running daemon.
pub struct Service<E: Ends> {
    ends: Arc<E>,
    sources: Sources,
    config: Config,
    level: LevelHandle,
    events: Sender<Event>,
    looker: Sender<Request>,
    served: Served<E::Publisher>,
    keeper: MetadataKeeper,
    watch: Option<Watch>,
    /// The clock is the only one to rely on.
    blind: bool,
    settle: Settle,
    tried: Option<Tried>,
    looking: bool,
    owed_look: bool,
    /// Looks in a row that found the file changing.
    restless_looks: u32,
    /// A state that could not be published.
    pending: Option<(Box<State>, PathBuf)>,
    next_beat: Instant,
    next_poll: Instant,
    next_retry: Option<Instant>,
    metadata_due: Option<Instant>,
    troubles: Troubles,
}

#[derive(Default)]
struct Troubles {
    state: Trouble,
    publish: Trouble,
    beat: Trouble,
    metadata: Trouble,
    watch: Trouble,
}

impl<E: Ends> Service<E> {
    /// Starts to serve (see [`Served::begin`]) and to watch. Events come through the channel
    /// whose sending end is given; [`run`](Self::run) takes the other one.
    pub fn begin(
        ends: E,
        sources: Sources,
        config: Config,
        level: LevelHandle,
        events: Sender<Event>,
    ) -> Result<Self, StartError> {
        let ends = Arc::new(ends);
        let (served, tried) = Served::begin(ends.as_ref(), &config, None)?;
        let now = Instant::now();
        let mut service = Self {
            looker: spawn_looker(Arc::clone(&ends), events.clone()),
            keeper: MetadataKeeper::new(served.dir().path()),
            ends,
            sources,
            config,
            level,
            events,
            served,
            watch: None,
            blind: true,
            settle: Settle::default(),
            tried,
            looking: false,
            owed_look: false,
            restless_looks: 0,
            pending: None,
            next_beat: now + BEAT_INTERVAL,
            next_poll: now,
            next_retry: None,
            metadata_due: None,
            troubles: Troubles::default(),
        };
        service.start_watch();
        service.tend_metadata(now);
        service.served.announce();
        systemd::notify("READY=1");
        Ok(service)
    }

    /// Serves until told to stop (`Ok`), or until another daemon has taken over.
    pub fn run(&mut self, events: &Receiver<Event>) -> Result<(), StartError> {
        loop {
            let wait = self.deadline().saturating_duration_since(Instant::now());
            match events.recv_timeout(wait) {
                Ok(Event::Order(Order::Stop)) => {
                    systemd::notify("STOPPING=1");
                    info!(
                        snapshot = %self.served.facts().snapshot_path.display(),
                        generation = self.served.facts().generation,
                        "stopping; the snapshot file stays"
                    );
                    return Ok(());
                }
                Ok(Event::Order(Order::Reload)) => self.reload(),
                Ok(Event::Hint(hint)) => self.on_hint(hint),
                Ok(Event::Sight(sight)) => self.on_sight(sight)?,
                Err(RecvTimeoutError::Timeout) => {}
                // We hold a sender ourselves.
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            self.on_time(Instant::now())?;
        }
    }

    fn deadline(&self) -> Instant {
        [self.settle.due(), self.next_retry, self.metadata_due]
            .into_iter()
            .flatten()
            .chain([self.next_beat, self.next_poll])
            .fold(self.next_beat, Instant::min)
    }

    fn on_time(&mut self, now: Instant) -> Result<(), StartError> {
        if self.settle.take(now) {
            self.look();
        }
        if now >= self.next_poll {
            let interval = if self.blind {
                self.config.poll_interval
            } else {
                SAFETY_INTERVAL
            };
            self.next_poll = now + interval;
            if self.watch.is_none() {
                self.start_watch();
            }
            self.look();
        }
        if self.next_retry.is_some_and(|due| due <= now) {
            self.next_retry = None;
            if let Some((state, file)) = self.pending.take() {
                self.publish(state, file)?;
            }
        }
        if self.metadata_due.is_some_and(|due| due <= now) {
            // By way of a look, which tends it afterwards: where a foreign writer has just named
            // another state file, that is seen before it is written over.
            self.metadata_due = None;
            self.look();
        }
        if now >= self.next_beat {
            self.next_beat = now + BEAT_INTERVAL;
            self.beat()?;
        }
        Ok(())
    }

    fn on_hint(&mut self, hint: Hint) {
        if hint == Hint::Gone {
            // The inode's watch is gone with it, or follows it elsewhere.
            self.watch = None;
            self.blind = true;
            self.next_poll = Instant::now();
        } else {
            self.settle.note(hint, Instant::now());
        }
    }

    /// V3.
    fn look(&mut self) {
        if self.looking {
            self.owed_look = true;
            return;
        }
        let request = Request {
            dir: self.served.dir().clone(),
            cluster: self.served.cluster().clone(),
            without_file: self.served.facts().parquet_path.is_none(),
            tried: self.tried.clone(),
        };
        self.looking = self.looker.send(request).is_ok();
        if !self.looking && self.troubles.watch.is_new("looker") {
            error!("the thread that reads states has ended; restart sherwoodd");
        }
    }

    fn on_sight(&mut self, sight: Sight) -> Result<(), StartError> {
        self.looking = false;
        if !matches!(sight, Sight::Changing { .. }) {
            self.restless_looks = 0;
        }
        let now = Instant::now();
        let tried = match sight {
            Sight::Unchanged => {
                self.state_is_good();
                None
            }
            Sight::State { state, file, tried } => {
                self.state_is_good();
                self.publish(state, file)?;
                Some(tried)
            }
            Sight::Refused { what, tried } => {
                self.refuse(&what);
                tried
            }
            Sight::Changing { file } => {
                self.on_changing(&file, now);
                None
            }
            Sight::Replaced => {
                self.move_to_successor();
                None
            }
        };
        if let Some(tried) = tried {
            if !tried.is_conclusive() {
                self.next_poll = self.next_poll.min(now + SECOND_LOOK);
            }
            self.tried = Some(tried);
        }
        self.tend_metadata(now);
        if std::mem::take(&mut self.owed_look) {
            self.look();
        }
        Ok(())
    }

    /// A writer was at work during the look; the next one finds what it left. Not worth a word,
    /// unless it never ends.
    fn on_changing(&mut self, file: &Path, now: Instant) {
        self.restless_looks += 1;
        self.next_poll = self.next_poll.min(now + SECOND_LOOK);
        debug!(file = %file.display(), "the state changed while it was read; it is read again");
        if self.restless_looks >= RESTLESS_LOOKS {
            self.refuse(&format!(
                "{file:?} changes all the time while it is read: its writer is too fast, or never done"
            ));
        }
    }

    /// V1, V2.
    fn refuse(&mut self, what: &str) {
        if self.troubles.state.is_new(what) {
            warn!(
                reason = what,
                generation = self.served.facts().generation,
                "the state is refused; the last good snapshot stays, and the state is tried again when it changes"
            );
        }
    }

    fn state_is_good(&mut self) {
        if self.troubles.state.is_over() {
            info!("the state is good again");
        }
    }

    fn publish(&mut self, state: Box<State>, file: PathBuf) -> Result<(), StartError> {
        let began = Instant::now();
        match self.served.publish(&state, &file) {
            Ok(published) => {
                self.pending = None;
                self.next_retry = None;
                if self.troubles.publish.is_over() {
                    info!("publishing works again");
                }
                let facts = self.served.facts();
                match published {
                    Some(done) => info!(
                        generation = done.generation,
                        nodes = facts.rows[0],
                        tasks = facts.rows[1],
                        content = facts.rows[2],
                        chunks_written = done.chunks_written,
                        chunks_moved = done.chunks_moved,
                        chunks_shared = done.chunks_shared,
                        bytes_written = done.bytes_written,
                        took_us = micros(began),
                        "published"
                    ),
                    None => debug!(file = %file.display(), "read again: nothing differs"),
                }
                if let Err(error) = self.served.housekeep() {
                    // The next beat tries again, and tells.
                    debug!(error = chain(&error), "no room is kept ready");
                }
            }
            Err(ServeError::Lock(error @ LockError::Held { .. })) => return Err(error.into()),
            Err(error) => {
                let text = chain(&error);
                if self.troubles.publish.is_new(&text) {
                    warn!(
                        error = text,
                        generation = self.served.facts().generation,
                        retry_s = RETRY_INTERVAL.as_secs(),
                        advice = advice(&error),
                        "a new state cannot be published; the last snapshot stays, and publishing is tried again"
                    );
                }
                self.pending = Some((state, file));
                self.next_retry = Some(Instant::now() + RETRY_INTERVAL);
            }
        }
        Ok(())
    }

    fn beat(&mut self) -> Result<(), StartError> {
        match self.served.beat() {
            Ok(made_again) => {
                if made_again {
                    let facts = self.served.facts();
                    warn!(
                        snapshot = %facts.snapshot_path.display(),
                        generation = facts.generation,
                        "the snapshot file had been removed or replaced; it was made again"
                    );
                    self.tend_metadata(Instant::now());
                }
                if self.troubles.beat.is_over() {
                    info!("the snapshot file is looked after again");
                }
            }
            Err(ServeError::Lock(error @ LockError::Held { .. })) => return Err(error.into()),
            Err(error) => {
                let text = chain(&error);
                if self.troubles.beat.is_new(&text) {
                    warn!(
                        error = text,
                        advice = advice(&error),
                        "the snapshot file cannot be looked after; trying again each second"
                    );
                }
            }
        }
        Ok(())
    }

    fn tend_metadata(&mut self, now: Instant) {
        // What somebody has just written there is looked at first, so that what is wrong with
        // it is told and not painted over. The look that is due comes back here.
        if self.owed_look || self.settle.due().is_some() {
            return;
        }
        self.metadata_due = None;
        match self.keeper.tend(self.served.facts(), now) {
            Ok(due) => {
                self.metadata_due = due;
                if due.is_none() && self.troubles.metadata.is_over() {
                    info!("the metadata is up to date again");
                }
            }
            // The look says so too, and better.
            Err(MetadataError::Unreadable(error)) => {
                debug!(error = chain(&error), "the metadata is left alone");
            }
            Err(error) => {
                self.metadata_due = Some(now + RETRY_INTERVAL);
                let text = chain(&error);
                if self.troubles.metadata.is_new(&text) {
                    warn!(error = text, "the metadata is not up to date");
                }
            }
        }
    }

    /// Another directory stands where ours stood: serve that one, if it is good, under the name
    /// the readers know. Until then the old one's snapshot stays.
    fn move_to_successor(&mut self) {
        let before = self.served.before();
        match Served::begin(self.ends.as_ref(), &self.config, Some(before)) {
            Ok((served, tried)) => {
                warn!(
                    state_dir = %served.dir().path().display(),
                    "the state directory was replaced by another; that one is served now"
                );
                self.keeper = MetadataKeeper::new(served.dir().path());
                self.served = served;
                self.tried = tried;
                self.pending = None;
                self.next_retry = None;
                self.watch = None;
                self.state_is_good();
                self.start_watch();
                self.look();
            }
            Err(error) => {
                let text = format!(
                    "the state directory was replaced by another, which is not served: {}",
                    chain(&error)
                );
                self.refuse(&text);
            }
        }
    }

    /// Starts the watch, if the directory that is served is there to be watched.
    fn start_watch(&mut self) {
        if !self.served.dir().path().is_dir() {
            return;
        }
        let events = self.events.clone();
        let (watch, blind) = Watch::start(self.served.dir().path(), move |hint| {
            let _loop_has_ended = events.send(Event::Hint(hint));
        });
        self.watch = Some(watch);
        self.blind = blind.is_some();
        let Some(reason) = blind else {
            self.troubles.watch.is_over();
            return;
        };
        let text = chain(&reason);
        if self.troubles.watch.is_new(&text) {
            warn!(
                reason = text,
                interval = ?self.config.poll_interval,
                "changes of the state are looked for by the clock"
            );
        }
    }

    fn reload(&mut self) {
        match self.sources.resolve() {
            Ok((next, remarks)) => {
                for remark in remarks {
                    warn!("{remark}");
                }
                let fixed = needs_restart(&self.config, &next);
                if !fixed.is_empty() {
                    warn!(
                        settings = fixed.join(", "),
                        "these settings changed, but are only read at the start: restart sherwoodd"
                    );
                }
                self.level.set(next.log_level);
                self.config.log_level = next.log_level;
                self.config.poll_interval = next.poll_interval;
                info!(
                    log_level = %next.log_level,
                    poll_interval = ?next.poll_interval,
                    "the configuration was reloaded; the state is read again"
                );
            }
            Err(error) => error!(
                error = chain(&error),
                "the configuration is not reloaded; the old one stays. The state is read again"
            ),
        }
        self.tried = None;
        self.troubles.state.is_over();
        if !self.watch.as_ref().is_some_and(Watch::has_inotify) {
            self.watch = None;
        }
        self.next_poll = Instant::now();
    }
}

/// What a person can do about it, where the error alone does not say.
fn advice(error: &ServeError) -> &'static str {
    match error {
        ServeError::Lock(_) | ServeError::RunDir(_) => {
            "leave the state and run directories and their lock files alone; without its locks the daemon publishes nothing"
        }
        ServeError::Generation(_) => "make room in the state directory",
        ServeError::Publish(PublishError::Full { .. }) => {
            "free space on the run directory's file system, or enlarge it"
        }
        ServeError::Publish(_) => "check the run directory and the state",
    }
}

/// Settings that differ and that a reload cannot apply.
fn needs_restart(now: &Config, next: &Config) -> Vec<&'static str> {
    [
        ("state_dir", now.state_dir != next.state_dir),
        ("run_dir", now.run_dir != next.run_dir),
        ("cluster_id", now.cluster_id != next.cluster_id),
        ("log_format", now.log_format != next.log_format),
        ("snapshot_mode", now.snapshot_mode != next.snapshot_mode),
        ("region_bytes", now.region_bytes != next.region_bytes),
        ("chunk_bytes", now.chunk_bytes != next.chunk_bytes),
        ("limits", now.limits != next.limits),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}

/// A thread that answers each request with an event, until either side is dropped. If it cannot
/// be started, the first request finds nobody.
fn spawn_looker<E: Ends>(ends: Arc<E>, events: Sender<Event>) -> Sender<Request> {
    let (sender, requests) = mpsc::channel::<Request>();
    let looker = move || {
        for request in requests {
            let sight = observe(ends.as_ref(), &request);
            if events.send(Event::Sight(sight)).is_err() {
                return;
            }
        }
    };
    if let Err(error) = thread::Builder::new()
        .name("looker".to_owned())
        .spawn(looker)
    {
        error!(%error, "cannot start the thread that reads states");
    }
    sender
}
