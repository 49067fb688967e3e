//! A daemon's socket without a daemon: it remembers what it is sent, applies an id once, and misbehaves on order.

#![allow(dead_code)] // each test program uses its own part

use std::collections::{BTreeMap, VecDeque};
use std::net::Shutdown;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status, Streaming};

/// What to do with the next request, instead of applying and answering it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Apply and answer.
    Serve,
    /// Break the connection, nothing applied.
    Drop,
    /// Apply, then break the connection before the answer.
    ApplyAndDrop,
    /// Apply, then end the stream properly, without an answer.
    ApplyAndEnd,
    /// Refuse.
    Refuse,
    /// Answer something that is no JSON.
    Garbage,
    /// Answer to another id.
    WrongId,
    /// Refuse without an id, as what is too large to be read.
    RefuseUnread,
    /// Apply, and answer when [`Stub::answer_late`] says so.
    Late,
    /// Say that there is no room, and that nothing was done.
    Busy,
    /// Say that it is not known.
    Unknown,
    /// Never answer.
    Silence,
    /// End the stream with this status.
    Status(tonic::Code),
}

#[derive(Debug, Default)]
pub struct Seen {
    /// Every request as it came, over all connections.
    pub requests: Vec<Value>,
    /// What was applied, in order.
    pub applied: Vec<String>,
    /// By id.
    pub outcomes: BTreeMap<String, Value>,
    /// Rows of bulk puts, by id.
    pub rows: BTreeMap<String, usize>,
    pub connections: usize,
    pub acts: VecDeque<Act>,
    /// Lines that a watch gives, then how it ends.
    pub watch: VecDeque<(Vec<String>, Option<Status>)>,
    /// Whose state it says it serves; `c` if not told.
    pub cluster: Option<String>,
    /// What it says is wrong with it.
    pub trouble: BTreeMap<String, String>,
    /// The next exchange is not opened before [`Stub::answer_late`] says so; false again when it has come.
    pub holds_back: bool,
    open: Vec<StdStream>,
    late: Vec<oneshot::Sender<()>>,
    generation: u64,
}

impl Seen {
    fn apply(&mut self, id: &str, request: &Value) -> Value {
        if let Some(first) = self.outcomes.get(id) {
            return first.clone();
        }
        self.generation += 1;
        let mut answer = json!({"id": id, "outcome": "done", "generation": self.generation});
        if request["do"] == "claim" && request["node"] != "idle" {
            answer["task"] = json!("task-1");
        }
        self.applied.push(id.to_owned());
        self.outcomes.insert(id.to_owned(), answer.clone());
        answer
    }

    fn cut(&mut self) {
        for stream in self.open.drain(..) {
            let _gone_already = stream.shutdown(Shutdown::Both);
        }
    }

    /// The ids of all requests, in the order in which they came.
    pub fn ids(&self) -> Vec<&str> {
        let ids = self.requests.iter().map(|request| request["id"].as_str());
        ids.map(|id| id.expect("an id")).collect()
    }
}

/// A socket, and what came over it.
#[derive(Debug)]
pub struct Stub {
    seen: Arc<Mutex<Seen>>,
    path: PathBuf,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Stub {
    pub fn start(path: &Path) -> Self {
        Self::start_with(path, Arc::default())
    }

    /// One that remembers what another did.
    pub fn start_with(path: &Path, seen: Arc<Mutex<Seen>>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let _not_there = std::fs::remove_file(path);
        let guard = runtime.enter();
        let listener = UnixListener::bind(path).expect("binds");
        drop(guard);
        let service = Service(Arc::clone(&seen));
        let accept = stream::unfold((listener, Arc::clone(&seen)), |(listener, seen)| async {
            let (stream, _) = listener.accept().await.expect("accepts");
            let stream = stream.into_std().expect("a stream");
            {
                let mut seen = lock(&seen);
                seen.connections += 1;
                seen.open.push(stream.try_clone().expect("clones"));
            }
            let stream = UnixStream::from_std(stream);
            Some((stream, (listener, seen)))
        });
        runtime.spawn(
            tonic::transport::Server::builder()
                .add_service(FlightServiceServer::new(service))
                .serve_with_incoming(accept),
        );
        Self {
            seen,
            path: path.to_owned(),
            runtime: Some(runtime),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    /// What the next requests meet with.
    pub fn will(&self, acts: &[Act]) {
        self.seen().acts.extend(acts);
    }

    /// Gives the answers that were held back.
    pub fn answer_late(&self) {
        for late in self.seen().late.drain(..) {
            let _gone = late.send(());
        }
    }

    /// Ends it, its connections and its socket. Returns what it remembers.
    pub fn stop(mut self) -> Arc<Mutex<Seen>> {
        self.shut();
        Arc::clone(&self.seen)
    }

    fn shut(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            let _gone = std::fs::remove_file(&self.path);
            runtime.shutdown_timeout(Duration::from_secs(60));
            // Not before: a connection that is accepted meanwhile would stay open, with nobody to serve it.
            self.seen().cut();
        }
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.shut();
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Service(Arc<Mutex<Seen>>);

/// How to go on after a request.
enum Next {
    Answer(Vec<u8>),
    End,
    Fail(Status),
    Never,
    Later(Vec<u8>, oneshot::Receiver<()>),
}

impl Service {
    fn meet(&self, request: &Value) -> Next {
        let mut seen = lock(&self.0);
        let id = request["id"].as_str().unwrap_or_default().to_owned();
        seen.requests.push(request.clone());
        let answer = |value: Value| Next::Answer(value.to_string().into_bytes());
        match seen.acts.pop_front().unwrap_or(Act::Serve) {
            Act::Serve => answer(seen.apply(&id, request)),
            Act::Drop => {
                seen.cut();
                Next::Never
            }
            Act::ApplyAndDrop => {
                seen.apply(&id, request);
                seen.cut();
                Next::Never
            }
            Act::ApplyAndEnd => {
                seen.apply(&id, request);
                Next::End
            }
            Act::Refuse => {
                let refusal = json!({"id": id, "outcome": "refused", "generation": 7,
                                     "reason": "tasks: no row with id \"t1\""});
                answer(refusal)
            }
            Act::Garbage => Next::Answer(b"\xff{not json".to_vec()),
            Act::WrongId => answer(json!({"id": "another", "outcome": "done", "generation": 1})),
            Act::Unknown => {
                answer(json!({"id": id, "outcome": "unknown", "reason": "the sync failed"}))
            }
            Act::RefuseUnread => answer(json!({"outcome": "refused", "reason": "too large"})),
            Act::Late => {
                let answer = seen.apply(&id, request).to_string().into_bytes();
                let (sender, receiver) = oneshot::channel();
                seen.late.push(sender);
                Next::Later(answer, receiver)
            }
            Act::Busy => Next::Fail(Status::resource_exhausted(
                "no room for this user now; nothing was done",
            )),
            Act::Silence => Next::Never,
            Act::Status(code) => Next::Fail(Status::new(code, "so it is said")),
        }
    }
}

type Answers<T> = Result<Response<BoxStream<'static, Result<T, Status>>>, Status>;

#[tonic::async_trait]
impl FlightService for Service {
    type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    type DoGetStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoPutStream = BoxStream<'static, Result<PutResult, Status>>;
    type DoActionStream = BoxStream<'static, Result<arrow_flight::Result, Status>>;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;
    type DoExchangeStream = BoxStream<'static, Result<FlightData, Status>>;

    async fn do_exchange(&self, request: Request<Streaming<FlightData>>) -> Answers<FlightData> {
        let service = Self(Arc::clone(&self.0));
        let mut incoming = request.into_inner();
        let first = incoming
            .message()
            .await?
            .ok_or_else(|| Status::invalid_argument("empty"))?;
        let descriptor = first.flight_descriptor.clone().unwrap_or_default();
        assert_eq!(descriptor.cmd.as_ref(), br#"{"transactions":1}"#);
        let held = {
            let mut seen = lock(&self.0);
            std::mem::take(&mut seen.holds_back).then(|| {
                let (sender, receiver) = oneshot::channel();
                seen.late.push(sender);
                receiver
            })
        };
        if let Some(held) = held {
            let _never = held.await;
        }
        let requests = stream::once(async { Ok(first) }).chain(incoming);
        let answers = stream::unfold(
            (service, requests.boxed()),
            |(service, mut requests)| async {
                let data: FlightData = requests.try_next().await.ok()??;
                let request = serde_json::from_slice(&data.app_metadata).expect("JSON");
                let next = match service.meet(&request) {
                    Next::Later(answer, when) => {
                        let _never = when.await;
                        Next::Answer(answer)
                    }
                    next => next,
                };
                match next {
                    Next::Answer(answer) => {
                        let data = FlightData {
                            app_metadata: answer.into(),
                            ..FlightData::default()
                        };
                        Some((Ok(data), (service, requests)))
                    }
                    Next::End => None,
                    Next::Fail(status) => Some((Err(status), (service, stream::empty().boxed()))),
                    Next::Never | Next::Later(..) => std::future::pending().await,
                }
            },
        );
        Ok(Response::new(answers.boxed()))
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Answers<PutResult> {
        let mut incoming = request.into_inner().peekable();
        let first = std::pin::Pin::new(&mut incoming).peek().await;
        let descriptor = match first {
            Some(Ok(first)) => first.flight_descriptor.clone().unwrap_or_default(),
            _ => return Err(Status::invalid_argument("empty")),
        };
        let request: Value = serde_json::from_slice(&descriptor.cmd).expect("JSON");
        let batches = FlightRecordBatchStream::new_from_flight_data(incoming.map_err(Into::into));
        let batches: Vec<_> = batches.try_collect().await.expect("batches");
        let rows = batches.iter().map(arrow_array::RecordBatch::num_rows).sum();
        let id = request["id"].as_str().expect("an id").to_owned();
        lock(&self.0).rows.insert(id, rows);
        let answer = match self.meet(&request) {
            Next::Answer(answer) => answer,
            Next::End => return Ok(Response::new(stream::empty().boxed())),
            Next::Fail(status) => return Err(status),
            Next::Never | Next::Later(..) => std::future::pending().await,
        };
        let result = PutResult {
            app_metadata: answer.into(),
        };
        Ok(Response::new(stream::iter([Ok(result)]).boxed()))
    }

    async fn do_action(&self, request: Request<Action>) -> Answers<arrow_flight::Result> {
        let action = request.into_inner();
        let body = |text: String| arrow_flight::Result { body: text.into() };
        let parsed: Value = serde_json::from_slice(&action.body).unwrap_or_default();
        let one = |answer: Value| {
            Ok(Response::new(
                stream::iter([Ok(body(answer.to_string()))]).boxed(),
            ))
        };
        match action.r#type.as_str() {
            "outcome" => {
                let id = parsed["id"].as_str().expect("an id");
                let unknown = json!({"id": id, "outcome": "unknown", "reason": "not remembered"});
                one(lock(&self.0).outcomes.get(id).cloned().unwrap_or(unknown))
            }
            "status" => {
                let (cluster, trouble) = {
                    let seen = lock(&self.0);
                    (seen.cluster.clone(), seen.trouble.clone())
                };
                one(json!({"cluster_id": cluster.as_deref().unwrap_or("c"), "trouble": trouble}))
            }
            "watch" => {
                let mut seen = lock(&self.0);
                seen.requests.push(json!({"id": "watch", "watch": parsed}));
                let (lines, end) = seen.watch.pop_front().unwrap_or_default();
                let lines = stream::iter(lines.into_iter().map(move |line| Ok(body(line))));
                Ok(Response::new(match end {
                    Some(status) => lines.chain(stream::iter([Err(status)])).boxed(),
                    None => lines.chain(stream::pending()).boxed(),
                }))
            }
            other => Err(Status::unimplemented(other.to_owned())),
        }
    }

    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Answers<HandshakeResponse> {
        Err(Status::unimplemented("handshake"))
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Answers<FlightInfo> {
        Err(Status::unimplemented("list_flights"))
    }

    async fn get_flight_info(
        &self,
        _: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        Err(Status::unimplemented("get_flight_info"))
    }

    async fn poll_flight_info(
        &self,
        _: Request<FlightDescriptor>,
    ) -> Result<Response<PollInfo>, Status> {
        Err(Status::unimplemented("poll_flight_info"))
    }

    async fn get_schema(
        &self,
        _: Request<FlightDescriptor>,
    ) -> Result<Response<SchemaResult>, Status> {
        Err(Status::unimplemented("get_schema"))
    }

    async fn do_get(&self, _: Request<Ticket>) -> Answers<FlightData> {
        Err(Status::unimplemented("do_get"))
    }

    async fn list_actions(&self, _: Request<Empty>) -> Answers<ActionType> {
        Err(Status::unimplemented("list_actions"))
    }
}
