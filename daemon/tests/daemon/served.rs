//! What a served cluster does before it touches the snapshot's name, one call at a time.

use std::fs;

use sherwood_daemon::lock::LockError;
use sherwood_daemon::served::{Before, ServeError, Served, StartError};

use crate::common::{Case, Noting, NotingPublisher, exchange, state};

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
