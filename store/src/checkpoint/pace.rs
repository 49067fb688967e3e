//! How fast a checkpoint is written: a question before each small step.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// What comes next. Each is small: a file operation, some megabytes to write, or one column to encode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the temporary file.
    Create,
    /// Put one column's chunks together.
    Gather,
    /// Encode one column.
    Encode,
    /// Reserve room on the disk.
    Allocate,
    /// Write bytes.
    Write,
    /// Put the checksum in.
    Seal,
    /// Sync a file.
    Sync,
    /// Give a private checkpoint its name.
    Name,
    /// Copy some of the checkpoint for the public file.
    Copy,
    /// Give the public copy its name, which takes it from what stood there.
    Publish,
    /// Replace `base.parquet`.
    Base,
    /// Sync a directory.
    SyncDirectory,
    /// Delete an old checkpoint, or what an unfinished one left.
    Remove,
}

impl Step {
    /// Every step.
    pub const ALL: [Self; 13] = [
        Self::Create,
        Self::Gather,
        Self::Encode,
        Self::Allocate,
        Self::Write,
        Self::Seal,
        Self::Sync,
        Self::Name,
        Self::Copy,
        Self::Publish,
        Self::Base,
        Self::SyncDirectory,
        Self::Remove,
    ];

    /// As tests name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "checkpoint: create a file",
            Self::Gather => "checkpoint: gather a column",
            Self::Encode => "checkpoint: encode a column",
            Self::Allocate => "checkpoint: reserve room",
            Self::Write => "checkpoint: write",
            Self::Seal => "checkpoint: seal",
            Self::Sync => "checkpoint: sync a file",
            Self::Name => "checkpoint: name it",
            Self::Copy => "checkpoint: copy for the public file",
            Self::Publish => "checkpoint: take the public name",
            Self::Base => "checkpoint: replace the base",
            Self::SyncDirectory => "checkpoint: sync a directory",
            Self::Remove => "checkpoint: remove a file",
        }
    }
}

/// Asked before each step.
pub trait Pace: Send {
    /// May wait, so that a checkpoint takes only a share of the time; may end the work.
    ///
    /// # Errors
    ///
    /// [`Halt`]: the step is not taken. What was begun is removed, as after a step that fails.
    fn before(&mut self, step: Step) -> Result<(), Halt>;
}

/// Why a step is not taken.
#[derive(Debug)]
pub enum Halt {
    /// There is something better to do, such as to end.
    Stop,
    /// As if the step had failed so.
    Fail(io::Error),
}

/// Never waits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Free;

impl Pace for Free {
    fn before(&mut self, _: Step) -> Result<(), Halt> {
        Ok(())
    }
}

/// Works one part of the time, and stops when told to.
#[derive(Debug)]
pub struct Share<'a> {
    stop: &'a AtomicBool,
    pauses: u32,
    /// The step under way.
    step: Option<Step>,
    since: Moment,
}

/// The longest sleep before `stop` is looked at again.
const SLICE: Duration = Duration::from_millis(20);

impl<'a> Share<'a> {
    /// After each piece of work waits `pauses` times as long as it took: 9 for a tenth of the time.
    #[must_use]
    pub fn new(pauses: u32, stop: &'a AtomicBool) -> Self {
        Self {
            stop,
            pauses,
            step: None,
            since: Moment::now(),
        }
    }
}

/// A moment, by the clock and by what this thread has had of the processors.
#[derive(Clone, Copy, Debug)]
struct Moment {
    clock: Instant,
    processor: Option<Duration>,
}

impl Moment {
    fn now() -> Self {
        let processor = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
        Self {
            clock: Instant::now(),
            processor: processor.ok().map(Duration::from),
        }
    }
}

/// What a step took from others. A step that only computes took the processor's time: how long it waited for its turn
/// on a busy host is no reason to pause nine times that long. All others keep the disk busy while they wait.
fn taken(step: Option<Step>, began: Moment, now: Moment) -> Duration {
    let by_the_clock = now.clock.saturating_duration_since(began.clock);
    match (step, began.processor, now.processor) {
        (Some(Step::Gather | Step::Encode), Some(began), Some(now)) => now.saturating_sub(began),
        _ => by_the_clock,
    }
}

impl Pace for Share<'_> {
    fn before(&mut self, step: Step) -> Result<(), Halt> {
        let now = Moment::now();
        let taken = taken(self.step, self.since, now);
        let until = now.clock + taken.saturating_mul(self.pauses);
        loop {
            // ORDER stop: a hint; who sets it waits for the thread by other means.
            if self.stop.load(Ordering::Relaxed) {
                return Err(Halt::Stop);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::sleep(left.min(SLICE));
        }
        self.step = Some(step);
        self.since = Moment::now();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_computes_took_what_it_had_of_the_processor_and_others_the_time() {
        const MS: Duration = Duration::from_millis(1);
        let began = Moment::now();
        let after = |processor| Moment {
            clock: began.clock + 100 * MS,
            processor,
        };
        let had = began.processor.map(|had| had + 3 * MS);
        assert!(had.is_some(), "this system tells a thread's time");
        for step in Step::ALL {
            let computes = matches!(step, Step::Gather | Step::Encode);
            let expected = if computes { 3 * MS } else { 100 * MS };
            assert_eq!(taken(Some(step), began, after(had)), expected, "{step:?}");
            assert_eq!(taken(Some(step), began, after(None)), 100 * MS, "{step:?}");
        }
    }
}
