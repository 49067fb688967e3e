//! Clients that do not keep to the protocol, or want too much. The others get their answers all the same.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::task::{Context, Poll};
use std::time::Duration;

use arrow_flight::{Action, Empty};
use bytes::Bytes;
use futures::StreamExt;
use http_body::{Body, Frame};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::geteuid;
use prost::Message;
use sherwood_daemon::flight::Access;
use tokio::sync::mpsc;
use tonic::{Code, Status};
use tower::Service;

use crate::common::{Server, act, block_on, channel, wait_for};

/// A call's bytes as the test sends them; the call ends when the sender is dropped.
struct Bare(mpsc::UnboundedReceiver<Bytes>);

impl Body for Bare {
    type Data = Bytes;
    type Error = Status;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.0
            .poll_recv(cx)
            .map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// A call of bare bytes, and what becomes of it: in a task of its own.
fn call(
    socket: &Path,
    method: &'static str,
) -> (
    mpsc::UnboundedSender<Bytes>,
    tokio::task::JoinHandle<Status>,
) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let socket = socket.to_path_buf();
    let called = tokio::spawn(async move {
        let mut channel = channel(&socket).await;
        let request = http::Request::post(format!(
            "http://localhost/arrow.flight.protocol.FlightService/{method}"
        ))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(Bare(receiver)))
        .unwrap();
        std::future::poll_fn(|cx| channel.poll_ready(cx))
            .await
            .unwrap();
        match channel.call(request).await {
            Ok(response) => {
                Status::from_header_map(response.headers()).unwrap_or_else(|| Status::ok(""))
            }
            Err(error) => Status::unknown(error.to_string()),
        }
    });
    (sender, called)
}

/// The bytes of a message that says that it is `len` long.
fn prefix(len: usize) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
    bytes.into()
}

/// Still served?
async fn still_serves(server: &Server) {
    let answer = act(&mut server.client().await, "start", r#"{"task":"t"}"#)
        .await
        .unwrap();
    assert_eq!(answer["outcome"], "done");
}

#[test]
fn garbage_half_closed_and_silent_connections_are_closed() {
    block_on(async {
        let server = Server::with(|options| options.limits.first_call = Duration::from_millis(50));
        let path = server.running.path();
        let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        for (bytes, half_closed) in [
            (&b""[..], false),
            (b"", true),
            (&hello[..10], false),
            (hello, false),
            (hello, true),
            (b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n", false),
            (&[0xff; 10_000], false),
            // A header frame that never ends.
            (
                &[hello, &b"\0\x40\0\x01\x04\0\0\0\x01\x82\x82"[..]].concat(),
                false,
            ),
            // A frame larger than was agreed.
            (&[hello, &b"\xff\xff\xff\0\0\0\0\0\x01"[..]].concat(), false),
        ] {
            let mut stream = UnixStream::connect(path).unwrap();
            stream.write_all(bytes).unwrap();
            if half_closed {
                stream.shutdown(Shutdown::Write).unwrap();
            }
            wait_for(|| server.running.load().connections == 0).await;
            // Whatever it was told before that, it is at an end now.
            let _reset = stream.read_to_end(&mut Vec::new());
        }
        still_serves(&server).await;
    });
}

#[test]
fn a_message_that_begins_and_does_not_end_costs_its_call_and_nothing_else() {
    block_on(async {
        let server = Server::with(|options| options.limits.stall = Duration::from_millis(50));
        for method in ["DoAction", "DoPut", "DoExchange", "GetFlightInfo"] {
            for bytes in [&b""[..], b"\0", b"\0\0\0\0\x64", b"\0\0\0\0\x64slow"] {
                if bytes.is_empty() && method == "DoExchange" {
                    continue;
                }
                let (sender, called) = call(server.running.path(), method);
                sender.send(Bytes::copy_from_slice(bytes)).unwrap();
                // An exchange answers before it reads, so that its end is not among the headers.
                if method == "DoExchange" {
                    called.await.unwrap();
                } else {
                    let status = called.await.unwrap();
                    assert_eq!(
                        status.code(),
                        Code::DeadlineExceeded,
                        "{method} {bytes:?}: {status}"
                    );
                }
            }
        }
        wait_for(|| server.running.load().request_bytes == 0).await;
        still_serves(&server).await;
    });
}

#[test]
fn truncated_and_garbled_messages_are_errors() {
    block_on(async {
        let server = Server::start();
        let action = Action::new("start", r#"{"task":"t"}"#).encode_to_vec();
        for method in [
            "DoAction",
            "DoPut",
            "ListActions",
            "GetSchema",
            "DoGet",
            "Handshake",
            "Explode",
        ] {
            for bytes in [
                [&prefix(action.len())[..], &action[..action.len() / 2]].concat(),
                [&prefix(20)[..], &[0xff; 20]].concat(),
                vec![0, 0, 0],
                vec![1, 0, 0, 0, 1, 7],
                vec![9, 0, 0, 0, 1, 7],
            ] {
                let (sender, called) = call(server.running.path(), method);
                sender.send(bytes.clone().into()).unwrap();
                drop(sender);
                let status = called.await.unwrap();
                assert_ne!(status.code(), Code::Ok, "{method} {bytes:?}");
            }
        }
        assert_eq!(server.engine.seen(), 0);
        still_serves(&server).await;
    });
}

#[test]
fn oversized_messages_are_refused_before_their_bytes_are_taken() {
    block_on(async {
        let server = Server::with(|options| options.limits.json_bytes = 10_000);
        let (sender, called) = call(server.running.path(), "DoAction");
        sender.send(prefix(100 << 20)).unwrap();
        let status = called.await.unwrap();
        assert_eq!(status.code(), Code::OutOfRange, "{status}");
        assert_eq!(server.running.load().request_bytes, 0);
        let mut client = server.client().await;
        let long = format!(r#"{{"task":"{}"}}"#, "t".repeat(10_000));
        let answer = act(&mut client, "start", long).await.unwrap();
        assert_eq!(answer["outcome"], "refused");
        assert!(
            answer["reason"].as_str().unwrap().contains("10000"),
            "{answer}"
        );
    });
}

#[test]
fn announced_messages_are_charged_and_no_user_gets_more_than_his_share() {
    block_on(async {
        let server = Server::start();
        let len = 20 << 20;
        let mut calls = Vec::new();
        for _ in 0..2 {
            let (sender, called) = call(server.running.path(), "DoAction");
            sender.send(prefix(len)).unwrap();
            calls.push((sender, called));
        }
        wait_for(|| server.running.load().request_bytes == 2 * len).await;
        let (sender, called) = call(server.running.path(), "DoAction");
        sender.send(prefix(len)).unwrap();
        let status = called.await.unwrap();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        still_serves(&server).await;
        for (sender, called) in calls {
            called.abort();
            drop(sender);
        }
        wait_for(|| server.running.load().request_bytes == 0).await;
    });
}

#[test]
fn a_client_that_waits_no_longer_is_told_so_and_the_engine_decides_alone() {
    block_on(async {
        let server = Server::start();
        let mut client = server.client().await;
        let mut request = tonic::Request::new(Action::new("start", r#"{"id":"never","task":"t"}"#));
        // Long enough to come to the engine first.
        request.set_timeout(Duration::from_secs(1));
        let status = client.do_action(request).await.unwrap_err();
        assert!(
            matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled),
            "{status}"
        );
        assert_eq!(server.engine.kept(), 1);
        server.engine.release(1);
    });
}

#[test]
fn an_engine_that_is_silent_too_long_makes_the_answer_unknown() {
    block_on(async {
        let server = Server::with(|options| options.limits.answer = Duration::from_millis(30));
        let answer = act(
            &mut server.client().await,
            "start",
            r#"{"id":"never","task":"t"}"#,
        )
        .await
        .unwrap();
        assert_eq!(
            (answer["id"].as_str(), answer["outcome"].as_str()),
            (Some("never"), Some("unknown"))
        );
    });
}

#[test]
fn the_sockets_mode_follows_a_reload_and_its_own_group_may_always_connect() {
    block_on(async {
        let server = Server::with(|options| options.snapshot_mode = 0o600);
        let path = server.running.path();
        let mode = || std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o660, "members of the daemon's own group may write");
        let access = |users: &[String]| Access::resolve(users, &[]).0;
        server.running.set_access(access(&["77".to_owned()]));
        assert_eq!(mode(), 0o666, "user 77 may write now");
        std::fs::remove_file(path).unwrap();
        assert!(server.running.keep().unwrap());
        assert_eq!(mode(), 0o666, "made again as it was last");
        server.running.set_access(access(&[]));
        assert_eq!(mode(), 0o660);
        still_serves(&server).await;
    });
}

#[test]
fn the_socket_that_was_removed_is_made_again_and_connections_stay() {
    block_on(async {
        let server = Server::start();
        let mut before = server.client().await;
        act(&mut before, "start", r#"{"task":"t"}"#).await.unwrap();
        assert!(!server.running.keep().unwrap());
        std::fs::remove_file(server.running.path()).unwrap();
        assert!(server.running.keep().unwrap());
        still_serves(&server).await;
        act(&mut before, "start", r#"{"task":"t"}"#).await.unwrap();
    });
}

/// What the child of the tests below does; a test only so that the harness runs it.
#[test]
fn as_somebody_else() {
    let Some(socket) = std::env::var_os("SHERWOOD_TEST_SOCKET") else {
        return;
    };
    let socket = Path::new(&socket);
    match std::env::var("SHERWOOD_TEST_CONNECTIONS") {
        Ok(count) => {
            let count: usize = count.parse().unwrap();
            let _held: Vec<_> = (0..count).map(|_| UnixStream::connect(socket)).collect();
            println!("connected");
            let _until_told = std::io::stdin().read(&mut [0]);
        }
        Err(_) => block_on(async {
            let mut client = crate::common::client(socket).await;
            let written = act(&mut client, "start", r#"{"task":"t"}"#).await;
            let status = act(&mut client, "status", "").await;
            let listed = client
                .list_actions(Empty {})
                .await
                .unwrap()
                .into_inner()
                .count()
                .await;
            println!("written: {written:?}\nstatus: {status:?}\nlisted: {listed}");
        }),
    }
}

/// This program again, as a user whom nobody knows.
fn somebody_else(server: &Server, uid: u32) -> Command {
    use std::os::unix::fs::PermissionsExt;
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(server.dir.path(), open.clone()).unwrap();
    let program = server.dir.path().join("test");
    if !program.exists() {
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        std::fs::set_permissions(&program, open).unwrap();
    }
    let mut command = Command::new(program);
    command
        .args([
            "--exact",
            "abuse::as_somebody_else",
            "--nocapture",
            "--test-threads=1",
        ])
        .env("SHERWOOD_TEST_SOCKET", server.running.path())
        .uid(uid)
        .gid(uid)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

/// True: the test cannot run, and says so.
fn is_not_root(name: &str) -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        let _nobody_listens = writeln!(std::io::stderr(), "NOT RUN: {name}: needs root");
        let required = std::env::var_os("SHERWOOD_REQUIRE_ALL").is_some_and(|value| value == "1");
        assert!(
            !required,
            "{name} was not run (needs root), and SHERWOOD_REQUIRE_ALL=1 requires it"
        );
    }
    !is_root
}

#[test]
fn who_may_not_write_is_told_who_he_is_and_who_can_change_it_and_a_reload_counts() {
    if is_not_root("who may not write") {
        return;
    }
    block_on(async {
        let server = Server::start();
        let said = |server: &Server| {
            let output = somebody_else(server, 54_321).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let refused = said(&server);
        for fact in [
            "PermissionDenied",
            "uid 54321",
            "write_users",
            "status: Ok",
            "listed: 21",
        ] {
            assert!(refused.contains(fact), "{fact}: {refused}");
        }
        assert_eq!(server.engine.seen(), 0);
        let (access, unknown) = Access::resolve(&["54321".to_owned()], &[]);
        assert_eq!(unknown, [] as [String; 0]);
        server.running.set_access(access);
        let taken = said(&server);
        assert!(taken.contains("written: Ok"), "{taken}");
        // Who may not read the snapshot reads nothing here either.
        let snapshot = server.dir.path().join("c.arrow");
        std::fs::set_permissions(snapshot, PermissionsExt::from_mode(0o600)).unwrap();
        let blind = said(&server);
        assert!(
            blind.contains("may not read") && blind.contains("snapshot_mode"),
            "{blind}"
        );
    });
}

#[test]
fn a_thousand_connections_of_one_user_leave_room_for_others() {
    if is_not_root("a thousand connections") {
        return;
    }
    block_on(async {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 4096.min(hard), hard).unwrap();
        let server = Server::start();
        let mut crowd = somebody_else(&server, 54_322)
            .env("SHERWOOD_TEST_CONNECTIONS", "1000")
            .spawn()
            .unwrap();
        wait_for(|| server.running.load().connections == 682).await;
        still_serves(&server).await;
        let mut held = Vec::new();
        for _ in 0..64 {
            let mut client = server.client().await;
            act(&mut client, "start", r#"{"task":"t"}"#).await.unwrap();
            held.push(client);
        }
        drop(crowd.stdin.take());
        crowd.wait().unwrap();
        wait_for(|| server.running.load().connections == 64).await;
    });
}
