//! Rows from files: JSON, Arrow, Parquet or CSV, in pieces that the daemon takes as one transaction each.
//!
//! What a file is goes by what was said, else by its name, else by its first bytes. JSON and CSV are read as they
//! come, so a pipe works; Parquet has its index at the end, so standard input is read whole for it.

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

/// Pieces, in the file's order, and none after an error.
pub type Pieces = Box<dyn Iterator<Item = Result<Piece, CliError>>>;

/// An opened file, its first bytes looked at.
pub struct Opened {
    /// As it was given.
    pub args: FileArgs,
    /// What it is.
    pub format: InputFormat,
    reader: Box<dyn BufRead + Send>,
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
    let format = match args.format.or_else(|| by_name(&args.file)) {
        Some(format) => format,
        None => by_content(reader.fill_buf().map_err(failed)?),
    };
    Ok(Opened {
        args: args.clone(),
        format,
        reader,
    })
}

fn by_name(path: &Path) -> Option<InputFormat> {
    match path.extension()?.to_str()? {
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
        match self.format {
            InputFormat::Json => Ok(json::pieces(self.reader, self.args.file)),
            InputFormat::Csv => csv::pieces(self.reader, self.args.file, table),
            InputFormat::Arrow => arrow::ipc(self.reader, self.args.file, table),
            InputFormat::Parquet => arrow::parquet(self.reader, self.args.file, table),
        }
    }

    /// Its lines.
    pub fn lines(self) -> impl BufRead + Send {
        self.reader
    }

    /// All of it that was not read yet.
    pub fn text(self) -> Result<Vec<u8>, CliError> {
        read_all(self.reader, &self.args.file)
    }
}

/// Everything that is left of `reader`.
fn read_all(mut reader: impl Read, path: &Path) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    reader
        .read_to_end(&mut bytes)
        .map_err(|source| CliError::Input {
            path: path.to_owned(),
            source: source.into(),
        })?;
    Ok(bytes)
}
