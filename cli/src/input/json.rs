//! Objects, one after the other, or one array of them.

use std::io::BufRead;
use std::path::PathBuf;

use serde_json::{Map, Value};
use sherwood_client::TableId;

use super::{MOST_TEXT_BYTES, MOST_TEXT_ROWS, Piece, Pieces, keyed, not_json};
use crate::error::CliError;

type Row = Map<String, Value>;

/// The rows of `reader`, for `table`.
pub fn pieces(mut reader: impl BufRead + Send + 'static, path: PathBuf, table: TableId) -> Pieces {
    let is_array = loop {
        match reader.fill_buf() {
            Ok([]) => break false,
            Ok(bytes) => match bytes.iter().position(|byte| !byte.is_ascii_whitespace()) {
                Some(at) => break bytes.get(at) == Some(&b'['),
                None => {
                    let blank = bytes.len();
                    reader.consume(blank);
                }
            },
            // It comes again.
            Err(_) => break false,
        }
    };
    let values = values(reader, path.clone());
    let values: Box<dyn Iterator<Item = Result<Value, CliError>>> = match is_array {
        false => Box::new(values),
        true => Box::new(values.flat_map(|value| match value {
            Ok(Value::Array(rows)) => rows.into_iter().map(Ok).collect(),
            other => vec![other],
        })),
    };
    cut(rows(values, path, table, |number| format!("row {number}")))
}

/// Each value that stands in `reader`, one after the other.
pub fn values(
    reader: impl BufRead + 'static,
    path: PathBuf,
) -> impl Iterator<Item = Result<Value, CliError>> {
    let values = serde_json::Deserializer::from_reader(reader).into_iter::<Value>();
    values.map(move |value| value.map_err(|error| not_json(&path, &error)))
}

/// The values as rows of `table`, each with its key. `place` says where one stands by its number, which counts from 1.
pub fn rows(
    values: impl Iterator<Item = Result<Value, CliError>>,
    path: PathBuf,
    table: TableId,
    place: impl Fn(u64) -> String,
) -> impl Iterator<Item = Result<Row, CliError>> {
    (1_u64..).zip(values).map(move |(number, value)| {
        let place = || place(number);
        match value? {
            Value::Object(row) => keyed(table, row, &path, place),
            other => Err(CliError::InputAt {
                path: path.clone(),
                place: place(),
                why: format!("{other} is no object"),
            }),
        }
    })
}

/// Cuts rows into pieces that are neither too many nor too large.
pub fn cut(rows: impl Iterator<Item = Result<Row, CliError>> + 'static) -> Pieces {
    let mut rows = rows.fuse();
    let mut left: Option<Row> = None;
    let mut ended = false;
    Box::new(std::iter::from_fn(move || {
        // A reader may say the same error for ever.
        if ended {
            return None;
        }
        let (mut piece, mut bytes) = (Vec::new(), 0);
        loop {
            let row = match left.take().map(Ok).or_else(|| rows.next()) {
                None => break,
                Some(Ok(row)) => row,
                Some(Err(error)) => {
                    ended = true;
                    return Some(Err(error));
                }
            };
            let size = size_of(&row);
            if !piece.is_empty()
                && (piece.len() >= MOST_TEXT_ROWS || bytes + size > MOST_TEXT_BYTES)
            {
                left = Some(row);
                break;
            }
            bytes += size;
            piece.push(row);
        }
        (!piece.is_empty()).then_some(Ok(Piece::Text(piece)))
    }))
}

/// About its bytes as text.
fn size_of(row: &Row) -> usize {
    fn value(of: &Value) -> usize {
        match of {
            Value::String(text) => text.len() + 3,
            Value::Array(items) => items.iter().map(value).sum::<usize>() + 2,
            Value::Object(fields) => size_of(fields),
            _ => 12,
        }
    }
    let field = |(name, of): (&String, &Value)| name.len() + 4 + value(of);
    row.iter().map(field).sum::<usize>() + 24
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn read(text: &str) -> Vec<Result<Piece, String>> {
        pieces(Cursor::new(text.to_owned()), "f".into(), TableId::Tasks)
            .map(|piece| piece.map_err(|error| error.to_string()))
            .collect()
    }

    #[test]
    fn lines_and_an_array_are_the_same_rows() {
        let lines = read("{\"id\":\"a\"}\n{\"id\":\"b\"}\n");
        assert_eq!(lines.len(), 1);
        assert_eq!(lines, read(" [{\"id\":\"a\"}, {\"id\":\"b\"}]"));
        assert!(
            matches!(&lines[..], [Ok(piece)] if piece.rows() == 2),
            "{lines:?}"
        );
        assert_eq!(read(""), []);
        assert_eq!(read("[]"), []);
    }

    #[test]
    fn an_error_says_where_it_is_and_nothing_of_its_piece_comes_before_it() {
        for (text, told) in [
            (
                "{\"id\":\"a\"}\n{\"id\":oops}\n{\"id\":\"c\"}\n",
                "\"f\", line 2, column 7: expected value",
            ),
            ("{\"id\":\"a\"}\n7\n", "\"f\", row 2: 7 is no object"),
            (
                "{\"id\":\"a\"}\n\n{\"type\":\"t\"}\n",
                "refused: \"f\", row 2: a row of tasks needs \"id\", its key",
            ),
            (
                "[{\"id\":\"a\"},{\"id\":null}]",
                "row 2: \"id\" is the key of tasks, and has to be text: it is null",
            ),
            ("{\"ops\":[]}", "row 1: this is a transaction and no row"),
        ] {
            let found = read(text);
            assert!(
                matches!(&found[..], [Err(error)] if error.contains(told)),
                "{text}: {found:?}"
            );
        }
    }

    #[test]
    fn pieces_are_cut_by_rows_and_by_bytes() {
        let rows = MOST_TEXT_ROWS * 2 + 1;
        let text: String = (0..rows)
            .map(|row| format!("{{\"id\":\"{row}\"}}\n"))
            .collect();
        let sizes: Vec<_> = pieces(Cursor::new(text), "f".into(), TableId::Tasks)
            .map(|piece| piece.expect("rows").rows())
            .collect();
        assert_eq!(sizes, [MOST_TEXT_ROWS, MOST_TEXT_ROWS, 1]);
        let long = "x".repeat(MOST_TEXT_BYTES / 2);
        let text: String = (0..3).map(|_| format!("{{\"id\":\"{long}\"}}\n")).collect();
        assert_eq!(
            pieces(Cursor::new(text), "f".into(), TableId::Tasks).count(),
            3
        );
    }
}
