//! The service's own rules: what is published, what is refused, what stays.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;

use serde_json::json;
use sherwood_client::Reader;
use sherwood_client::locate::{METADATA_FILE, StateDir};
use sherwood_daemon::ends::Real;
use sherwood_daemon::log;
use sherwood_daemon::service::{Event, Order};

use crate::common::{Case, exchange, parquet, tasks, wait_for};

#[test]
fn a_state_is_published_and_its_metadata_leads_to_the_snapshot() {
    let case = Case::with(&["t1", "t2"]);
    fs::write(case.state_dir().join(METADATA_FILE), r#"{"theirs": 5}"#).unwrap();
    let running = case.start();
    assert_eq!(running.history(), [["t1", "t2"]]);
    let metadata = case.metadata();
    let expected = json!({
        "theirs": 5,
        "cluster_id": "c",
        "state_path": case.state_dir(),
        "parquet_path": case.file(),
        "snapshot_path": case.run_dir().join("c.arrow"),
        "generation": running.generation(),
        "node_count": 0, "task_count": 2, "content_count": 0,
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&metadata[key], value, "{key}");
    }
    running.stop().unwrap();
}

/// Both ends real: Parquet in, and what a reader of the snapshot file sees.
#[test]
fn a_reader_sees_the_state_and_each_replacement_of_it() {
    let case = Case::with(&["t1"]);
    let (mut service, (sender, events)) = case.begin(Real).unwrap();
    let thread = std::thread::spawn(move || service.run(&events));
    let reader = Reader::open(case.run_dir().join("c.arrow")).unwrap();
    let read = || tasks(&reader.snapshot().unwrap().to_state().unwrap());
    assert_eq!(read(), ["t1"]);
    let found = StateDir::open(case.state_dir()).unwrap().identity();
    let named = reader.snapshot().unwrap().state_dir();
    assert_eq!(named.map(|id| (id.device, id.inode)), Some(found));
    for name in ["t2", "t3"] {
        case.write(&[name]);
        wait_for(name, || read() == [name]);
    }
    sender.send(Event::Order(Order::Stop)).unwrap();
    thread.join().unwrap().unwrap();
    assert_eq!(read(), ["t3"]);
}

#[test]
fn a_replaced_state_is_published_however_it_was_written() {
    let case = Case::with(&["t1"]);
    let running = case.start();
    // Renamed over.
    case.write(&["t2"]);
    running.await_tasks(&["t2"]);
    wait_for("the metadata", || {
        case.metadata()["generation"] == running.generation()
    });
    // In place, closed when whole.
    let bytes = parquet("c", &["t3"]);
    let (half, rest) = bytes.split_at(bytes.len() / 2);
    let mut file = fs::File::create(case.file()).unwrap();
    file.write_all(half).unwrap();
    file.write_all(rest).unwrap();
    drop(file);
    running.await_tasks(&["t3"]);
    // In place, and the half file was closed and looked at.
    let bytes = parquet("c", &["t4"]);
    let (half, rest) = bytes.split_at(bytes.len() / 2);
    let refused = running.ends.refused.lock().unwrap().len();
    fs::write(case.file(), half).unwrap();
    running.await_refusal(refused + 1);
    let mut file = fs::File::options().append(true).open(case.file()).unwrap();
    file.write_all(rest).unwrap();
    drop(file);
    running.await_tasks(&["t4"]);
    assert_eq!(running.history(), [["t1"], ["t2"], ["t3"], ["t4"]]);
}

#[test]
fn the_last_state_of_a_burst_is_the_published_one() {
    let case = Case::with(&["start"]);
    let running = case.start();
    for burst in 0..5 {
        let names: Vec<String> = (0..40).map(|n| format!("b{burst}n{n:02}")).collect();
        for name in &names {
            case.write(&[name]);
        }
        running.await_tasks(&[&names[39]]);
    }
    let history = running.history();
    assert!(
        history.is_sorted_by(|a, b| a < b || *a == ["start"]),
        "{history:?}"
    );
}

#[test]
fn a_refused_state_changes_nothing_and_stays_where_it_is() {
    let case = Case::with(&["t1"]);
    let running = case.start();
    let good = parquet("c", &["t1"]);
    let other_cluster = parquet("d", &["d1"]);
    let bad: [&[u8]; 5] = [
        b"",
        b"PAR1",
        &good[..good.len() - 1],
        b"no parquet at all",
        &other_cluster,
    ];
    for bytes in bad {
        let refused = running.ends.refused.lock().unwrap().len();
        fs::write(case.file(), bytes).unwrap();
        running.await_refusal(refused + 1);
        assert_eq!(running.history(), [["t1"]], "{} bytes", bytes.len());
        assert_eq!(fs::read(case.file()).unwrap(), bytes);
    }
    case.write(&["t2"]);
    running.await_tasks(&["t2"]);
    assert_eq!(running.history(), [["t1"], ["t2"]]);
}

#[test]
fn a_state_that_disappears_leaves_its_snapshot_and_is_found_again() {
    let case = Case::with(&["t1"]);
    let running = case.start();
    fs::remove_file(case.file()).unwrap();
    running.order(Order::Reload);
    case.write(&["t2"]);
    running.await_tasks(&["t2"]);
    // The whole directory, moved away and back.
    let away = case.root().join("away");
    fs::rename(case.state_dir(), &away).unwrap();
    running.order(Order::Reload);
    fs::rename(&away, case.state_dir()).unwrap();
    for tasks in ["t3", "t4"] {
        case.write(&[tasks]);
        running.await_tasks(&[tasks]);
    }
    assert_eq!(running.history(), [["t1"], ["t2"], ["t3"], ["t4"]]);
    running.stop().unwrap();
}

#[test]
fn a_directory_in_the_place_of_the_state_directory_is_served_once_it_is_good() {
    let case = Case::with(&["t1"]);
    let running = case.start();
    fs::rename(case.state_dir(), case.root().join("old")).unwrap();
    // Empty: a state that vanished is not an empty cluster.
    fs::create_dir(case.state_dir()).unwrap();
    wait_for("a try", || case.state_dir().join("sherwood.lock").exists());
    assert_eq!(running.history(), [["t1"]]);
    for tasks in ["t2", "t3"] {
        case.write(&[tasks]);
        running.await_tasks(&[tasks]);
    }
    wait_for("the metadata", || {
        case.metadata()["generation"] == running.generation()
    });
    assert_eq!(running.history(), [["t1"], ["t2"], ["t3"]]);
    let notes = running.ends.notes.lock().unwrap().clone();
    assert!(notes.is_sorted_by(|a, b| a.0 < b.0), "{notes:?}");
    running.stop().unwrap();
}

#[test]
fn a_foreign_metadata_file_gets_our_keys_again_and_half_of_one_is_left_alone() {
    let case = Case::with(&["t1"]);
    let running = case.start();
    let path = case.state_dir().join(METADATA_FILE);
    fs::write(&path, r#"{"theirs": 1, "cluster_id": "c"}"#).unwrap();
    wait_for("our keys", || {
        let metadata = case.metadata();
        metadata["theirs"] == 1 && metadata["snapshot_path"].is_string()
    });
    fs::write(&path, "{\"theirs\": ").unwrap();
    case.write(&["t2"]);
    running.order(Order::Reload);
    assert_eq!(fs::read(&path).unwrap(), b"{\"theirs\": ");
    fs::write(&path, r#"{"theirs": 2}"#).unwrap();
    running.await_tasks(&["t2"]);
    wait_for("our keys again", || {
        let metadata = case.metadata();
        metadata["theirs"] == 2 && metadata["generation"] == running.generation()
    });
}

#[test]
fn nothing_unreadable_is_ever_taken_for_an_empty_cluster() {
    let whole = parquet("c", &["t1"]);
    let cases: [(&str, &[u8], &str); 9] = [
        (
            "state_c.parquet",
            &whole[..whole.len() / 2],
            "state_c.parquet",
        ),
        ("state_c.parquet", b"", "state_c.parquet"),
        ("state_d.parquet", &whole, "state_d.parquet"),
        ("state_c.parquet.tmp", &whole, "state_c.parquet.tmp"),
        (METADATA_FILE, b"{", METADATA_FILE),
        (METADATA_FILE, br#"{"cluster_id": "d"}"#, "\"d\""),
        (
            METADATA_FILE,
            br#"{"parquet_path": "state_c.parquet"}"#,
            "state_c.parquet",
        ),
        (
            METADATA_FILE,
            br#"{"parquet_path": "../c.parquet"}"#,
            "../c.parquet",
        ),
        ("sherwood.generation", b"{", "sherwood.generation"),
    ];
    for (name, bytes, said) in cases {
        let mut case = Case::new();
        case.environment
            .push(("SHERWOOD_CLUSTER_ID", "c".to_owned()));
        fs::write(case.state_dir().join(name), bytes).unwrap();
        let error = case.refusal();
        assert!(error.contains(said), "{name}: {error}");
        let left = fs::read(case.state_dir().join(name)).unwrap();
        assert_eq!(left, bytes, "{name}");
    }
    let error = Case::new().refusal();
    assert!(error.contains("--cluster-id"), "{error}");
    let case = Case::with(&["t1"]);
    fs::write(case.state_dir().join("state_d.parquet"), &whole).unwrap();
    let error = case.refusal();
    assert!(
        error.contains("state_c.parquet, state_d.parquet"),
        "{error}"
    );
    let case = Case::new();
    fs::remove_dir(case.state_dir()).unwrap();
    let error = case.refusal();
    assert!(error.contains("No such file"), "{error}");
}

#[test]
fn a_run_directory_in_which_others_may_rename_is_not_published_into() {
    let case = Case::with(&["t1"]);
    fs::create_dir(case.run_dir()).unwrap();
    fs::set_permissions(case.run_dir(), fs::Permissions::from_mode(0o777)).unwrap();
    let error = case.refusal();
    assert!(error.contains("chmod go-w"), "{error}");
    assert_eq!(fs::read_dir(case.run_dir()).unwrap().count(), 0, "{error}");
}

#[test]
fn an_empty_directory_starts_an_empty_cluster_which_soon_has_a_state_file() {
    let mut case = Case::new();
    case.environment
        .push(("SHERWOOD_CLUSTER_ID", "c".to_owned()));
    for _ in 0..2 {
        let running = case.start();
        assert_eq!(running.history(), [Vec::<String>::new()]);
        assert_eq!(case.metadata()["cluster_id"], "c");
        wait_for("the metadata", || {
            case.metadata()["parquet_path"].is_string()
        });
        assert_eq!(fs::read(case.file()).unwrap()[..4], *b"PAR1");
        running.stop().unwrap();
    }
    let running = case.start();
    case.write(&["t1"]);
    running.await_tasks(&["t1"]);
    running.stop().unwrap();
    // What is ours does not depend on the file that others see: that one is made again.
    fs::remove_file(case.file()).unwrap();
    let running = case.start();
    assert_eq!(running.history(), [["t1"]]);
    wait_for("the state file", || case.file().exists());
    running.stop().unwrap();
}

#[test]
fn a_second_daemon_names_the_first_and_other_clusters_share_the_run_directory() {
    let first = Case::with(&["t1"]);
    let running = first.start();
    let error = first.refusal();
    let me = format!("pid {}", std::process::id());
    assert!(error.contains(&me), "{error}");
    assert!(error.contains("sherwood.lock"), "{error}");
    // Another directory with a cluster of the same name, in the same run directory.
    let mut second = Case::with(&["t2"]);
    let run_dir = first.run_dir().to_string_lossy().into_owned();
    second.environment.push(("SHERWOOD_RUN_DIR", run_dir));
    let error = second.refusal();
    let first_dir = first.state_dir().to_string_lossy().into_owned();
    assert!(error.contains(&me), "{error}");
    assert!(error.contains(&first_dir), "{error}");
    // Another cluster there is welcome.
    fs::remove_file(second.file()).unwrap();
    let other = second.state_dir().join("state_d.parquet");
    fs::write(other, parquet("d", &["d1"])).unwrap();
    second.start().stop().unwrap();
    running.stop().unwrap();
    first.start().stop().unwrap();
}

#[test]
fn a_lock_file_that_is_removed_is_made_again_and_a_quicker_daemon_wins() {
    let case = Case::with(&["t1"]);
    let running = case.start();
    let lock = case.state_dir().join("sherwood.lock");
    fs::remove_file(&lock).unwrap();
    // Locked before it is written.
    wait_for("the lock file", || {
        fs::read_to_string(&lock).is_ok_and(|text| text.ends_with('\n'))
    });
    let error = case.refusal();
    assert!(error.contains("already serves"), "{error}");
    // Somebody else's lock at its name, held before it is there.
    let theirs = case.state_dir().join("theirs");
    let file = fs::File::create(&theirs).unwrap();
    file.try_lock().unwrap();
    fs::rename(&theirs, &lock).unwrap();
    let error = log::chain(&running.end().unwrap_err());
    assert!(error.contains("already serves"), "{error}");
}

#[test]
fn a_daemon_ends_when_another_has_taken_its_run_directory() {
    let case = Case::with(&["t1"]);
    let running = case.start();
    let theirs = case.root().join("theirs");
    fs::create_dir(&theirs).unwrap();
    let lock = fs::File::create(theirs.join("c.lock")).unwrap();
    lock.try_lock().unwrap();
    exchange(&case.run_dir(), &theirs);
    let error = log::chain(&running.end().unwrap_err());
    assert!(error.contains("already serves"), "{error}");
}

#[test]
fn a_publisher_without_room_keeps_the_last_snapshot_and_is_tried_again() {
    let case = Case::with(&["t1"]);
    let running = case.start();
    running.ends.broken.store(true, Ordering::SeqCst);
    case.write(&["t2"]);
    wait_for("a failure", || *running.ends.failures.lock().unwrap() > 0);
    assert_eq!(running.history(), [["t1"]]);
    // Room again: without a further change of the state.
    running.ends.broken.store(false, Ordering::SeqCst);
    running.await_tasks(&["t2"]);
}

#[test]
fn generations_never_go_back_over_restarts() {
    let case = Case::with(&["t0"]);
    let mut highest = 0;
    let mut history = None;
    for run in 1..5 {
        let running = case.start();
        assert!(running.generation() > highest, "run {run}");
        let tasks = format!("t{run}");
        case.write(&[&tasks]);
        running.await_tasks(&[&tasks]);
        highest = running.generation();
        let named = case.metadata()["history"].clone();
        assert!(named.is_string(), "run {run}");
        assert_eq!(*history.get_or_insert(named.clone()), named, "run {run}");
        running.stop().unwrap();
    }
}

#[test]
fn a_reload_survives_a_bad_configuration_file() {
    let mut case = Case::with(&["t1"]);
    let config = case.root().join("c.toml");
    fs::write(&config, "log_level = 'info'\n").unwrap();
    let path = config.to_string_lossy().into_owned();
    case.environment.push(("SHERWOOD_CONFIG", path));
    let running = case.start();
    for text in [
        "log_level = 'warn'\nsnapshot_mode = '0600'\n",
        "no",
        "x = 1",
    ] {
        fs::write(&config, text).unwrap();
        running.order(Order::Reload);
    }
    case.write(&["t2"]);
    running.await_tasks(&["t2"]);
    running.stop().unwrap();
}
