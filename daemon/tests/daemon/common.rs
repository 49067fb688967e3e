//! A service in this process: real directories, real ends that take notes and fail when told to.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::Value;
use sherwood_client::import;
use sherwood_client::locate::METADATA_FILE;
use sherwood_client::{ReadError, Reader, Snapshot};
use sherwood_daemon::config::{Args, Config, LogFormat, Sources};
use sherwood_daemon::ends::{BoxError, Ends, Publish, Real};
use sherwood_daemon::engine::{Request, Submission};
use sherwood_daemon::foreign::Loaded;
use sherwood_daemon::log;
use sherwood_daemon::publish::{Options, PublishError, Published, Publisher, Staged};
use sherwood_daemon::served::StartError;
use sherwood_daemon::service::{Event, Order, Service};
use sherwood_shared::schema::TableId;
use sherwood_shared::state::State;
use sherwood_shared::transaction::{Answer, Transaction};
use sherwood_store::Effects;

/// Publishes in order: the generation, and the ids of the tasks.
type Notes = Arc<Mutex<Vec<(u64, Vec<String>)>>>;

/// Both ends real, with notes of what is published; they fail when told to.
#[derive(Clone, Default)]
pub struct Noting {
    /// What was published.
    pub notes: Notes,
    /// Each file that did not load.
    pub refused: Arc<Mutex<Vec<String>>>,
    /// Publishing fails while this is set.
    pub broken: Arc<AtomicBool>,
    /// How often it failed.
    pub failures: Arc<Mutex<usize>>,
    /// How often the publisher looked after its file.
    pub beats: Arc<Mutex<usize>>,
    /// How often it said that it lives.
    pub pulses: Arc<Mutex<usize>>,
    /// Generations that it says it has taken beyond those of its notes.
    pub taken: Arc<AtomicU64>,
}

/// The publishing end of [`Noting`].
pub struct NotingPublisher {
    ends: Noting,
    inner: Publisher,
}

impl Ends for Noting {
    type Publisher = NotingPublisher;

    fn load(&self, path: &Path, expected: Option<&str>) -> Result<Loaded, BoxError> {
        Real.load(path, expected).inspect_err(|error| {
            self.refused.lock().unwrap().push(error.to_string());
        })
    }

    fn start(
        &self,
        options: Options,
        state: &State,
        generation: u64,
    ) -> Result<NotingPublisher, PublishError> {
        let inner = Real.start(options, state, generation)?;
        self.notes.lock().unwrap().push((generation, tasks(state)));
        Ok(NotingPublisher {
            ends: self.clone(),
            inner,
        })
    }
}

impl Publish for NotingPublisher {
    type Staged = Staged;
    fn stage(&mut self, effects: &Effects) -> Result<Option<Staged>, PublishError> {
        if self.ends.broken.load(Ordering::SeqCst) {
            *self.ends.failures.lock().unwrap() += 1;
            return Err(no_room());
        }
        self.inner.stage(effects)
    }
    fn staged_generation(staged: &Staged) -> u64 {
        staged.generation()
    }
    fn commit(&mut self, staged: Staged) -> Published {
        let published = self.inner.commit(staged);
        let state = self.inner.snapshot().to_state().unwrap();
        let note = (published.generation, tasks(&state));
        self.ends.notes.lock().unwrap().push(note);
        published
    }
    fn abandon(&mut self, staged: Staged) {
        self.inner.abandon(staged);
    }
    fn housekeep(&mut self) -> Result<(), PublishError> {
        self.inner.housekeep()
    }
    fn pulse(&mut self) {
        *self.ends.pulses.lock().unwrap() += 1;
    }
    fn beat(&mut self) -> Result<bool, PublishError> {
        *self.ends.beats.lock().unwrap() += 1;
        self.inner.beat()
    }
    fn snapshot(&mut self) -> Result<Snapshot, ReadError> {
        self.inner.published()
    }
    fn generation(&self) -> u64 {
        self.inner.generation() + self.ends.taken.load(Ordering::SeqCst)
    }
    fn path(&self) -> &Path {
        self.inner.path()
    }
}

fn no_room() -> PublishError {
    PublishError::Full {
        path: PathBuf::from("full.arrow"),
        needed: 1,
        source: ErrorKind::StorageFull.into(),
    }
}

/// The ids of a state's tasks.
pub fn tasks(state: &State) -> Vec<String> {
    let ids = state.table(TableId::Tasks).column_by_name("id").unwrap();
    let ids = ids.as_string::<i32>();
    ids.iter().map(|id| id.unwrap().to_owned()).collect()
}

/// A state of `cluster` with these tasks.
pub fn state(cluster: &str, tasks: &[&str]) -> State {
    let empty = State::empty(cluster);
    let ids: ArrayRef = Arc::new(StringArray::from(tasks.to_vec()));
    let [nodes, _, content] = empty.tables;
    let tasks = RecordBatch::try_from_iter([("id", ids)]).unwrap();
    State::new(empty.cluster, [nodes, tasks, content]).unwrap()
}

/// The same as a Parquet file's bytes.
pub fn parquet(cluster: &str, tasks: &[&str]) -> Vec<u8> {
    import::to_parquet_bytes(&state(cluster, tasks)).unwrap()
}

/// A state directory, a run directory, and settings.
pub struct Case {
    tmp: tempfile::TempDir,
    /// Environment of the service.
    pub environment: Vec<(&'static str, String)>,
}

impl Case {
    /// With an empty state directory.
    pub fn new() -> Self {
        let case = Self {
            tmp: tempfile::tempdir().unwrap(),
            environment: Vec::new(),
        };
        fs::create_dir(case.state_dir()).unwrap();
        case
    }
    /// With a state of the cluster `c`.
    pub fn with(tasks: &[&str]) -> Self {
        let case = Self::new();
        case.write(tasks);
        case
    }
    pub fn root(&self) -> PathBuf {
        self.tmp.path().canonicalize().unwrap()
    }
    pub fn state_dir(&self) -> PathBuf {
        self.root().join("state")
    }
    pub fn run_dir(&self) -> PathBuf {
        self.root().join("run")
    }
    pub fn file(&self) -> PathBuf {
        self.state_dir().join("state_c.parquet")
    }
    /// Replaces the state, by a rename.
    pub fn write(&self, tasks: &[&str]) {
        let aside = self.state_dir().join("state_c.tmp");
        fs::write(&aside, parquet("c", tasks)).unwrap();
        fs::rename(aside, self.file()).unwrap();
    }
    /// What a crash at this moment leaves to another service: a copy of the state directory. Nobody may write meanwhile, but
    /// for checkpoints that come and go.
    pub fn crashed(&self) -> Self {
        let after = Self::new();
        copy_all(&self.state_dir(), &after.state_dir());
        after
    }
    /// Null if it is not there or not JSON.
    pub fn metadata(&self) -> Value {
        let bytes = fs::read(self.state_dir().join(METADATA_FILE)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }
    fn sources(&self) -> Sources {
        let mut sources = Sources::default();
        let dirs = [
            ("SHERWOOD_STATE_DIR", self.state_dir()),
            ("SHERWOOD_RUN_DIR", self.run_dir()),
        ];
        for (name, dir) in dirs {
            sources.environment.insert(name.into(), dir.into());
        }
        let quiet = ("SHERWOOD_LOG_LEVEL", "error".to_owned());
        for (name, value) in [&quiet].into_iter().chain(&self.environment) {
            sources.environment.insert((*name).into(), value.into());
        }
        sources.args = Args::default();
        sources
    }
    pub fn config(&self) -> Config {
        self.sources().resolve().unwrap().0
    }
    pub fn begin<E: Ends>(&self, ends: E) -> Result<(Service<E>, Channel), StartError> {
        let sources = self.sources();
        let (config, _) = sources.resolve().unwrap();
        let level = log::init(LogFormat::Text, config.log_level);
        let (sender, receiver) = mpsc::channel();
        let service = Service::begin(ends, sources, config, level, sender.clone())?;
        Ok((service, (sender, receiver)))
    }
    /// The error of a start that must fail before anything is published.
    pub fn refusal(&self) -> String {
        let ends = Noting::default();
        let error = match self.begin(ends.clone()) {
            Ok(_) => panic!("it started"),
            Err(error) => log::chain(&error),
        };
        assert_eq!(*ends.notes.lock().unwrap(), [], "{error}");
        error
    }
    pub fn start(&self) -> Running {
        let ends = Noting::default();
        let (mut service, (sender, receiver)) = self.begin(ends.clone()).unwrap();
        let thread = thread::spawn(move || service.run(&receiver));
        Running {
            ends,
            path: self.run_dir().join("c.arrow"),
            sender,
            thread: Some(thread),
        }
    }
}

/// The log last: a checkpoint is never ahead of it then.
fn copy_all(from: &Path, to: &Path) {
    let mut entries: Vec<_> = fs::read_dir(from).unwrap().flatten().collect();
    entries.sort_by_key(|entry| entry.file_name() == "log");
    for entry in entries {
        let to = to.join(entry.file_name());
        if entry.file_type().is_ok_and(|found| found.is_dir()) {
            fs::create_dir(&to).unwrap();
            copy_all(&entry.path(), &to);
        } else if let Err(error) = fs::copy(entry.path(), &to) {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{:?}", entry.path());
        }
    }
}

/// Both ends of a service's channel.
pub type Channel = (Sender<Event>, Receiver<Event>);

/// A service on a thread of its own; stopped when dropped.
pub struct Running {
    pub ends: Noting,
    path: PathBuf,
    sender: Sender<Event>,
    thread: Option<JoinHandle<Result<(), StartError>>>,
}

impl Running {
    /// The tasks of every publish, in order.
    pub fn history(&self) -> Vec<Vec<String>> {
        let notes = self.ends.notes.lock().unwrap();
        notes.iter().map(|(_, tasks)| tasks.clone()).collect()
    }
    pub fn generation(&self) -> u64 {
        self.ends.notes.lock().unwrap().last().unwrap().0
    }
    pub fn await_tasks(&self, tasks: &[&str]) {
        wait_for(&format!("{tasks:?} to be published"), || {
            self.history().last().is_some_and(|last| last == tasks)
        });
    }
    /// Waits until another file than before was refused.
    pub fn await_refusal(&self, count: usize) {
        wait_for(&format!("refusal {count}"), || {
            self.ends.refused.lock().unwrap().len() >= count
        });
    }
    /// Applies a transaction, and waits for its answer.
    pub fn transact(&self, transaction: Value) -> Answer {
        let transaction = Transaction::from_json(transaction.to_string().as_bytes()).unwrap();
        let (answers, answer) = mpsc::channel();
        let submission = Submission {
            request: Request::Transaction(transaction),
            reply: Box::new(move |answered| answers.send(answered).unwrap()),
        };
        self.sender.send(Event::Submit(submission)).unwrap();
        answer.recv().unwrap()
    }
    /// The state, as readers of the snapshot see it.
    pub fn snapshot(&self) -> State {
        let reader = Reader::open(&self.path).unwrap();
        reader.snapshot().unwrap().to_state().unwrap()
    }
    pub fn order(&self, order: Order) {
        self.sender.send(Event::Order(order)).unwrap();
    }
    pub fn stop(mut self) -> Result<(), StartError> {
        self.order(Order::Stop);
        self.thread.take().unwrap().join().unwrap()
    }
    /// Waits for it to end by itself.
    pub fn end(mut self) -> Result<(), StartError> {
        wait_for("the service to end", || {
            self.thread.as_ref().is_some_and(JoinHandle::is_finished)
        });
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended_already = self.sender.send(Event::Order(Order::Stop));
        if let Some(thread) = self.thread.take() {
            let _result = thread.join();
        }
    }
}

/// Long enough for any machine; what is waited for happens within milliseconds.
pub fn wait_for(what: &str, mut happens: impl FnMut() -> bool) {
    let started = Instant::now();
    while !happens() {
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "waited for {what}"
        );
        thread::sleep(Duration::from_millis(2));
    }
}

/// Puts `theirs` in the place of `ours` at one stroke.
pub fn exchange(ours: &Path, theirs: &Path) {
    let flags = RenameFlags::RENAME_EXCHANGE;
    renameat2(AT_FDCWD, ours, AT_FDCWD, theirs, flags).unwrap();
}
