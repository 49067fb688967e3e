//! What became of the last transactions, by their ids, so that a retry is answered and not done again.
//!
//! The engine owns the only copy in memory, inserts what it commits, and asks before it judges. On disk outcomes are in
//! the log, and in `<first>-<last>.outcomes` files for the segments that were released (bytes: docs/format.md, section 11).
//!
//! - **O1** The last [`WINDOW`] outcomes are remembered, over restarts and releases; older ones are forgotten in order.
//! - **O2** An id has one outcome: the first. Inserting it again changes nothing.
//! - **O3** Memory is bounded: about 17 MB for ids of 36 bytes; ids have at most [`MAX_ID_BYTES`], reasons that are kept
//!   at most [`MAX_TEXT_BYTES`], and the task that a claim took at most what a key has.
//! - **O4** Only a reason is cut: a task's id that is cut would name another task.

mod file;

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::path::Path;
use std::sync::Arc;

use crate::entry::{Outcome, Verdict};
use crate::log::LogError;
use crate::log::bytes::{Bytes, Malformed, put_text, put_varint};

pub(crate) use self::file::{list_files, read_file, write_file};

/// How many outcomes are remembered.
pub const WINDOW: usize = 131_072;
/// The longest id.
pub const MAX_ID_BYTES: usize = 256;
/// The longest reason that is remembered; the rest is cut off.
pub const MAX_TEXT_BYTES: usize = 256;

/// The window (O1).
#[derive(Debug)]
pub struct Outcomes {
    window: usize,
    kept: VecDeque<Outcome>,
    /// Number of the first of `kept`, counted from the first ever inserted.
    first: u64,
    hasher: RandomState,
    /// From the hash of an id to its number.
    by_hash: HashMap<u64, u64>,
    /// Ids whose hash another id of the window has: hardly ever one.
    collided: HashMap<Arc<str>, u64>,
}

impl Default for Outcomes {
    fn default() -> Self {
        Self::new(WINDOW)
    }
}

impl Outcomes {
    /// Remembers the last `window` outcomes, at least one.
    #[must_use]
    pub fn new(window: usize) -> Self {
        Self {
            window: window.max(1),
            kept: VecDeque::new(),
            first: 0,
            hasher: RandomState::new(),
            by_hash: HashMap::new(),
            collided: HashMap::new(),
        }
    }

    /// What a state directory's log remembers: files of outcomes, then every entry of the log. Only reads.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with the log: what a damaged part of it decided is not known.
    pub fn load(log_dir: &Path) -> Result<Self, LogError> {
        crate::log::load_outcomes(log_dir, WINDOW)
    }

    /// What became of the transaction with this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Outcome> {
        let number = self.number(id)?;
        self.at(number)
    }

    /// Remembers an outcome; the oldest is forgotten if there are too many (O1). One whose id is there changes nothing (O2).
    pub fn insert(&mut self, mut outcome: Outcome) {
        if self.number(&outcome.id).is_some() {
            return;
        }
        if self.kept.len() >= self.window {
            self.forget_oldest();
        }
        shorten(&mut outcome.verdict);
        let number = self.first + self.kept.len() as u64;
        let hash = self.hasher.hash_one(&*outcome.id);
        if let std::collections::hash_map::Entry::Vacant(place) = self.by_hash.entry(hash) {
            place.insert(number);
        } else {
            self.collided.insert(Arc::clone(&outcome.id), number);
        }
        self.kept.push_back(outcome);
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// None?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// From the oldest to the newest.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Outcome> {
        self.kept.iter()
    }

    fn at(&self, number: u64) -> Option<&Outcome> {
        let place = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.kept.get(place)
    }

    fn number(&self, id: &str) -> Option<u64> {
        let by_hash = self.by_hash.get(&self.hasher.hash_one(id)).copied();
        by_hash
            .filter(|&number| self.at(number).is_some_and(|found| *found.id == *id))
            .or_else(|| self.collided.get(id).copied())
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.kept.pop_front() else {
            return;
        };
        let hash = self.hasher.hash_one(&*oldest.id);
        if self.by_hash.get(&hash) == Some(&self.first) {
            self.by_hash.remove(&hash);
        } else {
            self.collided.remove(&oldest.id);
        }
        self.first += 1;
    }
}

fn shorten(verdict: &mut Verdict) {
    let Verdict::Refused { reason: text } = verdict else {
        return; // O4
    };
    if text.len() > MAX_TEXT_BYTES {
        let end = text.floor_char_boundary(MAX_TEXT_BYTES);
        *text = Arc::from(text.get(..end).unwrap_or_default());
    }
}

const DONE: u8 = 0;
const DONE_WITH_TASK: u8 = 1;
const REFUSED: u8 = 2;

/// Appends an outcome, as records and files of outcomes hold it.
pub(crate) fn put_outcome(out: &mut Vec<u8>, outcome: &Outcome) {
    let (kind, text) = match &outcome.verdict {
        Verdict::Done { task: None } => (DONE, None),
        Verdict::Done { task: Some(task) } => (DONE_WITH_TASK, Some(task)),
        Verdict::Refused { reason } => (REFUSED, Some(reason)),
    };
    out.push(kind);
    put_varint(out, outcome.generation);
    put_text(out, outcome.id.as_bytes());
    if let Some(text) = text {
        put_text(out, text.as_bytes());
    }
}

/// Reads one.
pub(crate) fn take_outcome(bytes: &mut Bytes<'_>) -> Result<Outcome, Malformed> {
    let kind = bytes.byte()?;
    let generation = bytes.varint()?;
    let id: Arc<str> = Arc::from(bytes.text()?);
    let verdict = match kind {
        DONE => Verdict::Done { task: None },
        DONE_WITH_TASK => Verdict::Done {
            task: Some(Arc::from(bytes.text()?)),
        },
        REFUSED => Verdict::Refused {
            reason: Arc::from(bytes.text()?),
        },
        _ => return Err(Malformed("an outcome of an unknown kind")),
    };
    Ok(Outcome {
        id,
        verdict,
        generation,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(number: usize) -> Outcome {
        Outcome {
            id: Arc::from(format!("id-{number}")),
            verdict: Verdict::Done { task: None },
            generation: number as u64,
        }
    }

    #[test]
    fn the_window_keeps_the_newest_and_forgets_in_order() {
        let mut outcomes = Outcomes::new(100);
        for number in 0..1000 {
            outcomes.insert(outcome(number));
            let oldest = (number + 1_usize).saturating_sub(100);
            assert_eq!(outcomes.len(), number + 1 - oldest);
            assert_eq!(
                outcomes.get(&format!("id-{oldest}")),
                Some(&outcome(oldest))
            );
            assert_eq!(
                outcomes.get(&format!("id-{number}")),
                Some(&outcome(number))
            );
            if oldest > 0 {
                assert_eq!(outcomes.get(&format!("id-{}", oldest - 1)), None);
            }
        }
        assert_eq!(outcomes.by_hash.len(), 100);
    }

    #[test]
    fn the_first_outcome_of_an_id_stays() {
        let mut outcomes = Outcomes::new(10);
        outcomes.insert(outcome(1));
        let mut second = outcome(1);
        second.generation = 99;
        outcomes.insert(second);
        assert_eq!(outcomes.get("id-1"), Some(&outcome(1)));
        assert_eq!(outcomes.len(), 1);
    }

    #[test]
    fn ids_of_one_hash_are_told_apart() {
        let mut outcomes = Outcomes::new(3);
        outcomes.insert(outcome(1));
        // As if the second had the hash of the first.
        let hash = outcomes.hasher.hash_one("id-2");
        outcomes.by_hash.insert(hash, 0);
        outcomes.insert(outcome(2));
        assert_eq!(outcomes.collided.len(), 1);
        assert_eq!(outcomes.get("id-1"), Some(&outcome(1)));
        assert_eq!(outcomes.get("id-2"), Some(&outcome(2)));
        for number in 3..6 {
            outcomes.insert(outcome(number));
        }
        assert_eq!(outcomes.get("id-2"), None);
        assert!(outcomes.collided.is_empty());
    }

    #[test]
    fn the_task_of_a_claim_is_remembered_whole() {
        let mut outcomes = Outcomes::new(3);
        let claim = Outcome {
            id: Arc::from("x"),
            verdict: Verdict::Done {
                task: Some(Arc::from("t".repeat(1024))),
            },
            generation: 1,
        };
        outcomes.insert(claim.clone());
        assert_eq!(outcomes.get("x"), Some(&claim));
    }

    #[test]
    fn long_reasons_are_cut_at_a_character() {
        let mut outcomes = Outcomes::new(3);
        let reason = Arc::from("é".repeat(1000));
        outcomes.insert(Outcome {
            id: Arc::from("x"),
            verdict: Verdict::Refused { reason },
            generation: 1,
        });
        let Some(Verdict::Refused { reason }) = outcomes.get("x").map(|o| &o.verdict) else {
            panic!("refused");
        };
        assert_eq!(reason.len(), MAX_TEXT_BYTES);
    }
}
