//! One entry of the log: what a group of transactions, committed together, does to the state.
//!
//! An entry holds *effects*, not requests: every condition was judged and every rule applied
//! before it was logged, so replaying needs no rules and gives the same rows for ever.
//!
//! - **E1** An entry is durable whole or not at all, and published by one generation.
//! - **E2** Within an entry a key of a table stands at most once: in one upsert or in the deletions.
//! - **E3** Sequences count entries from 1, without gaps. Generations grow from entry to entry that
//!   has effects, with gaps: a generation may have come without a change.
//! - **E4** An entry without effects has only outcomes to remember; its generation is the one they were judged against.

use std::sync::Arc;

use arrow_array::RecordBatch;

/// What one group commit changes and decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// E3.
    pub sequence: u64,
    /// The generation that publishes it (E3, E4).
    pub generation: u64,
    /// When it was committed, by the daemon's wall clock: milliseconds since the epoch (UTC).
    pub committed_at_ms: i64,
    /// What changes.
    pub effects: Effects,
    /// What became of each transaction that has an id, in the order of their commit.
    pub outcomes: Vec<Outcome>,
}

/// Changes of a state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// The cluster's whole new row.
    pub cluster: Option<RecordBatch>,
    /// By `TableId`.
    pub tables: [TableEffects; 3],
}

/// Changes of one table. None, if both lists are empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableEffects {
    /// Rows by column set: each batch has the table's key column first, then some of the table's
    /// columns, or new ones that the table gets by this. Sorted by key, keys unique (E2). A row that is there
    /// gets these values and keeps its others; one that is not is made, with nulls in the others.
    pub upserts: Vec<RecordBatch>,
    /// Keys to delete, sorted, unique. One that is not there is no error.
    pub delete: Vec<String>,
}

/// What became of one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The client's id.
    pub id: Arc<str>,
    /// Done or refused.
    pub verdict: Verdict,
    /// The generation that publishes it, or against which it was refused.
    pub generation: u64,
}

/// Done or refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Applied. With the task that a claim took.
    Done {
        /// The task's id.
        task: Option<Arc<str>>,
    },
    /// Not applied.
    Refused {
        /// Why.
        reason: Arc<str>,
    },
}

impl Effects {
    /// Changes nothing?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cluster.is_none() && self.tables.iter().all(TableEffects::is_empty)
    }
}

impl TableEffects {
    /// Changes nothing?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.delete.is_empty()
    }
}
