//! Many commits' effects, folded into one: what recovery applies to a checkpoint.
//!
//! For each key the fold knows the last commit that set each column. Rows stay in the batches they
//! came in, put together by column set every few thousand rows, so that a hundred thousand entries of
//! one row each cost neither a batch each nor a merge each.

use std::collections::HashMap;

use arrow_array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow_schema::SchemaRef;
use arrow_select::concat::{concat, concat_batches};
use arrow_select::take::take_record_batch;
use sherwood_shared::schema::TableId;
use sherwood_shared::state::State;

use super::align::{Alignment, Cell};
use super::changes::Columns;
use super::{ApplyError, check_cluster};
use crate::entry::{Effects, TableEffects};

/// Batches of one column set that are put together when there are so many.
const PENDING: usize = if cfg!(test) { 16 } else { 512 };
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
    done: Vec<RecordBatch>,
    rows: u32,
    /// With more rows than this, those that later ones replaced are thrown out.
    most: u32,
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
            if self.groups[group].rows > self.groups[group].most {
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
            done: Vec::new(),
            rows: 0,
            most: SLACK,
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
        let rows = u32::try_from(kept.len()).unwrap_or(NONE);
        let failed = |source| Columns::new(id, &group.schema).failed(0, source);
        let all = concat_batches(&group.schema, &group.done).map_err(failed)?;
        group.done = vec![take_record_batch(&all, &UInt32Array::from(kept)).map_err(failed)?];
        group.rows = rows;
        group.most = rows.saturating_mul(2).saturating_add(SLACK);
        Ok(())
    }

    fn finish(mut self, id: TableId, old: RecordBatch) -> Result<RecordBatch, ApplyError> {
        let mut columns = Columns::new(id, old.schema_ref());
        for group in &mut self.groups {
            columns.take_in(&group.schema)?;
            group.flush(id)?;
        }
        let mut keys: Vec<(Box<str>, u32)> = self.keys.drain().collect();
        keys.sort_unstable();
        let slots = &self.slots;
        let slot = |number: usize| slots[keys[number].1 as usize];
        let changes = keys
            .iter()
            .map(|(key, slot)| (key.as_ref(), slots[*slot as usize].deleted));
        let alignment = Alignment::new(columns.keys(&old)?, changes);
        let places: Vec<_> = self
            .groups
            .iter()
            .map(|group| columns.places_in(&group.schema))
            .collect();
        let (_, old, _) = old.into_parts();
        let failed = std::cell::RefCell::new(None);
        let sources = |column: usize| -> Vec<Option<ArrayRef>> {
            let groups = self.groups.iter().zip(&places);
            let sources = groups.map(|(group, at)| {
                group
                    .column(at[column]?)
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
        self.rows += u32::try_from(rows.num_rows()).unwrap_or(NONE);
        if self.pending.len() >= PENDING {
            self.flush(id)?;
        }
        Ok(())
    }

    fn flush(&mut self, id: TableId) -> Result<(), ApplyError> {
        if !self.pending.is_empty() {
            let rows = concat_batches(&self.schema, &self.pending);
            let failed = |source| Columns::new(id, &self.schema).failed(0, source);
            self.done.push(rows.map_err(failed)?);
            self.pending.clear();
        }
        Ok(())
    }

    /// One column of all rows; call [`flush`](Self::flush) first.
    fn column(&self, column: usize) -> Result<ArrayRef, arrow_schema::ArrowError> {
        let columns: Vec<&dyn Array> = self
            .done
            .iter()
            .map(|rows| rows.column(column).as_ref())
            .collect();
        concat(&columns)
    }
}
