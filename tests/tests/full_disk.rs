//! No room: on the run directory's tmpfs, and on the state directory's disk. A warning, never a signal, and the last
//! snapshot stays. Needs root, to mount a small tmpfs.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use sherwood_client::Reader;
use sherwood_tests::daemon::{
    Daemon, Place, await_turn, command, counts, parquet, state_with_tasks, turn, wait_for,
};
use sherwood_tests::needs::{self, SmallTmpfs};

const REGIONS: [&str; 2] = ["--region-bytes", "65536"];
const TOLD: &str =
    "a foreign state cannot be merged for now; nothing of it was applied, and it is tried again";

fn flags(state: &Path, run: &Path) -> Vec<OsString> {
    let mut flags: Vec<OsString> = ["--state-dir".into(), state.into()].into();
    flags.extend(["--run-dir".into(), run.into()]);
    flags.extend(REGIONS.map(OsString::from));
    flags
}

#[test]
fn a_state_that_outgrows_the_tmpfs_is_a_warning_and_the_last_snapshot_stays() {
    if !needs::root("a_state_that_outgrows_the_tmpfs_is_a_warning_and_the_last_snapshot_stays") {
        return;
    }
    let place = Place::with_tasks(100);
    let run = SmallTmpfs::mount(&place.root().join("run"), 2 << 20);
    let mut daemon = Daemon::spawn(command(flags(&place.state_dir(), run.path()))).ready();
    let reader = Reader::open(run.path().join("c.arrow")).unwrap();
    let mut handle = reader.handle().unwrap();
    let large = 60_000;
    let told = |daemon: &mut Daemon| {
        let line = daemon.await_message(TOLD);
        let text = line.to_string();
        for part in [
            "WARN",
            "c.arrow",
            "no room",
            "remount,size=",
            "No space left",
        ] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
    };
    // It shrinks again.
    place.write(&parquet(&state_with_tasks("c", large, 1)));
    told(&mut daemon);
    assert_eq!(
        (counts(handle.latest())[1], turn(handle.latest())),
        (100, 0)
    );
    place.write(&parquet(&state_with_tasks("c", 100, 2)));
    await_turn(&mut handle, 2);
    assert!(daemon.is_running());
    // The tmpfs grows: without a further change of the state.
    place.write(&parquet(&state_with_tasks("c", large, 3)));
    told(&mut daemon);
    assert_eq!(
        (counts(handle.latest())[1], turn(handle.latest())),
        (100, 2)
    );
    // A newcomer reads it as well, all of it.
    let late = Reader::open(run.path().join("c.arrow"))
        .unwrap()
        .snapshot()
        .unwrap();
    assert_eq!(
        late.to_state()
            .unwrap()
            .table(sherwood_client::TableId::Tasks)
            .num_rows(),
        100
    );
    run.resize(128 << 20);
    await_turn(&mut handle, 3);
    assert_eq!(counts(handle.latest())[1], large as u64);
    daemon.await_message("foreign changes are merged again");
    // Every page that a reader could touch is there (F8): no hole, so no SIGBUS for it either.
    assert_eq!(
        handle
            .latest()
            .to_state()
            .unwrap()
            .table(sherwood_client::TableId::Tasks)
            .num_rows(),
        large
    );
    daemon.stop();
}

#[test]
fn a_start_on_a_full_tmpfs_is_an_error_and_leaves_nothing_behind() {
    if !needs::root("a_start_on_a_full_tmpfs_is_an_error_and_leaves_nothing_behind") {
        return;
    }
    let place = Place::with_tasks(100);
    let run = SmallTmpfs::mount(&place.root().join("run"), 2 << 20);
    // The last snapshot of a daemon before, which fills the rest with somebody's help.
    Daemon::spawn(command(flags(&place.state_dir(), run.path())))
        .ready()
        .stop();
    let before = fs::read(run.path().join("c.arrow")).unwrap();
    let filler = run.fill("somebody's");
    let (status, log) = Daemon::spawn(command(flags(&place.state_dir(), run.path()))).end();
    assert_eq!(status.code(), Some(1), "{log}");
    for part in ["c.arrow", "no room", "remount,size=", "No space left"] {
        assert!(log.contains(part), "no {part:?} in {log}");
    }
    assert!(
        fs::read(run.path().join("c.arrow")).unwrap() == before,
        "the last snapshot was touched"
    );
    let mut left: Vec<_> = fs::read_dir(run.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["c.arrow", "c.lock", "somebody's"]);
    // The first start ever, not even room for the lock file's line.
    fs::remove_file(run.path().join("c.arrow")).unwrap();
    fs::remove_file(run.path().join("c.lock")).unwrap();
    let _more = run.fill("more");
    let (status, log) = Daemon::spawn(command(flags(&place.state_dir(), run.path()))).end();
    assert_eq!(status.code(), Some(1), "{log}");
    for part in [run.path().to_str().unwrap(), "No space left"] {
        assert!(log.contains(part), "no {part:?} in {log}");
    }
    assert!(!run.path().join("c.arrow").exists());
    fs::remove_file(filler).unwrap();
    Daemon::spawn(command(flags(&place.state_dir(), run.path())))
        .ready()
        .stop();
}

#[test]
fn a_full_disk_under_the_state_is_a_warning_and_publishing_goes_on() {
    if !needs::root("a_full_disk_under_the_state_is_a_warning_and_publishing_goes_on") {
        return;
    }
    const TOLD: &str = "the metadata is not up to date";
    let place = Place::new();
    // With room for the log's segments: what is made ready goes on when nothing more can be made.
    let disk = SmallTmpfs::mount(&place.root().join("disk"), 64 << 20);
    let file = disk.path().join("state_c.parquet");
    fs::write(&file, parquet(&state_with_tasks("c", 100, 0))).unwrap();
    let mut daemon = Daemon::spawn(command(flags(disk.path(), &place.run_dir()))).ready();
    let mut handle = place.reader().handle().unwrap();
    // What is being made ready would give its room back.
    wait_for("the log's room", || {
        let reserve = fs::metadata(disk.path().join("log/room.reserve"));
        reserve.is_ok_and(|found| found.len() > 0)
    });
    let filler = disk.fill("somebody's");
    // In place, so that the writer needs no room.
    for turn in 1..=3 {
        fs::write(&file, parquet(&state_with_tasks("c", 100, turn))).unwrap();
        await_turn(&mut handle, turn);
    }
    let line = daemon.await_message(TOLD);
    for part in ["WARN", "state_metadata.json", "No space left"] {
        assert!(line.to_string().contains(part), "no {part:?} in {line}");
    }
    assert!(daemon.is_running());
    assert_eq!(daemon.count(TOLD), 1, "told once");
    let metadata = fs::read(disk.path().join("state_metadata.json")).unwrap();
    assert!(
        serde_json::from_slice::<serde_json::Value>(&metadata).is_ok(),
        "the old one stays whole"
    );
    // Room again, and it catches up by itself.
    fs::remove_file(filler).unwrap();
    daemon.await_message("the metadata is up to date again");
    let metadata = fs::read(disk.path().join("state_metadata.json")).unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&metadata).unwrap();
    assert_eq!(metadata["generation"], handle.latest().generation());
    daemon.stop();
}
