//! The reader's side of the lease protocol: the loop of R2, and the copying reader of W7.

use super::{Broken, NONE, READERS, REGIONS, Regions, State, Variant};
use crate::explorer::Steps;

/// Where a reader stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// No refresh is under way.
    Idle,
    /// About to load the head: the start of each turn.
    Load,
    /// The root's region is not leased.
    LeaseRoot,
    /// The root's region is leased, and was when the head was loaded.
    Read,
    /// The root has been read; some of its regions are not leased.
    LeaseRest,
    /// A copying reader, about to copy the root.
    CopyRoot,
    /// A copying reader, about to copy another region.
    CopyRest,
    /// A copying reader, about to look at `intact_from`.
    Check,
}

/// A reader: a process, or one of two threads of a process.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reader {
    at: At,
    /// The head that this turn loaded.
    seen: u8,
    /// The head that the turn before loaded. Only [`Broken::EqualGenerations`] looks at it.
    before: u8,
    /// The snapshot it holds.
    pub(super) snapshot: u8,
    /// The regions it has mapped, and therefore locked.
    pub(super) leases: Regions,
    /// Regions that it takes for leased ([`Broken::RefusalIgnored`]).
    imagined: Regions,
    /// Whether this turn leased anything, so that the head must be loaded again.
    leased_now: bool,
    /// Whether the head was found unchanged just before a lock ([`Broken::RecheckedBeforeLock`]).
    rechecked: bool,
    /// Turns that ended with new leases, in this refresh.
    turns: u8,
    /// Regions it keeps decoded chunks of, and those among them that were rewritten since.
    pub(super) cached: Regions,
    pub(super) cache_stale: Regions,
    /// A copying reader: what it has copied, whether any of that had been rewritten, whether the root had.
    copied: Regions,
    spoilt: bool,
    root_spoilt: bool,
}

impl Reader {
    pub(super) fn start() -> Reader {
        Reader {
            at: At::Idle,
            seen: NONE,
            before: NONE,
            snapshot: NONE,
            leases: 0,
            imagined: 0,
            leased_now: false,
            rechecked: false,
            turns: 0,
            cached: 0,
            cache_stale: 0,
            copied: 0,
            spoilt: false,
            root_spoilt: false,
        }
    }

    /// The generations it points to.
    pub(super) fn points_to(&self) -> [u8; 3] {
        [self.seen, self.before, self.snapshot]
    }

    /// The same, to be renumbered.
    pub(super) fn pointers_mut(&mut self) -> [&mut u8; 3] {
        [&mut self.seen, &mut self.before, &mut self.snapshot]
    }

    /// Its sets of regions, to be renumbered.
    pub(super) fn sets_mut(&mut self) -> [&mut Regions; 5] {
        [
            &mut self.leases,
            &mut self.imagined,
            &mut self.cached,
            &mut self.cache_stale,
            &mut self.copied,
        ]
    }

    fn has(&self, bits: Regions) -> bool {
        (self.leases | self.imagined) & bits == bits
    }

    /// Back to the start of the loop, without counting a turn: after a refusal.
    fn start_over(&mut self) {
        self.at = At::Load;
        self.seen = NONE;
        self.leased_now = false;
        self.rechecked = false;
    }
}

/// Everything that reader number `reader` can do, and what can be done to it.
pub(super) fn steps(variant: &Variant, state: &State, reader: usize, steps: &mut Steps<State>) {
    let me = state.readers[reader];
    let choices = choices(variant, state, me);
    for choice in (0..REGIONS).map(|region| 1 << region & choices) {
        let label = || match me.at {
            At::Idle | At::Load => format!("reader {reader}: {:?}", me.at),
            at => format!(
                "reader {reader}: {at:?} {choice:03b}, through a head of rank {}, with leases {:03b}",
                me.seen, me.leases,
            ),
        };
        if choice != 0 {
            match own_step(variant, state, reader, choice) {
                Ok(next) => steps.to(label, next),
                Err(why) => steps.wrong(label, why),
            }
        }
    }
    if me.at == At::Idle {
        if state.head != me.snapshot {
            let mut next = *state;
            if variant.drop_first {
                next.release(variant, reader, Regions::MAX);
                next.readers[reader].snapshot = NONE;
            }
            next.readers[reader].at = At::Load;
            steps.to(|| format!("reader {reader}: begins a refresh"), next);
        }
        if me.snapshot != NONE {
            let mut next = *state;
            next.release(variant, reader, Regions::MAX);
            if variant.breaks(Broken::LeaseNotKept) {
                steps.to(|| format!("reader {reader}: loses its leases"), next);
            }
            next.readers[reader].snapshot = NONE;
            next.readers[reader].imagined = 0;
            steps.to(|| format!("reader {reader}: drops its snapshot"), next);
        }
    }
    if variant.fork && reader == 0 && me.snapshot != NONE && state.child.snapshot == NONE {
        let mut next = *state;
        next.child.snapshot = me.snapshot;
        next.child.leases = me.leases;
        next.child.shared = me.leases;
        steps.to(|| "reader 0: forks".into(), next);
    }
    if me != Reader::start() {
        let mut next = *state;
        for dies in 0..READERS {
            if dies == reader || variant.threads {
                next.unmap(dies, Regions::MAX);
                next.readers[dies] = Reader::start();
            }
        }
        steps.to(|| format!("reader {reader}: is killed, starts anew"), next);
    }
}

/// Whether reader number `reader` comes to the end of its refresh while nobody else moves.
///
/// Asked at the start of each turn, since every turn ends and what a reader does alone are steps of the model. A turn
/// has at most one step per region and two more, and there is one turn per region, and a last one.
pub(super) fn ends_alone(variant: &Variant, mut state: State, reader: usize) -> bool {
    if state.readers[reader].at != At::Load {
        return true;
    }
    for _ in 0..(REGIONS + 2) * (REGIONS + 1) {
        let choices = choices(variant, &state, state.readers[reader]);
        if choices == 0 {
            return true;
        }
        match own_step(variant, &state, reader, choices & choices.wrapping_neg()) {
            Ok(next) => state = next,
            // A wrong step is found where it is taken.
            Err(_) => return true,
        }
    }
    false
}

/// The regions of which a reader's next step takes any one; all the same where it takes none; 0 if it has no step.
fn choices(variant: &Variant, state: &State, me: Reader) -> Regions {
    match me.at {
        At::Idle => 0,
        At::LeaseRest => needed(variant, state, me.seen) & !(me.leases | me.imagined),
        At::CopyRest => state.generation(me.seen).regions & !me.copied,
        At::Load | At::LeaseRoot | At::Read | At::CopyRoot | At::Check => 1,
    }
}

/// The next step of the refresh of reader number `reader`. `choice` is one of its [`choices`].
fn own_step(
    variant: &Variant,
    state: &State,
    reader: usize,
    choice: Regions,
) -> Result<State, String> {
    let mut next = *state;
    let me = &mut next.readers[reader];
    match me.at {
        At::Idle => {}
        At::Load => {
            me.seen = state.head;
            me.at = if variant.copier && reader == 1 {
                At::CopyRoot
            } else if me.has(state.generation(me.seen).root_bit()) {
                At::Read
            } else {
                At::LeaseRoot
            };
            if variant.breaks(Broken::CheckedBeforeCopy)
                && me.at == At::CopyRoot
                && me.seen < state.intact_from
            {
                me.start_over();
            }
        }
        At::LeaseRoot => {
            let root = state.generation(me.seen).root_bit();
            if variant.breaks(Broken::RecheckedBeforeLock) && !recheck(state, me) {
                return Ok(next);
            }
            if !lease(variant, &mut next, reader, root) {
                refused(variant, &mut next, reader);
            } else if variant.breaks(Broken::RootNotRechecked)
                || variant.breaks(Broken::RecheckedBeforeLock)
            {
                next.readers[reader].at = At::Read;
            } else {
                next_turn(variant, &mut next, reader)?;
            }
        }
        At::Read => {
            let generation = state.generation(me.seen);
            let read = if variant.breaks(Broken::RootStraddles) {
                generation.regions
            } else {
                generation.root_bit()
            };
            if generation.rewritten & read != 0 {
                return Err(format!("reader {reader} reads a root that was rewritten"));
            }
            if !me.has(needed(variant, state, me.seen)) {
                me.at = At::LeaseRest;
            } else if variant.breaks(Broken::EqualGenerations) && me.before != me.seen {
                me.before = me.seen;
                next_turn(variant, &mut next, reader)?;
            } else {
                complete(variant, &mut next, reader)?;
            }
        }
        At::LeaseRest => {
            let needed = needed(variant, state, me.seen);
            if variant.breaks(Broken::RecheckedBeforeLock) && !recheck(state, me) {
                return Ok(next);
            }
            let others = state.readers[1 - reader].leases;
            let trusts = variant.breaks(Broken::TrustsOtherThread) && others & choice != 0;
            if !lease(variant, &mut next, reader, choice) {
                refused(variant, &mut next, reader);
                return Ok(next);
            }
            let me = &mut next.readers[reader];
            me.leased_now |= !trusts;
            if me.has(needed) {
                let checks = [Broken::RegionsNotRechecked, Broken::RecheckedBeforeLock];
                if checks.into_iter().any(|rule| variant.breaks(rule)) || !me.leased_now {
                    complete(variant, &mut next, reader)?;
                } else {
                    next_turn(variant, &mut next, reader)?;
                }
            }
        }
        At::CopyRoot => {
            let generation = state.generation(me.seen);
            me.root_spoilt = generation.rewritten & generation.root_bit() != 0;
            me.spoilt = me.root_spoilt;
            me.at = At::CopyRest;
        }
        At::CopyRest => {
            let generation = state.generation(me.seen);
            me.copied |= choice;
            me.spoilt |= generation.rewritten & choice != 0;
            if me.copied == generation.regions {
                me.at = At::Check;
            }
        }
        At::Check => {
            let believes = variant.breaks(Broken::BelievesCopiedRoot) && me.root_spoilt;
            let accepts = believes
                || variant.breaks(Broken::CheckedBeforeCopy)
                || me.seen >= state.intact_from;
            if accepts && me.spoilt {
                return Err(format!(
                    "reader {reader} accepts a copy of a region that was rewritten"
                ));
            }
            let again = if accepts { At::Idle } else { At::Load };
            *me = Reader {
                at: again,
                ..Reader::start()
            };
        }
    }
    Ok(next)
}

/// The regions that a snapshot of generation `seen` needs.
fn needed(variant: &Variant, state: &State, seen: u8) -> Regions {
    let generation = state.generation(seen);
    if variant.breaks(Broken::OnlyRootLeased) {
        generation.root_bit()
    } else {
        generation.regions
    }
}

/// R3: one region, leased. False if the lock was refused.
///
/// A thread that finds the region leased by the other one shares that lease; to R2 it is as new as a lock.
fn lease(variant: &Variant, state: &mut State, reader: usize, bit: Regions) -> bool {
    let shares = variant.threads && state.readers[1 - reader].leases & bit != 0;
    let me = &mut state.readers[reader];
    me.rechecked = false;
    if state.writer.locked & bit == 0 || shares {
        me.leases |= bit;
        true
    } else if variant.breaks(Broken::RefusalIgnored) {
        me.imagined |= bit;
        true
    } else {
        false
    }
}

/// R2 on EAGAIN: the writer is probing the region, so the head has moved on from it.
fn refused(variant: &Variant, state: &mut State, reader: usize) {
    state.readers[reader].start_over();
    drop_between_turns(variant, state, reader);
}

/// R2's `continue`, after new leases.
fn next_turn(variant: &Variant, state: &mut State, reader: usize) -> Result<(), String> {
    state.readers[reader].start_over();
    drop_between_turns(variant, state, reader);
    if variant.count_turns {
        let me = &mut state.readers[reader];
        me.turns += 1;
        if usize::from(me.turns) > REGIONS {
            return Err(format!(
                "reader {reader} needs more turns than there are regions"
            ));
        }
    }
    Ok(())
}

fn drop_between_turns(variant: &Variant, state: &mut State, reader: usize) {
    if variant.breaks(Broken::LeasesDroppedBetweenTurns) {
        let held = match state.readers[reader].snapshot {
            NONE => 0,
            snapshot => state.generation(snapshot).regions,
        };
        state.release(variant, reader, !held);
    }
}

/// R2's end, and R4: only now is the old snapshot dropped, and with it the regions that only it used.
fn complete(variant: &Variant, state: &mut State, reader: usize) -> Result<(), String> {
    let me = &mut state.readers[reader];
    let regions = state.generations[usize::from(me.seen)].regions;
    if me.snapshot != NONE && me.seen < me.snapshot {
        return Err(format!("reader {reader} goes back"));
    }
    if variant.cache {
        if me.cache_stale & regions != 0 {
            return Err(format!(
                "reader {reader} uses a cached chunk of a region's earlier life"
            ));
        }
        me.cached |= regions;
    }
    me.snapshot = me.seen;
    me.seen = NONE;
    me.before = NONE;
    me.at = At::Idle;
    me.leased_now = false;
    me.turns = 0;
    me.imagined &= regions;
    state.release(variant, reader, !regions);
    Ok(())
}

/// [`Broken::RecheckedBeforeLock`]: true if the lock may be taken now.
fn recheck(state: &State, me: &mut Reader) -> bool {
    if me.rechecked {
        return true;
    }
    if state.head == me.seen {
        me.rechecked = true;
    } else {
        me.start_over();
    }
    false
}
