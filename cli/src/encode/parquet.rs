//! A table as Parquet rows, or the whole state as the document.

use std::io::Write;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, ListArray, StructArray};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow_select::concat::concat;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, compute_leaves};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::file::writer::SerializedRowGroupWriter;
use sherwood_client::import::VERSION_KEY;
use sherwood_client::{Snapshot, Table, TableId};
use sherwood_shared::schema::added_fields;

use super::{Batches, not_encoded};
use crate::error::CliError;

const FORMAT: &str = "Parquet";
/// Of encoded rows that stand in memory before they are written as a row group.
const ROW_GROUP_BYTES: usize = 32 << 20;

fn properties() -> WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_created_by(format!("sherwood version {}", env!("CARGO_PKG_VERSION")))
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        // The names for list items that the format prescribes.
        .set_coerce_types(true)
}

fn failed(error: ParquetError) -> CliError {
    // What the writer said is an error of its own, somewhere inside.
    let source = match error {
        ParquetError::External(source) => match source.downcast::<std::io::Error>() {
            Ok(source) => return CliError::Output(*source),
            Err(source) => ArrowError::ExternalError(source),
        },
        error => ArrowError::ParquetError(error.to_string()),
    };
    not_encoded(FORMAT)(source)
}

/// Writes rows as rows.
pub fn table(
    out: &mut (dyn Write + Send),
    schema: &SchemaRef,
    batches: &mut Batches<'_>,
) -> Result<(), CliError> {
    let properties = properties().build();
    let mut writer =
        ArrowWriter::try_new(out, Arc::clone(schema), Some(properties)).map_err(failed)?;
    for batch in batches {
        writer.write(&batch?).map_err(failed)?;
        if writer.in_progress_size() > ROW_GROUP_BYTES {
            writer.flush().map_err(failed)?;
        }
    }
    writer.close().map_err(failed)?;
    Ok(())
}

/// Writes the whole state in the document's form: one row, whose columns `nodes`, `tasks` and `content` are lists of
/// structs. One column of one table stands in memory at a time. `step` is told the rows of each column that is done.
pub fn document(
    out: &mut (dyn Write + Send),
    snapshot: &Snapshot,
    step: &dyn Fn(u64),
) -> Result<(), CliError> {
    let cluster = snapshot.cluster()?;
    let cluster_schema = cluster.schema();
    let known = 3.min(cluster_schema.fields().len());
    let (own, others) = cluster_schema.fields().split_at(known);
    let mut fields: Vec<FieldRef> = own.iter().map(nullable).collect();
    let mut version = 1;
    let mut kept = Vec::new();
    for id in TableId::ALL {
        let columns = columns(snapshot.table(id), &mut version)?;
        let structs = columns.iter().map(|(_, field)| Arc::clone(field)).collect();
        fields.push(Arc::new(list_field(id, structs)));
        kept.push((id, columns));
    }
    fields.extend(others.iter().map(nullable));
    let schema = Arc::new(Schema::new(fields));

    let version = KeyValue::new(VERSION_KEY.to_owned(), version.to_string());
    let properties = properties()
        .set_key_value_metadata(Some(vec![version]))
        .build();
    let writer = ArrowWriter::try_new(out, schema, Some(properties)).map_err(failed)?;
    let (mut file, factory) = writer.into_serialized_writer().map_err(failed)?;
    let writers = factory.create_column_writers(0).map_err(failed)?;
    let mut writers = writers.into_iter();
    let mut row_group = file.next_row_group().map_err(failed)?;
    let mut write = |field: &Field, column: &ArrayRef| {
        write_column(&mut row_group, &mut writers, field, column)
    };
    for (field, column) in own.iter().zip(cluster.columns()) {
        write(&nullable(field), column)?;
    }
    for (id, columns) in &kept {
        let table = snapshot.table(*id);
        for (place, field) in columns {
            let (field, column) = one_column(table, *place, field)?;
            write(&field, &column)?;
            step(table.len());
        }
    }
    for (field, column) in others.iter().zip(cluster.columns().iter().skip(known)) {
        write(&nullable(field), column)?;
    }
    row_group.close().map_err(failed)?;
    file.finish().map_err(failed)?;
    Ok(())
}

/// Writes one field into the columns that the row group waits for next.
fn write_column<W: Write + Send>(
    row_group: &mut SerializedRowGroupWriter<'_, W>,
    writers: &mut impl Iterator<Item = ArrowColumnWriter>,
    field: &Field,
    column: &ArrayRef,
) -> Result<(), CliError> {
    for leaf in compute_leaves(field, column).map_err(failed)? {
        let Some(mut writer) = writers.next() else {
            let what = format!("column {} is one too many", field.name());
            return Err(failed(ParquetError::General(what)));
        };
        writer.write(&leaf).map_err(failed)?;
        let chunk = writer.close().map_err(failed)?;
        chunk.append_to_row_group(row_group).map_err(failed)?;
    }
    Ok(())
}

/// The columns of a table that belong into the document, by their places: a field that a version after the first
/// added, and of which there is not one value, is left out, as everywhere.
fn columns(table: &Table, version: &mut u32) -> Result<Vec<(usize, FieldRef)>, CliError> {
    let added = added_fields(table.id());
    let mut kept = Vec::new();
    for (place, field) in table.schema()?.fields().iter().enumerate() {
        let is_added = added.iter().any(|added| added.name() == field.name());
        if is_added {
            let mut is_used = false;
            for batch in table.batches() {
                let batch = batch?;
                let column = batch.columns().get(place);
                is_used = column.is_some_and(|column| column.null_count() < column.len());
                if is_used {
                    break;
                }
            }
            if !is_used {
                continue;
            }
            *version = 2;
        }
        kept.push((place, nullable(field)));
    }
    Ok(kept)
}

/// One column of a table as the only field of the structs of a list, in one row.
fn one_column(
    table: &Table,
    place: usize,
    field: &FieldRef,
) -> Result<(Field, ArrayRef), CliError> {
    let mut pieces: Vec<ArrayRef> = Vec::new();
    for batch in table.batches() {
        pieces.extend(batch?.columns().get(place).cloned());
    }
    let pieces: Vec<&dyn Array> = pieces.iter().map(AsRef::as_ref).collect();
    let column = match pieces.as_slice() {
        [] => arrow_array::new_empty_array(field.data_type()),
        pieces => concat(pieces).map_err(not_encoded(FORMAT))?,
    };
    let rows = column.len();
    let fields = Fields::from(vec![Arc::clone(field)]);
    let structs = StructArray::try_new(fields.clone(), vec![column], None);
    let structs = structs.map_err(not_encoded(FORMAT))?;
    let list_field = list_field(table.id(), fields);
    let item = match list_field.data_type() {
        DataType::List(item) => Arc::clone(item),
        _ => Arc::new(Field::new_list_field(structs.data_type().clone(), true)),
    };
    let offsets = OffsetBuffer::from_lengths([rows]);
    let list = ListArray::try_new(item, offsets, Arc::new(structs), None);
    Ok((list_field, Arc::new(list.map_err(not_encoded(FORMAT))?)))
}

fn list_field(table: TableId, fields: Fields) -> Field {
    let item = Field::new_list_field(DataType::Struct(fields), true);
    Field::new(table.name(), DataType::List(Arc::new(item)), true)
}

fn nullable(field: &FieldRef) -> FieldRef {
    Arc::new(field.as_ref().clone().with_nullable(true))
}
