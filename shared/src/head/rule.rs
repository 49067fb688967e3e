//! The ordering rule of the head word: what one process must do so that another may use what it points to.
//!
//! The byte table is docs/format.md; this module owns the meaning of the eight bytes and the order of the accesses
//! around them, and nothing else. It knows no mapping and names its atomics through `super::sync`, so that
//! `tests/tests/head_loom.rs` runs this very file under loom.
//!
//! One process writes the word. Any number read it, through mappings without write permission, and any process may
//! be killed between two instructions. All may rely on:
//!
//! - **whole** (F5): the word is one store, so a reader or a crash never leaves half a head, and nobody spins on it;
//! - **covered** (W4, R2): whoever observes a word sees every byte that was written before it was published;
//! - **marked last** (W8): a word with the mark still names the last snapshot of its file, and whoever observes the
//!   mark sees what was done before it, the rename of the file's successor above all;
//! - **intact** (W7): a copy for which [`copied_intact`] says yes holds no byte of a reused region.
//!
//! Not promised: that the bytes *stay* (that is the lease, F6), or that two words with equal generations are of one
//! history (F12).
//!
//! ```text
//!  63   62                          32 31                           0
//! | M |  end of the root footer / 64  |  generation, low 32 bits     |    M: superseded
//!                                       this half is the futex word
//! ```
//!
//! The mark is outside the futex word: a process about to wait may check the head, miss the mark that is set right
//! after, and go to sleep on an unchanged generation after the wake went by. R5's timeout is what ends that sleep.

use super::sync::{AtomicU64, Ordering, fence};

/// Where a snapshot's root may end, in bytes: at multiples of this.
pub const END_ALIGNMENT: u64 = 64;

/// No root may end at or above this offset: 31 bits of 64-byte steps, 128 GiB.
pub const END_LIMIT: u64 = END_ALIGNMENT << END_BITS;

const END_BITS: u32 = 31;
const GENERATION_BITS: u32 = 32;
const GENERATION_MASK: u64 = (1 << GENERATION_BITS) - 1;
const SUPERSEDED: u64 = 1 << 63;

/// One value of the head word.
///
/// Two equal words name the same snapshot for as long as fewer than 2^32 generations lie between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeadWord(u64);

impl HeadWord {
    /// The head of a file in which nothing was published yet: what a new file holds.
    pub const EMPTY: HeadWord = HeadWord(0);

    /// Packs a root that ends at byte `end_bytes` of the file, and the low 32 bits of `generation`.
    ///
    /// None if no word can say it: the end is 0 (that is [`EMPTY`](Self::EMPTY)), not a multiple of
    /// [`END_ALIGNMENT`], or not below [`END_LIMIT`].
    pub const fn new(end_bytes: u64, generation: u64) -> Option<HeadWord> {
        if end_bytes == 0 || !end_bytes.is_multiple_of(END_ALIGNMENT) || end_bytes >= END_LIMIT {
            return None;
        }
        let steps = end_bytes / END_ALIGNMENT;
        Some(HeadWord(
            steps << GENERATION_BITS | generation & GENERATION_MASK,
        ))
    }

    /// The word as it was read. Every value is a word; whether its end lies inside the file is the reader's to check.
    pub const fn from_raw(raw: u64) -> HeadWord {
        HeadWord(raw)
    }

    /// The word as it stands in the file.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The end of the root footer, in bytes from the start of the file. The mark is no part of it.
    pub const fn end_bytes(self) -> u64 {
        ((self.0 & !SUPERSEDED) >> GENERATION_BITS) * END_ALIGNMENT
    }

    /// The low 32 bits of the generation, which are also what `FUTEX_WAIT` compares.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low half is what is asked for"
    )]
    pub const fn generation_low(self) -> u32 {
        self.0 as u32
    }

    /// Whether nothing was ever published here.
    pub const fn is_empty(self) -> bool {
        self.end_bytes() == 0
    }

    /// Whether another file has taken this one's name (W8).
    ///
    /// The snapshot it names is still whole and readable. A reader that sees this looks at the path, and does so
    /// again (not at each call) until it is attached to a file without the mark: that look may find the path empty,
    /// and no further change of this word will come to remind it.
    pub const fn is_superseded(self) -> bool {
        self.0 & SUPERSEDED != 0
    }

    /// This word with the mark.
    pub const fn superseded(self) -> HeadWord {
        HeadWord(self.0 | SUPERSEDED)
    }
}

/// Makes everything this thread has written so far reachable through `value` (W4).
///
/// When this returns, or is killed anywhere inside, readers see the old head or the new one. Waiters are not woken:
/// that is the caller's, afterwards and off the publishing thread (F10).
///
/// Only the file's one writer calls this, and never after [`mark`]: the store would take the mark away again.
pub fn publish(word: &AtomicU64, value: HeadWord) {
    // ORDER head: this fence and the store below it pair with the load and the fence in `observe`.
    // A reader that sees `value` sees every byte written before this line.
    fence(Ordering::Release);
    word.store(value.raw(), Ordering::Relaxed);
}

/// The head as it is now, and with it the right to see everything that was written before it was published (F5, R2).
#[inline]
pub fn observe(word: &AtomicU64) -> HeadWord {
    let seen = word.load(Ordering::Relaxed);
    // ORDER head: pairs with `publish`; ORDER mark: pairs with `mark`.
    // A fence, not an Acquire load: readers map read-only, where std promises only relaxed loads.
    fence(Ordering::Acquire);
    HeadWord(seen)
}

/// Whether the head is still `seen`, which an earlier [`observe`] returned: one relaxed load.
///
/// No fence: a caller that is told yes uses only what that `observe` made visible, and one that is told no calls
/// `observe`. The mark counts as a change, so that a reader that never waits learns of it here.
#[inline]
pub fn unchanged(word: &AtomicU64, seen: HeadWord) -> bool {
    word.load(Ordering::Relaxed) == seen.raw()
}

/// Marks a file as superseded (W8). End and generation stay; marking twice is marking once.
///
/// Only the writer of the file that has taken its place calls this, under W1, after the rename and before it wakes
/// the waiters.
pub fn mark(word: &AtomicU64) {
    // ORDER mark: pairs with the fence in `observe`. A reader that sees the mark and then looks at the path finds
    // the rename done.
    fence(Ordering::Release);
    // ORDER head: a read-modify-write, so that it continues the release sequence of the last `publish`, which was
    // another process's: a reader that sees the mark still sees every byte below the end. A load and a store would
    // need an acquire fence between them to say as much, and could undo a store made between the two.
    word.fetch_or(SUPERSEDED, Ordering::Relaxed);
}

/// Gives up every generation below `dropped_by` to readers without leases, before a byte of them is overwritten (W7).
///
/// `dropped_by` is the first generation that no longer uses the region about to be reused. The word only grows. One
/// thread calls this.
pub fn give_up(intact_from: &AtomicU64, dropped_by: u64) {
    if intact_from.load(Ordering::Relaxed) < dropped_by {
        intact_from.store(dropped_by, Ordering::Relaxed);
    }
    // ORDER intact: pairs with the fence in `copied_intact`. A reader whose copy took in one byte written after this
    // line sees `dropped_by`. Also when the word was high enough already: the bytes must not overtake that store.
    fence(Ordering::SeqCst);
}

/// Whether a copy made without leases is what was published: asked after the last byte was copied (W7).
///
/// `seen` is the head through which the copy was made, `generation` the full one that the copied root tells. The root
/// may itself have been overwritten, even by a newer root in the same place, so its word alone proves nothing: its
/// low half must be the one that `seen` had.
pub fn copied_intact(intact_from: &AtomicU64, seen: HeadWord, generation: u64) -> bool {
    // ORDER intact: pairs with `give_up`. The copy's loads stay above this line.
    fence(Ordering::Acquire);
    let intact_from = intact_from.load(Ordering::Relaxed);
    generation & GENERATION_MASK == u64::from(seen.generation_low()) && generation >= intact_from
}

#[cfg(test)]
mod tests {
    use super::{END_ALIGNMENT, END_LIMIT, HeadWord};

    const ENDS: [u64; 6] = [
        64,
        128,
        2 << 20,
        1 << 32,
        1 << 36,
        END_LIMIT - END_ALIGNMENT,
    ];
    const GENERATIONS: [u64; 7] = [
        0,
        1,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        0x1_0000_0000,
        u64::MAX,
    ];

    #[test]
    fn a_word_gives_back_the_end_and_the_low_generation_with_and_without_the_mark() {
        for end in ENDS {
            for generation in GENERATIONS {
                let word = HeadWord::new(end, generation).expect("a valid end");
                for (word, marked) in [(word, false), (word.superseded(), true)] {
                    let input = format!("end {end}, generation {generation}, marked {marked}");
                    assert_eq!(word.end_bytes(), end, "{input}");
                    assert_eq!(
                        u64::from(word.generation_low()),
                        generation % (1 << 32),
                        "{input}"
                    );
                    assert_eq!(word.is_superseded(), marked, "{input}");
                    assert!(!word.is_empty(), "{input}");
                    assert_eq!(HeadWord::from_raw(word.raw()), word, "{input}");
                }
            }
        }
    }

    #[test]
    fn an_end_that_no_word_can_say_makes_no_word() {
        for end in [
            0,
            1,
            63,
            65,
            END_LIMIT - 1,
            END_LIMIT,
            END_LIMIT + 64,
            u64::MAX,
        ] {
            assert_eq!(HeadWord::new(end, 1), None, "end {end}");
        }
    }

    #[test]
    fn an_empty_head_stays_empty_when_marked() {
        assert_eq!(HeadWord::EMPTY, HeadWord::from_raw(0));
        assert!(HeadWord::EMPTY.is_empty());
        assert!(HeadWord::EMPTY.superseded().is_empty());
        assert!(HeadWord::EMPTY.superseded().is_superseded());
    }

    #[test]
    fn the_futex_word_is_the_low_half() {
        let word = HeadWord::new(64, 0xaaaa_bbbb_cccc_dddd).expect("a valid end");
        assert_eq!(word.raw(), 0x0000_0001_cccc_dddd);
        assert_eq!(word.superseded().raw(), 0x8000_0001_cccc_dddd);
    }
}
