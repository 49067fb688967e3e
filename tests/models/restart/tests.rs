//! One daemon after another as designed, and with each rule broken.

use super::{Broken, Deletes, Kind, Restart, Variant};
use crate::{assert_caught, assert_safe};

/// As designed: one reader that waits and one that polls, nobody meddles with the directory.
const DESIGNED: Variant = Variant {
    readers: [Kind::Waiter, Kind::Poller],
    deletes: Deletes::Never,
    directory_goes: false,
    pollers_look: false,
    mark_in_futex_word: false,
    broken: &[],
};

/// The same with two waiters.
const WAITERS: Variant = Variant {
    readers: [Kind::Waiter, Kind::Waiter],
    ..DESIGNED
};

/// Waiters that rely on the wake alone, as they could if the futex word had the mark.
const WOKEN: Variant = Variant {
    mark_in_futex_word: true,
    broken: &[Broken::NoTimeout],
    ..WAITERS
};

#[test]
fn waiters_and_pollers_converge_whatever_is_killed() {
    assert_safe("as designed", &Restart(DESIGNED));
}

#[test]
fn a_file_deleted_under_a_serving_daemon_comes_back_and_all_converge() {
    let deletes = Variant {
        deletes: Deletes::UnderTheLast,
        ..DESIGNED
    };
    assert_safe("deleted while served", &Restart(deletes));
}

#[test]
fn waiters_converge_over_any_deletion_and_any_loss_of_the_directory() {
    let meddled = Variant {
        deletes: Deletes::Always,
        directory_goes: true,
        ..WAITERS
    };
    assert_safe("deletes, directory goes, waiters", &Restart(meddled));
}

#[test]
fn pollers_converge_over_the_same_if_they_look_at_the_path_now_and_then() {
    let meddled = Variant {
        readers: [Kind::Poller, Kind::Poller],
        deletes: Deletes::Always,
        directory_goes: true,
        pollers_look: true,
        ..DESIGNED
    };
    assert_safe(
        "deletes, directory goes, pollers that look",
        &Restart(meddled),
    );
}

/// What the sweep is worth by itself: no timeout is needed to get past a crash between the rename and the wake.
#[test]
fn with_the_mark_in_the_futex_word_the_wake_alone_would_do() {
    assert_safe("mark in the futex word, no timeout", &Restart(WOKEN));
}

const STAYS: &str = "stays for ever";

#[test]
fn every_broken_rule_of_taking_over_is_caught() {
    let table: [(&str, &'static [Broken], &str); 4] = [
        (
            "no daemon lock",
            &[Broken::NoDaemonLock],
            "two daemons write",
        ),
        (
            "mark before rename",
            &[Broken::MarkBeforeRename],
            "the file at the path is marked",
        ),
        (
            "no sweep: a poller is left behind",
            &[Broken::NoSweep],
            "Poller 1 stays for ever",
        ),
        (
            "generations start again",
            &[Broken::GenerationsStartAgain],
            "goes back",
        ),
    ];
    for (name, broken, expected) in table {
        assert_caught(name, &Restart(Variant { broken, ..DESIGNED }), expected);
    }
}

#[test]
fn every_broken_rule_of_waking_is_caught() {
    let no_timeout = Variant {
        broken: &[Broken::NoTimeout],
        ..WAITERS
    };
    assert_caught(
        "no timeout: the mark slips past a wait",
        &Restart(no_timeout),
        STAYS,
    );
    let early = Variant {
        broken: &[Broken::NoTimeout, Broken::WakeBeforeMark],
        ..WOKEN
    };
    assert_caught("wake before mark", &Restart(early), STAYS);
    let no_sweep = Variant {
        broken: &[Broken::NoTimeout, Broken::NoSweep],
        ..WOKEN
    };
    assert_caught("no sweep and no timeout", &Restart(no_sweep), STAYS);
}

#[test]
fn a_directory_that_goes_needs_readers_that_look_at_the_path() {
    let goes = Variant {
        directory_goes: true,
        ..DESIGNED
    };
    assert_caught(
        "directory goes, a poller",
        &Restart(goes),
        "Poller 1 stays for ever",
    );
    let untimed = Variant {
        directory_goes: true,
        ..WOKEN
    };
    assert_caught("directory goes, no timeout", &Restart(untimed), STAYS);
}

#[test]
fn a_deleted_file_needs_a_beat_and_readers_that_look_at_the_path() {
    let no_beat = Variant {
        deletes: Deletes::UnderTheLast,
        broken: &[Broken::NoBeat],
        ..WAITERS
    };
    assert_caught("deleted, no beat", &Restart(no_beat), "ends without a file");
    let unserved = Variant {
        deletes: Deletes::Always,
        ..DESIGNED
    };
    let name = "deleted while no daemon lives, a poller";
    assert_caught(name, &Restart(unserved), "Poller 1 stays for ever");
    let forgets = Variant {
        deletes: Deletes::UnderTheLast,
        broken: &[Broken::MarkForgotten],
        ..DESIGNED
    };
    assert_caught("the mark forgotten", &Restart(forgets), "Content");
}
