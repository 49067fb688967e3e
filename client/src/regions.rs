//! The regions that one snapshot lives in, each leased or copied.

use std::path::Path;
use std::sync::Arc;

use arrow_buffer::Buffer;
use sherwood_shared::file::SnapshotFile;
use sherwood_shared::footer::{TRAILER_BYTES, footer_bytes};
use sherwood_shared::mapping::Region;

use crate::error::{Damage, ReadError};

/// The regions of one snapshot, by number. Holding it holds every lease (R4).
#[derive(Debug, Default)]
pub(crate) struct Regions {
    /// `None` for a snapshot on the heap, which has no regions.
    file: Option<Arc<SnapshotFile>>,
    numbers: Vec<u32>,
    held: Vec<Arc<Region>>,
}

impl Regions {
    /// `numbers` ascend, and `held` are those regions.
    pub(crate) fn new(file: Arc<SnapshotFile>, numbers: Vec<u32>, held: Vec<Arc<Region>>) -> Self {
        Self {
            file: Some(file),
            numbers,
            held,
        }
    }

    /// Ascending.
    pub(crate) fn numbers(&self) -> &[u32] {
        &self.numbers
    }

    pub(crate) fn file(&self) -> Option<&Arc<SnapshotFile>> {
        self.file.as_ref()
    }

    /// The region that wholly holds `[start, end)` (W3).
    pub(crate) fn region_of(
        &self,
        start: u64,
        end: u64,
        what: &'static str,
    ) -> Result<&Arc<Region>, ReadError> {
        self.locate(start, end, what).map(|(region, _)| region)
    }

    /// `[start, end)` of the file, not copied.
    pub(crate) fn buffer(
        &self,
        start: u64,
        end: u64,
        what: &'static str,
    ) -> Result<Buffer, ReadError> {
        let (region, at) = self.locate(start, end, what)?;
        let len = usize::try_from(end - start).unwrap_or(usize::MAX);
        region
            .buffer(at..at.saturating_add(len))
            .ok_or_else(|| self.damaged(start, Damage::OutOfBounds { what }))
    }

    /// The footer that ends at `end`, trailer included.
    pub(crate) fn footer(&self, end: u64) -> Result<Buffer, ReadError> {
        let what = "a footer";
        let trailer = self.buffer(end.saturating_sub(TRAILER_BYTES as u64), end, what)?;
        let trailer: [u8; TRAILER_BYTES] = trailer
            .as_slice()
            .try_into()
            .map_err(|_| self.damaged(end, Damage::OutOfBounds { what }))?;
        let bytes =
            footer_bytes(&trailer).map_err(|source| self.damaged(end, Damage::Footer(source)))?;
        self.buffer(end.saturating_sub(bytes as u64), end, what)
    }

    /// An error about what begins at byte `at`.
    pub(crate) fn damaged(&self, at: u64, source: Damage) -> ReadError {
        let path = self
            .file
            .as_ref()
            .map_or(Path::new("(on the heap)"), |file| file.path());
        ReadError::Damaged {
            path: path.to_owned(),
            at,
            source,
        }
    }

    fn locate(
        &self,
        start: u64,
        end: u64,
        what: &'static str,
    ) -> Result<(&Arc<Region>, usize), ReadError> {
        let found = self.file.as_ref().and_then(|file| {
            let number = file.constants().region_of_range(start, end)?;
            let place = self.numbers.binary_search(&number).ok()?;
            let at = start - file.constants().region_start(number);
            Some((self.held.get(place)?, usize::try_from(at).ok()?))
        });
        found.ok_or_else(|| self.damaged(start, Damage::OutOfBounds { what }))
    }
}
