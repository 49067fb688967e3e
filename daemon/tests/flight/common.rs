//! A server with a stub for an engine, and clients.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{Action, FlightData, FlightDescriptor};
use futures::StreamExt;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sherwood_daemon::engine::{Request, Submission};
use sherwood_daemon::flight::{Access, Announced, Limits, Options, Running, serve};
use sherwood_shared::transaction::Answer;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

pub type Client = FlightServiceClient<Channel>;

/// Answers what it gets at once, and remembers it. A task "never" is not answered, "dropped" is dropped.
#[derive(Clone, Default)]
pub struct Engine {
    pub seen: Arc<Mutex<Vec<Request>>>,
    pub kept: Arc<Mutex<Vec<Submission>>>,
}

impl Engine {
    pub fn submit(&self, submission: Submission) {
        let Submission { request, reply } = submission;
        let id = request.id().map(str::to_owned);
        match id.as_deref() {
            Some("never") => {
                self.kept
                    .lock()
                    .unwrap()
                    .push(Submission { request, reply });
                return;
            }
            Some("dropped") => return,
            _ => {}
        }
        let number = {
            let mut seen = self.seen.lock().unwrap();
            seen.push(request);
            seen.len() as u64
        };
        reply(Answer::done(id, number));
    }

    /// How many are not answered yet.
    pub fn kept(&self) -> usize {
        self.kept.lock().unwrap().len()
    }

    /// Answers the oldest of those.
    pub fn release(&self, generation: u64) {
        let Submission { reply, .. } = self.kept.lock().unwrap().remove(0);
        reply(Answer::done(None, generation));
    }

    pub fn seen(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

/// A server on a socket of its own.
pub struct Server {
    pub dir: TempDir,
    pub engine: Engine,
    pub running: Running,
}

pub fn options(dir: &Path) -> Options {
    Options {
        socket: dir.join("c.sock"),
        snapshot: dir.join("c.arrow"),
        snapshot_mode: 0o644,
        access: Access::resolve(&[], &[]).0,
        limits: Limits::default(),
        outcome: Box::new(|id, reply| {
            reply(Answer::unknown(Some(id.to_owned()), "not remembered"))
        }),
        status: Box::new(|| json!({"good": true})),
        changes: None,
        announced: watch::channel(Announced::default()).1,
    }
}

impl Server {
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("c.arrow"), "").unwrap();
        let mut options = options(dir.path());
        change(&mut options);
        let engine = Engine::default();
        let to = engine.clone();
        let running = serve(options, move |submission| to.submit(submission)).unwrap();
        Self {
            dir,
            engine,
            running,
        }
    }

    pub async fn client(&self) -> Client {
        client(self.running.path()).await
    }
}

pub async fn client(socket: &Path) -> Client {
    Client::new(channel(socket).await).max_decoding_message_size(usize::MAX)
}

pub async fn channel(socket: &Path) -> Channel {
    let socket = socket.to_path_buf();
    let connect = move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    };
    let endpoint = Endpoint::from_static("http://localhost");
    endpoint
        .connect_with_connector(tower::service_fn(connect))
        .await
        .unwrap()
}

/// The one answer to an action.
pub async fn act(
    client: &mut Client,
    action: &str,
    body: impl Into<bytes::Bytes>,
) -> Result<Value, Status> {
    let mut answers = client
        .do_action(Action::new(action, body))
        .await?
        .into_inner();
    let answer = answers.next().await.expect("one answer")?;
    assert!(answers.next().await.is_none(), "only one answer");
    Ok(serde_json::from_slice(&answer.body).expect("JSON"))
}

/// An exchange: where to send messages, and where answers come from.
pub struct Exchange {
    pub send: Option<mpsc::UnboundedSender<FlightData>>,
    pub answers: Streaming<FlightData>,
}

pub fn message(body: impl Into<bytes::Bytes>) -> FlightData {
    FlightData {
        app_metadata: body.into(),
        ..FlightData::default()
    }
}

impl Exchange {
    pub async fn begin(client: &mut Client, command: &'static str) -> Result<Self, Status> {
        let (send, messages) = mpsc::unbounded_channel();
        let first = FlightData {
            flight_descriptor: Some(FlightDescriptor::new_cmd(command)),
            ..FlightData::default()
        };
        send.send(first).unwrap();
        let answers = client
            .do_exchange(UnboundedReceiverStream::new(messages))
            .await?
            .into_inner();
        Ok(Self {
            send: Some(send),
            answers,
        })
    }

    /// Sends a request, if the call has not ended.
    pub fn ask(&self, body: impl Into<bytes::Bytes>) {
        let _ended = self.send.as_ref().unwrap().send(message(body));
    }

    pub async fn answer(&mut self) -> Option<Result<Value, Status>> {
        let data = self.answers.next().await?;
        Some(data.map(|data| serde_json::from_slice(&data.app_metadata).expect("JSON")))
    }
}

/// On a runtime of the test's own.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(Duration::ZERO);
    done
}

/// Until something that has to come is there. Endless if it does not come: the test's runner ends it.
pub async fn wait_for(mut is_there: impl FnMut() -> bool) {
    while !is_there() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
