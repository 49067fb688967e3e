//! What the engine writes to: the snapshot file and the log, as traits, so that tests can fail them on purpose.

use std::error::Error;
use std::sync::Arc;

use sherwood_client::{ReadError, Snapshot};
use sherwood_store::log::{AppendError, Log};
use sherwood_store::{Effects, Entry, Outcome, Outcomes};

use crate::publish::{PublishError, Publisher, Staged};

/// The publishing end: a change is staged, and then committed or abandoned.
pub trait Stage {
    /// A change that is written and that nobody sees yet.
    type Staged;

    /// Writes everything of the next generation but the word that makes it visible. `None`: nothing differs. Asks
    /// what [`may_log`](Self::may_log) asks.
    fn stage(&mut self, effects: &Effects) -> Result<Option<Self::Staged>, StageError>;
    /// Is it still for us to write the log? Asked before an entry that has nothing to stage.
    fn may_log(&mut self) -> Result<(), StageError>;
    /// The generation that a staged change will be.
    fn staged_generation(&self, staged: &Self::Staged) -> u64;
    /// Makes it visible to every reader. Cannot fail.
    fn commit(&mut self, staged: Self::Staged);
    /// Takes it back.
    fn abandon(&mut self, staged: Self::Staged);
    /// The published snapshot, and no older one: what is judged against an old one is judged wrong.
    fn snapshot(&mut self) -> Result<Snapshot, ReadError>;
    /// The published generation.
    fn generation(&self) -> u64;
}

/// Why nothing is staged. Everything is as it was.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// These effects cannot be published, now or later.
    #[error("these changes cannot be published")]
    Effects(#[source] BoxError),
    /// Not now: no room, or an error of the system. A smaller change may do.
    #[error("nothing can be published now")]
    Passing(#[source] BoxError),
    /// Another has our place. Nothing may be logged or published any more.
    #[error("another has this engine's place")]
    Lost(#[source] BoxError),
}

/// Is it the change that cannot be published, now or later?
pub(crate) fn is_of_effects(error: &PublishError) -> bool {
    matches!(
        error,
        PublishError::Row { .. }
            | PublishError::Effects(_)
            | PublishError::Rows { .. }
            | PublishError::TooLarge { .. }
    )
}

impl Stage for Publisher {
    type Staged = Staged;

    fn stage(&mut self, effects: &Effects) -> Result<Option<Staged>, StageError> {
        self.stage(effects)
            .map_err(|error| match is_of_effects(&error) {
                true => StageError::Effects(error.into()),
                false => StageError::Passing(error.into()),
            })
    }
    fn may_log(&mut self) -> Result<(), StageError> {
        Ok(())
    }
    fn staged_generation(&self, staged: &Staged) -> u64 {
        staged.generation()
    }
    fn commit(&mut self, staged: Staged) {
        self.commit(staged);
    }
    fn abandon(&mut self, staged: Staged) {
        self.abandon(staged);
    }
    fn snapshot(&mut self) -> Result<Snapshot, ReadError> {
        self.published()
    }
    fn generation(&self) -> u64 {
        self.generation()
    }
}

/// The durable end.
pub trait Journal {
    /// Appends an entry; durable when it returns `Ok`.
    fn append(&mut self, entry: &Entry) -> Result<(), JournalError>;
    /// The sequence of the next entry (E3).
    fn next_sequence(&self) -> u64;
}

impl Journal for Log {
    fn append(&mut self, entry: &Entry) -> Result<(), JournalError> {
        self.append(entry).map_err(|error| match error {
            AppendError::Full { .. } => JournalError::Full(error.into()),
            AppendError::Refused { .. } => JournalError::Refused(error.into()),
            // Also what a later log may say: nobody knows.
            _ => JournalError::Broken(error.into()),
        })
    }
    fn next_sequence(&self) -> u64 {
        self.next_sequence()
    }
}

/// Why an entry is not in the log, or may be.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// No room. Nothing was written, and the log is as before.
    #[error("no room for the log")]
    Full(#[source] BoxError),
    /// This entry does not go in. Nothing was written, and the log is as before.
    #[error("the log does not take the entry")]
    Refused(#[source] BoxError),
    /// A sync failed: the entry may be durable or not, and the log must not be used again.
    #[error("the log cannot be trusted any more")]
    Broken(#[source] BoxError),
}

/// Any error.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The transactions that are remembered by their ids.
pub trait Remember {
    /// What became of the transaction with this id, if it is remembered.
    fn find(&self, id: &str) -> Option<Outcome>;
    /// Remembers an entry's outcomes. Called after the entry became durable.
    fn remember(&mut self, entry: &Entry);
}

impl Remember for Outcomes {
    fn find(&self, id: &str) -> Option<Outcome> {
        self.get(id).cloned()
    }
    fn remember(&mut self, entry: &Entry) {
        for outcome in &entry.outcomes {
            self.insert(outcome.clone());
        }
    }
}

/// An error with its causes, on one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}

/// The wall clock: milliseconds since the epoch (UTC).
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// This machine's.
#[must_use]
pub fn wall_clock() -> Clock {
    Arc::new(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        i64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
    })
}
