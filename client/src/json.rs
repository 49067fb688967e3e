//! A state as JSON (feature `json`): rows, the whole, and what the helpers answer.
//!
//! [`Rows`] says how values look. All text is JSON that any parser reads, and nothing of a state is left out.

mod answers;
mod document;
mod rows;

use arrow_schema::ArrowError;

pub use self::document::{ExportError, row, write_document};
pub use self::rows::{Cells, Rows, string};

/// A column of a kind that cannot be printed.
#[derive(Debug, thiserror::Error)]
#[error("cannot print column {column}")]
pub struct JsonError {
    /// Its name.
    pub column: String,
    /// Why.
    #[source]
    pub source: ArrowError,
}
