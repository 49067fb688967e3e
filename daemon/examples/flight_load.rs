//! What the way in costs by itself: an engine that answers at once, and clients with one request each under way.
//!
//!     cargo run --release -p sherwood-daemon --example flight_load -- [CONNECTIONS [SECONDS]]
//!
//! Clients run in a process of their own. Prints transactions per second and CPU microseconds per transaction
//! of either side, for single calls (DoAction) and for an exchange per connection (DoExchange).

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{Action, FlightData, FlightDescriptor};
use futures::StreamExt;
use hyper_util::rt::TokioIo;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde_json::json;
use sherwood_daemon::engine::Submission;
use sherwood_daemon::flight::{Access, Announced, Limits, Options, serve};
use sherwood_shared::transaction::Answer;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, socket, connections, seconds] = &args[..] {
        return client(
            mode,
            Path::new(socket),
            connections.parse()?,
            seconds.parse()?,
        );
    }
    let connections = args.first().map_or("64", String::as_str);
    let seconds = args.get(1).map_or("5", String::as_str);
    let dir = std::env::temp_dir().join(format!("sherwood-flight-load-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    let (submissions, queue) = std::sync::mpsc::channel::<Submission>();
    std::thread::spawn(move || {
        // As the engine does: what has queued is one group.
        while let Ok(first) = queue.recv() {
            for submission in std::iter::once(first).chain(queue.try_iter()) {
                (submission.reply)(Answer::done(None, 1));
            }
        }
    });
    let options = Options {
        socket: dir.join("load.sock"),
        snapshot: dir.join("load.arrow"),
        snapshot_mode: 0o600,
        access: Access::resolve(&[], &[]).0,
        limits: Limits::default(),
        outcome: Box::new(|_, reply| reply(Answer::unknown(None, ""))),
        status: Box::new(|| json!({})),
        changes: None,
        announced: watch::channel(Announced::default()).1,
    };
    let server = serve(options, move |submission| {
        let _ended = submissions.send(submission);
    })?;
    for mode in ["action", "exchange"] {
        let before = cpu()?;
        let output = Command::new(std::env::current_exe()?)
            .args([mode, &server.path().to_string_lossy(), connections, seconds])
            .output()?;
        let spent = cpu()? - before;
        let said = String::from_utf8(output.stdout)?;
        let count: u64 = said.split_whitespace().next().unwrap_or("0").parse()?;
        let per = spent.as_secs_f64() * 1e6 / count.max(1) as f64;
        println!("{mode}: {} server {per:.1} us", said.trim());
    }
    server.stop(Duration::from_secs(1));
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

fn cpu() -> Outcome<Duration> {
    let used = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = used.user_time().num_microseconds() + used.system_time().num_microseconds();
    Ok(Duration::from_micros(micros.try_into()?))
}

fn client(mode: &str, socket: &Path, connections: usize, seconds: u64) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let done = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let until = began + Duration::from_secs(seconds);
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for number in 0..connections {
            let (socket, done, is_exchange) =
                (socket.to_path_buf(), Arc::clone(&done), mode == "exchange");
            tasks.push(tokio::spawn(async move {
                let client = connect(socket).await?;
                if is_exchange {
                    exchanges(client, number, until, &done).await
                } else {
                    actions(client, number, until, &done).await
                }
            }));
        }
        for task in tasks {
            task.await??;
        }
        Outcome::Ok(())
    })?;
    let count = done.load(Ordering::Relaxed);
    let rate = count as f64 / began.elapsed().as_secs_f64();
    let per = cpu()?.as_secs_f64() * 1e6 / count.max(1) as f64;
    println!(
        "{count} transactions, {rate:.0} per second; CPU per transaction: client {per:.1} us,"
    );
    Ok(())
}

async fn connect(socket: PathBuf) -> Outcome<FlightServiceClient<Channel>> {
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://localhost")
        .connect_with_connector(connector)
        .await?;
    Ok(FlightServiceClient::new(channel))
}

/// One row's patch, under a condition.
fn body(number: usize, turn: u64) -> String {
    format!(
        r#"{{"do":"transaction","id":"0b8e5a3e-{number}-{turn}","if":[{{"table":"tasks","key":"task-{number}","column":"status","equals":"pending"}}],"ops":[{{"patch":"tasks","key":"task-{number}","set":{{"status":"assigned","assigned_to":"node-7"}}}}]}}"#
    )
}

async fn actions(
    mut client: FlightServiceClient<Channel>,
    number: usize,
    until: Instant,
    done: &AtomicU64,
) -> Outcome<()> {
    for turn in 0.. {
        if Instant::now() >= until {
            break;
        }
        let body = body(number, turn).replace("\"do\":\"transaction\",", "");
        let mut answers = client
            .do_action(Action::new("transaction", body))
            .await?
            .into_inner();
        while let Some(answer) = answers.next().await {
            answer?;
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn exchanges(
    mut client: FlightServiceClient<Channel>,
    number: usize,
    until: Instant,
    done: &AtomicU64,
) -> Outcome<()> {
    let (send, messages) = mpsc::unbounded_channel();
    send.send(FlightData {
        flight_descriptor: Some(FlightDescriptor::new_cmd("{\"transactions\":1}")),
        ..FlightData::default()
    })?;
    let mut answers = client
        .do_exchange(UnboundedReceiverStream::new(messages))
        .await?
        .into_inner();
    for turn in 0.. {
        if Instant::now() >= until {
            break;
        }
        send.send(FlightData {
            app_metadata: body(number, turn).into(),
            ..FlightData::default()
        })?;
        answers.next().await.ok_or("no answer")??;
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
