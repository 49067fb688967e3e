//! The calls of Arrow Flight, for one connection.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightService as Flight;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, Result as ActionResult, SchemaResult,
    Ticket,
};
use futures::{Stream, stream};
use serde::Deserialize;
use sherwood_shared::transaction::{Answer, MAX_ID_BYTES};
use tokio::sync::oneshot;
use tonic::{Request as Call, Response, Status, Streaming};

use super::action;
use super::body::busy;
use super::exchange::Exchange;
use super::limits::{JSON_FACTOR, QUESTION_BYTES, REQUEST_OVERHEAD};
use super::peer::{Peer, check_read};
use super::quota::Held;
use super::server::Shared;
use super::watch::watch_changes;
use super::{put, read};
use crate::engine::{Request, Submission};

pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// One connection's calls.
#[derive(Clone)]
pub(super) struct FlightService {
    pub(super) shared: Arc<Shared>,
    pub(super) peer: Arc<Peer>,
}

impl FlightService {
    pub(super) fn new(shared: Arc<Shared>, peer: Arc<Peer>) -> Self {
        Self { shared, peer }
    }

    pub(super) fn check_write(&self) -> Result<(), Status> {
        self.shared.access().check_write(&self.peer)
    }

    pub(super) fn check_read(&self) -> Result<(), Status> {
        check_read(&self.peer, &self.shared.snapshot)
    }

    /// Charges the work on a JSON request of so many bytes.
    pub(super) fn charge_json(&self, bytes: usize) -> Option<Held> {
        let amount = bytes
            .saturating_mul(JSON_FACTOR)
            .saturating_add(REQUEST_OVERHEAD);
        self.shared.bytes.take(self.peer.uid, amount)
    }

    /// Hands a request to the engine. Its charge is given back with the answer.
    pub(super) fn submit(&self, request: Request, held: Held) -> Waiting {
        let id = request.id().map(str::to_owned);
        let (sender, receiver) = oneshot::channel();
        let reply = Box::new(move |answer| {
            drop(held);
            let _the_client_has_gone = sender.send(answer);
        });
        (self.shared.submit)(Submission { request, reply });
        Waiting { id, receiver }
    }

    async fn act(&self, action: &Action) -> Result<Answer, Status> {
        self.check_write()?;
        if let Some(refusal) = action::too_large(action.body.len(), &self.shared.limits) {
            return Ok(refusal);
        }
        let held = self
            .charge_json(action.body.len())
            .ok_or_else(|| busy(action.body.len()))?;
        let request = match action::parse(&action.r#type, &action.body, &self.shared.limits) {
            Ok(request) => request,
            Err(answer) => return Ok(answer),
        };
        Ok(self
            .submit(request, held)
            .within(self.shared.limits.answer)
            .await)
    }

    async fn outcome(&self, body: &[u8]) -> Result<Answer, Status> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Body {
            id: String,
        }
        self.check_write()?;
        let Body { id } = from_json(body)?;
        if !(1..=MAX_ID_BYTES).contains(&id.len()) {
            return Err(Status::invalid_argument(format!(
                "an id has 1 to {MAX_ID_BYTES} bytes"
            )));
        }
        let (sender, receiver) = oneshot::channel();
        let reply = Box::new(move |answer| {
            let _the_client_has_gone = sender.send(answer);
        });
        (self.shared.outcome)(&id, reply);
        let waiting = Waiting {
            id: Some(id),
            receiver,
        };
        Ok(waiting.within(self.shared.limits.answer).await)
    }
}

/// Whatever is no transaction is short.
pub(super) fn check_short(what: &str, body: &[u8]) -> Result<(), Status> {
    if body.len() <= QUESTION_BYTES {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "{what} has {} bytes, and {QUESTION_BYTES} bytes are the most",
        body.len()
    )))
}

/// A body that is not of its action's form.
pub(super) fn from_json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Status> {
    check_short("the body", body)?;
    serde_json::from_slice(body).map_err(|error| {
        Status::invalid_argument(format!(
            "the body is not as it should be: {}",
            cut(&error.to_string())
        ))
    })
}

/// What a client said, short enough to be said back: a status travels in a header.
pub(super) fn cut(text: &str) -> String {
    const MOST: usize = 200;
    match text.char_indices().nth(MOST) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

/// An answer that the engine owes.
pub(super) struct Waiting {
    pub(super) id: Option<String>,
    pub(super) receiver: oneshot::Receiver<Answer>,
}

impl Waiting {
    pub(super) async fn within(self, most: Duration) -> Answer {
        match tokio::time::timeout(most, self.receiver).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => no_answer(self.id),
            Err(_) => Answer::unknown(
                self.id,
                format!(
                    "no answer within {} s; ask again with the same id",
                    most.as_secs()
                ),
            ),
        }
    }
}

/// The engine dropped the request.
pub(super) fn no_answer(id: Option<String>) -> Answer {
    Answer::unknown(
        id,
        "the daemon is stopping; ask the next one with the same id",
    )
}

fn one<T: Send + 'static>(item: T) -> Response<Answers<T>> {
    Response::new(Box::pin(stream::once(async move { Ok(item) })))
}

fn none_such(what: &str) -> Status {
    Status::unimplemented(what)
}

#[tonic::async_trait]
impl Flight for FlightService {
    type HandshakeStream = Answers<HandshakeResponse>;
    type ListFlightsStream = Answers<FlightInfo>;
    type DoGetStream = Answers<FlightData>;
    type DoPutStream = Answers<PutResult>;
    type DoActionStream = Answers<ActionResult>;
    type ListActionsStream = Answers<ActionType>;
    type DoExchangeStream = Answers<FlightData>;

    async fn handshake(
        &self,
        _: Call<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        Err(none_such(
            "there is no handshake: the kernel says who you are",
        ))
    }

    async fn list_flights(
        &self,
        _: Call<Criteria>,
    ) -> Result<Response<Self::ListFlightsStream>, Status> {
        self.check_read()?;
        let snapshot = read::snapshot(&self.shared.snapshot).await?;
        let infos = stream::iter(read::infos(&snapshot));
        Ok(Response::new(Box::pin(infos)))
    }

    async fn get_flight_info(
        &self,
        call: Call<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.check_read()?;
        let table = read::table_of_descriptor(call.get_ref())?;
        let snapshot = read::snapshot(&self.shared.snapshot).await?;
        read::info(&snapshot, table).map(Response::new)
    }

    async fn poll_flight_info(
        &self,
        _: Call<FlightDescriptor>,
    ) -> Result<Response<PollInfo>, Status> {
        Err(none_such(
            "nothing here takes long enough to be polled; use GetFlightInfo",
        ))
    }

    async fn get_schema(
        &self,
        call: Call<FlightDescriptor>,
    ) -> Result<Response<SchemaResult>, Status> {
        self.check_read()?;
        let table = read::table_of_descriptor(call.get_ref())?;
        let snapshot = read::snapshot(&self.shared.snapshot).await?;
        read::schema(&snapshot, table).map(Response::new)
    }

    async fn do_get(&self, call: Call<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        self.check_read()?;
        let table = read::table_of_ticket(call.get_ref())?;
        let snapshot = read::snapshot(&self.shared.snapshot).await?;
        Ok(Response::new(Box::pin(read::rows(snapshot, table)?)))
    }

    async fn do_put(
        &self,
        call: Call<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoPutStream>, Status> {
        let answers = put::put(self, call.into_inner()).await?;
        Ok(Response::new(Box::pin(stream::iter(answers))))
    }

    async fn do_action(
        &self,
        call: Call<Action>,
    ) -> Result<Response<Self::DoActionStream>, Status> {
        let action = call.into_inner();
        let body = match action.r#type.as_str() {
            name if action::is_write(name) => self.act(&action).await?.to_json(),
            "outcome" | "watch" | "status" if action.body.len() > QUESTION_BYTES => {
                check_short("the body", &action.body)?;
                String::new()
            }
            "outcome" => self.outcome(&action.body).await?.to_json(),
            "watch" => {
                let changes = watch_changes(self, &action.body).await?;
                return Ok(Response::new(Box::pin(changes)));
            }
            "status" => {
                self.check_read()?;
                (self.shared.status)().to_string()
            }
            name => {
                return Err(none_such(&format!(
                    "there is no action {:?}; ListActions tells which there are",
                    cut(name)
                )));
            }
        };
        Ok(one(ActionResult { body: body.into() }))
    }

    async fn list_actions(
        &self,
        _: Call<Empty>,
    ) -> Result<Response<Self::ListActionsStream>, Status> {
        let actions = action::list().into_iter().map(Ok);
        Ok(Response::new(Box::pin(stream::iter(actions))))
    }

    async fn do_exchange(
        &self,
        call: Call<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        self.check_write()?;
        let exchange = Exchange::new(self.clone(), call.into_inner());
        Ok(Response::new(Box::pin(exchange)))
    }
}
