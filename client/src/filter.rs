//! Filters: which rows of a table are wanted, said in a line of text.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use sherwood_client::TableId;
//! use sherwood_client::filter::Filter;
//!
//! let reader = sherwood_client::Reader::open("/run/sherwood/default.arrow")?;
//! let snapshot = reader.snapshot()?;
//! let tasks = snapshot.table(TableId::Tasks);
//! let filter = Filter::parse("status = 'pending' and resources.gpu_cores >= 2")?;
//! let filter = filter.bind(&*tasks.schema()?)?;
//! for batch in tasks.filter(&filter) {
//!     println!("{} rows", batch?.num_rows());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The grammar, the types and the logic of nulls are docs/filter.md; the rules by which a filter stays harmless:
//!
//! - **Q1 Any text ends in a filter or an error**: at most [`MAX_BYTES`] of it, parentheses and `not` at most
//!   [`MAX_DEPTH`] deep, so neither parsing nor a mask runs out of stack (filter/parse.rs);
//! - **Q2 Types are settled before the first row**: [`Filter::bind`] turns each literal into the column's own
//!   type, or into "always" and "never" where no value of that type can equal or pass it; a mask compares like with
//!   like (filter/bind.rs, filter/literal.rs);
//! - **Q3 A chunk is skipped only if no key in it can match**: the key ranges of a filter are an upper bound of what it
//!   accepts (filter/keys.rs).
//!
//! Data is only read. A filter that was bound can be shared between threads and used for every later snapshot whose
//! table has the same schema.

mod ast;
mod bind;
mod error;
mod keys;
mod like;
mod literal;
mod mask;
mod parse;
mod scan;
mod token;

pub use self::ast::Filter;
pub use self::bind::BoundFilter;
pub use self::error::{FilterError, FilterErrorKind, MaskError, ScanError};
pub use self::scan::Filtered;

/// The longest text that is parsed, in bytes.
pub const MAX_BYTES: usize = 64 << 10;
/// How deep parentheses and `not` may stand in each other.
pub const MAX_DEPTH: usize = 64;

#[cfg(test)]
mod tests;
