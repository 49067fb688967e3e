//! A change given row by row: each touched chunk is built anew from runs of its old
//! rows and the new ones between them.

use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch, StringArray};
use arrow_schema::ArrowError;
use arrow_select::concat::concat_batches;
use sherwood_client::Table;

use super::PublishError;
use super::change::{Splice, TableChange, lower_bound};
use super::cut::{body_bytes, cut};

/// Rows of one table to put and keys to delete.
#[derive(Clone, Debug, Default)]
pub struct RowChanges {
    /// Whole rows, in the table's schema, sorted by key, keys unique. Each replaces the row
    /// with its key, or is new.
    pub put: Option<RecordBatch>,
    /// Keys to delete, sorted, none of them put. One that is not there is no error.
    pub delete: Vec<String>,
}

impl RowChanges {
    /// Nothing to do?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.delete.is_empty() && self.put.as_ref().is_none_or(|rows| rows.num_rows() == 0)
    }
}

/// What becomes of one key.
#[derive(Clone, Copy, Debug)]
enum Row<'a> {
    Put(&'a str, usize),
    Delete(&'a str),
}

impl<'a> Row<'a> {
    fn key(self) -> &'a str {
        match self {
            Row::Put(key, _) | Row::Delete(key) => key,
        }
    }
}

/// The splices that make `changes` to `table`.
pub(super) fn splices(
    table: &Table,
    changes: &RowChanges,
    chunk_bytes: usize,
) -> Result<TableChange, PublishError> {
    let encode = |source| PublishError::Rows {
        table: table.id().name(),
        source,
    };
    let misfit = |what: &str| encode(ArrowError::SchemaError(what.to_owned()));
    if changes.is_empty() {
        return Ok(TableChange::Keep);
    }
    let schema = table.schema()?;
    let put = changes
        .put
        .clone()
        .unwrap_or_else(|| RecordBatch::new_empty(schema.clone()));
    if put.schema() != schema {
        return Err(misfit("the rows to put have another schema than the table"));
    }
    let keys = put.column_by_name(table.id().key());
    let keys = keys.and_then(|keys| keys.as_string_opt::<i32>());
    let keys = keys.ok_or_else(|| misfit("the rows to put have no key"))?;
    let rows = in_order(keys, &changes.delete).ok_or_else(|| misfit("the keys are not sorted"))?;
    if table.is_empty() {
        if put.num_rows() == 0 {
            return Ok(TableChange::Keep);
        }
        let chunks = cut(&put, chunk_bytes).into_iter();
        let chunks = chunks
            .map(|piece| put.slice(piece.start, piece.len()))
            .collect();
        return Ok(TableChange::Replace { schema, chunks });
    }
    let count = table.chunk_count();
    let mut splices: Vec<Splice> = Vec::new();
    let mut at = 0;
    while at < rows.len() {
        let chunk = table.chunk_of(rows[at].key())?;
        let until = match table.batch(chunk + 1)? {
            Some(next) => {
                let first = key_column(&next, table).filter(|keys| !keys.is_empty());
                let first = first.map_or("", |keys| keys.value(0));
                at + rows[at..].partition_point(|row| row.key() < first)
            }
            None => rows.len(),
        };
        let old = table
            .batch(chunk)?
            .ok_or_else(|| misfit("a chunk is missing"))?;
        let merged = merge(&old, table, &put, &rows[at..until.max(at + 1)]).map_err(encode)?;
        at = until.max(at + 1);
        let (range, merged) = grow(
            chunk..chunk + 1,
            merged,
            table,
            count,
            chunk_bytes,
            &splices,
        )?;
        let Some(merged) = merged else { continue };
        let pieces = cut(&merged, chunk_bytes).into_iter();
        let new: Vec<_> = pieces
            .map(|piece| merged.slice(piece.start, piece.len()))
            .collect();
        splices.push(Splice { old: range, new });
    }
    Ok(if splices.is_empty() {
        TableChange::Keep
    } else {
        TableChange::Splices(splices)
    })
}

fn key_column<'a>(rows: &'a RecordBatch, table: &Table) -> Option<&'a StringArray> {
    rows.column_by_name(table.id().key())?
        .as_string_opt::<i32>()
}

/// Puts and deletes by key; `None` if either is out of order or both name a key.
fn in_order<'a>(keys: &'a StringArray, delete: &'a [String]) -> Option<Vec<Row<'a>>> {
    let mut rows = Vec::with_capacity(keys.len() + delete.len());
    let mut deletes = delete.iter().peekable();
    for row in 0..keys.len() {
        let key = keys.value(row);
        while let Some(delete) = deletes.next_if(|delete| delete.as_str() < key) {
            rows.push(Row::Delete(delete));
        }
        rows.push(Row::Put(key, row));
    }
    rows.extend(deletes.map(|key| Row::Delete(key)));
    rows.is_sorted_by(|a, b| a.key() < b.key()).then_some(rows)
}

/// One chunk's rows with `changes` made; `None` if that changes nothing.
fn merge(
    old: &RecordBatch,
    table: &Table,
    put: &RecordBatch,
    changes: &[Row<'_>],
) -> Result<Option<RecordBatch>, ArrowError> {
    let keys = key_column(old, table);
    let keys = keys.ok_or_else(|| ArrowError::SchemaError("a chunk without keys".to_owned()))?;
    let mut runs: Vec<RecordBatch> = Vec::with_capacity(changes.len() * 2 + 1);
    let mut copied = 0;
    let mut changed = false;
    for change in changes {
        let at = lower_bound(keys, copied, change.key());
        let found = at < keys.len() && keys.value(at) == change.key();
        if let Row::Put(_, row) = change {
            push(&mut runs, old, copied..at);
            runs.push(put.slice(*row, 1));
        } else if found {
            push(&mut runs, old, copied..at);
        } else {
            continue;
        }
        copied = at + usize::from(found);
        changed = true;
    }
    push(&mut runs, old, copied..keys.len());
    changed
        .then(|| concat_batches(&old.schema(), &runs))
        .transpose()
}

fn push(runs: &mut Vec<RecordBatch>, old: &RecordBatch, rows: Range<usize>) {
    if !rows.is_empty() {
        runs.push(old.slice(rows.start, rows.len()));
    }
}

/// Joins a chunk that shrank below a quarter to the one before, unless that was spliced,
/// so that deletions do not leave crumbs.
fn grow(
    range: Range<usize>,
    merged: Option<RecordBatch>,
    table: &Table,
    count: usize,
    chunk_bytes: usize,
    before: &[Splice],
) -> Result<(Range<usize>, Option<RecordBatch>), PublishError> {
    let Some(rows) = merged else {
        return Ok((range, None));
    };
    if body_bytes(&rows, 0, rows.num_rows()) >= chunk_bytes / 4 || count == 1 {
        return Ok((range, Some(rows)));
    }
    // Keys ascend, so no later change touches the chunk before.
    let free = before.last().map_or(0, |splice| splice.old.end);
    if range.start == 0 || range.start - 1 < free {
        return Ok((range, Some(rows)));
    }
    let Some(neighbour) = table.batch(range.start - 1)? else {
        return Ok((range, Some(rows)));
    };
    let encode = |source| PublishError::Rows {
        table: table.id().name(),
        source,
    };
    let joined = concat_batches(&rows.schema(), [&neighbour, &rows]).map_err(encode)?;
    Ok((range.start - 1..range.end, Some(joined)))
}
