//! The lease protocol as designed, alone and with each rule broken.

use super::{Broken, Leases, Variant};
use crate::{assert_caught, assert_safe};

/// Two readers without forks, threads, store buffer or cache.
const PLAIN: Variant = Variant {
    fork: false,
    threads: false,
    copier: false,
    store_buffer: false,
    cache: false,
    count_turns: false,
    drop_first: false,
    broken: None,
};

const FORK: Variant = Variant {
    fork: true,
    ..PLAIN
};

const THREADS: Variant = Variant {
    threads: true,
    ..PLAIN
};

const COPIER: Variant = Variant {
    copier: true,
    ..PLAIN
};

const STORE_BUFFER: Variant = Variant {
    store_buffer: true,
    ..PLAIN
};

const CACHE: Variant = Variant {
    cache: true,
    ..PLAIN
};

const COUNT_TURNS: Variant = Variant {
    count_turns: true,
    ..PLAIN
};

#[test]
fn two_readers_are_safe_when_any_may_be_killed() {
    assert_safe("plain", &Leases(PLAIN));
}

#[test]
fn a_snapshot_held_over_a_fork_is_safe() {
    assert_safe("fork", &Leases(FORK));
}

#[test]
fn two_threads_may_share_one_table_of_leases() {
    assert_safe("threads", &Leases(THREADS));
}

#[test]
fn a_head_in_the_store_buffer_is_safe() {
    assert_safe("store buffer", &Leases(STORE_BUFFER));
}

#[test]
fn a_reader_without_leases_never_accepts_a_spoilt_copy() {
    assert_safe("copier", &Leases(COPIER));
}

#[test]
fn a_cache_that_ends_with_its_leases_is_safe() {
    assert_safe("cache", &Leases(CACHE));
}

#[test]
fn a_refresh_ends_within_one_turn_per_region() {
    assert_safe("count turns", &Leases(COUNT_TURNS));
}

/// R4 keeps the old snapshot until the new one is complete, for its user's sake. No safety hangs on it.
#[test]
fn a_reader_may_drop_its_snapshot_before_it_refreshes() {
    let drop_first = Variant {
        drop_first: true,
        ..PLAIN
    };
    assert_safe("drop first", &Leases(drop_first));
}

/// Without a fork nobody shares a lock, so only a fork can tell unlocking from unmapping.
#[test]
fn unlocking_is_safe_as_long_as_nobody_forks() {
    let unlocking = Variant {
        broken: Some(Broken::Unlocks),
        ..PLAIN
    };
    assert_safe("unlocks, no fork", &Leases(unlocking));
}

#[test]
fn all_of_it_together_is_safe() {
    if std::env::var_os("SHERWOOD_TORTURE").is_none() {
        println!("not run: needs SHERWOOD_TORTURE=1");
        return;
    }
    let all = Variant {
        fork: true,
        store_buffer: true,
        cache: true,
        count_turns: true,
        ..PLAIN
    };
    assert_safe("fork, store buffer, cache, count turns", &Leases(all));
    let copying = Variant {
        copier: true,
        store_buffer: true,
        cache: true,
        count_turns: true,
        ..PLAIN
    };
    assert_safe("copier, store buffer, cache, count turns", &Leases(copying));
}

/// Breaks each rule in the variant where it matters.
fn assert_each_is_caught(table: &[(Broken, Variant, &str)]) {
    for &(broken, variant, expected) in table {
        let variant = Variant {
            broken: Some(broken),
            ..variant
        };
        assert_caught(&format!("{broken:?}"), &Leases(variant), expected);
    }
}

const HELD: &str = "holds was rewritten";
const ROOT: &str = "reads a root that was rewritten";
const TURNS: &str = "needs more turns than there are regions";
const STUCK: &str = "cannot finish while all others are stopped";
const COPY: &str = "accepts a copy of a region that was rewritten";

#[test]
fn every_broken_rule_of_acquiring_is_caught() {
    assert_each_is_caught(&[
        (Broken::RootNotRechecked, PLAIN, ROOT),
        (Broken::RegionsNotRechecked, PLAIN, HELD),
        (Broken::RecheckedBeforeLock, PLAIN, ROOT),
        (Broken::RefusalIgnored, PLAIN, ROOT),
        (Broken::OnlyRootLeased, PLAIN, HELD),
        (Broken::LeasesDroppedBetweenTurns, PLAIN, STUCK),
        (Broken::EqualGenerations, COUNT_TURNS, TURNS),
    ]);
}

#[test]
fn every_broken_rule_of_holding_is_caught() {
    assert_each_is_caught(&[
        (Broken::Unlocks, FORK, "the child holds was rewritten"),
        (Broken::TrustsOtherThread, THREADS, HELD),
        (Broken::CacheOutlivesLease, CACHE, "a cached chunk"),
        (Broken::LeaseNotKept, PLAIN, HELD),
    ]);
}

#[test]
fn every_broken_rule_of_publishing_is_caught() {
    assert_each_is_caught(&[
        (Broken::OverwritesPublished, PLAIN, ROOT),
        (Broken::RootStraddles, PLAIN, ROOT),
        (Broken::DroppedBeforeStore, PLAIN, ROOT),
        (Broken::FailureKeepsDrops, PLAIN, HELD),
    ]);
}

#[test]
fn every_broken_rule_of_probing_is_caught() {
    assert_each_is_caught(&[
        (Broken::NotProbed, PLAIN, ROOT),
        (Broken::ProbeOnlyAsks, STORE_BUFFER, ROOT),
        (Broken::LockHeldPastPublish, PLAIN, STUCK),
        (Broken::LockNeverReleased, PLAIN, STUCK),
    ]);
}

#[test]
fn every_broken_rule_of_giving_up_is_caught() {
    assert_each_is_caught(&[
        (Broken::NotGivenUp, COPIER, COPY),
        (Broken::GivenUpLate, COPIER, COPY),
        (Broken::GivenUpOneLess, COPIER, COPY),
        (Broken::CheckedBeforeCopy, COPIER, COPY),
        (Broken::BelievesCopiedRoot, COPIER, COPY),
    ]);
}
