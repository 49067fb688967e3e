//! Objects, one after the other, or one array of them.

use std::io::BufRead;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::{MOST_TEXT_BYTES, MOST_TEXT_ROWS, Piece, Pieces};
use crate::error::CliError;

type Row = Map<String, Value>;

/// The rows of `reader`.
pub fn pieces(mut reader: impl BufRead + Send + 'static, path: PathBuf) -> Pieces {
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
    let values = serde_json::Deserializer::from_reader(reader).into_iter::<Value>();
    let at = path.clone();
    let values = values.map(move |value| {
        value.map_err(|error| CliError::InputAt {
            path: at.clone(),
            place: format!("line {}", error.line()),
            why: error.to_string(),
        })
    });
    let rows: Box<dyn Iterator<Item = Result<Value, CliError>>> = match is_array {
        false => Box::new(values),
        true => Box::new(values.flat_map(|value| match value {
            Ok(Value::Array(rows)) => rows.into_iter().map(Ok).collect(),
            other => vec![other],
        })),
    };
    let rows = (1_u64..).zip(rows).map(move |(number, row)| match row? {
        Value::Object(row) => Ok(row),
        other => Err(CliError::InputAt {
            path: path.clone(),
            place: format!("row {number}"),
            why: format!("{other} is no object"),
        }),
    });
    cut(rows)
}

/// Cuts rows into pieces that are neither too many nor too large.
pub fn cut(rows: impl Iterator<Item = Result<Row, CliError>> + 'static) -> Pieces {
    let mut rows = rows.fuse();
    let mut failed: Option<CliError> = None;
    let mut left: Option<Row> = None;
    Box::new(std::iter::from_fn(move || {
        if let Some(error) = failed.take() {
            left = None;
            return Some(Err(error));
        }
        let (mut piece, mut bytes) = (Vec::new(), 0);
        loop {
            let row = match left.take().map(Ok).or_else(|| rows.next()) {
                None => break,
                Some(Ok(row)) => row,
                Some(Err(error)) if piece.is_empty() => return Some(Err(error)),
                // What is whole goes first.
                Some(Err(error)) => {
                    failed = Some(error);
                    break;
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
        pieces(Cursor::new(text.to_owned()), "f".into())
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
    fn what_is_whole_before_an_error_comes_first_and_the_error_says_where() {
        let found = read("{\"id\":\"a\"}\n{\"id\":oops}\n{\"id\":\"c\"}\n");
        assert!(
            matches!(&found[0], Ok(piece) if piece.rows() == 1),
            "{found:?}"
        );
        assert!(
            matches!(&found[1], Err(error) if error.contains("line 2")),
            "{found:?}"
        );
        let found = read("{\"id\":\"a\"}\n7\n");
        assert!(
            matches!(&found[1], Err(error) if error.contains("row 2")),
            "{found:?}"
        );
    }

    #[test]
    fn pieces_are_cut_by_rows_and_by_bytes() {
        let rows = MOST_TEXT_ROWS * 2 + 1;
        let text: String = (0..rows)
            .map(|row| format!("{{\"id\":\"{row}\"}}\n"))
            .collect();
        let sizes: Vec<_> = pieces(Cursor::new(text), "f".into())
            .map(|piece| piece.expect("rows").rows())
            .collect();
        assert_eq!(sizes, [MOST_TEXT_ROWS, MOST_TEXT_ROWS, 1]);
        let long = "x".repeat(MOST_TEXT_BYTES / 2);
        let text: String = (0..3).map(|_| format!("{{\"id\":\"{long}\"}}\n")).collect();
        assert_eq!(pieces(Cursor::new(text), "f".into()).count(), 3);
    }
}
