//! What a process counts, and the lines it tells it by.
//!
//! A line is one write of less than a pipe's atomic size, so lines of threads and of
//! forked children do not mix. A killed process takes with it what it counted since its
//! last line: the sums are never too high.

use std::fmt;
use std::io::Write;
use std::time::{Duration, Instant};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Header reads: calls of `Handle::latest`.
    Reads,
    /// Snapshots of which every byte was checked, each check counted.
    Checks,
    /// Different generations that were acquired.
    Acquired,
    /// Checks of a snapshot that was held while others were published.
    HeldChecks,
    /// Snapshots that another thread had acquired.
    Sent,
    /// Snapshots acquired without leases, as copies.
    Copied,
    /// Forked children that checked their parent's snapshot to the end.
    Forks,
    /// Delays between two steps of the protocol.
    Delays,
    /// Generations published.
    Publishes,
    /// Regions that were written again.
    Reuses,
    /// Snapshot files made: one for each start, and for each that was deleted.
    Files,
    /// Beats that found no run directory.
    Homeless,
}

const COUNTS: [(Count, &str); 12] = [
    (Count::Reads, "reads"),
    (Count::Checks, "checks"),
    (Count::Acquired, "acquired"),
    (Count::HeldChecks, "held_checks"),
    (Count::Sent, "sent"),
    (Count::Copied, "copied"),
    (Count::Forks, "forks"),
    (Count::Delays, "delays"),
    (Count::Publishes, "publishes"),
    (Count::Reuses, "reuses"),
    (Count::Files, "files"),
    (Count::Homeless, "homeless"),
];

/// Numbers of things.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    numbers: [u64; COUNTS.len()],
}

impl Tally {
    /// One more.
    pub fn one(&mut self, count: Count) {
        self.add(count, 1);
    }

    /// Some more.
    pub fn add(&mut self, count: Count, more: u64) {
        self.numbers[count as usize] += more;
    }

    /// How many there are.
    #[must_use]
    pub fn of(&self, count: Count) -> u64 {
        self.numbers[count as usize]
    }

    /// Both together.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.numbers.iter_mut().zip(&other.numbers) {
            *mine += theirs;
        }
    }

    /// The words behind `tally`, read back.
    pub fn parse(words: &str) -> Option<Self> {
        let mut tally = Self::default();
        for word in words.split_whitespace() {
            let (name, number) = word.split_once('=')?;
            let (count, _) = COUNTS.iter().find(|(_, known)| *known == name)?;
            tally.add(*count, number.parse().ok()?);
        }
        Some(tally)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (count, name) in COUNTS {
            if self.of(count) > 0 {
                write!(f, " {name}={}", self.of(count))?;
            }
        }
        Ok(())
    }
}

/// One thread's tally, told every few milliseconds.
#[derive(Debug)]
pub struct Teller {
    /// Since the last line.
    pub tally: Tally,
    told: Instant,
}

impl Default for Teller {
    fn default() -> Self {
        Self {
            tally: Tally::default(),
            told: Instant::now(),
        }
    }
}

impl Teller {
    const OFTEN: Duration = Duration::from_millis(20);

    /// Tells if it is time. True: it was.
    pub fn tick(&mut self) -> bool {
        let due = self.told.elapsed() >= Self::OFTEN;
        if due {
            self.tell();
        }
        due
    }

    /// Tells now.
    pub fn tell(&mut self) {
        super::steps::take_delays(&mut self.tally);
        say(&format!("tally{}", self.tally));
        *self = Self::default();
    }
}

/// Writes a line to the parent. Nobody there is no error: the process dies with it.
pub fn say(line: &str) {
    let line = format!("{line}\n");
    let _ = std::io::stdout().lock().write_all(line.as_bytes());
}
