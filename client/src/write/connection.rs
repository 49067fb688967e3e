//! One connection over the socket, and which of its ends may be tried again.

use std::io;
use std::time::Duration;

use arrow_flight::Action;
use arrow_flight::flight_service_client::FlightServiceClient;
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::address::Address;
use super::error::WriteError;

/// How patient a writer is, and how much it keeps under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// How long to go on asking what became of a transaction before it counts as unknown. 30 s.
    pub deadline: Duration,
    /// The same for a bulk put of many rows. 10 min.
    pub bulk_deadline: Duration,
    /// Transactions that may be under way at once; further ones wait their turn. 256.
    pub in_flight: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(30),
            bulk_deadline: Duration::from_secs(600),
            in_flight: 256,
        }
    }
}

impl Options {
    /// Asks so long before a transaction counts as unknown.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Asks so long before a bulk put counts as unknown.
    #[must_use]
    pub fn bulk_deadline(mut self, deadline: Duration) -> Self {
        self.bulk_deadline = deadline;
        self
    }

    /// Keeps so many transactions under way; at least one.
    #[must_use]
    pub fn in_flight(mut self, in_flight: usize) -> Self {
        self.in_flight = in_flight.max(1);
        self
    }
}

/// First pause before a connection is tried again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// A change may be as large as a bulk put; the daemon limits what it sends.
const LARGEST_ANSWER: usize = 1 << 30;
/// Bytes that may be under way towards the daemon or from it.
const WINDOW: u32 = 8 << 20;

/// What the daemon says where it has no room.
const NOTHING_DONE: &str = "nothing was done";

pub(super) type Client = FlightServiceClient<Channel>;

/// Connects.
pub(super) async fn open(address: &Address) -> Result<Client, WriteError> {
    let socket = address.socket()?;
    let refused = |source| WriteError::Connect {
        socket: socket.clone(),
        source,
    };
    let stream = UnixStream::connect(&socket).await.map_err(refused)?;
    let mut stream = Some(stream);
    // A broken connection is made anew here, where what was under way on it is known, and never behind our back.
    let connector = tower::service_fn(move |_| {
        let stream = stream.take().map(TokioIo::new);
        std::future::ready(stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
    });
    let channel = Endpoint::from_static("http://localhost")
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .connect_with_connector(connector)
        .await
        .map_err(|error| refused(io::Error::other(error)))?;
    Ok(FlightServiceClient::new(channel)
        .max_decoding_message_size(LARGEST_ANSWER)
        .max_encoding_message_size(LARGEST_ANSWER))
}

/// How to take a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The connection or the daemon went away, or is busy: the same again may succeed.
    Broken,
    /// The daemon has no room now, and says that nothing was done: the same again may succeed.
    Busy,
    /// The daemon says no to this user or this kind of call, before it does anything.
    Denied,
    /// The daemon says no to this request: the same again would fail again.
    Final,
}

impl Failure {
    pub(super) fn of(status: &Status) -> Self {
        match status.code() {
            Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented => Self::Denied,
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::OutOfRange => Self::Final,
            // Others use the code too, such as HTTP/2 for a connection that ends: the daemon's words decide.
            Code::ResourceExhausted if status.message().contains(NOTHING_DONE) => Self::Busy,
            _ => Self::Broken,
        }
    }

    /// The same again may succeed.
    pub(super) fn may_pass(self) -> bool {
        matches!(self, Self::Broken | Self::Busy)
    }
}

/// Pauses between attempts.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// It went well: the next failure is a first one.
    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }

    /// How long to wait before the next attempt; the first comes at once.
    pub(super) fn next(&mut self) -> Duration {
        let doubled = 1_u32 << self.attempts.saturating_sub(1).min(10);
        let pause = match self.attempts {
            0 => Duration::ZERO,
            _ => (FIRST_PAUSE * doubled).min(LONGEST_PAUSE),
        };
        self.attempts = self.attempts.saturating_add(1);
        pause
    }
}

/// The connection in `kept`, made now if there is none.
pub(super) async fn kept(
    address: &Address,
    kept: &Mutex<Option<Client>>,
) -> Result<Client, WriteError> {
    let mut kept = kept.lock().await;
    match &*kept {
        Some(client) => Ok(client.clone()),
        None => Ok(kept.insert(open(address).await?).clone()),
    }
}

/// Calls an action that changes nothing, on the connection in `kept`, and returns its one answer.
pub(super) async fn call(
    address: &Address,
    connection: &Mutex<Option<Client>>,
    action: &'static str,
    body: String,
    deadline: Duration,
) -> Result<Bytes, WriteError> {
    let failed = |status: Status| match Failure::of(&status) {
        Failure::Denied => WriteError::Denied {
            status: Box::new(status),
        },
        _ => WriteError::Call {
            call: action,
            status: Box::new(status),
        },
    };
    let ask = async || -> Result<Result<Bytes, Status>, WriteError> {
        let mut client = kept(address, connection).await?;
        let request = Action::new(action, body.clone());
        let mut answers = match client.do_action(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => return Ok(Err(status)),
        };
        Ok(match answers.message().await {
            Ok(Some(answer)) => Ok(answer.body),
            Ok(None) => Err(Status::internal("no answer came")),
            Err(status) => Err(status),
        })
    };
    let late = || failed(Status::deadline_exceeded("the deadline passed"));
    let ask_twice = async {
        match ask().await? {
            Err(status) if Failure::of(&status).may_pass() => {
                // The daemon may have been restarted since the last call.
                *connection.lock().await = None;
                ask().await?.map_err(failed)
            }
            answer => answer.map_err(failed),
        }
    };
    timeout(deadline, ask_twice)
        .await
        .unwrap_or_else(|_| Err(late()))
}
