//! One writer of large rows, alone with a daemon on two directories, so that a disk is soon full and every acknowledged row is known.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use sherwood_client::Reader;
use sherwood_client::write::{Address, Options, Outcome, Transaction, Writer};

use super::sherwood::rows_of;
use super::transaction::Rows;
use crate::daemon::{Daemon, LONG, command};

/// Of each row; random, so that no checkpoint is smaller than what it holds.
const ROW_BYTES: usize = 100 << 10;

/// A daemon's directories, and what its one writer was told.
pub struct Lone {
    state: PathBuf,
    run: PathBuf,
    flags: Vec<OsString>,
    rng: SmallRng,
    /// Transactions that were made.
    number: i64,
    acknowledged: Rows,
    daemon: Option<Daemon>,
    writer: Option<Writer>,
    refusals: BTreeSet<String>,
}

/// A transaction, and what it does to the rows.
#[derive(Clone, Debug)]
pub struct Change {
    transaction: Transaction,
    key: String,
    /// `None`: it is deleted.
    number: Option<i64>,
}

impl Lone {
    /// Without a daemon yet.
    ///
    /// # Panics
    ///
    /// If the state directory cannot be made.
    #[must_use]
    pub fn new(state: PathBuf, run: PathBuf, flags: &[&str]) -> Self {
        fs::create_dir_all(&state).expect("a state directory");
        let flags = ["--cluster-id", "c"].iter().chain(flags);
        Self {
            state,
            run,
            flags: flags.map(OsString::from).collect(),
            rng: SmallRng::seed_from_u64(1),
            number: 0,
            acknowledged: BTreeMap::new(),
            daemon: None,
            writer: None,
            refusals: BTreeSet::new(),
        }
    }

    /// Starts a daemon, and waits for nothing.
    #[must_use]
    pub fn spawn(&self) -> Daemon {
        let dirs: [OsString; 4] = [
            "--state-dir".into(),
            self.state.clone().into(),
            "--run-dir".into(),
            self.run.clone().into(),
        ];
        Daemon::spawn(command(dirs.into_iter().chain(self.flags.iter().cloned())))
    }

    /// Kills the daemon, if there is one, and starts one.
    pub fn start(&mut self) {
        self.stop();
        self.serve(self.spawn().ready());
    }

    /// Goes on with this daemon, which is ready.
    ///
    /// # Panics
    ///
    /// If it cannot be connected to.
    pub fn serve(&mut self, daemon: Daemon) {
        self.daemon = Some(daemon);
        let options = Options::default().deadline(Duration::from_secs(5));
        let socket = Address::Socket(self.run.join("c.sock"));
        self.writer = Some(Writer::connect_with(socket, options).expect("connects"));
    }

    /// Kills the daemon.
    pub fn stop(&mut self) {
        self.writer = None;
        self.daemon = None;
    }

    /// Starts from the state directory alone, as after a reboot.
    ///
    /// # Panics
    ///
    /// If there is no run directory.
    pub fn start_from_the_files(&mut self) {
        self.stop();
        fs::remove_dir_all(&self.run).expect("a tmpfs that a reboot empties");
        self.start();
    }

    /// The daemon, which is then no longer this one's.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn take_daemon(&mut self) -> Daemon {
        self.writer = None;
        self.daemon.take().expect("started")
    }

    /// The daemon.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("started")
    }

    /// The state directory.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The run directory.
    #[must_use]
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// Rows that were acknowledged and not deleted since.
    #[must_use]
    pub fn rows(&self) -> &Rows {
        &self.acknowledged
    }

    /// Why anything was refused.
    #[must_use]
    pub fn refusals(&self) -> &BTreeSet<String> {
        &self.refusals
    }

    fn change(&mut self, op: &Value, key: String, is_there: bool) -> Change {
        let line = json!({"id": format!("t{}", self.number), "ops": [op]}).to_string();
        Change {
            transaction: Transaction::from_json(&line).expect("a transaction"),
            key,
            number: is_there.then_some(self.number),
        }
    }

    /// A put of a large row.
    pub fn put(&mut self, key: impl Into<String>) -> Change {
        self.number += 1;
        let key = key.into();
        let text: String = (0..ROW_BYTES)
            .map(|_| char::from(self.rng.random_range(b' '..b'~')))
            .collect();
        let row = json!({"cid": key, "size": self.number, "providers": [text]});
        self.change(&json!({"put": "content", "row": row}), key, true)
    }

    /// A put of one of so many rows.
    pub fn overwrite(&mut self, rows: u64) -> Change {
        let key = self.rng.random_range(0..rows);
        self.put(format!("k{key}"))
    }

    /// A deletion.
    pub fn delete(&mut self, key: impl Into<String>) -> Change {
        self.number += 1;
        let key = key.into();
        self.change(&json!({"delete": "content", "key": key}), key, false)
    }

    /// Asks for a change, once.
    ///
    /// # Panics
    ///
    /// If nobody is connected.
    pub fn ask(&mut self, change: &Change) -> Outcome {
        let writer = self.writer.as_ref().expect("connected");
        let outcome = writer.apply(change.transaction.clone());
        let outcome = outcome.expect("it is sent");
        match (&outcome, change.number) {
            (Outcome::Done { .. }, Some(number)) => {
                self.acknowledged.insert(change.key.clone(), number);
            }
            (Outcome::Done { .. }, None) => {
                self.acknowledged.remove(&change.key);
            }
            (Outcome::Refused { reason, .. }, _) => {
                self.refusals.insert(reason.clone());
            }
            (Outcome::Unknown { .. }, _) => {}
        }
        outcome
    }

    /// Is it done? A refusal is kept in [`refusals`](Self::refusals).
    ///
    /// # Panics
    ///
    /// If nobody knows, which no full disk is a reason for.
    pub fn is_done(&mut self, change: &Change) -> bool {
        match self.ask(change) {
            Outcome::Done { .. } => true,
            Outcome::Refused { .. } => false,
            Outcome::Unknown { reason, .. } => panic!("nobody knows: {reason}"),
        }
    }

    /// Overwrites so many rows, or until one is not done.
    ///
    /// # Errors
    ///
    /// What was not done, and why.
    pub fn write(&mut self, most: usize, rows: u64) -> Result<(), Box<(Outcome, Change)>> {
        for _ in 0..most {
            let change = self.overwrite(rows);
            let outcome = self.ask(&change);
            if !matches!(outcome, Outcome::Done { .. }) {
                return Err(Box::new((outcome, change)));
            }
        }
        Ok(())
    }

    /// Asks until it is done, or for so long in vain.
    pub fn is_done_within(&mut self, change: &Change, patience: Duration) -> bool {
        let began = Instant::now();
        while !self.is_done(change) {
            if began.elapsed() > patience {
                return false;
            }
            thread::sleep(Duration::from_millis(20));
        }
        true
    }

    /// Asks until it is done.
    ///
    /// # Panics
    ///
    /// If it never is.
    pub fn is_done_at_last(&mut self, change: &Change, when: &str) {
        let is_done = self.is_done_within(change, LONG);
        assert!(is_done, "{when}: {:?}", self.refusals);
    }

    /// What was acknowledged is what readers see, and nothing else.
    ///
    /// # Panics
    ///
    /// If not.
    pub fn check(&self, when: &str) {
        let snapshot = Reader::open(self.run.join("c.arrow")).and_then(|reader| reader.snapshot());
        let rows = rows_of(&snapshot.expect("a snapshot")).expect("rows");
        assert_eq!(rows, self.acknowledged, "{when}");
    }
}
