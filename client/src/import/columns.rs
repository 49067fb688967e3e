//! A document's columns, and those of its tables, read one after the other.
//!
//! A decoder holds a column's pages beside its values until it is done, and a document has one page for each column. Read all at once, a state is
//! in memory twice; read column by column, largest first, it is so for one of them at a time.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, ListArray, RecordBatch, StructArray};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::errors::ParquetError;

/// A piece: a column of the document, or one field of a table's rows.
struct Piece {
    column: usize,
    leaves: std::ops::Range<usize>,
    bytes: i64,
}

/// The one row, put together from what `read` gives for some leaves. `None` if it gives none.
pub(super) fn read_pieces(
    metadata: &ArrowReaderMetadata,
    mut read: impl FnMut(ProjectionMask) -> Result<Option<RecordBatch>, ParquetError>,
) -> Result<Option<RecordBatch>, ParquetError> {
    let schema = metadata.schema();
    let mut pieces: Vec<Piece> = Vec::new();
    let mut leaf = 0;
    for (column, field) in schema.fields().iter().enumerate() {
        for count in counts(field) {
            pieces.push(Piece {
                column,
                leaves: leaf..leaf + count,
                bytes: 0,
            });
            leaf += count;
        }
    }
    if leaf != metadata.parquet_schema().num_columns() || pieces.iter().any(|p| p.leaves.is_empty())
    {
        // Types that are not laid out as expected: all at once.
        return read(ProjectionMask::all());
    }
    for group in metadata.metadata().row_groups() {
        for piece in &mut pieces {
            let columns = group
                .columns()
                .get(piece.leaves.clone())
                .unwrap_or_default();
            let bytes = columns
                .iter()
                .map(|column| column.uncompressed_size().max(0));
            piece.bytes = piece
                .bytes
                .saturating_add(bytes.fold(0, i64::saturating_add));
        }
    }
    let mut order: Vec<usize> = (0..pieces.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(pieces[at].bytes));
    let mut found: Vec<Option<ArrayRef>> = vec![None; pieces.len()];
    for at in order {
        let mask = ProjectionMask::leaves(metadata.parquet_schema(), pieces[at].leaves.clone());
        let Some(batch) = read(mask)? else {
            return Ok(None);
        };
        found[at] = batch.columns().first().cloned();
    }
    let mut columns = Vec::with_capacity(schema.fields().len());
    for (column, field) in schema.fields().iter().enumerate() {
        let parts = pieces
            .iter()
            .zip(&mut found)
            .filter(|(piece, _)| piece.column == column);
        let parts: Option<Vec<ArrayRef>> = parts.map(|(_, found)| found.take()).collect();
        // Types that another writer's schema makes of a part alone, and not of the whole: all at once.
        match join(field, parts.unwrap_or_default()) {
            Some(made) => columns.push(made),
            None => return read(ProjectionMask::all()),
        }
    }
    let schema = Arc::new(Schema::new(schema.fields().clone()));
    match RecordBatch::try_new(schema, columns) {
        Ok(batch) => Ok(Some(batch)),
        Err(_) => read(ProjectionMask::all()),
    }
}

/// The leaves of each piece of a column of the document.
fn counts(field: &Field) -> Vec<usize> {
    match rows_of(field) {
        Some(fields) => fields
            .iter()
            .map(|field| leaves(field.data_type()))
            .collect(),
        None => vec![leaves(field.data_type())],
    }
}

fn rows_of(field: &Field) -> Option<&arrow_schema::Fields> {
    let DataType::List(item) = field.data_type() else {
        return None;
    };
    match item.data_type() {
        DataType::Struct(fields) if fields.len() > 1 => Some(fields),
        _ => None,
    }
}

fn leaves(data_type: &DataType) -> usize {
    match data_type {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::Map(item, _) => leaves(item.data_type()),
        DataType::Struct(fields) => fields.iter().map(|field| leaves(field.data_type())).sum(),
        _ => 1,
    }
}

/// A column from its pieces: itself, or lists of rows that have one field each. `None` if they do not fit together.
fn join(field: &Field, parts: Vec<ArrayRef>) -> Option<ArrayRef> {
    let first = parts.first()?.clone();
    let (Some(fields), DataType::List(item)) = (rows_of(field), field.data_type()) else {
        return Some(first);
    };
    let list = first.as_list_opt::<i32>()?;
    let rows = list.values().as_struct_opt()?;
    let mut children = Vec::with_capacity(parts.len());
    for part in &parts {
        let other = part.as_list_opt::<i32>()?;
        let values = other.values().as_struct_opt()?;
        let same = other.offsets() == list.offsets()
            && other.nulls() == list.nulls()
            && values.nulls() == rows.nulls();
        children.push(values.columns().first().filter(|_| same).cloned()?);
    }
    let rows = StructArray::try_new(fields.clone(), children, rows.nulls().cloned()).ok()?;
    let made = ListArray::try_new(
        Arc::clone(item),
        list.offsets().clone(),
        Arc::new(rows),
        list.nulls().cloned(),
    );
    Some(Arc::new(made.ok()?))
}
