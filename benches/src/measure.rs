//! The one way everything here is timed, ours and the peers alike.
//!
//! Both programs (`bench`, and `peers` in its own workspace) compile this file,
//! so that a difference between two rows is never a difference of method.
//!
//! - What takes nanoseconds is timed in **batches** long enough for the clock
//!   not to count; a batch gives one sample, its mean. The p99 is therefore one
//!   over batches: it shows how steady the machine was, not the slowest call.
//! - What takes a microsecond or more is timed **one by one**, and includes
//!   about one read of the clock (a row of the floors says how much that is).
//! - What needs a writer and a reader (a refresh after a publish) runs them in
//!   turn on two threads held to two cores, so that the reader finds the
//!   writer's bytes in the other core's cache, as it would in life.
//!
//! Nothing is subtracted and no outlier is thrown away.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use crate::cores::Core;

/// How long a batch should take: some hundred times one read of the clock.
const BATCH: Duration = Duration::from_micros(20);

/// The floors of a wake: a name, and how long the sleeper has slept by then.
///
/// Two, since a core that has been idle for long sleeps too, above all one of
/// a virtual machine: then its wake is most of the figure.
pub const WAKES: [(&str, Duration); 2] = [
    ("futex wake, asleep for 50 us", Duration::from_micros(50)),
    ("futex wake, asleep for 2 ms", Duration::from_millis(2)),
];

/// What was seen, in nanoseconds for one operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// The smallest sample.
    pub min: f64,
    /// The median sample.
    pub median: f64,
    /// The 99th percentile of the samples.
    pub p99: f64,
    /// How many samples there were.
    pub samples: usize,
    /// Operations in one sample.
    pub batch: u32,
}

impl Figure {
    /// The figure of some samples, each in nanoseconds for one operation.
    ///
    /// `None` if there are none.
    pub fn of(mut samples: Vec<f64>, batch: u32) -> Option<Self> {
        samples.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            samples.get((samples.len() * percent / 100).min(samples.len().saturating_sub(1)))
        };
        Some(Self {
            min: *samples.first()?,
            median: *at(50)?,
            p99: *at(99)?,
            samples: samples.len(),
            batch,
        })
    }
}

/// Nanoseconds, with a fraction.
pub fn nanos(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

/// Times `op` in batches for about `budget`, after a warm-up of a fifth of it.
///
/// For operations well below a microsecond. The result of `op` is kept from
/// the optimiser.
pub fn batched<T>(budget: Duration, mut op: impl FnMut() -> T) -> Figure {
    let warm = Instant::now();
    let (mut batch, mut took) = (1_u32, Duration::ZERO);
    while warm.elapsed() < budget / 5 || took < BATCH {
        let start = Instant::now();
        for _ in 0..batch {
            black_box(op());
        }
        took = start.elapsed();
        if took < BATCH {
            batch = batch.saturating_mul(2);
        }
    }
    let mut samples = Vec::new();
    let all = Instant::now();
    while all.elapsed() < budget || samples.is_empty() {
        let start = Instant::now();
        for _ in 0..batch {
            black_box(op());
        }
        samples.push(nanos(start.elapsed()) / f64::from(batch));
    }
    Figure::of(samples, batch).unwrap_or(NOTHING)
}

/// Times `op` one by one until `budget` or `most` samples are used up, after a
/// warm-up of three calls. `op` says itself how long what counts took.
///
/// # Errors
///
/// The first error of `op`.
pub fn each<E>(
    budget: Duration,
    most: usize,
    mut op: impl FnMut() -> Result<Duration, E>,
) -> Result<Figure, E> {
    for _ in 0..3 {
        op()?;
    }
    let (all, mut samples) = (Instant::now(), Vec::new());
    while samples.is_empty() || (samples.len() < most && all.elapsed() < budget) {
        samples.push(nanos(op()?));
    }
    Ok(Figure::of(samples, 1).unwrap_or(NOTHING))
}

/// How long `op` took, and what it gave.
pub fn timed<T>(op: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let value = black_box(op());
    (start.elapsed(), value)
}

/// Runs `write` on a thread of its own and `read` on this one, in turn, and
/// times each call: the figures of the writer and of the reader.
///
/// The two hand over by spinning on one word, so that neither has to be woken.
///
/// # Errors
///
/// The first error of either; the other stops after its turn.
pub fn in_turn<E: Send>(
    budget: Duration,
    most: usize,
    mut write: impl FnMut() -> Result<(), E> + Send,
    mut read: impl FnMut() -> Result<(), E>,
) -> Result<(Figure, Figure), E> {
    let turn = &AtomicU32::new(READ);
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            let _stop = Stop(turn);
            let _writer_core = Core::last();
            let mut samples = Vec::new();
            while wait_while(turn, READ) == WRITE {
                let (took, done) = timed(&mut write);
                done?;
                turn.store(READ, Ordering::Release);
                samples.push(nanos(took));
            }
            Ok(samples)
        });
        let stop = Stop(turn);
        // After the other has started: a thread inherits what its parent is held to.
        let _reader_core = Core::first();
        let (all, mut reads) = (Instant::now(), Vec::new());
        let mut failed = None;
        while reads.len() <= WARM || (reads.len() < most + WARM && all.elapsed() < budget) {
            turn.store(WRITE, Ordering::Release);
            if wait_while(turn, WRITE) == STOP {
                break;
            }
            let (took, done) = timed(&mut read);
            if let Err(error) = done {
                failed = Some(error);
                break;
            }
            reads.push(nanos(took));
        }
        drop(stop);
        let mut writes = match writer.join() {
            Ok(done) => done?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        if let Some(error) = failed {
            return Err(error);
        }
        writes.drain(..WARM.min(writes.len()));
        reads.drain(..WARM.min(reads.len()));
        Ok((
            Figure::of(writes, 1).unwrap_or(NOTHING),
            Figure::of(reads, 1).unwrap_or(NOTHING),
        ))
    })
}

/// Turns of [`in_turn`] that are not counted.
const WARM: usize = 3;

/// Whose turn it is in [`in_turn`].
const READ: u32 = 0;
const WRITE: u32 = 1;
const STOP: u32 = 2;

/// Ends the turns when its side is done, fails or panics: the other would wait
/// for ever.
struct Stop<'a>(&'a AtomicU32);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(STOP, Ordering::Release);
    }
}

/// Nanoseconds of `CLOCK_MONOTONIC`, which all processes of a machine share.
pub fn monotonic_nanos() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

/// What an empty run would show. Every caller takes at least one sample.
const NOTHING: Figure = Figure {
    min: f64::NAN,
    median: f64::NAN,
    p99: f64::NAN,
    samples: 0,
    batch: 0,
};

/// Spins while `word` holds `value`; gives way to others now and then, so that
/// a machine of one core gets on.
fn wait_while(word: &AtomicU32, value: u32) -> u32 {
    let mut turns = 0_u32;
    loop {
        let now = word.load(Ordering::Acquire);
        if now != value {
            return now;
        }
        turns += 1;
        if turns.is_multiple_of(4096) {
            std::thread::yield_now();
        } else {
            spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    const BUDGET: Duration = Duration::from_secs(5);

    #[test]
    fn writer_and_reader_take_strict_turns_and_all_but_the_warm_up_counts() {
        let writes = AtomicUsize::new(0);
        let mut reads = 0;
        let write = || {
            writes.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        let read = || {
            reads += 1;
            let writes = writes.load(Ordering::Relaxed);
            if writes == reads {
                Ok(())
            } else {
                Err(format!("{writes} writes before read {reads}"))
            }
        };
        let (written, read) = in_turn(BUDGET, 100, write, read).expect("strict turns");
        assert_eq!((written.samples, read.samples), (100, 100));
    }

    #[test]
    fn an_error_or_a_panic_of_either_side_ends_both() {
        let failing = |fails: usize| {
            let mut calls = 0;
            move || {
                calls += 1;
                if calls == fails { Err(calls) } else { Ok(()) }
            }
        };
        for (write, read, expected) in [(4, 99, 4), (99, 5, 5), (1, 99, 1), (99, 1, 1)] {
            let got = in_turn(BUDGET, 50, failing(write), failing(read));
            assert_eq!(got, Err(expected), "write fails at {write}, read at {read}");
        }
        let panics = || -> Result<(), ()> { panic!("on purpose") };
        assert!(std::panic::catch_unwind(|| in_turn(BUDGET, 50, panics, || Ok(()))).is_err());
        assert!(std::panic::catch_unwind(|| in_turn(BUDGET, 50, || Ok(()), panics)).is_err());
    }

    #[test]
    fn a_figure_is_the_least_the_middle_and_the_last_hundredth_of_its_samples() {
        let samples = (0..200).rev().map(f64::from).collect();
        let figure = Figure::of(samples, 7).expect("there are samples");
        assert_eq!((figure.min, figure.median, figure.p99), (0.0, 100.0, 198.0));
        assert_eq!((figure.samples, figure.batch), (200, 7));
        assert_eq!(Figure::of(Vec::new(), 1), None);
    }
}
