//! What a checkpoint that is being written does to the writers, and how much memory it and the daemon take.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::write::{MANY, Served, mib};
use super::{Say, WHO};
use crate::goal::{Goal, Line};
use crate::keys::grouped;
use crate::measure::{Figure, nanos};
use crate::row::{Outcome, Row};
use crate::sample::Sample;
use crate::{Failure, Setting};

/// Tasks that are there.
const ROWS: u64 = 1_000_000;
/// Writers at once.
const WRITERS: usize = 16;
/// After so long what a checkpoint has used has been given back.
const GIVEN_BACK: Duration = Duration::from_millis(500);
/// For as long as it takes a few checkpoints.
const LONG: Duration = Duration::from_secs(30);

/// The writers' p99, with and without.
pub fn ask(setting: &Setting, say: Say<'_>) -> Result<(), Failure> {
    let served = Served::new(setting, ROWS)?;
    let stop = AtomicBool::new(false);
    let (puts, spans) = thread::scope(|scope| {
        let watching = scope.spawn(|| spans(&served.state_dir(), &stop));
        let puts = served.puts(WRITERS, ROWS, |_, elapsed| elapsed >= LONG);
        stop.store(true, Ordering::Relaxed);
        let spans = watching.join().map_err(|_| "a thread panicked")?;
        Ok::<_, Failure>((puts?, spans))
    })?;
    let (mut during, mut besides) = (Vec::new(), Vec::new());
    for (start, end) in puts.samples {
        let within = spans
            .iter()
            .any(|(from, to)| puts.begun + start <= *to && puts.begun + end >= *from);
        let samples = if within { &mut during } else { &mut besides };
        samples.push(nanos(end - start));
    }
    let figure = |samples, what: &str| {
        Figure::of(samples, 1).ok_or_else(|| format!("no transaction {what} a checkpoint"))
    };
    let (during, besides) = (figure(during, "during")?, figure(besides, "besides")?);
    let detail = format!("{} checkpoints in {} s", spans.len(), LONG.as_secs());
    let row = Row::new(
        "checkpoint",
        format!("p99 of {WRITERS} writers with a checkpoint over without"),
        WHO,
        Outcome::Number(during.p99 / besides.p99, "x".into()),
    );
    say(Line::at_most(row.detail(detail), Goal::Number(3.0)));
    for (name, figure) in [("with", during), ("without", besides)] {
        let name = format!(
            "put, {} rows, {WRITERS} writers, {name} a checkpoint",
            grouped(ROWS)
        );
        say(super::time("checkpoint", name, figure).into());
    }
    Ok(())
}

/// From when to when a checkpoint was being written: its file has another name until it is whole.
fn spans(state_dir: &Path, stop: &AtomicBool) -> Vec<(Instant, Instant)> {
    let mut spans: Vec<(Instant, Instant)> = Vec::new();
    let mut open = false;
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        let is_open = unfinished(state_dir);
        match (is_open, open) {
            (true, false) => spans.push((now, now)),
            (true, true) => {
                if let Some(last) = spans.last_mut() {
                    last.1 = now;
                }
            }
            (false, _) => {}
        }
        open = is_open;
        thread::sleep(Duration::from_millis(1));
    }
    spans
}

/// Is a checkpoint being written?
fn unfinished(state_dir: &Path) -> bool {
    let found = fs::read_dir(state_dir.join("checkpoints"));
    let mut paths = found.into_iter().flatten().flatten();
    paths.any(|entry| {
        let path = entry.path();
        path.extension().is_some_and(|extension| extension == "tmp")
    })
}

/// Memory of the daemon besides the snapshot file.
pub fn ask_memory(setting: &Setting, say: Say<'_>) -> Result<(), Failure> {
    let state = Sample::tasks(ROWS)?.bytes();
    let mut served = Served::new(setting, ROWS)?;
    let (allowed, peak) = (64.0 + mib(state) / 10.0, 1.5 * mib(state));
    let number = |name: &str, bytes: u64| {
        let mib = Outcome::Number(mib(bytes), "MiB".into());
        Row::new("write-memory", name, WHO, mib)
    };
    let row = number("after the start, 1,000,000 tasks", served.memory()?);
    say(Line::at_most(row, Goal::Number(allowed)));
    let first = polled(&served, 100_000)?;
    let row = number("most under load, 100,000 transactions", first.most);
    say(Line::at_most(row, Goal::Number(allowed)));
    let row = number("most while a checkpoint is written", first.peak);
    say(Line::at_most(row, Goal::Number(peak)));
    let row = number("after 100,000 transactions", first.after);
    say(Line::at_most(row, Goal::Number(allowed)));
    let name = "more after 1,000,000 transactions than after 100,000";
    if setting.large {
        let second = polled(&served, 900_000)?;
        let row = number(name, second.after.saturating_sub(first.after));
        say(Line::at_most(row, Goal::Number(16.0)));
    } else {
        let why = "1,000,000 transactions take minutes: --large";
        say(Row::not_run("write-memory", name, WHO, why).into());
    }
    // With a checkpoint and the log behind it.
    served.restart()?;
    let row = number("after a restart", served.memory()?);
    say(Line::at_most(row, Goal::Number(allowed)));
    Ok(())
}

struct Memory {
    /// While no checkpoint is written.
    most: u64,
    /// While one is.
    peak: u64,
    /// When all is written.
    after: u64,
}

/// Puts so many tasks, and looks at the memory every few milliseconds.
fn polled(served: &Served, transactions: u64) -> Result<Memory, Failure> {
    let stop = AtomicBool::new(false);
    let (most, peak) = (AtomicU64::new(0), AtomicU64::new(0));
    let is_writing = || unfinished(&served.state_dir());
    thread::scope(|scope| {
        scope.spawn(|| {
            // What a checkpoint has used is given back a moment later.
            let mut written_at = None;
            while !stop.load(Ordering::Relaxed) {
                let before = is_writing();
                let now = served.memory().unwrap_or(0);
                if before || is_writing() {
                    written_at = Some(Instant::now());
                }
                let is_peak = written_at.is_some_and(|at| at.elapsed() < GIVEN_BACK);
                let kind = if is_peak { &peak } else { &most };
                kind.fetch_max(now, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(2));
            }
        });
        let puts = served.puts(MANY, ROWS, move |count, _| count >= transactions);
        stop.store(true, Ordering::Relaxed);
        puts
    })?;
    // The last checkpoint begins a moment after the last put.
    let mut quiet = Instant::now();
    while quiet.elapsed() < Duration::from_secs(2) {
        if is_writing() {
            quiet = Instant::now();
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(Memory {
        most: most.into_inner(),
        peak: peak.into_inner(),
        after: served.memory()?,
    })
}
