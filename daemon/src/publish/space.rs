//! The regions of the file: which bytes may be written, and when a region may be used again.
//!
//! A region is *free*, then *open* (one of the [`Stream`]s appends to it), then *sealed*
//! with what of it is live, then *dropped* by the first generation that uses nothing of
//! it (W5), and free again once a probe finds no lease on it (W6). Writes go into
//! the unpublished tail of an open region alone (W3), so a publish that fails takes them
//! back by moving the tail ([`Space::begin`], [`Space::undo`]).

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{FallocateFlags, fallocate};
use sherwood_shared::head::rule::END_LIMIT;
use sherwood_shared::layout::{Constants, align_up};
use sherwood_shared::lock;
use sherwood_shared::mapping::{HeaderMut, Loans, RegionMut};
use sherwood_shared::pause;

use super::error::PublishError;

/// What kinds of bytes are kept in regions of their own (F7): they die at different rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// Chunks whose rows changed.
    Fresh = 0,
    /// Chunks that cleaning moved: they have proven to live long.
    Moved = 1,
    /// Indexes, footers and roots: short-lived.
    Meta = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// May be opened. With the generation that dropped it, if it was ever used.
    Free(Option<u64>),
    Open,
    Sealed,
    /// By this generation; a reader may still hold it.
    Dropped(u64),
}

#[derive(Clone, Copy, Debug)]
struct Region {
    status: Status,
    /// Which kind of bytes it was last opened for.
    stream: Stream,
    /// Bytes of it that the newest generation uses, roots not counted.
    live: u64,
    /// First byte that was never written since it was opened.
    tail: u64,
}

impl Region {
    /// Allocated and never used.
    const NEW: Self = Self {
        status: Status::Free(None),
        stream: Stream::Fresh,
        live: 0,
        tail: 0,
    };
}

/// Topmost regions that chunks never take: one that footers are written to, one to go
/// on in. With fewer a file that cannot grow could have free regions and yet no place for
/// a footer above its chunks.
const KEPT_FOR_META: usize = 2;

/// The file's regions and how they are used.
#[derive(Debug)]
pub(super) struct Space {
    file: File,
    path: PathBuf,
    constants: Constants,
    header: Arc<HeaderMut>,
    regions: Vec<Region>,
    maps: Vec<RegionMut>,
    /// For our own view.
    loans: Loans,
    open: [Option<u32>; 3],
    undo: Option<Undo>,
    /// What fails on purpose.
    #[cfg(test)]
    pub(super) fault: std::cell::Cell<Option<Fault>>,
}

/// Lets the n-th step from now on fail, once or for good.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) after: usize,
    pub(super) errno: i32,
    pub(super) for_good: bool,
}

#[derive(Debug)]
struct Undo {
    regions: Vec<Region>,
    open: [Option<u32>; 3],
}

impl Space {
    /// No regions yet. `file` is this process's alone (W1, W8).
    pub(super) fn new(
        file: File,
        path: PathBuf,
        constants: Constants,
        header: Arc<HeaderMut>,
    ) -> Self {
        Self {
            file,
            path,
            constants,
            header,
            regions: Vec::new(),
            maps: Vec::new(),
            loans: Loans::default(),
            open: [None; 3],
            undo: None,
            #[cfg(test)]
            fault: std::cell::Cell::new(None),
        }
    }

    /// A step that can fail: in tests each of them does, once.
    #[cfg(test)]
    fn step(&self, action: &'static str) -> Result<(), PublishError> {
        let Some(mut fault) = self.fault.get() else {
            return Ok(());
        };
        let fails = fault.after == 0;
        fault.after = fault.after.saturating_sub(1);
        self.fault.set((!fails || fault.for_good).then_some(fault));
        if !fails {
            return Ok(());
        }
        let source = io::Error::from_raw_os_error(fault.errno);
        Err(PublishError::io(action, &self.path, 0, source))
    }

    #[cfg(not(test))]
    #[expect(
        clippy::unnecessary_wraps,
        clippy::unused_self,
        reason = "fails in tests alone"
    )]
    fn step(&self, _action: &'static str) -> Result<(), PublishError> {
        Ok(())
    }

    pub(super) fn constants(&self) -> &Constants {
        &self.constants
    }

    pub(super) fn header(&self) -> &Arc<HeaderMut> {
        &self.header
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its regions, for our own view of the file.
    pub(super) fn loans(&self) -> Loans {
        self.loans.clone()
    }

    /// Remembers where everything stands, for [`undo`](Self::undo).
    pub(super) fn begin(&mut self) {
        self.undo = Some(Undo {
            regions: self.regions.clone(),
            open: self.open,
        });
    }

    /// Takes back every write and every count since [`begin`](Self::begin). Regions that
    /// were added since stay, free.
    pub(super) fn undo(&mut self) {
        let Some(undo) = self.undo.take() else { return };
        let added = self
            .regions
            .split_off(undo.regions.len().min(self.regions.len()));
        self.regions = undo.regions;
        self.regions.extend(added.iter().map(|_| Region::NEW));
        self.open = undo.open;
    }

    /// W5: after the store of the head. What is sealed and has nothing live was dropped
    /// by `generation`.
    pub(super) fn committed(&mut self, generation: u64, root_region: u32) {
        self.undo = None;
        for (number, region) in self.regions.iter_mut().enumerate() {
            let is_root = u32::try_from(number) == Ok(root_region);
            if region.status == Status::Sealed && region.live == 0 && !is_root {
                region.status = Status::Dropped(generation);
            }
        }
    }

    /// W2: makes sure that each stream can append its bytes, in blocks of at most
    /// `largest`. Nothing is written if it fails.
    pub(super) fn reserve(&mut self, bytes: [u64; 3], largest: u64) -> Result<(), PublishError> {
        let size = self.constants.region_bytes;
        let mut needed = 0;
        for (open, &bytes) in self.open.iter().zip(&bytes) {
            let room = open.map_or(0, |open| size - self.region(open).tail);
            if bytes > room {
                // A block that does not fit leaves a gap, smaller than the largest block.
                let usable = size.saturating_sub(largest.saturating_sub(1)).max(size / 2);
                needed += (bytes - room.saturating_sub(largest)).div_ceil(usable);
            }
        }
        if needed > 0 {
            needed += KEPT_FOR_META as u64;
        }
        if needed > self.free() {
            self.reclaim();
        }
        while self.free() < needed {
            self.grow(size * (needed - self.free()))?;
        }
        Ok(())
    }

    /// Off the hot path: probes what was dropped and keeps `spare` regions free.
    pub(super) fn housekeep(&mut self, spare: u64) -> Result<(), PublishError> {
        if self.free() < spare || !self.has_room_above_chunks() {
            self.reclaim();
        }
        while self.free() < spare || !self.has_room_above_chunks() {
            self.grow(self.constants.region_bytes)?;
        }
        Ok(())
    }

    /// Where the next `bytes` of a stream go: an offset of the file, a multiple of 64.
    /// Opens a free region if the stream's has no room left (W3: no block crosses).
    pub(super) fn place(&mut self, stream: Stream, bytes: u64) -> Result<u64, PublishError> {
        self.place_in(stream, bytes, None)
    }

    /// The same for the index and the footer of a part: in a region above every byte of
    /// its chunks, the last of which begins at `last_chunk` (F1).
    pub(super) fn place_above(
        &mut self,
        last_chunk: Option<u64>,
        bytes: u64,
    ) -> Result<u64, PublishError> {
        let above = last_chunk.and_then(|offset| self.constants.region_of(offset));
        self.place_in(Stream::Meta, bytes, above)
    }

    fn place_in(
        &mut self,
        stream: Stream,
        bytes: u64,
        above: Option<u32>,
    ) -> Result<u64, PublishError> {
        self.step("place")?;
        let size = self.constants.region_bytes;
        let bytes = align_up(bytes);
        if bytes > size {
            let path = self.path.clone();
            return Err(PublishError::Region {
                path,
                bytes,
                limit: size,
            });
        }
        let open = self.open[stream as usize].filter(|&open| above < Some(open));
        let number = match open {
            Some(number) if size - self.region(number).tail >= bytes => number,
            _ => self.open_region(stream, above)?,
        };
        let region = self.region_mut(number);
        let at = region.tail;
        region.tail += bytes;
        Ok(self.constants.region_start(number) + at)
    }

    /// Gives back the end of the last [`place`](Self::place) of a stream, which gave
    /// `start`: only `bytes` of it were needed.
    pub(super) fn trim(&mut self, start: u64, bytes: u64) {
        if let Some(number) = self.constants.region_of(start) {
            let tail = start + align_up(bytes) - self.constants.region_start(number);
            self.region_mut(number).tail = tail;
        }
    }

    /// Writes at a place that [`place`](Self::place) gave.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), PublishError> {
        self.step("write")?;
        let written = self
            .locate(offset)
            .and_then(|(number, at)| self.maps.get_mut(number).map(|map| map.write(at, bytes)));
        if written == Some(true) {
            Ok(())
        } else {
            Err(self.outside("write", offset))
        }
    }

    /// The bytes of a place that [`place`](Self::place) gave, to write them all.
    pub(super) fn room(&mut self, offset: u64, bytes: u64) -> Result<&mut [u8], PublishError> {
        self.step("write")?;
        let len = usize::try_from(bytes).unwrap_or(usize::MAX);
        let room = self.locate(offset).and_then(|(number, at)| {
            let map = self.maps.get_mut(number)?;
            map.room(at..at.saturating_add(len))
        });
        room.ok_or_else(|| outside(&self.path, "write", offset))
    }

    /// Copies a published block to a place that [`place`](Self::place) gave (F7).
    pub(super) fn copy(&mut self, from: u64, to: u64, bytes: u64) -> Result<(), PublishError> {
        self.step("copy")?;
        let len = usize::try_from(bytes).unwrap_or(usize::MAX);
        let (source, at) = self
            .locate(from)
            .ok_or_else(|| self.outside("copy", from))?;
        let (target, to_at) = self.locate(to).ok_or_else(|| self.outside("copy", to))?;
        let copied = match self.maps.get_disjoint_mut([source, target]) {
            Ok([source, target]) => {
                let block = source.bytes(at..at.saturating_add(len));
                block.is_some_and(|block| target.write(to_at, block))
            }
            Err(_) => {
                let block = self.maps[source]
                    .bytes(at..at.saturating_add(len))
                    .map(<[u8]>::to_vec);
                block.is_some_and(|block| self.maps[target].write(to_at, &block))
            }
        };
        if copied {
            Ok(())
        } else {
            Err(self.outside("copy", from))
        }
    }

    /// Counts bytes as used by the generation that is being made.
    pub(super) fn live(&mut self, offset: u64, bytes: u64) {
        if let Some((number, _)) = self.locate(offset) {
            self.regions[number].live += bytes;
        }
    }

    /// Counts them as no longer used.
    pub(super) fn dead(&mut self, offset: u64, bytes: u64) {
        if let Some((number, _)) = self.locate(offset) {
            self.regions[number].live = self.regions[number].live.saturating_sub(bytes);
        }
    }

    /// The regions that a generation with its root in `root_region` lives in, ascending.
    pub(super) fn in_use(&self, root_region: u32) -> Vec<u32> {
        let numbered = (0_u32..).zip(&self.regions);
        let used = numbered.filter(|(number, region)| region.live > 0 || *number == root_region);
        used.map(|(number, _)| number).collect()
    }

    /// Bytes of everything that the newest generation uses.
    pub(super) fn live_bytes(&self) -> u64 {
        self.regions.iter().map(|region| region.live).sum()
    }

    /// Bytes of the regions that are being written or hold something live.
    pub(super) fn used_bytes(&self) -> u64 {
        let used = |region: &&Region| match region.status {
            Status::Open => true,
            Status::Sealed => region.live > 0,
            Status::Free(_) | Status::Dropped(_) => false,
        };
        self.regions.iter().filter(used).count() as u64 * self.constants.region_bytes
    }

    /// Bytes of regions that wait for a reader to let go.
    pub(super) fn dropped_bytes(&self) -> u64 {
        let dropped = |region: &&Region| matches!(region.status, Status::Dropped(_));
        self.regions.iter().filter(dropped).count() as u64 * self.constants.region_bytes
    }

    /// Bytes of the file.
    pub(super) fn file_bytes(&self) -> u64 {
        self.constants.data_start + self.regions.len() as u64 * self.constants.region_bytes
    }

    /// The sealed region with the least live bytes, of those that have any.
    pub(super) fn emptiest(&self) -> Option<u32> {
        let sealed = (0_u32..)
            .zip(&self.regions)
            .filter(|(_, region)| region.status == Status::Sealed && region.live > 0);
        sealed
            .min_by_key(|(_, region)| region.live)
            .map(|(number, _)| number)
    }

    /// Could the footer of any part be placed without the file growing?
    fn has_room_above_chunks(&self) -> bool {
        let chunks = |region: &Region| {
            matches!(region.status, Status::Open | Status::Sealed) && region.stream != Stream::Meta
        };
        let highest = self.regions.iter().rposition(chunks);
        let highest = highest.and_then(|number| u32::try_from(number).ok());
        let open = self.open[Stream::Meta as usize];
        open.is_some_and(|open| highest < Some(open))
            || self.find_free(Stream::Meta, highest).is_some()
    }

    /// The free region that a stream opens next, with the generation that dropped it.
    fn find_free(&self, stream: Stream, above: Option<u32>) -> Option<(u32, Option<u64>)> {
        let ceiling = match stream {
            Stream::Meta => u32::MAX,
            Stream::Fresh | Stream::Moved => self.lowest_for_meta()?,
        };
        let free = |warm: bool| {
            (0_u32..)
                .zip(&self.regions)
                .filter_map(move |(number, region)| {
                    let Status::Free(dropped) = region.status else {
                        return None;
                    };
                    let fits = above < Some(number) && number < ceiling;
                    (dropped.is_some() == warm && fits).then_some((number, dropped))
                })
        };
        match stream {
            Stream::Meta => free(true).last().or_else(|| free(false).last()),
            Stream::Fresh | Stream::Moved => free(true).next().or_else(|| free(false).next()),
        }
    }

    /// The lowest of the topmost regions that are kept for footers, which must stand above
    /// the chunks they list: chunks go below it. `None`: there are too few yet.
    fn lowest_for_meta(&self) -> Option<u32> {
        let for_meta = |region: &Region| match region.status {
            Status::Free(_) => true,
            Status::Open | Status::Sealed => region.stream == Stream::Meta,
            Status::Dropped(_) => false,
        };
        let topmost = self.regions.iter().enumerate().rev();
        let mut kept = topmost.filter(|(_, region)| for_meta(region));
        let (lowest, _) = kept.nth(KEPT_FOR_META - 1)?;
        u32::try_from(lowest).ok()
    }

    /// Does `offset` lie in a region that nothing is written to any more?
    pub(super) fn is_sealed(&self, offset: u64) -> bool {
        self.locate(offset)
            .is_some_and(|(number, _)| self.regions[number].status == Status::Sealed)
    }

    fn free(&self) -> u64 {
        let free = |region: &&Region| matches!(region.status, Status::Free(_));
        self.regions.iter().filter(free).count() as u64
    }

    fn region(&self, number: u32) -> &Region {
        &self.regions[usize::try_from(number).unwrap_or(usize::MAX)]
    }

    fn region_mut(&mut self, number: u32) -> &mut Region {
        &mut self.regions[usize::try_from(number).unwrap_or(usize::MAX)]
    }

    fn locate(&self, offset: u64) -> Option<(usize, usize)> {
        let number = self.constants.region_of(offset)?;
        let at = offset - self.constants.region_start(number);
        let number = usize::try_from(number)
            .ok()
            .filter(|&number| number < self.maps.len())?;
        Some((number, usize::try_from(at).ok()?))
    }

    fn outside(&self, action: &'static str, offset: u64) -> PublishError {
        outside(&self.path, action, offset)
    }

    /// Seals what the stream has open and opens a free region, a warm one first: a page
    /// that was used costs a fraction of a fresh one. For chunks the lowest there is, and
    /// never one of the topmost; for footers the highest, above `above`.
    fn open_region(&mut self, stream: Stream, above: Option<u32>) -> Result<u32, PublishError> {
        let mut found = self.find_free(stream, above);
        if found.is_none() {
            self.reclaim();
            found = self.find_free(stream, above);
        }
        while found.is_none() {
            self.grow(self.constants.region_bytes)?; // F8; ends: each is above all others
            found = self.find_free(stream, above);
        }
        let (number, dropped) = found.ok_or_else(|| self.outside("open a region at", 0))?;
        if let Some(dropped_by) = dropped {
            pause::at("publish: give up old generations");
            self.header.give_up(dropped_by); // W7: before the first byte
            pause::at("publish: reuse a region");
        }
        if let Some(old) = self.open[stream as usize].replace(number) {
            self.region_mut(old).status = Status::Sealed;
        }
        *self.region_mut(number) = Region {
            status: Status::Open,
            stream,
            ..Region::NEW
        };
        Ok(number)
    }

    /// W6: frees the dropped regions that nobody leases. In the middle of a publish as well:
    /// they were dropped by generations before, and what `begin` remembers learns of it.
    fn reclaim(&mut self) {
        let size = self.constants.region_bytes;
        for number in 0..self.regions.len() {
            let Status::Dropped(generation) = self.regions[number].status else {
                continue;
            };
            let start = self
                .constants
                .region_start(u32::try_from(number).unwrap_or(u32::MAX));
            // Any error means leased. Unlocked at once: the lock must not meet a reader
            // of a later life of the region.
            if lock::try_exclusive(self.file.as_fd(), start, size).is_ok()
                && lock::unlock(self.file.as_fd(), start, size).is_ok()
            {
                self.regions[number].status = Status::Free(Some(generation));
                if let Some(undo) = &mut self.undo
                    && let Some(region) = undo.regions.get_mut(number)
                {
                    region.status = Status::Free(Some(generation));
                }
            }
        }
    }

    /// F8: the file grows by one whole, allocated region; no hole, no later SIGBUS.
    fn grow(&mut self, needed: u64) -> Result<(), PublishError> {
        self.step("grow")?;
        let size = self.constants.region_bytes;
        let number = u32::try_from(self.regions.len()).unwrap_or(u32::MAX);
        let start = self.constants.region_start(number);
        if start + size >= END_LIMIT {
            return Err(PublishError::Limit {
                path: self.path.clone(),
                limit: END_LIMIT,
            });
        }
        let io = |source| PublishError::io("grow", &self.path, needed, source);
        allocate(&self.file, start, size).map_err(io)?;
        let len = usize::try_from(size).unwrap_or(usize::MAX);
        let map = RegionMut::map(&self.file, start, len).map_err(io)?;
        self.loans.push(&map);
        self.maps.push(map);
        self.regions.push(Region::NEW);
        Ok(())
    }
}

/// Allocates `[start, start + len)` of a file, all of it or nothing that stays.
pub(super) fn allocate(file: &File, start: u64, len: u64) -> io::Result<()> {
    let too_far = |_| io::Error::from(io::ErrorKind::FileTooLarge);
    let at = i64::try_from(start).map_err(too_far)?;
    let bytes = i64::try_from(len).map_err(too_far)?;
    match fallocate(file, FallocateFlags::empty(), at, bytes) {
        Ok(()) => Ok(()),
        Err(nix::errno::Errno::EOPNOTSUPP) => write_zeros(file, start, len),
        Err(errno) => Err(errno.into()),
    }
}

fn outside(path: &Path, action: &'static str, offset: u64) -> PublishError {
    let source = io::Error::other(format!("byte {offset} lies outside the regions"));
    PublishError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// For file systems without fallocate.
fn write_zeros(file: &File, start: u64, len: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let zeros = [0_u8; 1 << 16];
    let mut done = 0;
    while done < len {
        let step = (len - done).min(zeros.len() as u64);
        file.write_all_at(&zeros[..usize::try_from(step).unwrap_or(0)], start + done)?;
        done += step;
    }
    Ok(())
}
