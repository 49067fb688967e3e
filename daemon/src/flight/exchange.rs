//! Many transactions through one call: the quick way in.
//!
//! Each message is one request, each answer one message, in the order of the requests. No task, no timer and no
//! call set-up per transaction: the stream that sends answers takes the requests in.
//!
//! - **X1** Answers come in the order of their requests, whatever the engine's.
//! - **X2** At most [`Limits::pipelined`](super::limits::Limits) requests are under way; the others wait in the socket,
//!   and in the end at the client. A client that takes no answers sends nothing in.
//! - **X3** A stop takes no more requests in, and ends the stream after the answers that are owed.
//! - **X4** A request that is refused here (its form, its size) does not end the stream. A broken call, a client who may
//!   no longer write and a used-up budget do, after the answers that are owed: so what has no answer then was not done.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use arrow_flight::{FlightData, FlightDescriptor};
use futures::Stream;
use hyper::body::Bytes;
use serde::Deserialize;
use sherwood_shared::transaction::Answer;
use tonic::{Status, Streaming};

use super::action;
use super::body::busy;
use super::server::told;
use super::service::{FlightService, Waiting, from_json, no_answer};

/// One call's requests and answers.
pub(super) struct Exchange {
    service: FlightService,
    input: Streaming<FlightData>,
    /// The first message has said what this is.
    begun: bool,
    owed: VecDeque<Owed>,
    /// A message for which there was no room.
    held_back: Option<Bytes>,
    /// No more requests; with what the stream then ends.
    ended: Option<Result<(), Status>>,
    /// The server is told to stop (FJ2).
    stopping: Pin<Box<dyn Future<Output = ()> + Send>>,
}

enum Owed {
    Here(Answer),
    Waiting(Waiting),
}

impl Exchange {
    pub(super) fn new(service: FlightService, input: Streaming<FlightData>) -> Self {
        let mut stop = service.shared.stop.clone();
        let stopping = Box::pin(async move { told(&mut stop).await });
        Self {
            service,
            input,
            begun: false,
            owed: VecDeque::new(),
            held_back: None,
            ended: None,
            stopping,
        }
    }

    /// Takes in what has come (X2).
    fn take_in(&mut self, cx: &mut Context<'_>) {
        if self.ended.is_none() && self.stopping.as_mut().poll(cx).is_ready() {
            self.ended = Some(Ok(()));
        }
        while self.ended.is_none() && self.owed.len() < self.service.shared.limits.pipelined {
            if let Some(body) = self.held_back.take() {
                if !self.take(body) {
                    return;
                }
                continue;
            }
            match Pin::new(&mut self.input).poll_next(cx) {
                Poll::Pending => return,
                Poll::Ready(None) => self.ended = Some(Ok(())),
                Poll::Ready(Some(Err(status))) => self.ended = Some(Err(status)),
                Poll::Ready(Some(Ok(message))) => self.message(message),
            }
        }
    }

    fn message(&mut self, message: FlightData) {
        if !self.begun {
            self.begun = true;
            if let Err(status) = begin(message.flight_descriptor.as_ref()) {
                self.ended = Some(Err(status));
                return;
            }
            // The first message may be the descriptor alone.
            if message.app_metadata.is_empty() {
                return;
            }
        }
        // Schemas and batches mean nothing here; some clients must send a schema first.
        if !message.app_metadata.is_empty() {
            self.take(message.app_metadata);
        }
    }

    /// False: there is no room until an answer has gone.
    fn take(&mut self, body: Bytes) -> bool {
        if let Err(status) = self.service.check_write() {
            self.ended = Some(Err(status));
            return true;
        }
        if let Some(refusal) = action::too_large(body.len(), &self.service.shared.limits) {
            self.owed.push_back(Owed::Here(refusal));
            return true;
        }
        let Some(held) = self.service.charge_json(body.len()) else {
            if self.owed.is_empty() {
                self.ended = Some(Err(busy(body.len())));
                return true;
            }
            self.held_back = Some(body);
            return false;
        };
        let owed = match action::parse_message(&body, &self.service.shared.limits) {
            Ok(request) => Owed::Waiting(self.service.submit(request, held)),
            Err(answer) => Owed::Here(answer),
        };
        self.owed.push_back(owed);
        true
    }
}

/// `{"transactions":1}`: the version of this dialect.
fn begin(descriptor: Option<&FlightDescriptor>) -> Result<(), Status> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Command {
        transactions: u32,
    }
    let descriptor = descriptor.ok_or_else(|| {
        Status::invalid_argument(
            "the first message needs a descriptor with the command {\"transactions\":1}",
        )
    })?;
    let command: Command = from_json(&descriptor.cmd)?;
    if command.transactions == 1 {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "transactions are exchanged in version 1 here, not {}",
        command.transactions
    )))
}

impl Stream for Exchange {
    type Item = Result<FlightData, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            this.take_in(cx);
            let answer = match this.owed.front_mut() {
                None => match this.ended.take() {
                    None if this.held_back.is_some() => continue,
                    None => return Poll::Pending,
                    Some(Ok(())) => {
                        this.ended = Some(Ok(()));
                        return Poll::Ready(None);
                    }
                    Some(Err(status)) => {
                        this.ended = Some(Ok(()));
                        return Poll::Ready(Some(Err(status)));
                    }
                },
                Some(Owed::Here(_)) => match this.owed.pop_front() {
                    Some(Owed::Here(answer)) => answer,
                    _ => continue,
                },
                Some(Owed::Waiting(waiting)) => match Pin::new(&mut waiting.receiver).poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(answered) => {
                        let id = waiting.id.take();
                        this.owed.pop_front();
                        answered.unwrap_or_else(|_| no_answer(id))
                    }
                },
            };
            let app_metadata = answer.to_json().into();
            return Poll::Ready(Some(Ok(FlightData {
                app_metadata,
                ..FlightData::default()
            })));
        }
    }
}
