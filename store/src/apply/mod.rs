//! Applying what a commit changes to rows: the one place that says what an effect does.
//!
//! The publisher applies effects chunk by chunk ([`Changes`]), recovery applies a log's worth of
//! them to whole tables at once ([`Fold`]), tests and tools apply one to one state ([`apply`]). All of them end in
//! the same merge: the old keys and the changed ones, both sorted, give a list of runs, and each
//! column is gathered along its own runs, once. Columns that nothing touches are passed on as they are.
//!
//! - **A1** Within one [`Effects`] a key stands once (E2), so order within an entry has no meaning;
//! - **A2** a column that an upsert lacks keeps its old value, and is null in a new row;
//! - **A3** a struct or a list is one value: it is replaced whole;
//! - **A4** a column that the table lacks is appended, nullable, in the order of first mention; a
//!   delete and an upsert in a later entry make a new row, which keeps nothing of the old one.

mod align;
mod changes;
mod error;
mod fold;
mod gather;
mod gathering;
#[cfg(test)]
mod tests;

use arrow_array::RecordBatch;
use sherwood_shared::schema::TableId;
use sherwood_shared::state::State;

pub use changes::Changes;
pub use error::ApplyError;
pub use fold::Fold;
pub use gathering::Gathering;

use crate::entry::Effects;

/// The rows of `old` with `upserts` and `delete` applied, sorted by key.
///
/// `old` has its key in the first column, as every table of a state; upserts and deletions are as
/// [`crate::TableEffects`] says. What they do not touch is shared with `old`.
///
/// # Errors
///
/// What does not fit, with table and column. Nothing is half done.
pub fn merge_rows(
    table: TableId,
    old: &RecordBatch,
    upserts: &[RecordBatch],
    delete: &[String],
) -> Result<RecordBatch, ApplyError> {
    let changes = Changes::new(table, &old.schema(), upserts, delete)?;
    let merged = changes.merge(old, 0..changes.len())?;
    Ok(merged.unwrap_or_else(|| old.clone()))
}

/// Applies one commit's effects to a state. To apply many, use a [`Fold`].
///
/// # Errors
///
/// What does not fit, with table and column. The state is then as it was.
pub fn apply(effects: &Effects, state: &mut State) -> Result<(), ApplyError> {
    let mut next = state.tables.clone();
    for (id, rows) in TableId::ALL.into_iter().zip(&mut next) {
        let effects = &effects.tables[id as usize];
        if !effects.is_empty() {
            *rows = merge_rows(id, rows, &effects.upserts, &effects.delete)?;
        }
    }
    if let Some(cluster) = &effects.cluster {
        state.cluster = check_cluster(cluster)?;
    }
    state.tables = next;
    Ok(())
}

/// A cluster's row is one row.
fn check_cluster(cluster: &RecordBatch) -> Result<RecordBatch, ApplyError> {
    match cluster.num_rows() {
        1 => Ok(cluster.clone()),
        rows => Err(ApplyError::Cluster { rows }),
    }
}
