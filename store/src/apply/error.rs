//! Why effects were not applied.

use arrow_schema::{ArrowError, DataType};
use thiserror::Error;

/// Why effects were not applied: they do not fit the state, or their own form is broken.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// The first column of a batch is not a key: text, none null.
    #[error(
        "a batch of table {table} does not begin with the table's key: its first column must be \
         {expected}, text without nulls"
    )]
    Key {
        /// The table.
        table: &'static str,
        /// The key column.
        expected: String,
    },
    /// Keys are not in ascending order, or one stands twice (E2).
    #[error("the changes of table {table} are out of order, or name a key twice, at {key:?}")]
    Order {
        /// The table.
        table: &'static str,
        /// The first key that is not above the one before it.
        key: String,
    },
    /// A column has another type than the table's.
    #[error("column {column} of table {table} holds {expected}, and a change of it brings {found}")]
    Type {
        /// The table.
        table: &'static str,
        /// The column.
        column: String,
        /// What the table has.
        expected: DataType,
        /// What the change has.
        found: DataType,
    },
    /// A batch names a column twice.
    #[error("a change of table {table} names column {column} twice")]
    Twice {
        /// The table.
        table: &'static str,
        /// The column.
        column: String,
    },
    /// The merged column is more than its type can hold.
    #[error("column {column} of table {table} cannot take the change")]
    Column {
        /// The table.
        table: &'static str,
        /// The column.
        column: String,
        /// What Arrow said.
        #[source]
        source: ArrowError,
    },
    /// A cluster is one row.
    #[error("the cluster's row must be one row, and a change of it has {rows}")]
    Cluster {
        /// How many it has.
        rows: usize,
    },
}
