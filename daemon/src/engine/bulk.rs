//! Many rows in Arrow form: the same rules as row by row ([`super::transact`]), a column at a time.
//!
//! Nothing here looks a key up in a hash table or makes a cell. The rows are sorted, and then walked beside
//! the chunks that their keys belong to ([`locate`]); columns go into the effects as they came, but for those that the
//! engine keeps and for structs of which only some fields were given.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMillisecondType;
use arrow_array::{
    Array, ArrayRef, RecordBatch, StringArray, StructArray, TimestampMillisecondArray,
    new_null_array,
};
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder, NullBuffer};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Fields, Schema};
use arrow_select::interleave::interleave;
use sherwood_client::{ReadError, Table};
use sherwood_shared::schema::TableId;
use sherwood_shared::state::fit;
use sherwood_store::{Effects, TableEffects};

use super::layout::{Column, Layout};
use super::overlay::{Overlay, cluster_row};
use super::refusal::{MOST_KEY_BYTES, Refusal, shorten};
use super::request::{Bulk, BulkMode};

/// What the rows change, the cluster's time included.
pub(super) fn effects(overlay: &mut Overlay<'_>, bulk: &Bulk) -> Result<Effects, Refusal> {
    let layout = overlay.layout(bulk.table);
    let rows = fitted(layout, bulk)?;
    let mut made = Effects::default();
    if rows.num_rows() == 0 {
        return Ok(made);
    }
    let keys = rows
        .column(0)
        .as_string_opt::<i32>()
        .ok_or(Refusal::NoKey {
            table: layout.name,
            column: bulk.table.key(),
        })?;
    let partial = bulk.mode != BulkMode::Delete && has_partial_structs(layout, &rows);
    let kept = bulk.mode == BulkMode::Put && layout.columns.iter().any(has_kept_fields);
    let found = locate(overlay.snapshot.table(bulk.table), keys, partial || kept)?;
    let missing = keys.len() - found.count;
    if bulk.mode != BulkMode::Put && missing > 0 {
        let first = (0..keys.len()).find(|&row| !found.is_there.value(row));
        return Err(Refusal::NoRows {
            table: layout.name,
            key: first.map_or_else(String::new, |row| shorten(keys.value(row))),
            others: missing - 1,
        });
    }
    let arrow = |source| Refusal::Arrow {
        table: layout.name,
        source,
    };
    let mut table = TableEffects::default();
    match bulk.mode {
        BulkMode::Delete => {
            table.delete = (0..keys.len())
                .map(|row| keys.value(row).to_owned())
                .collect();
        }
        BulkMode::Put | BulkMode::Patch => {
            check_keys(bulk, keys)?;
            let made = Columns {
                layout,
                rows: &rows,
                found: &found,
                is_put: bulk.mode == BulkMode::Put,
                now_ms: overlay.now_ms,
            };
            table.upserts.push(made.batch().map_err(arrow)?);
        }
    }
    if bulk.table == TableId::Tasks {
        overlay.index_effects(&table)?;
    }
    made.tables[bulk.table as usize] = table;
    made.cluster = Some(overlay.cluster_row().map_err(arrow)?);
    Ok(made)
}

/// The rows in the types of their table, sorted, the key first. Columns that nobody knows are refused.
fn fitted(layout: &Layout, bulk: &Bulk) -> Result<RecordBatch, Refusal> {
    let table = layout.name;
    let schema = bulk.rows.schema();
    let misfit = |source| Refusal::Rows {
        table,
        source: Box::new(source),
    };
    let key = &layout.columns[layout.key];
    let mut fields: Vec<FieldRef> = vec![Arc::clone(&key.field)];
    let mut given: Vec<usize> = Vec::new();
    for (number, field) in schema.fields().iter().enumerate() {
        if field.name() == key.name() {
            given.insert(0, number);
            continue;
        }
        if bulk.mode == BulkMode::Delete {
            continue;
        }
        let known = layout
            .find(field.name())
            .map(|number| &layout.columns[number]);
        let known = known.ok_or_else(|| Refusal::NoSuchColumn {
            table,
            column: shorten(field.name()),
        })?;
        fields.push(reduced(table, field, known, field.name())?);
        given.push(number);
    }
    if bulk.mode == BulkMode::Patch && fields.len() == 1 {
        return Err(Refusal::OnlyKeys { table });
    }
    let rows = bulk
        .rows
        .project(&given)
        .map_err(|source| Refusal::Arrow { table, source })?;
    fit(bulk.table, &rows, &fields.into()).map_err(misfit)
}

/// The field as the table has it, but with only those fields of a struct that were given.
fn reduced(
    table: &'static str,
    given: &Field,
    known: &Column,
    path: &str,
) -> Result<FieldRef, Refusal> {
    let (DataType::Struct(given), false) = (given.data_type(), known.fields.is_empty()) else {
        return Ok(Arc::clone(&known.field));
    };
    let mut fields = Vec::with_capacity(given.len());
    for field in &known.fields {
        if let Some((_, given)) = given.find(field.name()) {
            fields.push(reduced(
                table,
                given,
                field,
                &format!("{path}.{}", field.name()),
            )?);
        }
    }
    if fields.len() < given.len() {
        let is_known = |name: &str| known.fields.iter().any(|field| field.name() == name);
        let unknown = given.iter().find(|field| !is_known(field.name()));
        if let Some(unknown) = unknown {
            return Err(Refusal::NoSuchColumn {
                table,
                column: shorten(format_args!("{path}.{}", unknown.name())),
            });
        }
    }
    let field = known.field.as_ref().clone();
    Ok(Arc::new(
        field.with_data_type(DataType::Struct(fields.into())),
    ))
}

/// A new row's key; those of rows that are there are as they are.
fn check_keys(bulk: &Bulk, keys: &StringArray) -> Result<(), Refusal> {
    let lengths = keys
        .value_offsets()
        .windows(2)
        .map(|pair| pair[1] - pair[0]);
    let bad = lengths.map(|bytes| usize::try_from(bytes).unwrap_or(0));
    match bad
        .into_iter()
        .find(|bytes| !(1..=MOST_KEY_BYTES).contains(bytes))
    {
        Some(bytes) if bulk.mode == BulkMode::Put => Err(Refusal::Key {
            table: bulk.table.name(),
            bytes,
        }),
        _ => Ok(()),
    }
}

fn has_partial_structs(layout: &Layout, rows: &RecordBatch) -> bool {
    let schema = rows.schema();
    let mut fields = schema.fields().iter();
    fields.any(|field| {
        let known = layout
            .find(field.name())
            .map(|number| &layout.columns[number]);
        known.is_some_and(|known| !same_type(known, field))
    })
}

fn same_type(known: &Column, given: &Field) -> bool {
    known.field.data_type() == given.data_type()
}

/// Is it a struct with fields that the document does not have, in a column that it has?
fn has_kept_fields(column: &Column) -> bool {
    column.in_document && column.fields.iter().any(|field| !field.in_document)
}

/// Which rows are there, and where.
struct Located {
    is_there: BooleanBuffer,
    count: usize,
    /// If asked for: the chunks that have any, and for each row the chunk's number here, from 1, and its row; 0 for
    /// none.
    chunks: Vec<RecordBatch>,
    places: Vec<(usize, usize)>,
}

/// Looks sorted keys up, walking beside the chunks.
fn locate(table: &Table, keys: &StringArray, with_places: bool) -> Result<Located, ReadError> {
    let mut is_there = BooleanBufferBuilder::new(keys.len());
    let mut located = Located {
        is_there: BooleanBuffer::new_unset(0),
        count: 0,
        chunks: Vec::new(),
        places: Vec::new(),
    };
    let mut row = 0;
    let mut next: Option<(usize, RecordBatch)> = None;
    while row < keys.len() {
        let key = keys.value(row);
        let (number, batch) = match next.take() {
            Some(next) => next,
            None => {
                let number = table.chunk_of(key)?;
                let Some(batch) = table.batch(number)? else {
                    break;
                };
                (number, batch)
            }
        };
        let chunk_keys = batch.column_by_name(table.id().key());
        let Some(chunk_keys) = chunk_keys.and_then(|keys| keys.as_string_opt::<i32>()) else {
            break;
        };
        let len = chunk_keys.len();
        let last = if len == 0 {
            ""
        } else {
            chunk_keys.value(len - 1)
        };
        let mut at = 0;
        let mut is_listed = false;
        while row < keys.len() && keys.value(row) <= last {
            let key = keys.value(row);
            at = lower_bound(chunk_keys, at, key);
            let hit = at < len && chunk_keys.value(at) == key;
            is_there.append(hit);
            located.count += usize::from(hit);
            if with_places {
                if hit && !is_listed {
                    located.chunks.push(batch.clone());
                    is_listed = true;
                }
                located.places.push(if hit {
                    (located.chunks.len(), at)
                } else {
                    (0, 0)
                });
            }
            row += 1;
        }
        // Between this chunk and the next there is nothing.
        let Some(following) = table.batch(number + 1)? else {
            break;
        };
        let following_keys = following.column_by_name(table.id().key());
        let following_keys = following_keys.and_then(|keys| keys.as_string_opt::<i32>());
        let Some(following_keys) = following_keys.filter(|keys| !keys.is_empty()) else {
            break;
        };
        let first = following_keys.value(0);
        while row < keys.len() && keys.value(row) < first {
            is_there.append(false);
            if with_places {
                located.places.push((0, 0));
            }
            row += 1;
        }
        let reaches =
            row < keys.len() && keys.value(row) <= following_keys.value(following_keys.len() - 1);
        next = reaches.then_some((number + 1, following));
    }
    is_there.append_n(keys.len() - row, false);
    if with_places {
        located.places.resize(keys.len(), (0, 0));
    }
    located.is_there = is_there.finish();
    Ok(located)
}

/// The first key from `from` on that is not below `key`, in steps that double.
fn lower_bound(keys: &StringArray, from: usize, key: &str) -> usize {
    let mut step = 1;
    let mut low = from;
    let mut high = from;
    while high < keys.len() && keys.value(high) < key {
        low = high + 1;
        high += step;
        step *= 2;
    }
    high = high.min(keys.len());
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

/// Makes the columns of the upsert.
struct Columns<'a> {
    layout: &'a Layout,
    rows: &'a RecordBatch,
    found: &'a Located,
    is_put: bool,
    now_ms: i64,
}

impl Columns<'_> {
    fn batch(&self) -> Result<RecordBatch, ArrowError> {
        let len = self.rows.num_rows();
        let none_is_there = self.found.count == 0;
        let mut fields = Vec::with_capacity(self.layout.columns.len());
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.layout.columns.len());
        let key = &self.layout.columns[self.layout.key];
        fields.push(Arc::clone(&key.field));
        columns.push(Arc::clone(self.rows.column(0)));
        for (number, column) in self.layout.columns.iter().enumerate() {
            if number == self.layout.key {
                continue;
            }
            let given = self.rows.column_by_name(column.name());
            let made = if self.layout.updated_at == Some(number) {
                Some(self.now(len))
            } else if self.is_put && self.layout.created_at == Some(number) {
                Some(self.created(given))
            } else {
                match given {
                    Some(given) => Some(self.whole(given, column, number)?),
                    None if self.is_put && column.in_document => {
                        Some(self.left_out(column, number)?)
                    }
                    None => None,
                }
            };
            // A new row has nulls where it says nothing.
            let made = made.filter(|made| !none_is_there || made.null_count() < len);
            if let Some(made) = made {
                fields.push(Arc::clone(&column.field));
                columns.push(made);
            }
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
    }

    fn now(&self, len: usize) -> ArrayRef {
        Arc::new(TimestampMillisecondArray::from_value(self.now_ms, len))
    }

    /// `created_at`: of a new row without one, now.
    fn created(&self, given: Option<&ArrayRef>) -> ArrayRef {
        let len = self.rows.num_rows();
        let given = given.and_then(|given| given.as_primitive_opt::<TimestampMillisecondType>());
        let times = (0..len).map(|row| {
            let given = given
                .filter(|given| given.is_valid(row))
                .map(|given| given.value(row));
            given.or_else(|| (!self.found.is_there.value(row)).then_some(self.now_ms))
        });
        Arc::new(times.collect::<TimestampMillisecondArray>())
    }

    /// A column of the document that a put leaves out: null, but for a struct's fields that the document lacks.
    fn left_out(&self, column: &Column, number: usize) -> Result<ArrayRef, ArrowError> {
        let len = self.rows.num_rows();
        if !has_kept_fields(column) || self.found.count == 0 {
            return Ok(new_null_array(column.field.data_type(), len));
        }
        let given = StructArray::new_null(Fields::empty(), len);
        let whole = self.whole_struct(&given, column, &[number], false)?;
        let any = whole
            .columns()
            .iter()
            .fold(None, |any: Option<BooleanBuffer>, field| {
                let valid = match field.logical_nulls() {
                    Some(nulls) => nulls.inner().clone(),
                    None => BooleanBuffer::new_set(len),
                };
                Some(any.map_or(valid.clone(), |any| &any | &valid))
            });
        let (fields, columns, _) = whole.into_parts();
        Ok(Arc::new(StructArray::try_new(
            fields,
            columns,
            any.map(NullBuffer::new),
        )?))
    }

    /// A given column, with the fields of a struct that were not given.
    fn whole(
        &self,
        given: &ArrayRef,
        column: &Column,
        number: usize,
    ) -> Result<ArrayRef, ArrowError> {
        match given.as_struct_opt() {
            Some(structs)
                if !column.fields.is_empty() && given.data_type() != column.field.data_type() =>
            {
                Ok(Arc::new(self.whole_struct(
                    structs,
                    column,
                    &[number],
                    true,
                )?))
            }
            _ => Ok(Arc::clone(given)),
        }
    }

    /// `path`: the column's number, then those of fields. Null where `given` is, if `is_given`.
    fn whole_struct(
        &self,
        given: &StructArray,
        column: &Column,
        path: &[usize],
        is_given: bool,
    ) -> Result<StructArray, ArrowError> {
        let DataType::Struct(fields) = column.field.data_type() else {
            return Ok(given.clone());
        };
        let len = self.rows.num_rows();
        let nulls = given.nulls().filter(|_| is_given).cloned();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(fields.len());
        for (number, field) in column.fields.iter().enumerate() {
            let mut path = path.to_vec();
            path.push(number);
            let found = given.column_by_name(field.name());
            columns.push(match found {
                Some(found) => match found.as_struct_opt() {
                    Some(structs) if found.data_type() != field.field.data_type() => {
                        Arc::new(self.whole_struct(structs, field, &path, true)?)
                    }
                    _ => Arc::clone(found),
                },
                None if self.is_put && field.in_document => {
                    new_null_array(field.field.data_type(), len)
                }
                None => under(self.old(&path, field.field.data_type())?, nulls.as_ref())?,
            });
        }
        StructArray::try_new_with_length(fields.clone(), columns, nulls, len)
    }

    /// The old values of a struct's field, null in new rows.
    fn old(&self, path: &[usize], data_type: &DataType) -> Result<ArrayRef, ArrowError> {
        let null = new_null_array(data_type, 1);
        let mut arrays: Vec<ArrayRef> = vec![null];
        for chunk in &self.found.chunks {
            let mut steps = path.iter();
            let mut array = steps.next().and_then(|&number| chunk.columns().get(number));
            for &step in steps {
                array = array.and_then(|array| array.as_struct_opt()?.columns().get(step));
            }
            let missing = || new_null_array(data_type, chunk.num_rows());
            arrays.push(array.map_or_else(missing, Arc::clone));
        }
        let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
        interleave(&arrays, &self.found.places)
    }
}

/// A field's values, null where its struct is.
fn under(array: ArrayRef, parent: Option<&NullBuffer>) -> Result<ArrayRef, ArrowError> {
    let Some(parent) = parent.filter(|parent| parent.null_count() > 0) else {
        return Ok(array);
    };
    let mask = arrow_array::BooleanArray::new(!parent.inner(), None);
    arrow_select::nullif::nullif(&array, &mask)
}

impl Overlay<'_> {
    /// The cluster's row with the time of this commit.
    fn cluster_row(&self) -> Result<RecordBatch, ArrowError> {
        cluster_row(
            self.base_of_cluster(),
            &self.layouts.cluster,
            &[],
            self.now_ms,
        )
    }
}
