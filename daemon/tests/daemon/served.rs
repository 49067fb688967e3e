//! What a served cluster does before it touches the snapshot's name, one call at a time.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;

use sherwood_client::Reader;
use sherwood_daemon::ends::Ends;
use sherwood_daemon::ends::Real;
use sherwood_daemon::engine::{Request, Stage, Submission};
use sherwood_daemon::generation::BLOCK;
use sherwood_daemon::served::{self, Before, ServeError, ServedEngine, StartError};
use sherwood_shared::file::SnapshotFile;
use sherwood_shared::transaction::{Answer, OutcomeKind, Transaction};
use sherwood_store::lock::LockError;

use crate::common::{Case, Noting, exchange, tasks};

fn begin<E: Ends>(case: &Case, ends: &E) -> ServedEngine<E::Publisher> {
    served::begin(ends, &case.config(), None).unwrap().engine
}

/// Puts one task.
fn put<P: sherwood_daemon::ends::Publish>(engine: &mut ServedEngine<P>, task: &str) -> Answer {
    ask(
        engine,
        &format!(r#"{{"ops":[{{"put":"tasks","row":{{"id":"{task}"}}}}]}}"#),
    )
}

fn ask<P: sherwood_daemon::ends::Publish>(engine: &mut ServedEngine<P>, json: &str) -> Answer {
    let (sender, answers) = std::sync::mpsc::channel();
    let submission = Submission {
        request: Request::Transaction(Transaction::from_json(json.as_bytes()).unwrap()),
        reply: Box::new(move |answer| sender.send(answer).unwrap()),
    };
    engine.commit(vec![submission]).unwrap();
    answers.try_recv().unwrap()
}

#[test]
fn a_daemon_that_lost_its_run_directory_to_another_touches_nothing_there() {
    let case = Case::with(&["t1"]);
    let ends = Noting::default();
    let mut engine = begin(&case, &ends);
    let theirs = case.root().join("theirs");
    fs::create_dir(&theirs).unwrap();
    let lock = fs::File::create(theirs.join("c.lock")).unwrap();
    lock.try_lock().unwrap();
    exchange(&case.run_dir(), &theirs);

    let noted = ends.notes.lock().unwrap().clone();
    let error = engine.publisher().beat().unwrap_err();
    let held = |error: &ServeError| matches!(error, ServeError::Lock(LockError::Held { .. }));
    assert!(held(&error), "{error}");
    let answer = put(&mut engine, "t2");
    assert_eq!(answer.outcome, OutcomeKind::Refused, "{answer:?}");
    let lost = engine.publisher().take_lost();
    assert!(matches!(lost, Some(LockError::Held { .. })), "{lost:?}");
    // Nothing is logged either, not even a refusal for its id, and also when the other has ended: it may have logged.
    let next = engine.journal().next_sequence();
    let refused = r#"{"id":"a","ops":[{"delete":"tasks","key":"nobody"}]}"#;
    let answer = ask(&mut engine, refused);
    assert_eq!(answer.outcome, OutcomeKind::Unknown, "{answer:?}");
    lock.unlock().unwrap();
    let answer = ask(&mut engine, refused);
    assert_eq!(answer.outcome, OutcomeKind::Unknown, "{answer:?}");
    assert_eq!(engine.journal().next_sequence(), next);
    lock.lock().unwrap();
    // A successor of the state directory is not begun under a lost name either.
    fs::rename(case.state_dir(), case.root().join("old")).unwrap();
    fs::create_dir(case.state_dir()).unwrap();
    case.write(&["t3"]);
    let before: Before = engine.publisher().before();
    let begun = served::begin(&ends, &case.config(), Some(before));
    match begun {
        Err(StartError::Lock(LockError::Held { .. })) => {}
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it began"),
    }
    // Nor does a state directory that is gone hide that the name is lost.
    let error = engine.publisher().beat().unwrap_err();
    assert!(held(&error), "{error}");
    assert_eq!(*ends.notes.lock().unwrap(), noted);
    assert_eq!(*ends.beats.lock().unwrap(), 0);
}

#[test]
fn a_run_directory_that_was_removed_is_made_again_with_lock_and_snapshot() {
    let case = Case::with(&["t1"]);
    let mut engine = begin(&case, &Real);
    let served = engine.publisher();
    let generation = served.generation();
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
    let mut engine = begin(&case, &ends);
    let served = engine.publisher();
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
    let mut engine = begin(&case, &Real);
    let served = engine.publisher();
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
fn a_change_that_cannot_be_published_is_refused_and_changes_nothing() {
    let case = Case::with(&["t1"]);
    let ends = Noting::default();
    let mut engine = begin(&case, &ends);
    let before = engine.publisher().facts();
    ends.broken.store(true, Ordering::SeqCst);
    let answer = put(&mut engine, "t2");
    assert_eq!(answer.outcome, OutcomeKind::Refused, "{answer:?}");
    let reason = answer.reason.unwrap_or_default();
    assert!(reason.contains("free space"), "{reason}");
    assert_eq!(engine.publisher().facts(), before);
    ends.broken.store(false, Ordering::SeqCst);
    let answer = put(&mut engine, "t2");
    assert_eq!(answer.outcome, OutcomeKind::Done, "{answer:?}");
    assert_eq!(engine.publisher().facts().rows, [0, 2, 0]);
}

/// What was acknowledged is there after any end, and in the same order of generations.
#[test]
fn what_was_done_is_there_after_a_restart_without_a_checkpoint() {
    let case = Case::with(&["t0"]);
    let mut highest = 0;
    for run in 1..6 {
        let ends = Noting::default();
        let mut engine = begin(&case, &ends);
        let expected: Vec<String> = (0..run).map(|n| format!("t{n}")).collect();
        let (generation, found) = ends.notes.lock().unwrap()[0].clone();
        assert_eq!(found, expected, "run {run}");
        assert!(
            generation > highest,
            "run {run}: {generation} after {highest}"
        );
        let answer = put(&mut engine, &format!("t{run}"));
        highest = answer.generation.unwrap();
        assert!(highest > generation, "run {run}");
    }
}

#[test]
fn generations_that_were_restored_in_place_begin_a_new_history() {
    let case = Case::with(&["t1"]);
    let record = case.state_dir().join("sherwood.generation");
    let path = case.run_dir().join("c.arrow");
    let run = || {
        drop(begin(&case, &Real));
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
