//! Writes what readers of files see, on threads of its own: checkpoints, the metadata and the base of merges.
//!
//! The loop decides when; the scribe works through one job after the other and reports each. A checkpoint is written
//! in small steps with pauses (CA2 of `cadence`), from a snapshot, so that it holds up nobody.
//!
//! - **SC1** A checkpoint is private first: recovery and merges start from files that nobody else writes. Then, as a job
//!   of its own, it becomes the public file.
//! - **SC2** The public name is taken by exchange. What stood there comes out whole, and is ours to look at: if it is
//!   not what the loop knew, it is handed back as *displaced* and nothing of it is lost.
//! - **SC3** While somebody has the public file open for writing, or has just changed it, it is left alone (CA3).
//! - **SC4** A foreign file becomes the base at once, on a thread of its own: a checkpoint before it could take minutes, and until it
//!   is there only memory and the log know what was merged (FO4).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use bytes::Bytes;
use nix::fcntl::OFlag;
use sherwood_client::Snapshot;
use sherwood_client::locate::StateDir;
use sherwood_shared::in_use::is_open_for_writing;
use sherwood_store::checkpoint::{
    CheckpointError, Checkpoints, Halt, Pace, Position, Rejected, Room, Share, Step,
};

use crate::cadence::{COURTESY, SHARE};
use crate::foreign::is_settled;
use crate::metadata::{Facts, MetadataError, MetadataKeeper};
use crate::observe::FileId;

/// What the scribe is asked to do.
#[derive(Debug)]
pub enum Job {
    /// Write a private checkpoint (SC1).
    Checkpoint {
        /// Of this state.
        snapshot: Snapshot,
        /// Where in the log it stands.
        position: Position,
    },
    /// Make a private checkpoint the public file (SC2, SC3).
    Publish {
        /// The private file.
        checkpoint: PathBuf,
        /// What the loop knows to stand there, and may be replaced.
        known: Known,
    },
    /// Give up what is kept in case: the disk is full ([`Checkpoints::make_room`]).
    MakeRoom,
    /// Make the metadata say this.
    Metadata(Facts),
}

/// What came of a job.
#[derive(Debug)]
pub enum Report {
    /// A private checkpoint is durable.
    Checkpoint {
        /// Its file.
        path: PathBuf,
        /// Where it stands.
        position: Position,
        /// Its length.
        bytes: u64,
        /// Entries up to this one are in every checkpoint that is kept.
        release: u64,
    },
    /// It is not.
    CheckpointFailed(CheckpointError),
    /// The checkpoint is the public file.
    Published {
        /// The private file that it is a copy of.
        checkpoint: PathBuf,
        /// The public file.
        id: FileId,
        /// What was moved aside: a refused file, or one that the loop did not know (SC2).
        displaced: Option<Rejected>,
    },
    /// Somebody is at work there, or has been (SC3): later. What stands there may have to be looked at first.
    Held {
        /// The private file.
        checkpoint: PathBuf,
    },
    /// It is not the public file.
    PublishFailed {
        /// The private file.
        checkpoint: PathBuf,
        /// Why.
        error: CheckpointError,
    },
    /// What could be given up is.
    Room(Result<Room, CheckpointError>),
    /// The base is the foreign file, or not.
    Base(Result<(), CheckpointError>),
    /// The metadata says it; `Some`: not yet, but try then.
    Metadata(Result<Option<Instant>, MetadataError>),
}

/// The threads, and the way to them. Dropping it stops the work at the next step.
#[derive(Debug)]
pub struct Scribe {
    jobs: Option<Sender<Job>>,
    /// SC4.
    bases: Option<Sender<Bytes>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Scribe {
    /// Starts the threads. Each job gets one report.
    ///
    /// # Errors
    ///
    /// A thread cannot be started.
    pub fn start(
        checkpoints: Arc<Checkpoints>,
        keeper: MetadataKeeper,
        dir: StateDir,
        report: impl Fn(Report) + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, inbox) = mpsc::channel();
        let (bases, merged) = mpsc::channel::<Bytes>();
        let mut scribe = Self {
            jobs: Some(jobs),
            bases: Some(bases),
            stop: Arc::default(),
            threads: Vec::new(),
        };
        let (kept, told, of) = (Arc::clone(&checkpoints), report.clone(), dir.clone());
        let keep_bases = move || {
            for bytes in merged {
                let done = catch_unwind(AssertUnwindSafe(|| match is_here(&of) {
                    true => kept.set_base(&bytes),
                    false => Err(elsewhere(kept.public_path())),
                }));
                let done = done.unwrap_or_else(|_| Err(mistake(kept.public_path())));
                told(Report::Base(
                    done.inspect(|()| is_settled(&kept, Some(&bytes))),
                ));
            }
        };
        let stop = Arc::clone(&scribe.stop);
        let work = move || work(&checkpoints, keeper, &dir, &inbox, &stop, report);
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        scribe.threads.push(named("base").spawn(keep_bases)?);
        scribe.threads.push(named("scribe").spawn(work)?);
        Ok(scribe)
    }

    /// Asks for a job. False: its thread has ended.
    pub fn ask(&self, job: Job) -> bool {
        let jobs = self.jobs.as_ref();
        jobs.is_some_and(|jobs| jobs.send(job).is_ok())
    }

    /// SC4: the changes of this foreign file were logged, and it is the base from now on. That has a report too. False: its
    /// thread has ended.
    pub fn set_base(&self, bytes: Bytes) -> bool {
        let bases = self.bases.as_ref();
        bases.is_some_and(|bases| bases.send(bytes).is_ok())
    }

    /// Ends the work at its next step, and waits for that.
    pub fn stop(&mut self) {
        // ORDER stop: a hint; the join below is what is waited for.
        self.stop.store(true, Ordering::Relaxed);
        self.jobs = None;
        self.bases = None;
        for thread in self.threads.drain(..) {
            // A panic has been printed by its hook.
            let _ = thread.join();
        }
    }
}

impl Drop for Scribe {
    fn drop(&mut self) {
        self.stop();
    }
}

fn work(
    checkpoints: &Checkpoints,
    mut keeper: MetadataKeeper,
    dir: &StateDir,
    inbox: &Receiver<Job>,
    stop: &AtomicBool,
    report: impl Fn(Report),
) {
    for job in inbox {
        let kind = job.kind();
        let mut pace = Here::new(Share::new(SHARE - 1, stop), dir);
        // An encoder's mistake is a checkpoint that failed, and not the end of all checkpoints.
        let done = catch_unwind(AssertUnwindSafe(|| match job {
            Job::Checkpoint { snapshot, position } => {
                checkpoint(checkpoints, &snapshot, position, &mut pace)
            }
            Job::Publish { checkpoint, known } => {
                publish(checkpoints, checkpoint, &known, &mut pace)
            }
            Job::MakeRoom => {
                // Everybody waits for it.
                let mut pace = Here::new(Share::new(0, stop), dir);
                Report::Room(checkpoints.make_room(&mut pace))
            }
            Job::Metadata(facts) => Report::Metadata(keeper.tend(&facts, Instant::now())),
        }));
        report(done.unwrap_or_else(|_| kind.failed(checkpoints.public_path())));
        if stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// What a job was, once it is gone.
#[derive(Clone, Copy)]
enum Kind {
    Checkpoint,
    Publish,
    MakeRoom,
    Metadata,
}

impl Job {
    fn kind(&self) -> Kind {
        match self {
            Self::Checkpoint { .. } => Kind::Checkpoint,
            Self::Publish { .. } => Kind::Publish,
            Self::MakeRoom => Kind::MakeRoom,
            Self::Metadata(_) => Kind::Metadata,
        }
    }
}

impl Kind {
    /// The report of a job that panicked.
    fn failed(self, path: &Path) -> Report {
        let error = mistake(path);
        match self {
            Self::Checkpoint => Report::CheckpointFailed(error),
            Self::Publish => Report::PublishFailed {
                checkpoint: PathBuf::new(),
                error,
            },
            Self::MakeRoom => Report::Room(Err(error)),
            Self::Metadata => Report::Metadata(Ok(None)),
        }
    }
}

/// Of a job that panicked.
fn mistake(path: &Path) -> CheckpointError {
    CheckpointError::Io {
        action: "write",
        path: path.to_owned(),
        source: io::Error::other("a mistake in this program, whose message is on stderr"),
    }
}

/// Of one that was ours in a directory that is gone.
fn elsewhere(path: &Path) -> CheckpointError {
    CheckpointError::Io {
        action: "write",
        path: path.to_owned(),
        source: io::Error::other(ELSEWHERE),
    }
}

const ELSEWHERE: &str = "another directory stands at its path";

/// A pace that takes no step in a directory that took the place of ours.
struct Here<'a, P> {
    pace: P,
    dir: &'a StateDir,
}

impl<'a, P> Here<'a, P> {
    fn new(pace: P, dir: &'a StateDir) -> Self {
        Self { pace, dir }
    }
}

impl<P: Pace> Pace for Here<'_, P> {
    fn before(&mut self, step: Step) -> Result<(), Halt> {
        self.pace.before(step)?;
        let changes_names = matches!(
            step,
            Step::Create | Step::Name | Step::Publish | Step::Base | Step::Remove
        );
        if changes_names && !is_here(self.dir) {
            return Err(Halt::Fail(io::Error::other(ELSEWHERE)));
        }
        Ok(())
    }
}

/// Does the directory's path still lead to it? A disk that does not answer is no other directory: who writes there finds out.
#[must_use]
pub fn is_here(dir: &StateDir) -> bool {
    match fs::metadata(dir.path()) {
        Ok(found) => (found.dev(), found.ino()) == dir.identity(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// SC1.
pub fn checkpoint(
    checkpoints: &Checkpoints,
    snapshot: &Snapshot,
    position: Position,
    pace: &mut dyn Pace,
) -> Report {
    let written = checkpoints.write(snapshot, position, pace);
    let kept = written.and_then(|written| {
        // Old ones that cannot be removed are tried again after the next.
        checkpoints.prune(pace)?;
        Ok((written, checkpoints.oldest_kept()?))
    });
    match kept {
        Ok((written, release)) => Report::Checkpoint {
            path: written.path,
            position,
            bytes: written.bytes,
            release,
        },
        Err(error) => Report::CheckpointFailed(error),
    }
}

/// SC2 and SC3.
pub fn publish(
    checkpoints: &Checkpoints,
    checkpoint: PathBuf,
    known: &Known,
    pace: &mut dyn Pace,
) -> Report {
    match replaced(checkpoints, &checkpoint, known, pace) {
        Ok(Some((id, displaced))) => Report::Published {
            checkpoint,
            id,
            displaced,
        },
        Ok(None) => Report::Held { checkpoint },
        Err(error) => Report::PublishFailed { checkpoint, error },
    }
}

fn replaced(
    checkpoints: &Checkpoints,
    checkpoint: &Path,
    known: &Known,
    pace: &mut dyn Pace,
) -> Result<Option<(FileId, Option<Rejected>)>, CheckpointError> {
    let public = checkpoints.public_path();
    let unseen = |source| CheckpointError::Io {
        action: "look at",
        path: public.to_owned(),
        source,
    };
    if !known.may_be_replaced(public).map_err(unseen)? {
        return Ok(None);
    }
    let exchanged = checkpoints.exchange(checkpoint, pace)?;
    let id = FileId::from(&exchanged.found);
    let aside = match exchanged.displaced {
        Some(displaced) => put_aside(checkpoints, &displaced, known)?,
        None => None,
    };
    exchanged.rest?;
    Ok(Some((id, aside)))
}

/// SC2: what came out of the exchange goes if the loop knew it and had no quarrel with it.
fn put_aside(
    checkpoints: &Checkpoints,
    displaced: &Path,
    known: &Known,
) -> Result<Option<Rejected>, CheckpointError> {
    let out = FileId::of(displaced).ok();
    let is_known = known
        .id()
        .is_some_and(|known| out.is_some_and(|out| known.is_renamed(out)));
    if !is_known || is_being_written(displaced).unwrap_or(true) {
        let why = "it was replaced or written at the very moment at which our checkpoint took its place; it is read here";
        return checkpoints.reject(displaced, why).map(Some);
    }
    if let Known::Refused(_, _, reason) = known {
        return checkpoints.reject(displaced, reason).map(Some);
    }
    fs::remove_file(displaced).map_err(|source| CheckpointError::Io {
        action: "remove",
        path: displaced.to_owned(),
        source,
    })?;
    Ok(None)
}

/// What the loop knows to stand at the public name.
#[derive(Clone, Debug)]
pub enum Known {
    /// No file.
    Nothing,
    /// A checkpoint of ours.
    Ours(FileId),
    /// Another's file, whose changes we have, and since when we know it.
    Merged(FileId, Instant),
    /// Another's file that was refused, since when we know it, and why.
    Refused(FileId, Instant, String),
}

impl Known {
    /// The file.
    #[must_use]
    pub fn id(&self) -> Option<FileId> {
        match self {
            Self::Nothing => None,
            Self::Ours(id) | Self::Merged(id, _) | Self::Refused(id, ..) => Some(*id),
        }
    }

    /// Did it come after `ours` took the name from what `replaced` is, and before that was reported? Then it stands there, and not ours.
    #[must_use]
    pub fn is_newer(&self, replaced: Option<FileId>, ours: FileId) -> bool {
        self.id()
            .is_some_and(|known| known != ours && Some(known) != replaced)
    }

    /// SC3.
    fn may_be_replaced(&self, path: &Path) -> io::Result<bool> {
        let found = match fs::metadata(path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error),
        };
        if self.id() != Some(FileId::from(&found)) || is_being_written(path)? {
            return Ok(false);
        }
        Ok(match self {
            Self::Nothing => false,
            Self::Ours(_) => true,
            Self::Merged(_, since) | Self::Refused(_, since, _) => since.elapsed() >= COURTESY,
        })
    }
}

fn is_being_written(path: &Path) -> io::Result<bool> {
    match File::options()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
    {
        Ok(file) => Ok(is_open_for_writing(&file)? == Some(true)),
        // What we may not read, the kernel does not tell us of.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sherwood_client::locate::ClusterId;

    use super::*;

    #[test]
    fn only_a_file_that_came_after_ours_is_newer_than_ours() {
        let tmp = tempfile::tempdir().unwrap();
        let id = |name: &str| {
            let path = tmp.path().join(name);
            fs::write(&path, name).unwrap();
            FileId::of(&path).unwrap()
        };
        let (ours, replaced, later) = (id("ours"), id("replaced"), id("later"));
        let now = Instant::now();
        for (known, is_newer) in [
            (Known::Nothing, false),
            (Known::Ours(ours), false),
            (Known::Merged(ours, now), false),
            (Known::Merged(replaced, now), false),
            (Known::Refused(replaced, now, String::new()), false),
            (Known::Merged(later, now), true),
            (Known::Refused(later, now, String::new()), true),
        ] {
            assert_eq!(known.is_newer(Some(replaced), ours), is_newer, "{known:?}");
        }
        assert!(Known::Merged(later, now).is_newer(None, ours));
    }

    #[test]
    fn a_base_does_not_wait_for_the_job_that_is_under_way() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = StateDir::open(tmp.path()).unwrap();
        let cluster = ClusterId::new("c").unwrap();
        let checkpoints = Arc::new(Checkpoints::open(&dir, &cluster, 0o600).unwrap());
        let keeper = MetadataKeeper::new(dir.path());
        let (reports, reported) = mpsc::channel();
        let (go, gone) = mpsc::channel::<()>();
        let gone = Arc::new(std::sync::Mutex::new(gone));
        let report = move |report| {
            // The job ends when the test says so.
            if matches!(report, Report::PublishFailed { .. }) {
                let _test_has_ended = gone.lock().unwrap().recv();
            }
            reports.send(report).unwrap();
        };
        let base = checkpoints.base();
        let mut scribe = Scribe::start(checkpoints, keeper, dir, report).unwrap();
        // Dropped before it: a test that fails does not wait for the job.
        let go = go;
        let job = Job::Publish {
            checkpoint: tmp.path().join("none"),
            known: Known::Nothing,
        };
        assert!(scribe.ask(job));
        assert!(scribe.set_base(Bytes::from_static(b"theirs")));
        let first = reported.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(matches!(first, Report::Base(Ok(()))), "{first:?}");
        assert_eq!(fs::read(base).unwrap(), b"theirs");
        go.send(()).unwrap();
        let second = reported.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(matches!(second, Report::PublishFailed { .. }), "{second:?}");
        scribe.stop();
    }
}
