//! The loop: look, commit, publish, keep the files true, beat, obey.
//!
//! One thread owns everything that changes and waits for one thing: the next event, or the next
//! of a few deadlines. A plain thread and a channel rather than a task of a runtime: there is one
//! loop, its work (mmap, fdatasync) blocks anyway, and the order of what it does is the
//! order in which it is written here. Around it run inotify's thread, the signals' thread, the *looker*, which
//! reads foreign state files, the *scribe*, which writes checkpoints and metadata, the log's keeper, and the
//! threads that serve connections: none of them holds up a commit, a beat or a stop.
//!
//! - **V1** A foreign state is merged whole or not at all; what is refused changes nothing, is told
//!   once, and is tried again when it changes.
//! - **V2** Whatever happens after the start, the last good snapshot stays published. Only an
//!   order to stop, another daemon that holds the lock and a log that failed end the loop.
//! - **V3** At most one look is under way, and one more is owed if something happened meanwhile.
//! - **V5** Requests are taken as they come, all that wait at once (group commit). Between two groups everything else gets its turn.
//!
//! | module | idea |
//! |---|---|
//! | `requests` | groups of requests, and what follows a commit |
//! | `looks` | foreign files: looking, merging, refusing |
//! | `aside` | those that were moved aside |
//! | `changes` | the log, as watchers read it |
//! | `files` | checkpoints and metadata: when, and what came of them |
//! | `successor` | another directory in the place of the one that is served |

mod aside;
mod changes;
mod files;
mod looks;
mod requests;
mod successor;

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sherwood_shared::transaction::Answer;
use sherwood_store::checkpoint::Checkpoints;
use sherwood_store::lock::LockError;
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::config::{Config, Sources};
use crate::ends::Ends;
use crate::engine::{Stage, Submission};
use crate::flight::{self, Access, Announced};
use crate::log::{LevelHandle, Trouble, chain};
use crate::log_keeper::{Chore, Kept};
use crate::observe::Sight;
use crate::scribe::Report;
use crate::served::{self, Begun, ServeError, ServedEngine, StartError};
use crate::systemd;
use crate::watch::{Hint, SAFETY_INTERVAL, Watch};

use aside::left_aside;
use files::Files;
use looks::Looks;
use successor::Refused;

/// Readers age the publisher's beat; they expect one a second.
const BEAT_INTERVAL: Duration = Duration::from_secs(1);

/// How soon a failed merge or metadata write is tried again, if nothing changes before.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// How long a stop waits for clients to take their last answers.
const DRAIN: Duration = Duration::from_secs(2);

/// What the loop waits for.
pub enum Event {
    /// Somebody wants something of the daemon.
    Order(Order),
    /// Somebody wants something of the state.
    Submit(Submission),
    /// Somebody asks what became of a transaction.
    Ask {
        /// Its id.
        id: String,
        /// Where the answer goes.
        reply: Box<dyn FnOnce(Answer) + Send>,
    },
    /// From the watch.
    Hint(Hint),
    /// From the looker.
    Sight(Sight),
    /// From the scribe of that [epoch](Service).
    Report(u64, Report),
    /// From the log's keeper of that epoch.
    Kept(u64, Kept),
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
    /// Events that came while a group was collected.
    later: VecDeque<Event>,
    /// Counts the directories that were served.
    epoch: u64,
    /// Requests for which a commit had no time.
    waiting: VecDeque<Submission>,
    engine: ServedEngine<E::Publisher>,
    checkpoints: Arc<Checkpoints>,
    access: Arc<Access>,
    flight: Option<flight::Running>,
    announced: watch::Sender<Announced>,
    log_keeper: Sender<Chore>,
    is_segment_asked: bool,
    watch: Option<Watch>,
    /// The clock is the only one to rely on.
    blind: bool,
    looks: Looks,
    files: Files,
    /// A directory in the place of ours that could not be served.
    refused_successor: Option<Refused>,
    next_beat: Instant,
    troubles: Troubles,
    health: Health,
}

/// What is not as it should be, for `status`: by what it concerns.
type Health = Arc<Mutex<BTreeMap<&'static str, String>>>;

#[derive(Default)]
struct Troubles {
    state: Trouble,
    merge: Trouble,
    beat: Trouble,
    base: Trouble,
    checkpoint: Trouble,
    public: Trouble,
    log: Trouble,
    metadata: Trouble,
    watch: Trouble,
    socket: Trouble,
}

impl Troubles {
    fn current(&self) -> BTreeMap<&'static str, String> {
        let all = [
            ("state", &self.state),
            ("merge", &self.merge),
            ("snapshot", &self.beat),
            ("checkpoint", &self.checkpoint),
            ("state_file", &self.public),
            ("log", &self.log),
            ("metadata", &self.metadata),
            ("watch", &self.watch),
            ("socket", &self.socket),
        ];
        let told =
            |(what, trouble): (&'static str, &Trouble)| Some((what, trouble.current()?.to_owned()));
        all.into_iter().filter_map(told).collect()
    }
}

impl<E: Ends> Service<E> {
    /// Starts to serve (see [`served::begin`]) and to watch. Events come through the channel
    /// whose sending end is given; [`run`](Self::run) takes the other one.
    pub fn begin(
        ends: E,
        sources: Sources,
        config: Config,
        level: LevelHandle,
        events: Sender<Event>,
    ) -> Result<Self, StartError> {
        let ends = Arc::new(ends);
        let Begun {
            mut engine,
            checkpoints,
            position,
            checkpoint,
            public_is_stale,
            adopted,
            replayed,
            merged,
        } = served::begin(ends.as_ref(), &config, None)?;
        let (access, unknown) = access_of(&config);
        unknown.iter().for_each(|what| warn!("{what}"));
        let access = Arc::new(access);
        let now = Instant::now();
        let announced = watch::Sender::new(Announced {
            sequence: position.sequence,
            generation: engine.publisher().generation(),
        });
        let files = Files::begin(
            &mut engine,
            &checkpoints,
            &events,
            (checkpoint, position.sequence - replayed),
            public_is_stale,
            replayed > 0,
            0,
        )?;
        let left = left_aside(checkpoints.public_path(), now);
        let mut looks = Looks::begin(&ends, &events, (merged, left), now)?;
        looks.adopted(adopted, now);
        let log_keeper = requests::start_log_keeper(&mut engine, &events, 0)?;
        let mut service = Self {
            flight: None,
            announced,
            log_keeper,
            is_segment_asked: true,
            ends,
            sources,
            config,
            level,
            events,
            later: VecDeque::new(),
            epoch: 0,
            waiting: VecDeque::new(),
            engine,
            checkpoints,
            access,
            watch: None,
            blind: true,
            looks,
            files,
            refused_successor: None,
            next_beat: now + BEAT_INTERVAL,
            troubles: Troubles::default(),
            health: Health::default(),
        };
        service.start_watch();
        service.open_socket()?;
        service.engine.publisher().announce(replayed);
        systemd::notify("READY=1\nSTATUS=serving");
        Ok(service)
    }

    /// Serves until told to stop (`Ok`), until another daemon has taken over, or until the log fails.
    pub fn run(&mut self, events: &Receiver<Event>) -> Result<(), StartError> {
        loop {
            let event = match self.next_event() {
                Some(event) => event,
                None => {
                    let wait = self.deadline().saturating_duration_since(Instant::now());
                    match events.recv_timeout(wait) {
                        Ok(event) => event,
                        Err(RecvTimeoutError::Timeout) => {
                            self.on_time(Instant::now())?;
                            continue;
                        }
                        // We hold a sender ourselves.
                        Err(RecvTimeoutError::Disconnected) => return Ok(()),
                    }
                }
            };
            match event {
                Event::Order(Order::Stop) => return self.stop(events),
                Event::Order(Order::Reload) => self.reload(),
                Event::Submit(first) => self.on_requests(first, events)?,
                Event::Ask { id, reply } => reply(self.outcome_of(&id)),
                Event::Hint(hint) => self.on_hint(hint),
                Event::Sight(sight) => self.on_sight(sight)?,
                // What those say who worked for another directory is no concern of this one.
                Event::Report(epoch, report) if epoch == self.epoch => self.on_report(report),
                Event::Kept(epoch, kept) if epoch == self.epoch => self.on_kept(kept),
                Event::Report(..) | Event::Kept(..) => {}
            }
            let now = Instant::now();
            if now >= self.deadline() {
                self.on_time(now)?;
            }
        }
    }

    /// What was taken from the channel already: other events first, then requests for which a commit had no time (V5).
    fn next_event(&mut self) -> Option<Event> {
        let waiting = &mut self.waiting;
        let next = self.later.pop_front();
        next.or_else(|| waiting.pop_front().map(Event::Submit))
    }

    fn deadline(&self) -> Instant {
        [self.looks.deadline(), self.files.deadline()]
            .into_iter()
            .flatten()
            .fold(self.next_beat, Instant::min)
    }

    fn on_time(&mut self, now: Instant) -> Result<(), StartError> {
        self.tend_looks(now)?;
        self.tend_files(now);
        self.announce();
        self.tell_health();
        if now >= self.next_beat {
            self.next_beat = now + BEAT_INTERVAL;
            self.beat()?;
        }
        Ok(())
    }

    /// What `status` and the service manager say of us.
    fn tell_health(&self) {
        let now = self.troubles.current();
        let mut told = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != now {
            let first = now.iter().next();
            let word = first.map_or_else(
                || "STATUS=serving".to_owned(),
                |(what, why)| {
                    format!(
                        "STATUS=serving, with trouble: {what}: {}",
                        why.replace('\n', " ")
                    )
                },
            );
            systemd::notify(&word);
            *told = now;
        }
    }

    /// No new requests; those that wait are answered; the state file becomes current; all durable already.
    fn stop(&mut self, events: &Receiver<Event>) -> Result<(), StartError> {
        systemd::notify("STOPPING=1");
        let result = self.drain(events);
        self.last_checkpoint();
        let served = self.engine.publisher();
        info!(
            snapshot = %served.snapshot_path().display(),
            generation = served.generation(),
            "stopping; the snapshot file stays"
        );
        result
    }

    fn drain(&mut self, events: &Receiver<Event>) -> Result<(), StartError> {
        let Some(flight) = self.flight.take() else {
            return Ok(());
        };
        // Connections end when their answers are out, and those come from here.
        let stopping = std::thread::spawn(move || flight.stop(DRAIN));
        let mut result = Ok(());
        while result.is_ok() && !stopping.is_finished() {
            let event = match self.next_event() {
                Some(event) => event,
                None => match events.recv_timeout(Duration::from_millis(5)) {
                    Ok(event) => event,
                    Err(_) => continue,
                },
            };
            match event {
                Event::Submit(first) => result = self.on_requests(first, events),
                Event::Ask { id, reply } => reply(self.outcome_of(&id)),
                Event::Report(epoch, report) if epoch == self.epoch => self.on_report(report),
                _ => {}
            }
        }
        // A panic there has been printed by its hook.
        let _ = stopping.join();
        result
    }

    fn beat(&mut self) -> Result<(), StartError> {
        match self.engine.publisher().beat() {
            Ok(made_again) => {
                if made_again {
                    let served = self.engine.publisher();
                    warn!(
                        snapshot = %served.snapshot_path().display(),
                        generation = served.generation(),
                        "the snapshot file had been removed or replaced; it was made again"
                    );
                    self.files.owe_metadata(Instant::now());
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
                        "the snapshot file cannot be looked after; trying again each second"
                    );
                }
            }
        }
        let Some(flight) = &self.flight else {
            return Ok(());
        };
        match flight.keep() {
            Ok(made_again) => {
                if made_again {
                    warn!(socket = %flight.path().display(), "the socket had been removed or replaced; it was made again");
                }
                self.troubles.socket.is_over();
            }
            Err(error) => {
                let text = chain(&error);
                if self.troubles.socket.is_new(&text) {
                    warn!(error = text, "the socket cannot be made again");
                }
            }
        }
        Ok(())
    }

    /// Starts the watch, if the directory that is served is there to be watched.
    fn start_watch(&mut self) {
        let dir = self.engine.publisher().dir().path().to_path_buf();
        if !dir.is_dir() {
            return;
        }
        let events = self.events.clone();
        let (watch, blind) = Watch::start(&dir, move |hint| {
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

    /// How often to look although nothing was reported.
    fn poll_interval(&self) -> Duration {
        if self.blind {
            self.config.poll_interval
        } else {
            SAFETY_INTERVAL
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
                let (access, unknown) = access_of(&next);
                unknown.iter().for_each(|what| warn!("{what}"));
                if let Some(flight) = &self.flight {
                    flight.set_access(access.clone());
                }
                self.access = Arc::new(access);
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
        self.looks.forget();
        self.refused_successor = None;
        self.troubles.state.is_over();
        if !self.watch.as_ref().is_some_and(Watch::has_inotify) {
            self.watch = None;
        }
        self.looks.poll_at(Instant::now());
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
        (
            "log_segment_bytes",
            now.log_segment_bytes != next.log_segment_bytes,
        ),
        ("limits", now.limits != next.limits),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}

/// An error of a part that does not start.
fn part(what: &'static str) -> impl FnOnce(std::io::Error) -> StartError {
    move |source| StartError::Part {
        what,
        source: source.into(),
    }
}

/// A channel whose sender the looker's requests go through.
type Requests = Sender<crate::observe::Request>;

/// Who may write.
fn access_of(config: &Config) -> (Access, Vec<String>) {
    Access::resolve(&config.access.users, &config.access.groups)
}
