//! The real daemon as a store: its rows are items of `content`, its writers those of the client.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use arrow_array::{Int64Array, RecordBatch, StringArray};
use nix::sys::signal::Signal;
use sherwood_client::import;
use sherwood_client::locate::METADATA_FILE;
use sherwood_client::write::{Address, Options, Outcome, Writer};
use sherwood_client::{Handle, Reader, Snapshot, TableId};
use sherwood_shared::state::State;

use super::failpoints;
use super::transaction::{Answer, Rows, Transaction};
use super::way::{Store, Way};
use crate::daemon::{self, Daemon, LONG};

/// Whose state it is.
pub const CLUSTER: &str = "c";

/// A daemon on two directories.
#[derive(Debug)]
pub struct Sherwood {
    state_dir: PathBuf,
    run_dir: PathBuf,
    /// How long a writer asks again by itself.
    patience: Duration,
    /// Where [`failpoints`] look.
    die: Option<PathBuf>,
    steps: Option<PathBuf>,
    daemon: Option<Daemon>,
}

impl Sherwood {
    /// One that does not run yet, on a new state of these rows.
    ///
    /// # Panics
    ///
    /// If the directories cannot be written.
    #[must_use]
    pub fn new(state_dir: &Path, run_dir: &Path, rows: &Rows) -> Self {
        fs::create_dir_all(state_dir).expect("a state directory");
        let it = Self {
            state_dir: state_dir.to_owned(),
            run_dir: run_dir.to_owned(),
            patience: Duration::from_millis(100),
            die: None,
            steps: None,
            daemon: None,
        };
        import::write_parquet_atomic(&state_of(rows), &it.file()).expect("a state");
        it
    }

    /// Its writers ask again for so long before they say that they do not know.
    #[must_use]
    pub fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Dies where the file `die` says, and notes its steps in another.
    #[must_use]
    pub fn with_failpoints(mut self, die: &Path, steps: &Path) -> Self {
        self.die = Some(die.to_owned());
        self.steps = Some(steps.to_owned());
        self
    }

    /// The public state file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.state_dir.join(format!("state_{CLUSTER}.parquet"))
    }

    /// The metadata file.
    #[must_use]
    pub fn metadata(&self) -> PathBuf {
        self.state_dir.join(METADATA_FILE)
    }

    /// The snapshot file.
    #[must_use]
    pub fn snapshot(&self) -> PathBuf {
        self.run_dir.join(format!("{CLUSTER}.arrow"))
    }

    /// The daemon's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join(format!("{CLUSTER}.sock"))
    }

    /// A writer of the client's.
    ///
    /// # Errors
    ///
    /// It cannot connect.
    pub fn writer(&self) -> Result<Writer, String> {
        let options = Options::default().deadline(self.patience);
        Writer::connect_with(Address::Socket(self.socket()), options).map_err(|error| chain(&error))
    }
}

impl Store for Sherwood {
    fn start(&mut self) -> Result<(), String> {
        self.kill();
        let flags = ["--state-dir".into(), self.state_dir.clone().into()]
            .into_iter()
            .chain(["--run-dir".into(), self.run_dir.clone().into()]);
        let mut command = daemon::command(flags);
        if let Some(die) = &self.die {
            command.env(failpoints::DIE, die);
            // So that it comes to the steps between two segments and to regions that are used again, too.
            command.args(["--log-segment-bytes", "65536", "--region-bytes", "65536"]);
        }
        if let Some(steps) = &self.steps {
            command.env(failpoints::STEPS, steps);
        }
        self.daemon = Some(Daemon::spawn(command));
        Ok(())
    }

    fn ready(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            let Some(daemon) = &mut self.daemon else {
                return Err("it was not started".to_owned());
            };
            // One that had to die, before it was ready or after, is started again.
            let died_as_told = self.die.is_some() && !daemon.is_running();
            if died_as_told && begun.elapsed() < LONG {
                self.start()?;
                continue;
            }
            if daemon.count("ready") > 0 {
                return Ok(());
            }
            if !daemon.is_running() || begun.elapsed() > LONG {
                return Err(format!("it is not ready:\n{}", self.said()));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn may_die(&self) -> bool {
        self.die.is_some()
    }

    fn said(&self) -> String {
        let daemon = self.daemon.as_ref();
        daemon.map_or_else(String::new, |daemon| daemon.lines().join("\n"))
    }

    fn is_alive(&mut self) -> bool {
        self.daemon.as_mut().is_some_and(Daemon::is_running)
    }

    fn freeze(&mut self) {
        if let Some(daemon) = &mut self.daemon
            && daemon.is_running()
        {
            daemon.signal(Signal::SIGSTOP);
        }
    }

    fn kill(&mut self) {
        self.daemon = None; // which kills it and waits for its end
    }

    fn way(&self) -> Result<Box<dyn Way>, String> {
        let reader = Reader::open(self.snapshot()).map_err(|error| chain(&error))?;
        Ok(Box::new(SherwoodWay {
            writer: self.writer()?,
            handle: reader.handle().map_err(|error| chain(&error))?,
        }))
    }

    fn rows(&self) -> Result<(u64, Rows), String> {
        let reader = Reader::open(self.snapshot()).map_err(|error| chain(&error))?;
        let snapshot = reader.snapshot().map_err(|error| chain(&error))?;
        Ok((snapshot.generation(), rows_of(&snapshot)?))
    }

    fn forget_memory(&mut self) {
        let _not_there = fs::remove_dir_all(&self.run_dir);
    }
}

/// A writer and a reader of one daemon.
pub struct SherwoodWay {
    writer: Writer,
    handle: Handle,
}

impl SherwoodWay {
    /// To the daemon with this socket and this snapshot.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn open(socket: &Path, snapshot: &Path, patience: Duration) -> Result<Self, String> {
        let reader = Reader::open(snapshot).map_err(|error| chain(&error))?;
        let options = Options::default().deadline(patience);
        let writer = Writer::connect_with(Address::Socket(socket.to_owned()), options);
        Ok(Self {
            writer: writer.map_err(|error| chain(&error))?,
            handle: reader.handle().map_err(|error| chain(&error))?,
        })
    }

    /// The newest snapshot's generation and rows.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn read(&mut self) -> Result<(u64, Rows), String> {
        let snapshot = self.handle.latest();
        Ok((snapshot.generation(), rows_of(snapshot)?))
    }
}

impl Way for SherwoodWay {
    fn ask(&mut self, transaction: &Transaction) -> Answer {
        let text = transaction.to_json().to_string();
        let transaction = match sherwood_client::write::Transaction::from_json(&text) {
            Ok(transaction) => transaction,
            Err(error) => return Answer::Unknown(chain(&error)),
        };
        match self.writer.apply(transaction) {
            Ok(Outcome::Done { generation, .. }) => Answer::Done(generation),
            Ok(Outcome::Refused { reason, generation }) => {
                Answer::Refused(generation.unwrap_or(0), reason)
            }
            Ok(Outcome::Unknown { reason, .. }) => Answer::Unknown(reason),
            // Nothing was sent, says the client; the checker does not have to believe it.
            Err(error) => Answer::Unknown(chain(&error)),
        }
    }

    fn look(&mut self, key: &str) -> Result<Option<i64>, String> {
        let item = self.handle.latest().content_item(key);
        let item = item.map_err(|error| chain(&error))?;
        Ok(item.and_then(|item| item.size()))
    }
}

/// The items of `content` that have a size.
///
/// # Errors
///
/// The snapshot cannot be read.
pub fn rows_of(snapshot: &Snapshot) -> Result<Rows, String> {
    let mut rows = Rows::new();
    for item in snapshot.content() {
        let item = item.map_err(|error| chain(&error))?;
        if let Some(size) = item.size() {
            rows.insert(item.cid().to_owned(), size);
        }
    }
    Ok(rows)
}

/// A state of these rows alone, as a foreign writer makes one.
///
/// # Panics
///
/// Never: the columns fit.
#[must_use]
pub fn state_of(rows: &Rows) -> State {
    let table = |columns: Vec<(&str, arrow_array::ArrayRef)>| {
        let columns = columns
            .into_iter()
            .map(|(name, column)| (name, column, true));
        RecordBatch::try_from_iter_with_nullable(columns).expect("columns of one length")
    };
    let none = || StringArray::from(Vec::<&str>::new());
    let content = table(vec![
        ("cid", Arc::new(StringArray::from_iter_values(rows.keys()))),
        (
            "size",
            Arc::new(Int64Array::from_iter_values(rows.values().copied())),
        ),
    ]);
    let cluster = table(vec![(
        "cluster_id",
        Arc::new(StringArray::from(vec![CLUSTER])),
    )]);
    let empty = || table(vec![(TableId::Tasks.key(), Arc::new(none()))]);
    State::new(cluster, [empty(), empty(), content]).expect("a state")
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
