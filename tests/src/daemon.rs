//! The real `sherwoodd` as a child process, and places for it to work on.
//!
//! [`Place`] is a state directory and a run directory (the latter on a tmpfs). [`Daemon`] is the process: started, it
//! has said `ready`; its log, JSON, is collected line by line, and tests wait for lines, never for times.

mod states;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use sherwood_client::locate::METADATA_FILE;
use sherwood_client::{Handle, Reader};
use tempfile::TempDir;

pub use states::{counts, parquet, state, state_with_tasks, turn};

/// Long enough for any machine; what is waited for happens within milliseconds.
pub const LONG: Duration = Duration::from_secs(30);

/// Waits until `happens`.
///
/// # Panics
///
/// If it never does.
pub fn wait_for(what: &str, mut happens: impl FnMut() -> bool) {
    let began = Instant::now();
    while !happens() {
        assert!(began.elapsed() < LONG, "waited for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until the newest snapshot is of this [`turn`].
///
/// # Panics
///
/// If that never happens, or the snapshot cannot be read.
pub fn await_turn(handle: &mut Handle, wanted: i64) {
    let began = Instant::now();
    while turn(handle.latest()) != wanted {
        assert!(began.elapsed() < LONG, "waited for turn {wanted}");
        handle.wait(Duration::from_secs(1)).expect("reads");
    }
}

/// The path of one of this package's test binaries.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    // Cargo says where it is; a test that is started by hand stands in `deps`, beside it.
    if let Some(path) = std::env::var_os(format!("CARGO_BIN_EXE_{name}")) {
        return path.into();
    }
    let me = std::env::current_exe().expect("this program's path");
    me.ancestors()
        .skip(1)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} stands nowhere above {me:?}: build it first"))
}

/// A state directory and a run directory, removed when dropped.
#[derive(Debug)]
pub struct Place {
    state: TempDir,
    run: TempDir,
    /// Whose state it is.
    pub cluster: String,
}

impl Place {
    /// With an empty state directory, for the cluster `c`.
    ///
    /// # Panics
    ///
    /// If there is no place for temporary files.
    #[must_use]
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let run = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        };
        let state = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(state.path().join("state")).expect("a state directory");
        Self {
            state,
            run: run.expect("a temporary directory"),
            cluster: "c".to_owned(),
        }
    }

    /// With a state of so many tasks.
    #[must_use]
    pub fn with_tasks(tasks: usize) -> Self {
        let place = Self::new();
        place.write(&parquet(&state_with_tasks("c", tasks, 0)));
        place
    }

    /// Beside the directories, for whatever else a test makes.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.state.path().canonicalize().expect("it is there")
    }

    /// The state directory.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.root().join("state")
    }

    /// The run directory; not there before the daemon makes it.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        let root = self.run.path().canonicalize().expect("it is there");
        root.join("run")
    }

    /// The state file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.state_dir()
            .join(format!("state_{}.parquet", self.cluster))
    }

    /// The metadata file.
    #[must_use]
    pub fn metadata_file(&self) -> PathBuf {
        self.state_dir().join(METADATA_FILE)
    }

    /// The snapshot file.
    #[must_use]
    pub fn snapshot(&self) -> PathBuf {
        self.run_dir().join(format!("{}.arrow", self.cluster))
    }

    /// Replaces the state, as a careful writer does: aside, then renamed.
    ///
    /// # Panics
    ///
    /// If the directory cannot be written.
    pub fn write(&self, bytes: &[u8]) {
        let aside = self.state_dir().join(".foreign.tmp");
        fs::write(&aside, bytes).expect("writes aside");
        fs::rename(aside, self.file()).expect("renames");
    }

    /// The metadata; null while it is not there or not JSON.
    #[must_use]
    pub fn metadata(&self) -> Value {
        let bytes = fs::read(self.metadata_file()).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// A reader of the snapshot.
    ///
    /// # Panics
    ///
    /// If it cannot be opened.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::open(self.snapshot()).expect("the snapshot opens")
    }

    /// The flags that point a daemon here.
    #[must_use]
    pub fn flags(&self) -> Vec<OsString> {
        vec![
            "--state-dir".into(),
            self.state_dir().into(),
            "--run-dir".into(),
            self.run_dir().into(),
        ]
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

/// The daemon's command, without anything of Sherwood in its environment, its log in JSON.
#[must_use]
pub fn command(flags: impl IntoIterator<Item = OsString>) -> Command {
    let mut command = Command::new(binary("test_sherwoodd"));
    prepare(&mut command);
    command.args(flags);
    command
}

/// Makes `command`, which starts a daemon in the end, one that [`Daemon`] understands.
pub fn prepare(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SHERWOOD_") {
            command.env_remove(name);
        }
    }
    command
        .env_remove("NOTIFY_SOCKET")
        .env("SHERWOOD_LOG_FORMAT", "json")
        .env("SHERWOOD_LOG_LEVEL", "debug")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
}

/// What a daemon has logged so far.
#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

/// A running `sherwoodd`; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: Arc<Log>,
    /// Lines before this one were waited for already.
    mark: usize,
}

impl Daemon {
    /// Starts one on `place` and waits until it is ready.
    #[must_use]
    pub fn start(place: &Place) -> Self {
        Self::start_with(place, &[])
    }

    /// The same, with more flags.
    #[must_use]
    pub fn start_with(place: &Place, flags: &[&str]) -> Self {
        let flags = place
            .flags()
            .into_iter()
            .chain(flags.iter().map(Into::into));
        Self::spawn(command(flags)).ready()
    }

    /// Starts a prepared command, and waits for nothing.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let log = Arc::new(Log::default());
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let lines = Arc::clone(&log);
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().lines.push(line);
                lines.changed.notify_all();
            }
            lines.lock().ended = true;
            lines.changed.notify_all();
        });
        Self {
            child,
            log,
            mark: 0,
        }
    }

    /// Waits until it serves.
    #[must_use]
    pub fn ready(mut self) -> Self {
        self.await_message("ready");
        self
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line with this message, after the one that was waited for last. Returns its fields.
    pub fn await_message(&mut self, message: &str) -> Value {
        self.await_line(&format!("the message {message:?}"), |line| {
            line["message"] == message
        })
    }

    /// Waits for a line that `is_it`, after the one that was waited for last. Returns its fields.
    ///
    /// # Panics
    ///
    /// If none comes, with all that was logged.
    pub fn await_line(&mut self, what: &str, mut is_it: impl FnMut(&Value) -> bool) -> Value {
        let began = Instant::now();
        let mut lines = self.log.lock();
        loop {
            while let Some(line) = lines.lines.get(self.mark) {
                self.mark += 1;
                let line = serde_json::from_str(line).unwrap_or_default();
                if is_it(&line) {
                    return line;
                }
            }
            let left = LONG.saturating_sub(began.elapsed());
            assert!(
                !lines.ended && !left.is_zero(),
                "waited for {what} in the log:\n{}",
                listing(&lines.lines)
            );
            let waited = self.log.changed.wait_timeout(lines, left);
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Every line so far, as it was written.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.log.lock().lines.clone()
    }

    /// How many lines so far have this message.
    #[must_use]
    pub fn count(&self, message: &str) -> usize {
        let lines = self.lines();
        let events = lines
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok());
        events
            .filter(|line: &Value| line["message"] == message)
            .count()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    ///
    /// If it is gone.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a pid"));
        kill(pid, signal).expect("it is there");
    }

    /// Is it still running?
    ///
    /// # Panics
    ///
    /// If the kernel does not say.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    /// Waits for its end. Returns how it ended and all it logged.
    ///
    /// # Panics
    ///
    /// If it never ends.
    pub fn end(mut self) -> (ExitStatus, String) {
        let mut status = None;
        wait_for("the daemon's end", || {
            status = self.child.try_wait().expect("our child");
            status.is_some()
        });
        wait_for("the end of its log", || self.log.lock().ended);
        let text = listing(&self.log.lock().lines);
        (status.expect("it has ended"), text)
    }

    /// Stops it with SIGTERM.
    ///
    /// # Panics
    ///
    /// If it does not stop, or not cleanly.
    pub fn stop(self) {
        self.signal(Signal::SIGTERM);
        let (status, log) = self.end();
        assert_eq!(status.code(), Some(0), "{log}");
    }

    /// Kills it with SIGKILL.
    ///
    /// # Panics
    ///
    /// If it had ended in another way before.
    pub fn kill(self) {
        self.signal(Signal::SIGKILL);
        let (status, log) = self.end();
        assert_eq!(status.signal(), Some(9), "{log}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped_already = self.child.wait();
        if thread::panicking() {
            eprintln!("the daemon's log:\n{}", listing(&self.log.lock().lines));
        }
    }
}

impl Log {
    fn lock(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn listing(lines: &[String]) -> String {
    lines.iter().fold(String::new(), |mut text, line| {
        let _strings_take_all = writeln!(text, "  {line}");
        text
    })
}
