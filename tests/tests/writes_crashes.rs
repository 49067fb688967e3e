//! What was acknowledged survives kill -9, a power cut and death at every named step; what was not is all there or
//! not at all.
//!
//! Longer with `SHERWOOD_POWER_CUTS`, `SHERWOOD_KILLS` (how many, of each kind) and `SHERWOOD_SEED`.
use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::SmallRng;
use sherwood_store::checkpoint::Step;
use sherwood_tests::daemon::LONG;
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
    /// Where [`failpoints`] look.
    die: PathBuf,
    steps: PathBuf,
    /// Where the daemon that runs is to die, and how often one has died there before.
    armed: Option<(String, u64)>,
    next: VecDeque<(String, u64)>,
    lived: Vec<String>,
}

impl Die {
    fn new(beside: &Beside) -> Self {
        Self {
            die: beside.books().join("die"),
            steps: beside.books().join("steps"),
            armed: None,
            next: VecDeque::new(),
            lived: Vec::new(),
        }
    }

    fn arm(&mut self) {
        self.armed = self.next.pop_front().map(|(step, nth)| {
            failpoints::arm(&self.die, &step, nth);
            let before = failpoints::deaths(&self.steps, &step);
            (step, before)
        });
    }

    fn has_died(&self) -> bool {
        let armed = self.armed.as_ref();
        armed.is_some_and(|(step, before)| failpoints::deaths(&self.steps, step) > *before)
    }
}

impl Crash for Die {
    fn crash(&mut self, store: &mut dyn Store, rng: &mut SmallRng) -> Result<(), String> {
        // Some load in any case, also where it died at its start and is another one by now.
        thread::sleep(Duration::from_millis(rng.random_range(1..30)));
        let begun = Instant::now();
        while self.armed.is_some() && !self.has_died() && begun.elapsed() < LONG {
            thread::sleep(Duration::from_millis(1));
        }
        if !self.has_died() {
            let lived = |(step, _)| format!("{step}, but said:\n{}", store.said());
            self.lived.extend(self.armed.take().map(lived));
        }
        store.kill();
        self.arm();
        Ok(())
    }
}

/// A life comes to these once, or they are behind a whole checkpoint: the second death is the first one of another life.
fn comes_late(step: &str) -> bool {
    step.starts_with("start: ") || step.starts_with("checkpoint: ")
}

fn survives_death_at(steps: &BTreeSet<String>) {
    let beside = Beside::new();
    let mut crash = Die::new(&beside);
    for step in steps {
        let nths = if comes_late(step) { [1, 1] } else { [1, 2] };
        crash.next.extend(nths.map(|nth| (step.clone(), nth)));
    }
    crash.arm();
    let plan = plan(2 * steps.len() as u64);
    let state = beside.disk.path().join("state");
    let mut store = beside
        .store(&state, plan)
        .with_failpoints(&crash.die, &crash.steps);
    let tally = crash::run(&mut store, &mut crash, beside.books(), plan);
    let tally = tally.unwrap_or_else(|what| panic!("{:?}: {what}", crash.armed));
    needs::tell(format_args!(
        "died twice at each of {} steps: {tally}",
        steps.len()
    ));
    assert!(
        crash.lived.is_empty(),
        "never came to {}",
        crash.lived.join("\n")
    );
}

#[test]
fn nothing_acknowledged_is_lost_to_death_at_any_step_of_a_checkpoint() {
    survives_death_at(&Step::ALL.map(|step| step.name().to_owned()).into());
}

#[test]
fn nothing_acknowledged_is_lost_to_death_at_any_other_named_step() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("a workspace");
    let mut steps = failpoints::written(&sources.join("daemon/src"));
    steps.append(&mut failpoints::written(&sources.join("store/src")));
    assert!(steps.len() > 20, "{steps:?}");
    survives_death_at(&steps);
}
