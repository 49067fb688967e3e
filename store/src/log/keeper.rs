//! Keeps the log's directory in order, off the hot path: the next segment is made ready, old ones go.
//!
//! - **L5** A segment is written full of zeros and synced, file and directory, before it takes records. So an append
//!   overwrites what is there: its sync has no metadata to write, and a full disk is met here and not there.
//! - **L6** A segment goes only after the outcomes in it are durable elsewhere, and the manifest says that it may be gone
//!   (Y2). Then it is deleted or, one of them, filled with zeros for a new life (L1).
//! - **L14** Room for saving outcomes is held back in a file of its own. Where a disk has become full, L6 takes room before it
//!   gives any: then that file goes first.
//! - **L15** A new segment, and the room of L14, leave room for the next checkpoint, which has at most what the newest one has and the log behind it. Without
//!   it the log takes the room of the very checkpoint that would let it go.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sherwood_shared::pause;

use super::cursor::{Cursor, End};
use super::disk::{Disk, DiskFile, write_zeros};
use super::error::KeepError;
use super::manifest::ManifestFile;
use super::payload::Decoder;
use super::read::undecodable;
use super::segment::SegmentHeader;
use super::writer::Options;
use crate::outcomes::{Outcomes, list_files, read_file, write_file};

/// The file that holds room back (L14).
const RESERVE: &str = "room.reserve";

/// More files of outcomes than this are merged into one.
const FILES: usize = 8;

/// See [`Log::keeper`](super::Log::keeper). Clones keep the same log.
#[derive(Clone, Debug)]
pub struct Keeper(pub(super) Arc<Shared>);

/// What the log and its keeper share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) options: Options,
    /// Oldest first; the last one takes records.
    pub(super) live: Mutex<Vec<Live>>,
    pub(super) spare: Mutex<Option<Spare>>,
    pub(super) manifest: Mutex<ManifestFile>,
    /// Held while files are made or go; an append waits for it only if it needs a segment that is not ready.
    pub(super) keeping: Mutex<Leftover>,
    /// L15: the newest checkpoint's length, and the last entry in it.
    pub(super) checkpoint: Mutex<(u64, u64)>,
    /// The sequence of the next entry.
    pub(super) next: AtomicU64,
    /// Files that were made to become segments.
    pub(super) spares: AtomicU64,
}

impl Shared {
    /// A name that no other has: an append that names its segment waits for nobody, and the next one may be made or recycled
    /// at that moment.
    fn spare_path(&self) -> PathBuf {
        // ORDER spares: a number by itself.
        let number = self.spares.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("{number}.spare"))
    }
}

/// Files that may go.
pub(super) type Leftover = Vec<PathBuf>;

/// A segment of the log.
#[derive(Clone, Debug)]
pub(super) struct Live {
    pub(super) path: PathBuf,
    pub(super) header: SegmentHeader,
}

/// A file of zeros that can become a segment (L5).
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) path: PathBuf,
    pub(super) file: Box<dyn DiskFile>,
    pub(super) bytes: u64,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keeper {
    /// Makes the next segment ready, if it is not; `true` if there was something to do. Takes as long as writing a
    /// segment does. Call it at the start and whenever an append [began a segment](super::Log::needs_segment).
    ///
    /// # Errors
    ///
    /// The kernel's; a full disk for one. The log goes on in the segment it has.
    pub fn prepare(&self) -> Result<bool, KeepError> {
        let shared = &self.0;
        let _keeping = lock(&shared.keeping);
        let is_owed = lock(&shared.spare).is_none();
        if is_owed {
            pause::at("log: prepare a segment");
            let spare = make_spare(shared, shared.options.segment_bytes)
                .map_err(|source| io("prepare a segment in", &shared.dir, source))?;
            *lock(&shared.spare) = Some(spare);
        }
        self.hold_back();
        Ok(is_owed)
    }

    /// L15: the newest checkpoint has so many bytes, and holds the entries up to this one.
    pub fn has_checkpoint(&self, bytes: u64, through: u64) {
        *lock(&self.0.checkpoint) = (bytes, through);
    }

    /// Lets go of segments whose entries all have sequences up to `through`, after saving their outcomes (L6).
    /// The segment that takes records stays. Gives the sequence with which the log then begins.
    ///
    /// # Errors
    ///
    /// The kernel's, or that a segment cannot be read any more. What was not released is there as before.
    pub fn release(&self, through: u64) -> Result<u64, KeepError> {
        let shared = &self.0;
        let mut leftover = lock(&shared.keeping);
        match self.release_once(through, &mut leftover) {
            Err(error) if error.is_full() && self.give_back() => {
                self.release_once(through, &mut leftover)
            }
            released => released,
        }
    }

    fn release_once(&self, through: u64, leftover: &mut Leftover) -> Result<u64, KeepError> {
        let shared = &self.0;
        let (going, begins) = going(&lock(&shared.live), through);
        if let (Some(first), Some(_)) = (going.first(), going.last()) {
            pause::at("log: save outcomes");
            self.save_outcomes(&going, (first.header.first_sequence, begins - 1))?;
            pause::at("log: say what is released");
            lock(&shared.manifest)
                .write(|manifest| manifest.released = begins - 1)
                .map_err(|source| io("write the manifest in", &shared.dir, source))?;
            lock(&shared.live).drain(..going.len());
            leftover.extend(going.into_iter().map(|live| live.path));
            self.merge_outcomes(leftover)?;
            leftover.extend(torn_files(&shared.dir, begins - 1));
        }
        pause::at("log: delete segments");
        self.delete(leftover)?;
        Ok(begins)
    }

    /// L14, if there is room for it.
    fn hold_back(&self) {
        let shared = &self.0;
        let path = shared.dir.join(RESERVE);
        // Enough for the outcomes of the segments that go, unless their ids are long.
        let bytes = shared.options.segment_bytes / 2;
        if std::fs::metadata(&path).is_ok_and(|found| found.len() == bytes) {
            return;
        }
        // With zeros in it: a file system that cannot reserve room gives it to what is written.
        let held = leaves_room(shared, bytes)
            .and_then(|()| make_file(&*shared.disk, &shared.dir, &path, bytes));
        if let Err(error) = held {
            tracing::debug!(path = %path.display(), %error, "no room is held back");
        }
    }

    /// Gives the room of L14 back; `false`: there was none.
    fn give_back(&self) -> bool {
        let shared = &self.0;
        shared.disk.unlink(&shared.dir.join(RESERVE)).is_ok()
    }

    fn save_outcomes(&self, going: &[Live], range: (u64, u64)) -> Result<(), KeepError> {
        let shared = &self.0;
        let mut outcomes = Outcomes::new(shared.options.window);
        let mut next = range.0;
        for live in going {
            let mut cursor = Cursor::open(&live.path)?;
            let mut decoder = Decoder::default();
            // A start went on over damage before its checkpoint (L12): what can be read is kept.
            next = next.max(live.header.first_sequence);
            loop {
                if !cursor.advance(next)? {
                    match cursor.end(next)? {
                        End::Damaged { next: good, at } => {
                            (next, cursor.offset) = (good, at);
                            decoder.gap();
                            continue;
                        }
                        _ => break,
                    }
                }
                let Some(record) = cursor.record() else { break };
                let found = decoder.outcomes(record.payload);
                for outcome in found.map_err(|e| undecodable(&live.path, &record, e))? {
                    outcomes.insert(outcome);
                }
                next += 1;
            }
        }
        if next != range.1 + 1 {
            tracing::warn!(
                dir = %shared.dir.display(), first = next, last = range.1,
                "the outcomes of these entries are damaged in the log: a retry of one of their transactions would be done twice"
            );
        }
        write_file(&*shared.disk, &shared.dir, range, outcomes.iter())
            .map(drop)
            .map_err(|source| io("save outcomes in", &shared.dir, source))
    }

    fn merge_outcomes(&self, leftover: &mut Leftover) -> Result<(), KeepError> {
        let shared = &self.0;
        let (files, covered) = list_files(&shared.dir)?;
        leftover.extend(covered);
        let (Some(first), Some(last)) = (files.first(), files.last()) else {
            return Ok(());
        };
        if files.len() <= FILES {
            return Ok(());
        }
        let mut outcomes = Outcomes::new(shared.options.window);
        for file in &files {
            for outcome in read_file(file)? {
                outcomes.insert(outcome);
            }
        }
        let range = (first.first, last.last);
        write_file(&*shared.disk, &shared.dir, range, outcomes.iter())
            .map_err(|source| io("merge outcomes in", &shared.dir, source))?;
        leftover.extend(files.into_iter().map(|file| file.path));
        Ok(())
    }

    /// Deletes what may go, but keeps one segment for a new life if none is ready.
    fn delete(&self, leftover: &mut Leftover) -> Result<(), KeepError> {
        let shared = &self.0;
        if leftover.is_empty() {
            return Ok(());
        }
        while let Some(path) = leftover.last().cloned() {
            let is_segment = path.extension().is_some_and(|extension| extension == "log");
            if is_segment && lock(&shared.spare).is_none() && self.recycle(&path) {
                leftover.pop();
                continue;
            }
            match shared.disk.unlink(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(io("delete", &path, source)),
            }
            leftover.pop();
        }
        let synced = shared.disk.sync_dir(&shared.dir);
        synced.map_err(|source| io("sync", &shared.dir, source))
    }

    /// Makes a released segment the next one. A failure is no error: it is deleted then.
    fn recycle(&self, path: &Path) -> bool {
        let shared = &self.0;
        let bytes = shared.options.segment_bytes;
        if std::fs::metadata(path).map(|found| found.len()).ok() != Some(bytes) {
            return false;
        }
        let spare = shared.spare_path();
        let recycled = || -> io::Result<Spare> {
            shared.disk.rename(path, &spare)?;
            // Before the zeros: a crash must not leave a segment's name on them.
            shared.disk.sync_dir(&shared.dir)?;
            let file = shared.disk.open(&spare)?;
            write_zeros(&*file, 0, bytes)?;
            file.fdatasync()?;
            Ok(Spare {
                path: spare.clone(),
                file,
                bytes,
            })
        };
        match recycled() {
            Ok(ready) => *lock(&shared.spare) = Some(ready),
            Err(_) => {
                // Whatever there is of it; `prepare` makes a new one, or says why it cannot.
                let _gone_or_not = shared.disk.unlink(&spare);
                return !path.exists();
            }
        }
        true
    }
}

/// The segments that go, and where the log begins without them.
fn going(live: &[Live], through: u64) -> (Vec<Live>, u64) {
    let mut going = Vec::new();
    let mut begins = live.first().map_or(1, |first| first.header.first_sequence);
    for pair in live.windows(2) {
        let [old, next] = pair else { continue };
        if next.header.first_sequence > through.saturating_add(1) {
            break;
        }
        begins = next.header.first_sequence;
        going.push(old.clone());
    }
    (going, begins)
}

/// Saved torn tails of sequences that were released.
fn torn_files(dir: &Path, through: u64) -> Vec<PathBuf> {
    let Ok(items) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let paths = items.filter_map(|item| item.ok().map(|item| item.path()));
    paths
        .filter(|path| {
            let is_torn = path
                .extension()
                .is_some_and(|extension| extension == "torn");
            let sequence = path
                .file_stem()
                .and_then(|stem| stem.to_str()?.parse::<u64>().ok());
            is_torn && sequence.is_some_and(|sequence| sequence <= through)
        })
        .collect()
}

/// Bytes of the segments with entries that are in no checkpoint.
fn log_behind(shared: &Shared, through: u64) -> u64 {
    let live = lock(&shared.live);
    // ORDER next: a number by itself; the segment that takes records counts one entry sooner or later.
    let next = shared.next.load(Ordering::Relaxed);
    let ends = live.iter().skip(1).map(|live| live.header.first_sequence);
    let behind = live.iter().zip(ends.chain([next]));
    let behind = behind.filter(|(_, end)| *end > through.saturating_add(1));
    behind.map(|(live, _)| live.header.bytes).sum()
}

/// Makes a segment to come, durably (L5), if that leaves room (L15). Nothing is left behind if that fails.
pub(super) fn make_spare(shared: &Shared, bytes: u64) -> io::Result<Spare> {
    leaves_room(shared, bytes)?;
    make_file(&*shared.disk, &shared.dir, &shared.spare_path(), bytes)
}

/// L15: is there room for the next checkpoint beside a new file of so many bytes?
fn leaves_room(shared: &Shared, bytes: u64) -> io::Result<()> {
    let (newest, through) = *lock(&shared.checkpoint);
    let checkpoint = newest.saturating_add(log_behind(shared, through));
    // Where it cannot be said, whoever makes the file finds out.
    let room = shared.disk.room(&shared.dir).unwrap_or(u64::MAX);
    if room < bytes.saturating_add(checkpoint) {
        // Without numbers, which would make it another trouble each time.
        return Err(io::Error::new(
            io::ErrorKind::StorageFull,
            "No space left but what the next checkpoint needs",
        ));
    }
    Ok(())
}

/// Makes a file of zeros, durably. Nothing is left behind if that fails.
pub(super) fn make_file(disk: &dyn Disk, dir: &Path, path: &Path, bytes: u64) -> io::Result<Spare> {
    let _there_or_not = disk.unlink(path);
    let made = || {
        let file = disk.create(path)?;
        file.allocate(bytes)?;
        write_zeros(&*file, 0, bytes)?;
        file.fdatasync()?;
        disk.sync_dir(dir)?;
        Ok(Spare {
            path: path.to_owned(),
            file,
            bytes,
        })
    };
    made().inspect_err(|_| {
        let _gone_or_not = disk.unlink(path);
    })
}

fn io(doing: &'static str, path: &Path, source: io::Error) -> KeepError {
    KeepError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}
