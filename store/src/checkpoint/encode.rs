//! A snapshot as a Parquet document, column by column: at most one of them is on the heap.
//!
//! The bytes are those that `sherwood_client::import::to_parquet_bytes` would make of the whole state with the same
//! keys, but for the checksum.

use std::io::Write;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, ListArray, RecordBatch, StructArray, new_empty_array};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Fields, Schema};
use arrow_select::concat::concat;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, compute_leaves};
use parquet::errors::ParquetError;
use parquet::file::writer::SerializedRowGroupWriter;
use sherwood_client::import::properties;
use sherwood_client::{Snapshot, Table};
use sherwood_shared::document::to_document;
use sherwood_shared::schema::{TableId, added_fields};
use sherwood_shared::state::State;

use super::error::CheckpointError;
use super::pace::Step;
use super::sink::Paced;

/// Writes `snapshot` into `sink`; calls `columns_done` before the footer, which is then written at once.
pub(super) fn encode<W: Write + Send>(
    snapshot: &Snapshot,
    keys: &[(&str, String)],
    sink: W,
    columns_done: impl FnOnce(&mut W),
    paced: &Paced<'_>,
) -> Result<(), CheckpointError> {
    let mut version = 1;
    let mut schemas = Vec::with_capacity(TableId::ALL.len());
    for table in TableId::ALL {
        let (schema, used) = fields_in_use(table, snapshot.table(table))?;
        version = version.max(used);
        schemas.push(schema);
    }
    // The document of a state without rows has the schema of the document with them.
    let mut schemas = schemas
        .into_iter()
        .map(|schema| RecordBatch::new_empty(Arc::new(schema)));
    let mut next = || {
        schemas
            .next()
            .unwrap_or_else(|| RecordBatch::new_empty(Arc::new(Schema::empty())))
    };
    let shell = State {
        cluster: snapshot.cluster()?,
        tables: [next(), next(), next()],
    };
    let shell = to_document(&shell).map_err(CheckpointError::State)?;

    let writer = ArrowWriter::try_new(sink, shell.schema(), Some(properties(version, keys)));
    let writer = writer.map_err(CheckpointError::Encode)?;
    let (mut file, factory) = writer
        .into_serialized_writer()
        .map_err(CheckpointError::Encode)?;
    let writers = factory
        .create_column_writers(0)
        .map_err(CheckpointError::Encode)?;
    {
        let mut columns = Columns {
            group: file.next_row_group().map_err(CheckpointError::Encode)?,
            writers: writers.into_iter(),
            paced,
        };
        for (field, column) in shell.schema().fields().iter().zip(shell.columns()) {
            match TableId::from_name(field.name()) {
                None => columns.put(field, Arc::clone(column))?,
                Some(table) => columns.put_table(field, snapshot.table(table))?,
            }
        }
        columns.group.close().map_err(CheckpointError::Encode)?;
    }
    columns_done(file.inner_mut());
    file.close().map_err(CheckpointError::Encode)?;
    Ok(())
}

/// The table's columns but for added ones without a value, and the version of the schema that this needs.
fn fields_in_use(id: TableId, table: &Table) -> Result<(Schema, u32), CheckpointError> {
    let schema = table.schema()?;
    let added = added_fields(id);
    let mut version = 1;
    let mut kept: Vec<FieldRef> = Vec::with_capacity(schema.fields().len());
    for (at, field) in schema.fields().iter().enumerate() {
        if added.iter().any(|added| added.name() == field.name()) {
            let mut used = false;
            for batch in table.batches() {
                let batch = batch?;
                let values = batch.columns().get(at).filter(|c| c.null_count() < c.len());
                if values.is_some() {
                    used = true;
                    break;
                }
            }
            if !used {
                continue;
            }
            version = 2;
        }
        kept.push(Arc::clone(field));
    }
    Ok((Schema::new(kept), version))
}

struct Columns<'file, 'pace, 'asked, W: Write + Send> {
    group: SerializedRowGroupWriter<'file, W>,
    writers: std::vec::IntoIter<ArrowColumnWriter>,
    paced: &'pace Paced<'asked>,
}

impl<W: Write + Send> Columns<'_, '_, '_, W> {
    /// One column of the document, or one leaf of it. The array is gone before what was made of it is compressed (C5).
    fn put(&mut self, field: &Field, column: ArrayRef) -> Result<(), CheckpointError> {
        let done = || -> Result<(), ParquetError> {
            self.paced.before(Step::Encode)?;
            let leaves = compute_leaves(field, &column)?;
            drop(column);
            for leaf in leaves {
                let missing = || ParquetError::General("a column too many".to_owned());
                let mut writer = self.writers.next().ok_or_else(missing)?;
                writer.write(&leaf)?;
                drop(leaf);
                self.paced.before(Step::Encode)?;
                writer.close()?.append_to_row_group(&mut self.group)?;
            }
            Ok(())
        };
        done().map_err(CheckpointError::Encode)
    }

    /// The list of a table's rows, leaf by leaf.
    fn put_table(&mut self, list: &Field, table: &Table) -> Result<(), CheckpointError> {
        let DataType::List(item) = list.data_type() else {
            return Ok(());
        };
        let DataType::Struct(fields) = item.data_type() else {
            return Ok(());
        };
        let schema = table.schema()?;
        for field in fields {
            let at = schema.index_of(field.name()).map_err(arrow)?;
            for path in leaves(field) {
                self.paced.before(Step::Gather).map_err(stopped)?;
                let column = gather(table, at, field, &path)?;
                let narrow = narrow_field(field, &path);
                let rows = column.len();
                let fields = Fields::from(vec![narrow]);
                let rows_of = StructArray::try_new(fields.clone(), vec![column], None);
                let item = Arc::new(
                    item.as_ref()
                        .clone()
                        .with_data_type(DataType::Struct(fields)),
                );
                let offsets = OffsetBuffer::from_lengths([rows]);
                let array = ListArray::try_new(
                    Arc::clone(&item),
                    offsets,
                    Arc::new(rows_of.map_err(arrow)?),
                    None,
                );
                let array: ArrayRef = Arc::new(array.map_err(arrow)?);
                let field = list.clone().with_data_type(DataType::List(item));
                self.put(&field, array)?;
            }
        }
        Ok(())
    }
}

/// The paths, by positions, to what of a field is no struct.
fn leaves(field: &Field) -> Vec<Vec<usize>> {
    let DataType::Struct(fields) = field.data_type() else {
        return vec![Vec::new()];
    };
    let below = fields.iter().enumerate().flat_map(|(at, field)| {
        leaves(field).into_iter().map(move |mut path| {
            path.insert(0, at);
            path
        })
    });
    below.collect()
}

/// A field with one leaf of it.
fn narrow_field(field: &FieldRef, path: &[usize]) -> FieldRef {
    let (DataType::Struct(fields), Some((&at, rest))) = (field.data_type(), path.split_first())
    else {
        return Arc::clone(field);
    };
    let child: Vec<FieldRef> = fields
        .get(at)
        .map(|field| narrow_field(field, rest))
        .into_iter()
        .collect();
    Arc::new(
        field
            .as_ref()
            .clone()
            .with_data_type(DataType::Struct(child.into())),
    )
}

/// An array with one leaf of it.
fn narrow(array: &ArrayRef, path: &[usize]) -> Result<ArrayRef, ArrowError> {
    let (Some(parent), Some((&at, rest))) = (array.as_struct_opt(), path.split_first()) else {
        return Ok(Arc::clone(array));
    };
    let (fields, columns, nulls) = parent.clone().into_parts();
    let (Some(field), Some(column)) = (fields.get(at), columns.get(at)) else {
        return Ok(Arc::clone(array));
    };
    let field = narrow_field(field, rest);
    let made = StructArray::try_new(vec![field].into(), vec![narrow(column, rest)?], nulls)?;
    Ok(Arc::new(made))
}

/// One leaf of a column, of all chunks.
fn gather(
    table: &Table,
    at: usize,
    field: &FieldRef,
    path: &[usize],
) -> Result<ArrayRef, CheckpointError> {
    let mut pieces = Vec::with_capacity(table.chunk_count());
    for batch in table.batches() {
        let batch = batch?;
        if let Some(column) = batch.columns().get(at) {
            pieces.push(narrow(column, path).map_err(arrow)?);
        }
    }
    match pieces.as_slice() {
        [] => Ok(new_empty_array(narrow_field(field, path).data_type())),
        [one] => Ok(Arc::clone(one)),
        many => {
            let pieces: Vec<&dyn Array> = many.iter().map(AsRef::as_ref).collect();
            concat(&pieces).map_err(arrow)
        }
    }
}

fn arrow(error: ArrowError) -> CheckpointError {
    CheckpointError::Encode(error.into())
}

fn stopped(error: std::io::Error) -> CheckpointError {
    CheckpointError::Encode(error.into())
}
