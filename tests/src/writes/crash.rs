//! Rounds of writing, crashing and checking.
//!
//! A round starts the store, settles what was not known, checks every row against the books, lets the writers write
//! and crashes it at some moment. What is wrong is reported with the seed, the round, and where the books are kept.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::ledger;
use super::load::{self, Settled, Writer};
use super::power::Disk;
use super::transaction::Rows;
use super::way::Store;
use crate::daemon::LONG;

/// What happens to the store while it is written to, or starts.
pub trait Crash {
    /// Ends the store, which does not run afterwards.
    ///
    /// # Errors
    ///
    /// The crash itself fails.
    fn crash(&mut self, store: &mut dyn Store, rng: &mut SmallRng) -> Result<(), String>;
}

/// kill -9.
#[derive(Debug)]
pub struct Kill;

impl Crash for Kill {
    fn crash(&mut self, store: &mut dyn Store, _: &mut SmallRng) -> Result<(), String> {
        store.kill();
        Ok(())
    }
}

/// kill -9, and again during the recovery, a few times.
#[derive(Debug)]
pub struct KillRecovery;

impl Crash for KillRecovery {
    fn crash(&mut self, store: &mut dyn Store, rng: &mut SmallRng) -> Result<(), String> {
        store.kill();
        for _ in 0..rng.random_range(1..4) {
            store.start()?;
            thread::sleep(Duration::from_micros(rng.random_range(0..20_000)));
            store.kill();
        }
        Ok(())
    }
}

/// A power cut. The store's files are on the disk.
#[derive(Debug)]
pub struct PowerCut<'a>(pub &'a mut Disk);

impl Crash for PowerCut<'_> {
    fn crash(&mut self, store: &mut dyn Store, _: &mut SmallRng) -> Result<(), String> {
        // A machine's processes end with its power. A store that ran on would acknowledge what is lost: an fdatasync
        // that waits while its file system is shut down may return 0 (seen on XFS, one cut in a hundred).
        store.freeze();
        self.0.pull_the_plug()?;
        store.kill();
        store.forget_memory();
        self.0.replug()
    }
}

/// How much, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Crashes.
    pub rounds: u64,
    /// Writers at once.
    pub writers: usize,
    /// Accounts that they share.
    pub accounts: usize,
    /// Each round writes up to so long.
    pub longest: Duration,
    /// Of everything random.
    pub seed: u64,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Crashes.
    pub crashes: u64,
    /// Transactions.
    pub settled: Settled,
    /// How long it took.
    pub took: Duration,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settled {
            done,
            refused,
            unknown,
        } = self.settled;
        write!(
            f,
            "{} crashes, {done} transactions done, {refused} refused, {unknown} settled by asking again, 0 lost, in {:.1} s",
            self.crashes,
            self.took.as_secs_f64()
        )
    }
}

/// Does it all. `beginning` is what the store has at first; `books` is a directory that no crash reaches.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn run(
    store: &mut dyn Store,
    crash: &mut dyn Crash,
    books: &Path,
    plan: Plan,
) -> Result<Tally, String> {
    let begun = Instant::now();
    let mut rng = SmallRng::seed_from_u64(plan.seed);
    let mut rows = load::beginning(plan.accounts);
    let mut generation = 0;
    let mut writers = (0..plan.writers)
        .map(|number| Writer::new(books, number, plan.accounts, plan.seed))
        .collect::<Result<Vec<_>, _>>()?;
    let mut tally = Tally::default();
    for round in 0..=plan.rounds {
        let at = |what: String| format!("{plan:?}, round {round}: {what}");
        store.start().map_err(at)?;
        let started = Instant::now();
        let (settled, found) = loop {
            store.ready().map_err(at)?;
            let checked = check(store, &mut writers, &rows, generation);
            if let Err(what) = &checked {
                // Killed where it was told to die, in the middle of being checked: the same again.
                let has_died = store.may_die() && is_dying(store);
                // A busy disk takes longer than a writer is patient: that is no outcome yet.
                let is_slow = what.starts_with("L3: ") && started.elapsed() < LONG;
                if has_died || is_slow {
                    continue;
                }
            }
            break checked.map_err(at)?;
        };
        (generation, rows) = found;
        tally.settled.done += settled.done;
        tally.settled.refused += settled.refused;
        tally.settled.unknown += settled.unknown;
        if round == plan.rounds {
            break;
        }
        round_of(store, crash, &mut writers, plan, &mut rng).map_err(at)?;
        tally.crashes += 1;
    }
    store.kill();
    tally.took = begun.elapsed();
    Ok(tally)
}

/// Has it died? Its socket is gone a moment before the kernel says so.
fn is_dying(store: &mut dyn Store) -> bool {
    let begun = Instant::now();
    while store.is_alive() && begun.elapsed() < Duration::from_secs(1) {
        thread::sleep(Duration::from_millis(1));
    }
    !store.is_alive()
}

/// What is there, if all of it is as the books want it.
fn check(
    store: &dyn Store,
    writers: &mut [Writer],
    before: &Rows,
    generation: u64,
) -> Result<(Settled, (u64, Rows)), String> {
    let mut settled = Settled::default();
    let (first, _) = store.rows()?;
    let newest = writers.iter().map(Writer::newest).max().unwrap_or(0);
    if first < generation.max(newest) {
        return Err(format!(
            "generation {first} after {}",
            generation.max(newest)
        ));
    }
    for writer in writers.iter_mut() {
        let mut way = store.way()?;
        let some = writer.settle(&mut *way)?;
        settled.done += some.done;
        settled.refused += some.refused;
        settled.unknown += some.unknown;
    }
    let found = store.rows()?;
    let books = writers.iter().map(Writer::entries);
    let wrong = ledger::found_wrong(before, books, &found.1);
    if !wrong.is_empty() {
        return Err(wrong.join("\n"));
    }
    for writer in writers {
        writer.checked()?;
    }
    Ok((settled, found))
}

/// Everybody writes, until it crashes.
fn round_of(
    store: &mut dyn Store,
    crash: &mut dyn Crash,
    writers: &mut [Writer],
    plan: Plan,
    rng: &mut SmallRng,
) -> Result<(), String> {
    let stop = &AtomicBool::new(false);
    let mut ways = Vec::new();
    for _ in 0..writers.len() {
        match store.way() {
            Ok(way) => ways.push(way),
            Err(_) if store.may_die() => {} // it has just died: nobody writes this time
            Err(error) => return Err(error),
        }
    }
    thread::scope(|scope| {
        let running: Vec<_> = writers
            .iter_mut()
            .zip(ways)
            .map(|(writer, mut way)| {
                scope.spawn(move || writer.write(&mut *way, &|| stop.load(Ordering::Relaxed)))
            })
            .collect();
        let longest = u64::try_from(plan.longest.as_micros()).unwrap_or(u64::MAX);
        thread::sleep(Duration::from_micros(rng.random_range(0..longest)));
        let crashed = crash.crash(store, rng);
        stop.store(true, Ordering::Relaxed);
        for writer in running {
            writer.join().map_err(|_| "a writer panicked")??;
        }
        crashed
    })
}
