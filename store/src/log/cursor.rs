//! Reading the records of one segment, one after the other.
//!
//! - **L3** Records are read in order from the first on; where the next one should begin and no good one does, the
//!   segment is looked through to its end before anyone concludes that it ends there ([`Cursor::end`]).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::error::LogError;
use super::record::{RECORD_ALIGN, RECORD_HEADER, RecordHeader};
use super::segment::{SEGMENT_HEADER, SegmentHeader, open_to_read, read_header};

/// Bytes that are read at once.
const CHUNK: usize = 512 << 10;

/// A segment, open for reading, and a place in it.
#[derive(Debug)]
pub(super) struct Cursor {
    file: File,
    pub(super) path: PathBuf,
    pub(super) header: SegmentHeader,
    /// Where the next record begins.
    pub(super) offset: u64,
    len: u64,
    /// The record that was found last, and where.
    found: Option<(RecordHeader, u64)>,
    buffer: Vec<u8>,
    /// Where the buffer begins in the file.
    buffer_at: u64,
}

/// A good record.
#[derive(Debug)]
pub(super) struct Record<'c> {
    pub(super) header: RecordHeader,
    /// Where it begins.
    pub(super) offset: u64,
    pub(super) payload: &'c [u8],
}

/// What stands behind the last good record of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Zeros.
    Clean,
    /// Part of a record that was never acknowledged; nothing but zeros from `to` on.
    Torn { to: u64 },
    /// A good header of a later sequence: what should be before it is damaged.
    Damaged {
        next: u64,
        /// Where that stands.
        at: u64,
    },
}

impl Cursor {
    pub(super) fn open(path: &Path) -> Result<Self, LogError> {
        let io = |source| LogError::Io {
            doing: "open",
            path: path.to_owned(),
            source,
        };
        let file = open_to_read(path).map_err(io)?;
        let header = read_header(path, &file)?;
        let len = file.metadata().map_err(io)?.len();
        Ok(Self {
            file,
            path: path.to_owned(),
            header,
            offset: SEGMENT_HEADER as u64,
            len,
            found: None,
            buffer: Vec::new(),
            buffer_at: 0,
        })
    }

    /// Length of the file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Forgets what was read ahead: the file may have more by now.
    pub(super) fn reread(&mut self) {
        self.buffer.clear();
    }

    /// Does a good record of this sequence begin here? Then it is [`record`](Self::record), and the next begins behind it.
    pub(super) fn advance(&mut self, sequence: u64) -> Result<bool, LogError> {
        let offset = self.offset;
        let Some(header) = self.header_at(offset)? else {
            return Ok(false);
        };
        if header.sequence != sequence || header.bytes > self.len.saturating_sub(offset) {
            return Ok(false);
        }
        let Ok(bytes) = usize::try_from(header.bytes) else {
            return Ok(false);
        };
        self.fill(offset, bytes)?;
        let whole = self.buffered(offset, bytes);
        let good = whole.len() == bytes
            && whole
                .get(RECORD_HEADER..)
                .is_some_and(|payload| crc32c::crc32c(payload) == header.payload_sum);
        if good {
            self.found = Some((header, offset));
            self.offset = offset + header.bytes;
        }
        Ok(good)
    }

    /// The record that [`advance`](Self::advance) found last.
    pub(super) fn record(&self) -> Option<Record<'_>> {
        let (header, offset) = self.found?;
        let bytes = usize::try_from(header.bytes).ok()?;
        Some(Record {
            header,
            offset,
            payload: self.buffered(offset, bytes).get(RECORD_HEADER..)?,
        })
    }

    /// What stands from here on, where the record of `sequence` should begin and no good one does (L3).
    pub(super) fn end(&mut self, sequence: u64) -> Result<End, LogError> {
        let (mut at, mut used) = (self.offset, self.offset);
        while at < self.len {
            let step = usize::try_from(self.len - at).unwrap_or(CHUNK).min(CHUNK);
            self.fill(at, step)?;
            let blocks = self.buffered(at, step);
            if blocks.is_empty() {
                break;
            }
            for (block, begins) in blocks.chunks(64).zip((at..).step_by(64)) {
                if block.iter().all(|&byte| byte == 0) {
                    continue;
                }
                used = begins + block.len() as u64;
                let header = RecordHeader::parse(block, self.header.id);
                if let Some(header) = header.filter(|header| header.sequence > sequence) {
                    return Ok(End::Damaged {
                        next: header.sequence,
                        at: begins,
                    });
                }
            }
            at += blocks.len() as u64;
        }
        Ok(if used == self.offset {
            End::Clean
        } else {
            End::Torn { to: used }
        })
    }

    /// Where the record of `sequence` ends that begins here, by a good header whatever its payload is.
    pub(super) fn end_by_header(&mut self, sequence: u64) -> Result<Option<(u64, u64)>, LogError> {
        let (offset, left) = (self.offset, self.len.saturating_sub(self.offset));
        let header = self.header_at(offset)?;
        let header = header.filter(|header| header.sequence == sequence && header.bytes <= left);
        Ok(header.map(|header| (offset + header.bytes, header.generation)))
    }

    fn header_at(&mut self, offset: u64) -> Result<Option<RecordHeader>, LogError> {
        if !offset.is_multiple_of(RECORD_ALIGN)
            || self.len.saturating_sub(offset) < RECORD_HEADER as u64
        {
            return Ok(None);
        }
        self.fill(offset, RECORD_HEADER)?;
        let bytes = self.buffered(offset, RECORD_HEADER);
        Ok(RecordHeader::parse(bytes, self.header.id))
    }

    /// The bytes that were [filled](Self::fill), or fewer at the end of the file.
    fn buffered(&self, offset: u64, len: usize) -> &[u8] {
        let skip = usize::try_from(offset.saturating_sub(self.buffer_at)).unwrap_or(usize::MAX);
        let rest = self.buffer.get(skip..).unwrap_or(&[]);
        rest.get(..len).unwrap_or(rest)
    }

    fn fill(&mut self, offset: u64, len: usize) -> Result<(), LogError> {
        if offset >= self.buffer_at && self.buffered(offset, len).len() == len {
            return Ok(());
        }
        let io = |source| LogError::Io {
            doing: "read",
            path: self.path.clone(),
            source,
        };
        let ahead = usize::try_from(self.len - offset)
            .unwrap_or(usize::MAX)
            .min(CHUNK);
        let want = len.max(ahead);
        self.buffer.clear();
        // What is longer than anything before was only claimed by a checksum, and memory may lack it.
        let room = self.buffer.try_reserve_exact(want);
        room.map_err(|error| io(io::Error::new(io::ErrorKind::OutOfMemory, error)))?;
        self.buffer.resize(want, 0);
        self.buffer_at = offset;
        let mut filled = 0;
        while let Some(rest) = self
            .buffer
            .get_mut(filled..)
            .filter(|rest| !rest.is_empty())
        {
            match self.file.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.buffer.clear();
                    return Err(io(error));
                }
            }
        }
        self.buffer.truncate(filled);
        Ok(())
    }
}
