//! The segments of a log, in order, and whether they are all there.
//!
//! - **L4** Each segment names the one before it, and begins with the sequence after the last one there. The manifest
//!   names the newest (Y1) and where the oldest begins (Y2). So none can be missing or swapped unnoticed.
//! - **L12** Damage matters to who needs what is there: a reader from a sequence on is told of it when it comes to it, and of
//!   what is wrong before only as a warning. So a checkpoint outlives damage before it, and a restore what is behind it. Of the
//!   log's last record that is so only if its header is whole: it says where the record ended, so that what stood behind it is known.

use std::path::{Path, PathBuf};

use super::cursor::{Cursor, End, Record};
use super::error::{Last, LogError, Sequences};
use super::manifest::{Manifest, manifest_path};
use super::segment::{SegmentHeader, list, segment_path};

/// The segments of a log that belong to it, and what is wrong between them.
#[derive(Debug, Default)]
pub(super) struct Chain {
    pub(super) dir: PathBuf,
    /// Oldest first.
    pub(super) segments: Vec<Link>,
    pub(super) manifest: Option<Manifest>,
    /// Released, and not deleted yet.
    pub(super) leftover: Vec<PathBuf>,
    /// What is wrong before the first segment.
    pub(super) before: Vec<LogError>,
    /// Files with a segment's name that are none of this log, and the sequence in the name.
    pub(super) strangers: Vec<(u64, PathBuf)>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) path: PathBuf,
    pub(super) header: SegmentHeader,
    /// What is wrong between its end and the next one. None: the next one is linked to it, or it is the last.
    pub(super) behind: Vec<LogError>,
}

impl Chain {
    /// Reads all headers and the manifest, and checks them (L4). A directory without a log is an empty chain.
    ///
    /// Damage is no error of this: it stands where it is, so that what is not behind it can be read (L12).
    pub(super) fn survey(dir: &Path) -> Result<Self, LogError> {
        let mut chain = Self {
            dir: dir.to_owned(),
            ..Self::default()
        };
        if !dir.is_dir() {
            return Ok(chain);
        }
        let mut bad_manifest = None;
        match Manifest::read(dir) {
            Ok(manifest) => chain.manifest = manifest,
            Err(error) => bad_manifest = Some(error),
        }
        let released = chain.manifest.map_or(0, |manifest| manifest.released);
        for first in list(dir)? {
            let path = segment_path(dir, first);
            if first <= released {
                chain.leftover.push(path);
                continue;
            }
            let problem = match Cursor::open(&path) {
                Ok(cursor) if cursor.header.first_sequence == first => {
                    let header = cursor.header;
                    chain.segments.push(Link {
                        path,
                        header,
                        behind: Vec::new(),
                    });
                    continue;
                }
                Ok(cursor) => LogError::Swapped {
                    path: path.clone(),
                    reason: format!("it begins with sequence {}", cursor.header.first_sequence),
                    first,
                    last: Last::EndOfLog,
                },
                Err(error) => error,
            };
            chain.strangers.push((first, path));
            chain.say(first, problem);
        }
        chain.check_newest();
        chain.check_links()?;
        chain.check_oldest();
        if chain.manifest.is_none() && (bad_manifest.is_some() || !chain.is_new()?) {
            let error = bad_manifest.unwrap_or_else(|| LogError::Manifest {
                path: manifest_path(dir),
                reason: "there is none, and there are segments".to_owned(),
            });
            chain.say(u64::MAX, error);
        } else if chain.manifest.is_none() {
            // The first segment of a log, made just before a crash: nothing was logged yet.
            let only = chain.segments.drain(..).map(|link| link.path);
            chain.leftover.extend(only);
        }
        Ok(chain)
    }

    /// Everything that is wrong, in the order of the log.
    pub(super) fn into_problems(self) -> Vec<LogError> {
        let behind = self.segments.into_iter().flat_map(|link| link.behind);
        self.before.into_iter().chain(behind).collect()
    }

    /// Takes what is wrong before segment number `at`.
    pub(super) fn take_before(&mut self, at: usize) -> Vec<LogError> {
        let mut problems = std::mem::take(&mut self.before);
        for link in self.segments.iter_mut().take(at) {
            problems.append(&mut link.behind);
        }
        problems
    }

    /// The number of the segment that holds a sequence, if none is missing there.
    pub(super) fn holder(&self, sequence: u64) -> Option<usize> {
        let behind = |link: &Link| link.header.first_sequence <= sequence;
        self.segments.partition_point(behind).checked_sub(1)
    }

    /// Notes a problem with what should begin at this sequence.
    fn say(&mut self, first: u64, problem: LogError) {
        let before = self
            .segments
            .iter_mut()
            .rfind(|link| link.header.first_sequence < first);
        match before {
            Some(link) => link.behind.push(problem),
            None => self.before.push(problem),
        }
    }

    /// Takes a segment out that is not what belongs there.
    fn banish(&mut self, at: usize, reason: String, last: Last) {
        if at >= self.segments.len() {
            return;
        }
        let link = self.segments.remove(at);
        let first = link.header.first_sequence;
        self.strangers.push((first, link.path.clone()));
        let path = link.path;
        self.say(
            first,
            LogError::Swapped {
                path,
                reason,
                first,
                last,
            },
        );
        for problem in link.behind {
            self.say(first, problem);
        }
    }

    /// Is the newest segment that of the manifest, or a newer one behind it (M1)?
    fn check_newest(&mut self) {
        let Some(manifest) = self.manifest else {
            return;
        };
        let first = manifest.newest_first;
        let mut segments = self.segments.iter();
        match segments.position(|link| link.header.first_sequence == first) {
            Some(at) => {
                let id = self.segments.get(at).map(|link| link.header.id);
                if let Some(id) = id.filter(|&id| id != manifest.newest) {
                    let newest = manifest.newest;
                    let reason = format!("it is segment {id}, and the manifest names {newest}");
                    self.banish(at, reason, Last::EndOfLog);
                }
            }
            None if !self.strangers.iter().any(|(at, _)| *at == first) => {
                let problem = LogError::Missing {
                    dir: self.dir.clone(),
                    first,
                    last: Last::EndOfLog,
                };
                self.say(first, problem);
            }
            None => {}
        }
    }

    /// Does each segment follow the one before it? Which of two does not belong is told by the manifest, whose segment is
    /// right, and so is every one that is linked to it.
    fn check_links(&mut self) -> Result<(), LogError> {
        let newest = self.manifest.map(|manifest| manifest.newest);
        let is_newest = |link: &Link| Some(link.header.id) == newest;
        let has_newest = self.segments.iter().any(is_newest);
        let mut is_right = !has_newest;
        for at in (1..self.segments.len()).rev() {
            let (Some(a), Some(b)) = (self.segments.get(at - 1), self.segments.get(at)) else {
                continue;
            };
            is_right |= is_newest(b);
            if !a.behind.is_empty() {
                is_right = false;
                continue;
            }
            if b.header.previous == a.header.id {
                continue;
            }
            let reason = format!(
                "segment {} does not follow {}, but {}",
                b.header.id, a.header.id, b.header.previous
            );
            let (first, history) = (b.header.first_sequence, b.header.history);
            let ends = end_of(a)?;
            if ends < first && a.header.history == history {
                let missing = LogError::Missing {
                    dir: self.dir.clone(),
                    first: ends,
                    last: Last::Sequence(first.saturating_sub(1)),
                };
                self.say(first, missing);
                is_right = false;
            } else if is_right {
                self.banish(at - 1, reason, Last::Sequence(first.saturating_sub(1)));
            } else {
                self.banish(at, reason, Last::EndOfLog);
            }
        }
        Ok(())
    }

    /// Does the first segment begin where the manifest says (M2)?
    fn check_oldest(&mut self) {
        let Some(manifest) = self.manifest else {
            return;
        };
        let first = manifest.released.saturating_add(1);
        let oldest = self.segments.first().map(|link| link.header.first_sequence);
        if oldest == Some(first) || !self.before.is_empty() {
            return;
        }
        self.before.push(LogError::Missing {
            dir: self.dir.clone(),
            first,
            last: oldest.map_or(Last::EndOfLog, |oldest| Last::Sequence(oldest - 1)),
        });
    }

    /// No log yet: nothing at all, or a first segment without a record.
    fn is_new(&self) -> Result<bool, LogError> {
        if !self.strangers.is_empty() {
            return Ok(false);
        }
        match self.segments.as_slice() {
            [] => Ok(true),
            [only] => {
                let mut cursor = Cursor::open(&only.path)?;
                let first = only.header.first_sequence;
                Ok(!cursor.advance(first)? && cursor.end(first)? == End::Clean)
            }
            _ => Ok(false),
        }
    }
}

/// The sequence behind a segment's good records.
fn end_of(link: &Link) -> Result<u64, LogError> {
    let mut cursor = Cursor::open(&link.path)?;
    let mut next = link.header.first_sequence;
    while cursor.advance(next)? {
        next += 1;
    }
    Ok(next)
}

/// The end of a log whose last record was being written when the machine or the daemon stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub path: PathBuf,
    /// The sequence that the record would have had. It was never acknowledged.
    pub sequence: u64,
    /// Where it begins in the segment.
    pub offset: u64,
    /// How many bytes of it may be there.
    pub bytes: u64,
}

/// Every record of a chain, in order.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) chain: Chain,
    at: usize,
    cursor: Option<Cursor>,
    /// The sequence of the next record.
    pub(super) next: u64,
    /// The generation of the last one, or what the first segment begins after.
    pub(super) generation: u64,
    pub(super) torn: Option<TornTail>,
    /// L12: damage that ends before this sequence is passed over.
    pub(super) needed: u64,
    /// What was.
    pub(super) passed: Vec<LogError>,
}

/// What a walk comes to.
#[derive(Debug)]
pub(super) enum Step<'w> {
    /// A segment begins: nothing learned before holds.
    Segment,
    /// A record, and the segment it is in.
    Record(Record<'w>, &'w Path),
    /// Records were passed over (L12): what they held for later ones is not known.
    Gap,
    /// No more.
    End,
}

impl Walk {
    /// From the first record of segment number `at` on.
    pub(super) fn new(chain: Chain, at: usize) -> Self {
        let first = chain.segments.get(at).map(|link| &link.header);
        Self {
            next: first.map_or(1, |header| header.first_sequence),
            generation: first.map_or(0, |header| header.base_generation),
            chain,
            at,
            cursor: None,
            torn: None,
            needed: 0,
            passed: Vec::new(),
        }
    }

    /// Where the last record of the last segment begins, and where it ends, once the walk is through.
    pub(super) fn last_record(&self) -> (u64, u64) {
        let cursor = self.cursor.as_ref();
        cursor.map_or((0, 0), |cursor| {
            let begins = cursor
                .record()
                .map_or(cursor.offset, |record| record.offset);
            (begins, cursor.offset)
        })
    }

    /// The next step. After an error there is no next one.
    pub(super) fn step(&mut self) -> Result<Step<'_>, LogError> {
        if self.cursor.is_none() {
            let Some(link) = self.chain.segments.get(self.at) else {
                return Ok(Step::End);
            };
            let cursor = Cursor::open(&link.path)?;
            if cursor.header != link.header {
                return Err(LogError::Swapped {
                    path: link.path.clone(),
                    reason: "it changed while it was read".to_owned(),
                    first: self.next,
                    last: Last::EndOfLog,
                });
            }
            self.cursor = Some(cursor);
            return Ok(Step::Segment);
        }
        let sequence = self.next;
        let more = self.cursor.as_mut().map(|cursor| cursor.advance(sequence));
        if !more.transpose()?.unwrap_or(false) {
            return self.behind();
        }
        let cursor = self.cursor.as_ref();
        let Some((record, cursor)) = cursor.and_then(|cursor| Some((cursor.record()?, cursor)))
        else {
            return Ok(Step::End);
        };
        self.next += 1;
        self.generation = record.header.generation;
        Ok(Step::Record(record, &cursor.path))
    }

    /// The segment's good records are through.
    fn behind(&mut self) -> Result<Step<'_>, LogError> {
        let Some(cursor) = self.cursor.as_mut() else {
            return Ok(Step::End);
        };
        let (path, offset, next) = (cursor.path.clone(), cursor.offset, self.next);
        let damaged = |last| LogError::Damaged {
            path: path.clone(),
            offset,
            first: next,
            last,
            also: Sequences::default(),
        };
        let problem = self
            .chain
            .segments
            .get_mut(self.at)
            .filter(|link| !link.behind.is_empty())
            .map(|link| link.behind.remove(0));
        let after = self.chain.segments.get(self.at + 1);
        let after = after.map(|after| after.header.first_sequence);
        if let (Some(first), None) = (after, &problem)
            && first == next
        {
            self.at += 1;
            self.cursor = None;
            return self.step();
        }
        let (found, expected) = (cursor.len(), cursor.header.bytes);
        let end = cursor.end(next)?;
        if let End::Damaged { next: good, at } = end {
            if good <= self.needed && after.is_none_or(|first| good < first) {
                self.passed.push(damaged(good.saturating_sub(1)));
                cursor.offset = at;
                self.next = good;
                if let (Some(problem), Some(link)) = (problem, self.chain.segments.get_mut(self.at))
                {
                    link.behind.insert(0, problem);
                }
                return Ok(Step::Gap);
            }
            let last = after.map_or(good, |first| good.min(first));
            return Err(damaged(last.saturating_sub(1)));
        }
        if let Some(problem) = problem {
            return Err(problem);
        }
        if let Some(first) = after {
            let error = damaged(first.saturating_sub(1));
            if first > self.needed {
                return Err(error);
            }
            self.passed.push(error);
            self.at += 1;
            self.cursor = None;
            self.next = first;
            return self.step();
        }
        // No crash does that: the space was there, and durable, before the first record (L5).
        if found < expected {
            return Err(LogError::Cut {
                path,
                found,
                expected,
                first: next,
            });
        }
        // L12. Torn by a crash it is not: a checkpoint holds only what was durable.
        if next < self.needed
            && end != End::Clean
            && let Some((behind, generation)) = cursor.end_by_header(next)?
        {
            self.passed.push(damaged(next));
            cursor.offset = behind;
            self.next += 1;
            self.generation = generation;
            return Ok(Step::Gap);
        }
        if let End::Torn { to } = end {
            self.torn = Some(TornTail {
                path,
                sequence: next,
                offset,
                bytes: to - offset,
            });
        }
        Ok(Step::End)
    }
}
