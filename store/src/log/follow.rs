//! Following a log that is appended to and released meanwhile: for watchers.
//!
//! Beside the daemon's engine, with files of its own: nothing there knows of a follower, and none holds anything up.
//!
//! - **L10** A follower gives every entry with effects whose generation is above the one it began after, once and in order;
//!   or [`FollowError::Gone`], never a gap. It reads no entry that was not announced as durable.
//!   It does not walk from one history into another (L13).
//! - **L11** The file under a follower may be released and filled with zeros. That no record of it is taken for another is
//!   L1; that one is missing is seen as such, and then its name tells whether it was released.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::cursor::Cursor;
use super::error::{Last, LogError, Sequences};
use super::payload::Decoder;
use super::read::undecodable;
use super::segment::{SegmentHeader, list, segment_path};
use crate::entry::Entry;

/// Reads a log while it grows (L10, L11).
#[derive(Debug)]
pub struct Follower {
    dir: PathBuf,
    after: u64,
    cursor: Cursor,
    decoder: Decoder,
    next: u64,
}

/// Why a follower cannot go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FollowError {
    /// Entries that it needs were released. Read the state, of generation `oldest` or above, and follow from there.
    #[error(
        "gone: the log remembers changes after generation {oldest}; read the state anew and go on from its generation"
    )]
    Gone {
        /// Who has seen this generation lacks nothing.
        oldest: u64,
    },
    /// The log is damaged or cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl Follower {
    /// Begins after `generation`: that of the state which the watcher has.
    ///
    /// # Errors
    ///
    /// [`FollowError::Gone`] if changes after it were released.
    pub fn open(dir: &Path, generation: u64) -> Result<Self, FollowError> {
        // Segments go while they are looked at: a few turns are enough, since one always stays.
        for _turn in 0..8 {
            let mut oldest = None;
            let mut history = None;
            for first in list(dir)?.into_iter().rev() {
                let found = open_segment(dir, first)?;
                if let Some(cursor) = &found {
                    // L13: generations of another history are other states.
                    if *history.get_or_insert(cursor.header.history) != cursor.header.history {
                        break;
                    }
                }
                match found {
                    Some(cursor) if cursor.header.base_generation <= generation => {
                        return Ok(Self {
                            dir: dir.to_owned(),
                            after: generation,
                            next: first,
                            cursor,
                            decoder: Decoder::default(),
                        });
                    }
                    Some(cursor) => oldest = Some(cursor.header.base_generation),
                    None => {}
                }
            }
            if let Some(oldest) = oldest {
                return Err(FollowError::Gone { oldest });
            }
        }
        Err(FollowError::Log(LogError::Missing {
            dir: dir.to_owned(),
            first: 1,
            last: Last::EndOfLog,
        }))
    }

    /// The next entry with effects whose sequence is at most `durable`, which the engine announced; `None`: not yet.
    /// (Entries whose outcomes alone count change nothing, and are left out.)
    ///
    /// # Errors
    ///
    /// After an error, open a new follower, or give up.
    pub fn next(&mut self, durable: u64) -> Result<Option<Entry>, FollowError> {
        while self.next <= durable {
            if !self.advance()? {
                self.next_segment()?;
                continue;
            }
            self.next += 1;
            let Some(record) = self.cursor.record() else {
                continue;
            };
            let path = &self.cursor.path;
            if record.header.generation <= self.after {
                let learnt = self.decoder.skip(record.payload);
                learnt.map_err(|malformed| undecodable(path, &record, malformed))?;
                continue;
            }
            let entry = self.decoder.entry(&record.header, record.payload);
            let entry = entry.map_err(|malformed| undecodable(path, &record, malformed))?;
            if !entry.effects.is_empty() {
                self.after = entry.generation;
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// The sequence of the entry that is looked for next.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    fn advance(&mut self) -> Result<bool, FollowError> {
        if self.cursor.advance(self.next)? {
            return Ok(true);
        }
        // What was read ahead may be older than the record.
        self.cursor.reread();
        Ok(self.cursor.advance(self.next)?)
    }

    /// The record is durable and not where the segment goes on: it begins the next one, or is gone, or the log is damaged.
    fn next_segment(&mut self) -> Result<(), FollowError> {
        if let Some(cursor) = open_segment(&self.dir, self.next)?
            && cursor.header.id != self.cursor.header.id
        {
            if cursor.header.history != self.cursor.header.history {
                return Err(FollowError::Gone {
                    oldest: cursor.header.base_generation,
                });
            }
            self.cursor = cursor;
            self.decoder = Decoder::default();
            return Ok(());
        }
        let SegmentHeader {
            id, first_sequence, ..
        } = self.cursor.header;
        let still_there = open_segment(&self.dir, first_sequence)?;
        if still_there.is_some_and(|cursor| cursor.header.id == id) {
            return Err(FollowError::Log(LogError::Damaged {
                path: self.cursor.path.clone(),
                offset: self.cursor.offset,
                first: self.next,
                last: self.next,
                also: Sequences::default(),
            }));
        }
        let again = Self::open(&self.dir, self.after)?;
        if again.next > self.next {
            // Entries without effects may be all that went; what is left begins behind what was seen.
            return Err(FollowError::Gone {
                oldest: again.cursor.header.base_generation,
            });
        }
        *self = again;
        Ok(())
    }
}

/// The segment that begins with this sequence, if it is there.
fn open_segment(dir: &Path, first: u64) -> Result<Option<Cursor>, LogError> {
    match Cursor::open(&segment_path(dir, first)) {
        Ok(cursor) => Ok(Some(cursor)),
        Err(LogError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
