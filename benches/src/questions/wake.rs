//! How long a reader that waits in another process sleeps on after a publish.
//!
//! The other process is this program again, with a hidden first argument. It
//! waits, and prints the generation it woke to and the time it did; the clock
//! is one for both. The moment of the store lies inside `publish`, so there
//! are two figures: from the call (too long by what precedes the store) and
//! from the return (too short by what follows it).

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sherwood_client::Reader;

use super::{Published, Say, time};
use crate::cores::Core;
use crate::goal::{self, Line};
use crate::measure::{Figure, WAKES, monotonic_nanos};
use crate::sample::Sample;
use crate::{Failure, Setting};

/// The hidden argument; a snapshot's path follows.
pub const CHILD: &str = "wake-child";
/// Wakes that count.
const ROUNDS: i64 = 1_000;

/// Ends the child when the question is over, however it ends.
struct Waiting(Child);

impl Drop for Waiting {
    fn drop(&mut self) {
        // Gone already: all the better.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Publishes to one waiting process, asleep for a moment and for longer.
pub fn ask(setting: &Setting, say: Say<'_>) -> Result<(), Failure> {
    for (floor, gap) in WAKES {
        let (call, back) = wakes(setting, gap)?;
        for (moment, samples) in [("called", call), ("returned", back)] {
            let figure = Figure::of(samples, 1).ok_or("no wake was seen")?;
            let name = format!("publish {moment} to reader awake, asleep for {gap:?}");
            let row = time("wake", name, figure).over(floor, 1.0);
            let row = row.detail("100 rows; the store lies between call and return");
            say(Line::at_most(row, goal::WAKE));
        }
    }
    Ok(())
}

/// The nanoseconds from the call of `publish`, and from its return, until a
/// process runs that has been asleep for `gap`.
fn wakes(setting: &Setting, gap: Duration) -> Result<(Vec<f64>, Vec<f64>), Failure> {
    let mut sample = Sample::tasks(100)?;
    let mut published = Published::new(setting, sample.state())?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg(CHILD)
        .arg(published.publisher.path())
        .stdout(Stdio::piped())
        .spawn()
        .map(Waiting)?;
    let out = child
        .0
        .stdout
        .take()
        .ok_or("no pipe from the waiting process")?;
    let mut heard = BufReader::new(out).lines();
    // The first line says that it is about to wait.
    heard
        .next()
        .ok_or("the waiting process ended before it waited")??;
    let _core = Core::first();
    let (mut from_call, mut from_return) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let rows = sample.patch([0], round)?;
        let spin = Instant::now();
        while spin.elapsed() < gap {
            std::hint::spin_loop();
        }
        let call = monotonic_nanos();
        let done = published
            .publisher
            .publish_effects(&rows)?
            .ok_or("the publisher saw no change")?;
        let back = monotonic_nanos();
        published.publisher.housekeep()?;
        let line = heard.next().ok_or("the waiting process ended")??;
        let (generation, woken) = line
            .split_once(' ')
            .ok_or("the waiting process said something else")?;
        if generation.parse() != Ok(done.generation) {
            return Err(format!(
                "it woke to generation {generation}, not {}",
                done.generation
            )
            .into());
        }
        let woken: u64 = woken.parse()?;
        from_call.push(difference(woken, call));
        from_return.push(difference(woken, back));
    }
    Ok((from_call, from_return))
}

/// `later - earlier`, below zero if it woke before `publish` returned.
fn difference(later: u64, earlier: u64) -> f64 {
    later as f64 - earlier as f64
}

/// The waiting half: prints a line, then one for each generation it wakes to,
/// until it is killed or nobody reads.
pub fn child(path: &Path) -> Result<(), Failure> {
    let reader = Reader::open(path)?;
    let mut handle = reader.handle()?;
    handle.refresh()?;
    let _core = Core::last();
    let mut out = std::io::stdout().lock();
    writeln!(out, "waiting")?;
    out.flush()?;
    loop {
        if let Some(snapshot) = handle.wait(Duration::from_secs(1))? {
            let woken = monotonic_nanos();
            writeln!(out, "{} {woken}", snapshot.generation())?;
            out.flush()?;
        }
    }
}
