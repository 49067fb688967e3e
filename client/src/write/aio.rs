//! The async writer, which lives in its caller's tokio runtime.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow_array::RecordBatch;
use bytes::Bytes;
use serde_json::Value;
use sherwood_shared::schema::TableId;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};

use super::address::Address;
use super::build::Operation;
use super::bulk::{self, Mode};
use super::changes::{self, AsyncChanges};
use super::connection::{self, Client, Options};
use super::error::WriteError;
use super::outcome::Outcome;
use super::pipeline::{Pipeline, Request};

/// Writes through the daemon's socket. Cheap to clone; the clones share one pipeline.
///
/// **Not cancel-safe**: a transaction whose future is dropped may be applied all the same. Give it an id
/// beforehand, and [`outcome`](Self::outcome) tells.
///
/// It ends with the runtime it was connected in: what is under way then may or may not be applied.
#[derive(Clone, Debug)]
pub struct AsyncWriter {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    address: Address,
    options: Options,
    pid: u32,
    requests: mpsc::UnboundedSender<Request>,
    /// CW1, and a bound on what is kept for sending again.
    in_flight: Arc<Semaphore>,
    /// CW5. Made when first needed.
    calls: Mutex<Option<Client>>,
    bulk: Mutex<Option<Client>>,
}

impl AsyncWriter {
    /// Connects to the daemon of `target`: a socket, a snapshot, a state directory, or a cluster's id
    /// ([`Address::of`]).
    ///
    /// # Errors
    ///
    /// [`WriteError`], if no daemon listens there or outside a tokio runtime.
    pub async fn connect(target: impl AsRef<Path>) -> Result<Self, WriteError> {
        Self::connect_with(Address::of(target.as_ref())?, Options::default()).await
    }

    /// The same, with another patience.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_with(address: Address, options: Options) -> Result<Self, WriteError> {
        Handle::try_current().map_err(|_| WriteError::OutsideRuntime)?;
        let client = connection::open(&address).await?;
        let requests = Pipeline::spawn(address.clone(), options.deadline, client);
        let in_flight = options.in_flight.clamp(1, Semaphore::MAX_PERMITS);
        Ok(Self {
            shared: Arc::new(Shared {
                address,
                options,
                pid: std::process::id(),
                requests,
                in_flight: Arc::new(Semaphore::new(in_flight)),
                calls: Mutex::new(None),
                bulk: Mutex::new(None),
            }),
        })
    }

    /// Applies a transaction or a domain operation, and says what became of it (rules CW2, CW3).
    ///
    /// # Errors
    ///
    /// Nothing was sent: [`WriteError::Unreachable`], [`WriteError::Denied`]; or [`WriteError::Closed`].
    pub async fn apply(&self, operation: impl Into<Operation>) -> Result<Outcome, WriteError> {
        self.submit(operation).await?.await
    }

    /// Sends it, and returns without its answer, so that more can follow at once. Waits while
    /// [`Options::in_flight`] are under way.
    ///
    /// # Errors
    ///
    /// As [`apply`](Self::apply).
    pub async fn submit(&self, operation: impl Into<Operation>) -> Result<Pending, WriteError> {
        self.shared.check_pid()?;
        let (id, message) = operation.into().message();
        let permits = Arc::clone(&self.shared.in_flight);
        let permit = permits
            .acquire_owned()
            .await
            .map_err(|_| WriteError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let request = Request {
            id: id.clone(),
            message: Bytes::from(message),
            reply,
            permit,
        };
        self.shared
            .requests
            .send(request)
            .map_err(|_| WriteError::Closed)?;
        Ok(Pending { id, answer })
    }

    /// Puts, patches or deletes many rows of a table in one transaction: Arrow in, no JSON. A patch sets the columns
    /// that `batches` have; of a delete only the key column counts. An id is made if there is none.
    ///
    /// # Errors
    ///
    /// As [`apply`](Self::apply), and [`WriteError::Encode`].
    pub async fn bulk(
        &self,
        table: TableId,
        mode: Mode,
        batches: &[RecordBatch],
        id: Option<String>,
    ) -> Result<Outcome, WriteError> {
        self.shared.check_pid()?;
        let shared = &self.shared;
        let put = bulk::Put::new(table, mode, batches, id)?;
        let deadline = shared.options.bulk_deadline;
        bulk::run(&shared.address, &shared.bulk, &put, deadline).await
    }

    /// What became of the request with this id, as far as the daemon remembers: unknown otherwise.
    ///
    /// # Errors
    ///
    /// If the daemon does not answer.
    pub async fn outcome(&self, id: &str) -> Result<Outcome, WriteError> {
        let body = serde_json::json!({ "id": id }).to_string();
        let answer = self.call("outcome", body).await?;
        let answer = sherwood_shared::transaction::Answer::from_json(&answer).map_err(|error| {
            WriteError::Answer {
                call: "outcome",
                why: error.to_string(),
            }
        })?;
        Ok(Outcome::of(answer, id))
    }

    /// What the daemon says of itself: an object.
    ///
    /// # Errors
    ///
    /// If the daemon does not answer.
    pub async fn status(&self) -> Result<Value, WriteError> {
        let answer = self.call("status", String::new()).await?;
        serde_json::from_slice(&answer).map_err(|error| WriteError::Answer {
            call: "status",
            why: error.to_string(),
        })
    }

    /// Every change after generation `from`, once each and in order, as they come; of these tables only, or of all
    /// if there are none.
    ///
    /// # Errors
    ///
    /// If the daemon does not answer. [`WriteError::Gone`] comes from the changes themselves.
    pub async fn watch(&self, from: u64, tables: &[TableId]) -> Result<AsyncChanges, WriteError> {
        self.shared.check_pid()?;
        changes::watch(self.shared.address.clone(), from, tables).await
    }

    /// The options it was connected with.
    #[must_use]
    pub fn options(&self) -> Options {
        self.shared.options
    }

    async fn call(&self, action: &'static str, body: String) -> Result<Bytes, WriteError> {
        self.shared.check_pid()?;
        let shared = &self.shared;
        let deadline = shared.options.deadline;
        connection::call(&shared.address, &shared.calls, action, body, deadline).await
    }
}

impl Shared {
    /// A child shares its parent's connection and would take its answers.
    fn check_pid(&self) -> Result<(), WriteError> {
        let connected = self.pid;
        match std::process::id() == connected {
            true => Ok(()),
            false => Err(WriteError::Forked { connected }),
        }
    }
}

/// An answer that is under way: a future of the [`Outcome`].
#[derive(Debug)]
#[must_use = "what was submitted may be refused"]
pub struct Pending {
    id: String,
    answer: oneshot::Receiver<Result<Outcome, WriteError>>,
}

impl Pending {
    /// The request's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl Future for Pending {
    type Output = Result<Outcome, WriteError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer)
            .poll(context)
            .map(|answer| answer.unwrap_or(Err(WriteError::Closed)))
    }
}
