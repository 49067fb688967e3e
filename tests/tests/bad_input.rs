//! Bad input, the daemon's side: each case is refused with the file, the place and what to do, the last good snapshot
//! stays published, and the foreign file stays as it is, byte for byte, until it is good.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow_array::{Array, ArrayRef, Int64Array, ListArray, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};
use sherwood_client::write::{Outcome, Transaction, Writer, cluster};
use sherwood_client::{Handle, import};
use sherwood_tests::daemon::{
    Daemon, Place, await_turn, binary, command, counts, parquet, prepare, state_with_tasks, turn,
    wait_for,
};

/// A foreign writer's file: these columns, this schema version if any.
fn foreign(columns: Vec<(&str, ArrayRef)>, version: Option<&str>) -> Vec<u8> {
    let columns = columns
        .into_iter()
        .map(|(name, column)| (name, column, true));
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let pair = |value: &str| KeyValue::new("sherwood.schema_version".to_owned(), value.to_owned());
    let properties = WriterProperties::builder()
        .set_key_value_metadata(version.map(|value| vec![pair(value)]))
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn text(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

/// One list that holds all the rows of a struct with these columns.
fn one_list(columns: Vec<(&str, ArrayRef)>) -> ArrayRef {
    let columns = columns.into_iter().map(|(name, column)| {
        (
            Arc::new(Field::new(name, column.data_type().clone(), true)),
            column,
        )
    });
    let rows = StructArray::from(columns.collect::<Vec<_>>());
    let field = Arc::new(Field::new("item", rows.data_type().clone(), true));
    let offsets = arrow_offsets(rows.len());
    Arc::new(ListArray::new(field, offsets, Arc::new(rows), None))
}

fn arrow_offsets(rows: usize) -> arrow_buffer::OffsetBuffer<i32> {
    arrow_buffer::OffsetBuffer::from_lengths([rows])
}

/// A state of the cluster `c` with this column `tasks`.
fn with_tasks(tasks: ArrayRef) -> Vec<u8> {
    foreign(
        vec![("cluster_id", text(&[Some("c")])), ("tasks", tasks)],
        None,
    )
}

fn ids(ids: &[Option<&str>]) -> ArrayRef {
    one_list(vec![("id", text(ids))])
}

/// What is wrong, the state file's bytes, and what the refusal says besides the file's name.
fn bad_files() -> Vec<(String, Vec<u8>, Vec<String>)> {
    let good = parquet(&state_with_tasks("c", 20, 0));
    let mut cases: Vec<(String, Vec<u8>, Vec<String>)> = Vec::new();
    let mut case = |what: &str, bytes: Vec<u8>, said: &[&str]| {
        cases.push((
            what.to_owned(),
            bytes,
            said.iter().map(|&s| s.to_owned()).collect(),
        ));
    };
    case(
        "empty",
        Vec::new(),
        &["has no end", "at byte 0", "try again"],
    );
    case(
        "wrong magic",
        [b"PARX", &good[4..]].concat(),
        &["not a Parquet file", "PAR1"],
    );
    case(
        "text",
        b"{\"not\": \"parquet\"}".to_vec(),
        &["not a Parquet file", "check the path"],
    );
    case(
        "no table",
        foreign(vec![("id", Arc::new(Int64Array::from(vec![1])))], None),
        &["no column nodes, tasks or content", "id"],
    );
    case(
        "tasks of another type",
        with_tasks(Arc::new(Int64Array::from(vec![1]))),
        &["column tasks", "Int64"],
    );
    case(
        "status of another type",
        with_tasks(one_list(vec![
            ("id", text(&[Some("t")])),
            ("status", Arc::new(Int64Array::from(vec![7]))),
        ])),
        &["tasks.status", "Int64"],
    );
    case(
        "newer schema",
        foreign(
            vec![("cluster_id", text(&[Some("c")])), ("tasks", ids(&[]))],
            Some("99"),
        ),
        &["newer Sherwood", "99", "upgrade"],
    );
    case(
        "no schema version",
        foreign(
            vec![("cluster_id", text(&[Some("c")])), ("tasks", ids(&[]))],
            Some("new"),
        ),
        &["sherwood.schema_version", "\"new\"", "leave the key out"],
    );
    let rows = |ids: &[Option<&str>]| {
        let empty = DataType::Utf8;
        let item = Arc::new(Field::new("item", empty, true));
        let none = ListArray::new_null(item, ids.len());
        foreign(
            vec![("cluster_id", text(ids)), ("tasks", Arc::new(none))],
            None,
        )
    };
    case("no row", rows(&[]), &["exactly one row", "0 rows"]);
    case(
        "two rows",
        rows(&[Some("c"), Some("c")]),
        &["exactly one row", "2 rows"],
    );
    case(
        "null id",
        with_tasks(ids(&[Some("a"), None])),
        &["tasks", "position 1", "no id", "leave the entry out"],
    );
    case(
        "duplicate ids",
        with_tasks(ids(&[Some("a"), Some("b"), Some("a")])),
        &["tasks", "\"a\"", "positions 0 and 2", "keep one"],
    );
    let cores = one_list(vec![(
        "cpu_cores",
        Arc::new(Int64Array::from(vec![1_i64 << 31])),
    )]);
    let cores = cores
        .as_any()
        .downcast_ref::<ListArray>()
        .unwrap()
        .values()
        .clone();
    case(
        "a value that does not fit",
        with_tasks(one_list(vec![
            ("id", text(&[Some("a")])),
            ("resources", cores),
        ])),
        &[
            "2147483648",
            "tasks.resources.cpu_cores",
            "\"a\"",
            "does not fit",
        ],
    );
    case(
        "another cluster's",
        parquet(&state_with_tasks("d", 5, 0)),
        &["\"d\"", "\"c\"", "check the path"],
    );
    // Cut: at each byte of both ends, and here and there in between. (At every byte: see the client's own tests.)
    let ends = (1..16).chain(good.len() - 16..good.len());
    for cut in ends.chain((16..good.len() - 16).step_by(good.len() / 30)) {
        let byte = format!("at byte {cut}");
        let said = if cut < 4 {
            "is being written"
        } else {
            "try again"
        };
        case(
            &format!("cut {byte}"),
            good[..cut].to_vec(),
            &["has no end", &byte, said],
        );
    }
    // Flipped: a bit of each so-manyth byte. A few take the checksum's own name away and nothing else; those files are
    // read, and rightly (the client's own tests compare what is read).
    for byte in (4..good.len() - 8).step_by(good.len() / 40) {
        let mut bytes = good.clone();
        bytes[byte] ^= 1 << (byte % 8);
        if import::read_parquet_bytes(bytes.clone(), Path::new("x"), Some("c")).is_ok() {
            continue;
        }
        let bit = format!("a flipped bit of byte {byte}");
        case(&bit, bytes, &["is damaged", "restore it"]);
    }
    cases
}

fn await_refusal(daemon: &mut Daemon, what: &str, said: &[String]) {
    let line = daemon.await_line(&format!("the refusal of: {what} {said:?}"), |line| {
        let reason = line["reason"].as_str().unwrap_or_default();
        line["level"] == "WARN" && said.iter().all(|part| reason.contains(part))
    });
    let text = line["message"].as_str().expect("a message");
    assert!(
        text.contains("the last good snapshot stays"),
        "{what}: {line}"
    );
}

fn is_still(handle: &mut Handle, generation: u64, what: &str) {
    assert_eq!(handle.refresh().unwrap().generation(), generation, "{what}");
    assert!(turn(handle.latest()) >= 0, "{what}");
}

#[test]
fn a_bad_file_is_refused_and_left_alone_until_it_is_good() {
    let place = Place::with_tasks(20);
    let mut daemon = Daemon::start(&place);
    let mut handle = place.reader().handle().unwrap();
    let mut good_turn = 0;
    for (number, (what, bytes, mut said)) in bad_files().into_iter().enumerate() {
        let generation = handle.latest().generation();
        said.push("state_c.parquet".to_owned());
        if number % 2 == 0 {
            place.write(&bytes);
        } else {
            fs::write(place.file(), &bytes).unwrap();
        }
        await_refusal(&mut daemon, &what, &said);
        is_still(&mut handle, generation, &what);
        assert_eq!(
            place.reader().snapshot().unwrap().generation(),
            generation,
            "{what}"
        );
        assert_eq!(
            fs::read(place.file()).unwrap(),
            bytes,
            "{what}: the foreign file was touched"
        );
        if number % 4 == 0 {
            good_turn += 1;
            place.write(&parquet(&state_with_tasks("c", 20, good_turn)));
            await_turn(&mut handle, good_turn);
            daemon.await_message("the state is good again");
        }
    }
    daemon.stop();
}

/// Where no checkpoint of ours says what the state is, a bad file is no start, nothing is made, and the last snapshot
/// stays as it is.
#[test]
fn a_first_start_on_a_bad_file_is_refused() {
    let place = Place::with_tasks(20);
    Daemon::start(&place).stop();
    let snapshot = fs::read(place.snapshot()).unwrap();
    for ours in ["checkpoints", "log"] {
        fs::remove_dir_all(place.state_dir().join(ours)).unwrap();
    }
    for (what, bytes, said) in bad_files().into_iter().step_by(3) {
        place.write(&bytes);
        let (status, log) = Daemon::spawn(command(place.flags())).end();
        assert_eq!(status.code(), Some(1), "{what}: {log}");
        let line: Value = serde_json::from_str(log.lines().last().expect("a line")).unwrap();
        let error = line["error"].as_str().expect("an error");
        for part in said.iter().map(String::as_str).chain(["state_c.parquet"]) {
            assert!(error.contains(part), "{what}: no {part:?} in {error}");
        }
        assert_eq!(fs::read(place.file()).unwrap(), bytes, "{what}");
        assert!(
            fs::read(place.snapshot()).unwrap() == snapshot,
            "{what}: the last snapshot was touched"
        );
        for ours in ["checkpoints", "log"] {
            let made = fs::read_dir(place.state_dir().join(ours));
            let made = made.map_or(0, Iterator::count);
            assert_eq!(made, 0, "{what}: something was made in {ours}");
        }
    }
}

/// What was acknowledged does not depend on the file that others write: with a checkpoint of ours the last state is
/// served, the bad file is told and left alone, and once nobody is at work on it, it is moved aside.
#[test]
fn a_bad_file_does_not_stop_a_start_once_there_is_a_checkpoint() {
    let place = Place::with_tasks(20);
    Daemon::start(&place).stop();
    let rejected = place.state_dir().join("rejected");
    for (number, (what, bytes, mut said)) in bad_files().into_iter().step_by(7).enumerate() {
        place.write(&bytes);
        let mut daemon = Daemon::start(&place);
        said.push("state_c.parquet".to_owned());
        await_refusal(&mut daemon, &what, &said);
        let snapshot = place.reader().snapshot().unwrap();
        assert_eq!(
            (counts(&snapshot), turn(&snapshot)),
            ([3, 20, 2], 0),
            "{what}"
        );
        assert_eq!(fs::read(place.file()).unwrap(), bytes, "{what}");
        if number % 2 == 0 {
            daemon.stop();
        } else {
            daemon.kill();
        }
        assert_eq!(fs::read(place.file()).unwrap(), bytes, "{what}");
        assert!(!rejected.exists(), "{what}");
    }
    let (what, bytes, said) = bad_files().swap_remove(2);
    place.write(&bytes);
    let long_ago = SystemTime::now() - Duration::from_secs(60);
    let file = fs::File::open(place.file()).unwrap();
    file.set_modified(long_ago).unwrap();
    let mut daemon = Daemon::start(&place);
    await_refusal(&mut daemon, &what, &said);
    // The next change brings our own file back.
    let writer = Writer::connect(place.state_dir()).expect("connects");
    let change = Transaction::new().patch(cluster().set("master_id", "n1"));
    let outcome = writer.apply(change).expect("an outcome");
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    wait_for("the last state in the state file", || {
        import::read_parquet(&place.file(), Some("c")).is_ok()
    });
    // It came out by the exchange, and its reason is written after that.
    wait_for("the bad file and its reason aside", || {
        fs::read_dir(&rejected).is_ok_and(|entries| entries.count() == 2)
    });
    let mut left: Vec<_> = fs::read_dir(&rejected)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    left.sort();
    let [aside, reason] = &left[..] else {
        panic!("{left:?}");
    };
    assert_eq!(fs::read(aside).unwrap(), bytes);
    let reason = fs::read_to_string(reason).unwrap();
    assert!(said.iter().all(|part| reason.contains(part)), "{reason}");
    daemon.stop();
}

#[test]
fn bad_metadata_is_refused_and_left_alone_until_it_is_good() {
    let place = Place::with_tasks(20);
    let outside = place.root().join("state_c.parquet.elsewhere");
    fs::write(&outside, parquet(&state_with_tasks("c", 20, 77))).unwrap();
    let mut daemon = Daemon::start(&place);
    let mut handle = place.reader().handle().unwrap();
    let names = |path: &str| json!({"cluster_id": "c", "parquet_path": path}).to_string();
    symlink(&outside, place.state_dir().join("link.parquet")).unwrap();
    let id = |id: &str| json!({"cluster_id": id}).to_string();
    let cases = [
        ("{\"half", vec!["not JSON", "line 1", "repair it"]),
        ("", vec!["not JSON", "repair it"]),
        ("[1]", vec!["the document is an array", "must be an object"]),
        (
            "{\"cluster_id\": 5}",
            vec!["`cluster_id`", "must be a string"],
        ),
        (
            &names("../state_c.parquet.elsewhere"),
            vec!["../state_c", "`..`", "correct `parquet_path`"],
        ),
        (
            &names(outside.to_str().unwrap()),
            vec!["lies elsewhere", "correct `parquet_path`"],
        ),
        (
            &names("link.parquet"),
            vec!["link.parquet", "symbolic link", "put the file itself there"],
        ),
        (
            &names("gone.parquet"),
            vec!["gone.parquet", "does not exist", "restore the file"],
        ),
        (&id("a/b"), vec!["`cluster_id`", "not a cluster id"]),
        (&id(".."), vec!["`cluster_id`", "not a cluster id"]),
    ];
    for (number, (text, said)) in cases.into_iter().enumerate() {
        let generation = handle.latest().generation();
        fs::write(place.metadata_file(), text).unwrap();
        let mut said: Vec<String> = said.into_iter().map(str::to_owned).collect();
        if !text.contains("link") {
            said.push("state_metadata.json".to_owned());
        }
        await_refusal(&mut daemon, text, &said);
        is_still(&mut handle, generation, text);
        // What is JSON is merged with our keys, what is not is somebody's half-written file.
        let left = fs::read_to_string(place.metadata_file()).unwrap();
        if serde_json::from_str::<serde_json::Map<String, Value>>(text).is_err() {
            assert_eq!(left, text);
        }
        let turn = i64::try_from(number).unwrap() + 1;
        fs::write(place.metadata_file(), id("c")).unwrap();
        place.write(&parquet(&state_with_tasks("c", 20, turn)));
        await_turn(&mut handle, turn);
        // Until the daemon has written its keys: it and the next case must not write at once.
        wait_for("the metadata", || {
            place.metadata()["generation"] == handle.latest().generation()
        });
    }
    daemon.stop();
}

#[test]
fn a_state_or_a_directory_that_disappears_leaves_the_snapshot() {
    let place = Place::with_tasks(20);
    let mut daemon = Daemon::start(&place);
    let mut handle = place.reader().handle().unwrap();
    let generation = handle.latest().generation();
    fs::remove_file(place.file()).unwrap();
    await_refusal(
        &mut daemon,
        "no file",
        &[
            "state_c.parquet".into(),
            "does not exist".into(),
            "restore".into(),
        ],
    );
    is_still(&mut handle, generation, "no file");
    // It is told, and after a moment for whoever may be replacing it, it is written again.
    wait_for("the state file", || {
        import::read_parquet(&place.file(), Some("c")).is_ok()
    });
    is_still(&mut handle, generation, "the file made again");
    place.write(&parquet(&state_with_tasks("c", 20, 1)));
    await_turn(&mut handle, 1);
    let generation = handle.latest().generation();
    let away = place.root().join("away");
    fs::rename(place.state_dir(), &away).unwrap();
    await_refusal(
        &mut daemon,
        "no directory",
        &[
            "cannot open the state directory".into(),
            "check that it exists".into(),
        ],
    );
    is_still(&mut handle, generation, "no directory");
    fs::rename(&away, place.state_dir()).unwrap();
    place.write(&parquet(&state_with_tasks("c", 20, 2)));
    await_turn(&mut handle, 2);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.end().0.code(), Some(0));
}

#[test]
fn a_missing_or_unreadable_directory_and_several_states_are_told() {
    let place = Place::with_tasks(5);
    let fails = |command, said: &[&str]| {
        let (status, log) = Daemon::spawn(command).end();
        assert_eq!(status.code(), Some(1), "{log}");
        for part in said {
            assert!(log.contains(part), "no {part:?} in {log}");
        }
        assert!(!place.run_dir().join("c.arrow").exists(), "{log}");
    };
    let flags = |state: &Path| {
        let state = ["--state-dir".into(), state.into()];
        state
            .into_iter()
            .chain(["--run-dir".into(), place.run_dir().into()])
    };
    let missing = place.root().join("missing");
    fails(
        command(flags(&missing)),
        &["missing", "check that it exists"],
    );
    fails(
        command(flags(&place.file())),
        &["state_c.parquet", "not a directory"],
    );
    fs::write(place.state_dir().join("state_d.parquet"), "x").unwrap();
    fails(
        command(place.flags()),
        &["state_c.parquet, state_d.parquet", "cluster id"],
    );
    // As another user: root may read everything.
    let locked = place.root().join("locked");
    fs::create_dir(&locked).unwrap();
    set_mode(&locked, 0o000);
    let mut by_nobody;
    if geteuid().is_root() {
        let dir = tempfile::tempdir().unwrap();
        set_mode(dir.path(), 0o755);
        set_mode(&place.root(), 0o755);
        let copy = dir.path().join("sherwoodd");
        fs::copy(binary("test_sherwoodd"), &copy).unwrap();
        by_nobody = std::process::Command::new(&copy);
        prepare(&mut by_nobody);
        by_nobody.args(flags(&locked)).uid(65534).gid(65534);
        fails(
            by_nobody,
            &["locked", "must be able to write", "Permission denied"],
        );
    } else {
        fails(command(flags(&locked)), &["locked", "Permission denied"]);
    }
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
