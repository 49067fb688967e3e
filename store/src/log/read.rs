//! Reading a log from a sequence on, without changing anything: recovery, `sherwood recover`, and the outcomes of a start.

use std::path::{Path, PathBuf};

use super::bytes::Malformed;
use super::chain::{Chain, Link, Step, TornTail, Walk};
use super::cursor::{Cursor, End, Record};
use super::disk::Disk;
use super::error::{Last, LogError, Sequences};
use super::manifest::Manifest;
use super::payload::Decoder;
use super::segment::{list, segment_path};
use crate::checkpoint::Position;
use crate::entry::Entry;
use crate::outcomes::{Outcomes, WINDOW, list_files, read_file, write_file};

/// The entries of the log in `dir` from sequence `from` on, in order, without gaps.
///
/// The log must not be appended to meanwhile; use a [`Follower`](super::Follower) for that. Nothing is changed.
/// A torn tail ends the iteration and is [said](Entries::torn) afterwards.
///
/// # Errors
///
/// At once: `from` is in a segment that is missing or swapped, or was released; the log ends before `from - 1`
/// (an end right there is fine, and there are no entries then). A directory that is not there, or is empty, has no entries.
/// Damage behind `from` is an error of the iteration, once it comes there; damage before it is [said](Entries::passed) (L12).
pub fn read(dir: &Path, from: u64) -> Result<Entries, LogError> {
    let mut chain = Chain::survey(dir)?;
    let oldest = chain.segments.first();
    let oldest = oldest.map(|link| link.header.first_sequence);
    let Some(at) = chain.holder(from) else {
        if let Some(problem) = chain.before.drain(..).next() {
            return Err(problem);
        }
        if let Some(oldest) = oldest {
            return Err(LogError::Released {
                wanted: from,
                oldest,
            });
        }
        return Ok(Entries {
            walk: Walk::new(chain, 0),
            decoder: Decoder::default(),
            is_over: true,
        });
    };
    let passed = chain.take_before(at);
    let mut entries = Entries {
        walk: Walk::new(chain, at),
        decoder: Decoder::default(),
        is_over: false,
    };
    (entries.walk.needed, entries.walk.passed) = (from, passed);
    // What stands before `from` in the segment is not decoded, but its schemas are learnt (Z1).
    while !entries.is_over && entries.walk.next < from {
        entries.pass().map_err(|error| in_all(dir, error))?;
    }
    let last = entries.walk.next - 1;
    if last + 1 < from {
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

    /// What is wrong before the first entry that was asked for, as far as it was looked at (L12).
    #[must_use]
    pub fn passed(&self) -> &[LogError] {
        &self.walk.passed
    }

    /// The sequence of the next entry.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.walk.next
    }

    fn pass(&mut self) -> Result<(), LogError> {
        match self.walk.step()? {
            Step::Segment => self.decoder = Decoder::default(),
            Step::Gap => self.decoder.gap(),
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
                Step::Gap => self.decoder.gap(),
                Step::Record(record, path) => {
                    let entry = self.decoder.entry(&record.header, record.payload);
                    return match entry {
                        Ok(entry) => Ok(Some(entry)),
                        // It needs what was damaged before it in its segment (P1).
                        Err(_) if self.decoder.has_gap() => Err(LogError::Damaged {
                            path: path.to_owned(),
                            offset: record.offset,
                            first: record.header.sequence,
                            last: record.header.sequence,
                            also: Sequences::default(),
                        }),
                        Err(malformed) => Err(undecodable(path, &record, malformed)),
                    };
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
        let next = next.map(|next| next.map_err(|error| in_all(&self.walk.chain.dir, error)));
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}

/// Every entry from sequence `from` on that can still be read, whatever is wrong with the log: in order, with what was found wrong
/// between them. The manifest is not asked, and whether a segment belongs to its neighbours is not either. Changes nothing.
///
/// # Errors
///
/// Only if the directory cannot be listed.
pub fn salvage(
    dir: &Path,
    from: u64,
    mut each: impl FnMut(Result<Entry, LogError>),
) -> Result<(), LogError> {
    if !dir.is_dir() {
        return Ok(());
    }
    let firsts = list(dir)?;
    for (at, first) in firsts.iter().enumerate() {
        // Those before hold nothing from there on.
        if firsts.get(at + 1).is_some_and(|next| *next <= from) {
            continue;
        }
        if let Err(error) = salvage_segment(&segment_path(dir, *first), *first, from, &mut each) {
            each(Err(error));
        }
    }
    Ok(())
}

/// The sequences between the first that the log in `dir` should have and the last that it can be seen to have had whose entries cannot be
/// read: damaged, missing, or in need of what a damaged one had. What may be missing behind those is not known by this.
///
/// # Errors
///
/// Only if the directory cannot be listed.
pub fn unreadable(dir: &Path) -> Result<Sequences, LogError> {
    let begins = match Manifest::read(dir) {
        Ok(Some(manifest)) => Some(manifest.released.saturating_add(1)),
        _ if dir.is_dir() => list(dir)?.first().copied(),
        _ => None,
    };
    unreadable_from(dir, begins.unwrap_or(1))
}

fn unreadable_from(dir: &Path, from: u64) -> Result<Sequences, LogError> {
    let (mut lost, mut next) = (Sequences::default(), from);
    salvage(dir, from, |entry| {
        let last = match entry {
            Ok(entry) => {
                lost.push(next, entry.sequence.saturating_sub(1));
                entry.sequence
            }
            Err(LogError::Damaged { last, .. } | LogError::Undecodable { sequence: last, .. }) => {
                lost.push(next, last);
                last
            }
            Err(_) => return,
        };
        next = next.max(last.saturating_add(1));
    })?;
    Ok(lost)
}

/// Adds to damage what else it costs: an entry that needs what a damaged one had cannot be read either.
pub(super) fn in_all(dir: &Path, error: LogError) -> LogError {
    match error {
        LogError::Damaged {
            path,
            offset,
            first,
            last,
            ..
        } => LogError::Damaged {
            also: unreadable_from(dir, first)
                .map_or_else(|_| Sequences::default(), |all| all.behind(last)),
            path,
            offset,
            first,
            last,
        },
        other => other,
    }
}

fn salvage_segment(
    path: &Path,
    first: u64,
    from: u64,
    each: &mut impl FnMut(Result<Entry, LogError>),
) -> Result<(), LogError> {
    let mut cursor = Cursor::open(path)?;
    if cursor.header.first_sequence != first {
        return Err(LogError::Swapped {
            path: path.to_owned(),
            reason: format!("it begins with sequence {}", cursor.header.first_sequence),
            first,
            last: Last::EndOfLog,
        });
    }
    let mut decoder = Decoder::default();
    let mut next = first;
    loop {
        if !cursor.advance(next)? {
            let End::Damaged { next: good, at } = cursor.end(next)? else {
                return Ok(());
            };
            let last = good.saturating_sub(1);
            if last >= from {
                each(Err(LogError::Damaged {
                    path: path.to_owned(),
                    offset: cursor.offset,
                    first: next,
                    last,
                    also: Sequences::default(),
                }));
            }
            (next, cursor.offset) = (good, at);
            decoder.gap();
            continue;
        }
        let Some(record) = cursor.record() else {
            return Ok(());
        };
        if next < from {
            if decoder.skip(record.payload).is_err() {
                decoder.gap();
            }
        } else {
            let entry = decoder.entry(&record.header, record.payload);
            let entry = entry.map_err(|malformed| undecodable(path, &record, malformed));
            if entry.is_err() {
                decoder.gap();
            }
            each(entry);
        }
        next += 1;
    }
}

/// The outcomes that a log in `from` remembers of entries up to `through`, as a file of outcomes for a new log in `to` that begins
/// behind it. What cannot be read is left out and said.
pub(crate) fn carry_outcomes(
    from: &Path,
    to: &Path,
    through: Position,
    disk: &dyn Disk,
) -> Result<Vec<String>, LogError> {
    let mut missing = Vec::new();
    if through.sequence == 0 || !from.is_dir() {
        return Ok(missing);
    }
    let mut outcomes = Outcomes::new(WINDOW);
    let mut begins = None;
    for file in list_files(from)?.0 {
        if file.first > through.sequence {
            continue;
        }
        begins.get_or_insert(file.first);
        match read_file(&file) {
            // A file across the end does not say which entry had which: generations do.
            Ok(found) => found
                .into_iter()
                .filter(|outcome| {
                    file.last <= through.sequence || outcome.generation <= through.generation
                })
                .for_each(|outcome| outcomes.insert(outcome)),
            Err(error) => missing.push(error.to_string()),
        }
    }
    salvage(from, 0, |entry| match entry {
        Ok(entry) if entry.sequence <= through.sequence => {
            begins.get_or_insert(entry.sequence);
            entry
                .outcomes
                .into_iter()
                .for_each(|outcome| outcomes.insert(outcome));
        }
        Ok(_) => {}
        Err(error) => missing.push(error.to_string()),
    })?;
    let range = (begins.unwrap_or(1), through.sequence);
    write_file(disk, to, range, outcomes.iter()).map_err(|source| LogError::Io {
        doing: "save outcomes in",
        path: to.to_owned(),
        source,
    })?;
    Ok(missing)
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
    /// The newest generation of an entry of the newest history.
    pub(super) generation: u64,
    /// Records of the last segment were passed over, so that it takes no more.
    pub(super) has_gap: bool,
}

/// Walks through the log, and the files of outcomes before it. Damage of entries up to `position`, which a checkpoint holds, costs
/// their outcomes (L12): the chain that is given begins behind damage between segments.
pub(super) fn walk(dir: &Path, window: usize, position: u64) -> Result<Walked, LogError> {
    let mut chain = Chain::survey(dir)?;
    let mut outcomes = Outcomes::new(window);
    let oldest = chain
        .segments
        .first()
        .map(|link| link.header.first_sequence);
    load_files(dir, oldest, &mut outcomes)?;
    let mut begins = chain.holder(position.saturating_add(1)).unwrap_or(0);
    let is_linked = |chain: &Chain, at: usize| {
        let before = at.checked_sub(1).and_then(|at| chain.segments.get(at));
        before.is_some_and(|link| link.behind.is_empty())
    };
    while is_linked(&chain, begins) {
        begins -= 1;
    }
    let first = chain.segments.get(begins);
    let first = first.map(|link| link.header.first_sequence);
    let problems = chain.take_before(begins);
    if first.is_none_or(|first| first > position.saturating_add(1))
        && let Some(problem) = problems.into_iter().next()
    {
        return Err(problem);
    }
    let lost: Vec<Link> = chain.segments.drain(..begins).collect();
    for link in &lost {
        salvage_outcomes(&link.path, &mut outcomes);
    }
    let mut walk = Walk::new(chain, 0);
    walk.needed = position.saturating_add(1);
    let (mut decoder, mut generation) = (Decoder::default(), walk.generation);
    let (mut has_gap, mut history) = (false, None);
    let mut headers: Vec<_> = walk
        .chain
        .segments
        .iter()
        .map(|link| {
            (
                link.header.first_sequence,
                link.header.history,
                link.header.base_generation,
            )
        })
        .collect();
    headers.reverse();
    loop {
        match walk.step().map_err(|error| in_all(dir, error))? {
            Step::Segment => {
                decoder = Decoder::default();
                has_gap = false;
                while let Some((_, found, base)) = headers.pop_if(|(first, ..)| *first <= walk.next)
                {
                    // F12: generations of another history count for nothing.
                    if history.is_some_and(|history| history != found) {
                        generation = base;
                    }
                    history = Some(found);
                }
            }
            Step::Gap => {
                decoder.gap();
                has_gap = true;
                // Whoever follows the log must not take what was passed over for seen.
                generation = generation.max(walk.generation);
            }
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
        has_gap,
    })
}

/// The outcomes that can still be read of a segment between damaged ones.
fn salvage_outcomes(path: &Path, outcomes: &mut Outcomes) {
    let Ok(mut cursor) = Cursor::open(path) else {
        return;
    };
    let mut decoder = Decoder::default();
    let mut next = cursor.header.first_sequence;
    while let Ok(true) = cursor.advance(next) {
        let Some(record) = cursor.record() else { break };
        let Ok(found) = decoder.outcomes(record.payload) else {
            break;
        };
        found
            .into_iter()
            .for_each(|outcome| outcomes.insert(outcome));
        next += 1;
    }
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
    walk(dir, window, 0).map(|walked| walked.outcomes)
}

/// The log's directory in a state directory.
#[must_use]
pub fn log_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("log")
}
