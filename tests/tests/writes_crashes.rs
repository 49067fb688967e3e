//! What was acknowledged survives kill -9, a power cut and death at every named step; what was not is all there or
//! not at all.
//!
//! Longer with `SHERWOOD_POWER_CUTS`, `SHERWOOD_KILLS` (how many, of each kind) and `SHERWOOD_SEED`.
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use sherwood_tests::needs;
use sherwood_tests::writes::crash::{self, Crash, Kill, KillRecovery, Plan, PowerCut};
use sherwood_tests::writes::failpoints;
use sherwood_tests::writes::load;
use sherwood_tests::writes::power::{Disk, Kind};
use sherwood_tests::writes::sherwood::Sherwood;
use sherwood_tests::writes::way::Store;
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

/// Waits for the daemon's own death, then has the next one die elsewhere.
struct Die {
    file: PathBuf,
    next: VecDeque<(String, u64)>,
    died: u64,
}

impl Crash for Die {
    fn crash(&mut self, store: &mut dyn Store, _: &mut SmallRng) -> Result<(), String> {
        let begun = Instant::now();
        // Longer than a checkpoint waits under load; a step that is not come to is not died at.
        while store.is_alive() && begun.elapsed() < Duration::from_millis(2000) {
            thread::sleep(Duration::from_millis(1));
        }
        self.died += u64::from(!store.is_alive());
        store.kill();
        if let Some((step, nth)) = self.next.pop_front() {
            failpoints::arm(&self.file, &step, nth);
        }
        Ok(())
    }
}

#[test]
fn nothing_acknowledged_is_lost_to_death_at_any_named_step() {
    let beside = Beside::new();
    let (die, steps) = (beside.books().join("die"), beside.books().join("steps"));
    let state = beside.disk.path().join("state");
    let first = plan(2);
    let mut store = beside.store(&state, first).with_failpoints(&die, &steps);
    // Which steps there are: those that a daemon comes to in a few seconds of load and two starts.
    let mut crash = Die {
        file: die.clone(),
        next: VecDeque::new(),
        died: 0,
    };
    let looked = crash::run(&mut store, &mut crash, beside.books(), first);
    looked.unwrap_or_else(|what| panic!("{what}"));
    let steps = failpoints::noted(&steps);
    assert!(
        steps.iter().any(|step| step.starts_with("log:")),
        "{steps:?}"
    );

    // Each half on a state of its own, at the same time: most of it is waiting.
    let died = thread::scope(|scope| {
        let (first, second): (Vec<_>, Vec<_>) = steps
            .iter()
            .enumerate()
            .partition(|(place, _)| place % 2 == 0);
        let halves = [first, second].map(|steps| {
            let steps: Vec<&str> = steps.into_iter().map(|(_, step)| step.as_str()).collect();
            scope.spawn(move || dies_at(&steps))
        });
        let died = halves.map(|half| half.join().expect("it does not panic"));
        died.iter().sum::<u64>()
    });
    assert!(died >= steps.len() as u64, "died {died} times at {steps:?}");
}

/// Twice at each step, under load. How often it came to it.
fn dies_at(steps: &[&str]) -> u64 {
    let beside = Beside::new();
    let (die, noted) = (beside.books().join("die"), beside.books().join("steps"));
    let state = beside.disk.path().join("state");
    let mut crash = Die {
        file: die.clone(),
        next: VecDeque::new(),
        died: 0,
    };
    for step in steps {
        crash
            .next
            .extend([1, 2].map(|nth| ((*step).to_owned(), nth)));
    }
    let plan = plan(crash.next.len() as u64 + 1);
    let mut store = beside.store(&state, plan).with_failpoints(&die, &noted);
    let tally = crash::run(&mut store, &mut crash, beside.books(), plan);
    let tally = tally.unwrap_or_else(|what| panic!("{steps:?}: {what}"));
    let died = crash.died;
    needs::tell(format_args!(
        "died {died} times under load at {} steps: {tally}",
        steps.len()
    ));
    died
}
