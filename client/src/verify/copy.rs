//! A snapshot file as verification reads it: every range a copy of its own.
//!
//! A live daemon goes on publishing meanwhile, and reuses regions that the generation at hand
//! does not need. Where leases work they are taken, by R2, and the generation stays; elsewhere
//! W7 tells afterwards whether it did.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use arrow_buffer::{Buffer, MutableBuffer};
use sherwood_shared::file::{FileId, SnapshotFile};
use sherwood_shared::head::rule::{HeadWord, copied_intact};
use sherwood_shared::layout::{HEAD_AT, HEADER_BYTES, INTACT_FROM_AT};
use sherwood_shared::mapping::Region;
use sherwood_shared::root::{Root, RootError};

use super::{VerifyError, open, unreadable};

/// Turns of the R2 loop before we go on without leases.
const TURNS: usize = 64;

/// An open file, and what keeps it from changing.
#[derive(Debug)]
pub(super) struct Copy {
    path: PathBuf,
    file: File,
    len: u64,
    /// Held, never read through.
    _leases: BTreeMap<u32, Arc<Region>>,
    leased: Option<HeadWord>,
}

impl Copy {
    /// Opens the file, and leases the newest generation's regions where that works.
    pub(super) fn open(path: &Path) -> Result<Self, VerifyError> {
        let (file, len) = open(path)?;
        let mut copy = Self {
            path: path.to_owned(),
            file,
            len,
            _leases: BTreeMap::new(),
            leased: None,
        };
        if let Some((head, leases)) = copy.lease()? {
            copy._leases = leases;
            copy.leased = Some(head);
        }
        Ok(copy)
    }

    /// Bytes of the file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The bytes `[start, end)`; `None` outside the file.
    pub(super) fn read(&self, start: u64, end: u64) -> Result<Option<Buffer>, VerifyError> {
        let bytes = end.checked_sub(start).filter(|_| end <= self.len);
        let Some(bytes) = bytes.and_then(|bytes| usize::try_from(bytes).ok()) else {
            return Ok(None);
        };
        let mut buffer = MutableBuffer::from_len_zeroed(bytes);
        self.file
            .read_exact_at(buffer.as_slice_mut(), start)
            .map_err(|source| unreadable(&self.path, source))?;
        Ok(Some(buffer.into()))
    }

    /// The head to check: the leased one, else the one in `page`.
    pub(super) fn head(&self, page: &[u8]) -> HeadWord {
        self.leased
            .unwrap_or_else(|| HeadWord::from_raw(word(page, HEAD_AT)))
    }

    /// The root record that begins at `end`, and its bytes; `None`: outside its region or
    /// the file.
    pub(super) fn record(&self, end: u64, region_end: u64) -> Result<Option<Record>, VerifyError> {
        let limit = region_end.min(self.len);
        let Some(start) = self.read(end, end.saturating_add(8))? else {
            return Ok(None);
        };
        // Its magic, then its length; what they say is judged by the parser.
        let bytes = start.get(4..8).and_then(|bytes| bytes.try_into().ok());
        let bytes = u64::from(bytes.map_or(0, u32::from_le_bytes)).max(8);
        let Some(stop) = end.checked_add(bytes) else {
            return Ok(None);
        };
        let record = self.read(end, stop.min(limit))?;
        Ok(record.map(|record| (Root::parse(&record), bytes)))
    }

    /// Whether all that was read since the header `page` is of one generation, that of
    /// `root` (W7).
    pub(super) fn is_intact(&self, page: &[u8], root: Option<u64>) -> Result<bool, VerifyError> {
        if self.leased.is_some() {
            return Ok(true);
        }
        // ORDER intact: as in `copied_intact`; the reads stay above this line.
        fence(Ordering::Acquire);
        let Some(now) = self.read(0, HEADER_BYTES as u64)? else {
            return Ok(true);
        };
        if word(&now, HEAD_AT) == word(page, HEAD_AT)
            && word(&now, INTACT_FROM_AT) == word(page, INTACT_FROM_AT)
        {
            return Ok(true);
        }
        let intact_from = AtomicU64::new(word(&now, INTACT_FROM_AT));
        let seen = self.head(page);
        Ok(root.is_some_and(|generation| copied_intact(&intact_from, seen, generation)))
    }

    /// R2, with reads in place of mappings. `None`: there is no live daemon, the file is not
    /// one to lease from, or it changes too fast.
    fn lease(&mut self) -> Result<Option<Leased>, VerifyError> {
        let Ok(file) = SnapshotFile::open(&self.path) else {
            return Ok(None);
        };
        let same = self.file.metadata().map(|found| FileId::from(&found));
        if same.ok() != Some(file.id()) || !file.has_writer().unwrap_or(false) {
            return Ok(None);
        }
        let constants = file.constants();
        let mut leases = BTreeMap::new();
        for _ in 0..TURNS {
            let head = file.header().observe();
            let Some(number) = head
                .end_bytes()
                .checked_sub(1)
                .and_then(|last| constants.region_of(last))
            else {
                return Ok(None);
            };
            let mut regions = vec![number];
            if leases.contains_key(&number) {
                let region_end = constants.region_start(number) + constants.region_bytes;
                // The file may have grown since it was opened.
                self.len = file.len().unwrap_or(self.len);
                match self.record(head.end_bytes(), region_end)? {
                    Some((Ok(root), _)) => regions.extend(root.regions),
                    // Damaged, which is for the check to find.
                    _ => return Ok(None),
                }
            }
            let mut missing = false;
            for number in regions {
                if leases.contains_key(&number) {
                    continue;
                }
                missing = true;
                match file.lease(number) {
                    Ok(Some(region)) => drop(leases.insert(number, region)),
                    Ok(None) => {}
                    Err(_) => return Ok(None),
                }
            }
            if !missing {
                return Ok(Some((head, leases)));
            }
        }
        Ok(None)
    }
}

/// A root record, or why it is none, and how many bytes it says it has.
type Record = (Result<Root, RootError>, u64);
/// The head, and leases on every region that it leads to.
type Leased = (HeadWord, BTreeMap<u32, Arc<Region>>);

/// A little-endian word of the header's page.
pub(super) fn word(page: &[u8], at: usize) -> u64 {
    let bytes = page.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u64::from_le_bytes)
}
