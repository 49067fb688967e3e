//! Many commits' effects, folded into one: what recovery applies to a checkpoint.
//!
//! For each key the fold knows the last commit that set each column. Rows stay in the batches they
//! came in, put together by column set every few thousand rows, so that a hundred thousand entries of
//! one row each cost neither a batch each nor a merge each.

use std::cell::RefCell;
use std::collections::HashMap;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{ArrowError, DataType, SchemaRef};
use arrow_select::concat::{concat, concat_batches};
use arrow_select::interleave::interleave_record_batch;
use sherwood_shared::schema::TableId;
use sherwood_shared::state::State;

use super::align::{Alignment, Cell};
use super::changes::Columns;
use super::{ApplyError, check_cluster};
use crate::entry::{Effects, TableEffects};

/// Batches of one column set that are put together when there are so many, or so many bytes.
const PENDING: usize = if cfg!(test) { 16 } else { 128 };
const PENDING_BYTES: usize = if cfg!(test) { 1 << 10 } else { 64 << 20 };
/// Of one column set. With more, rows that later ones replaced are thrown out before columns are made of them: what a log holds can
/// be longer than what a column can.
const MOST_BYTES: usize = if cfg!(test) { 4 << 10 } else { 1 << 30 };
/// Rows of one column set that may be out of date, beside as many as are not.
const SLACK: u32 = if cfg!(test) { 64 } else { 1 << 16 };
const NONE: u32 = u32::MAX;

/// Effects of many commits, added in their order, to be applied at once.
#[derive(Debug, Default)]
pub struct Fold {
    cluster: Option<RecordBatch>,
    tables: [FoldedTable; 3],
}

#[derive(Debug, Default)]
struct FoldedTable {
    groups: Vec<Group>,
    keys: HashMap<Box<str>, u32>,
    slots: Vec<Slot>,
    refs: Vec<Ref>,
}

/// Rows with the same columns.
#[derive(Debug)]
struct Group {
    schema: SchemaRef,
    pending: Vec<RecordBatch>,
    pending_bytes: usize,
    done: Vec<RecordBatch>,
    /// Of texts and lists of them, in `done`.
    done_bytes: usize,
    rows: u32,
    /// With more rows or bytes than this, those that later ones replaced are thrown out.
    most: u32,
    most_bytes: usize,
}

/// What became of one key.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// The last [`Ref`] of its list, or [`NONE`].
    last: u32,
    /// It was deleted and nothing came after.
    deleted: bool,
    /// It was deleted at some time: nothing of the old row stays (A4).
    fresh: bool,
}

/// A row that set some columns of a key, and the one that did so before it.
#[derive(Clone, Copy, Debug)]
struct Ref {
    group: u32,
    row: u32,
    before: u32,
}

impl Fold {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what the next commit changes.
    ///
    /// # Errors
    ///
    /// Effects whose form is broken; the fold is then not to be used.
    pub fn add(&mut self, effects: &Effects) -> Result<(), ApplyError> {
        if let Some(cluster) = &effects.cluster {
            self.cluster = Some(check_cluster(cluster)?);
        }
        for (id, table) in TableId::ALL.into_iter().zip(&mut self.tables) {
            table.add(id, &effects.tables[id as usize])?;
        }
        Ok(())
    }

    /// The state that `old` becomes. Costs one merge for each table that changes; beside the old
    /// state there is never more on the heap than what changed and one column.
    ///
    /// # Errors
    ///
    /// Effects that do not fit the state.
    pub fn finish(self, old: State) -> Result<State, ApplyError> {
        let mut state = State {
            cluster: self.cluster.unwrap_or(old.cluster),
            tables: old.tables,
        };
        for ((id, folded), rows) in TableId::ALL
            .into_iter()
            .zip(self.tables)
            .zip(&mut state.tables)
        {
            if !folded.groups.is_empty() || !folded.slots.is_empty() {
                let empty = RecordBatch::new_empty(rows.schema());
                *rows = folded.finish(id, std::mem::replace(rows, empty))?;
            }
        }
        Ok(state)
    }
}

impl FoldedTable {
    fn add(&mut self, id: TableId, effects: &TableEffects) -> Result<(), ApplyError> {
        for rows in &effects.upserts {
            let group = self.group(rows.schema_ref());
            let columns = Columns::new(id, rows.schema_ref());
            let keys = columns.keys(rows)?;
            let start = self.groups[group].rows;
            for (row, key) in (start..).zip(keys.iter().flatten()) {
                self.upsert(key, u32::try_from(group).unwrap_or(NONE), row);
            }
            self.groups[group].take(rows, id)?;
            if self.groups[group].is_long() {
                self.throw_out(id, group)?;
            }
        }
        for key in &effects.delete {
            let slot = self.slot(key);
            *slot = Slot {
                last: NONE,
                deleted: true,
                fresh: true,
            };
        }
        Ok(())
    }

    /// The group of a column set.
    fn group(&mut self, schema: &SchemaRef) -> usize {
        let same = |group: &Group| {
            std::sync::Arc::ptr_eq(&group.schema, schema) || group.schema == *schema
        };
        if let Some(found) = self.groups.iter().position(same) {
            return found;
        }
        self.groups.push(Group {
            schema: SchemaRef::clone(schema),
            pending: Vec::new(),
            pending_bytes: 0,
            done: Vec::new(),
            done_bytes: 0,
            rows: 0,
            most: SLACK,
            most_bytes: MOST_BYTES,
        });
        self.groups.len() - 1
    }

    fn slot(&mut self, key: &str) -> &mut Slot {
        let number = match self.keys.get(key) {
            Some(&number) => number,
            None => {
                let number = u32::try_from(self.slots.len()).unwrap_or(NONE);
                self.slots.push(Slot {
                    last: NONE,
                    deleted: false,
                    fresh: false,
                });
                self.keys.insert(key.into(), number);
                number
            }
        };
        &mut self.slots[usize::try_from(number).unwrap_or(usize::MAX)]
    }

    /// Sets the columns of a group: its row goes to the front of the key's list, and an earlier
    /// one of the same group leaves it.
    fn upsert(&mut self, key: &str, group: u32, row: u32) {
        let next = u32::try_from(self.refs.len()).unwrap_or(NONE);
        let slot = self.slot(key);
        slot.deleted = false;
        let last = slot.last;
        let (mut found, mut after) = (last, NONE);
        while let Some(of) = self.refs.get(found as usize) {
            if of.group == group {
                break;
            }
            after = found;
            found = of.before;
        }
        if found == NONE {
            self.slot(key).last = next;
            self.refs.push(Ref {
                group,
                row,
                before: last,
            });
            return;
        }
        let before = self.refs[found as usize].before;
        if let Some(after) = self.refs.get_mut(after as usize) {
            after.before = before;
            self.slot(key).last = found;
            self.refs[found as usize].before = last;
        }
        self.refs[found as usize].row = row;
    }

    /// Keeps of a group the rows that some key still has: a key that changes all the time takes no
    /// more room than one that changed once.
    fn throw_out(&mut self, id: TableId, group: usize) -> Result<(), ApplyError> {
        let mut kept: Vec<u32> = Vec::new();
        for slot in &self.slots {
            let mut next = slot.last;
            while let Some(found) = self.refs.get_mut(next as usize) {
                next = found.before;
                if found.group as usize == group {
                    kept.push(found.row);
                    found.row = u32::try_from(kept.len() - 1).unwrap_or(NONE);
                }
            }
        }
        let group = &mut self.groups[group];
        group.flush(id)?;
        group.keep(id, &kept)
    }

    fn finish(mut self, id: TableId, old: RecordBatch) -> Result<RecordBatch, ApplyError> {
        let mut columns = Columns::new(id, old.schema_ref());
        for group in &mut self.groups {
            columns.take_in(&group.schema)?;
            group.flush(id)?;
        }
        for group in 0..self.groups.len() {
            if self.groups[group].done_bytes > MOST_BYTES {
                self.throw_out(id, group)?;
            }
        }
        let slots = &self.slots;
        // While columns are merged nothing is kept that is not needed: that is when a start takes the most memory.
        let mut keys: Vec<(Box<str>, u32)> = std::mem::take(&mut self.keys).into_iter().collect();
        keys.sort_unstable();
        let changes = keys
            .iter()
            .map(|(key, slot)| (key.as_ref(), slots[*slot as usize].deleted));
        let alignment = Alignment::new(columns.keys(&old)?, changes);
        let in_order: Vec<u32> = keys.into_iter().map(|(_, slot)| slot).collect();
        let slot = |number: usize| slots[in_order[number] as usize];
        let places: Vec<_> = self
            .groups
            .iter()
            .map(|group| columns.places_in(&group.schema))
            .collect();
        let (_, old, _) = old.into_parts();
        let failed = RefCell::new(None);
        let groups: Vec<_> = self.groups.iter_mut().map(Group::take_columns).collect();
        let sources = |column: usize| -> Vec<Option<ArrayRef>> {
            let groups = groups.iter().zip(&places);
            let sources = groups.map(|(group, at)| {
                let pieces = std::mem::take(&mut *group.get(at[column]?)?.borrow_mut());
                let pieces: Vec<&dyn Array> = pieces.iter().map(AsRef::as_ref).collect();
                concat(&pieces)
                    .map_err(|source| failed.replace(Some((column, source))))
                    .ok()
            });
            sources.collect()
        };
        let cell = |of: &[Option<u32>], number: usize| {
            let slot = slot(number);
            let mut next = slot.last;
            while let Some(found) = self.refs.get(next as usize) {
                if let Some(&Some(source)) = of.get(found.group as usize) {
                    return Cell::From(source, found.row as usize);
                }
                next = found.before;
            }
            if slot.fresh { Cell::Null } else { Cell::Keep }
        };
        let old = old.into_iter().map(Some).collect();
        let renews = slots.iter().any(|slot| slot.fresh);
        let merged = columns.merge(&columns.schema(), old, &alignment, renews, sources, cell);
        if let Some((column, source)) = failed.take() {
            return Err(columns.failed(column, source));
        }
        merged
    }
}

impl Group {
    fn take(&mut self, rows: &RecordBatch, id: TableId) -> Result<(), ApplyError> {
        self.pending.push(rows.clone());
        self.pending_bytes += bytes(rows.columns());
        self.rows += u32::try_from(rows.num_rows()).unwrap_or(NONE);
        if self.pending.len() >= PENDING || self.pending_bytes >= PENDING_BYTES {
            self.flush(id)?;
        }
        Ok(())
    }

    fn is_long(&self) -> bool {
        self.rows > self.most || self.done_bytes + self.pending_bytes > self.most_bytes
    }

    /// Puts small batches together; a large one stays what it is.
    fn flush(&mut self, id: TableId) -> Result<(), ApplyError> {
        self.done_bytes += self.pending_bytes;
        let pending = std::mem::take(&mut self.pending);
        if std::mem::take(&mut self.pending_bytes) > MOST_BYTES {
            self.done.extend(pending);
        } else if !pending.is_empty() {
            let rows = concat_batches(&self.schema, &pending);
            self.done
                .push(rows.map_err(|source| self.failed(id, source))?);
        }
        Ok(())
    }

    /// Keeps these rows, and renumbers them.
    fn keep(&mut self, id: TableId, kept: &[u32]) -> Result<(), ApplyError> {
        let mut starts = Vec::with_capacity(self.done.len());
        let mut next = 0;
        for batch in &self.done {
            starts.push(next);
            next += batch.num_rows();
        }
        let places = kept.iter().map(|&row| {
            let row = row as usize;
            let batch = starts.partition_point(|start| *start <= row) - 1;
            (batch, row - starts[batch])
        });
        let places: Vec<(usize, usize)> = places.collect();
        let done: Vec<&RecordBatch> = self.done.iter().collect();
        let rows = match done.is_empty() {
            true => Ok(RecordBatch::new_empty(SchemaRef::clone(&self.schema))),
            false => interleave_record_batch(&done, &places),
        };
        let rows = rows.map_err(|source| self.failed(id, source))?;
        self.done_bytes = bytes(rows.columns());
        self.rows = u32::try_from(kept.len()).unwrap_or(NONE);
        self.most = self.rows.saturating_mul(2).saturating_add(SLACK);
        self.most_bytes = self.done_bytes.saturating_mul(2).max(MOST_BYTES);
        self.done = vec![rows];
        Ok(())
    }

    fn failed(&self, id: TableId, source: ArrowError) -> ApplyError {
        Columns::new(id, &self.schema).failed(0, source)
    }

    /// The rows column by column, each to be taken once; call [`flush`](Self::flush) first.
    fn take_columns(&mut self) -> Vec<RefCell<Vec<ArrayRef>>> {
        let done = std::mem::take(&mut self.done);
        let column = |at: usize| -> Vec<ArrayRef> {
            let pieces = done.iter().map(|rows| ArrayRef::clone(rows.column(at)));
            pieces.collect()
        };
        let columns = 0..self.schema.fields().len();
        columns.map(|at| RefCell::new(column(at))).collect()
    }
}

/// Bytes of texts, also in lists and structs: what an offset of 32 bits may not reach to.
fn bytes(columns: &[ArrayRef]) -> usize {
    fn span(offsets: &[i32]) -> std::ops::Range<usize> {
        let at = |offset: Option<&i32>| offset.map_or(0, |&at| usize::try_from(at).unwrap_or(0));
        at(offsets.first())..at(offsets.last())
    }
    let of = |column: &ArrayRef| match column.data_type() {
        DataType::Utf8 => span(column.as_string::<i32>().value_offsets()).len(),
        DataType::Binary => span(column.as_binary::<i32>().value_offsets()).len(),
        DataType::List(_) => {
            let list = column.as_list::<i32>();
            let items = span(list.value_offsets());
            bytes(&[list.values().slice(items.start, items.len())])
        }
        DataType::Struct(_) => bytes(column.as_struct().columns()),
        _ => 0,
    };
    columns.iter().map(of).sum()
}
