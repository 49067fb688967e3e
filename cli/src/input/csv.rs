//! A header line, then rows. An empty field is null; lists are JSON arrays; a dot in a column's name leads into a
//! struct.

use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use serde_json::{Map, Value, json};
use sherwood_client::TableId;
use sherwood_shared::schema::table_schema;

use super::{Pieces, json, keyed};
use crate::error::CliError;

type Row = Map<String, Value>;

/// The rows of `reader`.
pub fn pieces(
    mut reader: impl BufRead + Send + 'static,
    path: PathBuf,
    table: TableId,
) -> Result<Pieces, CliError> {
    let failed = |source: ArrowError| CliError::Input {
        path: path.clone(),
        source: source.into(),
    };
    let mut header = Vec::new();
    reader
        .read_until(b'\n', &mut header)
        .map_err(|error| failed(error.into()))?;
    let format = arrow_csv::reader::Format::default().with_header(true);
    let (names, _) = format
        .infer_schema(Cursor::new(&header), Some(0))
        .map_err(failed)?;
    let key = table.key();
    if !header.is_empty() && names.field_with_name(key).is_err() {
        return Err(CliError::InputAt {
            path,
            place: "line 1".to_owned(),
            why: format!(
                "the header has no column {key:?}, the key of {}",
                table.name()
            ),
        });
    }
    let columns: Vec<Column> = names
        .fields()
        .iter()
        .map(|field| Column::new(field.name(), table))
        .collect();
    let texts: Vec<Field> = names
        .fields()
        .iter()
        .map(|field| Field::new(field.name(), DataType::Utf8, true))
        .collect();
    let whole = BufReader::new(Cursor::new(header).chain(reader));
    let batches = arrow_csv::ReaderBuilder::new(Arc::new(Schema::new(texts)))
        .with_header(true)
        .with_batch_size(1024)
        .build_buffered(whole)
        .map_err(failed)?;
    let mut number = 1;
    let rows = batches.flat_map(move |batch| {
        let rows = match batch {
            Ok(batch) => rows(&batch, &columns, &path, table, number),
            Err(source) => vec![Err(CliError::Input {
                path: path.clone(),
                source: source.into(),
            })],
        };
        number += rows.len();
        rows
    });
    Ok(json::cut(rows))
}

/// A column, and how its fields are read.
struct Column {
    path: Vec<String>,
    is_text: bool,
}

impl Column {
    fn new(name: &str, table: TableId) -> Self {
        let path: Vec<String> = name.split('.').map(str::to_owned).collect();
        Self {
            // Others as they look: a timestamp may be a number or text.
            is_text: kind(&path, table) == Some(DataType::Utf8),
            path,
        }
    }

    fn value(&self, text: &str) -> Value {
        let parsed = || serde_json::from_str(text).ok();
        match self.is_text {
            true => Value::from(text),
            false => parsed().unwrap_or_else(|| Value::from(text)),
        }
    }
}

fn kind(path: &[String], table: TableId) -> Option<DataType> {
    let schema = table_schema(table);
    let (first, rest) = path.split_first()?;
    let mut kind = schema.field_with_name(first).ok()?.data_type().clone();
    for name in rest {
        let DataType::Struct(fields) = &kind else {
            return None;
        };
        kind = fields.find(name)?.1.data_type().clone();
    }
    Some(kind)
}

fn rows(
    batch: &RecordBatch,
    columns: &[Column],
    path: &Path,
    table: TableId,
    first: usize,
) -> Vec<Result<Row, CliError>> {
    let cell = |column: usize, row: usize| {
        let texts = batch.column(column).as_string_opt::<i32>()?;
        (!texts.is_null(row)).then(|| texts.value(row))
    };
    let read = |row: usize| {
        let mut object = Map::new();
        for (at, column) in columns.iter().enumerate() {
            let value = cell(at, row).map_or(Value::Null, |text| column.value(text));
            set(&mut object, &column.path, value).ok_or_else(|| CliError::InputAt {
                path: path.to_owned(),
                place: format!("row {}", first + row),
                why: format!("{} is a column and a part of one", column.path.join(".")),
            })?;
        }
        keyed(table, object, path, || format!("row {}", first + row))
    };
    (0..batch.num_rows()).map(read).collect()
}

/// Sets a field in nested objects. A struct of nulls alone is null.
fn set(object: &mut Row, path: &[String], value: Value) -> Option<()> {
    match path {
        [] => None,
        [name] => {
            object.insert(name.clone(), value);
            Some(())
        }
        [name, rest @ ..] => {
            if value.is_null() {
                object.entry(name).or_insert(Value::Null);
                return Some(());
            }
            let inner = object.entry(name).or_insert(Value::Null);
            if inner.is_null() {
                *inner = json!({});
            }
            set(inner.as_object_mut()?, rest, value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Piece;
    use super::*;

    fn read(text: &str) -> Vec<Row> {
        let pieces = pieces(Cursor::new(text.to_owned()), "f".into(), TableId::Tasks);
        let rows = |piece| match piece {
            Ok(Piece::Text(rows)) => rows,
            other => panic!("{other:?}"),
        };
        pieces.expect("pieces").flat_map(rows).collect()
    }

    #[test]
    fn fields_are_read_by_their_columns_types() {
        let rows = read(
            "id,type,priority,progress,input_cids,resources.cpu_cores,resources.gpu_cores,created_at\n\
             7,true,5,0.5,\"[\"\"a\"\",\"\"b\"\"]\",2,,2026-01-02T03:04:05Z\n\
             \"a,b\",,,,,,,1000\n",
        );
        let expected = [
            json!({"id": "7", "type": "true", "priority": 5, "progress": 0.5, "input_cids": ["a", "b"],
                   "resources": {"cpu_cores": 2}, "created_at": "2026-01-02T03:04:05Z"}),
            json!({"id": "a,b", "type": null, "priority": null, "progress": null, "input_cids": null,
                   "resources": null, "created_at": 1000}),
        ];
        let rows: Vec<Value> = rows.into_iter().map(Value::Object).collect();
        assert_eq!(rows, expected);
    }

    #[test]
    fn a_file_of_a_header_alone_has_no_rows_and_one_that_tears_is_an_error() {
        assert_eq!(read("id,type\n"), Vec::<Row>::new());
        let torn = pieces(
            Cursor::new("id,type\na,b\nc\n".to_owned()),
            "f".into(),
            TableId::Tasks,
        );
        let last = torn.expect("pieces").last();
        assert!(
            matches!(last, Some(Err(CliError::Input { .. }))),
            "{last:?}"
        );
        let keyless = pieces(
            Cursor::new("type,id\na,1\nb,\n".to_owned()),
            "f".into(),
            TableId::Tasks,
        );
        let found: Vec<_> = keyless.expect("pieces").collect();
        assert!(
            matches!(&found[..], [Err(CliError::Row { place, .. })] if place == "row 2"),
            "{found:?}"
        );
    }
}
