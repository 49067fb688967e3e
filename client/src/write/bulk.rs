//! Many rows in one transaction, over DoPut.
//!
//! All of it is encoded before the first byte is sent. A stream that ended early because a batch could not be
//! encoded would look whole to the daemon, and be applied in part.

use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::{FlightData, FlightDescriptor};
use arrow_schema::{ArrowError, SchemaRef};
use futures::{TryStreamExt, stream};
use serde_json::{Map, json};
use sherwood_shared::schema::{TableId, table_schema};
use sherwood_shared::transaction::Answer;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::Status;

use super::address::Address;
use super::build::new_id;
use super::connection::{self, Backoff, Client, Failure};
use super::error::WriteError;
use super::outcome::Outcome;
use super::pipeline::chain;

/// What a bulk put does with its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Makes rows, or replaces them.
    Put,
    /// Sets the columns that are there, in rows that have to be there.
    Patch,
    /// Deletes rows, which have to be there.
    Delete,
}

impl Mode {
    /// `put`, `patch` or `delete`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }
}

/// A put, ready to be sent any number of times.
#[derive(Debug)]
pub(super) struct Put<'a> {
    id: String,
    descriptor: FlightDescriptor,
    schema: SchemaRef,
    batches: &'a [RecordBatch],
}

impl<'a> Put<'a> {
    pub(super) fn new(
        table: TableId,
        mode: Mode,
        batches: &'a [RecordBatch],
        id: Option<String>,
    ) -> Result<Self, WriteError> {
        let id = id.unwrap_or_else(new_id);
        let schema = match batches.first() {
            Some(first) => first.schema(),
            None => table_schema(table),
        };
        if let Some(other) = batches.iter().find(|batch| batch.schema() != schema) {
            return Err(WriteError::Encode(ArrowError::SchemaError(format!(
                "batches of one put have different schemas: {schema} and {}",
                other.schema()
            ))));
        }
        let command = Map::from_iter([
            (mode.name().to_owned(), json!(table.name())),
            ("id".to_owned(), json!(id)),
        ]);
        let command = serde_json::Value::Object(command).to_string();
        Ok(Self {
            id,
            descriptor: FlightDescriptor::new_cmd(command),
            schema,
            batches,
        })
    }

    async fn encode(&self) -> Result<Vec<FlightData>, WriteError> {
        // Cheap: arrays are shared.
        let batches = self.batches.to_vec();
        FlightDataEncoderBuilder::new()
            .with_schema(self.schema.clone())
            .with_flight_descriptor(Some(self.descriptor.clone()))
            .build(stream::iter(batches.into_iter().map(Ok)))
            .try_collect()
            .await
            .map_err(|error| match error {
                FlightError::Arrow(error) => WriteError::Encode(error),
                other => WriteError::Encode(ArrowError::ExternalError(Box::new(other))),
            })
    }
}

/// How one attempt ended.
enum End {
    Settled(Outcome),
    Failed(Status),
    Broken(String),
}

/// Sends it until it is settled or the deadline passes.
pub(super) async fn run(
    address: &Address,
    connection: &Mutex<Option<Client>>,
    put: &Put<'_>,
    deadline: Duration,
) -> Result<Outcome, WriteError> {
    let messages = put.encode().await?;
    let now = Instant::now();
    let until = now
        .checked_add(deadline)
        .unwrap_or(now + Duration::from_secs(86_400 * 365));
    let mut backoff = Backoff::default();
    // An earlier attempt may have been applied.
    let mut is_doubtful = false;
    let mut found_no_room = false;
    let mut last = "the daemon did not answer".to_owned();
    loop {
        let mut is_sent = false;
        let attempt = async {
            let client = connection::kept(address, connection).await;
            let client = match client {
                Ok(client) => client,
                Err(error) => return End::Broken(chain(&error)),
            };
            is_sent = true;
            send(client, &put.id, messages.clone()).await
        };
        let end = timeout_at(until, attempt).await;
        let unknown = |reason: String| {
            Ok(Outcome::Unknown {
                id: put.id.clone(),
                reason,
            })
        };
        let refused = |reason: String| {
            Ok(Outcome::Refused {
                reason,
                generation: None,
            })
        };
        match end {
            Ok(End::Settled(outcome)) => return Ok(outcome),
            Ok(End::Broken(reason)) => {
                is_doubtful |= is_sent;
                last = reason;
            }
            Ok(End::Failed(status)) => {
                let reason = status.message().to_owned();
                match Failure::of(&status) {
                    Failure::Broken => {
                        is_doubtful = true;
                        last = reason;
                    }
                    Failure::Busy => {
                        found_no_room = true;
                        last = reason;
                    }
                    Failure::Denied | Failure::Final if is_doubtful => return unknown(reason),
                    Failure::Denied => {
                        let status = Box::new(status);
                        return Err(WriteError::Denied { status });
                    }
                    Failure::Final => return refused(reason),
                }
            }
            Err(_) => {
                let reason = format!("{last}, and the deadline passed");
                if is_doubtful || is_sent {
                    return unknown(reason);
                }
                if found_no_room {
                    return refused(reason);
                }
                return Err(WriteError::Unreachable {
                    waited: deadline,
                    reason: last,
                });
            }
        }
        *connection.lock().await = None;
        sleep_until((Instant::now() + backoff.next()).min(until)).await;
    }
}

async fn send(mut client: Client, id: &str, messages: Vec<FlightData>) -> End {
    let mut answers = match client.do_put(stream::iter(messages)).await {
        Ok(response) => response.into_inner(),
        Err(status) => return End::Failed(status),
    };
    loop {
        match answers.message().await {
            // Word of progress, of a daemon that gives it.
            Ok(Some(result)) if result.app_metadata.is_empty() => {}
            Ok(Some(result)) => {
                return match Answer::from_json(&result.app_metadata) {
                    Ok(answer) if answer.id.as_deref() == Some(id) => match Outcome::of(answer, id)
                    {
                        // It is about to go, or late: it is asked again.
                        Outcome::Unknown { reason, .. } => End::Broken(reason),
                        settled => End::Settled(settled),
                    },
                    Ok(answer) => {
                        let other = answer.id.unwrap_or_default();
                        End::Broken(format!(
                            "the daemon answered to {other:?} and not to {id:?}"
                        ))
                    }
                    Err(error) => {
                        End::Broken(format!("the daemon's answer makes no sense: {error}"))
                    }
                };
            }
            Ok(None) => {
                return End::Broken("the daemon ended the put without an answer".to_owned());
            }
            Err(status) => return End::Failed(status),
        }
    }
}
