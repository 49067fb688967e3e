//! Rows from files: JSON, Arrow, Parquet or CSV, in pieces that the daemon takes as one transaction each.
//!
//! What a file is goes by what was said, else by its name, else by its first bytes. JSON and CSV are read as they
//! come, so a pipe works; Parquet has its index at the end, so standard input is read whole for it.
//!
//! A row that its table cannot hold is refused here where only the file can tell which row it is: one without a key, and
//! in Arrow and Parquet a value that does not fit. An error drops the piece it is in: a piece is sent whole or not at all.

pub mod arrow;
mod csv;
pub mod json;

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use arrow_array::RecordBatch;
use serde_json::{Map, Value};
use sherwood_client::TableId;

use crate::args::{FileArgs, InputFormat};
use crate::error::CliError;

/// Most rows of one piece of text: half of what the daemon takes.
const MOST_TEXT_ROWS: usize = 5_000;
/// Most bytes of one piece of text, likewise.
const MOST_TEXT_BYTES: usize = 2 << 20;
/// Most rows of one piece of Arrow.
const MOST_ROWS: usize = 100_000;
/// Most bytes of one piece of Arrow: half of what the daemon takes.
const MOST_BYTES: usize = 15 << 20;

/// What goes into one transaction.
#[derive(Debug, PartialEq)]
pub enum Piece {
    /// Rows as objects.
    Text(Vec<Map<String, Value>>),
    /// Rows as Arrow, of one schema.
    Arrow(Vec<RecordBatch>),
}

impl Piece {
    /// How many rows it has.
    pub fn rows(&self) -> usize {
        match self {
            Self::Text(rows) => rows.len(),
            Self::Arrow(batches) => batches.iter().map(RecordBatch::num_rows).sum(),
        }
    }
}

/// Pieces, in the file's order, and none after an error; nor is what stands before the error in its piece.
pub type Pieces = Box<dyn Iterator<Item = Result<Piece, CliError>>>;

/// An opened file, its first bytes looked at.
pub struct Opened {
    /// As it was given.
    pub args: FileArgs,
    /// What it is.
    pub format: InputFormat,
    /// How that is known.
    pub taken: Taken,
    reader: Box<dyn BufRead + Send>,
}

/// How it is known what a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was said.
    Said,
    /// By its name.
    Name,
    /// By its first bytes.
    Bytes,
}

impl Taken {
    /// As a part of a sentence.
    pub fn why(self, format: InputFormat) -> &'static str {
        match (self, format) {
            (Self::Said, _) => "as --format says",
            (Self::Name, _) => "by its name",
            (Self::Bytes, InputFormat::Csv) => "since its first bytes are of nothing else",
            (Self::Bytes, _) => "by its first bytes",
        }
    }
}

/// Opens it, and finds out what it is.
pub fn open(args: &FileArgs) -> Result<Opened, CliError> {
    let failed = |source: std::io::Error| CliError::Input {
        path: args.file.clone(),
        source: source.into(),
    };
    let mut reader: Box<dyn BufRead + Send> = if args.file == Path::new("-") {
        Box::new(BufReader::with_capacity(1 << 16, std::io::stdin()))
    } else {
        let file = File::open(&args.file).map_err(failed)?;
        Box::new(BufReader::with_capacity(1 << 16, file))
    };
    let (format, taken) = match (args.format, by_name(&args.file)) {
        (Some(format), _) => (format, Taken::Said),
        (None, Some(format)) => (format, Taken::Name),
        (None, None) => {
            let start = reader.fill_buf().map_err(failed)?;
            (by_content(start), Taken::Bytes)
        }
    };
    Ok(Opened {
        args: args.clone(),
        format,
        taken,
        reader,
    })
}

fn by_name(path: &Path) -> Option<InputFormat> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "json" | "jsonl" | "ndjson" => Some(InputFormat::Json),
        "arrow" | "arrows" | "ipc" | "feather" => Some(InputFormat::Arrow),
        "parquet" => Some(InputFormat::Parquet),
        "csv" => Some(InputFormat::Csv),
        _ => None,
    }
}

fn by_content(start: &[u8]) -> InputFormat {
    let first = start.iter().find(|byte| !byte.is_ascii_whitespace());
    match (start, first) {
        ([b'P', b'A', b'R', b'1', ..], _) => InputFormat::Parquet,
        ([b'A', b'R', b'R', b'O', b'W', ..] | [0xff, 0xff, 0xff, 0xff, ..], _) => {
            InputFormat::Arrow
        }
        (_, Some(b'{' | b'[') | None) => InputFormat::Json,
        _ => InputFormat::Csv,
    }
}

impl Opened {
    /// Its rows, for `table`.
    pub fn pieces(self, table: TableId) -> Result<Pieces, CliError> {
        let (format, taken) = (self.format, self.taken);
        let path = self.args.file.clone();
        let doubted = move |error| doubted(error, &path, format, taken);
        let pieces = match format {
            InputFormat::Json => Ok(json::pieces(self.reader, self.args.file, table)),
            InputFormat::Csv => csv::pieces(self.reader, self.args.file, table),
            InputFormat::Arrow => arrow::ipc(self.reader, self.args.file, table),
            InputFormat::Parquet => arrow::parquet(self.reader, self.args.file, table),
        };
        let pieces = pieces.map_err(&doubted)?;
        Ok(Box::new(pieces.map(move |piece| piece.map_err(&doubted))))
    }

    /// Its lines.
    pub fn lines(self) -> impl BufRead + Send + 'static {
        self.reader
    }
}

/// The error, which may come from taking the file for something that it is not: then it says so.
fn doubted(error: CliError, path: &Path, format: InputFormat, taken: Taken) -> CliError {
    let is_of_reading = matches!(error, CliError::Input { .. } | CliError::InputAt { .. });
    match is_of_reading && taken != Taken::Said {
        false => error,
        true => CliError::TakenFor {
            path: path.to_owned(),
            format: format.name(),
            why: taken.why(format),
            source: Box::new(error),
        },
    }
}

/// A row that has its key, which tables are put together by. `place` says which row it is.
pub fn keyed(
    table: TableId,
    row: Map<String, Value>,
    path: &Path,
    place: impl FnOnce() -> String,
) -> Result<Map<String, Value>, CliError> {
    let key = table.key();
    let why = match row.get(key) {
        Some(Value::String(_)) => return Ok(row),
        None if row.contains_key("ops") || row.contains_key("do") => {
            "this is a transaction and no row: sherwood apply takes it".to_owned()
        }
        None => format!("a row of {} needs {key:?}, its key", table.name()),
        Some(other) => format!(
            "{key:?} is the key of {}, and has to be text: it is {other}",
            table.name()
        ),
    };
    Err(CliError::Row {
        path: path.to_owned(),
        place: place(),
        why,
    })
}

/// What is wrong with JSON, and where: serde_json says it in one sentence.
fn not_json(path: &Path, error: &serde_json::Error) -> CliError {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let why = text.strip_suffix(&format!(" at line {line} column {column}"));
    CliError::InputAt {
        path: path.to_owned(),
        place: format!("line {line}, column {column}"),
        why: why.unwrap_or(&text).to_owned(),
    }
}

/// Everything that is left of `reader`.
pub fn read_all(mut reader: impl Read, path: &Path) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    reader
        .read_to_end(&mut bytes)
        .map_err(|source| CliError::Input {
            path: path.to_owned(),
            source: source.into(),
        })?;
    Ok(bytes)
}
