//! A tiny explorer: visits every state that a model can reach, in breadth, and stops at the first bad one.
//!
//! A model is a small value and the steps that lead from it. A step is what one process does without any other being
//! able to look in between, so every interleaving of the processes is some path of steps, and a search that ends has
//! seen them all. Breadth first, so that the trace of a violation is among the shortest there are.
//!
//! It keeps every state once, and for each the number of the state it was first reached from; labels are made only
//! for the trace, by walking that chain again. What it promises holds for the model, at the model's size; that the
//! model is the protocol is for its reader to judge.

use std::fmt;
use std::hash::{Hash, Hasher};

/// A protocol, as states and steps.
pub trait Model {
    /// Everything the processes and the memory between them hold. Small, since millions are kept.
    type State: Copy + Eq + Hash;

    /// Where all begins.
    fn start(&self) -> Self::State;

    /// Adds everything that can happen next. Steps that change nothing may be added; they lead nowhere new.
    fn steps(&self, state: &Self::State, steps: &mut Steps<Self::State>);

    /// The one state that stands for all those that differ from this one in names only. Itself, if there are none.
    fn canonical(&self, state: Self::State) -> Self::State {
        state
    }

    /// What must hold in every state that can be reached.
    fn check(&self, state: &Self::State) -> Result<(), String>;
}

/// Collects the steps from one state.
pub struct Steps<S> {
    tracing: bool,
    found: Vec<(String, Result<S, String>)>,
}

impl<S> Steps<S> {
    /// An empty collection, for a model that looks at its own steps.
    pub fn new() -> Steps<S> {
        Steps {
            tracing: false,
            found: Vec::new(),
        }
    }

    /// A step that leads to `next`.
    pub fn to(&mut self, label: impl FnOnce() -> String, next: S) {
        self.add(label, Ok(next));
    }

    /// A step that must never be possible.
    pub fn wrong(&mut self, label: impl FnOnce() -> String, why: String) {
        self.add(label, Err(why));
    }

    /// The states that the collected steps lead to.
    pub fn targets(&self) -> impl Iterator<Item = &S> {
        self.found
            .iter()
            .filter_map(|(_, target)| target.as_ref().ok())
    }

    fn add(&mut self, label: impl FnOnce() -> String, target: Result<S, String>) {
        let label = if self.tracing { label() } else { String::new() };
        self.found.push((label, target));
    }
}

/// How a search ended.
#[derive(Debug)]
pub enum Outcome {
    /// Every state was visited, and every one is good.
    Safe {
        /// How many there are.
        states: usize,
    },
    /// A bad state, or a step that must not be possible.
    Violated {
        /// How many states were known by then.
        states: usize,
        /// What is bad about it.
        why: String,
        /// What happened, in order.
        trace: Vec<String>,
    },
    /// There were more states than the limit; nothing bad among those visited. Proves nothing.
    Unfinished {
        /// The limit.
        states: usize,
    },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Safe { states } => write!(f, "safe in all of {states} states"),
            Outcome::Unfinished { states } => write!(f, "unfinished after {states} states"),
            Outcome::Violated { states, why, trace } => {
                write!(f, "violated after {states} states: {why}")?;
                for (number, label) in trace.iter().enumerate() {
                    write!(f, "\n  {:>3}. {label}", number + 1)?;
                }
                Ok(())
            }
        }
    }
}

/// Visits every state of `model`, at most `limit` of them (and of 2^32 - 1).
pub fn explore<M: Model>(model: &M, limit: usize) -> Outcome {
    let mut visited = Visited::new(model.canonical(model.start()));
    let mut steps = Steps::new();
    let mut at = 0;
    while at < visited.states.len() {
        let state = visited.states[at];
        if let Err(why) = model.check(&state) {
            return violated(model, &visited, at, why, None);
        }
        steps.found.clear();
        model.steps(&state, &mut steps);
        for (number, (_, target)) in steps.found.iter().enumerate() {
            match target {
                Ok(next) => visited.add(model.canonical(*next), at),
                Err(why) => return violated(model, &visited, at, why.clone(), Some(number)),
            }
        }
        let states = visited.states.len();
        if states > limit {
            return Outcome::Unfinished { states };
        }
        at += 1;
    }
    Outcome::Safe {
        states: visited.states.len(),
    }
}

/// The violation at state `at`, or at its step number `last`.
fn violated<M: Model>(
    model: &M,
    visited: &Visited<M::State>,
    at: usize,
    why: String,
    last: Option<usize>,
) -> Outcome {
    let labelled = |from: usize| {
        let mut steps = Steps {
            tracing: true,
            found: Vec::new(),
        };
        model.steps(&visited.states[from], &mut steps);
        steps.found
    };
    let mut chain = vec![at];
    while let Some(from) = visited.origin(chain[chain.len() - 1]) {
        chain.push(from);
    }
    chain.reverse();
    let mut trace = Vec::new();
    for pair in chain.windows(2) {
        let reached = visited.states[pair[1]];
        let mut found = labelled(pair[0]).into_iter();
        let step =
            found.find(|(_, to)| to.as_ref().is_ok_and(|to| model.canonical(*to) == reached));
        trace.extend(step.map(|(label, _)| label));
    }
    if let Some(number) = last {
        trace.extend(labelled(at).into_iter().nth(number).map(|(label, _)| label));
    }
    Outcome::Violated {
        states: visited.states.len(),
        why,
        trace,
    }
}

/// The states in the order they were found, each once, and where each was found from.
struct Visited<S> {
    states: Vec<S>,
    origins: Vec<u32>,
    /// Open addressing over numbers of states, so that no state is kept twice. [`Self::FREE`] where there is none.
    slots: Vec<u32>,
}

impl<S: Copy + Eq + Hash> Visited<S> {
    const FREE: u32 = u32::MAX;

    fn new(start: S) -> Visited<S> {
        let mut visited = Visited {
            states: Vec::new(),
            origins: Vec::new(),
            slots: vec![Self::FREE; 1 << 16],
        };
        visited.add(start, Self::FREE as usize);
        visited
    }

    fn origin(&self, state: usize) -> Option<usize> {
        let origin = self.origins[state];
        (origin != Self::FREE).then_some(origin as usize)
    }

    fn add(&mut self, state: S, origin: usize) {
        if 2 * self.states.len() >= self.slots.len() {
            self.grow();
        }
        let slot = self.slot(&state);
        if self.slots[slot] == Self::FREE {
            self.slots[slot] = number(self.states.len());
            self.states.push(state);
            self.origins.push(number(origin));
        }
    }

    /// Where `state` is, or would be.
    fn slot(&self, state: &S) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = mix(state) & mask;
        while self.slots[slot] != Self::FREE && self.states[self.slots[slot] as usize] != *state {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self) {
        self.slots = vec![Self::FREE; 2 * self.slots.len()];
        for at in 0..self.states.len() {
            let slot = self.slot(&self.states[at]);
            self.slots[slot] = number(at);
        }
    }
}

fn number(of_state: usize) -> u32 {
    u32::try_from(of_state).expect("fewer than 2^32 states fit in memory")
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "any bits of a hash will do"
)]
fn mix<S: Hash>(state: &S) -> usize {
    let mut hasher = Multiply(0);
    state.hash(&mut hasher);
    hasher.finish() as usize
}

/// A fast hash without a seed, so that every run visits the same states in the same order.
struct Multiply(u64);

impl Hasher for Multiply {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::{Model, Outcome, Steps, explore};

    /// A knight on a board of three by three, where the middle square cannot be reached.
    struct Knight {
        forbidden: (i8, i8),
    }

    impl Model for Knight {
        type State = (i8, i8);

        fn start(&self) -> (i8, i8) {
            (0, 0)
        }

        fn steps(&self, &(x, y): &(i8, i8), steps: &mut Steps<(i8, i8)>) {
            for (dx, dy) in [
                (1, 2),
                (2, 1),
                (2, -1),
                (1, -2),
                (-1, -2),
                (-2, -1),
                (-2, 1),
                (-1, 2),
            ] {
                let next = (x + dx, y + dy);
                if (0..3).contains(&next.0) && (0..3).contains(&next.1) {
                    steps.to(|| format!("{next:?}"), next);
                }
            }
        }

        fn check(&self, state: &(i8, i8)) -> Result<(), String> {
            (*state != self.forbidden)
                .then_some(())
                .ok_or("forbidden".into())
        }
    }

    #[test]
    fn a_search_visits_every_state_once() {
        let outcome = explore(&Knight { forbidden: (1, 1) }, 100);
        assert!(matches!(outcome, Outcome::Safe { states: 8 }), "{outcome}");
    }

    #[test]
    fn a_violation_comes_with_a_shortest_trace_to_it() {
        match explore(&Knight { forbidden: (2, 2) }, 100) {
            Outcome::Violated { why, trace, .. } => {
                assert_eq!(why, "forbidden");
                // Four moves lead from corner to corner; that is also the farthest square.
                assert_eq!(trace.len(), 4, "{trace:?}");
                assert_eq!(trace[3], "(2, 2)");
            }
            outcome => panic!("{outcome}"),
        }
    }

    #[test]
    fn a_search_that_meets_its_limit_claims_nothing() {
        let outcome = explore(&Knight { forbidden: (1, 1) }, 5);
        assert!(matches!(outcome, Outcome::Unfinished { .. }), "{outcome}");
    }
}
