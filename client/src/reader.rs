//! Acquiring the newest snapshot of a file: the reader's rules R1 to R5.
//!
//! A [`Reader`] is shared by the threads of a process, and its one mutex is what R2
//! asks for. A [`Handle`] is one thread's view: while nothing is published,
//! [`Handle::latest`] is one relaxed load and a comparison, without a lock, a syscall
//! or a write to shared memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sherwood_shared::file::{FileId, OpenError, SnapshotFile};
use sherwood_shared::head::rule::HeadWord;
use sherwood_shared::mapping::{Loans, Region};
use sherwood_shared::pause;
use sherwood_shared::root::{Root, RootError};

use crate::error::{Damage, ReadError};
use crate::regions::Regions;
use crate::snapshot::Snapshot;

/// R5: longest sleep between two looks at the path.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// Shortest time between two looks at the path of a file that was superseded.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Copies of one snapshot that may be overtaken before a reader gives up.
const COPIES: usize = 64;
/// Turns of the R2 loop after which the reader lets the writer finish its probe.
const TURNS_WITHOUT_YIELD: usize = 16;

/// Reads the snapshots of one file, newest first.
///
/// Cheap to clone, `Send + Sync`. Follows the path: when a new daemon puts a new file
/// there, the reader goes over to it.
#[derive(Clone, Debug)]
pub struct Reader {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    state: Mutex<Attached>,
}

/// The file at the path and what was last read of it.
#[derive(Debug)]
struct Attached {
    file: Arc<SnapshotFile>,
    /// R1: a live daemon was seen behind the file, in this lock domain.
    leases_work: bool,
    /// Leases on the regions of `current`, and on those of a turn that failed.
    leases: BTreeMap<u32, Arc<Region>>,
    current: Option<(HeadWord, Snapshot)>,
    looked_at_path: Option<Instant>,
    beat: Beat,
}

#[derive(Clone, Copy, Debug)]
struct Beat {
    count: u64,
    since: Instant,
}

/// What can be said of the daemon behind a snapshot file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Liveness {
    /// A daemon holds the file's witness lock (F11). Without one the snapshot is the
    /// last that there was.
    pub alive: bool,
    /// The daemon's pid, as it saw itself.
    pub pid: u32,
    /// For how long the beat counter has not moved while this reader looked, by this
    /// process's clock. A daemon beats each second: one that is alive and has not
    /// beaten for several hangs. Zero at the first look.
    pub silent_for: Duration,
}

impl Liveness {
    /// A daemon beats each second; one that is silent for longer than this hangs.
    pub const PATIENCE: Duration = Duration::from_secs(3);

    /// Is the snapshot possibly behind the state: is no daemon alive, or does it hang?
    #[must_use]
    pub fn is_stale(&self) -> bool {
        !self.alive || self.silent_for > Self::PATIENCE
    }
}

impl Reader {
    /// Opens a snapshot file and acquires its newest snapshot.
    ///
    /// # Errors
    ///
    /// [`ReadError::Open`] tells a missing file, one that is not to be trusted, one of
    /// another version and one that is still being made apart.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ReadError> {
        let path = path.as_ref().to_owned();
        pause::at("reader: open");
        Self::begin(SnapshotFile::open(&path)?, path)
    }

    /// The same for the process that writes the file: what it has mapped already is read there.
    #[doc(hidden)]
    pub fn open_own(path: impl AsRef<Path>, id: FileId, loans: Loans) -> Result<Self, ReadError> {
        let path = path.as_ref().to_owned();
        Self::begin(SnapshotFile::open(&path)?.lent(id, loans), path)
    }

    fn begin(file: SnapshotFile, path: PathBuf) -> Result<Self, ReadError> {
        let mut attached = Attached::to(file)?;
        attached.acquire(&path)?;
        Ok(Self {
            shared: Arc::new(Shared {
                path,
                state: Mutex::new(attached),
            }),
        })
    }

    /// The path it follows.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// A view for one thread.
    pub fn handle(&self) -> Result<Handle, ReadError> {
        let view = self.lock().acquire(&self.shared.path)?;
        Ok(Handle {
            reader: self.clone(),
            view,
            last_error: None,
        })
    }

    /// The newest snapshot, owned. Looks at the path as well, at most once a second: a
    /// file may lose its name while no daemon lives that could mark it (R5).
    pub fn snapshot(&self) -> Result<Snapshot, ReadError> {
        let mut attached = self.lock();
        attached.follow(&self.shared.path, LONGEST_SLEEP);
        Ok(attached.acquire(&self.shared.path)?.snapshot)
    }

    /// Is a daemon alive behind the file at the path? Costs a few syscalls.
    pub fn liveness(&self) -> Result<Liveness, ReadError> {
        let mut attached = self.lock();
        attached.follow(&self.shared.path, LOOK_AGAIN);
        let count = attached.file.header().beat();
        if attached.beat.count != count {
            attached.beat = Beat {
                count,
                since: Instant::now(),
            };
        }
        Ok(Liveness {
            alive: attached.file.has_writer()?,
            pid: attached.file.constants().writer_pid,
            silent_for: attached.beat.since.elapsed(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Attached> {
        // Every change of `Attached` is whole before the next statement that may panic.
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a thread holds between two looks at the head.
#[derive(Clone, Debug)]
struct View {
    file: Arc<SnapshotFile>,
    /// `None`: look at once, the file was superseded.
    seen: Option<HeadWord>,
    snapshot: Snapshot,
}

impl Attached {
    fn open(path: &Path) -> Result<Self, ReadError> {
        pause::at("reader: open");
        Self::to(SnapshotFile::open(path)?)
    }

    fn to(file: SnapshotFile) -> Result<Self, ReadError> {
        let leases_work = file.has_writer()?;
        let beat = Beat {
            count: file.header().beat(),
            since: Instant::now(),
        };
        Ok(Self {
            file: Arc::new(file),
            leases_work,
            leases: BTreeMap::new(),
            current: None,
            looked_at_path: None,
            beat,
        })
    }

    /// The newest snapshot, from the file at the path if this one was superseded.
    fn acquire(&mut self, path: &Path) -> Result<View, ReadError> {
        let mut head = self.file.header().observe();
        if head.is_superseded() {
            self.follow(path, LOOK_AGAIN);
            head = self.file.header().observe();
        }
        let snapshot = match &self.current {
            // The mark alone is no new generation.
            Some((seen, snapshot)) if seen.superseded() == head.superseded() => snapshot.clone(),
            _ => self.turn(path)?,
        };
        // Of a marked file nothing is taken for unchanged: its successor is looked for.
        let seen = self.current.as_ref().map(|(seen, _)| *seen);
        let seen = seen.filter(|seen| !seen.is_superseded() && !head.is_superseded());
        Ok(View {
            file: Arc::clone(&self.file),
            seen,
            snapshot,
        })
    }

    /// Goes over to the file at the path, if it is another one that can be read.
    /// Looks at most once in `interval`.
    fn follow(&mut self, path: &Path, interval: Duration) {
        let looked = self.looked_at_path;
        if looked.is_some_and(|looked| looked.elapsed() < interval) {
            return;
        }
        self.looked_at_path = Some(Instant::now());
        if self.file.is_at_its_path() {
            return;
        }
        // A file that cannot be read yet is no reason to lose the one at hand.
        if let Ok(mut next) = Self::open(path)
            && next.turn(path).is_ok()
        {
            *self = next;
        }
    }

    /// R2: the loop that leases what the head names until nothing is missing.
    fn turn(&mut self, path: &Path) -> Result<Snapshot, ReadError> {
        let mut copied = BTreeMap::new();
        let mut copies = 0;
        let mut turns = 0;
        loop {
            turns += 1;
            if turns > TURNS_WITHOUT_YIELD {
                std::thread::yield_now();
            }
            pause::at("reader: load the head");
            let head = self.file.header().observe();
            pause::at("reader: lease the root's region");
            let out_of_bounds = |what| {
                let path = path.to_owned();
                let at = head.end_bytes();
                ReadError::Damaged {
                    path,
                    at,
                    source: Damage::OutOfBounds { what },
                }
            };
            if head.is_empty() {
                return Err(OpenError::Unpublished {
                    path: path.to_owned(),
                }
                .into());
            }
            let end = head.end_bytes();
            let file = Arc::clone(&self.file);
            let constants = file.constants();
            let number = constants
                .region_of(end - 1)
                .ok_or_else(|| out_of_bounds("the root"))?;
            let held_before = self.leases.contains_key(&number);
            let Some(region) = self.hold(number, &mut copied)? else {
                continue;
            };
            if !held_before && self.leases_work {
                continue; // R2: the lease is younger than the head that was loaded
            }
            let at = end - constants.region_start(number);
            let at = usize::try_from(at).unwrap_or(usize::MAX).min(region.len());
            let record = region
                .buffer(at..region.len())
                .ok_or_else(|| out_of_bounds("the root"))?;
            let root = match Root::parse(&record) {
                Ok(root) => root,
                // A copy of bytes that were being overwritten may be anything.
                Err(_) if region.is_copied() && copies < COPIES => {
                    copied.clear();
                    copies += 1;
                    continue;
                }
                Err(source) => return Err(self.damaged(end, source)),
            };
            drop(record);
            pause::at("reader: lease the regions");
            // Nearly always the regions are those of the snapshot before, all of them leased:
            // then nothing here grows with their number.
            let unchanged = self
                .current
                .as_ref()
                .map(|(_, current)| current.regions())
                .filter(|regions| self.leases_work && regions.numbers() == root.regions)
                .cloned();
            if let Some(regions) = unchanged {
                return self.complete(head, root, regions);
            }
            let mut missing = false;
            for &number in &root.regions {
                if !self.leases.contains_key(&number) && !copied.contains_key(&number) {
                    missing = true;
                    self.hold(number, &mut copied)?;
                }
            }
            if missing && self.leases_work {
                continue; // R2: every lease was taken before the head was loaded
            }
            pause::at("reader: check the copies");
            if !copied.is_empty() {
                // W7: taken last, after every byte was copied.
                if !self.file.header().copied_intact(head, root.generation) {
                    copied.clear();
                    copies += 1;
                    if copies >= COPIES {
                        return Err(ReadError::Overtaken {
                            path: path.to_owned(),
                        });
                    }
                    continue;
                }
            }
            let held = root.regions.iter().map(|number| {
                let held = self.leases.get(number).or_else(|| copied.get(number));
                held.cloned().ok_or_else(|| out_of_bounds("a region"))
            });
            let held = held.collect::<Result<Vec<_>, _>>()?;
            if !root.regions.is_sorted() {
                return Err(out_of_bounds("the regions"));
            }
            let regions = Regions::new(Arc::clone(&self.file), root.regions.clone(), held);
            return self.complete(head, root, Arc::new(regions));
        }
    }

    /// R4: the old snapshot goes only after the new one is complete.
    fn complete(
        &mut self,
        head: HeadWord,
        root: Root,
        regions: Arc<Regions>,
    ) -> Result<Snapshot, ReadError> {
        let numbers = Arc::clone(&regions);
        let old = self.current.as_ref().map(|(_, old)| old);
        let snapshot = Snapshot::mapped(root, head.end_bytes(), regions, &self.file, old)?;
        pause::at("reader: drop what is left over");
        if self.leases.len() > numbers.numbers().len() {
            self.leases
                .retain(|number, _| numbers.numbers().binary_search(number).is_ok());
        }
        self.current = Some((head, snapshot.clone()));
        Ok(snapshot)
    }

    /// A region, leased now or before, or copied where leases do not work. `None`: the
    /// writer probes it at this moment.
    fn hold(
        &mut self,
        number: u32,
        copied: &mut BTreeMap<u32, Arc<Region>>,
    ) -> Result<Option<Arc<Region>>, ReadError> {
        if let Some(region) = self.leases.get(&number).or_else(|| copied.get(&number)) {
            return Ok(Some(Arc::clone(region)));
        }
        if !self.leases_work {
            let region = self.file.copy(number)?;
            copied.insert(number, Arc::clone(&region));
            return Ok(Some(region));
        }
        let region = self.file.lease(number)?;
        if let Some(region) = &region {
            self.leases.insert(number, Arc::clone(region));
        }
        Ok(region)
    }

    fn damaged(&self, at: u64, source: RootError) -> ReadError {
        ReadError::Damaged {
            path: self.file.path().to_owned(),
            at,
            source: source.into(),
        }
    }
}

/// One thread's view of a [`Reader`].
#[derive(Debug)]
pub struct Handle {
    reader: Reader,
    view: View,
    last_error: Option<ReadError>,
}

impl Handle {
    /// The newest snapshot: one relaxed load when nothing was published since.
    ///
    /// A file that loses its name while no daemon lives (somebody removed the run directory)
    /// cannot tell: a loop of this call alone stays with it. Call [`wait`](Self::wait),
    /// [`Reader::snapshot`] or [`Reader::liveness`] now and then; they look at the path (R5).
    ///
    /// When a refresh fails (out of descriptors, a damaged file) this is the last good
    /// one, [`last_error`](Self::last_error) says why, and the next call tries again.
    #[inline]
    pub fn latest(&mut self) -> &Snapshot {
        let unchanged = self
            .view
            .seen
            .is_some_and(|seen| self.view.file.header().is_unchanged(seen));
        if !unchanged {
            self.refresh_cold();
        }
        &self.view.snapshot
    }

    /// The same, telling why a refresh failed.
    pub fn refresh(&mut self) -> Result<&Snapshot, ReadError> {
        self.latest();
        match self.last_error.take() {
            Some(error) => Err(error),
            None => Ok(&self.view.snapshot),
        }
    }

    /// Why the last call of [`latest`](Self::latest) that had to refresh could not.
    #[must_use]
    pub fn last_error(&self) -> Option<&ReadError> {
        self.last_error.as_ref()
    }

    /// Waits for a snapshot newer than the one this handle holds: what `latest` or `wait`
    /// last returned. `None`: the time is over.
    ///
    /// Sleeps in the kernel, not longer than a second at a time (R5); a publish wakes it.
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<&Snapshot>, ReadError> {
        let deadline = Instant::now().checked_add(timeout);
        let seen = name(&self.view.snapshot);
        loop {
            self.refresh()?;
            let newest = name(&self.view.snapshot);
            if newest != seen {
                return Ok(Some(&self.view.snapshot));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let sleep = left.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP);
            if sleep.is_zero() {
                return Ok(None);
            }
            match self.view.seen {
                Some(seen) => {
                    let waited = self.view.file.header().wait(seen, sleep);
                    waited.map_err(|source| OpenError::Io {
                        action: "wait for",
                        path: self.reader.path().to_owned(),
                        source,
                    })?;
                }
                // A marked file does not change again: its successor is at the path soon.
                None => std::thread::sleep(sleep.min(LOOK_AGAIN)),
            }
            // R5: a wake may have been missed, and a file may lose its name unmarked.
            if self
                .view
                .seen
                .is_some_and(|seen| self.view.file.header().is_unchanged(seen))
            {
                let mut attached = self.reader.lock();
                attached.follow(&self.reader.shared.path, LOOK_AGAIN);
                // Another handle may have followed before.
                if !Arc::ptr_eq(&self.view.file, &attached.file) {
                    self.view = attached.acquire(&self.reader.shared.path)?;
                }
            }
        }
    }

    /// The reader it belongs to.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    #[cold]
    fn refresh_cold(&mut self) {
        match self.reader.lock().acquire(&self.reader.shared.path) {
            Ok(view) => {
                self.view = view;
                self.last_error = None;
            }
            Err(error) => self.last_error = Some(error),
        }
    }
}

/// (history, generation) names a state (F12).
fn name(snapshot: &Snapshot) -> (u64, [u8; 16]) {
    (snapshot.generation(), snapshot.history())
}
