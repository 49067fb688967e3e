//! One commit's changes of one table, ready to be merged into its rows, range by range.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use arrow_schema::{ArrowError, DataType, FieldRef, Schema, SchemaRef};
use sherwood_shared::schema::TableId;

use super::align::{Alignment, Cell};
use super::error::ApplyError;
use super::gather::gather;
use super::gathering::Gathering;

/// Upserts and deletions of one table by key, sorted: to be merged into all rows at once or
/// range by range.
#[derive(Debug)]
pub struct Changes<'a> {
    columns: Columns,
    schema: SchemaRef,
    upserts: Vec<Upsert<'a>>,
    changes: Vec<Change<'a>>,
}

/// One batch, and where it has each column of the table.
#[derive(Debug)]
struct Upsert<'a> {
    rows: &'a RecordBatch,
    at: Vec<Option<usize>>,
}

#[derive(Clone, Copy, Debug)]
struct Change<'a> {
    key: &'a str,
    /// [`DELETE`], or the number of the upsert.
    upsert: u32,
    row: u32,
}

const DELETE: u32 = u32::MAX;

/// A number as an index.
fn at(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl<'a> Changes<'a> {
    /// Checks the changes against the table's schema, `old`, and each other.
    ///
    /// # Errors
    ///
    /// What does not fit.
    pub fn new(
        table: TableId,
        old: &SchemaRef,
        upserts: &'a [RecordBatch],
        delete: &'a [String],
    ) -> Result<Self, ApplyError> {
        let mut columns = Columns::new(table, old);
        let count = upserts.iter().map(RecordBatch::num_rows).sum::<usize>() + delete.len();
        let mut changes = Vec::with_capacity(count);
        for (number, rows) in (0_u32..).zip(upserts) {
            columns.take_in(rows.schema_ref())?;
            let keys = columns.keys(rows)?;
            let change = |(row, key)| Change {
                key,
                upsert: number,
                row,
            };
            changes.extend((0_u32..).zip(keys.iter().flatten()).map(change));
        }
        changes.extend(delete.iter().map(|key| Change {
            key,
            upsert: DELETE,
            row: 0,
        }));
        // Sorted runs one behind the other: this merges them, and does nothing to one.
        changes.sort_by(|a, b| a.key.cmp(b.key));
        if let Some(pair) = changes.windows(2).find(|pair| pair[0].key == pair[1].key) {
            return Err(columns.out_of_order(pair[1].key));
        }
        let upserts = upserts
            .iter()
            .map(|rows| Upsert {
                rows,
                at: columns.places_in(rows.schema_ref()),
            })
            .collect();
        let schema = if columns.widened {
            columns.schema()
        } else {
            SchemaRef::clone(old)
        };
        Ok(Self {
            columns,
            schema,
            upserts,
            changes,
        })
    }

    /// How many keys change.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// None at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The key that changes with this number, in key order.
    #[must_use]
    pub fn key(&self, number: usize) -> Option<&'a str> {
        self.changes.get(number).map(|change| change.key)
    }

    /// Does the table get columns by this?
    #[must_use]
    pub fn widen(&self) -> bool {
        self.columns.widened
    }

    /// The table's schema after the changes.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    /// The changes `numbers`, and where they fall among the rows of `old`.
    fn aligned(
        &self,
        old: &RecordBatch,
        numbers: Range<usize>,
    ) -> Result<(&[Change<'a>], Alignment), ApplyError> {
        self.columns.check_old(old)?;
        let changes = self.changes.get(numbers).unwrap_or_default();
        let keys = changes
            .iter()
            .map(|change| (change.key, change.upsert == DELETE));
        Ok((changes, Alignment::new(self.columns.keys(old)?, keys)))
    }

    /// Rows of the table with the changes `numbers` made. `None`: that changes nothing.
    ///
    /// The caller vouches that `old` is all that the table has from the first to the last of
    /// those keys. Columns that nothing touches are shared with `old`.
    ///
    /// # Errors
    ///
    /// A column that becomes larger than its type can hold.
    pub fn merge(
        &self,
        old: &RecordBatch,
        numbers: Range<usize>,
    ) -> Result<Option<RecordBatch>, ApplyError> {
        let (changes, alignment) = self.aligned(old, numbers)?;
        if alignment.is_nothing() && !self.columns.widened {
            return Ok(None);
        }
        let columns = old.columns().iter().cloned().map(Some).collect();
        let sources = |column: usize| {
            let upserts = self.upserts.iter();
            let sources = upserts.map(|upsert| Some(upsert.rows.column(upsert.at[column]?)));
            sources.map(|source| source.cloned()).collect()
        };
        let cell = |of: &[Option<u32>], number: usize| {
            let change: &Change<'_> = &changes[number];
            match of.get(at(change.upsert)) {
                Some(&Some(source)) => Cell::From(source, at(change.row)),
                _ => Cell::Keep,
            }
        };
        self.columns
            .merge(&self.schema, columns, &alignment, false, sources, cell)
            .map(Some)
    }

    /// What [`merge`](Self::merge) would make, told and not made. `None`: that changes nothing, or the table gets columns.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn gather(
        &self,
        old: &RecordBatch,
        numbers: Range<usize>,
    ) -> Result<Option<Gathering>, ApplyError> {
        let (changes, alignment) = self.aligned(old, numbers)?;
        let has_all = !self.columns.widened && old.num_columns() == self.columns.fields.len();
        if alignment.is_nothing() || !has_all {
            return Ok(None);
        }
        let mut upserts: Vec<u32> = Vec::new();
        for change in changes {
            if change.upsert != DELETE && !upserts.contains(&change.upsert) {
                upserts.push(change.upsert);
            }
        }
        let mut gathering = Gathering::new(alignment.rows(), old.num_columns());
        for (number, column) in old.columns().iter().enumerate() {
            // The keys of rows that stay are equal, whoever brings them.
            let is_untouched = number == 0 && alignment.is_in_place();
            let values = upserts.iter().map(|&upsert| {
                let upsert = self.upserts.get(at(upsert)).filter(|_| !is_untouched)?;
                Some(ArrayRef::clone(upsert.rows.column(upsert.at[number]?)))
            });
            gathering.add(column, values, |of| {
                alignment.runs(Some(0), |number| {
                    let change: &Change<'_> = &changes[number];
                    let upsert = upserts.iter().position(|&used| used == change.upsert);
                    match upsert.and_then(|upsert| of.get(upsert)) {
                        Some(&Some(source)) => Cell::From(source, at(change.row)),
                        _ => Cell::Keep,
                    }
                })
            });
        }
        Ok(Some(gathering))
    }
}

/// The columns of a table while changes are applied to it.
#[derive(Debug)]
pub(super) struct Columns {
    table: TableId,
    fields: Vec<FieldRef>,
    pub(super) widened: bool,
}

impl Columns {
    pub(super) fn new(table: TableId, old: &Schema) -> Self {
        Self {
            table,
            fields: old.fields().to_vec(),
            widened: false,
        }
    }

    pub(super) fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.fields.clone()))
    }

    /// Checks the columns of a batch of changes, and appends those that the table lacks (A4).
    pub(super) fn take_in(&mut self, changes: &Schema) -> Result<(), ApplyError> {
        let table = self.table.name();
        for (number, field) in changes.fields().iter().enumerate() {
            let column = || field.name().clone();
            if changes.fields()[..number]
                .iter()
                .any(|before| before.name() == field.name())
            {
                let column = column();
                return Err(ApplyError::Twice { table, column });
            }
            match self.fields.iter().find(|old| old.name() == field.name()) {
                Some(old) if old.data_type() == field.data_type() => {}
                Some(old) => {
                    return Err(ApplyError::Type {
                        table,
                        column: column(),
                        expected: old.data_type().clone(),
                        found: field.data_type().clone(),
                    });
                }
                None if number == 0 => {} // `keys` refuses it
                None => {
                    let nullable = field.as_ref().clone().with_nullable(true);
                    self.fields.push(Arc::new(nullable));
                    self.widened = true;
                }
            }
        }
        Ok(())
    }

    /// Where a batch of changes has each column.
    pub(super) fn places_in(&self, changes: &Schema) -> Vec<Option<usize>> {
        let place = |field: &FieldRef| changes.index_of(field.name()).ok();
        self.fields.iter().map(place).collect()
    }

    /// Are these rows of the table, before or after it got columns?
    pub(super) fn check_old(&self, rows: &RecordBatch) -> Result<(), ApplyError> {
        for (at, field) in rows.schema_ref().fields().iter().enumerate() {
            let expected = self.fields.get(at).map(|field| field.data_type());
            if expected != Some(field.data_type()) {
                return Err(ApplyError::Type {
                    table: self.table.name(),
                    column: field.name().clone(),
                    expected: expected.cloned().unwrap_or(DataType::Null),
                    found: field.data_type().clone(),
                });
            }
        }
        Ok(())
    }

    /// The keys of a batch.
    pub(super) fn keys<'a>(&self, rows: &'a RecordBatch) -> Result<&'a StringArray, ApplyError> {
        let no_key = || ApplyError::Key {
            table: self.table.name(),
            expected: self.table.key().to_owned(),
        };
        let named = rows.schema_ref().fields().first().map(|field| field.name());
        if named.is_none_or(|name| name != self.table.key()) {
            return Err(no_key());
        }
        let keys = rows.columns().first();
        let keys = keys.and_then(|keys| keys.as_string_opt::<i32>());
        keys.filter(|keys| keys.null_count() == 0)
            .ok_or_else(no_key)
    }

    pub(super) fn out_of_order(&self, key: &str) -> ApplyError {
        ApplyError::Order {
            table: self.table.name(),
            key: key.to_owned(),
        }
    }

    /// The merged rows. `old` are the old columns, each of them let go as soon as the new one is made, the largest first: so
    /// there is hardly more than the old table at any time. `sources(column)` the changed values; `cell(of, number)` where the change with
    /// this number has its value, by the numbers `of` the sources; `renews`: some change gives
    /// values to columns that have no source.
    pub(super) fn merge(
        &self,
        schema: &SchemaRef,
        mut old: Vec<Option<ArrayRef>>,
        alignment: &Alignment,
        renews: bool,
        sources: impl Fn(usize) -> Vec<Option<ArrayRef>>,
        cell: impl Fn(&[Option<u32>], usize) -> Cell,
    ) -> Result<RecordBatch, ApplyError> {
        old.resize(self.fields.len(), None);
        let mut order: Vec<usize> = (0..self.fields.len()).collect();
        let size =
            |column: &Option<ArrayRef>| column.as_ref().map_or(0, |c| c.get_array_memory_size());
        order.sort_by_cached_key(|&number| std::cmp::Reverse(size(&old[number])));
        let mut made: Vec<Option<ArrayRef>> = vec![None; self.fields.len()];
        for number in order {
            let (old, field) = (old[number].take(), &self.fields[number]);
            let of_changes = sources(number);
            // The keys of rows that stay are equal, whoever brings them.
            let untouched = number == 0 || !renews && of_changes.iter().all(Option::is_none);
            if let Some(old) = &old
                && untouched
                && alignment.is_in_place()
            {
                made[number] = Some(ArrayRef::clone(old));
                continue;
            }
            let old_source = old.is_some().then_some(0);
            let mut arrays: Vec<ArrayRef> = old.into_iter().collect();
            let mut of = Vec::with_capacity(of_changes.len());
            for source in of_changes {
                of.push(source.map(|source| {
                    arrays.push(source);
                    u32::try_from(arrays.len() - 1).unwrap_or(u32::MAX)
                }));
            }
            let runs = alignment.runs(old_source, |change| cell(&of, change));
            let gathered = gather(field.data_type(), &arrays, &runs);
            made[number] = Some(gathered.map_err(|source| self.failed(number, source))?);
        }
        let columns = made.into_iter().flatten().collect();
        let options = RecordBatchOptions::new().with_row_count(Some(alignment.rows()));
        RecordBatch::try_new_with_options(SchemaRef::clone(schema), columns, &options)
            .map_err(|source| self.failed(0, source))
    }

    pub(super) fn failed(&self, column: usize, source: ArrowError) -> ApplyError {
        let column = self.fields.get(column);
        ApplyError::Column {
            table: self.table.name(),
            column: column.map_or_else(String::new, |field| field.name().clone()),
            source,
        }
    }
}
