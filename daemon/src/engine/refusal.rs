//! Why a transaction is refused: one variant for each thing its sender would have to change.
//!
//! The text is what the client reads. It names the table, the key and the column, and where that helps, what
//! would do instead. docs/transactions.md lists them.

use sherwood_client::ReadError;
use sherwood_shared::state::StateError;
use thiserror::Error;

/// Most bytes of a row's key.
pub const MOST_KEY_BYTES: usize = 1024;
/// Most bytes of a transaction's id.
pub const MOST_ID_BYTES: usize = 256;

/// Why a transaction is not applied. Nothing of it was, and nothing will be.
#[derive(Debug, Error)]
pub enum Refusal {
    /// An id that cannot be remembered.
    #[error("an id has 1 to {MOST_ID_BYTES} bytes, and this one has {bytes}")]
    Id {
        /// Its length.
        bytes: usize,
    },
    /// A key that no row can have.
    #[error("a key of {table} has 1 to {MOST_KEY_BYTES} bytes, and this one has {bytes}")]
    Key {
        /// The table.
        table: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// A row without its key.
    #[error("a row of {table} has no {column}, its key, or one that is not text")]
    NoKey {
        /// The table.
        table: &'static str,
        /// The key column.
        column: &'static str,
    },
    /// A patch that would give a row another key.
    #[error("{table} {key:?}: its {column} is its key and stays{}", instead(table))]
    KeyChange {
        /// The table.
        table: &'static str,
        /// The row.
        key: String,
        /// The key column.
        column: String,
    },
    /// A key for the one row that has none, and it is not the cluster's id.
    #[error(
        "this is cluster {cluster:?}, not {key:?}: leave the key out, or ask that cluster's daemon"
    )]
    OtherCluster {
        /// Ours.
        cluster: String,
        /// The one asked for.
        key: String,
    },
    /// No column of that name, in the schema or in the table.
    #[error("{table} {key:?}: there is no column {column}")]
    NoColumn {
        /// The table.
        table: &'static str,
        /// The row.
        key: String,
        /// The column's path.
        column: String,
    },
    /// Rows in Arrow form with a column that neither the schema nor the table has.
    #[error("there is no column {column} in {table}")]
    NoSuchColumn {
        /// The table.
        table: &'static str,
        /// The column's path.
        column: String,
    },
    /// Rows in Arrow form that have only a key, to patch with.
    #[error("the patch of {table} has no column besides the key")]
    OnlyKeys {
        /// The table.
        table: &'static str,
    },
    /// Rows in Arrow form of which some are not there.
    #[error("there is no row {key:?} in {table}{}", and_others(*others))]
    NoRows {
        /// The table.
        table: &'static str,
        /// The first of them.
        key: String,
        /// How many more.
        others: usize,
    },
    /// A value that its column cannot hold.
    #[error("{table} {key:?}, column {column}: {value} is not {expected}")]
    Value {
        /// The table.
        table: &'static str,
        /// The row.
        key: String,
        /// The column's path.
        column: String,
        /// The value, shortened.
        value: String,
        /// What fits.
        expected: String,
    },
    /// A patch without a column.
    #[error("{table} {key:?}: the patch sets nothing")]
    SetsNothing {
        /// The table.
        table: &'static str,
        /// The row.
        key: String,
    },
    /// The row to change is not there.
    #[error("there is no row {key:?} in {table}")]
    NoRow {
        /// The table.
        table: &'static str,
        /// The row.
        key: String,
    },
    /// A condition on a row's being there.
    #[error("the condition does not hold: {table} {key:?} is {}there", if *.exists { "not " } else { "" })]
    Exists {
        /// The table.
        table: &'static str,
        /// The row.
        key: String,
        /// What was asked for.
        exists: bool,
    },
    /// A condition on a column's value.
    #[error(
        "the condition does not hold: {table} {key:?}, column {column} is {found}, not {expected}"
    )]
    Differs {
        /// The table.
        table: &'static str,
        /// The row.
        key: String,
        /// The column's path.
        column: String,
        /// What is there, shortened.
        found: String,
        /// What was asked for, shortened.
        expected: String,
    },
    /// A condition on the generation.
    #[error("the condition does not hold: the generation is {found}, not {expected}")]
    Generation {
        /// The published one.
        found: u64,
        /// The one asked for.
        expected: u64,
    },
    /// A task's state does not allow the step.
    #[error("task {task:?} is {status}: only a task that is {allowed} can be {step}")]
    Status {
        /// The task.
        task: String,
        /// Its state.
        status: String,
        /// The states from which it could.
        allowed: &'static str,
        /// The step.
        step: &'static str,
    },
    /// A node that is not online gets no work.
    #[error("node {node:?} is {status}, and only a node that is online gets tasks")]
    NotOnline {
        /// The node.
        node: String,
        /// Its status.
        status: String,
    },
    /// A node that has work stays.
    #[error(
        "node {node:?} has {open} open task(s), {task:?} among them: release, complete or cancel them first"
    )]
    Busy {
        /// The node.
        node: String,
        /// One of its open tasks.
        task: String,
        /// How many there are.
        open: u64,
    },
    /// Rows in Arrow form that are not rows of the table.
    #[error("the rows do not fit table {table}: {source}")]
    Rows {
        /// The table.
        table: &'static str,
        /// What is wrong, with column and row.
        source: Box<StateError>,
    },
    /// Rows in Arrow form that cannot be computed with.
    #[error("the rows of table {table} cannot be taken: {source}")]
    Arrow {
        /// The table.
        table: &'static str,
        /// What Arrow says.
        source: arrow_schema::ArrowError,
    },
    /// A foreign state that does not fit ours.
    #[error("the foreign state cannot be merged: {reason}")]
    Merge {
        /// Why, and what to do.
        reason: String,
    },
    /// The changes cannot be published.
    #[error("it cannot be published: {reason}")]
    Publish {
        /// Why, and what to do.
        reason: String,
    },
    /// The changes cannot be published for a reason that is not in them.
    #[error("it cannot be published now: {reason}")]
    NotNow {
        /// Why, and what to do.
        reason: String,
    },
    /// The log does not take it.
    #[error("it cannot be logged: {reason}")]
    Log {
        /// Why, and what to do.
        reason: String,
    },
    /// No room for the log.
    #[error("the state directory is full: {reason}")]
    Full {
        /// What the log says.
        reason: String,
    },
    /// The engine has stopped.
    #[error("the daemon is stopping, since its log failed: send it again in a moment")]
    Stopped,
    /// The snapshot could not be read.
    #[error("the daemon cannot read its snapshot: {0}")]
    Read(#[from] ReadError),
}

impl Refusal {
    /// May the same transaction be taken later? Then it is not remembered (N7). Nor is an id that cannot be.
    pub(super) fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Id { .. }
                | Self::NotNow { .. }
                | Self::Full { .. }
                | Self::Stopped
                | Self::Read(_)
        )
    }
}

/// What to do for another key. A cluster keeps its own for as long as it lives.
fn instead(table: &str) -> &'static str {
    match table {
        "cluster" => "",
        _ => ": put a new row and delete this one",
    }
}

fn and_others(others: usize) -> String {
    match others {
        0 => String::new(),
        1 => ", nor 1 other of these rows".to_owned(),
        _ => format!(", nor {others} others of these rows"),
    }
}

/// A value for a message: whole if it is short.
pub(super) fn shorten(text: impl std::fmt::Display) -> String {
    const MOST: usize = 80;
    let mut text = text.to_string();
    if text.len() > MOST {
        let end = (0..=MOST).rev().find(|&end| text.is_char_boundary(end));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_not_there_are_counted_as_people_count() {
        let told = |others| {
            let (table, key) = ("tasks", "t".to_owned());
            Refusal::NoRows { table, key, others }.to_string()
        };
        let first = "there is no row \"t\" in tasks";
        assert_eq!(told(0), first);
        assert_eq!(told(1), format!("{first}, nor 1 other of these rows"));
        assert_eq!(told(7), format!("{first}, nor 7 others of these rows"));
    }
}
