//! Arrow IPC and Parquet: batches, with their columns in the table's types.
//!
//! Tools choose types of their own for the same values (`large_utf8`, dictionaries, 64-bit numbers, nanoseconds).
//! A column that the table has is cast to its type; a value that does not fit is an error, never another value.

use std::fs::File;
use std::io::{BufRead, Cursor};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{Array, RecordBatch};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::{ArrowError, Field, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sherwood_client::TableId;
use sherwood_shared::schema::table_schema;

use super::{MOST_BYTES, MOST_ROWS, Piece, Pieces, read_all};
use crate::error::CliError;

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>>>;

/// An IPC file or stream.
pub fn ipc(
    mut reader: impl BufRead + Send + 'static,
    path: PathBuf,
    table: TableId,
) -> Result<Pieces, CliError> {
    let failed = |source: ArrowError| input(&path, source);
    let is_file = reader
        .fill_buf()
        .map_err(|error| failed(error.into()))?
        .starts_with(b"ARROW1");
    let batches: Batches = if is_file {
        let bytes = read_all(reader, &path)?;
        Box::new(FileReader::try_new(Cursor::new(bytes), None).map_err(failed)?)
    } else {
        Box::new(StreamReader::try_new(reader, None).map_err(failed)?)
    };
    Ok(pieces(batches, path, table))
}

/// A Parquet file whose rows are the table's.
pub fn parquet(
    reader: impl BufRead + Send + 'static,
    path: PathBuf,
    table: TableId,
) -> Result<Pieces, CliError> {
    let failed = |source: parquet::errors::ParquetError| input(&path, source.into());
    let batches: Batches = if path == Path::new("-") {
        let bytes = bytes::Bytes::from(read_all(reader, &path)?);
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(failed)?;
        Box::new(builder.build().map_err(failed)?)
    } else {
        let file = File::open(&path).map_err(|error| input(&path, error.into()))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(failed)?;
        Box::new(builder.with_batch_size(8192).build().map_err(failed)?)
    };
    Ok(pieces(batches, path, table))
}

fn input(path: &Path, source: ArrowError) -> CliError {
    CliError::Input {
        path: path.to_owned(),
        source: source.into(),
    }
}

/// Gathers batches, and cuts those that are too large.
pub fn pieces(batches: Batches, path: PathBuf, table: TableId) -> Pieces {
    let mut number = 0;
    let at = path.clone();
    let fitted = batches.map(move |batch| {
        let batch = batch.map_err(|error| input(&at, error))?;
        number += 1;
        fit(&batch, table).map_err(|why| CliError::InputAt {
            path: at.clone(),
            place: format!("batch {number}"),
            why,
        })
    });
    let mut cut = fitted.flat_map(|batch| match batch {
        Ok(batch) => halves(batch).into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error)],
    });
    let mut left: Option<RecordBatch> = None;
    let mut failed: Option<CliError> = None;
    Box::new(std::iter::from_fn(move || {
        if let Some(error) = failed.take() {
            return Some(Err(error));
        }
        let (mut piece, mut rows, mut bytes) = (Vec::new(), 0, 0);
        loop {
            let batch = match left.take().map(Ok).or_else(|| cut.next()) {
                None => break,
                Some(Ok(batch)) => batch,
                Some(Err(error)) if piece.is_empty() => return Some(Err(error)),
                Some(Err(error)) => {
                    failed = Some(error);
                    break;
                }
            };
            let size = size_of(&batch);
            let is_full = rows + batch.num_rows() > MOST_ROWS || bytes + size > MOST_BYTES;
            if !piece.is_empty() && is_full {
                left = Some(batch);
                break;
            }
            rows += batch.num_rows();
            bytes += size;
            piece.push(batch);
        }
        (!piece.is_empty()).then_some(Ok(Piece::Arrow(piece)))
    }))
}

/// The batch, with the columns that the table has in its types.
fn fit(batch: &RecordBatch, table: TableId) -> Result<RecordBatch, String> {
    let wanted = table_schema(table);
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let schema = batch.schema();
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        let kind = match wanted.field_with_name(field.name()) {
            Ok(wanted) => wanted.data_type(),
            Err(_) => field.data_type(),
        };
        let column = cast_with_options(column, kind, &options)
            .map_err(|error| format!("column {:?}: {error}", field.name()))?;
        fields.push(Field::new(field.name(), kind.clone(), true));
        columns.push(column);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|error| error.to_string())
}

fn halves(batch: RecordBatch) -> Vec<RecordBatch> {
    let rows = batch.num_rows();
    if rows <= 1 || (rows <= MOST_ROWS && size_of(&batch) <= MOST_BYTES) {
        return if rows == 0 { vec![] } else { vec![batch] };
    }
    let half = rows / 2;
    let mut cut = halves(batch.slice(0, half));
    cut.extend(halves(batch.slice(half, rows - half)));
    cut
}

fn size_of(batch: &RecordBatch) -> usize {
    let column = |column: &arrow_array::ArrayRef| {
        let data = column.to_data();
        data.get_slice_memory_size().unwrap_or(usize::MAX / 1024)
    };
    batch.columns().iter().map(column).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{ArrayRef, Int64Array, LargeStringArray, StringArray};
    use arrow_schema::DataType;

    fn batch(rows: usize, priority: i64) -> RecordBatch {
        let ids: LargeStringArray = (0..rows).map(|row| Some(row.to_string())).collect();
        let priority = Int64Array::from(vec![priority; rows]);
        let columns = [
            ("id", Arc::new(ids) as ArrayRef),
            ("priority", Arc::new(priority)),
        ];
        RecordBatch::try_from_iter(columns).expect("a batch")
    }

    fn read(batches: Vec<RecordBatch>) -> Vec<Result<Piece, CliError>> {
        let batches = Box::new(batches.into_iter().map(Ok));
        pieces(batches, "f".into(), TableId::Tasks).collect()
    }

    #[test]
    fn columns_come_in_the_tables_types_and_what_does_not_fit_is_an_error() {
        let found = read(vec![batch(2, 5)]);
        let [Ok(Piece::Arrow(found))] = &found[..] else {
            panic!("{found:?}");
        };
        let schema = found[0].schema();
        let kinds: Vec<_> = schema
            .fields()
            .iter()
            .map(|field| field.data_type())
            .collect();
        assert_eq!(kinds, [&DataType::Utf8, &DataType::Int32]);
        let found = read(vec![batch(1, 5), batch(1, 1 << 40)]);
        assert!(
            matches!(&found[0], Ok(piece) if piece.rows() == 1),
            "{found:?}"
        );
        assert!(
            matches!(&found[1], Err(error) if error.to_string().contains("batch 2: column \"priority\"")),
            "{found:?}"
        );
    }

    #[test]
    fn pieces_hold_all_rows_in_order_and_none_is_too_large() {
        let long: StringArray = (0..40).map(|_| Some("x".repeat(1 << 20))).collect();
        let ids: StringArray = (0..40).map(|row| Some(format!("{row:02}"))).collect();
        let long = RecordBatch::try_from_iter([
            ("id", Arc::new(ids) as ArrayRef),
            ("error", Arc::new(long)),
        ]);
        let many = vec![batch(0, 1), batch(MOST_ROWS * 2 + 3, 1), batch(10, 1)];
        for (batches, at_least) in [(many, 3), (vec![long.expect("a batch")], 3)] {
            let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
            let found: Vec<_> = read(batches)
                .into_iter()
                .map(|piece| piece.expect("rows"))
                .collect();
            assert_eq!(found.iter().map(Piece::rows).sum::<usize>(), rows);
            assert!(found.len() >= at_least);
            for piece in &found {
                let Piece::Arrow(batches) = piece else {
                    panic!("{piece:?}");
                };
                assert!(piece.rows() <= MOST_ROWS);
                assert!(batches.iter().map(size_of).sum::<usize>() <= MOST_BYTES);
            }
        }
    }
}
