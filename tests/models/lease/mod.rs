//! The lease protocol as a model: regions, readers that lease them, a writer that drops and reuses them.
//!
//! The rules are those of docs/design.md: F6 and W3 to W7 for the writer, R2 to R4 for readers; each is cited where
//! it acts. A [`Variant`] says who takes part, and at most one rule that is broken.
//!
//! # What is modelled
//!
//! Two readers, of which the first may fork, or which are threads of one process with one table of leases, or of
//! which the second copies without leases (W7). Any of them may be killed at any step and start again, any number of
//! times. The writer publishes without end: it appends to the active region or opens another one, keeps any part of
//! the live regions, and may fail before its store. Its helper probes dropped regions at any moment. The head store
//! may linger in a store buffer, as on x86.
//!
//! Generations are not counted but ranked: a generation that nothing points to any more is forgotten and the others
//! close up. So the search covers runs of any length, and still ends. Regions are numbered by what they are, so that
//! states which differ only in the names of regions are one.
//!
//! # What is not
//!
//! Orderings weaker than x86's (`head_loom.rs` has those), what happens when the writer dies (nothing here moves any
//! more: `tests/models/restart`), and the kernel: that a lock lives as long as its mapping is tested on the kernel
//! itself.
//!
//! # What is checked
//!
//! - **intact**: no region of a snapshot that somebody holds is rewritten; no root is read from rewritten bytes;
//! - **forward**: a reader's generations never go back;
//! - **obstruction freedom**: with everybody else stopped wherever they are, a refresh ends;
//! - **bounded turns**, where counted: a refresh ends within one turn per region, but for refused locks.

mod reader;
mod tests;
mod writer;

use crate::explorer::{Model, Steps};

use reader::Reader;
use writer::Writer;

/// How many regions the file has. Three are enough for a root, a region kept, and one dropped.
pub const REGIONS: usize = 3;

/// How many readers there are.
pub const READERS: usize = 2;

/// A set of regions, one bit each.
pub type Regions = u8;

/// More generations than can be pointed to at once: head, store buffer, three for each reader, the child's.
const GENERATIONS: usize = 10;

/// No generation.
pub const NONE: u8 = u8::MAX;

/// One rule of the protocol, to be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// R2: the root is read at once after its region was leased, without loading the head again.
    RootNotRechecked,
    /// R2: the snapshot is complete once its last region is leased, without loading the head again.
    RegionsNotRechecked,
    /// R2: the head is loaded again before the locks instead of after them.
    RecheckedBeforeLock,
    /// R2: leases from an earlier turn are given back before the next.
    LeasesDroppedBetweenTurns,
    /// R2: complete only when two turns in a row saw the same generation.
    EqualGenerations,
    /// R2: a refused lock (EAGAIN) counts as a lease.
    RefusalIgnored,
    /// R2, R4: only the root's region is leased.
    OnlyRootLeased,
    /// R3: a lease ends by unlocking, which a fork's other half feels, instead of by unmapping.
    Unlocks,
    /// R4: a thread uses a lease that another thread took after it loaded the head.
    TrustsOtherThread,
    /// R4: a cache of decoded chunks is keyed by offset and outlives the lease.
    CacheOutlivesLease,
    /// R4: a buffer is used after the Arc of its region is gone.
    LeaseNotKept,
    /// W3: a publish writes below the published end of the active region.
    OverwritesPublished,
    /// W3: a root lies across regions.
    RootStraddles,
    /// W5: regions are dropped before the store of the head that no longer uses them.
    DroppedBeforeStore,
    /// W5: a publish that fails leaves its drops in place.
    FailureKeepsDrops,
    /// W6: dropped regions are reused unprobed.
    NotProbed,
    /// W6: the probe only asks (F_OFD_GETLK), which does not wait for the head to leave the store buffer.
    ProbeOnlyAsks,
    /// W6: the probe's lock is held until after the publish that names the region.
    LockHeldPastPublish,
    /// W6: the probe's lock is never given back.
    LockNeverReleased,
    /// W7: intact_from stays as it is.
    NotGivenUp,
    /// W7: intact_from is raised after the region was rewritten.
    GivenUpLate,
    /// W7: intact_from is raised to the last generation that used the region, not the first that does not.
    GivenUpOneLess,
    /// W7: the copying reader looks at intact_from before it copies.
    CheckedBeforeCopy,
    /// W7: the copying reader believes the generation in the root that it copied.
    BelievesCopiedRoot,
}

/// Who takes part, and what is broken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Variant {
    /// Reader 0 may fork while it holds a snapshot; one child at a time, any number of times.
    pub fork: bool,
    /// The readers are two threads of one process. They share leases, without the mutex of R2: more interleavings.
    pub threads: bool,
    /// Reader 1 takes no leases; it copies and then checks intact_from.
    pub copier: bool,
    /// A stored head waits in a store buffer until it drains.
    pub store_buffer: bool,
    /// Readers keep decoded chunks from one snapshot to the next.
    pub cache: bool,
    /// The turns of a refresh are counted and bounded.
    pub count_turns: bool,
    /// Readers give up the snapshot they hold before they look for the next.
    pub drop_first: bool,
    /// The rule that is broken, if any.
    pub broken: Option<Broken>,
}

impl Variant {
    fn breaks(&self, rule: Broken) -> bool {
        self.broken == Some(rule)
    }
}

/// What a published root says, and what became of the bytes it points to.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Generation {
    /// The region its root lies in.
    root: u8,
    /// All its regions.
    regions: Regions,
    /// Those rewritten since.
    rewritten: Regions,
}

impl Generation {
    fn root_bit(self) -> Regions {
        1 << self.root
    }
}

/// A forked child: it keeps what its parent held, until it exits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Child {
    snapshot: u8,
    leases: Regions,
    /// Leases of reader 0 that are one lock with the child's.
    shared: Regions,
    /// Locks shared by a fork that were unlocked ([`Broken::Unlocks`]).
    lost: Regions,
}

/// The file, its locks and all processes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    /// By rank: only those that something points to.
    generations: [Generation; GENERATIONS],
    known: u8,
    /// The head word, as other processes see it.
    head: u8,
    /// A newer head in the writer's store buffer.
    buffered: u8,
    /// W7: generations of a lower rank are given up.
    intact_from: u8,
    writer: Writer,
    readers: [Reader; READERS],
    child: Child,
}

impl State {
    fn generation(&self, rank: u8) -> Generation {
        self.generations[usize::from(rank)]
    }

    /// The newest generation that the writer has stored.
    fn newest(&self) -> u8 {
        if self.buffered == NONE {
            self.head
        } else {
            self.buffered
        }
    }

    fn drain(&mut self) {
        if self.buffered != NONE {
            self.head = self.buffered;
            self.buffered = NONE;
        }
    }

    /// The regions somebody holds a read lock on.
    fn leased(&self) -> Regions {
        let lost = self.child.lost;
        (self.readers[0].leases & !(lost & self.child.shared))
            | self.readers[1].leases
            | (self.child.leases & !lost)
    }

    /// New bytes in the regions `bits`: what used them until now is gone.
    fn rewrite(&mut self, bits: Regions) {
        for generation in &mut self.generations[..usize::from(self.known)] {
            generation.rewritten |= generation.regions & bits;
        }
        for reader in &mut self.readers {
            reader.cache_stale |= reader.cached & bits;
        }
    }

    /// R3: reader `reader` lets go of `bits`.
    fn release(&mut self, variant: &Variant, reader: usize, bits: Regions) {
        let bits = bits & self.readers[reader].leases;
        if !variant.breaks(Broken::CacheOutlivesLease) {
            self.readers[reader].cached &= !bits;
            self.readers[reader].cache_stale &= !bits;
        }
        if variant.breaks(Broken::Unlocks) && reader == 0 {
            self.child.lost |= bits & self.child.shared;
        }
        self.unmap(reader, bits);
    }

    /// What is left when the mappings are gone, by munmap or by death.
    fn unmap(&mut self, reader: usize, bits: Regions) {
        self.readers[reader].leases &= !bits;
        if reader == 0 {
            self.child.shared &= !bits;
            self.forget_lost();
        }
    }

    /// The child exits, or drops what it holds.
    fn release_child(&mut self, variant: &Variant) {
        if variant.breaks(Broken::Unlocks) {
            self.child.lost |= self.child.leases & self.child.shared;
        }
        self.child.leases = 0;
        self.child.snapshot = NONE;
        self.forget_lost();
    }

    /// Forgets which locks were shared, and which were lost, once nobody relies on them.
    fn forget_lost(&mut self) {
        self.child.shared &= self.child.leases | self.child.lost;
        self.child.lost &= self.child.shared | self.child.leases;
    }

    /// Forgets generations that nothing points to, and closes up the ranks. Order is kept, also against the ranks
    /// that are only thresholds (`intact_from`, `dropped_by`): they become the number of generations below them.
    fn close_up(&mut self) {
        let mut used = [false; GENERATIONS];
        let readers = self.readers;
        let pointers = readers.iter().flat_map(Reader::points_to);
        for rank in pointers.chain([self.head, self.buffered, self.child.snapshot]) {
            if rank != NONE {
                used[usize::from(rank)] = true;
            }
        }
        // below[r]: how many of the generations below rank r stay.
        let mut below = [0_u8; GENERATIONS + 1];
        let mut kept = [Generation::default(); GENERATIONS];
        for rank in 0..GENERATIONS {
            below[rank + 1] = below[rank];
            if used[rank] {
                kept[usize::from(below[rank])] = self.generations[rank];
                below[rank + 1] += 1;
            }
        }
        self.generations = kept;
        self.known = below[GENERATIONS];
        let renumber = |rank: &mut u8| {
            if *rank != NONE {
                *rank = below[usize::from(*rank)];
            }
        };
        renumber(&mut self.head);
        renumber(&mut self.buffered);
        renumber(&mut self.intact_from);
        renumber(&mut self.child.snapshot);
        for reader in &mut self.readers {
            reader.pointers_mut().into_iter().for_each(renumber);
        }
        for dropped_by in &mut self.writer.dropped_by {
            renumber(dropped_by);
            // Given up already: it says no more than 0 does.
            if *dropped_by <= self.intact_from {
                *dropped_by = 0;
            }
        }
    }

    /// Numbers the regions by what they are, since no rule asks which is which.
    fn sort_regions(&mut self) {
        // What each region is, as a number: the bits it has in every set, and whether it is the one named.
        let mut is = self.writer.dropped_by.map(u64::from);
        self.each_set(|set| {
            for (region, is) in is.iter_mut().enumerate() {
                *is = *is << 1 | u64::from(*set >> region & 1);
            }
        });
        self.each_name(|name| {
            for (region, is) in is.iter_mut().enumerate() {
                *is = *is << 1 | u64::from(usize::from(*name) == region);
            }
        });
        let mut order: [usize; REGIONS] = std::array::from_fn(|region| region);
        order.sort_by_key(|&region| is[region]);
        if order.is_sorted() {
            return;
        }
        self.each_set(|set| {
            let old = *set;
            *set = 0;
            for (to, from) in order.iter().enumerate() {
                *set |= (old >> from & 1) << to;
            }
        });
        self.each_name(|name| {
            let renumbered = (0..)
                .zip(order)
                .find(|(_, from)| *from == usize::from(*name));
            if let Some((to, _)) = renumbered {
                *name = to;
            }
        });
        self.writer.dropped_by = order.map(|from| self.writer.dropped_by[from]);
    }

    /// Every set of regions in the state.
    fn each_set(&mut self, mut act: impl FnMut(&mut Regions)) {
        for generation in &mut self.generations[..usize::from(self.known)] {
            act(&mut generation.regions);
            act(&mut generation.rewritten);
        }
        self.writer.sets_mut().into_iter().for_each(&mut act);
        for reader in &mut self.readers {
            reader.sets_mut().into_iter().for_each(&mut act);
        }
        act(&mut self.child.leases);
        act(&mut self.child.shared);
        act(&mut self.child.lost);
    }

    /// Every place in the state that names a region.
    fn each_name(&mut self, mut act: impl FnMut(&mut u8)) {
        for generation in &mut self.generations[..usize::from(self.known)] {
            act(&mut generation.root);
        }
        self.writer.names_mut().into_iter().for_each(&mut act);
    }
}

/// The whole protocol in one variant.
pub struct Leases(pub Variant);

impl Model for Leases {
    type State = State;

    /// Generation 0 is published, in region 0; the other regions are fallocated and were never written.
    fn start(&self) -> State {
        let mut generations = [Generation::default(); GENERATIONS];
        generations[0].regions = 1;
        State {
            generations,
            known: 1,
            head: 0,
            buffered: NONE,
            intact_from: 0,
            writer: Writer::start(),
            readers: [Reader::start(); READERS],
            child: Child {
                snapshot: NONE,
                leases: 0,
                shared: 0,
                lost: 0,
            },
        }
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        let variant = &self.0;
        if state.buffered != NONE {
            let mut next = *state;
            next.drain();
            steps.to(|| "the store buffer drains".into(), next);
        }
        writer::steps(variant, state, steps);
        for reader in 0..READERS {
            reader::steps(variant, state, reader, steps);
        }
        if state.child.snapshot != NONE {
            let mut next = *state;
            next.release_child(variant);
            steps.to(|| "the child exits".into(), next);
        }
    }

    /// A trace names regions as they are numbered just before the step.
    fn canonical(&self, mut state: State) -> State {
        state.close_up();
        state.sort_regions();
        state
    }

    fn check(&self, state: &State) -> Result<(), String> {
        let holders = state.readers.iter().map(|reader| reader.snapshot);
        for (holder, snapshot) in holders.chain([state.child.snapshot]).enumerate() {
            if snapshot != NONE && state.generation(snapshot).rewritten != 0 {
                let name = if holder == READERS {
                    "the child".to_owned()
                } else {
                    format!("reader {holder}")
                };
                return Err(format!(
                    "a region of the snapshot that {name} holds was rewritten"
                ));
            }
        }
        for reader in 0..READERS {
            if !reader::ends_alone(&self.0, *state, reader) {
                return Err(format!(
                    "reader {reader} cannot finish while all others are stopped"
                ));
            }
        }
        Ok(())
    }
}
