//! A daemon ends, another begins: readers go over, and nothing goes back.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;
use sherwood_client::Reader;
use sherwood_tests::daemon::{
    Daemon, LONG, Place, await_turn, command, counts, parquet, state_with_tasks, turn, wait_for,
};

#[test]
fn readers_that_wait_and_readers_that_poll_go_over_to_the_new_file() {
    let place = Place::with_tasks(50);
    let mut daemon = Daemon::start(&place);
    let reader = place.reader();
    let over = AtomicBool::new(false);
    let lost = AtomicBool::new(false);
    thread::scope(|threads| {
        // Dropped when this scope's body panics: the threads must not wait for ever.
        struct Over<'a>(&'a AtomicBool, &'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.1.store(thread::panicking(), Ordering::SeqCst);
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let end = Over(&over, &lost);
        let follow = |wait: bool, reader: Reader| {
            let (over, lost) = (&over, &lost);
            move || {
                let mut handle = reader.handle().expect("a handle");
                let mut seen = vec![(handle.latest().generation(), turn(handle.latest()))];
                while !over.load(Ordering::SeqCst)
                    || (!lost.load(Ordering::SeqCst) && seen.last().is_some_and(|(_, t)| *t != 20))
                {
                    let next = if wait {
                        handle
                            .wait(Duration::from_millis(200))
                            .expect("waits")
                            .cloned()
                    } else {
                        Some(handle.latest().clone())
                    };
                    let Some(next) = next else { continue };
                    let now = (next.generation(), turn(&next));
                    if seen.last() != Some(&now) {
                        seen.push(now);
                    }
                }
                seen
            }
        };
        let followers = [
            (
                "waits, a reader of its own",
                threads.spawn(follow(true, place.reader())),
            ),
            (
                "polls, a reader of its own",
                threads.spawn(follow(false, place.reader())),
            ),
            (
                "waits, one reader",
                threads.spawn(follow(true, reader.clone())),
            ),
            (
                "polls, one reader",
                threads.spawn(follow(false, reader.clone())),
            ),
        ];
        let mut check = place.reader().handle().unwrap();
        for round in 1..=20 {
            match round % 4 {
                0 => daemon.stop(),
                2 => daemon.kill(),
                _ => {
                    place.write(&parquet(&state_with_tasks("c", 50, round)));
                    await_turn(&mut check, round);
                    continue;
                }
            }
            place.write(&parquet(&state_with_tasks("c", 50, round)));
            daemon = Daemon::start(&place);
            await_turn(&mut check, round);
        }
        drop(end);
        for (name, follower) in followers {
            let seen = follower.join().expect("the follower reads");
            assert_eq!(seen.last().expect("it saw one").1, 20, "{name}: {seen:?}");
            assert!(seen.is_sorted(), "{name}: back in time: {seen:?}");
        }
    });
}

#[test]
fn generations_never_go_back_over_restarts_and_kills() {
    let place = Place::with_tasks(10);
    let mut last = (0, None);
    for round in 0..12 {
        let daemon = Daemon::start(&place);
        let mut handle = place.reader().handle().unwrap();
        let first = handle.latest();
        assert!(
            first.generation() > last.0,
            "round {round}: {} after {}",
            first.generation(),
            last.0
        );
        let history = *last.1.get_or_insert(first.history());
        assert_eq!(first.history(), history, "round {round}");
        for step in 1..=round {
            place.write(&parquet(&state_with_tasks(
                "c",
                10,
                i64::from(round * 100 + step),
            )));
            await_turn(&mut handle, i64::from(round * 100 + step));
        }
        last.0 = handle.latest().generation();
        if round % 2 == 0 {
            daemon.kill()
        } else {
            daemon.stop()
        }
    }
}

#[test]
fn a_killed_daemon_leaves_its_last_snapshot_to_readers_old_and_new() {
    let place = Place::with_tasks(30);
    let daemon = Daemon::start(&place);
    let reader = place.reader();
    let mut handle = reader.handle().unwrap();
    assert!(reader.liveness().unwrap().alive);
    let generation = handle.latest().generation();
    daemon.kill();
    assert!(!reader.liveness().unwrap().alive);
    assert_eq!(handle.latest().generation(), generation);
    assert_eq!(turn(handle.latest()), 0);
    assert_eq!(
        handle
            .wait(Duration::from_millis(10))
            .unwrap()
            .map(|s| s.generation()),
        None
    );
    let late = place.reader();
    assert!(!late.liveness().unwrap().alive);
    let snapshot = late.snapshot().unwrap();
    assert_eq!(
        (snapshot.generation(), counts(&snapshot)),
        (generation, [3, 30, 2])
    );
    assert_eq!(turn(&snapshot), 0);
}

/// The log and the checkpoints too.
fn copy_directory(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_copied_state_directory_is_not_served_by_the_originals_snapshot() {
    let place = Place::with_tasks(10);
    let original = Daemon::start(&place);
    let copy = Place::new();
    copy_directory(&place.state_dir(), &copy.state_dir());
    // Its metadata leads to the original's snapshot, which says that it is not the copy's.
    assert_eq!(copy.metadata()["snapshot_path"], json!(place.snapshot()));
    let snapshot = place.reader().snapshot().unwrap();
    assert!(snapshot.stands_for(&place.state_dir()));
    assert!(!snapshot.stands_for(&copy.state_dir()));
    // A daemon of its own is another history, and counts on.
    let second = Daemon::start(&copy);
    assert_eq!(copy.metadata()["snapshot_path"], json!(copy.snapshot()));
    let copied = copy.reader().snapshot().unwrap();
    assert!(copied.stands_for(&copy.state_dir()));
    assert!(!copied.stands_for(&place.state_dir()));
    assert_ne!(copied.history(), snapshot.history());
    assert!(copied.generation() > snapshot.generation());
    // Nor may it take the original's name.
    second.stop();
    let flags = ["--state-dir".into(), copy.state_dir().into()];
    let flags = flags
        .into_iter()
        .chain(["--run-dir".into(), place.run_dir().into()]);
    let (status, log) = Daemon::spawn(command(flags)).end();
    assert_eq!(status.code(), Some(1), "{log}");
    original.stop();
}

#[test]
fn a_snapshot_file_that_is_removed_is_made_again_and_readers_go_over() {
    let place = Place::with_tasks(10);
    let daemon = Daemon::start(&place);
    let mut handle = place.reader().handle().unwrap();
    let before = handle.latest().generation();
    fs::remove_file(place.snapshot()).unwrap();
    wait_for("a new file", || place.snapshot().exists());
    let next = handle.wait(LONG).unwrap().expect("the new file's snapshot");
    assert!(next.generation() > before);
    place.write(&parquet(&state_with_tasks("c", 10, 4)));
    await_turn(&mut handle, 4);
    wait_for("the metadata", || {
        place.metadata()["generation"] == handle.latest().generation()
    });
    daemon.stop();
}

/// What a daemon that dies half-way through its start leaves behind is swept by the next.
#[test]
fn leftovers_of_a_start_that_died_are_removed() {
    let place = Place::with_tasks(10);
    Daemon::start(&place).kill();
    fs::write(place.run_dir().join(".c.arrow.0123456789abcdef"), "half").unwrap();
    fs::write(
        place.run_dir().join(".d.arrow.0123456789abcdef"),
        "another cluster's",
    )
    .unwrap();
    let daemon = Daemon::start(&place);
    let mut left: Vec<_> = fs::read_dir(place.run_dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(
        left,
        [".d.arrow.0123456789abcdef", "c.arrow", "c.lock", "c.sock"]
    );
    daemon.stop();
}
