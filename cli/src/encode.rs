//! Rows in the forms that programs read, written batch by batch: what is printed never stands in memory as a whole.
//!
//! Each function takes the batches in order, all of one schema, and anything to write to. Errors of the writer are
//! [`CliError::Output`]; who writes a file says which.

mod arrow;
mod csv;
mod objects;
mod parquet;
mod yaml;

use arrow_array::RecordBatch;

pub use self::arrow::{described, stream, write_file as arrow_file};
pub use self::csv::write as csv;
pub use self::objects::{ARRAY, Frame, LINES, write as objects};
pub use self::parquet::{
    document as parquet_document, leaves as parquet_leaves, table as parquet_table,
};
pub use self::yaml::write as yaml;

use crate::error::CliError;

/// Batches of one schema.
pub type Batches<'a> = dyn Iterator<Item = Result<RecordBatch, CliError>> + 'a;

/// Arrow and Parquet put errors of the writer into their own.
fn not_encoded(format: &'static str) -> impl Fn(arrow_schema::ArrowError) -> CliError {
    move |source| match source {
        arrow_schema::ArrowError::IoError(_, source) => CliError::Output(source),
        source => CliError::Format { format, source },
    }
}
