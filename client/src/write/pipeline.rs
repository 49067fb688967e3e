//! The stream that transactions go through: one DoExchange at a time, and a task that owns it.
//!
//! Requests are sent as they come and answered in their order. A request is in [`Pipeline::waiting`] from when it
//! was submitted until its answer came or its deadline passed; a connection that breaks takes nothing from there,
//! so the next one begins by sending all of it again (rule CW1). An answer belongs to the first that waits, and names
//! its id: one that does not breaks the connection, since then nothing is known of any answer after it. A daemon that
//! answers "unknown" is about to go, or late: it is asked again, too. Only a refusal may come without an id, of a
//! request that was too large to be read. A stream that the daemon ends for what one
//! request holds does not say which one: the next connection carries one request at a time until it is found. It has
//! answered all that it did before, so such an end leaves no doubt about the others; any other end does, and what may
//! have been applied is never called refused later (rule CW2).

use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use arrow_flight::{FlightData, FlightDescriptor};
use bytes::Bytes;
use sherwood_shared::transaction::{Answer, OutcomeKind};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Status, Streaming};

use super::address::Address;
use super::connection::{self, Backoff, Client, Failure};
use super::error::WriteError;
use super::outcome::Outcome;

/// What opens the stream.
const COMMAND: &str = r#"{"transactions":1}"#;

/// How long an answer that is there may take to be read.
const LAST_LOOK: Duration = Duration::from_millis(500);

pub(super) type Reply = oneshot::Sender<Result<Outcome, WriteError>>;

/// One request and whoever waits for its answer.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: String,
    pub(super) message: Bytes,
    pub(super) reply: Reply,
    /// Held until it is answered.
    pub(super) permit: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Waiting {
    request: Request,
    expires: Instant,
    /// It went over a connection.
    was_sent: bool,
    /// It may have been applied: a connection that carried it ended without a word about it.
    is_doubtful: bool,
}

impl Waiting {
    fn settle(self, result: Result<Outcome, WriteError>) {
        // Whoever asked may have gone.
        let _nobody_waits = self.request.reply.send(result);
        drop(self.request.permit);
    }

    fn unknown(self, reason: &str) {
        let id = self.request.id.clone();
        let reason = reason.to_owned();
        self.settle(Ok(Outcome::Unknown { id, reason }));
    }

    /// Unknown, if it may have been applied before.
    fn refused(self, reason: &str) {
        if self.is_doubtful {
            return self.unknown(reason);
        }
        let reason = reason.to_owned();
        let generation = None;
        self.settle(Ok(Outcome::Refused { reason, generation }));
    }
}

/// The task's own state.
#[derive(Debug)]
pub(super) struct Pipeline {
    address: Address,
    deadline: Duration,
    requests: mpsc::UnboundedReceiver<Request>,
    /// Somebody may still submit.
    is_open: bool,
    /// In the order of submission, which is that of the deadlines too.
    waiting: VecDeque<Waiting>,
    /// How many of `waiting`, from the front, went over the current connection.
    sent: usize,
    /// One at a time, until none waits.
    is_careful: bool,
    /// What the last connection ended with.
    last: String,
    backoff: Backoff,
}

/// How a connection ended.
#[derive(Debug)]
enum End {
    /// Nobody will submit any more, and nobody waits.
    Finished,
    /// The next connection goes on, for whoever still waits.
    Broken(String),
}

impl Pipeline {
    /// `client` is the first connection.
    pub(super) fn spawn(
        address: Address,
        deadline: Duration,
        client: Client,
    ) -> mpsc::UnboundedSender<Request> {
        let (sender, requests) = mpsc::unbounded_channel();
        let pipeline = Self {
            address,
            deadline,
            requests,
            is_open: true,
            waiting: VecDeque::new(),
            sent: 0,
            is_careful: false,
            last: String::new(),
            backoff: Backoff::default(),
        };
        tokio::spawn(pipeline.run(client));
        sender
    }

    async fn run(mut self, client: Client) {
        let mut client = Some(client);
        loop {
            // A connection without requests is not worth making anew.
            if self.waiting.is_empty() {
                self.backoff.reset();
                match self.requests.recv().await {
                    Some(request) => self.take(request),
                    None => return,
                }
            }
            let end = match client.take() {
                Some(client) => self.exchange(client).await,
                None => self.reconnect().await,
            };
            for waiting in self.waiting.iter_mut().take(self.sent) {
                waiting.is_doubtful = true;
            }
            self.sent = 0;
            match end {
                End::Finished => return,
                End::Broken(reason) => self.last = reason,
            }
        }
    }

    async fn reconnect(&mut self) -> End {
        let pause = self.backoff.next();
        if !pause.is_zero() && self.tend(sleep(pause), Duration::ZERO).await.is_none() {
            return End::Broken("the deadline passed".to_owned());
        }
        let address = self.address.clone();
        match self.tend(connection::open(&address), Duration::ZERO).await {
            Some(Ok(client)) => self.exchange(client).await,
            Some(Err(error)) => End::Broken(chain(&error)),
            None => End::Broken("the deadline passed before it was connected".to_owned()),
        }
    }

    /// One stream, from its opening to its end.
    async fn exchange(&mut self, mut client: Client) -> End {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut outgoing = Outgoing {
            sender,
            is_first: true,
        };
        // The daemon may want to see the first message before it answers the call.
        self.flush(&mut outgoing);
        let open = client.do_exchange(UnboundedReceiverStream::new(receiver));
        let mut incoming = match self.tend(open, LAST_LOOK).await {
            Some(Ok(response)) => response.into_inner(),
            Some(Err(status)) => return self.failed(&status, false),
            None => return End::Broken("the daemon did not answer within the deadline".to_owned()),
        };
        let mut answered = false;
        loop {
            self.flush(&mut outgoing);
            if self.waiting.is_empty() {
                self.is_careful = false;
                if !self.is_open {
                    return End::Finished;
                }
            }
            match self.step(&mut incoming).await {
                Step::Go => {}
                Step::Answered => {
                    answered = true;
                    self.backoff.reset();
                }
                Step::Failed(status) => return self.failed(&status, answered),
                Step::Broken(reason) => return End::Broken(reason),
            }
        }
    }

    async fn step(&mut self, incoming: &mut Streaming<FlightData>) -> Step {
        let expires = self.expires();
        tokio::select! {
            biased;
            message = incoming.message() => self.received(message),
            request = self.requests.recv(), if self.is_open => {
                self.took(request);
                Step::Go
            }
            () = sleep_until(expires), if !self.waiting.is_empty() => {
                // Where nothing ran since long, as in a blocking writer, the answer may be there and not yet read.
                if let Ok(message) = timeout(LAST_LOOK, incoming.message()).await {
                    return self.received(message);
                }
                self.expire("the daemon did not answer within the deadline");
                // The next answer may be to what was just given up.
                Step::Broken("the daemon did not answer within the deadline".to_owned())
            }
        }
    }

    fn received(&mut self, message: Result<Option<FlightData>, Status>) -> Step {
        match message {
            Ok(Some(data)) => self.answered(&data),
            Ok(None) => Step::Broken("the daemon closed the connection".to_owned()),
            Err(status) => Step::Failed(status),
        }
    }

    /// Runs `future` while requests are taken in and expire, the first of them not before it had `last_look` to end: what
    /// it waits for may be there and not yet read, as in [`step`](Self::step). `None`: nobody waits any more.
    async fn tend<F: Future>(&mut self, future: F, last_look: Duration) -> Option<F::Output> {
        tokio::pin!(future);
        loop {
            let expires = self.expires();
            tokio::select! {
                biased;
                output = &mut future => return Some(output),
                request = self.requests.recv(), if self.is_open => self.took(request),
                () = sleep_until(expires) => {
                    if let Ok(output) = timeout(last_look, &mut future).await {
                        return Some(output);
                    }
                    let reason = match self.last.as_str() {
                        "" => "the daemon did not answer within the deadline".to_owned(),
                        last => format!("{last}, and the deadline passed"),
                    };
                    self.expire(&reason);
                    if self.waiting.is_empty() {
                        return None;
                    }
                }
            }
        }
    }

    /// When the first deadline passes; a moment that never comes if nobody waits.
    fn expires(&self) -> Instant {
        match self.waiting.front() {
            Some(first) => first.expires,
            None => Instant::now() + Duration::from_secs(86_400),
        }
    }

    fn took(&mut self, request: Option<Request>) {
        match request {
            Some(request) => self.take(request),
            None => self.is_open = false,
        }
        // What else has come meanwhile goes out together.
        while let Ok(request) = self.requests.try_recv() {
            self.take(request);
        }
    }

    fn take(&mut self, request: Request) {
        let now = Instant::now();
        let far = now + Duration::from_secs(86_400 * 365);
        self.waiting.push_back(Waiting {
            request,
            expires: now.checked_add(self.deadline).unwrap_or(far),
            was_sent: false,
            is_doubtful: false,
        });
    }

    fn flush(&mut self, outgoing: &mut Outgoing) {
        let at_once = match self.is_careful {
            true => 1,
            false => usize::MAX,
        };
        let unsent = self.waiting.iter_mut().take(at_once).skip(self.sent);
        for waiting in unsent {
            outgoing.send(&waiting.request.message);
            waiting.was_sent = true;
            self.sent += 1;
        }
    }

    /// The first that waits has its answer, if this is one.
    fn answered(&mut self, data: &FlightData) -> Step {
        let broken =
            |what: String| Step::Broken(format!("the daemon's answer makes no sense: {what}"));
        let answer = match Answer::from_json(&data.app_metadata) {
            Ok(answer) => answer,
            Err(error) => return broken(error.to_string()),
        };
        let Some(first) = self.waiting.pop_front() else {
            return broken("nothing was asked".to_owned());
        };
        let id = first.request.id.clone();
        let unread = answer.id.is_none() && answer.outcome == OutcomeKind::Refused;
        if !unread && answer.id.as_ref() != Some(&id) {
            let what = format!(
                "it is for {:?} and not for {id:?}",
                answer.id.unwrap_or_default()
            );
            self.waiting.push_front(first);
            return broken(what);
        }
        match Outcome::of(answer, &id) {
            Outcome::Unknown { reason, .. } => {
                self.waiting.push_front(first);
                Step::Broken(reason)
            }
            settled => {
                self.sent = self.sent.saturating_sub(1);
                first.settle(Ok(settled));
                Step::Answered
            }
        }
    }

    /// The daemon ended the stream with a status.
    fn failed(&mut self, status: &Status, answered: bool) -> End {
        let reason = format!("the daemon ended the connection: {}", status.message());
        match Failure::of(status) {
            Failure::Broken => return End::Broken(reason),
            Failure::Busy => {}
            // Said at the door: nothing that was first sent here has been looked at.
            Failure::Denied if !answered => {
                for waiting in std::mem::take(&mut self.waiting) {
                    if waiting.is_doubtful {
                        waiting.unknown(&reason);
                    } else {
                        let status = Box::new(status.clone());
                        waiting.settle(Err(WriteError::Denied { status }));
                    }
                }
            }
            Failure::Denied | Failure::Final if self.sent > 1 => self.is_careful = true,
            Failure::Denied | Failure::Final => {
                if let Some(first) = self.waiting.pop_front() {
                    first.refused(status.message());
                }
            }
        }
        // Whatever was done has been answered before that.
        self.sent = 0;
        End::Broken(reason)
    }

    /// Gives up those whose deadline has passed.
    fn expire(&mut self, reason: &str) {
        let now = Instant::now();
        while let Some(first) = self.waiting.pop_front_if(|first| first.expires <= now) {
            let is_under_way = self.sent > 0;
            self.sent = self.sent.saturating_sub(1);
            if is_under_way {
                first.unknown(reason);
            } else if first.was_sent {
                first.refused(reason);
            } else {
                let waited = self.deadline;
                let reason = reason.to_owned();
                first.settle(Err(WriteError::Unreachable { waited, reason }));
            }
        }
    }
}

enum Step {
    Go,
    Answered,
    Failed(Status),
    Broken(String),
}

/// The stream's sending end.
#[derive(Debug)]
struct Outgoing {
    sender: mpsc::UnboundedSender<FlightData>,
    is_first: bool,
}

impl Outgoing {
    fn send(&mut self, message: &Bytes) {
        let descriptor =
            std::mem::take(&mut self.is_first).then(|| FlightDescriptor::new_cmd(COMMAND));
        // A connection that ended says so at its receiving end.
        let _ended = self.sender.send(FlightData {
            flight_descriptor: descriptor,
            app_metadata: message.clone(),
            ..FlightData::default()
        });
    }
}

/// An error and its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // Some errors of others print their cause themselves.
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}
