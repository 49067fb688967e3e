//! A disk that takes no more: the run directory full, a state directory that is read-only, a sync that fails. What is refused says what to do; nothing acknowledged is lost; with room it goes on.
//!
//! The sync that fails is the file system's, shut down under a running daemon: `fdatasync` returns EIO. A failure of each single write
//! and sync of the log is in the tests of `store/src/log/faults.rs`, on a disk that fails on purpose.

use std::fs;
use std::process::Command;

use sherwood_client::write::Outcome;
use sherwood_tests::daemon::wait_for;
use sherwood_tests::needs::{self, SmallTmpfs};
use sherwood_tests::writes::lone::Lone;
use sherwood_tests::writes::power::{Disk, Kind};
use tempfile::TempDir;

const KEYS: u64 = 40;

fn text_of(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Refused { reason, .. } => reason,
        other => panic!("not refused: {other:?}"),
    }
}

fn memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").expect("a tmpfs")
}

#[test]
fn a_full_run_directory_refuses_with_advice_and_loses_nothing() {
    if !needs::root("a_full_run_directory_refuses_with_advice_and_loses_nothing") {
        return;
    }
    let root = tempfile::tempdir().expect("a directory");
    let run = SmallTmpfs::mount(&root.path().join("run"), 3 << 20);
    let flags = ["--region-bytes", "262144"];
    let mut place = Lone::new(root.path().join("state"), run.path().to_owned(), &flags);
    place.start();
    let (outcome, change) = *place.write(200, KEYS).expect_err("it is small");
    for part in ["No space left", "run directory"] {
        let reason = text_of(&outcome);
        assert!(reason.contains(part), "no {part:?} in {reason:?}");
    }
    assert!(place.daemon().is_running());
    place.check("full");
    run.resize(64 << 20);
    // What may pass is not remembered: the same id is judged anew.
    assert!(place.is_done(&change), "{:?}", place.refusals());
    place.write(50, KEYS).expect("there is room");
    place.check("with room");
    place.start();
    place.check("started again");
}

#[test]
fn a_read_only_state_directory_is_told_at_the_start_and_nothing_is_touched() {
    let name = "a_read_only_state_directory_is_told_at_the_start_and_nothing_is_touched";
    if !needs::root(name) {
        return;
    }
    let (root, run) = (tempfile::tempdir().expect("a directory"), memory());
    let disk = SmallTmpfs::mount(&root.path().join("disk"), 96 << 20);
    let mut place = Lone::new(disk.path().join("state"), run.path().join("run"), &[]);
    place.start();
    place.write(20, KEYS).expect("there is room");
    place.stop();
    let remount = |how: &str| {
        let mut command = Command::new("mount");
        let command = command.args(["-o", how]).arg(disk.path());
        wait_for("mount", || {
            command.status().is_ok_and(|status| status.success())
        });
    };
    remount("remount,ro");
    let before = fs::read(run.path().join("run/c.arrow")).expect("a snapshot");
    let (status, log) = place.spawn().end();
    assert_eq!(status.code(), Some(1), "{log}");
    for part in ["Read-only file system", "state"] {
        assert!(log.contains(part), "no {part:?} in {log}");
    }
    let after = fs::read(run.path().join("run/c.arrow")).expect("a snapshot");
    assert!(before == after, "the last snapshot was touched");
    remount("remount,rw");
    place.start();
    place.check("writable again");
    place.write(1, KEYS).expect("it takes changes again");
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_and_the_daemon_ends() {
    let name = "after_a_failed_sync_nothing_is_acknowledged_and_the_daemon_ends";
    for kind in Kind::ALL {
        let Some(mut disk) = Disk::new(name, kind, 400 << 20) else {
            return;
        };
        let run = memory();
        let mut place = Lone::new(disk.path().join("state"), run.path().join("run"), &[]);
        place.start();
        place.write(20, KEYS).expect("it is good");
        disk.pull_the_plug().expect("it goes down");
        let (outcome, change) = *place.write(1, KEYS).expect_err("it is gone");
        assert!(
            matches!(outcome, Outcome::Unknown { .. }),
            "{kind:?}: {outcome:?}"
        );
        let (status, log) = place.take_daemon().end();
        assert_eq!(status.code(), Some(1), "{kind:?}: {log}");
        for part in ["Input/output error", "the log cannot", "Restart"] {
            assert!(log.contains(part), "{kind:?}: no {part:?} in {log}");
        }
        disk.replug().expect("it is mounted again");
        place.start_from_the_files();
        place.check("after the restart");
        assert!(place.is_done(&change), "{kind:?}: {:?}", place.refusals());
        place.stop();
    }
}
