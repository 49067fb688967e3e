//! Three-way merge of a foreign state: what another program changed, applied to what we have by now.
//!
//! The base is what stood at the public name when that program read it, as far as we can know: our last public
//! checkpoint, or the foreign file merged last (`checkpoints/base.parquet`). [`diff`] says what they changed against it, once, away from the
//! engine; [`resolve`] says what of that still holds against the newest snapshot, in the engine.
//!
//! - **M1** What their file does not have is no change: a table, a column, a field of a struct. A list that is null is a table
//!   without rows, as everywhere.
//! - **M2** By row and column: theirs, where ours is still what it was in the base. Else ours stays.
//! - **M3** A row of theirs that the base lacks is new, if we have none of that key. A row that we have meanwhile made stays ours.
//! - **M4** A row that they deleted goes only if ours is unchanged since the base. One that we deleted stays deleted.
//! - **M5** Columns that the base lacks are carried through from the first value on.
//! - **M6** A column of theirs that is of another type than ours is converted where no value changes by that; else the whole merge is refused.
//!
//! A merge that is resolved again after it was applied changes nothing.

mod diff;
mod equal;
mod error;
mod resolve;
#[cfg(test)]
mod tests;

use sherwood_client::import::FileColumns;
use sherwood_shared::state::State;

pub use self::diff::{Diff, diff};
pub use self::error::MergeError;
pub use self::resolve::resolve;

/// A foreign file's state, and what of it the file really has (M1): of `sherwood_client::import::read_parquet_columns`.
#[derive(Clone, Debug)]
pub struct Theirs {
    /// The state.
    pub state: State,
    /// What the file has.
    pub columns: FileColumns,
}
