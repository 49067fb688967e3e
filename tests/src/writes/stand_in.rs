//! A small store to try the crash tests on: rows in memory, a log of JSON lines, one lock.
//!
//! It is what a daemon would be if nothing had to be fast, and it can be told to err as daemons do
//! ([`How`]): so the harness is seen to find lost and torn writes, and to be content without.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::model::Model;
use super::transaction::{Answer, Op, Rows, Transaction};
use super::way::{Store, Way};

/// How it keeps its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Synced before the answer: nothing is wrong with it.
    Synced,
    /// Given to the kernel before the answer: a power cut loses acknowledged transactions.
    NotSynced,
    /// Kept in the process for a few transactions: a kill loses acknowledged ones.
    Buffered,
    /// Each operation a record of its own, synced: a crash leaves half a transaction.
    Torn,
    /// Outcomes are not logged: after a crash a retry is applied again.
    Forgetful,
}

impl How {
    const ALL: [Self; 5] = [
        Self::Synced,
        Self::NotSynced,
        Self::Buffered,
        Self::Torn,
        Self::Forgetful,
    ];

    fn name(self) -> String {
        format!("{self:?}")
    }
}

/// The process's side: `DIRECTORY SOCKET HOW KEY=NUMBER...`.
///
/// # Errors
///
/// The arguments are no good, or a file cannot be used.
pub fn serve(mut words: impl Iterator<Item = String>) -> Result<(), String> {
    let mut word = |what: &str| words.next().ok_or_else(|| format!("{what} is missing"));
    let (directory, socket, how) = (word("a directory")?, word("a socket")?, word("how")?);
    let how = How::ALL.into_iter().find(|known| known.name() == how);
    let how = how.ok_or("there is no such way to keep a log")?;
    let rows = words.map(|word| {
        let (key, number) = word.split_once('=')?;
        Some((key.to_owned(), number.parse().ok()?))
    });
    let rows: Option<Rows> = rows.collect();
    let text = |error: std::io::Error| error.to_string();
    let log = Log::open(Path::new(&directory), how, rows.ok_or("no row")?).map_err(text)?;
    let log = Arc::new(Mutex::new(log));
    let _not_there = std::fs::remove_file(&socket);
    for stream in UnixListener::bind(&socket).map_err(text)?.incoming() {
        let (stream, log) = (stream.map_err(text)?, Arc::clone(&log));
        thread::spawn(move || {
            let Ok(mut out) = stream.try_clone() else {
                return;
            };
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let asked = serde_json::from_str(&line).unwrap_or_default();
                let said = log
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .answer(&asked);
                if writeln!(out, "{said}").is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}

struct Log {
    model: Model,
    file: File,
    how: How,
    buffer: Vec<u8>,
}

impl Log {
    fn open(directory: &Path, how: How, rows: Rows) -> std::io::Result<Self> {
        let path = directory.join("log");
        let mut model = Model::new(rows);
        let mut whole = 0;
        if let Ok(bytes) = std::fs::read(&path) {
            for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                let logged = serde_json::from_slice(line).unwrap_or_default();
                let Some(transaction) = Transaction::from_json(&logged) else {
                    break; // the torn end
                };
                model.submit(&transaction, None);
                whole += line.len() as u64;
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        file.set_len(whole)?;
        file.sync_all()?;
        File::open(directory)?.sync_all()?;
        Ok(Self {
            model,
            file,
            how,
            buffer: Vec::new(),
        })
    }

    fn answer(&mut self, asked: &Value) -> Value {
        if let Some(key) = asked["look"].as_str() {
            return json!({"number": self.model.rows().get(key)});
        }
        if asked["rows"] == true {
            return json!({"generation": self.model.generation(), "rows": self.model.rows()});
        }
        let Some(transaction) = Transaction::from_json(asked) else {
            return json!({"outcome": "refused", "reason": "this is no transaction"});
        };
        let before = self.model.generation();
        let answer = self.model.submit(&transaction, None);
        let is_new = !matches!(answer, Answer::Done(generation) if generation <= before);
        let kept = if is_new {
            self.keep(&transaction)
        } else {
            Ok(())
        };
        match kept {
            Ok(()) => answer.to_json(&transaction.id),
            Err(error) => {
                // Nobody may see what is not on the disk: as a daemon does after a failed sync.
                eprintln!("{error}");
                std::process::exit(1)
            }
        }
    }

    fn keep(&mut self, transaction: &Transaction) -> std::io::Result<()> {
        match self.how {
            How::Synced => self.write(transaction)?,
            How::NotSynced => return self.write(transaction),
            How::Buffered => {
                writeln!(self.buffer, "{}", transaction.to_json())?;
                if self.buffer.len() < 2000 {
                    return Ok(());
                }
                let all = std::mem::take(&mut self.buffer);
                self.file.write_all(&all)?;
            }
            How::Torn => {
                for (part, op) in transaction.ops.iter().enumerate() {
                    let op: Op = op.clone();
                    // The first part carries the id and the conditions, so that a refused one leaves nothing.
                    let first = part == 0;
                    let one = Transaction {
                        id: match first {
                            true => transaction.id.clone(),
                            false => format!("{}+{part}", transaction.id),
                        },
                        conditions: match first {
                            true => transaction.conditions.clone(),
                            false => Vec::new(),
                        },
                        ops: vec![op],
                    };
                    self.write(&one)?;
                    self.file.sync_data()?;
                }
            }
            How::Forgetful => {
                let mut unknown = transaction.clone();
                unknown.id = format!("forgotten {}", transaction.id);
                self.write(&unknown)?;
            }
        }
        self.file.sync_data()
    }

    fn write(&mut self, transaction: &Transaction) -> std::io::Result<()> {
        self.file
            .write_all(format!("{}\n", transaction.to_json()).as_bytes())
    }
}

/// The tests' side.
#[derive(Debug)]
pub struct StandIn {
    binary: PathBuf,
    directory: PathBuf,
    socket: PathBuf,
    how: How,
    rows: Rows,
    child: Option<Child>,
}

impl StandIn {
    /// One that keeps its log in a directory. It does not run yet.
    #[must_use]
    pub fn new(directory: &Path, socket: &Path, how: How, rows: Rows) -> Self {
        Self {
            binary: crate::daemon::binary("test_stand_in"),
            directory: directory.to_owned(),
            socket: socket.to_owned(),
            how,
            rows,
            child: None,
        }
    }

    fn line(&self) -> Result<Line, String> {
        Line::open(&self.socket).map_err(|error| error.to_string())
    }
}

impl Store for StandIn {
    fn start(&mut self) -> Result<(), String> {
        self.kill();
        let _not_there = std::fs::remove_file(&self.socket);
        let rows = self
            .rows
            .iter()
            .map(|(key, number)| format!("{key}={number}"));
        let child = Command::new(&self.binary)
            .arg(&self.directory)
            .arg(&self.socket)
            .arg(self.how.name())
            .args(rows)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.map_err(|error| error.to_string())?);
        Ok(())
    }

    fn ready(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        while self.line().is_err() {
            let child = self.child.as_mut().ok_or("it was not started")?;
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!("it ended with {status}"));
            }
            if begun.elapsed() > crate::daemon::LONG {
                return Err("it does not serve".to_owned());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn is_alive(&mut self) -> bool {
        let child = self.child.as_mut();
        child.is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    fn freeze(&mut self) {
        if let Some(child) = &mut self.child
            && matches!(child.try_wait(), Ok(None))
            && let Ok(pid) = i32::try_from(child.id())
        {
            let _ended_just_now = kill(Pid::from_raw(pid), Signal::SIGSTOP);
        }
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ended_already = child.kill();
            let _reaped_already = child.wait();
        }
    }

    fn way(&self) -> Result<Box<dyn Way>, String> {
        Ok(Box::new(self.line()?))
    }

    fn rows(&self) -> Result<(u64, Rows), String> {
        let said = self.line()?.say(&json!({"rows": true}))?;
        let rows = serde_json::from_value(said["rows"].clone());
        let rows = rows.map_err(|error| error.to_string())?;
        Ok((said["generation"].as_u64().ok_or("no generation")?, rows))
    }

    fn forget_memory(&mut self) {}
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A connection: a line asks, a line answers.
struct Line {
    out: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Line {
    fn open(socket: &Path) -> std::io::Result<Self> {
        let out = UnixStream::connect(socket)?;
        let lines = BufReader::new(out.try_clone()?);
        Ok(Self { out, lines })
    }

    fn say(&mut self, asked: &Value) -> Result<Value, String> {
        let mut said = String::new();
        writeln!(self.out, "{asked}")
            .and_then(|()| self.lines.read_line(&mut said))
            .map_err(|error| error.to_string())?;
        serde_json::from_str(&said).map_err(|error| format!("{said:?}: {error}"))
    }
}

impl Way for Line {
    fn ask(&mut self, transaction: &Transaction) -> Answer {
        match self.say(&transaction.to_json()) {
            Ok(said) => Answer::from_json(&said),
            Err(error) => Answer::Unknown(error),
        }
    }

    fn look(&mut self, key: &str) -> Result<Option<i64>, String> {
        Ok(self.say(&json!({"look": key}))?["number"].as_i64())
    }
}
