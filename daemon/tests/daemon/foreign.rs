//! Foreign state files beside our own writes: what is merged, what is refused, what becomes of a refused file.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, ListArray, RecordBatch, StringArray, StructArray};
use arrow_buffer::OffsetBuffer;
use arrow_schema::Field;
use parquet::arrow::ArrowWriter;
use serde_json::json;
use sherwood_client::import;
use sherwood_daemon::service::Order;
use sherwood_shared::schema::TableId;
use sherwood_shared::state::State;
use sherwood_shared::transaction::OutcomeKind;

use crate::common::{Case, Running, exchange, parquet, tasks, wait_for};

/// As if it had been written long ago: nobody waits for a writer that may come back.
pub fn age(path: &Path) {
    let file = fs::File::open(path).unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(60);
    file.set_modified(long_ago).unwrap();
}

pub fn put(running: &Running, task: &str) {
    let row = json!({"id": task, "status": "pending"});
    let answer = running.transact(json!({"ops": [{"put": "tasks", "row": row}]}));
    assert_eq!(answer.outcome, OutcomeKind::Done, "{answer:?}");
}

/// What stands in `rejected/`, the reasons apart.
pub fn rejected(case: &Case) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(case.state_dir().join("rejected")) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.to_string_lossy().ends_with("-state_c.parquet"));
    paths.sort();
    paths
}

pub fn reason_of(rejected: &Path) -> String {
    let name = rejected.file_name().unwrap().to_str().unwrap();
    fs::read_to_string(rejected.with_file_name(format!("{name}.reason.txt"))).unwrap_or_default()
}

pub fn await_rejected(case: &Case, what: &str) -> PathBuf {
    wait_for(what, || {
        rejected(case)
            .last()
            .is_some_and(|last| reason_of(last).ends_with('\n'))
    });
    rejected(case).pop().unwrap()
}

/// The tasks in the state file; none while it is not a state.
pub fn in_file(case: &Case) -> Vec<String> {
    let read = import::read_parquet(&case.file(), Some("c"));
    read.map(|state| tasks(&state)).unwrap_or_default()
}

pub fn await_file(case: &Case, tasks: &[&str]) {
    wait_for(&format!("{tasks:?} in the state file"), || {
        in_file(case) == tasks
    });
}

#[test]
fn a_refused_file_is_moved_aside_with_its_reason_and_read_again_when_it_is_finished_there() {
    let case = Case::with(&["t1"]);
    let running = case.start();
    put(&running, "ours");
    let bytes = parquet("c", &["t1", "theirs"]);
    let (half, rest) = bytes.split_at(bytes.len() / 2);
    fs::write(case.file(), half).unwrap();
    age(&case.file());
    running.await_refusal(1);
    put(&running, "ours too");
    let aside = await_rejected(&case, "the file aside");
    assert_eq!(fs::read(&aside).unwrap(), half);
    let reason = reason_of(&aside);
    for part in ["state_c.parquet", "has no end"] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    await_file(&case, &["ours", "ours too", "t1"]);
    assert_eq!(
        running.history().last().unwrap(),
        &["ours", "ours too", "t1"]
    );
    // Its writer has not noticed.
    let mut file = fs::File::options().append(true).open(&aside).unwrap();
    file.write_all(rest).unwrap();
    drop(file);
    running.order(Order::Reload);
    running.await_tasks(&["ours", "ours too", "t1", "theirs"]);
    await_file(&case, &["ours", "ours too", "t1", "theirs"]);
    wait_for("the merged file to go", || rejected(&case).is_empty());
    running.stop().unwrap();
}

#[test]
fn a_refused_file_makes_way_for_a_good_one_while_nobody_writes() {
    let case = Case::with(&["t1"]);
    let running = case.start();
    put(&running, "a");
    await_file(&case, &["a", "t1"]);
    let generation = running.generation();
    let refused = b"no state at all";
    fs::write(case.file(), refused).unwrap();
    age(&case.file());
    let aside = await_rejected(&case, "the file aside");
    assert_eq!(fs::read(&aside).unwrap(), refused);
    await_file(&case, &["a", "t1"]);
    running.stop().unwrap();
    // What it was refused for stands beside it, and is not told again.
    let reason = reason_of(&aside);
    let running = case.start();
    running.await_refusal(1);
    put(&running, "b");
    await_file(&case, &["a", "b", "t1"]);
    assert_eq!(reason_of(&aside), reason);
    assert!(running.generation() > generation);
    running.stop().unwrap();
}

#[test]
fn a_public_file_that_a_full_disk_left_behind_is_brought_up_to_date_by_the_next_start() {
    let case = Case::with(&["t1"]);
    let running = case.start();
    put(&running, "a");
    await_file(&case, &["a", "t1"]);
    let old = fs::read(case.file()).unwrap();
    for task in ["b", "c"] {
        put(&running, task);
        wait_for("the state file", || {
            in_file(&case).contains(&task.to_owned())
        });
    }
    running.stop().unwrap();
    // Of its two private checkpoints neither is the old one, which is the base.
    for path in [
        case.file(),
        case.state_dir().join("checkpoints/base.parquet"),
    ] {
        fs::remove_file(&path).unwrap();
        fs::write(&path, &old).unwrap();
    }
    let running = case.start();
    await_file(&case, &["a", "b", "c", "t1"]);
    assert_eq!(running.history(), [["a", "b", "c", "t1"]]);
    running.stop().unwrap();
}

#[test]
fn a_file_that_is_open_for_writing_is_waited_for() {
    let case = Case::with(&["t1"]);
    let running = case.start();
    put(&running, "a");
    await_file(&case, &["a", "t1"]);
    let bytes = parquet("c", &["a", "t1", "theirs"]);
    let (half, rest) = bytes.split_at(bytes.len() / 2);
    let mut file = fs::File::create(case.file()).unwrap();
    file.write_all(half).unwrap();
    let inode = file.metadata().unwrap().ino();
    // Not its age holds us, but that it is open.
    age(&case.file());
    let newest = || {
        let dir = fs::read_dir(case.state_dir().join("checkpoints")).unwrap();
        let names = dir.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with('0')).max()
    };
    // Our own checkpoints go on beside it: by the second, the first has tried to take the name.
    for task in ["b", "c"] {
        let before = newest();
        put(&running, task);
        wait_for("a private checkpoint", || newest() > before);
        assert_eq!(fs::metadata(case.file()).unwrap().ino(), inode, "{task}");
        assert_eq!(fs::read(case.file()).unwrap(), half, "{task}");
    }
    file.write_all(rest).unwrap();
    drop(file);
    running.await_tasks(&["a", "b", "c", "t1", "theirs"]);
    age(&case.file());
    await_file(&case, &["a", "b", "c", "t1", "theirs"]);
    assert_eq!(rejected(&case), [] as [PathBuf; 0]);
    running.stop().unwrap();
}

#[test]
fn an_old_checkpoint_put_back_takes_nothing_back() {
    let case = Case::with(&["t1"]);
    let running = case.start();
    put(&running, "a");
    await_file(&case, &["a", "t1"]);
    let old = fs::read(case.file()).unwrap();
    put(&running, "b");
    await_file(&case, &["a", "b", "t1"]);
    let generation = running.generation();
    let aside = case.state_dir().join("old.tmp");
    fs::write(&aside, &old).unwrap();
    age(&aside);
    fs::rename(&aside, case.file()).unwrap();
    put(&running, "c");
    let aside = await_rejected(&case, "the old checkpoint aside");
    assert_eq!(fs::read(&aside).unwrap(), old);
    let reason = reason_of(&aside);
    for part in [
        "checkpoint that sherwoodd wrote",
        "recover restore",
        "import",
    ] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    await_file(&case, &["a", "b", "c", "t1"]);
    assert_eq!(running.history().last().unwrap(), &["a", "b", "c", "t1"]);
    assert_eq!(
        running.generation(),
        generation + 1,
        "nothing of it was merged"
    );
    running.stop().unwrap();
}

#[test]
fn a_file_of_a_user_who_may_not_write_is_refused() {
    const NAME: &str = "a_file_of_a_user_who_may_not_write_is_refused";
    if !nix::unistd::geteuid().is_root() {
        let line = format!("NOT RUN: {NAME}: needs root");
        let _nobody_listens = writeln!(std::io::stderr(), "{line}");
        let is_required = std::env::var("SHERWOOD_REQUIRE_ALL").is_ok_and(|value| value == "1");
        assert!(!is_required, "{line}");
        return;
    }
    let case = Case::with(&["t1"]);
    let running = case.start();
    put(&running, "a");
    await_file(&case, &["a", "t1"]);
    let theirs = parquet("c", &["t1", "theirs"]);
    let aside = case.state_dir().join("theirs.tmp");
    fs::write(&aside, &theirs).unwrap();
    chown(&aside, Some(65534), Some(65534)).unwrap();
    age(&aside);
    fs::rename(&aside, case.file()).unwrap();
    put(&running, "b");
    let aside = await_rejected(&case, "the stranger's file aside");
    assert_eq!(fs::read(&aside).unwrap(), theirs);
    let reason = reason_of(&aside);
    for part in ["uid 65534", "may not write", "write_users"] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    await_file(&case, &["a", "b", "t1"]);
    assert_eq!(running.history().last().unwrap(), &["a", "b", "t1"]);
    // The same from a user who may.
    let aside = case.state_dir().join("theirs.tmp");
    fs::write(&aside, parquet("c", &["a", "b", "t1", "theirs"])).unwrap();
    exchange(&case.file(), &aside);
    running.await_tasks(&["a", "b", "t1", "theirs"]);
    running.stop().unwrap();
}

/// Each round a program reads the state file, adds a task and replaces the file, while tasks of our own are put.
#[test]
fn tasks_of_ours_and_of_a_foreign_program_are_all_kept() {
    let case = Case::with(&["t1"]);
    let running = case.start();
    let mut wanted = vec!["t1".to_owned()];
    for round in 0..8 {
        // What it has read is what it replaces, so far as it knows.
        let mut theirs = Vec::new();
        wait_for("a state to be read", || {
            theirs = in_file(&case);
            !theirs.is_empty()
        });
        let own = format!("theirs {round}");
        theirs.push(own.clone());
        theirs.sort();
        put(&running, &format!("before {round}"));
        let names: Vec<&str> = theirs.iter().map(String::as_str).collect();
        case.write(&names);
        put(&running, &format!("after {round}"));
        wanted.extend([
            own.clone(),
            format!("before {round}"),
            format!("after {round}"),
        ]);
        wait_for(&own, || running.history().last().unwrap().contains(&own));
    }
    wanted.sort();
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    running.await_tasks(&wanted);
    age(&case.file());
    await_file(&case, &wanted);
    running.stop().unwrap();
}

/// A state of `c` with tasks and their statuses, as a program writes it that knows nothing else.
pub fn narrow(tasks: &[(&str, &str)]) -> Vec<u8> {
    let text = |values: Vec<&str>| -> ArrayRef { Arc::new(StringArray::from(values)) };
    let (ids, statuses) = tasks.iter().copied().unzip();
    let rows = StructArray::try_from(vec![("id", text(ids)), ("status", text(statuses))]).unwrap();
    let item = Arc::new(Field::new("item", rows.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths([tasks.len()]);
    let list = ListArray::new(item, offsets, Arc::new(rows), None);
    let list: ArrayRef = Arc::new(list);
    let batch =
        RecordBatch::try_from_iter([("cluster_id", text(vec!["c"])), ("tasks", list)]).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

#[test]
fn what_a_foreign_file_does_not_have_stays_as_it_is() {
    let case = Case::with(&["t1"]);
    let running = case.start();
    let rows = json!([
        {"put": "nodes", "row": {"id": "n1", "role": "worker", "capabilities": ["x"]}},
        {"put": "content", "row": {"cid": "c1", "size": 7}},
        {"patch": "tasks", "key": "t1", "set": {"type": "build", "status": "pending", "priority": 5}},
    ]);
    let answer = running.transact(json!({"ops": rows}));
    assert_eq!(answer.outcome, OutcomeKind::Done, "{answer:?}");
    // What it was made from has all of that.
    wait_for("the state file", || {
        let read = import::read_parquet(&case.file(), Some("c"));
        read.is_ok_and(|state| state.table(TableId::Nodes).num_rows() == 1)
    });
    fs::write(case.file(), narrow(&[("t1", "running")])).unwrap();
    let state = |running: &Running| -> State { running.snapshot() };
    let of = |state: &State, table: TableId, column: &str| -> Vec<String> {
        let column = state.table(table).column_by_name(column).unwrap();
        let column = column.as_string::<i32>();
        column
            .iter()
            .map(|value| value.unwrap_or("-").to_owned())
            .collect()
    };
    wait_for("the foreign status", || {
        of(&state(&running), TableId::Tasks, "status") == ["running"]
    });
    let now = state(&running);
    assert_eq!(of(&now, TableId::Tasks, "type"), ["build"]);
    let priority = now
        .table(TableId::Tasks)
        .column_by_name("priority")
        .unwrap();
    assert_eq!(
        priority
            .as_primitive::<arrow_array::types::Int32Type>()
            .value(0),
        5
    );
    assert_eq!(of(&now, TableId::Nodes, "id"), ["n1"]);
    assert_eq!(of(&now, TableId::Nodes, "role"), ["worker"]);
    let mut capabilities = ListBuilder::new(StringBuilder::new());
    capabilities.append_value([Some("x")]);
    let found = now
        .table(TableId::Nodes)
        .column_by_name("capabilities")
        .unwrap();
    assert_eq!(
        found.as_list::<i32>().value(0).as_ref(),
        capabilities.finish().value(0).as_ref()
    );
    assert_eq!(of(&now, TableId::Content, "cid"), ["c1"]);
    running.stop().unwrap();
}
