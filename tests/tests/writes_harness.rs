//! The crash tests find what a careless store loses, and nothing in a careful one.
//!
//! The store is a stand-in (`writes::stand_in`): what is shown here is that the harness can be believed when it finds
//! nothing in the daemon.

use std::path::Path;
use std::time::Duration;

use sherwood_tests::needs;
use sherwood_tests::writes::crash::{self, Crash, Kill, KillRecovery, Plan, PowerCut, Tally};
use sherwood_tests::writes::load;
use sherwood_tests::writes::power::{Disk, Kind};
use sherwood_tests::writes::stand_in::{How, StandIn};

const PLAN: Plan = Plan {
    rounds: 25,
    writers: 4,
    accounts: 6,
    longest: Duration::from_millis(30),
    seed: 1,
};

fn crashed(how: How, crash: &mut dyn Crash, files: &Path, plan: Plan) -> Result<Tally, String> {
    let beside = tempfile::tempdir().expect("a directory");
    let socket = beside.path().join("socket");
    let mut store = StandIn::new(files, &socket, how, load::beginning(plan.accounts));
    crash::run(&mut store, crash, beside.path(), plan)
}

fn killed(how: How, crash: &mut dyn Crash, seed: u64) -> Result<Tally, String> {
    let files = tempfile::tempdir().expect("a directory");
    crashed(how, crash, files.path(), Plan { seed, ..PLAN })
}

/// Finds the fault within a few seeds: that a crash hits the moment is likely, not certain.
fn is_found(what: &str, mut run: impl FnMut(u64) -> Result<Tally, String>) {
    let found = (1..=8).find_map(|seed| run(seed).err());
    let found = found.unwrap_or_else(|| panic!("{what} was not found"));
    assert!(found.contains(": L"), "{what}: {found}");
}

#[test]
fn kills_find_nothing_in_a_store_that_syncs() {
    for crash in [&mut Kill as &mut dyn Crash, &mut KillRecovery] {
        let tally = killed(How::Synced, crash, 1).expect("nothing is wrong");
        assert!(
            tally.settled.done > 50 && tally.settled.refused > 10,
            "{tally}"
        );
        assert!(tally.settled.unknown > 5, "{tally}");
        needs::tell(format_args!("stand-in, killed: {tally}"));
    }
}

#[test]
fn kills_find_a_store_that_answers_before_the_kernel_has_it() {
    is_found("a buffer", |seed| killed(How::Buffered, &mut Kill, seed));
}

#[test]
fn kills_find_a_store_that_logs_one_operation_at_a_time() {
    is_found("a torn transaction", |seed| {
        killed(How::Torn, &mut Kill, seed)
    });
}

#[test]
fn kills_find_a_store_that_does_not_know_an_id_again() {
    is_found("a second time", |seed| {
        killed(How::Forgetful, &mut Kill, seed)
    });
}

/// A kill cannot find a missing sync: that is why the plug is pulled.
#[test]
fn kills_do_not_find_a_missing_sync() {
    killed(How::NotSynced, &mut Kill, 1).expect("the kernel keeps it");
}

#[test]
fn a_power_cut_finds_a_missing_sync_and_nothing_in_a_store_that_syncs() {
    for kind in Kind::ALL {
        let name = format!("the power cut on {}", kind.name());
        let cut = |how, seed| {
            let mut disk = Disk::new(&name, kind, 400 << 20)?;
            let files = disk.path();
            let plan = Plan { seed, ..PLAN };
            Some(crashed(how, &mut PowerCut(&mut disk), &files, plan))
        };
        let Some(tally) = cut(How::Synced, 1) else {
            return;
        };
        let tally = tally.expect("nothing is wrong");
        assert!(tally.settled.done > 50, "{tally}");
        needs::tell(format_args!("stand-in, {name}: {tally}"));
        is_found("a missing sync", |seed| {
            cut(How::NotSynced, seed).expect("it could")
        });
    }
}
