//! What is asked of the engine, and how it answers.

use arrow_array::RecordBatch;
use sherwood_shared::schema::TableId;
use sherwood_shared::transaction::{Answer, DomainOp, Transaction};

/// One request: all of it is applied, or nothing.
#[derive(Debug)]
pub enum Request {
    /// Operations, with conditions.
    Transaction(Transaction),
    /// A domain operation.
    Domain {
        /// The client's id for it.
        id: Option<String>,
        /// Which one.
        op: DomainOp,
    },
    /// Many rows of one table.
    Bulk(Bulk),
}

/// Many rows of one table, as one transaction.
#[derive(Debug)]
pub struct Bulk {
    /// The client's id for it.
    pub id: Option<String>,
    /// Whose rows.
    pub table: TableId,
    /// What happens with them.
    pub mode: BulkMode,
    /// The key column and, but for a delete, others. In any order; keys may repeat or be null:
    /// the engine judges.
    pub rows: RecordBatch,
}

/// What happens with the rows of a [`Bulk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BulkMode {
    /// Rows are made or replaced.
    Put,
    /// Columns of rows that are there are set.
    Patch,
    /// Rows that are there are deleted, by key.
    Delete,
}

/// A request on its way to the engine.
pub struct Submission {
    /// What is asked.
    pub request: Request,
    /// Called once, from the engine's thread; must not block. Dropped without a call: nobody knows.
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
