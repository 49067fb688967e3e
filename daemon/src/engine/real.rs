//! The log and the outcomes of this host, as the engine's ends.

use sherwood_store::log::{AppendError, Log};
use sherwood_store::{Entry, Outcome, Outcomes};

use super::ends::{Journal, JournalError, Remember};

impl Journal for Log {
    fn append(&mut self, entry: &Entry) -> Result<(), JournalError> {
        self.append(entry).map_err(|error| match error {
            AppendError::Full { .. } => JournalError::Full(error.into()),
            AppendError::Refused { .. } => JournalError::Refused(error.into()),
            // Whatever else there may be: nobody knows.
            _ => JournalError::Broken(error.into()),
        })
    }

    fn next_sequence(&self) -> u64 {
        self.next_sequence()
    }
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
