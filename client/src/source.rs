//! One state, followed: from shared memory while a daemon lives, from the Parquet file otherwise.
//!
//! [`Places`] find a state once; a [`Source`] keeps what was found and looks again when there is reason to:
//!
//! - a live daemon's snapshot is the newest there is, and is read with no more than the look that tells that it lives;
//! - without a live daemon what was found holds until one of the files that decide is another one, or was written: their
//!   device, inode, length and times are compared, and nothing is read.
//!
//! A file that was written a moment ago may be written again within the same tick of the file system's clock, unseen by
//! its times. So what was read of such a file holds for one tick only.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::find::{FindError, Found, Origin, Places};
use crate::snapshot::Snapshot;

/// Times of files are not finer than this; the coarsest are those of a kernel that ticks a hundred times a second.
const TICK: Duration = Duration::from_millis(20);
/// How often to look at the files while nobody can wake us.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often to look whether the daemon that would wake us is there.
const LOOK_FOR_DAEMON: Duration = Duration::from_millis(500);

/// Follows one state, whoever serves it. Cheap to clone; `Send + Sync`.
#[derive(Clone, Debug)]
pub struct Source {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    places: Places,
    known: Mutex<Known>,
}

/// What was found, and what it was found by.
#[derive(Debug)]
struct Known {
    found: Found,
    /// `None`: nothing tells, look each time.
    stamps: Option<Vec<Stamp>>,
}

/// Which file stands at a path, and when it was last written.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    file: Option<FileStamp>,
}

#[derive(Debug, PartialEq, Eq)]
enum FileStamp {
    /// A snapshot file: each daemon makes a new one, and what is written into it says nothing.
    Made {
        device: u64,
        inode: u64,
    },
    Written(Written),
}

#[derive(Debug, PartialEq, Eq)]
struct Written {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    /// It was no longer this tick's when it was looked at.
    is_settled: bool,
}

impl Source {
    /// Finds the state and reads it. From then on it is that state which is followed, and no other is looked for.
    pub fn open(places: Places) -> Result<Self, FindError> {
        let mut known = Known::of(&places)?;
        let places = places.narrowed_to(&known.found);
        if known.stamps.is_none() {
            // Older than what was found, or younger: then it is read again, once.
            known = Known::of(&places)?;
        }
        let known = Mutex::new(known);
        Ok(Self {
            shared: Arc::new(Shared { places, known }),
        })
    }

    /// The newest snapshot.
    ///
    /// # Errors
    ///
    /// As of [`Places::find`], where the state has gone, or was replaced by one that cannot be read. The next call looks
    /// again.
    pub fn snapshot(&self) -> Result<Snapshot, FindError> {
        let mut known = self.lock();
        self.refresh(&mut known)?;
        Ok(known.found.snapshot.clone())
    }

    /// The same, with where it came from.
    pub fn found(&self) -> Result<Found, FindError> {
        let mut known = self.lock();
        self.refresh(&mut known)?;
        Ok(known.found.clone())
    }

    /// Waits for another snapshot than `seen`. `None`: the time is over.
    ///
    /// A publish wakes it. Without a daemon it looks at the file's times now and then, and it notices within half a second
    /// that a daemon came or went.
    pub fn wait(&self, seen: &Snapshot, timeout: Duration) -> Result<Option<Snapshot>, FindError> {
        // A time beyond the clock's end never comes.
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let found = self.found()?;
            if !found.snapshot.is_same(seen) {
                return Ok(Some(found.snapshot));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            let at_most = |most: Duration| left.map_or(most, |left| left.min(most));
            match &found.origin {
                Origin::Shared { reader } => {
                    let mut handle = reader.handle()?;
                    // What it holds may be newer already.
                    if handle.latest().is_same(seen) {
                        handle.wait(at_most(LOOK_FOR_DAEMON))?;
                    }
                }
                Origin::Parquet { .. } => std::thread::sleep(at_most(LOOK_EVERY)),
            }
        }
    }

    fn refresh(&self, known: &mut Known) -> Result<(), FindError> {
        if !known.take_newest()? && !known.still_holds() {
            *known = Known::of(&self.shared.places)?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // `Known` is replaced as a whole.
        self.shared
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn of(places: &Places) -> Result<Self, FindError> {
        // Taken before anything is read: what changes meanwhile is looked at again.
        let stamps = places.deciding();
        let stamps = stamps.map(|paths| paths.into_iter().map(Stamp::of).collect());
        let found = places.find()?;
        Ok(Self { found, stamps })
    }

    /// Takes the newest snapshot of a daemon that is alive, if this is one's.
    fn take_newest(&mut self) -> Result<bool, FindError> {
        let Origin::Shared { reader } = &self.found.origin else {
            return Ok(false);
        };
        // A snapshot file that was named is all there is to read, dead or alive.
        if self.found.state_path.is_some() && !reader.liveness()?.alive {
            return Ok(false);
        }
        let newest = reader.snapshot()?;
        let stands_for = |dir: &Path| newest.stands_for(dir);
        // Whoever may write there may put another state's snapshot at the path.
        if self.found.state_path.as_deref().is_none_or(stands_for) {
            self.found.snapshot = newest;
            return Ok(true);
        }
        Ok(false)
    }

    /// Is what was found what would be found now, without looking into any file?
    fn still_holds(&self) -> bool {
        let Some(stamps) = &self.stamps else {
            return false;
        };
        let mut stamps = stamps.iter();
        stamps.all(|stamp| stamp.is_settled() && *stamp == Stamp::of(stamp.path.clone()))
    }
}

impl Stamp {
    fn of(path: PathBuf) -> Self {
        let is_snapshot = path.extension().is_some_and(|found| found == "arrow");
        let file = fs::metadata(&path).ok().map(|found| {
            if is_snapshot {
                let (device, inode) = (found.dev(), found.ino());
                return FileStamp::Made { device, inode };
            }
            FileStamp::Written(Written::of(&found))
        });
        Self { path, file }
    }

    /// Would a change show from now on?
    fn is_settled(&self) -> bool {
        match &self.file {
            Some(FileStamp::Written(written)) => written.is_settled,
            Some(FileStamp::Made { .. }) | None => true,
        }
    }
}

impl Written {
    fn of(found: &fs::Metadata) -> Self {
        let part = |part: i64| u64::try_from(part).unwrap_or(0);
        let changed = Duration::from_secs(part(found.ctime()))
            + Duration::from_nanos(part(found.ctime_nsec()));
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
            is_settled: is_settled(changed, now.unwrap_or_default()),
        }
    }
}

/// Would another change of a file that changed last at `changed` show in its times, now? A clock that was set back says nothing.
fn is_settled(changed: Duration, now: Duration) -> bool {
    now.checked_sub(changed).is_none_or(|since| since > TICK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_this_tick_may_change_unseen() {
        let at = |millis: u64| Duration::from_millis(1_000_000 + millis);
        assert!(!is_settled(at(0), at(0)));
        assert!(!is_settled(at(0), at(20)));
        assert!(is_settled(at(0), at(21)));
        assert!(is_settled(at(100), at(0)), "the clock was set back");
    }

    #[test]
    fn a_file_that_was_just_written_is_not_believed_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state_c.parquet");
        // Fresh when it is looked at, unless that took longer than a tick each time.
        let is_seen_fresh = (0..1000).any(|_| {
            fs::write(&path, "x").unwrap();
            !Stamp::of(path.clone()).is_settled()
        });
        assert!(is_seen_fresh);
    }
}
