//! What was appended comes back.

use super::samples::*;
use crate::log::{AppendError, Log, Options, read};
use crate::outcomes::Outcomes;

#[test]
fn what_was_appended_comes_back_over_rotations_and_restarts() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("log");
    let mut next = 1;
    for _restart in 0..5 {
        let (mut log, opened) = Log::open_real(&dir, small()).unwrap();
        assert_eq!(opened.last_sequence, next - 1);
        assert_eq!(opened.torn, None);
        assert_eq!(log.next_sequence(), next);
        for sequence in next..next + 60 {
            log.append(&sample(sequence)).unwrap();
        }
        next += 60;
    }
    let (found, error) = entries(&dir, 1);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(found.len() as u64, next - 1);
    assert_samples(&found, 1, "all");
    for from in [2, 17, 100, 299, 300, 301] {
        let (found, error) = entries(&dir, from);
        assert!(error.is_none(), "{error:?}");
        assert_eq!(found.len() as u64, next - from, "from {from}");
        assert_samples(&found, from, "part");
    }
    assert!(read(&dir, 302).is_err());
}

#[test]
fn an_entry_larger_than_a_segment_gets_one_of_its_own() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("log");
    let mut log = log_of(&dir, 3);
    let keys: Vec<String> = (0..2000).map(|n| format!("task-{n:07}")).collect();
    let mut large = put(4);
    large.effects.tables[1].upserts = vec![task_row(&keys)];
    log.append(&large).unwrap();
    log.append(&sample(5)).unwrap();
    let (found, error) = entries(&dir, 1);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(found.len(), 5);
    assert_eq!(found[3], large);
    assert_eq!(found[4], sample(5));
}

#[test]
fn what_is_no_entry_is_refused_and_the_log_is_as_before() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("log");
    let mut log = log_of(&dir, 3);
    let mut unsorted = put(4);
    unsorted.effects.tables[1].delete = vec!["b".to_owned(), "a".to_owned()];
    for bad in [put(3), put(5), unsorted] {
        let error = log.append(&bad).unwrap_err();
        assert!(matches!(error, AppendError::Refused { .. }), "{error}");
    }
    log.append(&sample(4)).unwrap();
    assert_eq!(entries(&dir, 1).0.len(), 4);
}

#[test]
fn outcomes_survive_releases_and_restarts_as_far_as_the_window_reaches() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("log");
    let options = Options {
        window: 200,
        ..small()
    };
    let mut model = Outcomes::new(200);
    let mut next = 1;
    for round in 0..20 {
        let (mut log, opened) = Log::open_real(&dir, options.clone()).unwrap();
        assert!(opened.outcomes.iter().eq(model.iter()), "round {round}");
        for sequence in next..next + 100 {
            let entry = sample(sequence);
            log.append(&entry).unwrap();
            entry.outcomes.into_iter().for_each(|o| model.insert(o));
        }
        next += 100;
        let begins = log.release(next - 20).unwrap();
        assert!(
            begins > next - 100 && begins <= next - 19,
            "{begins} of {next}"
        );
        let (found, error) = entries(&dir, begins);
        assert!(error.is_none(), "{error:?}");
        assert_eq!(found.len() as u64, next - begins);
        assert_samples(&found, begins, "after a release");
        assert!(read(&dir, begins - 1).is_err());
    }
    let files = std::fs::read_dir(&dir).unwrap().count();
    assert!(files < 20, "{files} files");
}
