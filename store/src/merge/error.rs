//! Why a foreign state was not merged.

use arrow_schema::{ArrowError, DataType};
use sherwood_client::ReadError;

/// Why a foreign state was not merged. Nothing of it was applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// M6.
    #[error(
        "column {column} of {table} is {theirs} there and {ours} here, and not every value fits: \
         write it as {ours}, or under another name"
    )]
    Type {
        /// `cluster`, or the table.
        table: &'static str,
        /// The column.
        column: String,
        /// Its type here.
        ours: DataType,
        /// Its type in their file.
        theirs: DataType,
    },
    /// Beyond what 32-bit offsets count, or a type that cannot be taken apart.
    #[error("column {column} of {table} cannot be merged")]
    Column {
        /// `cluster`, or the table.
        table: &'static str,
        /// The column.
        column: String,
        /// What Arrow said.
        #[source]
        source: ArrowError,
    },
    /// The snapshot to merge into cannot be read.
    #[error("the snapshot to merge into cannot be read")]
    Read(#[from] ReadError),
}
