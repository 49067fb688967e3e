//! The daemon as a process: what it loads, what it publishes, and when.

use std::fs;
use std::io::Write;
use std::time::Instant;

use serde_json::{Value, json};
use sherwood_tests::daemon::{
    Daemon, LONG, Place, await_turn, command, counts, parquet, prepare, state_with_tasks, turn,
    wait_for,
};
use sherwood_tests::needs::{not_run, tell};

#[test]
fn a_state_is_published_and_the_metadata_leads_to_it() {
    let place = Place::with_tasks(100);
    fs::write(
        place.metadata_file(),
        r#"{"theirs": [5], "version": "0.1.0"}"#,
    )
    .unwrap();
    let daemon = Daemon::start(&place);
    let metadata = place.metadata();
    let path = metadata["snapshot_path"].as_str().expect("a path");
    let snapshot = sherwood_client::Reader::open(path)
        .unwrap()
        .snapshot()
        .unwrap();
    assert_eq!(snapshot.cluster_id().unwrap(), "c");
    assert_eq!(counts(&snapshot), [3, 100, 2]);
    assert_eq!(snapshot.master_id().unwrap().as_deref(), Some("node-0"));
    assert!(snapshot.stands_for(&place.state_dir()));
    let expected = json!({
        "theirs": [5],
        "version": "0.1.0",
        "cluster_id": "c",
        "state_path": place.state_dir(),
        "parquet_path": place.file(),
        "snapshot_path": place.snapshot(),
        "generation": snapshot.generation(),
        "daemon_pid": daemon.pid(),
        "node_count": 3, "task_count": 100, "content_count": 2,
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&metadata[key], value, "{key} in {metadata:#}");
    }
    for known in ["schema", "updated_at"] {
        assert!(!metadata[known].is_null(), "{known} in {metadata:#}");
    }
    daemon.stop();
    assert!(place.snapshot().exists(), "the snapshot stays");
}

#[test]
fn the_metadata_gets_its_keys_again_when_a_foreign_writer_rewrites_it() {
    let place = Place::with_tasks(10);
    let _daemon = Daemon::start(&place);
    for round in 0..3 {
        let theirs = json!({"cluster_id": "c", "state_path": "/somewhere/else", "round": round});
        if round == 1 {
            // In place.
            fs::write(place.metadata_file(), theirs.to_string()).unwrap();
        } else {
            let aside = place.state_dir().join("m.tmp");
            fs::write(&aside, theirs.to_string()).unwrap();
            fs::rename(aside, place.metadata_file()).unwrap();
        }
        wait_for("our keys beside theirs", || {
            let metadata = place.metadata();
            metadata["round"] == round
                && metadata["snapshot_path"] == json!(place.snapshot())
                && metadata["state_path"] == json!(place.state_dir())
        });
    }
}

#[test]
fn an_empty_directory_with_an_id_is_an_empty_cluster_until_it_gets_a_state() {
    let place = Place::new();
    let flags = place.flags();
    let (status, log) = Daemon::spawn(command(flags)).end();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("--cluster-id"), "{log}");
    let _daemon = Daemon::start_with(&place, &["--cluster-id", "c"]);
    let mut handle = place.reader().handle().unwrap();
    assert_eq!(handle.latest().cluster_id().unwrap(), "c");
    assert_eq!(counts(handle.latest()), [0, 0, 0]);
    assert!(!place.file().exists(), "nothing is written for it");
    place.write(&parquet(&state_with_tasks("c", 10, 3)));
    let next = handle.wait(LONG).unwrap().expect("a state");
    assert_eq!(turn(next), 3);
}

#[test]
fn a_state_is_published_however_it_was_replaced() {
    const TASKS: usize = 200;
    let place = Place::with_tasks(TASKS);
    let mut daemon = Daemon::start(&place);
    let mut handle = place.reader().handle().unwrap();
    // Renamed over.
    place.write(&parquet(&state_with_tasks("c", TASKS, 1)));
    await_turn(&mut handle, 1);
    // Written in place, piece by piece, and closed.
    let bytes = parquet(&state_with_tasks("c", TASKS, 2));
    let mut file = fs::File::create(place.file()).unwrap();
    for piece in bytes.chunks(512) {
        file.write_all(piece).unwrap();
    }
    drop(file);
    await_turn(&mut handle, 2);
    // Half of it closed and seen, and then the rest.
    let bytes = parquet(&state_with_tasks("c", TASKS, 3));
    let (half, rest) = bytes.split_at(bytes.len() / 2);
    fs::write(place.file(), half).unwrap();
    daemon.await_line("a refusal", |line| {
        line["reason"]
            .as_str()
            .is_some_and(|r| r.contains("has no end"))
    });
    assert_eq!(turn(handle.latest()), 2);
    let mut file = fs::File::options().append(true).open(place.file()).unwrap();
    file.write_all(rest).unwrap();
    drop(file);
    await_turn(&mut handle, 3);
    // A second name for the state: the metadata of a foreign writer points there.
    let other = place.state_dir().join("another.parquet");
    fs::write(&other, parquet(&state_with_tasks("c", TASKS, 4))).unwrap();
    let theirs = json!({"cluster_id": "c", "parquet_path": other});
    fs::write(place.metadata_file(), theirs.to_string()).unwrap();
    await_turn(&mut handle, 4);
}

#[test]
fn a_burst_of_writes_is_few_changes_and_its_last_state_is_published() {
    const TASKS: usize = 50;
    let place = Place::with_tasks(TASKS);
    let daemon = Daemon::start(&place);
    let mut handle = place.reader().handle().unwrap();
    let before = handle.latest().generation();
    let states: Vec<_> = (1..=100)
        .map(|turn| parquet(&state_with_tasks("c", TASKS, turn)))
        .collect();
    let mut last = 0;
    for bytes in &states {
        place.write(bytes);
        let now = turn(handle.latest());
        assert!(now >= last, "from turn {last} back to {now}");
        last = now;
    }
    await_turn(&mut handle, 100);
    let generations = handle.latest().generation() - before;
    assert!(generations < 100, "each write of the burst was published");
    wait_for("a line for each publish", || {
        daemon.count("published") as u64 == generations
    });
}

#[test]
fn one_changed_task_of_ten_thousand_rewrites_one_chunk() {
    const TASKS: usize = 10_000;
    let place = Place::with_tasks(TASKS);
    let mut daemon = Daemon::start(&place);
    let mut handle = place.reader().handle().unwrap();
    let chunks = handle
        .latest()
        .table(sherwood_client::TableId::Tasks)
        .chunk_count();
    assert!(chunks > 4, "{chunks} chunks");
    for turn in 1..=5 {
        place.write(&parquet(&state_with_tasks("c", TASKS, turn)));
        let line = daemon.await_message("published");
        assert_eq!(line["chunks_written"], 1, "{line}");
        assert!(
            line["chunks_shared"].as_u64().unwrap() >= chunks as u64 - 1,
            "{line}"
        );
        assert!(line["bytes_written"].as_u64().unwrap() < 200_000, "{line}");
        await_turn(&mut handle, turn);
    }
    // The same rows again: nothing to publish.
    let generation = handle.latest().generation();
    place.write(&parquet(&state_with_tasks("c", TASKS, 5)));
    daemon.await_message("read again: nothing differs");
    assert_eq!(handle.latest().generation(), generation);
}

/// Told, not judged: a test may not fail because a machine is busy. 50 ms are promised.
#[test]
fn a_waiting_reader_awakes_after_the_file_is_replaced() {
    const TASKS: usize = 10_000;
    let place = Place::with_tasks(TASKS);
    let _daemon = Daemon::start(&place);
    let mut handle = place.reader().handle().unwrap();
    let mut delays = Vec::new();
    for round in 1..=40 {
        let bytes = parquet(&state_with_tasks("c", TASKS, round));
        let in_place = round % 2 == 0;
        let began;
        if in_place {
            let mut file = fs::File::create(place.file()).unwrap();
            file.write_all(&bytes).unwrap();
            began = Instant::now();
            drop(file);
        } else {
            let aside = place.state_dir().join("aside");
            fs::write(&aside, &bytes).unwrap();
            began = Instant::now();
            fs::rename(aside, place.file()).unwrap();
        }
        await_turn(&mut handle, round);
        delays.push(began.elapsed());
    }
    delays.sort();
    let at = |share: usize| delays[(delays.len() - 1) * share / 100].as_secs_f64() * 1e3;
    tell(format_args!(
        "MEASURED: from a replaced state of {TASKS} tasks to an awake reader: median {:.1} ms, p90 {:.1} ms, \
         longest {:.1} ms (50 ms are promised)",
        at(50),
        at(90),
        at(100)
    ));
}

#[test]
fn without_inotify_it_warns_once_and_polls() {
    const TASKS: usize = 20;
    // A namespace of its own, in which no inotify instance is left.
    let no_inotify = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$@\"";
    let unshare = |program: &str| {
        let mut command = std::process::Command::new("unshare");
        command.args([
            "--user",
            "--map-root-user",
            "sh",
            "-c",
            no_inotify,
            "sh",
            program,
        ]);
        command
    };
    let allowed = unshare("true")
        .output()
        .is_ok_and(|output| output.status.success());
    if !allowed {
        not_run(
            "without_inotify_it_warns_once_and_polls",
            "needs unshare and user namespaces",
        );
        return;
    }
    let place = Place::with_tasks(TASKS);
    let daemon = command([]).get_program().to_owned();
    let mut command = unshare(daemon.to_str().expect("a plain path"));
    prepare(&mut command);
    command
        .args(place.flags())
        .args(["--poll-interval-ms", "20"]);
    let mut daemon = Daemon::spawn(command);
    const WARNING: &str = "changes of the state are looked for by the clock";
    let warning = daemon.await_message(WARNING);
    assert_eq!(warning["level"], "WARN");
    let reason = warning["reason"].as_str().expect("a reason");
    for part in [place.state_dir().to_str().unwrap(), "max_user_instances"] {
        assert!(reason.contains(part), "{reason}");
    }
    let daemon = daemon.ready();
    let mut handle = place.reader().handle().unwrap();
    for round in 1..=5 {
        place.write(&parquet(&state_with_tasks("c", TASKS, round)));
        await_turn(&mut handle, round);
    }
    assert_eq!(daemon.count(WARNING), 1, "{:#?}", daemon.lines());
    daemon.stop();
}

#[test]
fn a_run_directory_on_a_disk_is_one_warning() {
    const WARNING: &str = "the run directory is not on a tmpfs";
    let place = Place::with_tasks(10);
    // Where temporary files are on a tmpfs, the build's directory still is on a disk.
    let near = sherwood_tests::daemon::binary("test_sherwoodd");
    let disk = tempfile::tempdir_in(near.parent().unwrap()).unwrap();
    let flags = |run: &std::path::Path| {
        let dirs = ["--state-dir".into(), place.state_dir().into()];
        dirs.into_iter()
            .chain(["--run-dir".into(), run.join("run").into()])
    };
    let daemon = Daemon::spawn(command(flags(disk.path()))).ready();
    let snapshot = disk.path().join("run/c.arrow");
    let mut handle = sherwood_client::Reader::open(&snapshot)
        .unwrap()
        .handle()
        .unwrap();
    for round in 1..=3 {
        place.write(&parquet(&state_with_tasks("c", 10, round)));
        await_turn(&mut handle, round);
    }
    let lines = daemon.lines();
    let warnings: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .filter(|line: &Value| line["level"] == "WARN")
        .collect();
    if !warnings.is_empty() {
        assert_eq!(warnings.len(), 1, "{warnings:#?}");
        assert!(warnings[0].to_string().contains(WARNING), "{warnings:#?}");
        assert!(
            warnings[0].to_string().contains("/dev/shm"),
            "{warnings:#?}"
        );
    } else {
        not_run(
            "a_run_directory_on_a_disk_is_one_warning",
            "needs a build directory on a disk",
        );
    }
    daemon.stop();
}
