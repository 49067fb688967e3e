//! Everything at once: writers that are killed and follow each other, readers that are
//! killed, stopped and forked, files and directories that vanish; until enough was read.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::args::Args;
use super::processes::{NEVER, Place, Process};
use super::tally::{Count, Tally};

/// When it is enough.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// Header reads.
    pub reads: u64,
    /// Fully checked snapshots.
    pub checks: u64,
    /// A machine that has not done it by then is too slow.
    pub limit: Duration,
}

/// What was done to the processes.
#[derive(Clone, Debug, Default)]
pub struct Events {
    /// Daemons killed. Another takes over each time.
    pub writer_kills: u64,
    /// Daemons that were stopped and went on.
    pub writer_stops: u64,
    /// Readers killed and replaced.
    pub reader_kills: u64,
    /// Readers that were stopped and went on.
    pub reader_stops: u64,
    /// Snapshot files deleted.
    pub deletions: u64,
    /// Run directories removed, and made again.
    pub removals: u64,
}

/// What came of it.
#[derive(Debug)]
pub struct Summary {
    /// What all processes told.
    pub tally: Tally,
    /// What was done to them.
    pub events: Events,
    /// From the first process to the last.
    pub took: Duration,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |count| self.tally.of(count);
        let rows = [
            ("header reads", of(Count::Reads)),
            ("snapshots fully checked", of(Count::Checks)),
            ("  of them held meanwhile", of(Count::HeldChecks)),
            ("  of them sent to another thread", of(Count::Sent)),
            ("generations acquired", of(Count::Acquired)),
            ("generations published", of(Count::Publishes)),
            ("regions reused", of(Count::Reuses)),
            ("files made", of(Count::Files)),
            ("snapshots of dead daemons copied", of(Count::Copied)),
            ("delays injected", of(Count::Delays)),
            ("writers killed", self.events.writer_kills),
            ("writers stopped", self.events.writer_stops),
            ("readers killed", self.events.reader_kills),
            ("readers stopped", self.events.reader_stops),
            ("forks", of(Count::Forks)),
            ("files deleted", self.events.deletions),
            ("directories removed", self.events.removals),
        ];
        for (what, number) in rows {
            writeln!(f, "{what:<34}{number:>16}")?;
        }
        write!(f, "{:<34}{:>16.1}", "seconds", self.took.as_secs_f64())
    }
}

/// What runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Writer,
    Reader,
    Forker,
}

struct Runner {
    role: Role,
    process: Process,
    stopped_until: Option<Instant>,
    last: Option<u64>,
}

/// Does it all, until the goal is reached.
///
/// # Errors
///
/// The first thing that is wrong, with the seeds; or that the goal was not reached.
pub fn run(place: &Place, seed: u64, goal: Goal) -> Result<Summary, String> {
    let mut chaos = Chaos::new(place, seed);
    let begun = Instant::now();
    for role in [
        Role::Writer,
        Role::Writer,
        Role::Reader,
        Role::Reader,
        Role::Reader,
        Role::Forker,
    ] {
        chaos.start(role)?;
    }
    let enough = |chaos: &Chaos<'_>| {
        let of = |count| chaos.tally.of(count);
        of(Count::Reads) >= goal.reads && of(Count::Checks) >= goal.checks
    };
    while !enough(&chaos) {
        if begun.elapsed() > goal.limit {
            let told = chaos.tally.to_string();
            return Err(format!("too slow: {:?} for{told}, of {goal:?}", goal.limit));
        }
        let pause = chaos.rng.random_range(10..80);
        chaos.listen(Duration::from_millis(pause))?;
        chaos.go_on()?;
        chaos.event()?;
    }
    chaos.end()?;
    Ok(Summary {
        tally: chaos.tally,
        events: chaos.events,
        took: begun.elapsed(),
    })
}

struct Chaos<'p> {
    place: &'p Place,
    seed: u64,
    rng: SmallRng,
    runners: BTreeMap<u64, Runner>,
    started: u64,
    leader: Option<u64>,
    directory_back: Option<Instant>,
    tally: Tally,
    events: Events,
    hear: Sender<(u64, String)>,
    heard: Receiver<(u64, String)>,
}

impl<'p> Chaos<'p> {
    fn new(place: &'p Place, seed: u64) -> Self {
        let (hear, heard) = channel();
        Self {
            place,
            seed,
            rng: SmallRng::seed_from_u64(seed),
            runners: BTreeMap::new(),
            started: 0,
            leader: None,
            directory_back: None,
            tally: Tally::default(),
            events: Events::default(),
            hear,
            heard,
        }
    }

    fn start(&mut self, role: Role) -> Result<(), String> {
        self.started += 1;
        let name = self.started;
        let args = self.args(role);
        let word = match role {
            Role::Writer => "writer",
            Role::Reader => "reader",
            Role::Forker => "forker",
        };
        let hear = self.hear.clone();
        let process = self.place.start_heard_by(word, &args, name, hear, None);
        let runner = Runner {
            role,
            process: process.map_err(|error| error.to_string())?,
            stopped_until: None,
            last: None,
        };
        self.runners.insert(name, runner);
        Ok(())
    }

    fn args(&mut self, role: Role) -> Args {
        let args = self.place.args(self.seed ^ (self.started << 20));
        match role {
            Role::Writer => {
                let delay = [0, 0, 500, 50][self.rng.random_range(0..4)];
                args.with("delay", delay).with("publishes", u64::MAX)
            }
            Role::Reader | Role::Forker => {
                let delay = [0, 200, 20, 4][self.rng.random_range(0..4)];
                let threads = self.rng.random_range(1..4);
                args.with("delay", delay).with("threads", threads)
            }
        }
    }

    /// Takes what the processes say for a time.
    fn listen(&mut self, time: Duration) -> Result<(), String> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok((name, line)) = self.heard.recv_timeout(left) else {
                return Ok(());
            };
            let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
            let number = || rest.parse().ok();
            match word {
                "tally" => {
                    let told = Tally::parse(rest).ok_or(format!("cannot read {line:?}"))?;
                    self.tally.merge(&told);
                }
                "leads" => self.leader = Some(name),
                "final" => {
                    if let Some(runner) = self.runners.get_mut(&name) {
                        runner.last = number();
                    }
                }
                _ => return Err(format!("chaos seed {}: {line}", self.seed)),
            }
        }
    }

    /// Wakes who was stopped long enough, and sees who died by itself.
    fn go_on(&mut self) -> Result<(), String> {
        let now = Instant::now();
        for runner in self.runners.values_mut() {
            if runner.stopped_until.is_some_and(|until| until <= now) {
                runner.process.signal(Signal::SIGCONT);
                runner.stopped_until = None;
            }
        }
        if self.directory_back.is_some_and(|back| back <= now) {
            let _ = fs::create_dir_all(self.place.run_dir()); // a daemon may have been faster
            self.directory_back = None;
        }
        let ended = self
            .runners
            .iter_mut()
            .find_map(|(name, runner)| Some((*name, runner.process.ended()?)));
        if let Some((name, status)) = ended {
            self.listen(Duration::from_millis(500))?; // it may have said why
            let what = self.runners.get(&name).map(|runner| runner.process.what());
            let signal = status.signal();
            let what = what.unwrap_or_default();
            return Err(format!("{what} ended with {status}, signal {signal:?}"));
        }
        Ok(())
    }

    fn event(&mut self) -> Result<(), String> {
        match self.rng.random_range(0..100) {
            0..20 => {
                if let Some(reader) = self.some_reader() {
                    let role = self.end_one(reader);
                    self.events.reader_kills += 1;
                    self.start(role)?;
                }
            }
            20..55 => {
                if let Some(reader) = self.some_reader() {
                    let time = self.rng.random_range(1..300);
                    self.stop(reader, Duration::from_millis(time));
                    self.events.reader_stops += 1;
                }
            }
            55..65 => {
                if let Some(leader) = self.leader.take() {
                    self.end_one(leader);
                    self.events.writer_kills += 1;
                    self.start(Role::Writer)?;
                }
            }
            65..70 => {
                if let Some(leader) = self.leader {
                    let time = self.rng.random_range(1..40);
                    self.stop(leader, Duration::from_millis(time));
                    self.events.writer_stops += 1;
                }
            }
            70..76 => {
                if fs::remove_file(self.place.path()).is_ok() {
                    self.events.deletions += 1;
                }
            }
            76..79 => {
                // A daemon may be making a file in it: then it fails, and is not counted.
                if fs::remove_dir_all(self.place.run_dir()).is_ok() {
                    let time = Duration::from_millis(self.rng.random_range(0..60));
                    self.directory_back = Some(Instant::now() + time);
                    self.events.removals += 1;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn some_reader(&mut self) -> Option<u64> {
        let readers = self
            .runners
            .iter()
            .filter(|(_, runner)| runner.role != Role::Writer && runner.stopped_until.is_none());
        let readers: Vec<u64> = readers.map(|(name, _)| *name).collect();
        let at = self.rng.random_range(0..readers.len().max(1));
        readers.get(at).copied()
    }

    /// kill -9.
    fn end_one(&mut self, name: u64) -> Role {
        let runner = self.runners.remove(&name);
        runner.map_or(Role::Writer, |mut runner| {
            runner.process.kill();
            runner.role
        })
    }

    fn stop(&mut self, name: u64, time: Duration) {
        if let Some(runner) = self.runners.get_mut(&name) {
            runner.process.signal(Signal::SIGSTOP);
            runner.stopped_until = Some(Instant::now() + time);
        }
    }

    /// Everybody ends in peace, and at the same generation.
    fn end(&mut self) -> Result<(), String> {
        fs::create_dir_all(self.place.run_dir()).map_err(|error| error.to_string())?;
        self.directory_back = None;
        for runner in self.runners.values_mut() {
            runner.process.signal(Signal::SIGCONT);
            runner.stopped_until = None;
        }
        let begun = Instant::now();
        let mut told = false;
        loop {
            self.listen(Duration::from_millis(20))?;
            if begun.elapsed() > NEVER {
                return Err(format!("chaos seed {}: somebody does not end", self.seed));
            }
            let Some(leader) = self.leader else { continue };
            let Some(writer) = self.runners.get_mut(&leader) else {
                continue;
            };
            writer.process.tell_to_end();
            if writer.last.is_none() {
                continue;
            }
            let readers = self.runners.values_mut();
            let mut readers: Vec<_> = readers
                .filter(|runner| runner.role != Role::Writer)
                .collect();
            if !told {
                readers
                    .iter_mut()
                    .for_each(|reader| reader.process.tell_to_end());
                told = true;
            }
            if readers.iter().all(|reader| reader.last.is_some()) {
                break;
            }
        }
        self.listen(Duration::from_millis(100))?;
        let finals: Vec<_> = self
            .runners
            .values()
            .filter_map(|runner| Some((runner.last?, runner.process.what())))
            .collect();
        if finals.iter().any(|(last, _)| *last != finals[0].0) {
            return Err(format!("chaos seed {}: not one end: {finals:?}", self.seed));
        }
        Ok(())
    }
}
