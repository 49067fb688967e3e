//! What is asked of the engine, and by whom it is to be answered.

use arrow_array::RecordBatch;
use sherwood_shared::schema::TableId;
use sherwood_shared::transaction::{Answer, Condition, DomainOp, Transaction};
use sherwood_store::merge::Diff;

use super::refusal::{MOST_ID_BYTES, Refusal};

/// One request: one transaction.
#[derive(Debug)]
pub enum Request {
    /// Operations with conditions. One that names a generation is judged first of its group, against what is published.
    Transaction(Transaction),
    /// A domain operation.
    Domain {
        /// Made by the client.
        id: Option<String>,
        /// Which.
        op: DomainOp,
    },
    /// Many rows. Committed as a group of its own.
    Bulk(Bulk),
    /// What a foreign state changed, as far as it still holds. Committed as a group of its own.
    Merge {
        /// Made by the daemon, so that a start knows what was merged. A refusal is not remembered.
        id: String,
        /// What it changed.
        changes: Box<Diff>,
    },
}

/// Many rows of one table, in one transaction.
#[derive(Clone, Debug)]
pub struct Bulk {
    /// Made by the client.
    pub id: Option<String>,
    /// Which table.
    pub table: TableId,
    /// What to do with the rows.
    pub mode: BulkMode,
    /// The key column, and for put and patch some of the table's columns. In any order, keys unique.
    pub rows: RecordBatch,
}

/// What to do with many rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BulkMode {
    /// Make or replace them.
    Put,
    /// Set the given columns of rows that are there.
    Patch,
    /// Delete rows that are there. Columns besides the key are not looked at.
    Delete,
}

/// A request, and where its answer goes.
pub struct Submission {
    /// What is asked.
    pub request: Request,
    /// Called once, when the outcome is known. Must not block: the next group waits for it.
    pub reply: Box<dyn FnOnce(Answer) + Send>,
}

impl std::fmt::Debug for Submission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Submission");
        shown
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

impl Request {
    /// The client's id.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Transaction(transaction) => transaction.id.as_deref(),
            Self::Domain { id, .. } => id.as_deref(),
            Self::Bulk(bulk) => bulk.id.as_deref(),
            Self::Merge { id, .. } => Some(id),
        }
    }

    /// Is it a group of its own?
    pub(super) fn stands_alone(&self) -> bool {
        matches!(self, Self::Bulk(_) | Self::Merge { .. })
    }

    /// May others be before it in its group? Not if it names a generation: that is the published state's, not that of
    /// a state that nobody saw.
    pub(super) fn may_follow(&self) -> bool {
        match self {
            Self::Transaction(transaction) => {
                let mut conditions = transaction.conditions.iter();
                !conditions.any(|condition| matches!(condition, Condition::Generation(_)))
            }
            Self::Domain { .. } => true,
            Self::Bulk(_) | Self::Merge { .. } => false,
        }
    }

    /// What can be said without the state.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        match self.id() {
            Some(id) if !(1..=MOST_ID_BYTES).contains(&id.len()) => {
                Err(Refusal::Id { bytes: id.len() })
            }
            _ => Ok(()),
        }
    }
}
