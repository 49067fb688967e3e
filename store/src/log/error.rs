//! What goes wrong with a log, and what to do then.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::bytes::Malformed;
use super::disk::is_full;

/// What every error about damage ends with.
const ADVICE: &str = "Nothing was changed. `sherwood recover list` shows what is whole. Put the missing files back; or go back to \
    before the damage with `sherwood recover restore --to SEQ`, the last entry that it lists; or save all that can be read with \
    `sherwood recover salvage OUT`";

/// Why a log cannot be read or opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    /// The kernel refused something.
    #[error("cannot {doing} {path:?}")]
    Io {
        /// A verb.
        doing: &'static str,
        /// Of what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A segment's header cannot be read.
    #[error(
        "{path:?} is no segment of this log: {reason}. If this is another version's, upgrade Sherwood. The sequences from that in its name on are affected. {advice}", advice = ADVICE
    )]
    SegmentHeader {
        /// The segment.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file is not the segment that belongs at its name: it was swapped with another or an older one.
    #[error("{path:?} is not the segment that belongs there ({reason}): sequences {first} to {last} are affected. {advice}", advice = ADVICE)]
    Swapped {
        /// The file.
        path: PathBuf,
        /// How that is known.
        reason: String,
        /// First sequence that is not there as it was.
        first: u64,
        /// Last; the end of the log, if it is not known.
        last: Last,
    },
    /// Segments are missing.
    #[error("the log in {dir:?} lacks segments: sequences {first} to {last} are missing. {advice}", advice = ADVICE)]
    Missing {
        /// The log's directory.
        dir: PathBuf,
        /// First sequence that is missing.
        first: u64,
        /// Last one.
        last: Last,
    },
    /// A record is damaged, and good ones follow.
    #[error("{path:?} is damaged at byte {offset}, and good records follow: sequences {first} to {last} are affected{}. {advice}", and_also(also), advice = ADVICE)]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where the damage begins.
        offset: u64,
        /// First sequence that cannot be read.
        first: u64,
        /// Last one.
        last: u64,
        /// What else cannot be read from there on: damaged too, or in need of what was. Empty where nobody looked.
        also: Sequences,
    },
    /// The last segment is shorter than it was made: records may have stood behind its end.
    #[error("{path:?} has {found} bytes and was made with {expected}: sequences {first} to the end of the log may be missing. {advice}", advice = ADVICE)]
    Cut {
        /// The segment.
        path: PathBuf,
        /// Bytes it has.
        found: u64,
        /// Bytes it was made with.
        expected: u64,
        /// First sequence that is not there.
        first: u64,
    },
    /// A record's checksum is right, and its content means nothing.
    #[error(
        "entry {sequence} at byte {offset} of {path:?} has the right checksum and cannot be understood: it needs what a damaged record before it had, or was written by another version of Sherwood (then upgrade). See `sherwood recover verify`"
    )]
    Undecodable {
        /// The segment.
        path: PathBuf,
        /// Where the record begins.
        offset: u64,
        /// Which entry.
        sequence: u64,
        /// What is wrong with it.
        #[source]
        source: Malformed,
    },
    /// The log's manifest is gone or damaged.
    #[error(
        "the manifest {path:?} cannot be used ({reason}), so whether segments are missing at the end of the log cannot be known. {advice}", advice = ADVICE
    )]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of outcomes cannot be used.
    #[error(
        "the outcomes of transactions in {path:?} cannot be used ({reason}): a retry of one of them would be done twice. Restore the file, or move it away if nobody will retry"
    )]
    Outcomes {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The entries asked for were released.
    #[error(
        "the log begins with sequence {oldest}, and {wanted} was asked for: the entries before were released after a checkpoint"
    )]
    Released {
        /// The first that was wanted.
        wanted: u64,
        /// The first that is there.
        oldest: u64,
    },
    /// The log ends before something that is known to have been in it.
    #[error(
        "the log ends with sequence {last}, and a checkpoint holds everything up to {needed}: the log is an older copy, or its last records are damaged, and \
         whether it had entries behind {needed} cannot be known. {advice}", advice = ADVICE
    )]
    EndsBefore {
        /// The sequence of the last entry.
        last: u64,
        /// That of the checkpoint.
        needed: u64,
    },
}

/// The last of a range of sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// This one.
    Sequence(u64),
    /// All behind the first.
    EndOfLog,
}

impl std::fmt::Display for Last {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sequence(sequence) => sequence.fmt(f),
            Self::EndOfLog => f.write_str("the end of the log"),
        }
    }
}

/// Sequences, as ranges in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequences(Vec<(u64, u64)>);

impl Sequences {
    /// Adds a range that begins behind all others, or continues the last one.
    pub(super) fn push(&mut self, first: u64, last: u64) {
        match self.0.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ if first <= last => self.0.push((first, last)),
            _ => {}
        }
    }

    /// Those behind this one.
    pub(super) fn behind(&self, sequence: u64) -> Self {
        let behind = self.0.iter().filter(|(_, last)| *last > sequence);
        let behind = behind.map(|&(first, last)| (first.max(sequence.saturating_add(1)), last));
        Self(behind.collect())
    }

    /// None.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first and the last of each range.
    #[must_use]
    pub fn ranges(&self) -> &[(u64, u64)] {
        &self.0
    }
}

impl std::fmt::Display for Sequences {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, (first, last)) in self.0.iter().enumerate() {
            f.write_str(match number {
                0 => "",
                _ if number + 1 == self.0.len() => " and ",
                _ => ", ",
            })?;
            match first == last {
                true => write!(f, "{first}")?,
                false => write!(f, "{first} to {last}")?,
            }
        }
        Ok(())
    }
}

/// For the message of damage.
fn and_also(also: &Sequences) -> String {
    match also.is_empty() {
        true => String::new(),
        false => {
            format!(
                ", and behind them {also}, which are damaged too or need what a damaged one had"
            )
        }
    }
}

/// Why an entry was not appended. Only after [`AppendError::Sync`] may it be in the log.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AppendError {
    /// Nothing was written: the disk is full. The log is as before; try again when there is space.
    #[error(
        "the disk is full: cannot {doing}. Nothing was logged; make space for the state directory"
    )]
    Full {
        /// A verb and its object.
        doing: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Nothing was written: the entry is none that the log can hold. The log is as before.
    #[error("the entry cannot be logged: {reason}")]
    Refused {
        /// What is wrong with it.
        reason: String,
    },
    /// Whether the entry is durable is not known, and never will be by this log: every later call fails.
    #[error(
        "the log cannot {doing}: what was written last may be lost. Restart the daemon, which reads what is there; if it happens again, replace the disk"
    )]
    Sync {
        /// A verb and its object.
        doing: &'static str,
        /// What the kernel said; none in the calls after the one that failed.
        #[source]
        source: Option<io::Error>,
    },
}

/// Why the log could not be kept in order: nothing is lost, and the next call tries again.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeepError {
    /// The kernel refused something.
    #[error("cannot {doing} {path:?}")]
    Io {
        /// A verb.
        doing: &'static str,
        /// Of what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// What is to be released cannot be read.
    #[error("cannot release old segments of the log")]
    Log(#[from] LogError),
}

impl KeepError {
    /// Is it for want of room on the disk?
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Io { source, .. } | Self::Log(LogError::Io { source, .. }) => is_full(source),
            Self::Log(_) => false,
        }
    }
}
