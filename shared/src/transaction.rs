//! Transactions and their answers, in the one form that they have everywhere: JSON.
//!
//! ```json
//! {"id":"…","if":[{"table":"tasks","key":"t1","column":"status","equals":"pending"},
//!                 {"table":"nodes","key":"n1","exists":true},{"generation":17}],
//!  "ops":[{"put":"tasks","row":{"id":"t2"}},{"patch":"tasks","key":"t1","set":{"status":"assigned"}},
//!         {"delete":"content","key":"c1"}]}
//! ```
//!
//! A transaction applies whole or not at all. docs/transactions.md says what each part means.

mod domain;
mod json;
mod parse;

use serde_json::{Map, Value};

pub use self::domain::DomainOp;
pub use self::parse::{FormError, object};
use crate::schema::TableId;

/// Bytes of the longest id of a transaction. Ids are remembered, so they must not be long.
pub const MAX_ID_BYTES: usize = 256;
/// Bytes of the longest key of a row.
pub const MAX_KEY_BYTES: usize = 1024;

/// What an operation or a condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The cluster's one row; its key may be left out.
    Cluster,
    /// A table.
    Table(TableId),
}

/// Operations that apply together, if the conditions hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transaction {
    /// Made by the client. The same id again gets the first outcome and changes nothing.
    pub id: Option<String>,
    /// All have to hold, against the state before the first operation.
    pub conditions: Vec<Condition>,
    /// In order: each sees what those before it did.
    pub ops: Vec<Op>,
}

/// What has to hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// A row is there, or is not.
    Exists {
        /// Of which table.
        table: Target,
        /// The row's key.
        key: String,
        /// Is it?
        exists: bool,
    },
    /// A column of a row has this value. A row that is not there has no value at all, not even null.
    Equals {
        /// Of which table.
        table: Target,
        /// The row's key; empty for the cluster.
        key: String,
        /// A column, or with dots a field of a struct.
        column: String,
        /// The value; null for none.
        equals: Value,
    },
    /// The published generation is this one.
    Generation(u64),
}

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Makes a row, or replaces it. Columns of the document that are left out become null; columns beyond
    /// the document (that an older client cannot know) keep their values.
    Put {
        /// Which table.
        table: TableId,
        /// The row, key included.
        row: Map<String, Value>,
    },
    /// Sets some columns of a row that is there. A struct that is set is merged field by field.
    Patch {
        /// Which table, or the cluster.
        table: Target,
        /// The row's key; empty for the cluster.
        key: String,
        /// Columns and values.
        set: Map<String, Value>,
    },
    /// Deletes a row that is there.
    Delete {
        /// Which table.
        table: TableId,
        /// The row's key.
        key: String,
    },
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The transaction's id, if it has one.
    pub id: Option<String>,
    /// Done, refused or unknown.
    pub outcome: OutcomeKind,
    /// The generation in which it is done, or against which it was refused.
    pub generation: Option<u64>,
    /// Why it was refused or is unknown.
    pub reason: Option<String>,
    /// The task that a claim took.
    pub task: Option<String>,
}

/// Done, refused or unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeKind {
    /// Durable, and visible to every reader of the daemon's host.
    Done,
    /// Nothing of it was applied, and nothing will be.
    Refused,
    /// Not known: it may have been applied. Ask again with the same id.
    Unknown,
}
