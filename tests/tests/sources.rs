//! A state followed over the lives of its daemons: `sherwood_client::Source`.

use std::fs;
use std::thread;
use std::time::Duration;

use sherwood_client::find::{Daemon as Standing, FindErrorKind, Origin, Places};
use sherwood_client::{Snapshot, Source, TableId};
use sherwood_tests::daemon::{
    Daemon, LONG, Place, await_turn, parquet, state_with_tasks, turn, wait_for,
};

fn follow(place: &Place) -> Source {
    Source::open(Places::at(place.state_dir()).expect("places")).expect("a state")
}

fn tasks(snapshot: &Snapshot) -> u64 {
    snapshot.table(TableId::Tasks).len()
}

fn is_shared(source: &Source) -> bool {
    matches!(
        source.found().expect("a state").origin,
        Origin::Shared { .. }
    )
}

#[test]
fn without_a_daemon_a_state_is_read_again_only_when_it_was_written_again() {
    let place = Place::with_tasks(10);
    let source = follow(&place);
    // Until the file's times are old enough to be believed it is read each time.
    let mut before = source.snapshot().unwrap();
    wait_for("a read that holds", || {
        let now = source.snapshot().unwrap();
        let holds = now.is_same(&before);
        before = now;
        holds
    });
    assert!(source.snapshot().unwrap().is_same(&before));
    // Each of them within a moment of the one before, all of one length, and in place.
    for turn_ in 1..50 {
        fs::write(place.file(), parquet(&state_with_tasks("c", 10, turn_))).unwrap();
        assert_eq!(turn(&source.snapshot().unwrap()), turn_);
    }
    assert_eq!(turn(&before), 0, "what is held stays as it was");
}

#[test]
fn a_source_goes_over_to_a_daemon_that_comes_and_back_when_it_goes() {
    let place = Place::with_tasks(10);
    let source = follow(&place);
    assert!(!is_shared(&source));
    assert_eq!(source.found().unwrap().daemon().unwrap(), Standing::None);

    let daemon = Daemon::start(&place);
    assert!(is_shared(&source), "the snapshot that the metadata names");
    let standing = source.found().unwrap().daemon().unwrap();
    assert_eq!(standing, Standing::Alive { pid: daemon.pid() });
    place.write(&parquet(&state_with_tasks("c", 20, 1)));
    await_turn(&mut place.reader().handle().unwrap(), 1);
    assert_eq!(tasks(&source.snapshot().unwrap()), 20);

    daemon.kill();
    let found = source.found().unwrap();
    assert!(found.daemon().unwrap().is_stale());
    assert_eq!(tasks(&found.snapshot), 20, "the last there was");
    place.write(&parquet(&state_with_tasks("c", 30, 2)));
    assert_eq!(tasks(&source.snapshot().unwrap()), 30, "what is newer");
    assert!(source.found().unwrap().daemon().unwrap().is_stale());

    let _daemon = Daemon::start(&place);
    assert!(is_shared(&source), "the next daemon's snapshot");
    // It begins with what it knew, and merges the file.
    wait_for("the merge", || tasks(&source.snapshot().unwrap()) == 30);
}

#[test]
fn a_waiter_sees_publishes_and_files_and_the_end_of_its_time() {
    let place = Place::with_tasks(10);
    let source = follow(&place);
    let seen = source.snapshot().unwrap();
    let next = |source: &Source, seen: &Snapshot| {
        let next = source.wait(seen, LONG).expect("a state");
        next.expect("another one before the time is over")
    };
    let waiter = {
        let source = source.clone();
        thread::spawn(move || {
            // Of a file that was read again without need, the same is another.
            let mut seen = seen;
            while turn(&seen) != 1 {
                seen = next(&source, &seen);
            }
            seen
        })
    };
    place.write(&parquet(&state_with_tasks("c", 10, 1)));
    let seen = waiter.join().unwrap();
    let daemon = Daemon::start(&place);
    // A snapshot of the same state, and another nevertheless.
    let seen = next(&source, &seen);
    assert!(!seen.is_on_heap());
    assert!(source.wait(&seen, Duration::ZERO).unwrap().is_none());
    let waiter = {
        let source = source.clone();
        thread::spawn(move || next(&source, &seen))
    };
    place.write(&parquet(&state_with_tasks("c", 10, 2)));
    assert_eq!(turn(&waiter.join().unwrap()), 2);
    daemon.stop();
}

#[test]
fn errors_tell_missing_damaged_newer_and_ambiguous_apart() {
    let kind = |path: &std::path::Path| {
        let error = Source::open(Places::at(path).unwrap()).expect_err("no state");
        error.kind()
    };
    let place = Place::with_tasks(3);
    let dir = place.state_dir();
    let missing = FindErrorKind::Missing;
    assert_eq!(kind(&dir.join("nowhere")), missing);
    assert_eq!(kind(&dir.join("nothing.parquet")), missing);
    assert_eq!(kind(&dir.join("nothing.arrow")), missing);
    let empty = dir.join("empty");
    fs::create_dir(&empty).unwrap();
    assert_eq!(kind(&empty), missing);

    let good = fs::read(place.file()).unwrap();
    fs::write(dir.join("x.parquet"), &good[..good.len() / 2]).unwrap();
    assert_eq!(kind(&dir.join("x.parquet")), FindErrorKind::Corrupt);
    fs::write(dir.join("x.arrow"), &good).unwrap();
    assert_eq!(kind(&dir.join("x.arrow")), FindErrorKind::Corrupt);

    fs::copy(place.file(), dir.join("state_other.parquet")).unwrap();
    assert_eq!(kind(&dir), FindErrorKind::Ambiguous);
    let found = Places::at(&dir).unwrap().or_newest().find().unwrap();
    assert_eq!(tasks(&found.snapshot), 3);
    assert_eq!(found.warnings.len(), 1, "{:?}", found.warnings);
}

#[test]
fn a_source_that_cannot_read_says_so_each_time_and_reads_when_it_can() {
    let place = Place::with_tasks(3);
    let source = follow(&place);
    let good = fs::read(place.file()).unwrap();
    fs::write(place.file(), &good[..100]).unwrap();
    for _ in 0..3 {
        let error = source.snapshot().expect_err("half a file");
        assert_eq!(error.kind(), FindErrorKind::Corrupt, "{error}");
    }
    fs::remove_file(place.file()).unwrap();
    let error = source.snapshot().expect_err("no file");
    assert_eq!(error.kind(), FindErrorKind::Missing, "{error}");
    fs::write(place.file(), good).unwrap();
    assert_eq!(tasks(&source.snapshot().unwrap()), 3);
}
