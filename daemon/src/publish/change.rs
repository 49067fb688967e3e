//! What differs between the snapshot and the next state, in whole chunks.
//!
//! Each chunk owns the keys from its first key up to the next chunk's. The rows of the
//! next state in that range are compared with the chunk's; equal ones keep the chunk as
//! it stands in the file, so a change costs the chunks it touches (F4, M4).

use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch, StringArray};
use arrow_schema::SchemaRef;
use sherwood_client::{ReadError, Snapshot, Table};
use sherwood_shared::gathered::Frame;
use sherwood_shared::schema::TableId;
use sherwood_shared::state::State;
use sherwood_store::Gathering;

use super::cut::{body_bytes, cut};

/// A change of the state, ready to be published.
#[derive(Clone, Debug, Default)]
pub(super) struct Change {
    /// The cluster's row, if it changed.
    pub(super) cluster: Option<RecordBatch>,
    /// By [`TableId`].
    pub(super) tables: [TableChange; 3],
}

/// A change of one table.
#[derive(Clone, Debug, Default)]
pub(super) enum TableChange {
    /// Nothing differs.
    #[default]
    Keep,
    /// Some chunks make place for others. Ascending, not overlapping.
    Splices(Vec<Splice>),
    /// Everything differs, the schema perhaps.
    Replace {
        /// The new schema.
        schema: SchemaRef,
        /// All old chunks, by their number.
        old: Range<usize>,
        /// All rows, in chunks, in key order.
        chunks: Vec<RecordBatch>,
    },
}

/// Chunks that make place for others.
#[derive(Clone, Debug)]
pub(super) struct Splice {
    /// The old chunks, by their number in key order.
    pub(super) old: Range<usize>,
    /// The new chunks.
    pub(super) new: New,
}

impl Splice {
    /// The new chunks that are batches.
    pub(super) fn chunks(&self) -> &[RecordBatch] {
        match &self.new {
            New::Chunks(chunks) => chunks,
            New::Gathered(_) => &[],
        }
    }
}

/// New chunks, none of them empty.
#[derive(Clone, Debug)]
pub(super) enum New {
    /// Each a batch.
    Chunks(Vec<RecordBatch>),
    /// One, in the place of one old chunk, whose rows are gathered where it is to stand.
    Gathered(Box<(Gathering, Frame)>),
}

impl Change {
    /// Nothing at all?
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.cluster.is_none()
            && self
                .tables
                .iter()
                .all(|table| matches!(table, TableChange::Keep))
    }

    /// Everything: what a new file begins with.
    pub(super) fn whole(next: &State, chunk_bytes: usize) -> Self {
        let table = |id| replace(0..0, next.table(id), chunk_bytes);
        Self {
            cluster: Some(next.cluster.clone()),
            tables: TableId::ALL.map(table),
        }
    }

    /// What differs between `current` and `next`.
    pub(super) fn between(
        current: &Snapshot,
        next: &State,
        chunk_bytes: usize,
    ) -> Result<Self, ReadError> {
        let mut change = Self::default();
        if current.cluster()? != next.cluster {
            change.cluster = Some(next.cluster.clone());
        }
        for (id, slot) in TableId::ALL.into_iter().zip(&mut change.tables) {
            *slot = between(current.table(id), next.table(id), id, chunk_bytes)?;
        }
        Ok(change)
    }
}

fn replace(old: Range<usize>, rows: &RecordBatch, chunk_bytes: usize) -> TableChange {
    TableChange::Replace {
        schema: rows.schema(),
        old,
        chunks: pieces(rows, chunk_bytes),
    }
}

fn pieces(rows: &RecordBatch, chunk_bytes: usize) -> Vec<RecordBatch> {
    let ranges = cut(rows, chunk_bytes).into_iter();
    ranges
        .map(|piece| rows.slice(piece.start, piece.len()))
        .collect()
}

fn between(
    old: &Table,
    next: &RecordBatch,
    id: TableId,
    chunk_bytes: usize,
) -> Result<TableChange, ReadError> {
    let keys = next
        .column_by_name(id.key())
        .and_then(|keys| keys.as_string_opt::<i32>());
    let (Some(keys), true) = (keys, old.schema()? == next.schema()) else {
        return Ok(replace(0..old.chunk_count(), next, chunk_bytes));
    };
    if old.is_empty() {
        return Ok(if next.num_rows() == 0 {
            TableChange::Keep
        } else {
            replace(0..0, next, chunk_bytes)
        });
    }
    let ranges = owned_ranges(old, keys, id)?;
    let mut changed = Vec::new();
    for (number, (batch, range)) in old.batches().zip(&ranges).enumerate() {
        if batch? != next.slice(range.start, range.len()) {
            changed.push(number);
        }
    }
    let mut splices: Vec<Splice> = Vec::new();
    for run in runs(&changed) {
        let run = absorb_small(run, &ranges, next, chunk_bytes);
        let rows = ranges[run.start].start..ranges[run.end - 1].end;
        let new = New::Chunks(pieces(&next.slice(rows.start, rows.len()), chunk_bytes));
        match splices.last_mut() {
            // A small run took in what the one before it ends with.
            Some(before) if before.old.end >= run.start => {
                let old = before.old.start..run.end.max(before.old.end);
                let rows = ranges[old.start].start..ranges[old.end - 1].end;
                let new = New::Chunks(pieces(&next.slice(rows.start, rows.len()), chunk_bytes));
                *before = Splice { old, new };
            }
            _ => splices.push(Splice { old: run, new }),
        }
    }
    Ok(if splices.is_empty() {
        TableChange::Keep
    } else {
        TableChange::Splices(splices)
    })
}

/// The rows of `keys` that each old chunk owns.
fn owned_ranges(
    old: &Table,
    keys: &StringArray,
    id: TableId,
) -> Result<Vec<Range<usize>>, ReadError> {
    let mut starts = Vec::with_capacity(old.chunk_count() + 1);
    for batch in old.batches() {
        let batch = batch?;
        let first = batch
            .column_by_name(id.key())
            .and_then(|keys| keys.as_string_opt::<i32>());
        let first = first
            .filter(|keys| !keys.is_empty())
            .map_or("", |keys| keys.value(0));
        let from = starts.last().copied().unwrap_or(0);
        starts.push(if starts.is_empty() {
            0
        } else {
            lower_bound(keys, from, first)
        });
    }
    starts.push(keys.len());
    Ok(starts.windows(2).map(|pair| pair[0]..pair[1]).collect())
}

/// The first row at or behind `from` whose key is not below `key`.
fn lower_bound(keys: &StringArray, from: usize, key: &str) -> usize {
    let (mut low, mut high) = (from, keys.len());
    while low < high {
        let middle = low + (high - low) / 2;
        if keys.value(middle) < key {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// Consecutive numbers as ranges.
fn runs(numbers: &[usize]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some(run) if run.end == number => run.end += 1,
            _ => runs.push(number..number + 1),
        }
    }
    runs
}

/// Takes in neighbours while the rows of a run would make less than a quarter of a
/// chunk, so that deletions do not leave crumbs.
fn absorb_small(
    mut run: Range<usize>,
    ranges: &[Range<usize>],
    next: &RecordBatch,
    chunk_bytes: usize,
) -> Range<usize> {
    loop {
        let rows = ranges[run.start].start..ranges[run.end - 1].end;
        if !rows.is_empty() && body_bytes(next, rows.start, rows.len()) >= chunk_bytes / 4 {
            return run;
        }
        if run.end < ranges.len() {
            run.end += 1;
        } else if run.start > 0 {
            run.start -= 1;
        } else {
            return run;
        }
    }
}
