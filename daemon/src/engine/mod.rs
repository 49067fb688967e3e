//! The one writer: judges transactions, makes them durable, publishes them, answers.
//!
//! [`Engine::commit`] takes a *group* of requests and commits them as one: one entry of the log, one sync, one
//! generation. What each request means is docs/transactions.md; here is the order:
//!
//! 1. check: each against the snapshot and what those before it in the group do (`overlay`);
//! 2. stage: everything of the next generation is written, but nobody sees it;
//! 3. log: one entry with the net effects and the outcomes, synced;
//! 4. commit: the generation becomes visible;
//! 5. answer.
//!
//! - **N1** *Durable, then visible, then acknowledged.* A reader sees nothing that a crash could take back, and a
//!   transaction that was answered with done is both.
//! - **N2** *Whole or not at all.* A refused transaction leaves no trace in the group it came with.
//! - **N3** *After it is logged nothing can fail*: what can is before, in 1 and 2.
//! - **N4** *One bad transaction harms no other.* A group that cannot be staged or logged is halved until the guilty
//!   one stands alone, and is refused by name.
//! - **N5** *After a failed sync nobody knows.* The group's answers are unknown, nothing of it is published, and
//!   the engine takes nothing more: only a new start, from what the log really holds, may go on.
//! - **N6** *An id is judged once.* The same id gets the first answer, from the same group on, and also when nothing
//!   can be written any more.
//! - **N7** *What may pass is not remembered.* A refusal whose reason is not in the transaction (no room, an error of
//!   the disk) is told and forgotten: the same id may be sent again.
//! - **N8** *Nothing is logged that another may have to log*: the publishing end is asked before every entry, also
//!   one without effects ([`Stage::may_log`]).
//!
//! | module | idea |
//! |---|---|
//! | `refusal` | why not |
//! | `layout`, `cell` | columns; a value out of JSON and into Arrow |
//! | `overlay` | the state as the next transaction sees it |
//! | `transact` | conditions, put, patch, delete |
//! | `domain`, `pending` | tasks, nodes, content; which task waits longest |
//! | `bulk` | many rows in Arrow form |
//! | `merge` | what a foreign state changed |
//! | `ends` | the publisher and the log, as traits |

mod bulk;
mod cell;
mod domain;
mod ends;
mod layout;
mod merge;
mod overlay;
mod pending;
mod refusal;
mod request;
mod transact;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use arrow_array::RecordBatch;
use sherwood_client::{ReadError, Snapshot};
use sherwood_shared::pause;
use sherwood_shared::transaction::Answer;
use sherwood_store::{Effects, Entry, Outcome, Verdict};

pub(crate) use ends::is_of_effects;
pub use ends::{BoxError, Clock, Journal, JournalError, Remember, Stage, StageError, wall_clock};
pub use refusal::{MOST_ID_BYTES, MOST_KEY_BYTES, Refusal};
pub use request::{Bulk, BulkMode, Request, Submission};

use ends::chain;
use overlay::{Layouts, Overlay};
use pending::Pending;

/// The one writer of a state.
pub struct Engine<P, J, R> {
    publisher: P,
    journal: J,
    outcomes: R,
    clock: Clock,
    layouts: Option<Layouts>,
    /// The cluster\'s row, and the generation that has it: decoded from the snapshot it costs more than a look-up.
    cluster: Option<(u64, RecordBatch)>,
    /// Of the published state, once somebody claimed (P2).
    pending: Option<Pending>,
    /// Requests that are tried as one piece: fewer after one that was halved (N4), and then more again.
    most: usize,
    /// N5: with the ids of which nobody knows what became.
    broken: Option<HashSet<String>>,
}

/// What a commit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The newest published generation.
    pub generation: u64,
    /// Entries that were logged, each with one sync.
    pub entries: u64,
}

/// The log failed in a way that leaves open what it holds (N5): the daemon has to stop and start again.
#[derive(Debug, thiserror::Error)]
#[error("the log cannot be trusted any more: stop, and start again from what it holds")]
pub struct Fatal {
    /// What the log said; `None` if it was said before.
    #[source]
    pub source: Option<BoxError>,
}

/// What became of a request, before it is an answer.
#[derive(Debug)]
enum Judged {
    /// Not judged yet.
    Open,
    /// To be done, with the task that a claim took.
    Done { task: Option<String> },
    /// Not.
    Refused(Refusal),
    /// Decided before (N6).
    Before(Outcome),
    /// As the request at this place of the group (N6).
    As(usize),
}

/// A group, judged.
struct Checked {
    judged: Vec<Judged>,
    effects: Effects,
}

/// Why a group is not committed. Nothing of it was.
enum Failed {
    /// A smaller group may do.
    Guilty(Refusal),
    /// Whatever the group is.
    All(Instead),
    /// N5.
    Broken(BoxError),
}

/// What those are told who were to be told otherwise.
enum Instead {
    /// Nothing of it was done, and it is not remembered (N7).
    Refused(Refusal),
    /// N5.
    Broken,
    /// Another has our place, and may know the id by now.
    Lost(String),
}

impl<P: Stage, J: Journal, R: Remember> Engine<P, J, R> {
    /// An engine for a published state, whose entries so far are all in `journal`.
    pub fn new(publisher: P, journal: J, outcomes: R, clock: Clock) -> Self {
        Self {
            publisher,
            journal,
            outcomes,
            clock,
            layouts: None,
            cluster: None,
            pending: None,
            most: usize::MAX,
            broken: None,
        }
    }

    /// The publishing end.
    pub fn publisher(&mut self) -> &mut P {
        &mut self.publisher
    }

    /// The log.
    pub fn journal(&mut self) -> &mut J {
        &mut self.journal
    }

    /// The remembered outcomes.
    pub fn outcomes(&mut self) -> &mut R {
        &mut self.outcomes
    }

    /// Commits a group and answers each request in it, in order. `None`: nothing had to be logged.
    ///
    /// A request that must stand alone or first ([`Request`]) cuts the group; each piece has its own entry,
    /// generation and sync. **Durable and visible** is what was answered with done.
    ///
    /// # Errors
    ///
    /// [`Fatal`] after a failed sync (N5). All requests were answered: those it concerns with unknown, those before
    /// as they were done, those after with a refusal.
    pub fn commit(&mut self, group: Vec<Submission>) -> Result<Option<Committed>, Fatal> {
        self.commit_until(&mut VecDeque::from(group), None)
    }

    /// Like [`commit`](Self::commit), but what is left of the queue after `until` stays in it, for another call. At
    /// least one piece is taken, so that the queue becomes shorter.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit); the queue is empty then.
    pub fn commit_until(
        &mut self,
        queue: &mut VecDeque<Submission>,
        until: Option<Instant>,
    ) -> Result<Option<Committed>, Fatal> {
        let mut entries = 0;
        let mut result = Ok(());
        while let Some(first) = queue.pop_front() {
            let mut piece = vec![first];
            if !piece.iter().any(|first| first.request.stands_alone()) {
                while piece.len() < self.most
                    && let Some(next) = queue.pop_front_if(|next| next.request.may_follow())
                {
                    piece.push(next);
                }
            }
            if let Err(fatal) = self.commit_piece(piece, queue, &mut entries) {
                result = result.and(Err(fatal));
            }
            if result.is_ok() && until.is_some_and(|until| Instant::now() >= until) {
                break;
            }
        }
        result?;
        Ok((entries > 0).then(|| Committed {
            generation: self.publisher.generation(),
            entries,
        }))
    }

    /// Commits a piece and answers it. What could not be done with it is the first of `queue` again.
    fn commit_piece(
        &mut self,
        mut piece: Vec<Submission>,
        queue: &mut VecDeque<Submission>,
        entries: &mut u64,
    ) -> Result<(), Fatal> {
        if self.broken.is_some() {
            let judged = self.look_up(&piece);
            self.answer(piece, &judged, &Instead::Refused(Refusal::Stopped));
            return Err(Fatal { source: None });
        }
        let now_ms = (self.clock)();
        let mut checked = match self.check(&piece, now_ms) {
            Ok(checked) => checked,
            Err(error) => {
                // Nothing can be judged without the snapshot.
                self.pending = None;
                let judged = self.look_up(&piece);
                self.answer(piece, &judged, &Instead::Refused(error.into()));
                return Ok(());
            }
        };
        let failed = match self.write(&piece, &mut checked, now_ms) {
            Ok(written) => {
                *entries += u64::from(written.is_logged);
                self.most = self.most.saturating_mul(2);
                answer(piece, &checked.judged, written.generation, None);
                return Ok(());
            }
            Err(failed) => failed,
        };
        // It describes what did not happen.
        if let Some(pending) = &mut self.pending {
            pending.take_back();
        }
        match failed {
            Failed::Guilty(_) if piece.len() > 1 => {
                self.most = piece.len().div_ceil(2);
                for submission in piece.drain(self.most..).rev() {
                    queue.push_front(submission);
                }
                self.commit_piece(piece, queue, entries)
            }
            Failed::Guilty(refusal) => self.refuse(piece, refusal, now_ms, entries),
            Failed::All(instead) => {
                self.answer(piece, &checked.judged, &instead);
                Ok(())
            }
            Failed::Broken(source) => Err(self.break_off(piece, &checked.judged, source)),
        }
    }

    /// Refuses a piece of one, and remembers that, unless it may pass (N7) or the log does not take it.
    fn refuse(
        &mut self,
        piece: Vec<Submission>,
        refusal: Refusal,
        now_ms: i64,
        entries: &mut u64,
    ) -> Result<(), Fatal> {
        let judged = piece.iter().map(|_| Judged::Open).collect();
        let mut checked = Checked {
            judged,
            effects: Effects::default(),
        };
        if let Some(judged) = checked.judged.first_mut() {
            *judged = Judged::Refused(refusal);
        }
        match self.write(&piece, &mut checked, now_ms) {
            Ok(written) => *entries += u64::from(written.is_logged),
            // Refused all the same; only the id is not remembered.
            Err(Failed::Guilty(_) | Failed::All(Instead::Refused(_) | Instead::Broken)) => {}
            Err(Failed::All(lost @ Instead::Lost(_))) => {
                self.answer(piece, &checked.judged, &lost);
                return Ok(());
            }
            Err(Failed::Broken(source)) => {
                return Err(self.break_off(piece, &checked.judged, source));
            }
        }
        answer(piece, &checked.judged, self.publisher.generation(), None);
        Ok(())
    }

    /// N5.
    fn break_off(&mut self, piece: Vec<Submission>, judged: &[Judged], source: BoxError) -> Fatal {
        let doubtful = piece.iter().zip(judged).filter_map(|(submission, judged)| {
            let in_doubt = matches!(judged, Judged::Done { .. } | Judged::Refused(_));
            submission
                .request
                .id()
                .filter(|_| in_doubt)
                .map(str::to_owned)
        });
        self.broken = Some(doubtful.collect());
        self.answer(piece, judged, &Instead::Broken);
        Fatal {
            source: Some(source),
        }
    }

    /// Answers a piece of which nothing was done: what was decided before stays so (N6).
    fn answer(&self, piece: Vec<Submission>, judged: &[Judged], instead: &Instead) {
        let instead = (instead, self.broken.as_ref());
        answer(piece, judged, self.publisher.generation(), Some(instead));
    }

    /// Which of a piece were decided before (N6). The others are open.
    fn look_up(&self, piece: &[Submission]) -> Vec<Judged> {
        let mut ids: HashMap<&str, usize> = HashMap::with_capacity(piece.len());
        let places = piece.iter().enumerate();
        let judged = places.map(|(place, submission)| {
            let Some(id) = submission.request.id() else {
                return Judged::Open;
            };
            let first = *ids.entry(id).or_insert(place);
            if first < place {
                return Judged::As(first);
            }
            self.outcomes.find(id).map_or(Judged::Open, Judged::Before)
        });
        judged.collect()
    }

    /// 1: judges a piece.
    fn check(&mut self, piece: &[Submission], now_ms: i64) -> Result<Checked, ReadError> {
        let snapshot: Snapshot = self.publisher.snapshot()?;
        let generation = self.publisher.generation();
        let cluster = match self.cluster.take() {
            Some((at, cluster)) if at == generation => cluster,
            _ => snapshot.cluster()?,
        };
        debug_assert_eq!(Some(&cluster), snapshot.cluster().ok().as_ref());
        let layouts = Layouts::of(&snapshot, &cluster, self.layouts.as_ref())?;
        let mut judged = self.look_up(piece);
        if let Some(pending) = &mut self.pending {
            pending.begin();
        }
        let mut effects = Effects::default();
        let mut overlay = Overlay::new(&snapshot, &cluster, &layouts, &mut self.pending, now_ms);
        for (submission, judged) in piece.iter().zip(&mut judged) {
            if !matches!(judged, Judged::Open) {
                continue;
            }
            overlay.begin();
            let done = match submission.request.check() {
                Err(refusal) => Err(refusal),
                Ok(()) => match &submission.request {
                    Request::Transaction(transaction) => {
                        transact::transact(&mut overlay, generation, transaction).map(|()| None)
                    }
                    Request::Domain { op, .. } => domain::operate(&mut overlay, op),
                    Request::Bulk(bulk) => bulk::effects(&mut overlay, bulk).map(|made| {
                        effects = made;
                        None
                    }),
                    Request::Merge { changes, .. } => {
                        merge::effects(&mut overlay, changes).map(|made| {
                            effects = made;
                            None
                        })
                    }
                },
            };
            *judged = match done {
                Ok(task) => Judged::Done { task },
                Err(refusal) => {
                    overlay.rollback();
                    Judged::Refused(refusal)
                }
            };
        }
        if effects.is_empty() {
            match overlay.effects() {
                Ok(made) => effects = made,
                Err(source) => {
                    // Values were checked one by one, so this is a fault of ours; the piece is refused, not the state harmed.
                    tracing::error!(error = %source, "checked values do not make columns");
                    let reason = source.to_string();
                    for judged in &mut judged {
                        if matches!(judged, Judged::Done { .. }) {
                            *judged = Judged::Refused(Refusal::Publish {
                                reason: reason.clone(),
                            });
                        }
                    }
                    drop(overlay);
                    self.pending = None;
                }
            }
        }
        self.layouts = Some(layouts);
        self.cluster = Some((generation, cluster));
        Ok(Checked { judged, effects })
    }

    /// 2 to 4: stages, logs and commits. Takes the effects.
    fn write(
        &mut self,
        piece: &[Submission],
        checked: &mut Checked,
        now_ms: i64,
    ) -> Result<Written, Failed> {
        let mut entry = Entry {
            sequence: self.journal.next_sequence(),
            generation: 0,
            committed_at_ms: now_ms,
            effects: std::mem::take(&mut checked.effects),
            outcomes: Vec::new(),
        };
        let staged = match entry.effects.is_empty() {
            true => None,
            false => self.publisher.stage(&entry.effects).map_err(failed)?,
        };
        match &staged {
            Some(staged) => entry.generation = self.publisher.staged_generation(staged),
            None => {
                entry.generation = self.publisher.generation();
                entry.effects = Effects::default();
            }
        }
        let generation = entry.generation;
        entry.outcomes = outcomes(piece, &checked.judged, generation);
        let is_logged = staged.is_some() || !entry.outcomes.is_empty();
        if is_logged && staged.is_none() {
            self.publisher.may_log().map_err(failed)?; // N8
        }
        pause::at("commit: staged, not logged");
        if is_logged && let Err(error) = self.journal.append(&entry) {
            if let Some(staged) = staged {
                self.publisher.abandon(staged);
            }
            return Err(match error {
                JournalError::Full(source) => Failed::All(Instead::Refused(Refusal::Full {
                    reason: chain(source.as_ref()),
                })),
                JournalError::Refused(source) => Failed::Guilty(Refusal::Log {
                    reason: chain(source.as_ref()),
                }),
                JournalError::Broken(source) => Failed::Broken(source),
            });
        }
        pause::at("commit: logged, not visible");
        if let Some(staged) = staged {
            self.publisher.commit(staged);
            let before = self.cluster.take().map(|(_, cluster)| cluster);
            let cluster = entry.effects.cluster.clone().or(before);
            self.cluster = cluster.map(|cluster| (generation, cluster));
        }
        pause::at("commit: visible, not answered");
        if !entry.outcomes.is_empty() {
            self.outcomes.remember(&entry);
        }
        Ok(Written {
            generation,
            is_logged,
        })
    }
}

/// What a failed stage is to the group.
fn failed(error: StageError) -> Failed {
    match error {
        StageError::Effects(source) => Failed::Guilty(Refusal::Publish {
            reason: chain(source.as_ref()),
        }),
        StageError::Passing(source) => Failed::Guilty(Refusal::NotNow {
            reason: chain(source.as_ref()),
        }),
        StageError::Lost(source) => Failed::All(Instead::Lost(chain(source.as_ref()))),
    }
}

/// A piece that is durable and visible.
struct Written {
    generation: u64,
    is_logged: bool,
}

/// What is to be remembered of a piece.
fn outcomes(piece: &[Submission], judged: &[Judged], generation: u64) -> Vec<Outcome> {
    let with_id = piece.iter().zip(judged).filter_map(|(submission, judged)| {
        let id = submission.request.id()?;
        let verdict = match judged {
            Judged::Done { task } => Verdict::Done {
                task: task.as_deref().map(Arc::from),
            },
            // N7; and a merge is tried again as it is.
            Judged::Refused(refusal) if refusal.is_passing() => return None,
            Judged::Refused(_) if matches!(submission.request, Request::Merge { .. }) => {
                return None;
            }
            Judged::Refused(refusal) => Verdict::Refused {
                reason: refusal.to_string().into(),
            },
            Judged::Open | Judged::Before(_) | Judged::As(_) => return None,
        };
        Some(Outcome {
            id: id.into(),
            verdict,
            generation,
        })
    });
    with_id.collect()
}

/// 5: answers a piece. `instead`: nothing of it was done, and these ids nobody knows.
fn answer(
    piece: Vec<Submission>,
    judged: &[Judged],
    generation: u64,
    instead: Option<(&Instead, Option<&HashSet<String>>)>,
) {
    for (place, submission) in piece.into_iter().enumerate() {
        let id = submission.request.id().map(str::to_owned);
        let found = match judged.get(place) {
            Some(Judged::As(first)) => judged.get(*first),
            found => found,
        };
        let answer = match (found, instead) {
            (Some(Judged::Before(outcome)), _) => answer_of(outcome),
            (Some(Judged::Refused(refusal @ Refusal::Id { .. })), _) => {
                Answer::refused(id, Some(generation), refusal.to_string())
            }
            (_, Some((instead, doubtful))) => answer_instead(id, generation, instead, doubtful),
            (Some(Judged::Done { task }), None) => {
                let mut answer = Answer::done(id, generation);
                answer.task.clone_from(task);
                answer
            }
            (Some(Judged::Refused(refusal)), None) => {
                Answer::refused(id, Some(generation), refusal.to_string())
            }
            (Some(Judged::Open | Judged::As(_)) | None, None) => {
                Answer::unknown(id, "it was not judged")
            }
        };
        (submission.reply)(answer);
    }
}

fn answer_instead(
    id: Option<String>,
    generation: u64,
    instead: &Instead,
    doubtful: Option<&HashSet<String>>,
) -> Answer {
    let is_doubtful = id
        .as_ref()
        .is_some_and(|id| doubtful.is_some_and(|doubtful| doubtful.contains(id)));
    match instead {
        Instead::Refused(refusal) if !is_doubtful => {
            Answer::refused(id, Some(generation), refusal.to_string())
        }
        Instead::Lost(reason) => match id {
            Some(_) => Answer::unknown(id, format!("{reason}: ask again with the same id")),
            None => Answer::refused(None, Some(generation), reason.as_str()),
        },
        Instead::Refused(_) | Instead::Broken => Answer::unknown(
            id,
            "the log failed while this was written: ask again with the same id",
        ),
    }
}

/// The answer to an id that was judged before (N6).
#[must_use]
pub fn answer_of(outcome: &Outcome) -> Answer {
    let id = Some(outcome.id.to_string());
    match &outcome.verdict {
        Verdict::Done { task } => {
            let mut answer = Answer::done(id, outcome.generation);
            answer.task = task.as_deref().map(str::to_owned);
            answer
        }
        Verdict::Refused { reason } => {
            Answer::refused(id, Some(outcome.generation), reason.as_ref())
        }
    }
}
