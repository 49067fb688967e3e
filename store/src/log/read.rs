//! Reading a log from a sequence on, without changing anything: recovery, `sherwood recover`, and the outcomes of a start.

use std::path::{Path, PathBuf};

use super::bytes::Malformed;
use super::chain::{Chain, Step, TornTail, Walk};
use super::cursor::Record;
use super::error::LogError;
use super::payload::Decoder;
use crate::entry::Entry;
use crate::outcomes::{Outcomes, list_files, read_file};

/// The entries of the log in `dir` from sequence `from` on, in order, without gaps.
///
/// The log must not be appended to meanwhile; use a [`Follower`](super::Follower) for that. Nothing is changed.
/// A torn tail ends the iteration and is [said](Entries::torn) afterwards.
///
/// # Errors
///
/// At once: segments are missing or swapped; the entries were released; the log ends before `from - 1`
/// (an end right there is fine, and there are no entries then). A directory that is not there, or is empty, has no entries.
pub fn read(dir: &Path, from: u64) -> Result<Entries, LogError> {
    let chain = Chain::load(dir)?;
    let segments = &chain.segments;
    let oldest = segments.first().map(|link| link.header.first_sequence);
    if let Some(oldest) = oldest.filter(|&oldest| oldest > from) {
        return Err(LogError::Released {
            wanted: from,
            oldest,
        });
    }
    let behind = segments.partition_point(|link| link.header.first_sequence <= from);
    let mut entries = Entries {
        walk: Walk::new(chain, behind.saturating_sub(1)),
        decoder: Decoder::default(),
        is_over: oldest.is_none(),
    };
    // What stands before `from` in the segment is not decoded, but its schemas are learnt (Z1).
    while !entries.is_over && entries.walk.next < from {
        entries.pass()?;
    }
    let last = entries.walk.next - 1;
    if oldest.is_some() && last + 1 < from {
        return Err(LogError::EndsBefore {
            last,
            needed: from - 1,
        });
    }
    Ok(entries)
}

/// See [`read`]. Ends after the first error.
#[derive(Debug)]
pub struct Entries {
    walk: Walk,
    decoder: Decoder,
    is_over: bool,
}

impl Entries {
    /// The record that was being written when the log stopped, once the iteration is over.
    #[must_use]
    pub fn torn(&self) -> Option<&TornTail> {
        self.walk.torn.as_ref()
    }

    /// The sequence of the next entry.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.walk.next
    }

    fn pass(&mut self) -> Result<(), LogError> {
        match self.walk.step()? {
            Step::Segment => self.decoder = Decoder::default(),
            Step::Record(record, path) => {
                let learnt = self.decoder.skip(record.payload);
                learnt.map_err(|malformed| undecodable(path, &record, malformed))?;
            }
            Step::End => self.is_over = true,
        }
        Ok(())
    }

    fn advance(&mut self) -> Result<Option<Entry>, LogError> {
        loop {
            match self.walk.step()? {
                Step::Segment => self.decoder = Decoder::default(),
                Step::Record(record, path) => {
                    let entry = self.decoder.entry(&record.header, record.payload);
                    return entry
                        .map(Some)
                        .map_err(|malformed| undecodable(path, &record, malformed));
                }
                Step::End => return Ok(None),
            }
        }
    }
}

impl Iterator for Entries {
    type Item = Result<Entry, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = self.advance().transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}

pub(super) fn undecodable(path: &Path, record: &Record<'_>, source: Malformed) -> LogError {
    LogError::Undecodable {
        path: path.to_owned(),
        offset: record.offset,
        sequence: record.header.sequence,
        source,
    }
}

/// A log that was walked through, with what a writer needs to go on.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) walk: Walk,
    /// Of the last segment.
    pub(super) decoder: Decoder,
    pub(super) outcomes: Outcomes,
    /// The newest generation of an entry.
    pub(super) generation: u64,
}

/// Walks through the whole log, and the files of outcomes before it.
pub(super) fn walk(dir: &Path, window: usize) -> Result<Walked, LogError> {
    let chain = Chain::load(dir)?;
    let mut outcomes = Outcomes::new(window);
    let oldest = chain
        .segments
        .first()
        .map(|link| link.header.first_sequence);
    load_files(dir, oldest, &mut outcomes)?;
    let mut walk = Walk::new(chain, 0);
    let (mut decoder, mut generation) = (Decoder::default(), walk.generation);
    loop {
        match walk.step()? {
            Step::Segment => decoder = Decoder::default(),
            Step::Record(record, path) => {
                generation = generation.max(record.header.generation);
                let found = decoder.outcomes(record.payload);
                for outcome in found.map_err(|malformed| undecodable(path, &record, malformed))? {
                    outcomes.insert(outcome);
                }
            }
            Step::End => break,
        }
    }
    Ok(Walked {
        walk,
        decoder,
        outcomes,
        generation,
    })
}

fn load_files(dir: &Path, oldest: Option<u64>, outcomes: &mut Outcomes) -> Result<(), LogError> {
    if !dir.is_dir() {
        return Ok(());
    }
    let (files, _covered) = list_files(dir)?;
    let mut expected: Option<u64> = None;
    for file in &files {
        warn_of_gap(dir, expected, file.first);
        for outcome in read_file(file)? {
            outcomes.insert(outcome);
        }
        expected = Some(file.last.saturating_add(1));
    }
    if let Some(oldest) = oldest {
        warn_of_gap(dir, expected, oldest);
    }
    Ok(())
}

fn warn_of_gap(dir: &Path, expected: Option<u64>, found: u64) {
    if let Some(expected) = expected.filter(|&expected| expected < found) {
        tracing::warn!(
            dir = %dir.display(), first = expected, last = found - 1,
            "the outcomes of these entries are missing: a retry of one of their transactions would be done twice"
        );
    }
}

/// See [`Outcomes::load`].
pub(crate) fn load_outcomes(dir: &Path, window: usize) -> Result<Outcomes, LogError> {
    walk(dir, window).map(|walked| walked.outcomes)
}

/// The log's directory in a state directory.
#[must_use]
pub fn log_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("log")
}
