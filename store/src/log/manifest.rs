//! The manifest: which segment is the newest and which were released, so that a deleted one is missed.
//!
//! `manifest`, two slots of 4096 bytes, written in turn and synced in place: no space is needed after the first time, and a
//! write that is torn leaves the other slot. Bytes: docs/format.md, section 11.
//!
//! - **Y1** Before the first record of a segment is written, the manifest names the segment.
//! - **Y2** Before a released segment is deleted, the manifest says that it may be gone.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::disk::{Disk, DiskFile, write_all};
use super::error::LogError;
use super::record::{id_at, u32_at, u64_at};
use super::segment::{SegmentId, open_to_read};

const SLOT: usize = 4096;
const SLOT_USED: usize = 64;
const MAGIC: [u8; 8] = *b"SHWDMAN\0";
const VERSION: u32 = 1;
const NAME: &str = "manifest";

/// What the manifest says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    /// Goes up with every write.
    counter: u64,
    /// The newest segment, unless one without records is newer (Y1).
    pub(super) newest: SegmentId,
    /// Its first sequence.
    pub(super) newest_first: u64,
    /// Segments whose first sequence is not above this were released (Y2), and the next one begins right after it.
    pub(super) released: u64,
}

impl Manifest {
    fn to_slot(self) -> [u8; SLOT_USED] {
        let mut out = [0; SLOT_USED];
        out[0..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[16..24].copy_from_slice(&self.counter.to_le_bytes());
        out[24..40].copy_from_slice(&self.newest.0);
        out[40..48].copy_from_slice(&self.newest_first.to_le_bytes());
        out[48..56].copy_from_slice(&self.released.to_le_bytes());
        let sum = crc32c::crc32c(&out);
        out[12..16].copy_from_slice(&sum.to_le_bytes());
        out
    }

    pub(super) fn parse(slot: &[u8]) -> Option<Self> {
        let slot: &[u8; SLOT_USED] = slot.first_chunk()?;
        let mut zeroed = *slot;
        zeroed[12..16].fill(0);
        let good = slot[0..8] == MAGIC
            && u32_at(slot, 8) == VERSION
            && u32_at(slot, 12) == crc32c::crc32c(&zeroed);
        good.then(|| Self {
            counter: u64_at(slot, 16),
            newest: SegmentId(id_at(slot, 24)),
            newest_first: u64_at(slot, 40),
            released: u64_at(slot, 48),
        })
    }

    /// Reads it; `None` if there is no file.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, LogError> {
        let path = dir.join(NAME);
        let mut bytes = Vec::new();
        let read =
            open_to_read(&path).and_then(|file| file.take(2 * SLOT as u64).read_to_end(&mut bytes));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(LogError::Io {
                    doing: "read",
                    path,
                    source,
                });
            }
            Ok(_) => {}
        }
        let slots = [0, SLOT].map(|at| bytes.get(at..).and_then(Self::parse));
        let newest = slots.into_iter().flatten().max_by_key(|slot| slot.counter);
        newest.map(Some).ok_or(LogError::Manifest {
            path,
            reason: "both copies in it are damaged".to_owned(),
        })
    }
}

/// The manifest, open for writing.
#[derive(Debug)]
pub(super) struct ManifestFile {
    file: Box<dyn DiskFile>,
    now: Manifest,
}

impl ManifestFile {
    /// Makes it, durably.
    pub(super) fn create(
        disk: &dyn Disk,
        dir: &Path,
        newest: SegmentId,
        newest_first: u64,
    ) -> io::Result<Self> {
        let now = Manifest {
            counter: 2,
            newest,
            newest_first,
            released: newest_first - 1,
        };
        let mut bytes = vec![0; 2 * SLOT];
        for (at, counter) in [(0, 2), (SLOT, 1)] {
            let slot = Manifest { counter, ..now }.to_slot();
            bytes[at..at + SLOT_USED].copy_from_slice(&slot);
        }
        let path = dir.join(NAME);
        super::write_whole(disk, dir, &path, &bytes)?;
        let file = disk.open(&path)?;
        Ok(Self { file, now })
    }

    /// Opens the one that was read.
    pub(super) fn open(disk: &dyn Disk, dir: &Path, now: Manifest) -> io::Result<Self> {
        let file = disk.open(&dir.join(NAME))?;
        Ok(Self { file, now })
    }

    /// Says something else, durably, in the other slot. After an error it may say either.
    pub(super) fn write(&mut self, change: impl FnOnce(&mut Manifest)) -> io::Result<()> {
        let mut next = self.now;
        change(&mut next);
        next.counter += 1;
        let at = (next.counter % 2) * SLOT as u64;
        // If this fails, the next call writes the same slot again: the other one stays good.
        write_all(&*self.file, &next.to_slot(), at).map_err(|(_, error)| error)?;
        self.file.fdatasync()?;
        self.now = next;
        Ok(())
    }
}

/// Its path, for messages.
pub(super) fn manifest_path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}
