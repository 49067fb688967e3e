//! `sherwood apply`: transactions, one a line, answered one a line.
//!
//! Lines are sent ahead while their answers are under way; an answer is printed as soon as there is no further line
//! to send, so that a program may write a line and wait for its answer. A line that is no transaction is answered too,
//! as refused, in its turn: each line stands for itself, and those behind it are applied.

use std::collections::VecDeque;
use std::io::{BufRead, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;

use sherwood_client::TableId;
use sherwood_client::write::{
    DomainOp, Operation, Outcome, PendingWrite, Transaction, WriteError, Writer,
};
use sherwood_shared::transaction::{self as form, OutcomeKind};

use crate::args::{AnswerFormat, ApplyArgs, InputFormat, WriteArgs};
use crate::commands::put::Sender;
use crate::connect;
use crate::error::CliError;
use crate::input;
use crate::output;
use sherwood_client::find::Places;

/// Transactions that are sent before the first is answered.
const AHEAD: usize = 128;
/// Bytes of the longest line: more than any daemon takes.
const LONGEST_LINE: u64 = 64 << 20;

/// Runs it.
pub fn run(places: &Places, args: &ApplyArgs) -> Result<(), CliError> {
    let writer = connect::writer(places, args.timeout)?;
    let opened = input::open(&args.input)?;
    if let Some(table) = args.table {
        let table = TableId::from(table);
        let write = WriteArgs {
            id: None,
            timeout: args.timeout,
            output: AnswerFormat::Json,
        };
        let mut sender = Sender::new(&writer, &write);
        sender.send(table, args.mode.into(), opened.pieces(table)?)?;
        return sender.end();
    }
    if opened.format != InputFormat::Json {
        let usage = "this file holds rows and not transactions: say of which table with --table";
        return Err(CliError::Usage(usage.to_owned()));
    }
    let path = args.input.file.clone();
    let lines = read_ahead(opened.lines(), &path);
    let mut answers = Answers::default();
    let sent = answers.apply(&writer, &lines);
    answers.drain();
    answers.end(sent, path)
}

/// Reads on another thread, which ends with the input or with this program.
fn read_ahead(
    mut lines: impl BufRead + Send + 'static,
    path: &Path,
) -> Receiver<Result<Vec<u8>, CliError>> {
    let (sender, receiver) = sync_channel(AHEAD);
    let path = path.to_owned();
    thread::spawn(move || {
        loop {
            let mut line = Vec::new();
            let mut limited = std::io::Read::take(&mut lines, LONGEST_LINE);
            let read = match limited.read_until(b'\n', &mut line) {
                Ok(0) => return,
                Ok(_) => Ok(line),
                Err(source) => Err(CliError::Input {
                    path: path.clone(),
                    source: source.into(),
                }),
            };
            let failed = read.is_err();
            if sender.send(read).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

/// What was answered so far, and what is under way.
#[derive(Default)]
struct Answers {
    pending: VecDeque<Line>,
    /// Lines read.
    lines: u64,
    answers: u64,
    refused: u64,
    unknown: u64,
    /// What went wrong first. The answers that are under way are waited for all the same.
    failed: Option<CliError>,
    /// Nobody reads the answers. What is under way is waited for and counted; no further line is sent.
    unread: bool,
}

/// A line that has an answer to come.
enum Line {
    Sent(PendingWrite),
    /// Is none that could be sent.
    Bad(form::Answer),
}

impl Answers {
    /// Sends all lines, as long as all goes well. What is under way at the end is left to [`drain`](Self::drain).
    fn apply(
        &mut self,
        writer: &Writer,
        lines: &Receiver<Result<Vec<u8>, CliError>>,
    ) -> Result<(), CliError> {
        while self.failed.is_none() && !self.unread {
            let line = match lines.try_recv() {
                Ok(line) => line?,
                Err(TryRecvError::Empty) => match self.pending.pop_front() {
                    Some(first) => {
                        self.take(first);
                        continue;
                    }
                    None => match lines.recv() {
                        Ok(line) => line?,
                        Err(_) => break,
                    },
                },
                Err(TryRecvError::Disconnected) => break,
            };
            self.lines += 1;
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let line = match parse(&line) {
                Ok(operation) => Line::Sent(writer.submit(operation)?),
                Err(why) => Line::Bad(bad(&line, self.lines, &why)),
            };
            self.pending.push_back(line);
            if self.pending.len() >= AHEAD
                && let Some(first) = self.pending.pop_front()
            {
                self.take(first);
            }
        }
        Ok(())
    }

    fn drain(&mut self) {
        while let Some(first) = self.pending.pop_front() {
            self.take(first);
        }
    }

    /// Waits for one answer, counts it and prints it.
    fn take(&mut self, line: Line) {
        let answer = match line {
            Line::Bad(answer) => answer,
            Line::Sent(pending) => {
                let id = pending.id().to_owned();
                match pending.wait() {
                    Ok(outcome) => outcome.to_answer(&id),
                    // Nothing of it was sent; so it is for those behind it, maybe.
                    Err(error @ (WriteError::Unreachable { .. } | WriteError::Denied { .. })) => {
                        self.failed.get_or_insert(error.into());
                        return;
                    }
                    Err(error) => {
                        let reason = error.to_string();
                        let outcome = Outcome::Unknown {
                            id: id.clone(),
                            reason,
                        };
                        outcome.to_answer(&id)
                    }
                }
            }
        };
        self.answers += 1;
        match answer.outcome {
            OutcomeKind::Done => {}
            OutcomeKind::Refused => self.refused += 1,
            OutcomeKind::Unknown => self.unknown += 1,
        }
        match print(&answer) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => self.unread = true,
            Err(error) => {
                self.failed.get_or_insert(error.into());
            }
        }
    }

    /// The worst decides: what may have been applied, then what ended it early, then what was refused.
    fn end(self, sent: Result<(), CliError>, path: PathBuf) -> Result<(), CliError> {
        let counted = match self.refused + self.unknown {
            0 => None,
            _ => Some(CliError::NotAllDone {
                answers: self.answers,
                refused: self.refused,
                unknown: self.unknown,
            }),
        };
        let unread = self.unread.then_some(CliError::Unread {
            path,
            lines: self.lines,
        });
        match (sent.err().or(self.failed).or(unread), counted) {
            (None, None) => Ok(()),
            (None, Some(only)) | (Some(only), None) => Err(only),
            (Some(ended), Some(counted)) if self.unknown > 0 => {
                output::complain("error", &ended);
                Err(counted)
            }
            (Some(ended), Some(counted)) => {
                output::complain("error", &counted);
                Err(ended)
            }
        }
    }
}

fn print(answer: &form::Answer) -> std::io::Result<()> {
    let mut out = output::stdout();
    writeln!(out, "{}", answer.to_json())?;
    out.flush()
}

/// A transaction or a domain operation.
fn parse(line: &[u8]) -> Result<Operation, String> {
    let text = |error: form::FormError| error.to_string();
    let mut object = form::object(line).map_err(text)?;
    match object.shift_remove("do") {
        Some(action) if action != "transaction" => {
            let action = action.as_str().unwrap_or_default();
            let (id, op) = DomainOp::from_object(action, object).map_err(text)?;
            Ok(Operation::Domain { id, op })
        }
        _ => {
            let transaction = form::Transaction::from_object(object).map_err(text)?;
            Ok(Transaction::from(transaction).into())
        }
    }
}

/// The answer to a line that is none of both, with its id where that much of it can be read.
fn bad(line: &[u8], number: u64, why: &str) -> form::Answer {
    let object = form::object(line).ok();
    let id = object
        .as_ref()
        .and_then(|object| object.get("id")?.as_str());
    form::Answer {
        id: id.map(str::to_owned),
        outcome: OutcomeKind::Refused,
        generation: None,
        reason: Some(format!("line {number}: {why}")),
        task: None,
    }
}
