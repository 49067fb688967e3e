//! What the program says of a state that no daemon serves.

mod common;

use std::io::Read;
use std::process::Stdio;

use common::Host;
use serde_json::{Value, json};

#[test]
fn a_state_directory_alone_is_enough_by_flag_by_environment_and_by_its_place() {
    let host = Host::new();
    host.sample("state");
    host.sample("home/.ipfs_cluster_state");
    let by_flag = host.run(&["--state-dir", "state", "get", "nodes"]).ended(0);
    assert_eq!(by_flag.lines().len(), 1 + 5, "{by_flag:?}");
    assert!(by_flag.stderr.is_empty(), "{by_flag:?}");
    let by_environment = host
        .command(&["get", "nodes"])
        .env("SHERWOOD_STATE_DIR", "state")
        .output()
        .expect("runs");
    assert_eq!(
        String::from_utf8_lossy(&by_environment.stdout),
        by_flag.stdout
    );
    let by_place = host.run(&["get", "nodes"]).ended(0);
    assert_eq!(by_place.stdout, by_flag.stdout);
    let after = host.run(&["get", "nodes", "--state-dir", "state"]).ended(0);
    assert_eq!(after.stdout, by_flag.stdout);
    let file = host
        .run(&["--parquet", "state/state_sample.parquet", "get", "nodes"])
        .ended(0);
    assert_eq!(file.stdout, by_flag.stdout);
}

#[test]
fn a_status_as_json_has_exactly_its_keys_and_nulls_where_nothing_is_known() {
    let host = Host::new();
    let state = host.sample("state");
    let status = host
        .run(&["--state-dir", "state", "status", "-o", "json"])
        .ended(0)
        .json();
    let keys: Vec<_> = status
        .as_object()
        .expect("an object")
        .keys()
        .cloned()
        .collect();
    assert_eq!(
        keys,
        [
            "cluster_id",
            "generation",
            "age_seconds",
            "stale",
            "nodes",
            "tasks",
            "content",
            "state_path",
            "snapshot_path",
            "daemon_pid",
            "trouble",
        ]
    );
    assert!(
        status["age_seconds"].as_f64().is_some_and(|age| age >= 0.0),
        "{status}"
    );
    let expected = json!({
        "cluster_id": "sample", "generation": null, "age_seconds": status["age_seconds"],
        "stale": false, "nodes": 5, "tasks": 40, "content": 20,
        "state_path": state.canonicalize().expect("is there"),
        "snapshot_path": null, "daemon_pid": null, "trouble": null,
    });
    assert_eq!(status, expected);
}

#[test]
fn json_and_jsonl_are_the_same_objects_and_ids_choose_among_them_in_their_order() {
    let host = Host::new();
    host.sample("state");
    for (table, key) in [("nodes", "id"), ("tasks", "id"), ("content", "cid")] {
        let get =
            |more: &[&str]| host.run(&[&["--state-dir", "state", "get", table], more].concat());
        let all = get(&["-o", "json"]).ended(0).json();
        let all = all.as_array().expect("an array");
        let lines = get(&["-o", "jsonl"]).ended(0);
        let lines: Vec<Value> = lines
            .lines()
            .iter()
            .map(|line| serde_json::from_str(line).expect("an object a line"))
            .collect();
        assert_eq!(&lines, all, "{table}");
        let ids: Vec<_> = all
            .iter()
            .map(|row| row[key].as_str().expect("a key"))
            .collect();
        assert!(ids.is_sorted(), "{table}: {ids:?}");
        let some = get(&[ids[4], ids[1], ids[4], "-o", "json"]).ended(0).json();
        assert_eq!(some, json!([all[4], all[1]]), "{table}");
    }
}

#[test]
fn rows_hold_every_column_in_schema_order_with_timestamps_as_text() {
    let host = Host::new();
    host.sample("state");
    let tasks = host
        .run(&["--state-dir", "state", "get", "tasks", "-o", "jsonl"])
        .ended(0);
    let task: Value = serde_json::from_str(tasks.lines()[0]).expect("an object");
    let keys: Vec<_> = task
        .as_object()
        .expect("an object")
        .keys()
        .cloned()
        .collect();
    assert_eq!(
        keys,
        [
            "id",
            "type",
            "status",
            "created_at",
            "updated_at",
            "assigned_to",
            "resources",
            "input_cid",
            "output_cid",
            "input_cids",
            "output_cids",
            "started_at",
            "completed_at",
            "error",
            "priority",
            "progress",
        ]
    );
    let created = task["created_at"].as_str().expect("text");
    assert!(created.len() == 24 && created.ends_with('Z'), "{created}");
    assert!(
        task["resources"]["cpu_cores"].is_i64() && task["input_cids"].is_array(),
        "{task}"
    );
}

#[test]
fn what_is_found_is_printed_and_what_is_not_makes_it_3() {
    let host = Host::new();
    host.sample("state");
    let get = |args: &[&str]| host.run(&[&["--state-dir", "state", "get"], args].concat());
    let some = get(&["nodes", "node-00001", "nowhere", "no-one", "-o", "jsonl"]).ended(3);
    assert_eq!(some.lines().len(), 1, "{some:?}");
    assert!(some.stderr.contains("nowhere, no-one"), "{some:?}");
    let none = get(&["tasks", "nothing"]).ended(3);
    assert_eq!(none.stdout, "", "{none:?}");
    assert_eq!(
        get(&["content", "", "-o", "json"]).ended(3).json(),
        json!([])
    );
}

#[test]
fn wrong_usage_is_2_and_nothing_there_is_4_and_damage_is_1() {
    let host = Host::new();
    host.sample("state");
    host.run_dir("empty");
    std::fs::create_dir(host.path("bad")).expect("made");
    std::fs::write(host.path("bad/state_x.parquet"), "PAR1 and no more").expect("written");
    std::fs::create_dir(host.path("two")).expect("made");
    for id in ["a", "b"] {
        let file = format!("two/state_{id}.parquet");
        std::fs::copy(host.path("state/state_sample.parquet"), host.path(&file)).expect("copied");
    }
    let cases: &[(&[&str], i32, &str)] = &[
        (&["get"], 2, "required"),
        (&["get", "clouds"], 2, "clouds"),
        (&["status", "-o", "yaml"], 2, "yaml"),
        (&["get", "nodes", "--max-age", "-1"], 2, "max-age"),
        (&["watch", "--count", "0"], 2, "count"),
        (
            &["--snapshot", "a", "--parquet", "b", "status"],
            2,
            "cannot be used with",
        ),
        (&["--cluster-id", "../x", "status"], 2, "--cluster-id"),
        (
            &["--cluster-id", "no-such-cluster-7f3a", "status"],
            4,
            "--state-dir",
        ),
        (&["--state-dir", "nowhere", "status"], 4, "nowhere"),
        (&["--state-dir", "empty", "get", "nodes"], 4, "empty"),
        (&["--run-dir", "empty", "get", "nodes"], 4, "empty"),
        (&["--run-dir", "nowhere", "get", "nodes"], 4, "nowhere"),
        (
            &["--snapshot", "nowhere.arrow", "get", "nodes"],
            4,
            "nowhere.arrow",
        ),
        (
            &["--parquet", "nowhere.parquet", "get", "nodes"],
            4,
            "nowhere.parquet",
        ),
        (&["--state-dir", "state", "watch"], 4, "sherwoodd"),
        (
            &["--state-dir", "bad", "get", "nodes"],
            1,
            "state_x.parquet",
        ),
        (
            &["--state-dir", "two", "get", "nodes"],
            1,
            "state_a.parquet, state_b.parquet",
        ),
        (
            &["--snapshot", "state/state_sample.parquet", "status"],
            1,
            "ARROW1",
        ),
        (&["verify", "nowhere"], 1, "nowhere"),
        (&["verify", "state"], 1, "not a regular file"),
    ];
    for (args, code, named) in cases {
        let ran = host.run(args);
        assert_eq!(ran.code, *code, "{args:?}: {ran:?}");
        assert!(ran.stderr.contains(named), "{args:?}: {ran:?}");
        assert_eq!(ran.stdout, "", "{args:?}: {ran:?}");
    }
}

#[test]
fn a_parquet_file_is_as_old_as_its_last_modification() {
    let host = Host::new();
    host.sample("state");
    let get = |age: &str| host.run(&["--state-dir", "state", "get", "nodes", "--max-age", age]);
    get("3600").ended(0);
    let file = std::fs::File::options()
        .append(true)
        .open(host.path("state/state_sample.parquet"))
        .expect("is there");
    let before = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
    file.set_modified(before).expect("set");
    let refused = get("3600").ended(4);
    assert_eq!(refused.stdout, "", "{refused:?}");
    assert!(refused.stderr.contains("no daemon"), "{refused:?}");
    get("8000").ended(0);
    let status = host
        .run(&["--state-dir", "state", "status", "--max-age", "3600"])
        .ended(4);
    assert!(status.stdout.contains("sample"), "{status:?}");
}

/// Far more than a pipe holds, and nobody who reads it.
#[test]
fn a_pipe_that_is_closed_ends_it_quietly() {
    let host = Host::new();
    host.sample_of("state", "sample", 5000);
    for format in ["table", "json", "jsonl", "yaml", "csv", "arrow"] {
        let mut child = host
            .command(&["--state-dir", "state", "get", "tasks", "-o", format])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("runs");
        let mut first = [0; 10];
        let mut pipe = child.stdout.take().expect("a pipe");
        pipe.read_exact(&mut first).expect("some bytes");
        drop(pipe);
        let output = child.wait_with_output().expect("ends");
        assert_eq!(output.status.code(), Some(0), "{format}: {output:?}");
        assert_eq!(output.stderr, b"", "{format}");
    }
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let host = Host::new();
    host.sample("state");
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .expect("is there");
    let output = host
        .command(&["--state-dir", "state", "get", "tasks"])
        .stdout(full)
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("standard output"),
        "{output:?}"
    );
}

#[test]
fn every_command_explains_itself() {
    let host = Host::new();
    for command in [
        "status", "get", "export", "watch", "verify", "snapshot", "sample",
    ] {
        let help = host.run(&[command, "--help"]).ended(0);
        assert!(
            help.stdout.contains("Example"),
            "{command}: {}",
            help.stdout
        );
    }
    assert!(host.run(&["--help"]).ended(0).stdout.contains("Exit codes"));
}
