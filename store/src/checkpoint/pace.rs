//! How fast a checkpoint is written: a question before each small step.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

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
    since: Instant,
}

/// The longest sleep before `stop` is looked at again.
const SLICE: Duration = Duration::from_millis(20);

impl<'a> Share<'a> {
    /// After each piece of work waits `pauses` times as long: 9 for a tenth of the time.
    #[must_use]
    pub fn new(pauses: u32, stop: &'a AtomicBool) -> Self {
        Self {
            stop,
            pauses,
            since: Instant::now(),
        }
    }
}

impl Pace for Share<'_> {
    fn before(&mut self, _: Step) -> Result<(), Halt> {
        let until = Instant::now() + self.since.elapsed().saturating_mul(self.pauses);
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
        self.since = Instant::now();
        Ok(())
    }
}
