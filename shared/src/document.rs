//! The document's one-row table and [`State`], each made from the other.
//!
//! `to_document` is exact and free: the lists of structs share the tables' columns. `from_document` reads what
//! others write and is as liberal as [`State::new`]; on top of that, a list that is null, or a column of lists that
//! is missing, is a table without rows, as long as one of the three is there. The two are inverse:
//! `from_document(to_document(s)) == s` for every state.
//!
//! Not here: files, and the version a file claims (`sherwood_client::import`).

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, ListArray, RecordBatch, StringArray, StructArray};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{DataType, Field, FieldRef, Fields, Schema};

use crate::schema::{self, TableId};
use crate::state::{State, StateError, conform};

/// The state as the document has it: one row, in the newest version of the schema, every column of it.
///
/// Columns: `cluster_id`, `master_id`, `updated_at`, `nodes`, `tasks`, `content`, then the top-level columns that
/// others added. Copies no values.
///
/// # Errors
///
/// [`StateError`] only for a `State` put together by hand that breaks its invariants.
pub fn to_document(state: &State) -> Result<RecordBatch, StateError> {
    document(state, |_, _, _| true)
}

/// The same in the lowest version that holds the state, and that version: what belongs into a file.
///
/// A field that a version after the first added, and of which the table has not one value, is left out. A state
/// that uses none of them is thus written exactly as [`schema::document_schema`] says, for readers that compare.
///
/// # Errors
///
/// As [`to_document`].
pub fn to_oldest_document(state: &State) -> Result<(RecordBatch, u32), StateError> {
    let mut version = 1;
    let document = document(state, |table, field, column| {
        let added = schema::added_fields(table)
            .iter()
            .any(|added| added.name() == field.name());
        let used = column.null_count() < column.len();
        if added && used {
            version = 2;
        }
        used || !added
    })?;
    Ok((document, version))
}

fn document(
    state: &State,
    mut keep: impl FnMut(TableId, &Field, &ArrayRef) -> bool,
) -> Result<RecordBatch, StateError> {
    let cluster_schema = state.cluster.schema();
    let known = schema::cluster_schema()
        .fields()
        .len()
        .min(cluster_schema.fields().len());
    let (own, others) = cluster_schema.fields().split_at(known);
    let (own_columns, other_columns) = state.cluster.columns().split_at(known);

    let mut fields: Vec<FieldRef> = own.iter().map(nullable).collect();
    let mut columns = own_columns.to_vec();
    for table in TableId::ALL {
        let (field, column) = list_of(table, state.table(table), &mut keep)?;
        fields.push(field);
        columns.push(column);
    }
    fields.extend(others.iter().cloned());
    columns.extend(other_columns.iter().cloned());
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|_| {
        StateError::NotOneRow {
            rows: state.cluster.num_rows(),
        }
    })
}

/// A table as a list of structs in one row.
fn list_of(
    table: TableId,
    rows: &RecordBatch,
    keep: &mut impl FnMut(TableId, &Field, &ArrayRef) -> bool,
) -> Result<(FieldRef, ArrayRef), StateError> {
    let too_large = |_| StateError::TooLarge {
        column: table.name().to_owned(),
    };
    let (fields, columns): (Vec<FieldRef>, Vec<ArrayRef>) = rows
        .schema()
        .fields()
        .iter()
        .zip(rows.columns())
        .filter(|(field, column)| keep(table, field, column))
        .map(|(field, column)| (nullable(field), Arc::clone(column)))
        .unzip();
    let fields = Fields::from(fields);
    i32::try_from(rows.num_rows()).map_err(|_| StateError::TooLarge {
        column: table.name().to_owned(),
    })?;
    let structs = StructArray::try_new(fields.clone(), columns, None).map_err(too_large)?;
    let list = ListArray::try_new(
        schema::document_item(fields.clone()),
        OffsetBuffer::from_lengths([rows.num_rows()]),
        Arc::new(structs),
        None,
    )
    .map_err(too_large)?;
    Ok((
        Arc::new(schema::document_field(table, fields)),
        Arc::new(list),
    ))
}

fn nullable(field: &FieldRef) -> FieldRef {
    if field.is_nullable() {
        Arc::clone(field)
    } else {
        Arc::new(field.as_ref().clone().with_nullable(true))
    }
}

/// The state that a document holds.
///
/// `expected_cluster`: the cluster it has to be, if the caller knows; it also names a state whose `cluster_id` is
/// null or absent. See [`State::new`] and [the module](self) for what is accepted. Copies only what has to be
/// sorted or converted.
///
/// # Errors
///
/// The first thing that is wrong, with its column and row.
pub fn from_document(
    document: &RecordBatch,
    expected_cluster: Option<&str>,
) -> Result<State, StateError> {
    if document.num_rows() != 1 {
        return Err(StateError::NotOneRow {
            rows: document.num_rows(),
        });
    }
    let schema = document.schema();
    let mut names: Vec<&str> = schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    if !names.iter().any(|name| TableId::from_name(name).is_some()) {
        return Err(StateError::NoTables {
            found: names.join(", "),
        });
    }
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(StateError::TwoColumns {
            column: pair[0].to_owned(),
        });
    }

    let cluster = cluster_of(document, expected_cluster)?;
    let tables = [
        table_of(TableId::Nodes, document)?,
        table_of(TableId::Tasks, document)?,
        table_of(TableId::Content, document)?,
    ];
    let state = State::new(cluster, tables)?;
    match expected_cluster.filter(|&expected| expected != state.cluster_id()) {
        Some(expected) => Err(StateError::WrongCluster {
            expected: expected.to_owned(),
            found: state.cluster_id().to_owned(),
        }),
        None => Ok(state),
    }
}

/// The columns that are not tables, with the expected id where the document has none.
fn cluster_of(
    document: &RecordBatch,
    expected_cluster: Option<&str>,
) -> Result<RecordBatch, StateError> {
    let schema = document.schema();
    let mut fields: Vec<FieldRef> = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, column) in schema.fields().iter().zip(document.columns()) {
        let named = field.name() == "cluster_id" && column.logical_null_count() == 0;
        if TableId::from_name(field.name()).is_none() && (named || field.name() != "cluster_id") {
            fields.push(Arc::clone(field));
            columns.push(Arc::clone(column));
        }
    }
    if !fields.iter().any(|field| field.name() == "cluster_id") {
        let id = expected_cluster.ok_or(StateError::NoClusterId)?;
        fields.push(Arc::new(Field::new("cluster_id", DataType::Utf8, true)));
        columns.push(Arc::new(StringArray::from(vec![id])));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|_| {
        StateError::NotOneRow {
            rows: document.num_rows(),
        }
    })
}

/// The rows of a table: what its list holds, as columns. Still in the types and the order they came in.
fn table_of(table: TableId, document: &RecordBatch) -> Result<RecordBatch, StateError> {
    let empty = || RecordBatch::new_empty(schema::table_schema(table));
    let Some(column) = document.column_by_name(table.name()) else {
        return Ok(empty());
    };
    let wrong_type = || {
        let expected = DataType::List(schema::document_item(Fields::empty()));
        conform::wrong_type(table.name(), column.data_type(), &expected)
    };
    if column.logical_null_count() > 0 {
        // A null of a type that could never hold rows is still a mistake to report.
        return if is_list(column.data_type()) || column.data_type().is_null() {
            Ok(empty())
        } else {
            Err(wrong_type())
        };
    }
    let items: ArrayRef = match column.data_type() {
        DataType::List(_) => column.as_list::<i32>().value(0),
        DataType::LargeList(_) => column.as_list::<i64>().value(0),
        DataType::FixedSizeList(..) => column.as_fixed_size_list().value(0),
        DataType::ListView(_) => column.as_list_view::<i32>().value(0),
        DataType::LargeListView(_) => column.as_list_view::<i64>().value(0),
        _ => return Err(wrong_type()),
    };
    if let Some(position) = first_null(&items) {
        return Err(StateError::NullRow { table, position });
    }
    match items.as_struct_opt() {
        // Not `RecordBatch::from`: that panics on nulls, and drops the length of a struct without fields.
        Some(rows) if rows.num_columns() > 0 => RecordBatch::try_new(
            Arc::new(Schema::new(rows.fields().clone())),
            rows.columns().to_vec(),
        )
        .map_err(|_| wrong_type()),
        Some(rows) if !rows.is_empty() => Err(StateError::NoKeyColumn { table }),
        Some(_) => Ok(empty()),
        // A list that was always empty, written by something that infers types from values.
        None if items.is_empty() && items.data_type().is_null() => Ok(empty()),
        None => Err(wrong_type()),
    }
}

fn is_list(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::List(_)
            | DataType::LargeList(_)
            | DataType::FixedSizeList(..)
            | DataType::ListView(_)
            | DataType::LargeListView(_)
    )
}

fn first_null(items: &ArrayRef) -> Option<usize> {
    let nulls = items
        .logical_nulls()
        .filter(|nulls| nulls.null_count() > 0)?;
    (0..items.len()).find(|&position| nulls.is_null(position))
}

#[cfg(test)]
mod tests;
