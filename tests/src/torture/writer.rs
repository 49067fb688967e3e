//! A daemon, as far as the snapshot file is concerned: the lock of W1, a log of its
//! generation, and a publisher that is given new rows without end.
//!
//! Two of them may be started for one state: the second waits for the lock and goes on
//! where the first was killed.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use sherwood_client::{OpenError, ReadError, Reader};
use sherwood_daemon::publish::{Options, PublishError, Publisher};
use sherwood_shared::lock;

use super::args::{Args, is_told_to_end};
use super::steps;
use super::tally::{Count, Teller, say};
use crate::rows::{Checker, Model, state_at};

/// Bytes of a region: the smallest that holds a root, its footer, and a few chunks.
pub const REGION_BYTES: u64 = 8 << 10;
/// Bytes of a chunk's body: a few rows.
const CHUNK_BYTES: usize = 1 << 10;
/// Rows of a state, at most; at least a third of it.
const ROWS: usize = 18;
/// Names the one history of these generations.
pub const HISTORY: [u8; 16] = [7; 16];
/// Time between two beats: a daemon's second, shortened.
const BEAT: Duration = Duration::from_millis(15);

/// What a publisher of such states is told.
#[must_use]
pub fn options(run_dir: &Path) -> Options {
    Options {
        run_dir: run_dir.to_owned(),
        cluster_id: super::CLUSTER.to_owned(),
        state_dir: (1, 2),
        history: HISTORY,
        region_bytes: Some(REGION_BYTES),
        chunk_bytes: Some(CHUNK_BYTES),
        mode: 0o644,
    }
}

/// Rows that change at random, a few with each generation.
#[derive(Debug)]
pub struct Rows {
    rng: SmallRng,
    model: Model,
}

impl Rows {
    /// The rows of a state that is published as `generation`.
    #[must_use]
    pub fn new(seed: u64, generation: i64) -> Self {
        let mut rows = Self {
            rng: SmallRng::seed_from_u64(seed),
            model: Model::new(),
        };
        while rows.model.len() < ROWS {
            let key = rows.key();
            rows.model.insert(key, generation);
        }
        rows
    }

    /// All of them.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Changes some: writes, inserts and deletes, rarely all.
    pub fn change(&mut self, generation: i64) {
        let changes = match self.rng.random_range(0..200) {
            0 => ROWS,
            1..20 => 6,
            _ => self.rng.random_range(1..4),
        };
        for _ in 0..changes {
            let key = self.key();
            let near = self.model.range(key.clone()..).next();
            let near = near.map(|(key, _)| key.clone());
            match (self.rng.random_range(0..10), near) {
                (0, Some(near)) if self.model.len() > ROWS / 3 => {
                    self.model.remove(&near);
                }
                (1.., Some(near)) => {
                    self.model.insert(near, generation);
                }
                _ => {}
            }
            if self.model.len() < ROWS {
                self.model.insert(key, generation);
            }
        }
        // Something differs in any case, so that every generation is published.
        if let Some(version) = self.model.values_mut().next() {
            *version = generation;
        }
    }

    fn key(&mut self) -> String {
        let number: u16 = self.rng.random_range(0..400);
        let padding = "x".repeat(usize::from(number % 7) * 5);
        format!("cid-{number:03}-{padding}")
    }
}

/// The generation that may have been published, written before it is: what a daemon's log
/// is for. Survives the process, not the host.
struct Log {
    file: File,
}

impl Log {
    fn open(state_dir: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(state_dir.join("log"))?;
        Ok(Self { file })
    }

    fn read(&self) -> u64 {
        let mut bytes = [0; 8];
        let read = self.file.read_exact_at(&mut bytes, 0);
        read.map_or(0, |()| u64::from_le_bytes(bytes))
    }

    fn write(&self, generation: u64) -> std::io::Result<()> {
        self.file.write_all_at(&generation.to_le_bytes(), 0)
    }
}

/// Waits for the state's lock (W1). It lasts as long as the file is open.
fn lead(state_dir: &Path) -> std::io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(state_dir.join("lock"))?;
    loop {
        match lock::try_exclusive(&file, 0, 1) {
            Ok(()) => return Ok(file),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_micros(500));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Publishes until its standard input is closed; then says which generation is the last,
/// and beats on until it is killed.
///
/// # Errors
///
/// Whatever should not have happened.
pub fn run(args: &Args) -> Result<(), String> {
    let seed = args.get("seed")?;
    let state_dir: PathBuf = args.get("state")?;
    let io = |error: std::io::Error| error.to_string();
    let _lock = lead(&state_dir).map_err(io)?;
    steps::hook(args, seed)?;
    let most: u64 = args.get("publishes")?;
    let mut daemon = Daemon::start(args, seed, &state_dir)?;
    say(&format!("leads {}", daemon.publisher.generation()));
    let mut published = 0;
    while published < most && !is_told_to_end() {
        published += daemon.burst((most - published).min(24))?;
        let idle = daemon.rows.rng.random_range(0..2_000);
        std::thread::sleep(Duration::from_micros(idle));
    }
    daemon.teller.tell();
    say(&format!("final {}", daemon.publisher.generation()));
    loop {
        let before = daemon.publisher.generation();
        daemon.beat()?;
        if daemon.publisher.generation() != before {
            say(&format!("final {}", daemon.publisher.generation()));
        }
        std::thread::sleep(BEAT);
    }
}

struct Daemon {
    log: Log,
    rows: Rows,
    publisher: Publisher,
    checker: Checker,
    teller: Teller,
    beaten: Instant,
}

impl Daemon {
    fn start(args: &Args, seed: u64, state_dir: &Path) -> Result<Self, String> {
        let log = Log::open(state_dir).map_err(|error| error.to_string())?;
        let run_dir = args.run_dir()?;
        let mut teller = Teller::default();
        let mut checker = Checker::default();
        let logged = log.read();
        check_what_is_left(&args.path()?, logged, &mut checker, &mut teller)?;
        let mut generation = logged;
        loop {
            generation += 1;
            log.write(generation).map_err(|error| error.to_string())?;
            let version = i64::try_from(generation).unwrap_or(i64::MAX);
            let rows = Rows::new(seed, version);
            let _ = fs::create_dir_all(&run_dir); // somebody may remove it at any moment
            match Publisher::start(
                options(&run_dir),
                &state_at(rows.model(), version),
                generation,
            ) {
                Ok(publisher) => {
                    teller.tally.one(Count::Publishes);
                    teller.tally.one(Count::Files);
                    return Ok(Self {
                        log,
                        rows,
                        publisher,
                        checker,
                        teller,
                        beaten: Instant::now(),
                    });
                }
                Err(error) if is_homeless(&error) => teller.tally.one(Count::Homeless),
                Err(error) => return Err(format!("cannot start: {error:?}")),
            }
        }
    }

    /// Publishes a few generations, keeps house now and then, beats when it is time.
    fn burst(&mut self, most: u64) -> Result<u64, String> {
        let publishes = self.rows.rng.random_range(1..=most);
        for _ in 0..publishes {
            let generation = self.publisher.generation() + 1;
            // One above: a beat in between may make a file, which is a generation, too.
            let logged = self.log.write(generation + 1);
            logged.map_err(|error| error.to_string())?;
            let version = i64::try_from(generation).unwrap_or(i64::MAX);
            self.rows.change(version);
            let state = state_at(self.rows.model(), version);
            let done = self.publisher.publish(&state);
            match done {
                Ok(Some(done)) if done.generation == generation => {}
                other => return Err(format!("publish {generation}: {other:?}")),
            }
            self.teller.tally.one(Count::Publishes);
            if self.rows.rng.random_range(0..16) == 0 {
                let kept = self.publisher.housekeep();
                kept.map_err(|error| format!("keep house: {error:?}"))?;
            }
        }
        self.checker.check(self.publisher.snapshot())?;
        if self.beaten.elapsed() >= BEAT {
            self.beat()?;
        }
        self.teller.tick();
        Ok(publishes)
    }

    fn beat(&mut self) -> Result<(), String> {
        self.beaten = Instant::now();
        let generation = self.publisher.generation() + 1;
        // A beat republishes the state as it is, which says another generation of itself.
        match self.publisher.beat() {
            Ok(false) => {}
            Ok(true) => {
                self.teller.tally.one(Count::Files);
                self.log
                    .write(generation + 1)
                    .map_err(|error| error.to_string())?;
                self.teller.tally.one(Count::Publishes);
            }
            Err(error) if is_homeless(&error) => self.teller.tally.one(Count::Homeless),
            Err(error) => return Err(format!("beat: {error:?}")),
        }
        Ok(())
    }
}

/// The last snapshot of a killed daemon is whole, and no newer than its log says.
fn check_what_is_left(
    path: &Path,
    logged: u64,
    checker: &mut Checker,
    teller: &mut Teller,
) -> Result<(), String> {
    let left = match Reader::open(path).and_then(|reader| reader.snapshot()) {
        Ok(left) => left,
        Err(ReadError::Open(OpenError::Missing { .. })) => return Ok(()),
        Err(error) => return Err(format!("what is left cannot be read: {error:?}")),
    };
    checker.check(&left)?;
    teller.tally.one(Count::Checks);
    teller.tally.one(Count::Copied);
    if left.generation() > logged {
        let generation = left.generation();
        return Err(format!("{generation} was published, and {logged} logged"));
    }
    Ok(())
}

/// Does it fail because the run directory was removed?
fn is_homeless(error: &PublishError) -> bool {
    match error {
        PublishError::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        PublishError::ReadBack(ReadError::Open(OpenError::Missing { .. })) => true,
        _ => false,
    }
}
