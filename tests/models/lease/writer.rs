//! The writer's side of the lease protocol: W3 to W7.
//!
//! What only the writer can see is not a step of its own: choosing what to publish, filling a region that nobody
//! ever read, and reckoning after the store which regions it dropped (that only adds work for the helper, which may
//! be late anyway).

use super::{Broken, Generation, NONE, REGIONS, Regions, State, Variant};
use crate::explorer::Steps;

/// Where the writer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// Between two publishes.
    Idle,
    /// A free region was taken; intact_from is to be raised (W7).
    GiveUp,
    /// A free region was taken and given up; nothing was written to it.
    Rewrite,
    /// A taken region was written to; intact_from is still to be raised ([`Broken::GivenUpLate`]).
    GiveUpLate,
    /// A taken region was written to; the publish can be stored, or fail.
    Publish,
    /// What to publish is settled and its drops are made ([`Broken::DroppedBeforeStore`]).
    Store,
}

/// The writer and its regions. Each region is live, fresh, dropped, under probe, free, or taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Writer {
    at: At,
    /// The region that publishes append to.
    active: u8,
    /// Those of the newest generation.
    live: Regions,
    /// Those never written.
    fresh: Regions,
    /// Those no longer used, not yet probed (W5).
    dropped: Regions,
    /// Those under a probe's write lock (W6).
    pub(super) locked: Regions,
    /// Those probed, to be reused (W6).
    free: Regions,
    /// The first generation that did not use the region. Kept only beside a copying reader.
    pub(super) dropped_by: [u8; REGIONS],
    /// The region that a publish under way took.
    taken: u8,
    /// The regions of a publish whose drops are made.
    settled: Regions,
}

impl Writer {
    pub(super) fn start() -> Writer {
        Writer {
            at: At::Idle,
            active: 0,
            live: 0b001,
            fresh: 0b110,
            dropped: 0,
            locked: 0,
            free: 0,
            dropped_by: [0; REGIONS],
            taken: NONE,
            settled: 0,
        }
    }

    /// Its sets of regions, to be renumbered.
    pub(super) fn sets_mut(&mut self) -> [&mut Regions; 6] {
        [
            &mut self.live,
            &mut self.fresh,
            &mut self.dropped,
            &mut self.locked,
            &mut self.free,
            &mut self.settled,
        ]
    }

    /// The regions it names, to be renumbered.
    pub(super) fn names_mut(&mut self) -> [&mut u8; 2] {
        [&mut self.active, &mut self.taken]
    }
}

/// Everything that the writer and its helper can do.
pub(super) fn steps(variant: &Variant, state: &State, steps: &mut Steps<State>) {
    helper_steps(variant, state, steps);
    let taken = state.writer.taken;
    let mut next = *state;
    match state.writer.at {
        At::Idle => {
            let active = state.writer.active;
            publishes(variant, state, active, steps);
            for region in (0..).take(REGIONS) {
                if state.writer.fresh & (1 << region) != 0 {
                    let mut next = *state;
                    next.writer.fresh &= !(1 << region);
                    publishes(variant, &next, region, steps);
                } else if state.writer.free & (1 << region) != 0 {
                    let mut next = *state;
                    next.writer.free &= !(1 << region);
                    next.writer.taken = region;
                    next.writer.at = match (variant.copier, variant.broken) {
                        (false, _) => At::Rewrite,
                        (true, Some(Broken::NotGivenUp | Broken::GivenUpLate)) => At::Rewrite,
                        (true, _) => At::GiveUp,
                    };
                    // Without a copying reader nothing lies between taking a region and writing to it.
                    if !variant.copier {
                        rewrite(variant, &mut next);
                    }
                    steps.to(|| format!("writer: takes free region {region}"), next);
                }
            }
        }
        At::GiveUp | At::GiveUpLate => {
            // W7. The fence empties the store buffer.
            next.drain();
            next.intact_from = next
                .intact_from
                .max(next.writer.dropped_by[usize::from(taken)]);
            next.writer.at = if state.writer.at == At::GiveUp {
                At::Rewrite
            } else {
                At::Publish
            };
            steps.to(
                || format!("writer: gives up what used region {taken}"),
                next,
            );
        }
        At::Rewrite => {
            rewrite(variant, &mut next);
            steps.to(|| format!("writer: writes to region {taken}"), next);
        }
        At::Publish => {
            publishes(variant, state, taken, steps);
            next.writer.free |= 1 << taken;
            next.writer.taken = NONE;
            next.writer.at = At::Idle;
            steps.to(|| format!("writer: fails, region {taken} stays free"), next);
        }
        At::Store => {
            let regions = state.writer.settled;
            next.writer.settled = 0;
            store(variant, &mut next, taken, regions);
            steps.to(|| format!("writer: stores regions {regions:03b}"), next);
        }
    }
}

/// The helper probes dropped regions, at any moment (W6).
fn helper_steps(variant: &Variant, state: &State, steps: &mut Steps<State>) {
    let writer = state.writer;
    for region in 0..REGIONS {
        let bit = 1 << region;
        let leased = state.leased() & bit != 0 && !variant.breaks(Broken::NotProbed);
        if writer.dropped & bit != 0 && !leased {
            let mut next = *state;
            next.writer.dropped &= !bit;
            match variant.broken {
                Some(Broken::NotProbed | Broken::ProbeOnlyAsks) => next.writer.free |= bit,
                // These probe a region that the head still names. Lock and unlock are one step here, or the refusals
                // in between would be what is caught, and not the reuse.
                Some(Broken::DroppedBeforeStore | Broken::FailureKeepsDrops) => {
                    next.writer.free |= bit;
                }
                // The region counts as free while its lock is still there.
                Some(Broken::LockHeldPastPublish | Broken::LockNeverReleased) => {
                    next.writer.free |= bit;
                    next.writer.locked |= bit;
                }
                _ => next.writer.locked |= bit,
            }
            if !variant.breaks(Broken::ProbeOnlyAsks) {
                // The lock is a locked instruction, and the drop came to the helper after the head (W5).
                next.drain();
            }
            steps.to(|| format!("helper: probes region {region}, free"), next);
        }
        if writer.locked & bit != 0 {
            let may_unlock = match variant.broken {
                Some(Broken::LockHeldPastPublish) => writer.live & bit != 0,
                Some(Broken::LockNeverReleased) => false,
                _ => true,
            };
            if may_unlock {
                let mut next = *state;
                next.writer.locked &= !bit;
                if writer.live & bit == 0 {
                    next.writer.free |= bit;
                }
                steps.to(|| format!("helper: unlocks region {region}"), next);
            }
        }
    }
}

/// New bytes in the taken region.
fn rewrite(variant: &Variant, state: &mut State) {
    state.rewrite(1 << state.writer.taken);
    state.writer.at = if variant.breaks(Broken::GivenUpLate) {
        At::GiveUpLate
    } else {
        At::Publish
    };
}

/// Every publish whose root lies in region `root`, keeping any part of the live regions.
fn publishes(variant: &Variant, state: &State, root: u8, steps: &mut Steps<State>) {
    let live = state.writer.live;
    for keep in (0..1 << REGIONS).filter(|keep| keep & !live == 0) {
        let regions = keep | 1 << root;
        // Two choices of `keep` that differ only in the root's region are one.
        if live & !keep & 1 << root != 0 {
            continue;
        }
        let mut next = *state;
        match variant.broken {
            Some(Broken::DroppedBeforeStore) => {
                next.writer.dropped |= live & !regions;
                next.writer.taken = root;
                next.writer.settled = regions;
                next.writer.at = At::Store;
                let label = || format!("writer: drops {:03b}, not yet stored", live & !regions);
                steps.to(label, next);
                continue;
            }
            Some(Broken::FailureKeepsDrops) if live & !regions != 0 && live & (1 << root) != 0 => {
                let mut failed = next;
                failed.writer.dropped |= live & !regions;
                let label = || format!("writer: fails, but has dropped {:03b}", live & !regions);
                steps.to(label, failed);
            }
            Some(Broken::OverwritesPublished) => next.rewrite(live & 1 << root),
            _ => {}
        }
        store(variant, &mut next, root, regions);
        let label =
            || format!("writer: publishes regions {regions:03b}, the root in region {root}");
        steps.to(label, next);
    }
}

/// W4, and then W5.
fn store(variant: &Variant, state: &mut State, root: u8, regions: Regions) {
    let previous = state.newest();
    let rank = state.known;
    state.generations[usize::from(rank)] = Generation {
        root,
        regions,
        rewritten: 0,
    };
    state.known += 1;
    if variant.store_buffer {
        state.drain();
        state.buffered = rank;
    } else {
        state.head = rank;
    }

    let drops = state.writer.live & !regions;
    if !variant.breaks(Broken::DroppedBeforeStore) {
        state.writer.dropped |= drops;
    }
    state.writer.dropped &= !regions;
    state.writer.free &= !regions;
    state.writer.live = regions;
    state.writer.active = root;
    state.writer.taken = NONE;
    state.writer.at = At::Idle;
    if variant.copier {
        for region in 0..REGIONS {
            if regions & 1 << region != 0 {
                state.writer.dropped_by[region] = 0;
            } else if drops & 1 << region != 0 {
                state.writer.dropped_by[region] = if variant.breaks(Broken::GivenUpOneLess) {
                    previous
                } else {
                    rank
                };
            }
        }
    }
}
