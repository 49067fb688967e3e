//! Writes through a daemon's socket: what the questions about them share.
//!
//! The daemon is the real one, `sherwoodd` beside this program, its state directory on
//! `--disk`, its snapshot on `--dir`. The state is a sample of tasks, whose keys are those of the peers. A
//! transaction is one task put whole, about 130 bytes, over one that is there; the 64 writers have a connection each,
//! as etcd's clients have, and one transaction under way each.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Map, Value, json};
use sherwood_client::write::{Address, AsyncWriter, Options, Outcome, Row, Transaction, Writer};
use sherwood_client::{Reader, TableId, import};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::keys::{Draw, task};
use crate::measure::{Figure, nanos};
use crate::row;
use crate::sample::Sample;
use crate::{Failure, Setting};

/// The peers' question, and ours.
pub const QUESTION: &str = "transact";

/// The floor that a rate stands beside: one log, whose syncs come one after the other.
pub const ONE_SYNC_RATE: &str = "fdatasync of a 512-byte overwrite, 1 thread";

/// Writers at once.
pub const MANY: usize = 64;

/// Not counted, counted: as for the peers.
const TIMES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(4));

/// Longer than a start takes.
const READY: Duration = Duration::from_secs(60);

/// A daemon that serves a sample of tasks; killed when dropped.
pub struct Served {
    child: Option<Child>,
    run: TempDir,
    disk: TempDir,
    /// How long the start took, to the first connection.
    pub started_in: Duration,
}

impl Served {
    /// Starts one on `rows` tasks.
    pub fn new(setting: &Setting, rows: u64) -> Result<Self, Failure> {
        let mut served = Self::stopped(setting)?;
        let sample = Sample::tasks(rows)?;
        let path = served.state_dir().join("state_bench.parquet");
        import::write_parquet_atomic(sample.state(), &path)?;
        drop(sample);
        served.restart()?;
        Ok(served)
    }

    /// One that does not run, on an empty directory.
    pub fn stopped(setting: &Setting) -> Result<Self, Failure> {
        let made = |parent: &Path| {
            let mut builder = tempfile::Builder::new();
            builder.prefix("sherwood-bench-").tempdir_in(parent)
        };
        let (run, disk) = (made(&setting.dir)?, made(&setting.disk)?);
        fs::create_dir(disk.path().join("state"))?;
        Ok(Self {
            child: None,
            run,
            disk,
            started_in: Duration::ZERO,
        })
    }

    /// Kills it, if it runs, and starts it. Gives the most memory that it took until the second after its start.
    pub fn restart(&mut self) -> Result<u64, Failure> {
        end(&mut self.child);
        let begun = Instant::now();
        let address = self.address();
        let child = self.child.insert(spawn(self.disk.path(), self.run.path())?);
        let (mut most, mut served) = (0, None);
        while served.is_none_or(|at| begun.elapsed() < at + Duration::from_secs(1)) {
            most = most.max(memory(child.id()).unwrap_or(0));
            if served.is_none() && Writer::connect_with(address.clone(), Options::default()).is_ok()
            {
                served = Some(begun.elapsed());
            }
            if child.try_wait()?.is_some() || begun.elapsed() > READY {
                let said = fs::read_to_string(self.disk.path().join("log"))?;
                return Err(format!("the daemon does not serve: {said}").into());
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.started_in = served.unwrap_or_default();
        Ok(most)
    }

    /// Its state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.disk.path().join("state")
    }

    fn address(&self) -> Address {
        Address::Socket(self.run.path().join("run/bench.sock"))
    }

    /// A writer that blocks.
    pub fn writer(&self) -> Result<Writer, Failure> {
        Ok(Writer::connect_with(self.address(), Options::default())?)
    }

    /// A reader of what it serves.
    pub fn reader(&self) -> Result<Reader, Failure> {
        Ok(Reader::open(self.run.path().join("run/bench.arrow"))?)
    }

    /// Bytes of memory that are its own: not the snapshot file, which is a tmpfs's.
    pub fn memory(&self) -> Result<u64, Failure> {
        memory(self.child.as_ref().map_or(0, Child::id))
    }

    /// Puts random tasks of the first `rows` from `writers` connections at once, until `enough` of the count and the time.
    pub fn puts(
        &self,
        writers: usize,
        rows: u64,
        enough: impl Fn(u64, Duration) -> bool + Send + Sync + 'static,
    ) -> Result<Puts, Failure> {
        let runtime = Runtime::new()?;
        let address = self.address();
        let before = self.reader()?.snapshot()?.generation();
        let (samples, begun) = runtime.block_on(async move {
            let mut open = Vec::new();
            for _ in 0..writers {
                open.push(AsyncWriter::connect_with(address.clone(), Options::default()).await?);
            }
            let begun = Instant::now();
            let all = std::sync::Arc::new((enough, std::sync::atomic::AtomicU64::new(0)));
            let mut putting = JoinSet::new();
            for (number, writer) in (1..).zip(open) {
                let all = std::sync::Arc::clone(&all);
                putting.spawn(async move {
                    let mut draw = Draw::new(number);
                    let mut samples = Vec::new();
                    loop {
                        let count = all.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        if (all.0)(count, begun.elapsed()) {
                            return Ok::<_, Failure>(samples);
                        }
                        let put = put(draw.below(rows), draw.next());
                        let start = begun.elapsed();
                        done(writer.apply(put).await?)?;
                        samples.push((start, begun.elapsed()));
                    }
                });
            }
            let mut samples = Vec::new();
            while let Some(some) = putting.join_next().await {
                samples.extend(some??);
            }
            Ok::<_, Failure>((samples, begun))
        })?;
        let after = self.reader()?.snapshot()?.generation();
        Ok(Puts {
            samples,
            begun,
            generations: after.saturating_sub(before).max(1),
        })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn spawn(disk: &Path, run: &Path) -> Result<Child, Failure> {
    let daemon = std::env::current_exe()?.with_file_name("sherwoodd");
    let spawned = Command::new(&daemon)
        .arg("--state-dir")
        .arg(disk.join("state"))
        .arg("--run-dir")
        .arg(run.join("run"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(disk.join("log"))?)
        .spawn();
    spawned.map_err(|error| {
        format!("{daemon:?}: {error}: build it with `cargo build --release`").into()
    })
}

/// Bytes of memory that are a process's own: not the snapshot file, which is a tmpfs's.
fn memory(pid: u32) -> Result<u64, Failure> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    };
    let anonymous = kib("RssAnon:").ok_or("the kernel does not say RssAnon")?;
    Ok((anonymous + kib("RssFile:").unwrap_or(0)) << 10)
}

fn end(child: &mut Option<Child>) {
    let Some(mut child) = child.take() else {
        return;
    };
    let pid = i32::try_from(child.id()).map(Pid::from_raw);
    // It may have ended already.
    let _ = pid.map(|pid| kill(pid, Signal::SIGKILL));
    let _ = child.wait();
}

/// What some puts took.
pub struct Puts {
    /// From when to when, since the first began.
    pub samples: Vec<(Duration, Duration)>,
    /// When that was.
    pub begun: Instant,
    /// Generations that they made: one for each sync of the log.
    pub generations: u64,
}

impl Puts {
    /// Puts in a second, and what one took, of those within the time that counts.
    pub fn rate(&self) -> Result<(f64, Figure), Failure> {
        let (warm, counted) = TIMES;
        let counts =
            |&&(start, end): &&(Duration, Duration)| start >= warm && end <= warm + counted;
        let times = self.samples.iter().filter(counts);
        let times: Vec<f64> = times.map(|(start, end)| nanos(*end - *start)).collect();
        let per_second = times.len() as f64 / counted.as_secs_f64();
        Ok((
            per_second,
            Figure::of(times, 1).ok_or("nothing was done in the time")?,
        ))
    }

    /// Transactions for each sync of the log.
    pub fn for_each_sync(&self) -> f64 {
        self.samples.len() as f64 / self.generations as f64
    }
}

/// Long enough for [`Puts::rate`].
pub fn long_enough(_: u64, elapsed: Duration) -> bool {
    elapsed >= TIMES.0 + TIMES.1
}

/// One task, whole, in about 130 bytes.
pub fn put(number: u64, value: u64) -> Transaction {
    let row = json!({
        "id": task(number),
        "type": "transcode",
        "status": "pending",
        "created_at": 1_767_000_000_000_u64,
        "assigned_to": "node-0000000000",
        "resources": {"cpu_cores": value % 64, "gpu_cores": value % 8, "memory_mb": value % 999},
        "input_cid": format!("bafybeigdyrzt{:017}", value % 1_000_000_007),
    });
    let columns = match row {
        Value::Object(columns) => columns,
        _ => Map::new(),
    };
    Transaction::new().put(Row::new(TableId::Tasks, columns))
}

/// Anything but done is a failure here.
pub fn done(outcome: Outcome) -> Result<u64, Failure> {
    Ok(outcome.done()?.generation)
}

/// The largest rate that a peer's or a floor's row of this run shows, if it shows one.
pub fn rate_of(setting: &Setting, question: &str, peer: &str, name: &str) -> Option<f64> {
    let rows = setting.measured.iter().filter(|found| {
        found.question == question && found.peer == peer && found.name.contains(name)
    });
    let rates = rows.filter_map(|found| match &found.outcome {
        row::Outcome::Number(rate, _) => Some(*rate),
        _ => None,
    });
    rates.max_by(f64::total_cmp)
}

/// Bytes as MiB.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
