//! Mappings of a snapshot file: the one place where its bytes become memory.
//!
//! Readers map read-only, region by region ([`Region`]), and the header's page
//! ([`Header`]). The daemon maps the same pages writable ([`RegionMut`], [`HeaderMut`]).
//! What keeps this sound:
//!
//! - **in bounds**: nobody maps beyond the file's length, and the file is never cut
//!   (F8), so that no access raises SIGBUS;
//! - **frozen**: bytes below a published end do not change while the region they lie
//!   in is leased (F3, F6), and only such ranges are handed out as slices;
//! - **words**: what does change (head, intact_from, beat) is read by relaxed atomic
//!   loads and a fence, which is all that std promises on read-only memory (F5).
//!
//! Not promised: safety from a process that may write the file and breaks these
//! rules. That is why a reader maps only files of an owner it trusts (F11,
//! [`crate::file`]).

use std::fs::File;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow_buffer::Buffer;
use memmap2::{Advice, Mmap, MmapMut, MmapOptions, MmapRaw};

use crate::futex;
use crate::head::rule::{self, HeadWord};
use crate::layout::{BEAT_AT, HEAD_AT, HEADER_BYTES, INTACT_FROM_AT};

/// A region as a reader holds it: mapped under a lease, or copied to the heap.
///
/// Buffers cut from it own an `Arc` of it (R4): the last of them unmaps it and thereby
/// gives the lease back (R3).
#[derive(Debug)]
pub struct Region {
    backing: Backing,
}

#[derive(Debug)]
enum Backing {
    Mapped(Mmap),
    Copied(Buffer),
    /// Where the writer itself has it mapped.
    Lent {
        loan: Arc<MmapRaw>,
        /// Of one page, and never looked at: it keeps the lease.
        _lease: Mmap,
    },
}

impl Region {
    /// Maps `[start, start + len)`, which must lie inside the file.
    ///
    /// The caller has checked the file's owner and length and holds a lease on `file`;
    /// the mapping keeps that lease when `file` is closed.
    pub(crate) fn map(file: &File, start: u64, len: usize) -> io::Result<Self> {
        // SAFETY: see the module: the file is trusted, long enough and never cut, and
        // slices are made only of its frozen ranges.
        let map = unsafe { MmapOptions::new().offset(start).len(len).map(file) }?;
        // A core dump need not hold the state (F8). Advice: may fail.
        let _ = map.advise(Advice::DontDump);
        Ok(Self {
            backing: Backing::Mapped(map),
        })
    }

    /// `loan` itself, for the process that writes it, under a lease on `file` as in [`map`](Self::map): no page of it has to be mapped
    /// once more, region by region, nor unmapped.
    pub(crate) fn lent(file: &File, start: u64, loan: Arc<MmapRaw>) -> io::Result<Self> {
        let len = HEADER_BYTES.min(loan.len());
        // SAFETY: never looked at.
        let lease = unsafe { MmapOptions::new().offset(start).len(len).map(file) }?;
        Ok(Self {
            backing: Backing::Lent {
                loan,
                _lease: lease,
            },
        })
    }

    /// Bytes that were read, for a file whose regions cannot be leased (R1).
    pub(crate) fn copied(bytes: Buffer) -> Self {
        Self {
            backing: Backing::Copied(bytes),
        }
    }

    /// Was it copied, and so must be checked against `intact_from`?
    #[must_use]
    pub fn is_copied(&self) -> bool {
        matches!(self.backing, Backing::Copied(_))
    }

    /// Bytes of the region.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.backing {
            Backing::Mapped(map) => map.len(),
            Backing::Copied(bytes) => bytes.len(),
            Backing::Lent { loan, .. } => loan.len(),
        }
    }

    /// Never true for a region that was made.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A range of the region, not copied; `None` outside it.
    ///
    /// Ask only for ranges that a published root names (F3): those are frozen.
    #[must_use]
    pub fn buffer(self: &Arc<Self>, range: Range<usize>) -> Option<Buffer> {
        if range.start > range.end || range.end > self.len() {
            return None;
        }
        let start = match &self.backing {
            Backing::Copied(bytes) => {
                return Some(bytes.slice_with_length(range.start, range.len()));
            }
            Backing::Mapped(map) => map.as_ptr(),
            Backing::Lent { loan, .. } => loan.as_ptr(),
        };
        // SAFETY: `range.start` is at most the mapping's length, checked just above.
        let start = unsafe { start.add(range.start) };
        let start = NonNull::new(start.cast_mut())?;
        let owner: Arc<Self> = Arc::clone(self);
        // SAFETY:
        // - in bounds: `range` lies inside the mapping, checked above;
        // - alive: the buffer owns this region's Arc, hence the mapping (R4);
        // - frozen: the caller names a published range, under a lease (F3, F6);
        // - a Buffer never writes to its memory while it is not uniquely owned by the
        //   standard allocator, and a custom allocation never is.
        Some(unsafe { Buffer::from_custom_allocation(start, range.len(), owner) })
    }
}

/// The header's page as readers see it.
#[derive(Debug)]
pub struct Header {
    map: Mmap,
}

impl Header {
    /// Maps the first page of a trusted file that is at least that long.
    pub(crate) fn map(file: &File) -> io::Result<Self> {
        // SAFETY: see the module. The constants are frozen before the file has a name;
        // the words are read only through `word`.
        let map = unsafe { MmapOptions::new().len(HEADER_BYTES).map(file) }?;
        Ok(Self { map })
    }

    /// The head, with everything published under it visible (F5, R2).
    #[must_use]
    pub fn observe(&self) -> HeadWord {
        rule::observe(word(&self.map, HEAD_AT))
    }

    /// One relaxed load: does the head still say `seen`?
    #[inline]
    #[must_use]
    pub fn is_unchanged(&self, seen: HeadWord) -> bool {
        rule::unchanged(word(&self.map, HEAD_AT), seen)
    }

    /// Whether bytes copied without leases, through the head `seen`, are those of
    /// `generation` (W7). Ask after the last byte was copied.
    #[must_use]
    pub fn copied_intact(&self, seen: HeadWord, generation: u64) -> bool {
        rule::copied_intact(word(&self.map, INTACT_FROM_AT), seen, generation)
    }

    /// How often the daemon has beaten (F11). Age it by your own clock.
    #[must_use]
    pub fn beat(&self) -> u64 {
        word(&self.map, BEAT_AT).load(Ordering::Relaxed)
    }

    /// Sleeps until the head's low half is no longer that of `seen`, a wake, or the
    /// timeout. The caller looks at the head again, whatever the reason (R5).
    pub fn wait(&self, seen: HeadWord, timeout: Duration) -> io::Result<()> {
        futex::wait(low_half(&self.map), seen.generation_low(), timeout)
    }
}

/// The header's page as the daemon writes it.
#[derive(Debug)]
pub struct HeaderMut {
    map: MmapMut,
}

impl HeaderMut {
    /// Maps the first page of a file that this process alone writes (W1).
    pub fn map(file: &File) -> io::Result<Self> {
        // SAFETY: see the module; this process is the only writer (W1).
        let map = unsafe { MmapOptions::new().len(HEADER_BYTES).map_mut(file) }?;
        Ok(Self { map })
    }

    /// W4: everything written before is visible to who sees `head`.
    pub fn publish(&self, head: HeadWord) {
        rule::publish(word(&self.map, HEAD_AT), head);
    }

    /// The head as it stands.
    #[must_use]
    pub fn observe(&self) -> HeadWord {
        rule::observe(word(&self.map, HEAD_AT))
    }

    /// W8: says that a newer file stands at the path, and wakes who waits here.
    pub fn mark_superseded(&self) {
        rule::mark(word(&self.map, HEAD_AT));
        self.wake();
    }

    /// W7: generations below `dropped_by` may lose bytes from now on.
    pub fn give_up(&self, dropped_by: u64) {
        rule::give_up(word(&self.map, INTACT_FROM_AT), dropped_by);
    }

    /// The liveness beat (F11).
    pub fn beat(&self) {
        word(&self.map, BEAT_AT).fetch_add(1, Ordering::Relaxed);
    }

    /// Wakes everybody who waits for a change of the head. Costs with the number of
    /// waiters, so call it off the publishing thread (F10).
    pub fn wake(&self) {
        futex::wake_all(low_half(&self.map));
    }
}

/// A region as the daemon writes it.
///
/// Its memory may be lent ([`Loans`]), so no slice of it is ever made but of a block: of a published one, or of one that is being
/// made and that nobody else looks at.
#[derive(Debug)]
pub struct RegionMut {
    map: Arc<MmapRaw>,
}

impl RegionMut {
    /// Maps `[start, start + len)` with its pages present, so that no write faults.
    ///
    /// The range was `fallocate`d before (F8).
    pub fn map(file: &File, start: u64, len: usize) -> io::Result<Self> {
        let map = MmapOptions::new()
            .offset(start)
            .len(len)
            .populate()
            .map_raw(file)?;
        // A core dump of the daemon need not hold the whole state. Advice: may fail.
        let _ = map.advise(Advice::DontDump);
        Ok(Self { map: Arc::new(map) })
    }

    /// Copies `bytes` to `at`. False, and nothing written, if they do not fit.
    ///
    /// Write only where nothing is published (W3).
    #[must_use]
    pub fn write(&mut self, at: usize, bytes: &[u8]) -> bool {
        let room = self.room(at..at.saturating_add(bytes.len()));
        room.map(|room| room.copy_from_slice(bytes)).is_some()
    }

    /// Room for a block that is made where it is to stand; `None` outside the region.
    ///
    /// Write only where nothing is published (W3).
    #[must_use]
    pub fn room(&mut self, range: Range<usize>) -> Option<&mut [u8]> {
        if range.start > range.end || range.end > self.map.len() {
            return None;
        }
        // SAFETY: `range.start` is at most the mapping's length, checked just above.
        let start = unsafe { self.map.as_mut_ptr().add(range.start) };
        // SAFETY:
        // - in bounds: checked above; alive: borrowed from `self`, which owns the mapping;
        // - alone: nobody looks at these bytes before the head names them (W3, W4), no other process and no loan, and
        //   `self`, the one who writes here, is borrowed mutably.
        Some(unsafe { std::slice::from_raw_parts_mut(start, range.len()) })
    }

    /// Published bytes of the region, to move them (F7); `None` outside it.
    #[must_use]
    pub fn bytes(&self, range: Range<usize>) -> Option<&[u8]> {
        if range.start > range.end || range.end > self.map.len() {
            return None;
        }
        // SAFETY: `range.start` is at most the mapping's length, checked just above.
        let start = unsafe { self.map.as_ptr().add(range.start) };
        // SAFETY: in bounds and alive as in `room`; published bytes are frozen (F3), and nobody writes to them while
        // `self`, the one who could, is borrowed.
        Some(unsafe { std::slice::from_raw_parts(start, range.len()) })
    }
}

/// The regions that the process itself writes, by number, for its own reader of the file.
#[derive(Clone, Debug, Default)]
pub struct Loans(Arc<Mutex<Vec<Arc<MmapRaw>>>>);

impl Loans {
    /// Lends the next region.
    pub fn push(&self, region: &RegionMut) {
        self.lock().push(Arc::clone(&region.map));
    }

    /// The memory of a region, if it is lent.
    pub(crate) fn get(&self, number: u32) -> Option<Arc<MmapRaw>> {
        let number = usize::try_from(number).ok()?;
        self.lock().get(number).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<MmapRaw>>> {
        // A vector is whole after every push.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A mapped header page. Its words change under every reader, so no slice of it is
/// ever made: only references to atomics.
trait Page {
    fn start(&self) -> *const u8;
}

impl Page for Mmap {
    fn start(&self) -> *const u8 {
        self.as_ptr()
    }
}

impl Page for MmapMut {
    fn start(&self) -> *const u8 {
        self.as_ptr()
    }
}

/// An aligned word of the header's page.
#[inline]
fn word(page: &impl Page, at: usize) -> &AtomicU64 {
    assert!(
        at.is_multiple_of(64) && at < HEADER_BYTES,
        "not a word of the header"
    );
    // SAFETY: inside the page, which both mappings are long.
    let start = unsafe { page.start().add(at) };
    // SAFETY:
    // - in bounds and aligned: a page is, and `at` was checked above;
    // - alive: borrowed from `page`;
    // - every access to these bytes, in every process, is atomic.
    unsafe { AtomicU64::from_ptr(start.cast_mut().cast()) }
}

/// The futex word: the low half of the head, the generation's low 32 bits.
fn low_half(page: &impl Page) -> &AtomicU32 {
    const { assert!(cfg!(target_endian = "little"), "the low half stands first") };
    // SAFETY: inside the page, which both mappings are long.
    let start = unsafe { page.start().add(HEAD_AT) };
    // SAFETY: as in `word`. Only its address is used, by the kernel; no code loads
    // half of the head, so no access of mixed size happens.
    unsafe { AtomicU32::from_ptr(start.cast_mut().cast()) }
}
