//! Requests: groups of them, and what follows a commit.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use sherwood_shared::transaction::{Answer, OutcomeKind};
use sherwood_store::log::log_dir;
use sherwood_store::merge::Diff;
use tracing::{debug, info, warn};

use super::changes::LogChanges;
use super::{Event, Service, StartError, part};
use crate::ends::{Ends, Publish};
use crate::engine::{Remember, Request, Stage, Submission};
use crate::flight::{self, Announced};
use crate::log::chain;
use crate::log_keeper::{self, Chore, Kept};
use crate::served::ServedEngine;
use crate::systemd;

/// Requests of one group. More are committed in the next: a group's answers all wait for its end.
const MOST_IN_GROUP: usize = 512;
/// After so long a commit ends, and leaves what it has not begun for the next: a group can take a sync for each request
/// in it, and beats and everything else wait for its end.
const MOST_TIME: Duration = Duration::from_millis(100);

impl<E: Ends> Service<E> {
    /// V5: commits `first` and all requests that wait behind it, as far as the time goes.
    pub(super) fn on_requests(
        &mut self,
        first: Submission,
        events: &Receiver<Event>,
    ) -> Result<(), StartError> {
        let mut group = std::mem::take(&mut self.waiting);
        group.push_front(first);
        while group.len() < MOST_IN_GROUP {
            match events.try_recv() {
                Ok(Event::Submit(next)) => group.push_back(next),
                Ok(other) => self.later.push_back(other),
                Err(_) => break,
            }
        }
        let result = self.commit(&mut group);
        self.waiting = group;
        result
    }

    fn commit(&mut self, group: &mut VecDeque<Submission>) -> Result<(), StartError> {
        let before = self.engine.publisher().generation();
        let until = Instant::now() + MOST_TIME;
        let committed = self.engine.commit_until(group, Some(until));
        if let Some(error) = self.engine.publisher().take_lost() {
            return Err(error.into());
        }
        if let Err(fatal) = &committed {
            // Not tried again: only a start reads what the log really holds.
            let why = chain(fatal);
            let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
            health.insert("log", why.clone());
            systemd::notify(&format!(
                "STATUS=the log failed, stopping: {}\nERRNO=5",
                why.replace('\n', " ")
            ));
        }
        let committed = committed?;
        self.announce();
        let now = Instant::now();
        if let Some(committed) = &committed
            && committed.generation != before
        {
            self.files.changed(now);
            match self.engine.publisher().housekeep() {
                Ok(()) => {}
                // The next beat tries again, and tells.
                Err(error) => debug!(error = chain(&error), "no room is kept ready"),
            }
        }
        // Also after a group of which nothing was logged, for want of room perhaps: only who asks for a segment finds out.
        if !self.is_segment_asked && self.engine.journal().needs_segment() {
            if committed.is_some() {
                // Also where nothing changed, and outcomes alone fill the log: a checkpoint lets old segments go.
                self.files.changed(now);
            }
            self.is_segment_asked = self.log_keeper.send(Chore::Prepare).is_ok();
        }
        Ok(())
    }

    /// Tells watchers and `status` what is durable and visible.
    pub(super) fn announce(&mut self) {
        let now = Announced {
            sequence: self.engine.journal().next_sequence() - 1,
            generation: self.engine.publisher().generation(),
        };
        self.announced
            .send_if_modified(|told| std::mem::replace(told, now) != now);
    }

    /// Commits what a foreign file changed, or finds that it was. `Err`: why not, in words.
    pub(super) fn merge(
        &mut self,
        id: String,
        changes: Box<Diff>,
    ) -> Result<Result<u64, String>, StartError> {
        let slot = Arc::new(Mutex::new(None));
        let answer = Arc::clone(&slot);
        let submission = Submission {
            request: Request::Merge { id, changes },
            reply: Box::new(move |answered| {
                *answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answered);
            }),
        };
        self.commit(&mut VecDeque::from([submission]))?;
        let answered = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(match answered {
            Some(Answer {
                outcome: OutcomeKind::Done,
                generation,
                ..
            }) => Ok(generation.unwrap_or(0)),
            Some(answer) => Err(answer.reason.unwrap_or_default()),
            None => Err("the engine did not answer".to_owned()),
        })
    }

    /// What became of a transaction.
    pub(super) fn outcome_of(&mut self, id: &str) -> Answer {
        match self.engine.outcomes().find(id) {
            Some(outcome) => crate::engine::answer_of(&outcome),
            None => Answer::unknown(
                Some(id.to_owned()),
                "no transaction with this id is remembered: it was never committed, or is too long ago",
            ),
        }
    }

    pub(super) fn on_kept(&mut self, kept: Kept) {
        if kept.chore == Chore::Prepare {
            self.is_segment_asked = false;
        }
        match kept.result {
            Ok(()) => {
                if self.troubles.log.is_over() {
                    info!("the log's directory is in order again");
                }
            }
            Err(error) => {
                if error.is_full() {
                    self.files.log_is_full(Instant::now());
                }
                let text = chain(&error);
                if self.troubles.log.is_new(&text) {
                    warn!(
                        error = text,
                        "the log's directory is not in order; it is tried again with the next change"
                    );
                }
            }
        }
    }

    /// Opens the way in.
    pub(super) fn open_socket(&mut self) -> Result<(), StartError> {
        let served = self.engine.publisher();
        let snapshot = served.snapshot_path().to_path_buf();
        let log = log_dir(served.dir().path());
        let socket = snapshot.with_extension("sock");
        let events = self.events.clone();
        let asked = self.events.clone();
        let announced = self.announced.subscribe();
        let cluster = served.cluster().to_string();
        let began = Instant::now();
        let health = Arc::clone(&self.health);
        let options = flight::Options {
            socket,
            snapshot,
            snapshot_mode: self.config.snapshot_mode,
            access: (*self.access).clone(),
            limits: self.config.limits.clone(),
            outcome: Box::new(move |id, reply| {
                let id = id.to_owned();
                // Without a loop nobody answers, and the caller's deadline ends it.
                let _loop_has_ended = asked.send(Event::Ask { id, reply });
            }),
            status: Box::new(move || {
                let now = *announced.borrow();
                json!({
                    "cluster_id": cluster,
                    "daemon_pid": std::process::id(),
                    "version": env!("CARGO_PKG_VERSION"),
                    "generation": now.generation,
                    "log_sequence": now.sequence,
                    "serving_for_s": began.elapsed().as_secs(),
                    "trouble": *health.lock().unwrap_or_else(PoisonError::into_inner),
                })
            }),
            changes: Some(Arc::new(LogChanges(log))),
            announced: self.announced.subscribe(),
        };
        let running = flight::serve(options, move |submission| {
            // Dropped with its reply, which tells the client that nobody knows.
            let _loop_has_ended = events.send(Event::Submit(submission));
        })
        .map_err(|source| StartError::Part {
            what: "the socket",
            source: source.into(),
        })?;
        info!(socket = %running.path().display(), "writers may connect");
        self.flight = Some(running);
        Ok(())
    }
}

/// Starts the thread that keeps the log's directory, and has it prepare the next segment.
pub(super) fn start_log_keeper<P: Publish>(
    engine: &mut ServedEngine<P>,
    events: &Sender<Event>,
    epoch: u64,
) -> Result<Sender<Chore>, StartError> {
    let events = events.clone();
    let report = move |kept| {
        let _loop_has_ended = events.send(Event::Kept(epoch, kept));
    };
    let dir = engine.publisher().dir().clone();
    let chores = log_keeper::start(engine.journal().keeper(), dir, report)
        .map_err(part("the thread that keeps the log"))?;
    let _it_lives = chores.send(Chore::Prepare);
    Ok(chores)
}
