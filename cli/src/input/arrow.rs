//! Arrow IPC and Parquet: batches, with their columns in the table's types.
//!
//! Tools choose types of their own for the same values (`large_utf8`, dictionaries, 64-bit numbers, nanoseconds).
//! A column that the table has is brought into its type; a value that does not fit refuses its row, and never becomes
//! another value.

use std::fs::File;
use std::io::{BufRead, Cursor};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{Array, RecordBatch};
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::{ArrowError, DataType, FieldRef, Fields};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sherwood_client::TableId;
use sherwood_shared::schema::table_schema;
use sherwood_shared::state::{self, StateError};

use super::{MOST_BYTES, MOST_ROWS, Piece, Pieces, read_all};
use crate::error::CliError;

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>>>;

/// An IPC file or stream.
pub fn ipc(
    reader: impl BufRead + Send + 'static,
    path: PathBuf,
    table: TableId,
) -> Result<Pieces, CliError> {
    let batches = batches(reader, &path)?;
    Ok(pieces(batches, path, table))
}

/// The batches of an IPC file or stream.
pub fn batches(
    mut reader: impl BufRead + Send + 'static,
    path: &Path,
) -> Result<Batches, CliError> {
    let failed = |source: ArrowError| input(path, source);
    let is_file = reader
        .fill_buf()
        .map_err(|error| failed(error.into()))?
        .starts_with(b"ARROW1");
    if is_file {
        let bytes = read_all(reader, path)?;
        let reader = FileReader::try_new(Cursor::new(bytes), None);
        return Ok(Box::new(reader.map_err(failed)?));
    }
    let reader = StreamReader::try_new(reader, None);
    Ok(Box::new(reader.map_err(failed)?))
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
    let mut before = 0;
    let fitted = batches.map(move |batch| {
        let batch = batch.map_err(|error| input(&path, error))?;
        let fitted = fit(&batch, table).map_err(|error| refused(&path, before, &error))?;
        before += batch.num_rows();
        Ok(fitted)
    });
    let mut cut = fitted.flat_map(|batch| match batch {
        Ok(batch) => halves(batch).into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error)],
    });
    let mut left: Option<RecordBatch> = None;
    let mut ended = false;
    Box::new(std::iter::from_fn(move || {
        // A reader may say the same error for ever.
        if ended {
            return None;
        }
        let (mut piece, mut rows, mut bytes) = (Vec::new(), 0, 0);
        loop {
            let batch = match left.take().map(Ok).or_else(|| cut.next()) {
                None => break,
                Some(Ok(batch)) => batch,
                Some(Err(error)) => {
                    ended = true;
                    return Some(Err(error));
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
fn fit(batch: &RecordBatch, table: TableId) -> Result<RecordBatch, StateError> {
    let schema = batch.schema();
    let known = table_schema(table);
    let known: Fields = known
        .fields()
        .iter()
        .map(|known| match schema.field_with_name(known.name()) {
            Ok(given) => reduced(known, given.data_type()),
            Err(_) => Arc::clone(known),
        })
        .collect();
    state::conformed(table, batch, &known)
}

/// The field with those fields of a struct alone that are given: a patch leaves the others as they are.
fn reduced(known: &FieldRef, given: &DataType) -> FieldRef {
    let (DataType::Struct(fields), DataType::Struct(given)) = (known.data_type(), given) else {
        return Arc::clone(known);
    };
    let fields: Fields = fields
        .iter()
        .filter_map(|field| Some(reduced(field, given.find(field.name())?.1.data_type())))
        .collect();
    let field = known.as_ref().clone();
    Arc::new(field.with_data_type(DataType::Struct(fields)))
}

/// A state's error as the refusal of a row of a file. `before`: rows of the file that come before those that it counts.
pub fn refused(path: &Path, before: usize, error: &StateError) -> CliError {
    let number = |position: usize| before + position + 1;
    let row = |position: usize| format!("row {}", number(position));
    let (place, why) = match error {
        StateError::Value {
            column,
            row:
                state::Row::Of {
                    table,
                    key,
                    position,
                },
            value,
            expected,
        } => {
            let (table, expected) = (table.name(), expected.to_lowercase());
            let column = column
                .strip_prefix(table)
                .map_or(column.as_str(), |path| path.trim_start_matches('.'));
            let why = format!("{table} {key:?}, column {column}: {value} does not fit {expected}");
            (row(*position), why)
        }
        StateError::NullKey { table, position } => {
            let (key, table) = (table.key(), table.name());
            let why = format!("a row of {table} needs {key:?}, its key, and here it is null");
            (row(*position), why)
        }
        StateError::NullRow { table, position } => {
            let why = format!("a row of {} that is null", table.name());
            (row(*position), why)
        }
        StateError::DuplicateKey {
            table,
            key,
            first,
            second,
        } => {
            let (table, first) = (table.name(), number(*first));
            let why = format!("{table} {key:?} stands in row {first} already");
            (row(*second), why)
        }
        StateError::NoKeyColumn { table } => {
            let (key, table) = (table.key(), table.name());
            let why = format!(
                "there is no column {key:?}, the key of {table}; a whole state is for sherwood import"
            );
            ("every row".to_owned(), why)
        }
        other => ("every row".to_owned(), other.to_string()),
    };
    CliError::Row {
        path: path.to_owned(),
        place,
        why,
    }
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
    }

    /// As of JSON rows: exit code 5, the row and the column.
    #[test]
    fn a_row_that_does_not_fit_is_refused_by_its_number_key_and_column() {
        let refusal = |batches| {
            let mut found = read(batches);
            let last = found.pop().expect("a refusal").expect_err("a refusal");
            assert!(found.is_empty(), "{found:?}");
            assert_eq!(last.exit_code(), 5, "{last}");
            last.to_string()
        };
        assert_eq!(
            refusal(vec![batch(4, 5), batch(3, 1 << 40)]),
            "refused: \"f\", row 5: tasks \"0\", column priority: 1099511627776 does not fit int32"
        );
        let ids: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
        let keyless = RecordBatch::try_from_iter([("id", ids)]).expect("a batch");
        assert_eq!(
            refusal(vec![batch(1, 5), keyless]),
            "refused: \"f\", row 3: a row of tasks needs \"id\", its key, and here it is null"
        );
        let halves: ArrayRef = Arc::new(arrow_array::Float64Array::from(vec![1.0, 2.5]));
        let ids: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
        let columns = [("id", Arc::clone(&ids)), ("priority", halves)];
        let halves = RecordBatch::try_from_iter(columns).expect("a batch");
        assert_eq!(
            refusal(vec![halves]),
            "refused: \"f\", row 2: tasks \"b\", column priority: 2.5 does not fit int32"
        );
        let columns = [("id", Arc::clone(&ids)), ("priority", ids)];
        let texts = RecordBatch::try_from_iter(columns).expect("a batch");
        assert_eq!(
            refusal(vec![texts]),
            "refused: \"f\", every row: column tasks.priority is Utf8, but a state needs an integer that fits int32 \
             there"
        );
        let columns = [("name", Arc::new(StringArray::from(vec!["a"])) as ArrayRef)];
        let without = RecordBatch::try_from_iter(columns).expect("a batch");
        assert_eq!(
            refusal(vec![without]),
            "refused: \"f\", every row: there is no column \"id\", the key of tasks; a whole state is for \
             sherwood import"
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
