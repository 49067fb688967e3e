//! What the program says of a state that a daemon serves, or served.

mod common;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow_ipc::reader::FileReader;
use arrow_select::concat::concat_batches;
use common::{Host, Ran, name_snapshot, publisher, state_in, with_tasks};
use serde_json::{Value, json};
use sherwood_daemon::publish::Publisher;

/// Beats as a live daemon does, until dropped.
struct Beating {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<Publisher>>,
}

impl Beating {
    fn start(mut publisher: Publisher) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                publisher.beat().expect("beats");
                std::thread::sleep(Duration::from_millis(20));
            }
            publisher
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn a_run_directory_alone_is_enough_and_several_snapshots_are_listed() {
    let host = Host::new();
    let a = host.sample_of("a", "alpha", 7);
    let _alpha = host.publish(&a, "run");
    let status =
        |more: &[&str]| host.run(&[&["--run-dir", "run", "status", "-o", "json"], more].concat());
    let one = status(&[]).ended(0).json();
    assert_eq!(
        (&one["cluster_id"], &one["tasks"]),
        (&json!("alpha"), &json!(7))
    );
    let by_environment: Ran = host
        .command(&["status", "-o", "json"])
        .env("SHERWOOD_RUN_DIR", "run")
        .output()
        .expect("runs")
        .into();
    assert_eq!(by_environment.ended(0).json()["cluster_id"], "alpha");
    // The command line is not contradicted by the environment.
    let other = host.sample_of("other", "other", 9);
    let by_both: Ran = host
        .command(&["--run-dir", "run", "status", "-o", "json"])
        .env("SHERWOOD_STATE_DIR", other)
        .output()
        .expect("runs")
        .into();
    assert_eq!(by_both.ended(0).json()["cluster_id"], "alpha");

    let b = host.sample_of("b", "beta", 8);
    let _beta = host.publish(&b, "run");
    let several = status(&[]).ended(1);
    assert!(
        several.stderr.contains("alpha.arrow") && several.stderr.contains("beta.arrow"),
        "{several:?}"
    );
    let chosen = status(&["--cluster-id", "beta"]).ended(0).json();
    assert_eq!(
        (&chosen["cluster_id"], &chosen["tasks"]),
        (&json!("beta"), &json!(8))
    );
    status(&["--cluster-id", "gamma"]).ended(4);
}

#[test]
fn a_run_directory_that_only_the_environment_names_may_have_lost_its_snapshot() {
    let host = Host::new();
    host.sample("home/.ipfs/cluster_state");
    host.run_dir("run");
    for run_dir in ["run", "nowhere"] {
        let command = |args: &[&str]| host.command(args).env("SHERWOOD_RUN_DIR", run_dir).output();
        let status: Ran = command(&["status", "-o", "json"]).expect("runs").into();
        assert_eq!(status.ended(0).json()["tasks"], 40, "{run_dir}");
        let insisting: Ran = command(&["--run-dir", run_dir, "status"])
            .expect("runs")
            .into();
        insisting.ended(4);
    }
}

#[test]
fn a_live_snapshot_is_read_in_place_of_the_parquet_file() {
    let host = Host::new();
    let state_dir = host.sample("state");
    let mut daemon = host.publish(&state_dir, "run");
    name_snapshot(&state_dir, daemon.path());
    let fewer = with_tasks(&state_in(&state_dir), 11);
    daemon.publish(&fewer).expect("publishes");
    let status = host
        .run(&["--state-dir", "state", "status", "-o", "json"])
        .ended(0);
    assert_eq!(status.stderr, "");
    let status = status.json();
    let expected = json!({
        "cluster_id": "sample", "generation": 2, "age_seconds": status["age_seconds"],
        "stale": false, "nodes": 5, "tasks": 11, "content": 20,
        "state_path": state_dir.canonicalize().expect("is there"),
        "snapshot_path": daemon.path(), "daemon_pid": std::process::id(), "trouble": null,
    });
    assert_eq!(status, expected);
    for format in ["table", "jsonl"] {
        let get = host
            .run(&["--state-dir", "state", "get", "tasks", "-o", format])
            .ended(0);
        let headings = usize::from(format == "table");
        assert_eq!(get.lines().len(), 11 + headings, "{get:?}");
        assert_eq!(get.stderr, "");
    }
}

/// Otherwise somebody who looks at a backup sees the live cluster.
#[test]
fn a_copied_state_directory_reads_its_own_parquet_file() {
    let host = Host::new();
    let state_dir = host.sample("state");
    let mut daemon = host.publish(&state_dir, "run");
    name_snapshot(&state_dir, daemon.path());
    let fewer = with_tasks(&state_in(&state_dir), 11);
    daemon.publish(&fewer).expect("publishes");
    let copy = host.path("copy");
    std::fs::create_dir(&copy).expect("made");
    for entry in std::fs::read_dir(&state_dir).expect("listed") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), copy.join(entry.file_name())).expect("copied");
    }
    let args = [
        "--state-dir",
        "copy",
        "--run-dir",
        "run",
        "status",
        "-o",
        "json",
    ];
    let status = host.run(&args).ended(0).json();
    let facts = [
        &status["tasks"],
        &status["generation"],
        &status["snapshot_path"],
    ];
    assert_eq!(facts, [&json!(40), &Value::Null, &Value::Null], "{status}");
}

#[test]
fn a_dead_daemons_rows_are_printed_with_a_warning_unless_they_are_too_old() {
    let host = Host::new();
    let state_dir = host.sample("state");
    let mut daemon = host.publish(&state_dir, "run");
    name_snapshot(&state_dir, daemon.path());
    let fewer = with_tasks(&state_in(&state_dir), 11);
    daemon.publish(&fewer).expect("publishes");
    drop(daemon);
    for place in [["--run-dir", "run"], ["--state-dir", "state"]] {
        let run = |args: &[&str]| host.run(&[&place[..], args].concat());
        let get = run(&["get", "tasks", "-o", "jsonl"]).ended(0);
        assert_eq!(get.lines().len(), 11, "{get:?}");
        assert!(
            get.stderr.contains("warning") && get.stderr.contains("not running"),
            "{get:?}"
        );
        let refused = run(&["get", "tasks", "--max-age", "0"]).ended(4);
        assert_eq!(refused.stdout, "", "{refused:?}");
        run(&["get", "tasks", "--max-age", "3600"]).ended(0);
        let status = run(&["status", "-o", "json"]).ended(0).json();
        let facts = [
            &status["stale"],
            &status["daemon_pid"],
            &status["generation"],
        ];
        assert_eq!(facts, [&json!(true), &Value::Null, &json!(2)], "{status}");
    }
}

#[test]
fn a_parquet_file_written_after_the_daemon_died_is_newer_than_its_snapshot() {
    let host = Host::new();
    let state_dir = host.sample("state");
    let daemon = host.publish(&state_dir, "run");
    name_snapshot(&state_dir, daemon.path());
    drop(daemon);
    let later = std::time::SystemTime::now() + Duration::from_secs(60);
    let file = state_dir.join("state_sample.parquet");
    let open = || {
        std::fs::File::options()
            .append(true)
            .open(&file)
            .expect("is there")
    };
    open().set_modified(later).expect("set");
    let status = || {
        host.run(&["--state-dir", "state", "status", "-o", "json"])
            .ended(0)
    };
    let read = status().json();
    let facts = [&read["generation"], &read["stale"], &read["tasks"]];
    assert_eq!(facts, [&Value::Null, &json!(true), &json!(40)], "{read}");
    // A newer file that is damaged is no reason to show nothing.
    std::fs::write(&file, "PAR1, or half of it").expect("written");
    open().set_modified(later).expect("set");
    let read = status();
    assert!(read.stderr.contains("state_sample.parquet"), "{read:?}");
    assert_eq!(read.json()["generation"], 1);
}

#[test]
fn a_live_daemons_state_is_current_however_old_and_a_silent_ones_is_not() {
    let host = Host::new();
    let state_dir = host.sample("state");
    let daemon = host.publish(&state_dir, "run");
    let get = || host.run(&["--run-dir", "run", "get", "nodes", "--max-age", "0"]);
    // Not a measurement: a publish is a sign of life for a while.
    std::thread::sleep(Duration::from_secs(4));
    let silent = get().ended(4);
    assert!(silent.stderr.contains("sign of life"), "{silent:?}");
    let status = host
        .run(&["--run-dir", "run", "status", "-o", "json"])
        .ended(0)
        .json();
    let facts = [&status["stale"], &status["daemon_pid"]];
    assert_eq!(
        facts,
        [&json!(true), &json!(std::process::id())],
        "{status}"
    );
    let beating = Beating::start(daemon);
    get().ended(0);
    let status = host
        .run(&["--run-dir", "run", "status", "-o", "json"])
        .ended(0)
        .json();
    assert_eq!(status["stale"], false, "{status}");
    drop(beating);
}

#[test]
fn watching_prints_a_line_for_each_generation_with_what_changed() {
    let host = Host::new();
    let state_dir = host.sample("state");
    let state = state_in(&state_dir);
    let mut daemon = publisher(&state_dir, &host.run_dir("run"), &state, None);
    for format in ["text", "jsonl"] {
        let mut child = host
            .command(&[
                "--run-dir",
                "run",
                "watch",
                "--count",
                "2",
                "--timeout",
                "60",
                "-o",
                format,
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("runs");
        let mut said = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let first = said.next().expect("a line").expect("UTF-8");
        let before = daemon.generation();
        assert!(first.contains(&format!("generation {before}")), "{first}");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut next = |tasks: usize| {
            daemon
                .publish(&with_tasks(&state, tasks))
                .expect("publishes");
            lines.next().expect("a line").expect("UTF-8")
        };
        let (shrunk, grown) = (next(30), next(40));
        if format == "text" {
            assert!(
                shrunk.starts_with(&format!("generation {}  20", before + 1)),
                "{shrunk}"
            );
            assert!(
                shrunk.ends_with("nodes 5  tasks 30 (-10)  content 20"),
                "{shrunk}"
            );
            assert!(
                grown.ends_with("nodes 5  tasks 40 (+10)  content 20"),
                "{grown}"
            );
        } else {
            let line: Value = serde_json::from_str(&grown).expect("an object");
            let expected = json!({
                "generation": before + 2, "time": line["time"], "nodes": 5, "tasks": 40,
                "content": 20, "change": {"nodes": 0, "tasks": 10, "content": 0},
            });
            assert_eq!(line, expected);
        }
        assert_eq!(child.wait().expect("ends").code(), Some(0), "{format}");
    }
}

#[test]
fn a_watch_ends_with_its_time_and_says_whether_it_saw_what_it_waited_for() {
    let host = Host::new();
    let state_dir = host.sample("state");
    let _daemon = host.publish(&state_dir, "run");
    host.run(&["--run-dir", "run", "watch", "--timeout", "0.1"])
        .ended(0);
    let missed = host.run(&[
        "--run-dir",
        "run",
        "watch",
        "--count",
        "1",
        "--timeout",
        "0.1",
    ]);
    assert_eq!(missed.ended(4).stdout, "");
}

#[test]
fn a_snapshot_of_each_table_is_a_plain_arrow_file() {
    let host = Host::new();
    let state_dir = host.sample("state");
    let state = state_in(&state_dir);
    let daemon = host.publish(&state_dir, "run");
    std::fs::create_dir(host.path("out")).expect("made");
    std::fs::write(host.path("out/tasks.arrow"), "an older file").expect("written");
    let ran = host.run(&["--run-dir", "run", "snapshot", "out"]).ended(0);
    assert_eq!(ran.stdout, "");
    let read = |name: &str| {
        let file = std::fs::File::open(host.path("out").join(name)).expect("is there");
        FileReader::try_new(file, None).expect("an Arrow file")
    };
    for (name, expected) in [
        ("cluster.arrow", &state.cluster),
        ("nodes.arrow", &state.tables[0]),
        ("tasks.arrow", &state.tables[1]),
        ("content.arrow", &state.tables[2]),
    ] {
        let reader = read(name);
        let schema = reader.schema();
        let metadata = schema.metadata();
        assert_eq!(metadata["sherwood.generation"], "1", "{name}");
        assert_eq!(metadata["sherwood.cluster_id"], "sample", "{name}");
        let batches: Vec<_> = reader.map(|batch| batch.expect("a good batch")).collect();
        let batch = concat_batches(&schema, &batches).expect("batches of one table");
        assert_eq!(batch.columns(), expected.columns(), "{name}");
        assert_eq!(
            batch.schema().fields(),
            expected.schema().fields(),
            "{name}"
        );
    }
    let mut names: Vec<_> = std::fs::read_dir(host.path("out"))
        .expect("listed")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "cluster.arrow",
            "content.arrow",
            "nodes.arrow",
            "tasks.arrow"
        ]
    );
    drop(daemon);
    let dead = host.run(&["--run-dir", "run", "snapshot", "out"]).ended(0);
    assert!(dead.stderr.contains("warning"), "{dead:?}");
}
