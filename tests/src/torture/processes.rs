//! The parent's side of a process: starting it, hearing it, ending it.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::args::Args;

/// Longer than anything here takes: what has not come by then will not.
pub const NEVER: Duration = Duration::from_secs(120);

/// A directory in memory if there is one.
///
/// # Errors
///
/// None can be made.
pub fn directory() -> std::io::Result<TempDir> {
    let shared_memory = Path::new("/dev/shm");
    let made = tempfile::Builder::new()
        .prefix("sherwood-torture.")
        .tempdir_in(shared_memory);
    made.or_else(|_| tempfile::tempdir())
}

/// Where a test's snapshot and state are, removed with it.
#[derive(Debug)]
pub struct Place {
    directory: TempDir,
    binary: PathBuf,
}

impl Place {
    /// An empty one, for processes of `binary` (`CARGO_BIN_EXE_torture`).
    ///
    /// # Errors
    ///
    /// A directory cannot be made.
    pub fn new(binary: &str) -> std::io::Result<Self> {
        let directory = directory()?;
        std::fs::create_dir(directory.path().join("state"))?;
        std::fs::create_dir(directory.path().join("run"))?;
        Ok(Self {
            directory,
            binary: binary.into(),
        })
    }

    /// The run directory.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// The snapshot file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.run_dir().join(format!("{}.arrow", super::CLUSTER))
    }

    /// The words that every role needs.
    #[must_use]
    pub fn args(&self, seed: u64) -> Args {
        Args::new()
            .with("run", self.run_dir().display())
            .with("state", self.directory.path().join("state").display())
            .with("seed", seed)
    }

    /// Starts a process. It dies with the thread that calls this.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn start(&self, role: &str, args: &Args) -> std::io::Result<Process> {
        let (hear, heard) = channel();
        self.start_heard_by(role, args, 0, hear, Some(heard))
    }

    /// The same; its lines go to `hear`, each with `name`.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn start_heard_by(
        &self,
        role: &str,
        args: &Args,
        name: u64,
        hear: Sender<(u64, String)>,
        heard: Option<Receiver<(u64, String)>>,
    ) -> std::io::Result<Process> {
        let mut child = Command::new(&self.binary)
            .arg(role)
            .args(args.words())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = child.stdout.take().map(BufReader::new);
        let listener = std::thread::spawn(move || {
            for line in lines
                .into_iter()
                .flat_map(BufRead::lines)
                .map_while(Result::ok)
            {
                if hear.send((name, line)).is_err() {
                    return;
                }
            }
        });
        let what = format!("{role} {}", args.words().collect::<Vec<_>>().join(" "));
        Ok(Process {
            child,
            what,
            heard,
            listener: Some(listener),
        })
    }
}

/// A process, killed at the latest when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    what: String,
    heard: Option<Receiver<(u64, String)>>,
    listener: Option<JoinHandle<()>>,
}

impl Process {
    /// Its role and its arguments.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).unwrap_or(i32::MAX);
        let _ = kill(Pid::from_raw(pid), signal); // not reaped before we do it: it is ours
    }

    /// Tells it to end.
    pub fn tell_to_end(&mut self) {
        self.child.stdin = None;
    }

    /// kill -9, and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// It does not end.
    pub fn wait(&mut self) -> Result<ExitStatus, String> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if begun.elapsed() > NEVER {
                return Err(format!("{} does not end", self.what));
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// Waits until it was killed by SIGKILL, which it sent to itself.
    ///
    /// # Errors
    ///
    /// It ended in another way, or does not.
    pub fn wait_for_death(&mut self) -> Result<(), String> {
        let status = self.wait()?;
        if status.signal() == Some(Signal::SIGKILL as i32) {
            return Ok(());
        }
        let said: Vec<_> = self.heard.iter().flat_map(Receiver::try_iter).collect();
        Err(format!("{} ended with {status}: {said:?}", self.what))
    }

    /// The number behind `word` in the next line that begins with it.
    ///
    /// # Errors
    ///
    /// It said that something is wrong, ended, or is silent.
    pub fn hear(&mut self, word: &str) -> Result<u64, String> {
        let heard = self.heard.as_ref().ok_or("its lines go elsewhere")?;
        let begun = Instant::now();
        loop {
            let left = NEVER.saturating_sub(begun.elapsed());
            let line = match heard.recv_timeout(left) {
                Ok((_, line)) => line,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("{}: never said {word}", self.what));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait();
                    return Err(format!("{}: {status:?} before it said {word}", self.what));
                }
            };
            if line.starts_with("wrong") {
                return Err(line);
            }
            if let Some(rest) = line.strip_prefix(word) {
                return Ok(rest.trim().parse().unwrap_or(0));
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if let Some(listener) = self.listener.take() {
            let _ = listener.join(); // a forked child may keep the pipe for a moment
        }
    }
}
