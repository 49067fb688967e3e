//! The segments of a log, in order, and whether they are all there.
//!
//! - **L4** Each segment names the one before it, and begins with the sequence after the last one there. The manifest
//!   names the newest (Y1) and where the oldest begins (Y2). So none can be missing or swapped unnoticed.

use std::path::{Path, PathBuf};

use super::cursor::{Cursor, End, Record};
use super::error::{Last, LogError};
use super::manifest::{Manifest, manifest_path};
use super::segment::{SegmentHeader, list, segment_path};

/// Segments that may be read one after the other.
#[derive(Debug, Default)]
pub(super) struct Chain {
    pub(super) dir: PathBuf,
    /// Oldest first.
    pub(super) segments: Vec<Link>,
    pub(super) manifest: Option<Manifest>,
    /// Released, and not deleted yet.
    pub(super) leftover: Vec<PathBuf>,
}

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) path: PathBuf,
    pub(super) header: SegmentHeader,
}

impl Chain {
    /// Reads all headers and the manifest, and checks them (L4). A directory without a log is an empty chain.
    pub(super) fn load(dir: &Path) -> Result<Self, LogError> {
        let (mut chain, problems) = Self::survey(dir)?;
        if let Some(first) = problems.into_iter().next() {
            return Err(first);
        }
        // The first segment of a log, made just before a crash: nothing was logged yet.
        if chain.manifest.is_none() {
            let Some(link) = chain.segments.pop() else {
                return Ok(chain);
            };
            let mut cursor = Cursor::open(&link.path)?;
            let first = link.header.first_sequence;
            let empty = !cursor.advance(first)? && cursor.end(first)? == End::Clean;
            if !chain.segments.is_empty() || !empty {
                return Err(LogError::Manifest {
                    path: manifest_path(dir),
                    reason: "there is none, and there are segments".to_owned(),
                });
            }
            chain.leftover.push(link.path);
        }
        Ok(chain)
    }

    /// The same, with everything that is wrong.
    pub(super) fn survey(dir: &Path) -> Result<(Self, Vec<LogError>), LogError> {
        let mut problems = Vec::new();
        let mut chain = Self {
            dir: dir.to_owned(),
            ..Self::default()
        };
        if !dir.is_dir() {
            return Ok((chain, problems));
        }
        match Manifest::read(dir) {
            Ok(manifest) => chain.manifest = manifest,
            Err(error) => problems.push(error),
        }
        let released = chain.manifest.map_or(0, |manifest| manifest.released);
        for first in list(dir)? {
            let path = segment_path(dir, first);
            if first <= released {
                chain.leftover.push(path);
                continue;
            }
            match Cursor::open(&path) {
                Ok(cursor) => {
                    let header = cursor.header.clone();
                    if header.first_sequence != first {
                        problems.push(LogError::Swapped {
                            path,
                            reason: format!("it begins with sequence {}", header.first_sequence),
                            first,
                            last: Last::EndOfLog,
                        });
                    } else {
                        chain.segments.push(Link { path, header });
                    }
                }
                Err(error) => problems.push(error),
            }
        }
        chain.check(&mut problems);
        Ok((chain, problems))
    }

    fn check(&self, problems: &mut Vec<LogError>) {
        for pair in self.segments.windows(2) {
            let [before, after] = pair else { continue };
            if after.header.previous != before.header.id {
                problems.push(LogError::Swapped {
                    path: before.path.clone(),
                    reason: format!(
                        "it is segment {}, and the one after it follows {}",
                        before.header.id, after.header.previous
                    ),
                    first: before.header.first_sequence,
                    last: Last::Sequence(after.header.first_sequence - 1),
                });
            }
        }
        let Some(manifest) = self.manifest else {
            return;
        };
        let oldest = self.segments.first().map(|link| link.header.first_sequence);
        match oldest {
            Some(oldest) if oldest == manifest.released.saturating_add(1) => {}
            Some(oldest) => problems.push(LogError::Missing {
                dir: self.dir.clone(),
                first: manifest.released.saturating_add(1),
                last: Last::Sequence(oldest - 1),
            }),
            None => problems.push(LogError::Missing {
                dir: self.dir.clone(),
                first: manifest.released.saturating_add(1),
                last: Last::EndOfLog,
            }),
        }
        let at_name = self
            .segments
            .iter()
            .find(|link| link.header.first_sequence == manifest.newest_first);
        match at_name {
            Some(link) if link.header.id == manifest.newest => {}
            Some(link) => problems.push(LogError::Swapped {
                path: link.path.clone(),
                reason: format!(
                    "it is segment {}, and the manifest names {}",
                    link.header.id, manifest.newest
                ),
                first: manifest.newest_first,
                last: Last::EndOfLog,
            }),
            None if oldest.is_some() => problems.push(LogError::Missing {
                dir: self.dir.clone(),
                first: manifest.newest_first,
                last: Last::EndOfLog,
            }),
            None => {}
        }
    }
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
}

/// What a walk comes to.
#[derive(Debug)]
pub(super) enum Step<'w> {
    /// A segment begins: nothing learned before holds.
    Segment,
    /// A record, and the segment it is in.
    Record(Record<'w>, &'w Path),
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
        let (path, offset) = (cursor.path.clone(), cursor.offset);
        let damaged = |last| LogError::Damaged {
            path: path.clone(),
            offset,
            first: self.next,
            last,
        };
        if let Some(after) = self.chain.segments.get(self.at + 1) {
            let first = after.header.first_sequence;
            if first != self.next {
                let last = match cursor.end(self.next)? {
                    End::Damaged { next } => next.min(first).saturating_sub(1),
                    _ => first.saturating_sub(1),
                };
                return Err(damaged(last));
            }
            self.at += 1;
            self.cursor = None;
            return self.step();
        }
        let (found, expected) = (cursor.len(), cursor.header.bytes);
        match cursor.end(self.next)? {
            End::Damaged { next } => Err(damaged(next.saturating_sub(1))),
            // No crash does that: the space was there, and durable, before the first record (L5).
            _ if found < expected => Err(LogError::Cut {
                path,
                found,
                expected,
                first: self.next,
            }),
            End::Clean => Ok(Step::End),
            End::Torn { to } => {
                self.torn = Some(TornTail {
                    path,
                    sequence: self.next,
                    offset,
                    bytes: to - offset,
                });
                Ok(Step::End)
            }
        }
    }
}
