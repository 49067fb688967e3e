//! The fast path makes no syscall and runs on a mapping without write permission.
//!
//! A child reads under strace; this process publishes. Two marks in the trace, each a look at a path that is nowhere,
//! stand before and after what must be silent.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use sherwood_daemon::publish::{Options, Publisher};
use sherwood_tests::daemon::{binary, state_with_tasks};
use sherwood_tests::needs;

#[test]
fn reading_and_refreshing_make_no_syscall_and_need_no_write_permission() {
    const TASKS: usize = 64;
    let strace = needs::program("strace", "strace");
    let dir = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let options = Options {
        run_dir: dir.path().to_owned(),
        cluster_id: "fast".to_owned(),
        state_dir: (1, 2),
        history: [7; 16],
        // Room for every publish of this test: no new region, so nothing to lease.
        region_bytes: Some(256 << 20),
        chunk_bytes: Some(4096),
        mode: 0o644,
    };
    let mut publisher = Publisher::start(options, &state_with_tasks("fast", TASKS, 0), 1).unwrap();
    let trace = dir.path().join("trace");
    let mut child = Command::new(strace)
        .args(["-f", "-o"])
        .arg(&trace)
        .arg(binary("test_fast_reader"))
        .arg(publisher.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = || lines.next().expect("the reader says something").unwrap();
    assert_eq!(said(), "attached", "does strace work here (ptrace)?");
    // The reader has looked a million times. Now it wants changes, until it has seen enough.
    assert_eq!(said(), "looked");
    let (done, is_done) = std::sync::mpsc::channel();
    let follower = std::thread::spawn(move || {
        let rest: Vec<String> = lines.map_while(Result::ok).collect();
        let _test_has_failed = done.send(());
        rest
    });
    let mut turn = 0;
    while is_done.try_recv().is_err() {
        turn += 1;
        publisher
            .publish(&state_with_tasks("fast", TASKS, turn))
            .unwrap();
        assert!(turn < 200_000, "the reader never saw enough");
    }
    drop(child.stdin.take());
    let maps = follower.join().unwrap();
    assert!(child.wait().unwrap().success());

    let trace = fs::read_to_string(&trace).unwrap();
    for (name, begin, end) in [
        ("1,000,000 looks", "/mark/looks-begin", "/mark/looks-end"),
        (
            "1,000 refreshes",
            "/mark/refreshes-begin",
            "/mark/refreshes-end",
        ),
    ] {
        let calls: Vec<&str> = trace
            .lines()
            .skip_while(|line| !line.contains(begin))
            .skip(1)
            .take_while(|line| !line.contains(end))
            .collect();
        assert!(
            trace.contains(begin) && trace.contains(end),
            "no marks of {name}"
        );
        assert_eq!(calls, [""; 0], "syscalls during {name}");
    }
    let name = publisher.path().to_str().unwrap();
    let ours: Vec<&String> = maps.iter().filter(|line| line.contains(name)).collect();
    assert!(
        ours.len() >= 2,
        "the header and a region are mapped: {maps:#?}"
    );
    for line in ours {
        assert!(
            line.contains(" r--s "),
            "more than reading is allowed: {line}"
        );
    }
    let _nothing_is_left_to_say = std::io::stdout().flush();
}
