//! `sherwood put`: rows from a file.

use std::io::Write;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value};
use sherwood_client::TableId;
use sherwood_client::write::{Key, Mode, Outcome, Row, Transaction, Writer};

use crate::args::{AnswerFormat, PutArgs, WriteArgs};
use crate::connect;
use crate::error::CliError;
use crate::input::{self, Piece, Pieces};
use crate::output;
use sherwood_client::find::Places;

/// Runs it.
pub fn run(places: &Places, args: &PutArgs) -> Result<(), CliError> {
    let writer = connect::writer(places, args.write.timeout)?;
    let table = TableId::from(args.table);
    let pieces = input::open(&args.input)?.pieces(table)?;
    let mut sender = Sender::new(&writer, &args.write);
    sender.send(table, Mode::Put, pieces)?;
    sender.end()
}

/// Sends pieces, one transaction each, and counts.
pub struct Sender<'a> {
    writer: &'a Writer,
    args: &'a WriteArgs,
    /// Of the next piece.
    number: u64,
    rows: u64,
    newest: Option<u64>,
    progress: ProgressBar,
}

impl<'a> Sender<'a> {
    pub fn new(writer: &'a Writer, args: &'a WriteArgs) -> Self {
        // Shown on stderr, and only if that is a terminal.
        let progress = ProgressBar::new_spinner();
        let style = "{spinner} {msg}{human_pos} rows, {per_sec}, {elapsed}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            progress.set_style(style);
        }
        Self {
            writer,
            args,
            number: 0,
            rows: 0,
            newest: None,
            progress,
        }
    }

    /// Sends all pieces, and stops at the first that is not done.
    pub fn send(&mut self, table: TableId, mode: Mode, pieces: Pieces) -> Result<(), CliError> {
        self.progress.set_message(format!("{}: ", table.name()));
        let sent = self.send_each(table, mode, pieces);
        if sent.is_err() && self.rows > 0 {
            self.progress.finish_and_clear();
            let text = format!("{} before this piece are in", rows(self.rows));
            output::say("note", &text);
        }
        sent
    }

    fn send_each(&mut self, table: TableId, mode: Mode, pieces: Pieces) -> Result<(), CliError> {
        for piece in pieces {
            let piece = piece?;
            let rows = piece.rows() as u64;
            match piece {
                Piece::Arrow(batches) => {
                    let id = self.next_id();
                    let outcome = self.writer.bulk(table, mode, &batches, id)?;
                    self.count(rows, outcome)?;
                }
                Piece::Text(columns) => {
                    let mut transaction = Transaction::new();
                    for columns in columns {
                        transaction = with(transaction, table, mode, columns)?;
                    }
                    self.apply(transaction, rows)?;
                }
            }
        }
        Ok(())
    }

    /// Applies one transaction, of so many rows, under the next id.
    pub fn apply(&mut self, mut transaction: Transaction, rows: u64) -> Result<(), CliError> {
        if let Some(id) = self.next_id() {
            transaction = transaction.id(id);
        }
        let outcome = self.writer.apply(transaction)?;
        self.count(rows, outcome)
    }

    fn count(&mut self, rows: u64, outcome: Outcome) -> Result<(), CliError> {
        let generation = outcome.done()?.generation;
        self.newest = Some(generation);
        self.rows += rows;
        self.progress.inc(rows);
        Ok(())
    }

    /// Says what was done.
    pub fn end(self) -> Result<(), CliError> {
        self.progress.finish_and_clear();
        let mut out = output::stdout();
        let rows = rows(self.rows);
        match (self.args.output, self.newest) {
            (AnswerFormat::Json, newest) => {
                let answer = serde_json::json!({
                    "outcome": "done", "generation": newest, "rows": self.rows, "transactions": self.number,
                });
                writeln!(out, "{answer}")?;
            }
            (AnswerFormat::Text, Some(generation)) if self.number > 1 => writeln!(
                out,
                "{rows} done in {} transactions, the last in generation {generation}",
                self.number
            )?,
            (AnswerFormat::Text, Some(generation)) => {
                writeln!(out, "{rows} done in generation {generation}")?;
            }
            (AnswerFormat::Text, None) => writeln!(out, "no rows")?,
        }
        Ok(out.flush()?)
    }

    /// `ID`, `ID-2`, `ID-3`.
    fn next_id(&mut self) -> Option<String> {
        self.number += 1;
        let id = self.args.id.as_ref()?;
        Some(match self.number {
            1 => id.clone(),
            number => format!("{id}-{number}"),
        })
    }
}

fn rows(number: u64) -> String {
    format!("{number} row{}", if number == 1 { "" } else { "s" })
}

/// One more row in a transaction.
fn with(
    transaction: Transaction,
    table: TableId,
    mode: Mode,
    mut columns: Map<String, Value>,
) -> Result<Transaction, CliError> {
    if mode == Mode::Put {
        return Ok(transaction.put(Row { table, columns }));
    }
    let name = table.key();
    let key = match columns.shift_remove(name) {
        Some(Value::String(key)) => Key::of(table, key),
        _ => {
            let usage = format!("a row without {name:?}, which says what to change: {columns:?}");
            return Err(CliError::Usage(usage));
        }
    };
    Ok(match mode {
        Mode::Patch => {
            let patch = columns
                .into_iter()
                .fold(key.patch(), |patch, (column, value)| {
                    patch.set(column, value)
                });
            transaction.patch(patch)
        }
        _ => transaction.delete(key),
    })
}
