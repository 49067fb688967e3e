//! Writers of both kinds and the command line, against the real daemon.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, NullArray, RecordBatch, StringArray};
use sherwood_client::TableId;
use sherwood_client::write::{
    ChangeOp, Mode, Node, NodeResources, Outcome, PendingWrite, Task, Transaction, WriteError,
    Writer, tasks,
};
use sherwood_tests::daemon::{Daemon, Place, binary};

fn socket(place: &Place) -> PathBuf {
    place.run_dir().join(format!("{}.sock", place.cluster))
}

fn sherwood(place: &Place, args: &[&str]) -> Output {
    let mut command = Command::new(binary("sherwood"));
    command.env_clear().arg("--run-dir").arg(place.run_dir());
    command.args(args).output().expect("runs")
}

fn task(id: &str) -> Task {
    Task {
        id: id.into(),
        kind: Some("build".into()),
        status: Some("pending".into()),
        ..Task::default()
    }
}

#[test]
fn what_is_done_is_seen_by_a_handle_of_the_same_process_at_once() {
    let place = Place::with_tasks(10);
    let _daemon = Daemon::start(&place);
    let writer = Writer::connect(place.state_dir()).expect("connects");
    let mut handle = place.reader().handle().expect("a handle");
    for number in 0..200 {
        let id = format!("mine-{number}");
        let done = writer.apply(Transaction::new().put(task(&id)));
        let done = done.and_then(Outcome::done).expect("done");
        let snapshot = handle.latest();
        assert!(snapshot.generation() >= done.generation, "{id}");
        assert!(snapshot.task(&id).expect("reads").is_some(), "{id}");
    }
}

#[test]
fn a_writer_goes_on_over_a_restart_and_an_id_is_applied_once() {
    let place = Place::with_tasks(1);
    let daemon = Daemon::start(&place);
    let writer = Writer::connect(socket(&place)).expect("connects");
    let once = || Transaction::new().id("once").put(task("a"));
    let first = writer.apply(once()).expect("an outcome");
    assert!(first.is_done(), "{first:?}");
    daemon.kill();
    let _daemon = Daemon::start(&place);
    assert_eq!(writer.apply(once()).expect("an outcome"), first);
    assert_eq!(writer.outcome("once").expect("an answer"), first);
}

#[test]
fn a_watch_sees_every_change_once_over_a_restart() {
    let place = Place::with_tasks(1);
    let daemon = Daemon::start(&place);
    let writer = Writer::connect(socket(&place)).expect("connects");
    let from = place.reader().snapshot().expect("reads").generation();
    let mut changes = writer.watch(from, &[TableId::Tasks]).expect("watches");
    let put = |id: &str| {
        let outcome = writer.apply(Transaction::new().put(task(id)));
        assert!(outcome.expect("an outcome").is_done(), "{id}");
    };
    (0..20).for_each(|number| put(&format!("a{number:02}")));
    daemon.stop();
    let _daemon = Daemon::start(&place);
    (0..20).for_each(|number| put(&format!("b{number:02}")));
    let mut seen = Vec::new();
    let mut last = from;
    while seen.len() < 40 {
        let change = changes.next().expect("a change").expect("no error");
        assert!(change.generation > last, "{change:?}");
        last = change.generation;
        for op in change.ops {
            let ChangeOp::Put { row, .. } = op else {
                panic!("{op:?}");
            };
            seen.push(row["id"].as_str().expect("a key").to_owned());
        }
    }
    let expected: Vec<_> = ["a", "b"]
        .iter()
        .flat_map(|part| (0..20).map(move |number| format!("{part}{number:02}")))
        .collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_refusal_names_the_row_and_changes_nothing() {
    let place = Place::with_tasks(1);
    let _daemon = Daemon::start(&place);
    let writer = Writer::connect(socket(&place)).expect("connects");
    let generation = place.reader().snapshot().expect("reads").generation();
    let transaction = Transaction::new()
        .put(task("never"))
        .patch(tasks("nobody").set("status", "running"));
    let refused = writer.apply(transaction).and_then(Outcome::done);
    let Err(WriteError::Refused { reason, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert!(reason.contains("nobody"), "{reason}");
    let snapshot = place.reader().snapshot().expect("reads");
    assert_eq!(snapshot.generation(), generation);
    assert!(snapshot.task("never").expect("reads").is_none());
}

#[test]
fn the_command_line_takes_a_task_from_pending_to_completed() {
    let place = Place::with_tasks(0);
    let _daemon = Daemon::start(&place);
    let writer = Writer::connect(socket(&place)).expect("connects");
    let node = Node {
        id: "n1".into(),
        status: Some("online".into()),
        // What a task needs that does not say: 1 core and 256 MiB.
        resources: Some(NodeResources {
            cpu_count: Some(4),
            memory_available: Some(1 << 30),
            ..NodeResources::default()
        }),
        ..Node::default()
    };
    assert!(writer.register(node).expect("an outcome").is_done());
    let run = |args: &[&str], code: i32| {
        let output = sherwood(&place, args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    run(&["claim", "n1"], 3);
    assert!(
        writer
            .apply(Transaction::new().put(task("t1")))
            .expect("an outcome")
            .is_done()
    );
    assert_eq!(run(&["claim", "n1", "--type", "build"], 0), "t1\n");
    run(&["assign", "t1", "n1"], 5);
    run(&["start", "t1"], 0);
    run(
        &[
            "patch",
            "tasks",
            "t1",
            "progress=0.5",
            "--if",
            "status=running",
        ],
        0,
    );
    run(&["complete", "t1", "--output", "Qm"], 0);
    run(&["complete", "t1"], 5);
    let task: serde_json::Value =
        serde_json::from_str(&run(&["get", "tasks", "t1", "-o", "jsonl"], 0)).expect("JSON");
    assert_eq!(task["status"], "completed");
    // A task that is completed is all done.
    assert_eq!(task["progress"], 1.0);
    run(&["delete", "tasks", "t1"], 0);
    run(&["get", "tasks", "t1"], 3);
}

/// All columns of all rows, but for the times that the engine keeps.
fn tables(place: &Place) -> (Option<String>, Vec<Vec<RecordBatch>>) {
    let snapshot = place.reader().snapshot().expect("reads");
    let rows = TableId::ALL.map(|id| {
        let batches = snapshot.table(id).batches();
        let batches = batches.map(|batch| {
            let batch = batch.expect("reads");
            let schema = batch.schema();
            let kept =
                (0..schema.fields().len()).filter(|&at| schema.field(at).name() != "updated_at");
            batch.project(&kept.collect::<Vec<_>>()).expect("columns")
        });
        batches.collect()
    });
    (snapshot.master_id().expect("reads"), rows.into())
}

#[test]
fn a_state_that_was_written_out_in_any_form_is_imported_whole() {
    let place = Place::new();
    let mut sample = Command::new(binary("sherwood"));
    sample
        .env_clear()
        .args(["sample", "--cluster-id", "c", "--out"]);
    sample.arg(place.state_dir());
    sample.args(["--nodes", "20", "--tasks", "1500", "--content", "300"]);
    assert!(sample.output().expect("runs").status.success());
    let daemon = Daemon::start(&place);
    let expected = tables(&place);
    assert!(expected.0.is_some(), "a sample has a master");
    let path = |name: &str| place.root().join(name).to_str().expect("UTF-8").to_owned();
    let forms = ["all.parquet", "all.json", "all.jsonl"].map(|name| (path(name), "export"));
    let forms = [&forms[..], &[(path("tables"), "snapshot")]].concat();
    for (path, command) in &forms {
        let written = sherwood(&place, &[command, path]);
        assert!(written.status.success(), "{written:?}");
    }
    // One file of Arrow is one table, and the refusal says where to go.
    let refused = sherwood(&place, &["export", &path("all.arrow")]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let told = String::from_utf8(refused.stderr).expect("UTF-8");
    assert!(
        told.contains("--table") && told.contains("sherwood snapshot"),
        "{told}"
    );
    drop(daemon);
    for (path, _) in &forms {
        let mut other = Place::new();
        other.cluster = "c".to_owned();
        let _daemon = Daemon::start_with(&other, &["--cluster-id", "c"]);
        for _again in 0..2 {
            let imported = sherwood(&other, &["import", path, "--id", "once"]);
            assert!(imported.status.success(), "{path}: {imported:?}");
            let told = String::from_utf8(imported.stdout).expect("UTF-8");
            assert!(
                told.starts_with("1820 rows done in 4 transactions, the last in generation "),
                "{path}: {told}"
            );
            assert!(tables(&other) == expected, "{path}");
        }
    }
    // Through a pipe.
    let piped = Place::new();
    let _daemon = Daemon::start_with(&piped, &["--cluster-id", "c"]);
    for (path, command) in &forms {
        if *command == "export" {
            let mut import = Command::new(binary("sherwood"));
            import.env_clear().arg("--run-dir").arg(piped.run_dir());
            import
                .args(["import", "-"])
                .stdin(File::open(path).expect("opens"));
            let imported = import.output().expect("runs");
            assert!(imported.status.success(), "{path}: {imported:?}");
            assert!(tables(&piped) == expected, "{path}");
        }
    }
    // What names another cluster is not taken by accident, in whatever form.
    let stranger = Place::new();
    let mut flags = stranger.flags();
    flags.extend(["--cluster-id", "d"].map(Into::into));
    let _daemon = Daemon::spawn(sherwood_tests::daemon::command(flags)).ready();
    for (path, _) in &forms {
        let mut import = Command::new(binary("sherwood"));
        import.env_clear().arg("--run-dir").arg(stranger.run_dir());
        let import = import.args(["import", path]).output().expect("runs");
        let told = String::from_utf8(import.stderr).expect("UTF-8");
        assert!(
            told.ends_with(
                "is the state of cluster \"c\", not of \"d\"; --any-cluster takes it all the same\n"
            ),
            "{path}: {told}"
        );
    }
}

#[test]
fn a_transaction_that_is_too_large_is_refused_and_the_one_behind_it_is_done() {
    let place = Place::with_tasks(1);
    let _daemon = Daemon::start(&place);
    let writer = Writer::connect(socket(&place)).expect("connects");
    // Too large to be parsed, to be charged, and to be a message at all.
    for mebibytes in [5, 10, 30] {
        let large = Task {
            kind: Some("x".repeat(mebibytes << 20)),
            ..task(&format!("large-{mebibytes}"))
        };
        let before = writer.submit(Transaction::new().put(task(&format!("before-{mebibytes}"))));
        let large = writer.submit(Transaction::new().put(large));
        let behind = writer.submit(Transaction::new().put(task(&format!("behind-{mebibytes}"))));
        let outcomes = [before, large, behind]
            .map(|pending| pending.and_then(PendingWrite::wait).expect("an outcome"));
        let [before, large, behind] = &outcomes;
        assert!(
            before.is_done() && behind.is_done(),
            "{mebibytes}: {outcomes:?}"
        );
        assert!(
            matches!(large, Outcome::Refused { .. }),
            "{mebibytes}: {large:?}"
        );
    }
    let snapshot = place.reader().snapshot().expect("reads");
    assert_eq!(snapshot.table(TableId::Tasks).len(), 1 + 6);
}

#[test]
fn rows_in_bulk_that_do_not_fit_are_refused_by_row_and_those_that_fit_are_cast() {
    let place = Place::with_tasks(0);
    let _daemon = Daemon::start(&place);
    let writer = Writer::connect(socket(&place)).expect("connects");
    let put = |column: &str, values: ArrayRef| {
        let ids: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
        let batch = RecordBatch::try_from_iter([("id", ids), (column, values)]).expect("a batch");
        let outcome = writer.bulk(TableId::Tasks, Mode::Put, &[batch], None);
        outcome.expect("an outcome")
    };
    for (column, values) in [
        (
            "progress",
            Arc::new(Float64Array::from(vec![0.5, 1e300])) as ArrayRef,
        ),
        (
            "priority",
            Arc::new(Int64Array::from(vec![1, 1 << 40])) as ArrayRef,
        ),
    ] {
        let refused = put(column, values);
        let Outcome::Refused { reason, .. } = &refused else {
            panic!("{column}: {refused:?}");
        };
        assert!(
            reason.contains(column) && reason.contains("\"b\""),
            "{reason}"
        );
    }
    let done = put("progress", Arc::new(Float64Array::from(vec![0.5, 0.25])));
    assert!(done.is_done(), "{done:?}");
    let done = put("priority", Arc::new(NullArray::new(2)));
    assert!(done.is_done(), "{done:?}");
}
