//! Connections: accepting them, and ending them.
//!
//! - **FJ1** A connection beyond what its user may have (FQ2) is closed at once; one without a call within
//!   [`Limits::first_call`] later.
//! - **FJ2** A stop takes no new connection, tells clients to send nothing more, waits for answers until its deadline,
//!   and then closes. What was submitted is the engine's, answered or not.
//! - **FJ3** Whoever may read or write may connect: everybody, if others may read the snapshot or the settings name
//!   other writers, and else the daemon's own user and group, who may always write. A reload counts at once.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;
use sherwood_shared::transaction::Answer;
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tonic::Status;
use tower::Service as _;
use tracing::{debug, warn};

use super::Submit;
use super::body::{Between, Counted};
use super::limits::{
    CONNECTION_WINDOW, FRAME_BYTES, HEADER_BYTES, KEEP_ALIVE, Limits, SEND_BUFFER, STREAM_WINDOW,
};
use super::peer::{Access, Peer};
use super::quota::Quota;
use super::service::FlightService;
use super::socket::{self, SocketError};
use super::watch::{Announced, ChangeSource, readers};
use crate::engine::Submission;

/// Threads that serve connections. They only move bytes: the engine has its own.
const WORKERS: usize = 2;

/// How long accepting rests after the kernel refused, as when descriptors have run out.
const REST: Duration = Duration::from_millis(100);

/// Descriptors for all that is no connection.
const OTHER_FILES: u64 = 512;

/// Asks for the outcome of an id. The function may be called from any thread; must not block.
pub type AskOutcome = Box<dyn Fn(&str, Box<dyn FnOnce(Answer) + Send>) + Send + Sync>;

/// What the server serves, and to whom.
pub struct Options {
    /// The socket's name.
    pub socket: PathBuf,
    /// The snapshot file, which tables are read from.
    pub snapshot: PathBuf,
    /// The snapshot file's mode: who may read it may connect.
    pub snapshot_mode: u32,
    /// Who may write.
    pub access: Access,
    /// How much anybody may ask for.
    pub limits: Limits,
    /// What became of an id.
    pub outcome: AskOutcome,
    /// What the daemon says of itself.
    pub status: Box<dyn Fn() -> Value + Send + Sync>,
    /// Where watchers read changes; `None`: nowhere.
    pub changes: Option<Arc<dyn ChangeSource>>,
    /// Which of them are durable and visible. The sender's end ends all watches.
    pub announced: watch::Receiver<Announced>,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// No socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// No threads.
    #[error("cannot start the threads that serve writers")]
    Threads(#[source] io::Error),
}

/// What all calls share.
pub(super) struct Shared {
    pub(super) snapshot: PathBuf,
    pub(super) limits: Limits,
    pub(super) access: RwLock<Arc<Access>>,
    pub(super) bytes: Arc<Quota>,
    connections: Arc<Quota>,
    pub(super) outcome: AskOutcome,
    pub(super) status: Box<dyn Fn() -> Value + Send + Sync>,
    pub(super) submit: Submit,
    pub(super) changes: Option<Arc<dyn ChangeSource>>,
    pub(super) announced: watch::Receiver<Announced>,
    pub(super) watches: Arc<Quota>,
    pub(super) log_readers: Arc<Semaphore>,
    /// True: stop.
    pub(super) stop: watch::Receiver<bool>,
}

impl Shared {
    pub(super) fn access(&self) -> Arc<Access> {
        let access = self.access.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&access)
    }
}

/// What is in use of the [`Limits`] of the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Open connections.
    pub connections: usize,
    /// Charged to requests that are under way.
    pub request_bytes: usize,
    /// Watches.
    pub watches: usize,
}

/// A server that runs. Dropping it stops it without waiting.
pub struct Running {
    runtime: Option<Runtime>,
    shared: Arc<Shared>,
    path: PathBuf,
    snapshot_mode: u32,
    name: Mutex<socket::Name>,
    listeners: mpsc::UnboundedSender<std::os::unix::net::UnixListener>,
    stop: watch::Sender<bool>,
    done: std::sync::mpsc::Receiver<()>,
}

/// Binds the socket and serves it. Connections are accepted when this returns.
///
/// `submit` gets every request of somebody who may write, from the server's threads; it must not block.
pub fn serve(
    options: Options,
    submit: impl Fn(Submission) + Send + Sync + 'static,
) -> Result<Running, ServeError> {
    let snapshot_mode = options.snapshot_mode;
    let mode = socket_mode(snapshot_mode, &options.access);
    let (listener, name) = socket::bind(&options.socket, mode)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(8)
        .thread_name("flight")
        .enable_all()
        .build();
    let runtime = runtime.map_err(ServeError::Threads)?;
    let listener = {
        let _context = runtime.enter();
        UnixListener::from_std(listener).map_err(ServeError::Threads)?
    };
    let (stop, stopping) = watch::channel(false);
    let (listeners, more_listeners) = mpsc::unbounded_channel();
    let (ended, done) = std::sync::mpsc::channel();
    let shared = Arc::new(Shared {
        snapshot: options.snapshot,
        access: RwLock::new(Arc::new(options.access)),
        bytes: Quota::new(options.limits.request_bytes),
        connections: Quota::new(options.limits.connections),
        watches: Quota::new(options.limits.watches),
        log_readers: readers(),
        limits: options.limits,
        changes: options.changes,
        announced: options.announced,
        outcome: options.outcome,
        status: options.status,
        submit: Box::new(submit),
        stop: stopping,
    });
    raise_file_limit(shared.limits.connections as u64 + OTHER_FILES);
    let accepting = accept(Arc::clone(&shared), listener, more_listeners);
    runtime.spawn(async move {
        accepting.await;
        let _nobody_waits = ended.send(());
    });
    Ok(Running {
        runtime: Some(runtime),
        shared,
        path: options.socket,
        snapshot_mode,
        name: Mutex::new(name),
        listeners,
        stop,
        done,
    })
}

/// FJ3.
fn socket_mode(snapshot_mode: u32, access: &Access) -> u32 {
    match snapshot_mode & 0o004 != 0 || access.names_others() {
        true => 0o666,
        false => 0o660,
    }
}

impl Running {
    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who may write from now on, on connections that are open too (FJ3).
    pub fn set_access(&self, access: Access) {
        let name = self.name.lock().unwrap_or_else(PoisonError::into_inner);
        let mode = socket_mode(self.snapshot_mode, &access);
        {
            let mut slot = self
                .shared
                .access
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            *slot = Arc::new(access);
        }
        if let Err(error) = name.set_mode(mode) {
            warn!(%error, socket = %self.path.display(), "the socket's mode cannot be changed; who may connect is as before");
        }
    }

    /// What is in use now.
    pub fn load(&self) -> Load {
        Load {
            connections: self.shared.connections.used(),
            request_bytes: self.shared.bytes.used(),
            watches: self.shared.watches.used(),
        }
    }

    /// To be called each second, under the lock of the name: makes the socket again if it was removed or replaced
    /// (true). Connections stay.
    pub fn keep(&self) -> Result<bool, SocketError> {
        let mut name = self.name.lock().unwrap_or_else(PoisonError::into_inner);
        if name.in_place() {
            return Ok(false);
        }
        let mode = socket_mode(self.snapshot_mode, &self.shared.access());
        let (listener, new) = socket::bind(&self.path, mode)?;
        *name = new;
        let _the_server_has_ended = self.listeners.send(listener);
        Ok(true)
    }

    /// FJ2. Returns when all connections are closed, or after `deadline`.
    pub fn stop(mut self, deadline: Duration) {
        self.name
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove();
        self.stop.send_replace(true);
        let _too_late = self.done.recv_timeout(deadline);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            self.name
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove();
            self.stop.send_replace(true);
            runtime.shutdown_background();
        }
    }
}

/// The soft limit is often 1024, for programs that use select(2).
fn raise_file_limit(wanted: u64) {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < wanted {
            setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard)?;
        }
        Ok(hard)
    });
    match raised {
        Ok(hard) if hard < wanted => warn!(
            limit = hard,
            wanted,
            "the limit of open files is below what the limit of connections needs; raise LimitNOFILE"
        ),
        Ok(_) => {}
        Err(error) => warn!(%error, "the limit of open files cannot be raised"),
    }
}

/// Ends when the server is told to stop, or is gone.
pub(super) async fn told(stop: &mut watch::Receiver<bool>) {
    let _either_way = stop.wait_for(|stop| *stop).await;
}

async fn accept(
    shared: Arc<Shared>,
    mut listener: UnixListener,
    mut listeners: mpsc::UnboundedReceiver<std::os::unix::net::UnixListener>,
) {
    let mut stop = shared.stop.clone();
    let mut connections = JoinSet::new();
    let mut said = false;
    loop {
        tokio::select! {
            biased;
            () = told(&mut stop) => break,
            Some(new) = listeners.recv() => match UnixListener::from_std(new) {
                Ok(new) => listener = new,
                Err(error) => warn!(%error, "the socket that was made again cannot be served"),
            },
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    said = false;
                    connections.spawn(connection(Arc::clone(&shared), stream));
                }
                Err(error) => {
                    if !std::mem::replace(&mut said, true) {
                        warn!(%error, "connections cannot be accepted now");
                    }
                    tokio::time::sleep(REST).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// What the client says it will wait for: `grpc-timeout`, such as `250m`.
fn deadline(headers: &http::HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

fn too_late() -> Status {
    Status::deadline_exceeded(
        "no answer within the client's deadline; a transaction may have been done: ask again with the same id",
    )
}

/// One connection, from its first byte to its last.
async fn connection(shared: Arc<Shared>, stream: UnixStream) {
    let Ok(credentials) = stream.peer_cred() else {
        return;
    };
    let (uid, gid) = (credentials.uid(), credentials.gid());
    // FJ1.
    let Some(_place) = shared.connections.take(uid, 1) else {
        debug!(uid, "a connection more than its user may have was closed");
        return;
    };
    let looked_up = tokio::task::spawn_blocking(move || Peer::look_up(uid, gid)).await;
    let Ok(peer) = looked_up else {
        return;
    };
    let limits = &shared.limits;
    let service = FlightService::new(Arc::clone(&shared), Arc::new(peer));
    let service = FlightServiceServer::new(service)
        .max_decoding_message_size(limits.message_bytes())
        .max_encoding_message_size(usize::MAX);
    let calls = Arc::new(AtomicUsize::new(0));
    let handler = {
        let (shared, calls) = (Arc::clone(&shared), Arc::clone(&calls));
        service_fn(move |request: http::Request<Incoming>| {
            calls.fetch_add(1, Ordering::Relaxed);
            let between = match request.uri().path().ends_with("/DoExchange") {
                true => Between::Idle,
                false => Between::Stall,
            };
            let limits = &shared.limits;
            let request = request.map(|body| {
                let quota = Arc::clone(&shared.bytes);
                Counted::new(
                    body,
                    quota,
                    uid,
                    limits.message_bytes(),
                    between,
                    limits.stall,
                )
            });
            let deadline = deadline(request.headers());
            let answering = service.clone().call(request);
            async move {
                let Some(deadline) = deadline else {
                    return answering.await;
                };
                let answered = tokio::time::timeout(deadline, answering).await;
                answered.unwrap_or_else(|_| Ok(too_late().into_http()))
            }
        })
    };
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.calls_per_connection)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_BYTES)
        .max_header_list_size(HEADER_BYTES)
        .max_send_buf_size(SEND_BUFFER)
        .auto_date_header(false)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .serve_connection(TokioIo::new(stream), handler);
    tokio::pin!(served);
    let mut stop = shared.stop.clone();
    let first_call = tokio::time::sleep(limits.first_call);
    tokio::pin!(first_call);
    let (mut stopping, mut waited) = (false, false);
    loop {
        tokio::select! {
            ended = served.as_mut() => {
                if let Err(error) = ended {
                    debug!(uid, %error, "a connection ended");
                }
                return;
            }
            () = told(&mut stop), if !stopping => {
                stopping = true;
                served.as_mut().graceful_shutdown();
            }
            () = first_call.as_mut(), if !waited => {
                waited = true;
                if calls.load(Ordering::Relaxed) == 0 {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_deadline_is_read_as_grpc_writes_it() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("4m", Some(Duration::from_millis(4))),
            ("5u", Some(Duration::from_micros(5))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("123456789n", None),
            ("S", None),
            ("", None),
            ("+1S", None),
            ("1", None),
            ("1s", None),
        ] {
            let mut headers = http::HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            assert_eq!(deadline(&headers), expected, "{text:?}");
        }
    }
}
