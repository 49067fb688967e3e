//! Whole processes, one misfortune at a time: what each must leave as it was.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sherwood_client::Reader;
use sherwood_daemon::publish::{Options, Publisher};
use sherwood_tests::rows::{Checker, state_at};
use sherwood_tests::torture::processes::{NEVER, Place, Process};
use sherwood_tests::torture::steps::OF_A_RESTART;
use sherwood_tests::torture::writer::{Rows, options};

fn place() -> Place {
    Place::new(env!("CARGO_BIN_EXE_torture")).expect("a directory")
}

/// How a reader learns of what is new.
#[derive(Clone, Copy, Debug)]
enum By {
    Latest,
    Wait,
}

/// Readers of one file in threads of their own, who look until they have a generation.
struct Watchers {
    goal: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Result<(), String>>>,
}

impl Watchers {
    const UNKNOWN: u64 = u64::MAX;

    fn new() -> Self {
        Self {
            goal: Arc::new(AtomicU64::new(Self::UNKNOWN)),
            threads: Vec::new(),
        }
    }

    /// One that polls and one that waits, of whatever stands at the path now.
    fn join(&mut self, path: &Path) {
        for by in [By::Latest, By::Wait] {
            let mut handle = Reader::open(path)
                .and_then(|reader| reader.handle())
                .expect("opens");
            let goal = Arc::clone(&self.goal);
            self.threads.push(std::thread::spawn(move || {
                let begun = Instant::now();
                let (mut checker, mut last) = (Checker::default(), 0);
                loop {
                    let snapshot = match by {
                        By::Latest => handle.latest(),
                        By::Wait => match handle.wait(Duration::from_millis(50)) {
                            Ok(Some(snapshot)) => snapshot,
                            Ok(None) => handle.latest(),
                            Err(error) => return Err(format!("{by:?}: {error:?}")),
                        },
                    };
                    checker.check(snapshot)?;
                    let (before, goal) = (last, goal.load(Ordering::Relaxed));
                    last = snapshot.generation();
                    if last < before || begun.elapsed() > NEVER {
                        return Err(format!(
                            "{by:?}: {last} after {before}, on the way to {goal}"
                        ));
                    }
                    if last == goal {
                        return Ok(());
                    }
                    if matches!(by, By::Latest) {
                        std::thread::sleep(Duration::from_micros(200));
                    }
                }
            }));
        }
    }

    /// All of them get there.
    fn arrive_at(self, generation: u64, case: &str) {
        self.goal.store(generation, Ordering::Relaxed);
        for thread in self.threads {
            let arrived = thread.join().expect("does not panic");
            assert_eq!(arrived, Ok(()), "{case}");
        }
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("lists");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("lists").file_name();
    entries
        .map(|entry| name(entry).to_string_lossy().into_owned())
        .collect()
}

/// A daemon lives and is killed; one that follows is killed at `first`, the next at `second`; the last lives.
fn restart(first: &str, second: &str) {
    let case = format!("killed at {first:?}, then at {second:?}");
    let place = place();
    let mut watchers = Watchers::new();
    let args = |seed| place.args(seed).with("publishes", 40);
    let mut before = place.start("writer", &args(1)).expect("starts");
    before
        .hear("final")
        .unwrap_or_else(|what| panic!("{case}: {what}"));
    watchers.join(&place.path());
    before.kill();
    for (seed, step) in [(2, first), (3, second)] {
        // Some generations of the second life, where the step is one of every publish.
        let nth = if step.starts_with("publish: g") { 5 } else { 1 };
        let args = args(seed).with("die", step).with("nth", nth);
        let mut dying = place.start("writer", &args).expect("starts");
        dying
            .wait_for_death()
            .unwrap_or_else(|what| panic!("{case}: {what}"));
        watchers.join(&place.path());
    }
    let mut last = place.start("writer", &args(4)).expect("starts");
    let generation = last
        .hear("final")
        .unwrap_or_else(|what| panic!("{case}: {what}"));
    watchers.arrive_at(generation, &case);
    assert_eq!(names(&place.run_dir()), ["torture.arrow"], "{case}");
}

#[test]
fn daemons_killed_at_any_two_steps_of_a_restart_leave_readers_that_converge_and_no_other_name() {
    for first in OF_A_RESTART {
        for second in OF_A_RESTART {
            restart(first, second);
        }
    }
}

/// Regions that a snapshot of [`Rows`] lives in, at least.
const SPREAD: u64 = 3;

/// A publisher in this process, and rows for it.
struct Daemon {
    publisher: Publisher,
    rows: Rows,
}

impl Daemon {
    fn start(options: Options) -> Self {
        let rows = Rows::new(1, 1);
        let publisher = Publisher::start(options, &state_at(rows.model(), 1), 1).expect("starts");
        Self { publisher, rows }
    }

    fn publish(&mut self, times: u32) {
        for _ in 0..times {
            let generation = self.publisher.generation() + 1;
            let version = i64::try_from(generation).expect("small");
            self.rows.change(version);
            let state = state_at(self.rows.model(), version);
            let published = self.publisher.publish(&state).expect("publishes");
            assert_eq!(published.map(|done| done.generation), Some(generation));
        }
    }

    /// Publishes on until no dropped region is held by anybody.
    fn publish_until_nothing_is_held(&mut self) {
        let begun = Instant::now();
        loop {
            self.publish(1);
            self.publisher.housekeep().expect("keeps house");
            let usage = self.publisher.usage();
            if usage.dropped_bytes == 0 {
                return;
            }
            assert!(begun.elapsed() < NEVER, "still held: {usage:?}");
        }
    }
}

#[test]
fn a_deleted_file_and_a_removed_directory_are_made_again_and_readers_converge() {
    let place = place();
    let mut daemon = Daemon::start(options(&place.run_dir()));
    for turn in 0..6 {
        let mut watchers = Watchers::new();
        watchers.join(&place.path());
        if turn % 2 == 0 {
            fs::remove_file(place.path()).expect("deletes");
        } else {
            fs::remove_dir_all(place.run_dir()).expect("removes");
            daemon.publish(10); // goes on without a name
            daemon.publisher.beat().expect_err("nowhere to make a file");
            daemon.publish(10);
            fs::create_dir(place.run_dir()).expect("makes");
        }
        daemon.publish(10);
        assert!(
            daemon.publisher.beat().expect("makes a new file"),
            "turn {turn}"
        );
        daemon.publish(3);
        assert!(!daemon.publisher.beat().expect("finds it"), "turn {turn}");
        watchers.arrive_at(daemon.publisher.generation(), &format!("turn {turn}"));
        assert_eq!(names(&place.run_dir()), ["torture.arrow"], "turn {turn}");
    }
}

#[test]
fn a_file_that_readers_would_refuse_never_takes_the_name() {
    let place = place();
    let mut daemon = Daemon::start(options(&place.run_dir()));
    daemon.publish(10);
    let generation = daemon.publisher.generation();
    let state = state_at(daemon.rows.model(), 11);
    let group_may_write = Options {
        mode: 0o664,
        ..options(&place.run_dir())
    };
    let refused = Publisher::start(group_may_write, &state, generation + 1);
    refused.expect_err("nobody would trust it");
    let reader = Reader::open(place.path()).expect("the file before stands there still");
    assert_eq!(reader.snapshot().expect("reads").generation(), generation);
    assert_eq!(names(&place.run_dir()), ["torture.arrow"]);
    assert!(!daemon.publisher.beat().expect("has its name"));
}

#[test]
fn stopped_and_killed_readers_do_not_block_the_writer_and_leave_nothing_behind() {
    let place = place();
    let mut daemon = Daemon::start(options(&place.run_dir()));
    let mut holders: Vec<Process> = Vec::new();
    for seed in 0..6 {
        daemon.publish(50);
        let mut holder = place
            .start("holder", &place.args(seed).with("delay", 0))
            .expect("starts");
        assert_eq!(holder.hear("holds"), Ok(daemon.publisher.generation()));
        holder.signal(Signal::SIGSTOP);
        holders.push(holder);
    }
    daemon.publish(3000);
    daemon.publisher.housekeep().expect("keeps house");
    let held = daemon.publisher.usage();
    assert!(
        held.dropped_bytes >= 6 * SPREAD * held.region_bytes,
        "{held:?}"
    );
    // What they hold, what is live twice over, and what is open: the rest was reused.
    assert!(held.file_bytes < 100 * held.region_bytes, "{held:?}");
    for holder in holders.iter_mut().take(3) {
        holder.kill();
    }
    daemon.publish(500);
    for holder in holders.iter_mut().skip(3) {
        holder.signal(Signal::SIGCONT);
        holder.tell_to_end();
        holder.hear("held").expect("its snapshot has not changed");
    }
    drop(holders);
    daemon.publish_until_nothing_is_held();
    let free = daemon.publisher.usage();

    assert!(
        free.file_bytes <= held.file_bytes + 4 * held.region_bytes,
        "{free:?} after {held:?}"
    );
}

/// `resource` runs out in a reader: a clear error, and the last good snapshot stays.
fn runs_out_of(resource: &str) {
    let place = place();
    let options = Options {
        region_bytes: Some(1 << 20), // more than the address space that is left
        ..options(&place.run_dir())
    };
    let mut daemon = Daemon::start(options);
    let args = place.args(1).with("out_of", resource);
    let mut reader = place.start("resources", &args).expect("starts");
    reader.hear("lacks").expect("has a handle");
    let begun = Instant::now();
    while reader.ended().is_none() && begun.elapsed() < NEVER {
        daemon.publish(1);
    }
    let newer = reader
        .hear("has")
        .expect("errors, and then the newest again");
    assert!(newer > 0, "it could read what it lacked {resource} for");
}

#[test]
fn without_descriptors_a_reader_says_so_and_keeps_its_snapshot() {
    runs_out_of("descriptors");
}

#[test]
fn without_address_space_a_reader_says_so_and_keeps_its_snapshot() {
    runs_out_of("address_space");
}

#[test]
fn a_child_that_python_forked_keeps_what_its_dead_parent_had_leased() {
    let place = place();
    let mut daemon = Daemon::start(options(&place.run_dir()));
    daemon.publish(100);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torture_fork.py");
    let mut command = Command::new("python3");
    let mut python =
        Process::start(command.arg(script).arg(place.path())).expect("python3 is there");
    assert_eq!(python.hear("holds"), Ok(daemon.publisher.generation()));
    let status = python.wait().expect("the parent ends");
    assert!(status.success(), "{status}");
    daemon.publish(3000);
    daemon.publisher.housekeep().expect("keeps house");
    let held = daemon.publisher.usage();
    assert!(held.dropped_bytes >= SPREAD * held.region_bytes, "{held:?}");
    python.tell_to_end();
    let checks = python
        .hear("unchanged")
        .expect("the child has seen no change");
    assert!(checks > 0);
    drop(python);
    daemon.publish_until_nothing_is_held();
}
