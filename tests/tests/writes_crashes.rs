//! What was acknowledged survives kill -9 and a power cut; what was not is all there or
//! not at all.
//!
//! Longer with `SHERWOOD_POWER_CUTS`, `SHERWOOD_KILLS` (how many, of each kind) and `SHERWOOD_SEED`.
use std::path::{Path, PathBuf};
use std::time::Duration;

use sherwood_tests::needs;
use sherwood_tests::writes::crash::{self, Crash, Kill, KillRecovery, Plan, PowerCut};
use sherwood_tests::writes::load;
use sherwood_tests::writes::power::{Disk, Kind};
use sherwood_tests::writes::sherwood::Sherwood;
use tempfile::TempDir;

/// A number from the environment, or what `make test` does.
fn asked(name: &str, or: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(or, |text| text.parse().expect("a number"))
}

fn plan(rounds: u64) -> Plan {
    Plan {
        rounds,
        writers: 8,
        accounts: 10,
        longest: Duration::from_millis(60),
        seed: asked("SHERWOOD_SEED", 1),
    }
}

/// Directories for a run directory and books, which no crash reaches, and for a state.
struct Beside {
    memory: TempDir,
    disk: TempDir,
}

impl Beside {
    fn new() -> Self {
        Self {
            memory: tempfile::tempdir_in("/dev/shm").expect("a tmpfs"),
            disk: tempfile::tempdir().expect("a directory"),
        }
    }

    fn run_dir(&self) -> PathBuf {
        self.memory.path().join("run")
    }

    fn books(&self) -> &Path {
        self.disk.path()
    }

    fn store(&self, state_dir: &Path, plan: Plan) -> Sherwood {
        Sherwood::new(state_dir, &self.run_dir(), &load::beginning(plan.accounts))
    }
}

fn survives(name: &str, crash: &mut dyn Crash, plan: Plan) {
    let beside = Beside::new();
    let mut store = beside.store(&beside.disk.path().join("state"), plan);
    let tally = crash::run(&mut store, crash, beside.books(), plan);
    let tally = tally.unwrap_or_else(|what| panic!("{name}: {what}"));
    needs::tell(format_args!("{name}: {tally}"));
    assert!(
        tally.settled.done > plan.rounds,
        "{name} did too little: {tally}"
    );
}

#[test]
fn nothing_acknowledged_is_lost_to_a_kill() {
    let kills = asked("SHERWOOD_KILLS", 100);
    survives("killed under load", &mut Kill, plan(kills));
}

#[test]
fn nothing_acknowledged_is_lost_to_kills_during_recovery() {
    let kills = asked("SHERWOOD_KILLS", 50);
    survives("killed in recovery", &mut KillRecovery, plan(kills));
}

fn survives_power_cuts(kind: Kind) {
    let name = format!("power cut on {}", kind.name());
    let Some(mut disk) = Disk::new(&name, kind, 400 << 20) else {
        return;
    };
    let plan = plan(asked("SHERWOOD_POWER_CUTS", 200) / 2);
    let beside = Beside::new();
    let mut store = beside.store(&disk.path().join("state"), plan);
    let tally = crash::run(&mut store, &mut PowerCut(&mut disk), beside.books(), plan);
    let tally = tally.unwrap_or_else(|what| panic!("{name}: {what}"));
    needs::tell(format_args!("{name}: {tally}"));
    assert!(
        tally.settled.done > plan.rounds,
        "{name} did too little: {tally}"
    );
}

#[test]
fn nothing_acknowledged_is_lost_to_a_power_cut_on_xfs() {
    survives_power_cuts(Kind::Xfs);
}

#[test]
fn nothing_acknowledged_is_lost_to_a_power_cut_on_ext4() {
    survives_power_cuts(Kind::Ext4);
}
