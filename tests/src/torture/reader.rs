//! A reader process: threads that share one [`Reader`], look, check, hold, and hand
//! snapshots to each other; or one thread that forks while it holds one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use sherwood_client::{Handle, OpenError, ReadError, Reader, Snapshot};

use super::args::{Args, is_told_to_end};
use super::steps;
use super::tally::{Count, Teller, say};
use crate::rows::Checker;

/// Header reads between two checks.
const READS: u64 = 110;
/// A handle that only calls `latest` cannot know of a file that lost its name without a
/// mark (R5): after this long without news it asks.
const SILENCE: Duration = Duration::from_millis(100);
/// Snapshots that a thread holds at once, at most.
const MOST_HELD: usize = 12;
/// Forked children that a process has at once, at most.
const MOST_CHILDREN: usize = 3;
/// For how long the parent lets the readers catch up at the end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which side of a fork this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that forked.
    Parent,
    /// The copy.
    Child,
}

/// Reads until its standard input is closed; then goes on until it has the generation
/// that it is told, and says so.
///
/// # Errors
///
/// A snapshot that is wrong, a generation that went back, an error where none should be.
pub fn run(args: &Args) -> Result<(), String> {
    let seed: u64 = args.get("seed")?;
    steps::hook(args, seed)?;
    let reader = open(args)?;
    let ended = Arc::new(AtomicBool::new(false));
    let threads: u64 = args.get("threads")?;
    let (mut senders, receivers): (Vec<_>, Vec<_>) = (0..threads).map(|_| channel()).unzip();
    senders.rotate_left(1); // each to the next
    let mut running = Vec::new();
    for ((number, send), receive) in (1..).zip(senders).zip(receivers) {
        let handle = reader.handle().map_err(|error| format!("{error:?}"))?;
        let looker = Looker::new(handle, seed ^ (number << 32), Some((send, receive)));
        let ended = Arc::clone(&ended);
        running.push(std::thread::spawn(move || looker.run(&ended)));
    }
    drop(reader);
    while !is_told_to_end() && running.iter().all(|thread| !thread.is_finished()) {
        std::thread::sleep(Duration::from_millis(2));
    }
    ended.store(true, Ordering::Relaxed);
    let mut least = u64::MAX;
    for thread in running {
        let done = thread.join().map_err(|_| "a thread panicked".to_owned())?;
        least = least.min(done?);
    }
    say(&format!("final {least}"));
    Ok(())
}

/// Holds a snapshot, forks, lets go of it, again and again: the child goes on checking it.
/// Single-threaded, as a process that forks without exec has to be.
///
/// # Errors
///
/// As of [`run`].
pub fn run_forking(args: &Args, fork: impl Fn() -> Result<Side, String>) -> Result<(), String> {
    let seed: u64 = args.get("seed")?;
    steps::hook(args, seed)?;
    let handle = open(args)?.handle().map_err(|error| format!("{error:?}"))?;
    let mut looker = Looker::new(handle, seed, None);
    let mut children = 0;
    while !is_told_to_end() {
        looker.turn()?;
        children -= reap()?;
        if children == MOST_CHILDREN || looker.rng.random_range(0..40) > 0 {
            continue;
        }
        let snapshot = looker.handle.latest().clone();
        let child_for = Duration::from_millis(looker.rng.random_range(5..250));
        looker.teller.tell(); // what the child inherits starts from nothing
        match fork()? {
            Side::Parent => {
                drop(snapshot);
                children += 1;
            }
            Side::Child => {
                looker.check_on(&snapshot, child_for)?;
                looker.teller.tally.one(Count::Forks);
                looker.teller.tell();
                return Ok(());
            }
        }
    }
    looker.teller.tell();
    looker.catch_up()?;
    say(&format!("final {}", looker.last));
    Ok(())
}

/// How many children ended. One that was killed by the kernel is an error.
fn reap() -> Result<usize, String> {
    let mut ended = 0;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, 0)) => ended += 1,
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(ended),
            other => return Err(format!("a forked child: {other:?}")),
        }
    }
}

/// Opens the snapshot, waiting for one to be there.
fn open(args: &Args) -> Result<Reader, String> {
    let path = args.path()?;
    loop {
        match Reader::open(&path) {
            Ok(reader) => return Ok(reader),
            Err(ReadError::Open(OpenError::Missing { .. })) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(format!("cannot open: {error:?}")),
        }
    }
}

/// One thread with its handle.
struct Looker {
    handle: Handle,
    rng: SmallRng,
    checker: Checker,
    teller: Teller,
    last: u64,
    news: Instant,
    held: Vec<(Snapshot, Instant)>,
    neighbours: Option<(Sender<Snapshot>, Receiver<Snapshot>)>,
}

impl Looker {
    fn new(
        handle: Handle,
        seed: u64,
        neighbours: Option<(Sender<Snapshot>, Receiver<Snapshot>)>,
    ) -> Self {
        Self {
            handle,
            rng: SmallRng::seed_from_u64(seed),
            checker: Checker::default(),
            teller: Teller::default(),
            last: 0,
            news: Instant::now(),
            held: Vec::new(),
            neighbours,
        }
    }

    /// Returns the last generation.
    fn run(mut self, ended: &AtomicBool) -> Result<u64, String> {
        while !ended.load(Ordering::Relaxed) {
            self.turn()?;
        }
        for (snapshot, _) in std::mem::take(&mut self.held) {
            self.check_held(&snapshot)?;
        }
        self.teller.tell();
        self.catch_up()?;
        self.teller.tell();
        Ok(self.last)
    }

    /// A few hundred looks, and whatever else comes to mind.
    fn turn(&mut self) -> Result<(), String> {
        for _ in 0..16 {
            self.look(READS)?;
        }
        match self.rng.random_range(0..48) {
            0..4 => {
                let timeout = Duration::from_micros(self.rng.random_range(0..3_000));
                self.wait(timeout)?;
            }
            4 => {
                // Never older than what the handle gave. But the handle may lag behind it:
                // the reader may have found the new file of one that was never marked.
                let newest = self.handle.reader().snapshot();
                let newest = newest.map_err(|error| format!("snapshot(): {error:?}"))?;
                self.check(&newest)?;
                if newest.generation() < self.last {
                    let older = newest.generation();
                    return Err(format!("snapshot() gave {older} after {}", self.last));
                }
            }
            5..10 => {
                let snapshot = self.handle_latest();
                self.hold(snapshot);
            }
            10..14 => {
                let snapshot = self.handle_latest();
                if let Some((next, _)) = &self.neighbours {
                    let _ = next.send(snapshot); // it may have ended before us
                }
            }
            _ => {}
        }
        if let Some((_, before)) = &self.neighbours
            && let Ok(snapshot) = before.try_recv()
        {
            self.check(&snapshot)?;
            self.teller.tally.one(Count::Sent);
            self.hold(snapshot);
        }
        let now = Instant::now();
        while let Some(due) = self.held.iter().position(|(_, until)| *until <= now) {
            let (snapshot, _) = self.held.swap_remove(due);
            self.check_held(&snapshot)?;
        }
        if self.news.elapsed() > SILENCE {
            self.wait(Duration::from_millis(1))?;
            self.news = Instant::now();
        }
        self.teller.tick();
        Ok(())
    }

    /// Reads the header `reads` times, then checks what the last one gave.
    fn look(&mut self, reads: u64) -> Result<(), String> {
        for _ in 0..reads {
            let generation = self.handle.latest().generation();
            if generation != self.last {
                self.follows(generation)?;
            }
        }
        self.teller.tally.add(Count::Reads, reads);
        if let Some(error) = self.handle.last_error() {
            return Err(format!("latest(): {error:?}"));
        }
        self.checker.check(self.handle.latest())?;
        self.teller.tally.one(Count::Checks);
        Ok(())
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), String> {
        let woken = self.handle.wait(timeout);
        let woken = woken.map_err(|error| format!("wait(): {error:?}"))?;
        if let Some(generation) = woken.map(Snapshot::generation) {
            self.follows(generation)?;
        }
        Ok(())
    }

    fn handle_latest(&mut self) -> Snapshot {
        self.handle.latest().clone()
    }

    fn hold(&mut self, snapshot: Snapshot) {
        let long = self.rng.random_range(0..40) == 0;
        let most = if long { 400_000 } else { 8_000 };
        let micros = self.rng.random_range(0..most);
        if self.held.len() < MOST_HELD {
            let until = Instant::now() + Duration::from_micros(micros);
            self.held.push((snapshot, until));
        }
    }

    /// A handle's generations never go back.
    fn follows(&mut self, generation: u64) -> Result<(), String> {
        if generation < self.last {
            return Err(format!("{generation} came after {}", self.last));
        }
        if generation > self.last {
            self.last = generation;
            self.news = Instant::now();
            self.teller.tally.one(Count::Acquired);
        }
        Ok(())
    }

    fn check(&mut self, snapshot: &Snapshot) -> Result<(), String> {
        self.teller.tally.one(Count::Checks);
        self.checker.check(snapshot)
    }

    fn check_held(&mut self, snapshot: &Snapshot) -> Result<(), String> {
        self.teller.tally.one(Count::HeldChecks);
        self.check(snapshot)
            .map_err(|what| format!("held until {}: {what}", self.last))
    }

    /// Checks one snapshot again and again for a time.
    fn check_on(&mut self, snapshot: &Snapshot, time: Duration) -> Result<(), String> {
        let begun = Instant::now();
        while begun.elapsed() < time {
            for _ in 0..50 {
                self.check(snapshot)
                    .map_err(|what| format!("in a fork, held since: {what}"))?;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Looks until nothing has come for a while and the path leads to what we read.
    fn catch_up(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        let mut quiet = 0;
        while quiet < 3 && begun.elapsed() < PATIENCE {
            let before = self.last;
            self.wait(Duration::from_millis(100))?;
            self.look(1)?;
            quiet = if before == self.last { quiet + 1 } else { 0 };
        }
        Ok(())
    }
}
