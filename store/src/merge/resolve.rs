//! What of a foreign change still holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow_schema::{FieldRef, Schema};
use arrow_select::take::take;
use sherwood_client::{Snapshot, Table};
use sherwood_shared::schema::TableId;

use super::MergeError;
use super::diff::{ClusterChange, Diff, Mask, TableDiff, column_error, keys};
use super::equal::{Equal, equal};
use crate::entry::{Effects, TableEffects};

/// What to apply to `current` (M2 to M5). Costs with what they changed, not with the state.
///
/// # Errors
///
/// [`MergeError::Type`], where ours got a column of another type meanwhile; [`MergeError::Read`].
pub fn resolve(diff: &Diff, current: &Snapshot) -> Result<Effects, MergeError> {
    let table = |id: TableId| resolve_table(id, &diff.tables[id as usize], current.table(id));
    Ok(Effects {
        cluster: resolve_cluster(&diff.cluster, &current.cluster()?)?,
        tables: [
            table(TableId::Nodes)?,
            table(TableId::Tasks)?,
            table(TableId::Content)?,
        ],
    })
}

fn resolve_cluster(
    changes: &[ClusterChange],
    current: &RecordBatch,
) -> Result<Option<RecordBatch>, MergeError> {
    let mut fields: Vec<FieldRef> = current.schema().fields().to_vec();
    let mut columns = current.columns().to_vec();
    let mut changed = false;
    for change in changes {
        let name = change.field.name();
        let at = fields.iter().position(|field| field.name() == name);
        let ours = at.and_then(|at| columns.get(at));
        if !equal(ours, change.base.as_ref())(0, 0) {
            continue;
        }
        same_type("cluster", &change.field, ours)?;
        changed = true;
        match at {
            Some(at) => columns[at] = Arc::clone(&change.theirs),
            None => {
                fields.push(Arc::clone(&change.field));
                columns.push(Arc::clone(&change.theirs));
            }
        }
    }
    if !changed {
        return Ok(None);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .map(Some)
        .map_err(column_error("cluster", "cluster_id"))
}

fn same_type(
    table: &'static str,
    theirs: &FieldRef,
    ours: Option<&ArrayRef>,
) -> Result<(), MergeError> {
    match ours {
        Some(ours) if ours.data_type() != theirs.data_type() => Err(MergeError::Type {
            table,
            column: theirs.name().clone(),
            ours: ours.data_type().clone(),
            theirs: theirs.data_type().clone(),
        }),
        _ => Ok(()),
    }
}

/// Comparisons of some of our columns with some batch's, for the chunk that was looked at last: keys come in order.
struct Near<'a> {
    other: &'a RecordBatch,
    chunk: Option<RecordBatch>,
    equal: BTreeMap<String, Equal>,
}

impl<'a> Near<'a> {
    fn new(other: &'a RecordBatch) -> Self {
        Self {
            other,
            chunk: None,
            equal: BTreeMap::new(),
        }
    }

    fn turn_to(&mut self, chunk: &RecordBatch) {
        let same = self.chunk.as_ref().is_some_and(|near| {
            let both = near.columns().first().zip(chunk.columns().first());
            both.is_some_and(|(a, b)| Arc::ptr_eq(a, b))
        });
        if !same {
            self.equal.clear();
            self.chunk = Some(chunk.clone());
        }
    }

    /// Is our value in `ours` that of `other` in `row`?
    fn is_same(&mut self, column: &str, ours: usize, row: usize) -> bool {
        if let Some(equal) = self.equal.get(column) {
            return equal(ours, row);
        }
        let chunk = self
            .chunk
            .as_ref()
            .and_then(|chunk| chunk.column_by_name(column));
        let made = equal(chunk, self.other.column_by_name(column));
        let same = made(ours, row);
        self.equal.insert(column.to_owned(), made);
        same
    }
}

fn resolve_table(
    id: TableId,
    diff: &TableDiff,
    current: &Table,
) -> Result<TableEffects, MergeError> {
    let mut effects = TableEffects::default();
    let theirs = &diff.theirs;
    let columns = theirs.num_columns();
    let mut all = Mask::none(columns);
    (0..columns).for_each(|column| all.set(column));
    // Rows by the columns that they get.
    let mut sets: BTreeMap<Mask, Vec<u32>> = BTreeMap::new();
    let mut near = Near::new(&diff.base);
    let schema = theirs.schema();
    for (row, changed) in diff.changed.iter().enumerate() {
        let position = u32::try_from(row).unwrap_or(u32::MAX);
        let is_new = diff.base.column(0).is_null(row);
        let Some((chunk, ours)) = current.find(keys(theirs).value(row))? else {
            // M3; and M4: one that we deleted stays so.
            if is_new {
                sets.entry(all.clone()).or_default().push(position);
            }
            continue;
        };
        if is_new {
            continue; // M3
        }
        near.turn_to(&chunk);
        let mut taken = Mask::none(columns);
        for (column, field) in schema.fields().iter().enumerate() {
            // M2
            if changed.has(column) && near.is_same(field.name(), ours, row) {
                taken.set(column);
            }
        }
        if !taken.is_empty() {
            sets.entry(taken).or_default().push(position);
        }
    }
    let ours = current.schema()?;
    for (set, rows) in sets {
        let rows = UInt32Array::from(rows);
        let mut fields: Vec<FieldRef> = Vec::new();
        let mut picked: Vec<ArrayRef> = Vec::new();
        for (at, (field, column)) in schema.fields().iter().zip(theirs.columns()).enumerate() {
            if at > 0 && !set.has(at) {
                continue;
            }
            if let Some((_, own)) = ours.fields().find(field.name())
                && own.data_type() != field.data_type()
            {
                return Err(MergeError::Type {
                    table: id.name(),
                    column: field.name().clone(),
                    ours: own.data_type().clone(),
                    theirs: field.data_type().clone(),
                });
            }
            let values = take(column, &rows, None);
            picked.push(values.map_err(column_error(id.name(), field.name()))?);
            fields.push(Arc::clone(field));
        }
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), picked);
        effects
            .upserts
            .push(batch.map_err(column_error(id.name(), id.key()))?);
    }

    // M4
    let mut near = Near::new(&diff.deleted);
    let mut names: Vec<&str> = ours.fields().iter().map(|f| f.name().as_str()).collect();
    let base = diff.deleted.schema();
    names.extend(base.fields().iter().map(|f| f.name().as_str()));
    names.sort_unstable();
    names.dedup();
    for row in 0..diff.deleted.num_rows() {
        let key = keys(&diff.deleted).value(row);
        if let Some((chunk, ours)) = current.find(key)? {
            near.turn_to(&chunk);
            if names.iter().all(|name| near.is_same(name, ours, row)) {
                effects.delete.push(key.to_owned());
            }
        }
    }
    Ok(effects)
}
