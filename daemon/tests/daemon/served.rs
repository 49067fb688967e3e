//! What a served cluster does before it touches the snapshot's name, one call at a time.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;

use sherwood_client::Reader;
use sherwood_daemon::ends::Real;
use sherwood_daemon::generation::BLOCK;
use sherwood_daemon::lock::LockError;
use sherwood_daemon::served::{Before, ServeError, Served, StartError};
use sherwood_shared::file::SnapshotFile;

use crate::common::{Case, Noting, NotingPublisher, exchange, state, tasks};

fn begin(case: &Case, ends: &Noting) -> Served<NotingPublisher> {
    Served::begin(ends, &case.config(), None).unwrap().0
}

#[test]
fn a_daemon_that_lost_its_run_directory_to_another_touches_nothing_there() {
    let case = Case::with(&["t1"]);
    let ends = Noting::default();
    let mut served = begin(&case, &ends);
    let theirs = case.root().join("theirs");
    fs::create_dir(&theirs).unwrap();
    let lock = fs::File::create(theirs.join("c.lock")).unwrap();
    lock.try_lock().unwrap();
    exchange(&case.run_dir(), &theirs);

    let noted = ends.notes.lock().unwrap().clone();
    let error = served.beat().unwrap_err();
    let held = |error: &ServeError| matches!(error, ServeError::Lock(LockError::Held { .. }));
    assert!(held(&error), "{error}");
    let error = served
        .publish(&state("c", &["t2"]), &case.file())
        .unwrap_err();
    assert!(held(&error), "{error}");
    // A successor of the state directory is not begun under a lost name either.
    fs::rename(case.state_dir(), case.root().join("old")).unwrap();
    fs::create_dir(case.state_dir()).unwrap();
    case.write(&["t3"]);
    let before: Before = served.before();
    let begun = Served::begin(&ends, &case.config(), Some(before));
    match begun {
        Err(StartError::Lock(LockError::Held { .. })) => {}
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it began"),
    }
    // Nor does a state directory that is gone hide that the name is lost.
    let error = served.beat().unwrap_err();
    assert!(held(&error), "{error}");
    assert_eq!(*ends.notes.lock().unwrap(), noted);
    assert_eq!(*ends.beats.lock().unwrap(), 0);
}

#[test]
fn a_run_directory_that_was_removed_is_made_again_with_lock_and_snapshot() {
    let case = Case::with(&["t1"]);
    let mut served = Served::begin(&Real, &case.config(), None).unwrap().0;
    let generation = served.facts().generation;
    fs::remove_dir_all(case.run_dir()).unwrap();
    assert!(served.beat().unwrap(), "no file was made");
    let reader = Reader::open(case.run_dir().join("c.arrow")).unwrap();
    let snapshot = reader.snapshot().unwrap();
    assert_eq!(tasks(&snapshot.to_state().unwrap()), ["t1"]);
    assert!(snapshot.generation() > generation, "{generation}");
    assert!(reader.liveness().unwrap().alive);
    let mode = fs::metadata(case.run_dir()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
    assert!(case.refusal().contains("already serves"));
    // Not into one that somebody else made first, and in which others may rename.
    fs::remove_dir_all(case.run_dir()).unwrap();
    fs::create_dir(case.run_dir()).unwrap();
    fs::set_permissions(case.run_dir(), fs::Permissions::from_mode(0o777)).unwrap();
    let error = served.beat().unwrap_err();
    assert!(matches!(error, ServeError::RunDir(_)), "{error}");
    assert_eq!(fs::read_dir(case.run_dir()).unwrap().count(), 0);
    fs::set_permissions(case.run_dir(), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(served.beat().unwrap(), "no file was made");
}

#[test]
fn a_daemon_without_generations_still_says_that_it_lives() {
    let case = Case::with(&["t1"]);
    let ends = Noting::default();
    let mut served = begin(&case, &ends);
    assert!(!served.beat().unwrap());
    assert_eq!(*ends.beats.lock().unwrap(), 1);
    // The block is used up, and the next one cannot be written: something is in its way.
    ends.taken.store(BLOCK, Ordering::SeqCst);
    let in_the_way = case.state_dir().join("sherwood.sherwood.generation.tmp");
    fs::create_dir(&in_the_way).unwrap();
    for seconds in 1..4 {
        let error = served.beat().unwrap_err();
        assert!(matches!(error, ServeError::Generation(_)), "{error}");
        assert_eq!(*ends.pulses.lock().unwrap(), 1 + seconds);
        // What might take a generation waits (G1).
        assert_eq!(*ends.beats.lock().unwrap(), 1);
    }
    fs::remove_dir(&in_the_way).unwrap();
    assert!(!served.beat().unwrap());
    assert_eq!(*ends.beats.lock().unwrap(), 2);
}

/// The same with both ends real, as a reader sees it.
#[test]
fn a_beat_that_fails_is_a_beat_to_readers() {
    let case = Case::with(&["t1"]);
    let mut served = Served::begin(&Real, &case.config(), None).unwrap().0;
    let path = case.run_dir().join("c.arrow");
    let file = SnapshotFile::open(&path).unwrap();
    let before = file.header().beat();
    fs::remove_file(case.state_dir().join("sherwood.lock")).unwrap();
    fs::create_dir(case.state_dir().join("sherwood.lock")).unwrap();
    let error = served.beat().unwrap_err();
    assert!(matches!(error, ServeError::Lock(_)), "{error}");
    assert_eq!(file.header().beat(), before + 1);
}

#[test]
fn a_publish_that_fails_tells_the_generations_it_took_and_nothing_of_the_state() {
    let case = Case::with(&["t1"]);
    let ends = Noting::default();
    let mut served = begin(&case, &ends);
    let mut expected = served.facts().clone();
    ends.broken.store(true, Ordering::SeqCst);
    ends.taken.store(4, Ordering::SeqCst);
    let file = case.state_dir().join("other.parquet");
    served
        .publish(&state("c", &["t2", "t3"]), &file)
        .unwrap_err();
    expected.generation += 4;
    assert_eq!(*served.facts(), expected);
}

#[test]
fn generations_that_were_restored_in_place_begin_a_new_history() {
    let case = Case::with(&["t1"]);
    let record = case.state_dir().join("sherwood.generation");
    let path = case.run_dir().join("c.arrow");
    let run = || {
        let served = Served::begin(&Real, &case.config(), None).unwrap().0;
        drop(served);
        let snapshot = Reader::open(&path).unwrap().snapshot().unwrap();
        (snapshot.history(), snapshot.generation())
    };
    let (history, mut generation) = run();
    let backup = fs::read(&record).unwrap();
    for _ in 0..2 {
        let (next, higher) = run();
        assert_eq!(next, history);
        assert!(higher > generation, "{higher} after {generation}");
        generation = higher;
    }
    fs::write(&record, &backup).unwrap();
    let (restored, higher) = run();
    assert_ne!(restored, history);
    assert!(higher > generation, "{higher} after {generation}");
    assert_eq!(run().0, restored);
    // What cannot be read, or tells of another history, is no reason not to start.
    fs::write(&path, "no snapshot").unwrap();
    assert_eq!(run().0, restored);
    fs::remove_file(&record).unwrap();
    let (other, lower) = run();
    assert_ne!(other, restored);
    assert_eq!(lower, 1);
}
