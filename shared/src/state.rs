//! A whole cluster state on the heap, as four flat tables.
//!
//! Every [`State`] that [`State::new`] made, and so every one that came out of [`crate::document`], keeps:
//!
//! - **columns**: those of [`crate::schema`] first, in its order and types, all of them; then the columns that
//!   others added, in the order they came, with plain types (no dictionaries, no views). Structs likewise;
//! - **rows**: `cluster` has exactly one. The others are sorted bytewise by their key, which is unique and never
//!   null. Below a null struct everything is null;
//! - **memory**: no column keeps much more alive than it shows; slices were copied to their own size.
//!
//! Metadata of schemas is not kept, metadata of carried-through fields is.

mod compact;
pub(crate) mod conform;
mod error;
mod order;

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMillisecondType;
use arrow_array::{
    Array, ArrayRef, RecordBatch, RecordBatchOptions, StringArray, TimestampMillisecondArray,
    UInt32Array,
};
use arrow_schema::{DataType, FieldRef, Fields, Schema};
use arrow_select::take::take;

use self::conform::{Misfit, conform, conform_fields};
pub use self::error::{Row, StateError};
use self::order::{Order, order};
use crate::schema::{TableId, cluster_schema, table_schema};

/// A whole cluster state as four flat tables, with the invariants of [the module](self).
///
/// The fields are public to be read. A `State` put together without [`State::new`] is only as good as whoever did
/// it: nothing checks it again.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// One row: `cluster_id`, `master_id`, `updated_at`, then top-level columns that others added.
    pub cluster: RecordBatch,
    /// Indexed by `TableId as usize`; each sorted by its key, keys unique and not null.
    pub tables: [RecordBatch; 3],
}

impl State {
    /// A cluster of which only the name is known: no master, no rows.
    pub fn empty(cluster_id: &str) -> State {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![cluster_id])),
            Arc::new(StringArray::from(vec![None::<&str>])),
            Arc::new(TimestampMillisecondArray::from(vec![None::<i64>])),
        ];
        State {
            cluster: batch(cluster_schema().fields().to_vec(), columns, 1),
            tables: TableId::ALL.map(|table| RecordBatch::new_empty(table_schema(table))),
        }
    }

    /// Checks four tables and brings them into the form that every state has.
    ///
    /// Rows may come in any order. Columns may come in any order, may be missing but for the keys (then all their
    /// values are null), and may have other types that hold the same values: integers of other widths, other
    /// strings, other units of time, and so on. Columns the schema does not know are carried through.
    /// What already fits is not copied.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, with its column and row. Positions are those of the given batches.
    pub fn new(cluster: RecordBatch, tables: [RecordBatch; 3]) -> Result<State, StateError> {
        let cluster = check_cluster(&cluster)?;
        let [nodes, tasks, content] = tables;
        let tables = [
            check_table(TableId::Nodes, &nodes)?,
            check_table(TableId::Tasks, &tasks)?,
            check_table(TableId::Content, &content)?,
        ];
        Ok(State { cluster, tables })
    }

    /// One table.
    pub fn table(&self, table: TableId) -> &RecordBatch {
        &self.tables[table as usize]
    }

    /// The cluster's name.
    pub fn cluster_id(&self) -> &str {
        self.cluster.column(0).as_string::<i32>().value(0)
    }

    /// The id of the node that leads, if one is known.
    pub fn master_id(&self) -> Option<&str> {
        let column = self.cluster.column(1).as_string::<i32>();
        column.is_valid(0).then(|| column.value(0))
    }

    /// When the state last changed, in milliseconds since the epoch (UTC), if its writer said.
    pub fn updated_at_millis(&self) -> Option<i64> {
        let column = self
            .cluster
            .column(2)
            .as_primitive::<TimestampMillisecondType>();
        column.is_valid(0).then(|| column.value(0))
    }
}

/// Some rows of a table, with some of its columns, made to fit a state that has `columns`, and sorted by their key.
///
/// Columns keep the order of `columns`. A column may have another type that holds the same values, as in
/// [`State::new`]; one that `columns` lacks is carried through as it is. Struct fields that the rows lack are made
/// null if `columns` has them.
///
/// # Errors
///
/// The first thing that is wrong, with its column and row: a null or repeated key among them.
pub fn fit(
    table: TableId,
    rows: &RecordBatch,
    columns: &Fields,
) -> Result<RecordBatch, StateError> {
    let (fields, columns, key) = conform_rows(table, rows, columns)?;
    let columns = match order(table, columns[key].as_string::<i32>())? {
        Order::Sorted => columns,
        Order::Take(by_key) => reorder(columns, &by_key, &fields, table)?,
    };
    Ok(batch(fields, columns, rows.num_rows()))
}

/// As [`fit`], but the rows stay in their order, and a repeated key is not looked for: for who has only a part of the
/// rows.
///
/// # Errors
///
/// As [`fit`], but for a repeated key.
pub fn conformed(
    table: TableId,
    rows: &RecordBatch,
    columns: &Fields,
) -> Result<RecordBatch, StateError> {
    let (fields, columns, key) = conform_rows(table, rows, columns)?;
    let keys = &columns[key];
    match (0..keys.len()).find(|&row| keys.is_null(row)) {
        Some(position) => Err(StateError::NullKey { table, position }),
        None => Ok(batch(fields, columns, rows.num_rows())),
    }
}

/// The fields and columns that `rows` have, in the types of `columns`, and which of them is the key, which is text.
fn conform_rows(
    table: TableId,
    rows: &RecordBatch,
    columns: &Fields,
) -> Result<(Vec<FieldRef>, Vec<ArrayRef>, usize), StateError> {
    let len = rows.num_rows();
    if i32::try_from(len).is_err() {
        return Err(StateError::TooLarge {
            column: table.name().to_owned(),
        });
    }
    let schema = rows.schema();
    let given: Fields = columns
        .iter()
        .filter(|field| schema.fields().find(field.name()).is_some())
        .cloned()
        .collect();
    let key = given.find(table.key()).map(|(key, _)| key);
    let key = key.ok_or(StateError::NoKeyColumn { table })?;
    let (fields, columns) =
        conform_fields(&given, schema.fields(), rows.columns(), len, table.name())
            .map_err(|misfit| located(misfit, |row| name_of(table, rows, row)))?;
    if columns[key].as_string_opt::<i32>().is_none() {
        return Err(StateError::NoKeyColumn { table });
    }
    Ok((fields, columns, key))
}

fn check_cluster(cluster: &RecordBatch) -> Result<RecordBatch, StateError> {
    if cluster.num_rows() != 1 {
        return Err(StateError::NotOneRow {
            rows: cluster.num_rows(),
        });
    }
    let schema = cluster.schema();
    if let Some(field) = schema
        .fields()
        .iter()
        .find(|f| TableId::from_name(f.name()).is_some())
    {
        return Err(StateError::Reserved {
            column: field.name().clone(),
        });
    }
    let known = cluster_schema();
    let (fields, columns) =
        conform_fields(known.fields(), schema.fields(), cluster.columns(), 1, "")
            .map_err(|misfit| located(misfit, |_| Row::Cluster))?;
    if columns[0].is_null(0) {
        return Err(StateError::NoClusterId);
    }
    Ok(batch(
        fields,
        columns.iter().map(compact::compact).collect(),
        1,
    ))
}

fn check_table(table: TableId, rows: &RecordBatch) -> Result<RecordBatch, StateError> {
    let len = rows.num_rows();
    // A document counts the rows of a table with 32 bits.
    if i32::try_from(len).is_err() {
        return Err(StateError::TooLarge {
            column: table.name().to_owned(),
        });
    }
    let schema = rows.schema();
    if len > 0 && schema.fields().find(table.key()).is_none() {
        return Err(StateError::NoKeyColumn { table });
    }
    let known = table_schema(table);
    let (fields, columns) = conform_fields(
        known.fields(),
        schema.fields(),
        rows.columns(),
        len,
        table.name(),
    )
    .map_err(|misfit| located(misfit, |row| name_of(table, rows, row)))?;
    let columns = match order(table, columns[0].as_string::<i32>())? {
        Order::Sorted => columns.iter().map(compact::compact).collect(),
        Order::Take(by_key) => reorder(columns, &by_key, &fields, table)?,
    };
    Ok(batch(fields, columns, len))
}

/// Takes the rows in a new order. Consumes the columns one by one, so that at most one is in memory twice.
fn reorder(
    columns: Vec<ArrayRef>,
    by_key: &UInt32Array,
    fields: &[FieldRef],
    table: TableId,
) -> Result<Vec<ArrayRef>, StateError> {
    let taken = columns.into_iter().zip(fields).map(|(column, field)| {
        take(&column, by_key, None).map_err(|_| StateError::TooLarge {
            column: conform::join(table.name(), field.name()),
        })
    });
    taken.collect()
}

/// A batch of columns made to fit `fields`.
#[expect(
    clippy::expect_used,
    reason = "fields and columns were made together, in this module or in conform"
)]
fn batch(fields: Vec<FieldRef>, columns: Vec<ArrayRef>, rows: usize) -> RecordBatch {
    let schema = Arc::new(Schema::new(Fields::from(fields)));
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema, columns, &options).expect("columns fit their fields")
}

fn located(misfit: Misfit, row: impl FnOnce(usize) -> Row) -> StateError {
    match misfit {
        Misfit::Whole(error) => error,
        Misfit::Value {
            column,
            index,
            value,
            expected,
        } => StateError::Value {
            column,
            row: row(index),
            value,
            expected,
        },
    }
}

/// Names a row for an error; a row whose own key does not fit either is named by its position alone.
fn name_of(table: TableId, rows: &RecordBatch, position: usize) -> Row {
    let key = rows
        .column_by_name(table.key())
        .and_then(|keys| conform(&keys.slice(position, 1), &DataType::Utf8, "").ok())
        .filter(|key| key.is_valid(0))
        .map(|key| key.as_string::<i32>().value(0).to_owned());
    Row::Of {
        table,
        key: key.unwrap_or_default(),
        position,
    }
}

#[cfg(test)]
mod tests;
