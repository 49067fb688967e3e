//! What everybody wrote: changes from a generation on, once each and in order.
//!
//! A connection that breaks is made anew, from the last generation that was handed out; a change that comes twice
//! is handed out once, and whole, in however many messages it comes. The daemon cuts off a watcher that does not keep up; it then goes on where it was, as long as
//! the daemon keeps the changes, and ends with [`WriteError::Gone`] after that: never with a gap.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arrow_flight::Action;
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, stream};
use serde_json::{Map, Value, json};
use sherwood_shared::schema::TableId;
use sherwood_shared::transaction::Target;
use tokio::time::sleep;
use tonic::{Code, Status, Streaming};

use super::address::Address;
use super::connection::{self, Backoff, Failure};
use super::error::WriteError;

const CALL: &str = "watch";

/// One commit's effects: one generation.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The generation they made.
    pub generation: u64,
    /// When, where the daemon said so.
    pub at: Option<SystemTime>,
    /// A key at most once in a table. None, if the commit touched only other tables than those watched.
    pub ops: Vec<ChangeOp>,
}

/// What happened to one row.
#[derive(Clone, Debug, PartialEq)]
pub enum ChangeOp {
    /// It is there, and these columns have these values; columns that are left out are as they were, or null in a
    /// row that is new.
    Put {
        /// Of which table, or the cluster.
        table: Target,
        /// Key and columns.
        row: Map<String, Value>,
    },
    /// It is gone.
    Delete {
        /// Of which table.
        table: TableId,
        /// Its key.
        key: String,
    },
}

/// Changes as they come. Reconnects by itself; ends with its first error.
#[derive(Debug)]
pub struct AsyncChanges {
    address: Address,
    tables: Vec<&'static str>,
    /// The last generation that was handed out, or that the caller knows.
    seen: u64,
    stream: Option<Lines>,
    /// To connect again. It outlives a caller that waits for less long than that takes.
    attempt: Option<Attempt>,
    ready: VecDeque<Change>,
    /// The beginning of a change that comes in several messages.
    partial: Option<Change>,
    backoff: Backoff,
}

/// Opens the stream.
pub(super) async fn watch(
    address: Address,
    from: u64,
    tables: &[TableId],
) -> Result<AsyncChanges, WriteError> {
    let mut changes = AsyncChanges {
        address,
        tables: tables.iter().map(|table| table.name()).collect(),
        seen: from,
        stream: None,
        attempt: None,
        ready: VecDeque::new(),
        partial: None,
        backoff: Backoff::default(),
    };
    let opened = open(changes.address.clone(), changes.wanted());
    let stream = opened.await.map_err(|failure| match failure {
        Opening::Failed(error) => error,
        Opening::Status(status) => classify(status),
    })?;
    changes.stream = Some(stream);
    Ok(changes)
}

type Lines = Streaming<arrow_flight::Result>;

enum Opening {
    Failed(WriteError),
    Status(Status),
}

/// A pause and then an attempt. In a lock that nobody takes, so that what holds it is `Sync`.
struct Attempt(Mutex<BoxFuture<'static, Result<Lines, Opening>>>);

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Attempt")
    }
}

async fn open(address: Address, wanted: String) -> Result<Lines, Opening> {
    let client = connection::open(&address).await;
    let mut client = client.map_err(Opening::Failed)?;
    let call = client.do_action(Action::new(CALL, wanted));
    call.await
        .map(tonic::Response::into_inner)
        .map_err(Opening::Status)
}

impl AsyncChanges {
    /// The next change. Waits for as long as nothing changes, and while there is no daemon.
    ///
    /// **Cancel-safe**: a change that was not returned is returned by the next call.
    ///
    /// # Errors
    ///
    /// [`WriteError::Gone`]: read the state, and watch from its generation. [`WriteError::Denied`]. Nothing comes
    /// after an error.
    pub async fn next(&mut self) -> Result<Change, WriteError> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                self.seen = change.generation;
                return Ok(change);
            }
            let Some(stream) = &mut self.stream else {
                self.reopen().await?;
                continue;
            };
            match stream.message().await {
                Ok(Some(line)) => {
                    self.backoff.reset();
                    self.take(&line.body)?;
                }
                Ok(None) => self.cut(),
                Err(status) if Failure::of(&status) == Failure::Broken => self.cut(),
                Err(status) => match classify(status) {
                    // Cut off for being slow, and the daemon still has what comes next.
                    WriteError::Gone { oldest: Some(from) } if from <= self.seen => self.cut(),
                    error => return Err(error),
                },
            }
        }
    }

    /// The same as a stream, which ends after its first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Change, WriteError>> {
        stream::unfold(Some(self), |changes| async {
            let mut changes = changes?;
            match changes.next().await {
                Ok(change) => Some((Ok(change), Some(changes))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// The rest of what came in part comes again, whole.
    fn cut(&mut self) {
        self.stream = None;
        self.partial = None;
    }

    async fn reopen(&mut self) -> Result<(), WriteError> {
        let wanted = self.wanted();
        let attempt = self.attempt.get_or_insert_with(|| {
            let pause = self.backoff.next();
            let opened = open(self.address.clone(), wanted);
            let after = async move {
                sleep(pause).await;
                opened.await
            };
            Attempt(Mutex::new(after.boxed()))
        });
        let attempt = attempt.0.get_mut();
        let opened = attempt.unwrap_or_else(PoisonError::into_inner).await;
        self.attempt = None;
        match opened {
            Ok(stream) => self.stream = Some(stream),
            // The daemon may come back.
            Err(Opening::Failed(WriteError::Connect { .. } | WriteError::NotServed { .. })) => {}
            Err(Opening::Failed(error)) => return Err(error),
            Err(Opening::Status(status)) if Failure::of(&status) == Failure::Broken => {}
            Err(Opening::Status(status)) => return Err(classify(status)),
        }
        Ok(())
    }

    /// What to ask for.
    fn wanted(&self) -> String {
        let mut body = json!({ "from": self.seen });
        if !self.tables.is_empty() {
            body["tables"] = json!(self.tables);
        }
        body.to_string()
    }

    fn take(&mut self, body: &[u8]) -> Result<(), WriteError> {
        for line in body.split(|byte| *byte == b'\n') {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let (part, more) = parse(line).map_err(|why| WriteError::Answer { call: CALL, why })?;
            let change = match self.partial.take() {
                Some(mut change) if change.generation == part.generation => {
                    change.ops.extend(part.ops);
                    change
                }
                _ => part,
            };
            let last = self.ready.back().map_or(self.seen, |last| last.generation);
            if more {
                self.partial = Some(change);
            } else if change.generation > last {
                self.ready.push_back(change);
            }
        }
        Ok(())
    }
}

fn classify(status: Status) -> WriteError {
    let status = Box::new(status);
    match status.code() {
        Code::OutOfRange => WriteError::Gone {
            oldest: number_in(status.message()),
        },
        _ if Failure::of(&status) == Failure::Denied => WriteError::Denied { status },
        _ => WriteError::Call { call: CALL, status },
    }
}

/// The number in `gone, read from N: why`.
fn number_in(message: &str) -> Option<u64> {
    let (_, rest) = message.split_once("read from ")?;
    let end = rest
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

/// A change or a part of one, and whether more of it follows.
fn parse(line: &[u8]) -> Result<(Change, bool), String> {
    let value: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let generation = value["generation"]
        .as_u64()
        .ok_or("a change without a generation")?;
    let at = value["at"]
        .as_u64()
        .and_then(|at| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(at)));
    let more = value["more"].as_bool().unwrap_or(false);
    let ops = match value {
        Value::Object(mut fields) => fields.remove("ops"),
        _ => None,
    };
    let Some(Value::Array(ops)) = ops else {
        return Err(format!("generation {generation} has no list of operations"));
    };
    let ops = ops.into_iter().map(op).collect::<Result<_, _>>()?;
    let change = Change {
        generation,
        at,
        ops,
    };
    Ok((change, more))
}

fn op(mut op: Value) -> Result<ChangeOp, String> {
    let unknown = |op: &Value| format!("{op} is no change of a row");
    if let Some(table) = op["put"].as_str() {
        let table = match table {
            "cluster" => Target::Cluster,
            name => Target::Table(TableId::from_name(name).ok_or_else(|| unknown(&op))?),
        };
        return match op["row"].take() {
            Value::Object(row) => Ok(ChangeOp::Put { table, row }),
            _ => Err(unknown(&op)),
        };
    }
    let table = op["delete"].as_str().and_then(TableId::from_name);
    match (table, op["key"].as_str()) {
        (Some(table), Some(key)) => Ok(ChangeOp::Delete {
            table,
            key: key.to_owned(),
        }),
        _ => Err(unknown(&op)),
    }
}
