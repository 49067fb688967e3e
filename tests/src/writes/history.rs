//! Is there an order of all transactions that explains every answer?
//!
//! A history is linearizable if its transactions can be put into one order such that
//!
//! - **H1** each that is done met its conditions in the state that those before it made, and was then applied;
//! - **H2** each that was refused would be refused there;
//! - **H3** one that was answered before another was asked for comes before it (real time);
//! - **H4** done ones stand in the order of their generations, and a refused one beside the generation that it says;
//! - **H5** a reader's state of a generation is what all done ones up to it make, and none beyond.
//!
//! What is not known may stand anywhere after it was asked for, or nowhere. Several transactions may share a
//! generation; within it any order will do. Without generations (`generations: false`) H4 and H5 are left out, and the order is
//! searched for as by Wing and Gong, with Lowe's memory of what was tried.
//!
//! The search is exact: it finds an order if there is one. It is fast where few are under way at once.

use std::collections::{HashSet, VecDeque};

use super::transaction::{Answer, Rows, Transaction};

/// What one process did, in nanoseconds of a clock that all of them share.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Just before it asked.
    pub began: u64,
    /// Just after it was told.
    pub ended: u64,
    /// What it did.
    pub what: What,
}

/// What a process did and learnt.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Asked for a transaction.
    Asked(Transaction, Answer),
    /// Read the state of a generation: these rows, and of those it looked for, no others.
    Read(u64, Rows),
}

/// Why a history has no order.
#[derive(Clone, Debug, PartialEq)]
pub struct NoOrder {
    /// How many of the events could be put in order.
    pub explained: usize,
    /// Those that could come next in the longest order found, and what the state was.
    pub stuck: Vec<Event>,
    /// The rows after the longest order found.
    pub rows: Rows,
}

/// Looks for an order of the events, from these rows.
///
/// # Errors
///
/// There is none.
pub fn check(beginning: &Rows, events: &[Event], generations: bool) -> Result<(), NoOrder> {
    let mut events: Vec<&Event> = events.iter().collect();
    events.sort_by_key(|event| event.began);
    Search::new(events, generations).run(beginning)
}

struct Search<'a> {
    /// By when they began.
    events: Vec<&'a Event>,
    generations: bool,
    tried: HashSet<(Taken, Rows)>,
}

/// Which events are in the order already: all below `below`, and these beyond.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Taken {
    below: usize,
    beyond: VecDeque<bool>,
}

impl Taken {
    fn has(&self, event: usize) -> bool {
        event < self.below
            || self
                .beyond
                .get(event - self.below)
                .copied()
                .unwrap_or(false)
    }

    fn with(&self, event: usize) -> Self {
        let mut next = self.clone();
        let at = event - next.below;
        if next.beyond.len() <= at {
            next.beyond.resize(at + 1, false);
        }
        next.beyond[at] = true;
        while next.beyond.front() == Some(&true) {
            next.beyond.pop_front();
            next.below += 1;
        }
        next
    }

    fn len(&self) -> usize {
        self.below + self.beyond.iter().filter(|taken| **taken).count()
    }
}

/// One step of the search: what is in order, the rows it makes, the newest generation in it, what to try next.
struct Step {
    taken: Taken,
    rows: Rows,
    newest: u64,
    next: VecDeque<usize>,
}

impl<'a> Search<'a> {
    fn new(events: Vec<&'a Event>, generations: bool) -> Self {
        Self {
            events,
            generations,
            tried: HashSet::new(),
        }
    }

    fn run(mut self, beginning: &Rows) -> Result<(), NoOrder> {
        let mut best = NoOrder {
            explained: 0,
            stuck: Vec::new(),
            rows: beginning.clone(),
        };
        let taken = Taken::default();
        if self.complete(&taken) {
            return Ok(());
        }
        let next = self.candidates(&taken, 0);
        let mut path = vec![Step {
            taken,
            rows: beginning.clone(),
            newest: 0,
            next,
        }];
        while let Some(step) = path.last_mut() {
            let Some(event) = step.next.pop_front() else {
                path.pop();
                continue;
            };
            let Some((rows, newest)) = self.after(event, &step.rows, step.newest) else {
                continue;
            };
            let taken = step.taken.with(event);
            if self.complete(&taken) {
                return Ok(());
            }
            if !self.tried.insert((taken.clone(), rows.clone())) {
                continue;
            }
            let next = self.candidates(&taken, newest);
            if taken.len() > best.explained {
                best = NoOrder {
                    explained: taken.len(),
                    stuck: next
                        .iter()
                        .map(|&event| self.events[event].clone())
                        .collect(),
                    rows: rows.clone(),
                };
            }
            path.push(Step {
                taken,
                rows,
                newest,
                next,
            });
        }
        if best.explained == 0 {
            let first = self.candidates(&Taken::default(), 0);
            best.stuck = first
                .into_iter()
                .map(|event| self.events[event].clone())
                .collect();
        }
        Err(best)
    }

    /// Are all in order that have to be?
    fn complete(&self, taken: &Taken) -> bool {
        let rest = self.events.iter().enumerate().skip(taken.below);
        rest.into_iter()
            .all(|(at, event)| taken.has(at) || is_unknown(event))
    }

    /// What may come next in real time (H3) and by generation (H4): known ones first.
    fn candidates(&self, taken: &Taken, newest: u64) -> VecDeque<usize> {
        let rest = || {
            let all = self.events.iter().enumerate().skip(taken.below);
            all.filter(|(at, _)| !taken.has(*at))
        };
        // Nothing may come after one that ended before it began.
        let known = rest().filter(|(_, event)| !is_unknown(event));
        let first_end = known
            .map(|(_, event)| event.ended)
            .min()
            .unwrap_or(u64::MAX);
        let done = rest().filter_map(|(_, event)| done(event));
        let oldest = done.min().unwrap_or(u64::MAX);
        let mut next = VecDeque::new();
        for (at, event) in rest() {
            if event.began > first_end {
                break; // they are sorted by that
            }
            let fits = !self.generations
                || match &event.what {
                    What::Asked(_, Answer::Done(generation)) => *generation == oldest,
                    What::Asked(_, Answer::Refused(generation, _)) => {
                        oldest >= *generation && newest <= generation + 1
                    }
                    What::Asked(_, Answer::Unknown(_)) => true,
                    What::Read(generation, _) => oldest > *generation && newest <= *generation,
                };
            match &event.what {
                _ if !fits => {}
                What::Asked(_, Answer::Unknown(_)) => next.push_back(at),
                _ => next.push_front(at),
            }
        }
        next
    }

    /// The rows and the newest generation after this event; `None` if it cannot come here.
    fn after(&self, event: usize, rows: &Rows, newest: u64) -> Option<(Rows, u64)> {
        match &self.events[event].what {
            What::Asked(transaction, answer) => {
                let mut next = rows.clone();
                let applied = transaction.apply(&mut next).is_ok();
                match answer {
                    Answer::Done(generation) => applied.then_some((next, newest.max(*generation))),
                    Answer::Refused(..) => (!applied).then_some((next, newest)),
                    Answer::Unknown(_) => applied.then_some((next, newest)),
                }
            }
            What::Read(_, read) => (read == rows).then(|| (rows.clone(), newest)),
        }
    }
}

fn is_unknown(event: &Event) -> bool {
    matches!(event.what, What::Asked(_, Answer::Unknown(_)))
}

fn done(event: &Event) -> Option<u64> {
    match event.what {
        What::Asked(_, Answer::Done(generation)) => Some(generation),
        _ => None,
    }
}
