//! Watchers: every change once and in order, or gone.

use super::samples::*;
use crate::entry::Entry;
use crate::log::{FollowError, Follower, Log, Options, verify};

fn changes(from: u64, to: u64) -> Vec<u64> {
    (from..=to)
        .filter(|s| !sample(*s).effects.is_empty())
        .collect()
}

fn take(follower: &mut Follower, durable: u64) -> Vec<u64> {
    let mut found = Vec::new();
    while let Some(entry) = follower.next(durable).unwrap() {
        assert_eq!(entry, sample(entry.sequence));
        found.push(entry.sequence);
    }
    found
}

#[test]
fn a_follower_sees_every_change_once_over_rotation_and_restart_and_none_that_is_not_announced() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("log");
    let mut log = log_of(&dir, 1);
    let mut follower = Follower::open(&dir, 0).unwrap();
    let mut seen = Vec::new();
    for sequence in 2..=200 {
        log.append(&sample(sequence)).unwrap();
        if sequence % 70 == 0 {
            drop(log);
            log = Log::open_real(&dir, small()).unwrap().0;
        }
        if sequence % 3 == 0 {
            // One less than what is there.
            seen.extend(take(&mut follower, sequence - 1));
            assert!(seen.iter().all(|&s| s < sequence), "{seen:?} at {sequence}");
        }
    }
    seen.extend(take(&mut follower, 200));
    assert_eq!(seen, changes(1, 200));
}

#[test]
fn a_follower_may_begin_at_any_generation_that_is_not_gone() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("log");
    let log = log_of(&dir, 200);
    let begins = log.release(100).unwrap();
    let mut gone = 0;
    for generation in 0..=402 {
        match Follower::open(&dir, generation) {
            Ok(mut follower) => {
                let wanted: Vec<u64> = changes(1, 200)
                    .into_iter()
                    .filter(|s| sample(*s).generation > generation)
                    .collect();
                assert!(
                    wanted.first().is_none_or(|&first| first >= begins),
                    "{generation}"
                );
                assert_eq!(take(&mut follower, 200), wanted, "after {generation}");
            }
            Err(FollowError::Gone { oldest }) => {
                gone += 1;
                assert!(generation < oldest, "{generation}, {oldest}");
                assert!(Follower::open(&dir, oldest).is_ok());
            }
            Err(error) => panic!("after {generation}: {error}"),
        }
    }
    assert!(gone > 100, "{gone}");
}

#[test]
fn a_slow_follower_is_told_that_its_entries_are_gone_and_never_misses_one() {
    for behind in (0..100).step_by(9) {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("log");
        let mut log = log_of(&dir, 120);
        let mut follower = Follower::open(&dir, 0).unwrap();
        let mut seen = take(&mut follower, behind);
        // The files that it is in are deleted, and one is filled with zeros.
        log.release(100).unwrap();
        for sequence in 121..=160 {
            log.append(&sample(sequence)).unwrap();
        }
        loop {
            match follower.next(160) {
                Ok(Some(entry)) => seen.push(entry.sequence),
                Ok(None) => {
                    assert_eq!(seen, changes(1, 160), "{behind} behind");
                    break;
                }
                Err(FollowError::Gone { oldest }) => {
                    let last = seen.last().copied().unwrap_or(0);
                    assert_eq!(seen, changes(1, last), "{behind} behind");
                    assert!(sample(last.max(1)).generation < oldest, "{behind} behind");
                    break;
                }
                Err(error) => panic!("{behind} behind: {error}"),
            }
        }
    }
}

#[test]
fn a_follower_never_walks_from_one_history_into_another() {
    for entries in [0, 1, 30] {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("log");
        drop(log_of(&dir, entries));
        let mut before = Follower::open(&dir, 0).unwrap();
        let other = || Options {
            history: [7; 16],
            base_generation: 5,
            ..small()
        };
        for turn in 0..2 {
            let (mut log, opened) = Log::open_real(&dir, other()).unwrap();
            let what = format!("{entries} entries, turn {turn}");
            assert_eq!(opened.last_generation, 5 + turn, "{what}");
            assert_eq!(opened.last_sequence, entries + turn, "{what}");
            let sequence = entries + turn + 1;
            let entry = Entry {
                generation: 6 + turn,
                sequence,
                ..put(sequence)
            };
            log.append(&entry).unwrap();
            drop(log);
            let report = verify(&dir).unwrap();
            assert!(report.problems.is_empty(), "{what}: {:?}", report.problems);
            for old in 0..5 {
                let gone = Follower::open(&dir, old);
                let is_gone = matches!(gone, Err(FollowError::Gone { oldest: 5 }));
                assert!(is_gone, "{what}, after {old}: {gone:?}");
            }
            let mut follower = Follower::open(&dir, 5).unwrap();
            let found = follower.next(sequence).unwrap().map(|entry| entry.sequence);
            assert_eq!(found, Some(entries + 1), "{what}");
        }
        while before.next_sequence() <= entries {
            before.next(entries).unwrap();
        }
        let gone = before.next(entries + 1);
        let is_gone = matches!(gone, Err(FollowError::Gone { oldest: 5 }));
        assert!(is_gone || entries == 0, "{entries} entries: {gone:?}");
    }
}
