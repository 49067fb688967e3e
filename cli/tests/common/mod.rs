//! Runs the program, on states made by itself and published in this process.

#![allow(dead_code)] // each test program uses its own part

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use arrow_array::RecordBatch;
use sherwood_client::import::read_parquet;
use sherwood_client::locate::StateDir;
use sherwood_daemon::publish::{Options, Publisher};
use sherwood_shared::state::State;
use tempfile::TempDir;

/// Places of its own, so that no state of this host is found.
pub struct Host {
    pub dir: TempDir,
}

/// What a run left behind.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Ends with `code`; in the message of a failure stands everything.
    #[track_caller]
    pub fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }
}

impl Host {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The program, with nothing of this process's environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sherwood"));
        command
            .args(args)
            .env_clear()
            .env("HOME", self.path("home"))
            .env("XDG_RUNTIME_DIR", self.path("runtime"))
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        self.command(args).output().expect("runs").into()
    }

    /// A sample state directory of this name: 5 nodes, 40 tasks, 20 content items.
    pub fn sample(&self, name: &str) -> PathBuf {
        self.sample_of(name, "sample", 40)
    }

    pub fn sample_of(&self, name: &str, cluster_id: &str, tasks: usize) -> PathBuf {
        let tasks = tasks.to_string();
        let args = [
            "sample",
            "--nodes",
            "5",
            "--tasks",
            &tasks,
            "--content",
            "20",
        ];
        let more = ["--out", name, "--cluster-id", cluster_id];
        self.run(&[&args[..], &more[..]].concat()).ended(0);
        self.path(name)
    }

    /// Publishes the state of a directory made by [`sample_of`](Self::sample_of) in `run`.
    pub fn publish(&self, state_dir: &Path, run_dir: &str) -> Publisher {
        let state = state_in(state_dir);
        publisher(state_dir, &self.run_dir(run_dir), &state, None)
    }

    pub fn run_dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).expect("a directory");
        path
    }
}

pub fn state_in(state_dir: &Path) -> State {
    let file = StateDir::open(state_dir)
        .and_then(|dir| dir.state_file(None))
        .expect("a state file");
    read_parquet(&file.path, None).expect("a good state")
}

pub fn publisher(
    state_dir: &Path,
    run_dir: &Path,
    state: &State,
    region_bytes: Option<u64>,
) -> Publisher {
    let found = std::fs::metadata(state_dir).expect("a state directory");
    let options = Options {
        run_dir: run_dir.to_owned(),
        cluster_id: state.cluster_id().to_owned(),
        state_dir: (found.dev(), found.ino()),
        history: [7; 16],
        region_bytes,
        chunk_bytes: region_bytes.map(|_| 1024),
        mode: 0o644,
    };
    Publisher::start(options, state, 1).expect("publishes")
}

/// The state with only the first rows of its tasks.
pub fn with_tasks(state: &State, tasks: usize) -> State {
    let [nodes, all, content] = state.tables.clone();
    let tasks: RecordBatch = all.slice(0, tasks);
    State::new(state.cluster.clone(), [nodes, tasks, content]).expect("a good state")
}

/// Names the snapshot in the directory's metadata, as a daemon does.
pub fn name_snapshot(state_dir: &Path, snapshot: &Path) {
    let path = state_dir.join("state_metadata.json");
    let text = std::fs::read_to_string(&path).expect("metadata");
    let mut metadata: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    metadata["snapshot_path"] = snapshot.to_str().expect("UTF-8").into();
    std::fs::write(&path, metadata.to_string()).expect("written");
}
