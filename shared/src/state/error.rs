//! What can be wrong with a state's tables: one variant for each thing its writer would have to change.

use std::fmt;

use crate::schema::TableId;

/// Why record batches, or a document, are not a state. Nothing was changed or kept.
///
/// Columns are named with their path: `cluster_id`, `tasks.resources.cpu_cores`. Positions count from 0, in the
/// order of the input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// A state is one row, and its tables are lists in that row.
    #[error(
        "a state has exactly one row, with the tables as lists in it; this has {rows} rows: \
         write one row, with columns nodes, tasks and content"
    )]
    NotOneRow {
        /// Rows found.
        rows: usize,
    },
    /// None of the columns that make a document is there.
    #[error(
        "there is no column nodes, tasks or content: this is not a cluster state \
         (columns found: {found})"
    )]
    NoTables {
        /// The names of the columns there are.
        found: String,
    },
    /// The `cluster_id` is null or absent, and the caller did not say which cluster it should be.
    #[error("cluster_id is null or absent: write it, or name the cluster you expect")]
    NoClusterId,
    /// The state is another cluster's.
    #[error(
        "this is the state of cluster {found:?}, not of {expected:?}: \
         check which directory or file was given"
    )]
    WrongCluster {
        /// The one asked for.
        expected: String,
        /// The one found.
        found: String,
    },
    /// A column has a type that the schema's type cannot be made from.
    #[error("column {column} is {found}, but a state needs {expected} there")]
    WrongType {
        /// The column.
        column: String,
        /// Its Arrow type.
        found: String,
        /// The schema's type, and what else would do.
        expected: String,
    },
    /// A carried-through column has a type that a state cannot hold.
    #[error(
        "column {column} is {found}, which a state cannot carry: \
         drop the column or write it with a plain type"
    )]
    Unsupported {
        /// The column.
        column: String,
        /// Its Arrow type.
        found: String,
    },
    /// Two columns of one name: which is meant cannot be known.
    #[error("column {column} is there twice: keep one of them")]
    TwoColumns {
        /// The column.
        column: String,
    },
    /// The `cluster` table may not have columns named as the document's lists.
    #[error("the cluster table has a column {column}, the name of a table: rename it")]
    Reserved {
        /// The column.
        column: String,
    },
    /// More rows, or more bytes in one column, than 32-bit offsets can count.
    #[error(
        "{column} holds more than 2^31 - 1 rows or bytes of text, the most that one state can hold"
    )]
    TooLarge {
        /// The table or column.
        column: String,
    },
    /// A value does not fit its column.
    #[error("{value} in column {column} of {row} does not fit {expected}")]
    Value {
        /// The column.
        column: String,
        /// The row.
        row: Row,
        /// The value, printed.
        value: String,
        /// The type it should fit.
        expected: String,
    },
    /// A table has no key column.
    #[error("table {} has rows but no column {}, its key", table.name(), table.key())]
    NoKeyColumn {
        /// The table.
        table: TableId,
    },
    /// A null where a row should be.
    #[error("the entry of {} at position {position} is null: leave it out", table.name())]
    NullRow {
        /// The table.
        table: TableId,
        /// Its position.
        position: usize,
    },
    /// A row without a key.
    #[error(
        "the entry of {} at position {position} has no {}: give it one or leave the entry out",
        table.name(), table.key()
    )]
    NullKey {
        /// The table.
        table: TableId,
        /// Its position.
        position: usize,
    },
    /// Two rows with one key.
    #[error(
        "{} has two entries with {} {key:?}, at positions {first} and {second}: keep one of them",
        table.name(), table.key()
    )]
    DuplicateKey {
        /// The table.
        table: TableId,
        /// The key.
        key: String,
        /// The position of the one.
        first: usize,
        /// The position of the next.
        second: usize,
    },
}

/// A row, as errors name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// The one row of `cluster`.
    Cluster,
    /// A row of a table.
    Of {
        /// The table.
        table: TableId,
        /// Its key.
        key: String,
        /// Its position in the input.
        position: usize,
    },
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Row::Cluster => f.write_str("the cluster"),
            Row::Of {
                table,
                key,
                position,
            } => {
                write!(
                    f,
                    "{} {key:?} (position {position} of {})",
                    table.key(),
                    table.name()
                )
            }
        }
    }
}
