//! A disk that takes no more: the run directory full, a state directory that is read-only, a sync that fails. What is refused says what to do; nothing acknowledged is lost; with room it goes on.
//!
//! The sync that fails is the file system's, shut down under a running daemon: `fdatasync` returns EIO. A failure of each single write
//! and sync of the log is in the tests of `store/src/log/faults.rs`, on a disk that fails on purpose.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use sherwood_client::Reader;
use sherwood_client::write::{Address, Options, Outcome, Transaction, Writer};
use sherwood_tests::daemon::{Daemon, command, wait_for};
use sherwood_tests::needs::{self, SmallTmpfs};
use sherwood_tests::writes::power::{Disk, Kind};
use sherwood_tests::writes::sherwood::rows_of;
use sherwood_tests::writes::transaction::Rows;
use tempfile::TempDir;

/// Of each row; random, so that no checkpoint is smaller than what it holds.
const ROW_BYTES: usize = 100 << 10;
const KEYS: u64 = 40;

/// A daemon's directories, and what its one writer was told.
struct Place {
    state: PathBuf,
    run: PathBuf,
    flags: &'static [&'static str],
    rng: SmallRng,
    number: u64,
    acknowledged: Rows,
    daemon: Option<Daemon>,
    writer: Option<Writer>,
}

impl Place {
    fn new(state: PathBuf, run: PathBuf) -> Self {
        fs::create_dir_all(&state).expect("a state directory");
        Self {
            state,
            run,
            flags: &["--cluster-id", "c"],
            rng: SmallRng::seed_from_u64(1),
            number: 0,
            acknowledged: BTreeMap::new(),
            daemon: None,
            writer: None,
        }
    }

    fn spawn(&self) -> Daemon {
        let flags: [OsString; 4] = [
            "--state-dir".into(),
            self.state.clone().into(),
            "--run-dir".into(),
            self.run.clone().into(),
        ];
        let flags = flags.into_iter().chain(self.flags.iter().map(Into::into));
        Daemon::spawn(command(flags))
    }

    fn start(&mut self) {
        self.stop();
        self.serve(self.spawn().ready());
    }

    fn serve(&mut self, daemon: Daemon) {
        self.daemon = Some(daemon);
        let options = Options::default().deadline(Duration::from_secs(5));
        let socket = Address::Socket(self.run.join("c.sock"));
        self.writer = Some(Writer::connect_with(socket, options).expect("connects"));
    }

    fn stop(&mut self) {
        self.writer = None;
        self.daemon = None;
    }

    fn is_running(&mut self) -> bool {
        self.daemon.as_mut().is_some_and(Daemon::is_running)
    }

    /// A put of a large row, with an id of its own.
    fn next(&mut self) -> (Transaction, String, i64) {
        self.number += 1;
        let key = format!("k{}", self.rng.random_range(0..KEYS));
        let number = i64::try_from(self.number).expect("few");
        let text: String = (0..ROW_BYTES)
            .map(|_| char::from(self.rng.random_range(b' '..b'~')))
            .collect();
        let put =
            json!({"put": "content", "row": {"cid": key, "size": number, "providers": [text]}});
        let line = json!({"id": format!("t{number}"), "ops": [put]}).to_string();
        let transaction = Transaction::from_json(&line).expect("a transaction");
        (transaction, key, number)
    }

    fn ask(&mut self, transaction: &Transaction, key: &str, number: i64) -> Outcome {
        let writer = self.writer.as_ref().expect("connected");
        let outcome = writer.apply(transaction.clone()).expect("it is sent");
        if matches!(outcome, Outcome::Done { .. }) {
            self.acknowledged.insert(key.to_owned(), number);
        }
        outcome
    }

    /// Writes so many rows, or until one is not done.
    fn write(&mut self, most: usize) -> Result<(), Box<(Outcome, Transaction, String, i64)>> {
        for _ in 0..most {
            let (transaction, key, number) = self.next();
            let outcome = self.ask(&transaction, &key, number);
            if !matches!(outcome, Outcome::Done { .. }) {
                return Err(Box::new((outcome, transaction, key, number)));
            }
        }
        Ok(())
    }

    /// What was acknowledged is what readers see, and nothing else.
    fn check(&self, when: &str) {
        let snapshot = Reader::open(self.run.join("c.arrow")).and_then(|reader| reader.snapshot());
        let rows = rows_of(&snapshot.expect("a snapshot")).expect("rows");
        assert_eq!(rows, self.acknowledged, "{when}");
    }
}

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
    let mut place = Place::new(root.path().join("state"), run.path().to_owned());
    place.flags = &["--cluster-id", "c", "--region-bytes", "262144"];
    place.start();
    let (outcome, transaction, key, number) = *place.write(200).expect_err("it is small");
    for part in ["No space left", "run directory"] {
        let reason = text_of(&outcome);
        assert!(reason.contains(part), "no {part:?} in {reason:?}");
    }
    assert!(place.is_running());
    place.check("full");
    run.resize(64 << 20);
    // Its first outcome stays its outcome; another id is done.
    text_of(&place.ask(&transaction, &key, number));
    place.write(50).expect("there is room");
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
    let mut place = Place::new(disk.path().join("state"), run.path().join("run"));
    place.start();
    place.write(20).expect("there is room");
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
    place.write(1).expect("it takes changes again");
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_and_the_daemon_ends() {
    let name = "after_a_failed_sync_nothing_is_acknowledged_and_the_daemon_ends";
    for kind in Kind::ALL {
        let Some(mut disk) = Disk::new(name, kind, 400 << 20) else {
            return;
        };
        let run = memory();
        let mut place = Place::new(disk.path().join("state"), run.path().join("run"));
        place.start();
        place.write(20).expect("it is good");
        disk.pull_the_plug().expect("it goes down");
        let (outcome, transaction, key, number) = *place.write(1).expect_err("it is gone");
        assert!(
            matches!(outcome, Outcome::Unknown { .. }),
            "{kind:?}: {outcome:?}"
        );
        place.writer = None;
        let (status, log) = place.daemon.take().expect("started").end();
        assert_eq!(status.code(), Some(1), "{kind:?}: {log}");
        for part in ["Input/output error", "the log cannot", "Restart"] {
            assert!(log.contains(part), "{kind:?}: no {part:?} in {log}");
        }
        fs::remove_dir_all(&place.run).expect("a tmpfs that a reboot empties");
        disk.replug().expect("it is mounted again");
        place.start();
        place.check("after the restart");
        let outcome = place.ask(&transaction, &key, number);
        assert!(
            matches!(outcome, Outcome::Done { .. }),
            "{kind:?}: {outcome:?}"
        );
        place.stop();
    }
}
