//! The log, open for appending. One process does, the daemon, and one thread of it (W1).
//!
//! - **L7** When [`Log::append`] returns `Ok` the entry is durable: it was written into space that was there (L5), and
//!   `fdatasync` returned. The next one is written only after that, so that a crash can tear the last record alone.
//! - **L8** After a failed write or sync of a record nothing is appended any more: what the disk holds is not known, and a
//!   second sync would say that all is well. A new [`Log::open`] reads what is there.
//! - **L13** A segment has entries of one history (F12). A log that is opened with another one than its newest segment's goes on in a
//!   new segment, whose `base_generation` is [`Options::base_generation`]: who saw less, or another history, reads anew.
//! - **L9** What a start finds at the end of the log is written once more and synced before anyone relies on it: it may have
//!   been in the page cache alone, even marked as clean after a failed sync.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::{fs, io};

use sherwood_shared::pause;

use super::chain::TornTail;
use super::disk::{Disk, DiskFile, RealDisk, is_full, write_all, write_zeros};
use super::error::{AppendError, KeepError, LogError};
use super::keeper::{Keeper, Live, Shared, Spare, lock, make_file, make_spare};
use super::manifest::ManifestFile;
use super::payload::{Encoder, check};
use super::read::walk;
use super::record::{RECORD_ALIGN, RECORD_HEADER, RecordHeader};
use super::segment::{SEGMENT_HEADER, SegmentHeader, SegmentId, open_to_read, segment_path};
use crate::entry::Entry;
use crate::outcomes::{Outcomes, WINDOW};

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// The sequence of the newest entry that a checkpoint holds, or 0. A new log begins behind it; one that ends before it is
    /// an error.
    pub position: u64,
    /// For a new log or a new history: the generation of the state that it begins with. Watchers that have seen less must read anew.
    pub base_generation: u64,
    /// In which generations count.
    pub history: [u8; 16],
    /// Length of a segment. At least 4096; a multiple of it.
    pub segment_bytes: u64,
    /// How many outcomes are remembered.
    pub window: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            position: 0,
            base_generation: 0,
            history: [0; 16],
            segment_bytes: 16 << 20,
            window: WINDOW,
        }
    }
}

/// What was found when a log was opened.
#[derive(Debug)]
pub struct Opened {
    /// The outcomes that the log remembers, for the engine.
    pub outcomes: Outcomes,
    /// A record that was being written when the log stopped. It was never acknowledged and is cut off; its bytes are kept as
    /// `<sequence>.torn` in the log's directory until the sequence is released.
    pub torn: Option<TornTail>,
    /// The first sequence that is there.
    pub oldest_sequence: u64,
    /// The sequence of the last entry.
    pub last_sequence: u64,
    /// The newest generation of an entry.
    pub last_generation: u64,
}

/// A log, open for appending.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    file: Box<dyn DiskFile>,
    header: SegmentHeader,
    /// Where the next record begins.
    offset: u64,
    next_sequence: u64,
    generation: u64,
    encoder: Encoder,
    /// The record that is written.
    record: Vec<u8>,
    is_poisoned: bool,
}

impl Log {
    /// Opens the log in `dir`, or makes one there. A torn tail is cut off; the directory's leftovers go.
    ///
    /// **Durable** when this returns: everything that [`read`](super::read) finds then (L9), and nothing before.
    ///
    /// # Errors
    ///
    /// Damage, missing or swapped segments, an end before [`Options::position`]; then nothing was changed. And the kernel's.
    pub fn open(
        dir: &Path,
        options: Options,
        disk: Arc<dyn Disk>,
    ) -> Result<(Self, Opened), LogError> {
        let failed = |doing| {
            move |source| LogError::Io {
                doing,
                path: dir.to_owned(),
                source,
            }
        };
        let walked = walk(dir, options.window, options.position)?;
        let last = walked.walk.next - 1;
        let has_segments = !walked.walk.chain.segments.is_empty();
        if has_segments && last < options.position {
            return Err(LogError::EndsBefore {
                last,
                needed: options.position,
            });
        }
        make_dir(dir, &*disk).map_err(failed("make"))?;
        let (last_begins, offset) = walked.walk.last_record();
        let has_gap = walked.has_gap;
        for passed in &walked.walk.passed {
            tracing::warn!(
                "{passed}. A checkpoint holds these entries, so the log goes on; the outcomes of their transactions are not remembered"
            );
        }
        let chain = walked.walk.chain;
        let live: Vec<Live> = chain
            .segments
            .into_iter()
            .map(|link| Live {
                path: link.path,
                header: link.header,
            })
            .collect();
        let mut leftover = chain.leftover;
        leftover.extend(unfinished(dir).map_err(failed("list"))?);
        for path in &leftover {
            match disk.unlink(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("clean")(error));
                }
                _ => {}
            }
        }
        let newest = live.last().map(|live| &live.header);
        let is_same_history = newest.is_none_or(|newest| newest.history == options.history);
        let generation = if has_segments && is_same_history {
            walked.generation
        } else {
            options.base_generation
        };
        let (segment, manifest) = match (live.last(), chain.manifest) {
            (Some(newest), Some(now)) => {
                let torn = walked.walk.torn.as_ref();
                let file = settle(&*disk, dir, newest, (last_begins, offset), torn)
                    .map_err(failed("settle"))?;
                let mut manifest = ManifestFile::open(&*disk, dir, now).map_err(failed("open"))?;
                // Also if it says so already: it may have been in the page cache alone (L9).
                let (id, first) = (newest.header.id, newest.header.first_sequence);
                let named = manifest.write(|m| (m.newest, m.newest_first) = (id, first));
                named.map_err(failed("write the manifest in"))?;
                if is_same_history && !has_gap {
                    (Begun::Found(file, newest.header.clone()), manifest)
                } else {
                    drop(file);
                    let begun =
                        next_segment(&*disk, dir, &options, &newest.header, last + 1, generation);
                    let (file, header) = begun.map_err(failed("begin a history in"))?;
                    let (id, first) = (header.id, header.first_sequence);
                    let named = manifest.write(|m| (m.newest, m.newest_first) = (id, first));
                    named.map_err(failed("write the manifest in"))?;
                    (Begun::New(file, header), manifest)
                }
            }
            _ => {
                let (file, header) =
                    first_segment(&*disk, dir, &options).map_err(failed("begin"))?;
                let (id, first) = (header.id, header.first_sequence);
                let manifest = ManifestFile::create(&*disk, dir, id, first);
                (Begun::New(file, header), manifest.map_err(failed("begin"))?)
            }
        };
        disk.sync_dir(dir).map_err(failed("sync"))?;
        let mut live = live;
        let (file, header, offset, next_sequence) = match segment {
            Begun::Found(file, header) => (file, header, offset, last + 1),
            Begun::New(file, header) => {
                // One without records was replaced by it.
                live.retain(|live| live.header.first_sequence < header.first_sequence);
                live.push(Live {
                    path: segment_path(dir, header.first_sequence),
                    header: header.clone(),
                });
                let first = header.first_sequence;
                (file, header, SEGMENT_HEADER as u64, first)
            }
        };
        let opened = Opened {
            outcomes: walked.outcomes,
            torn: walked.walk.torn,
            oldest_sequence: live.first().map_or(1, |live| live.header.first_sequence),
            last_sequence: next_sequence - 1,
            last_generation: generation,
        };
        if let Some(torn) = &opened.torn {
            tracing::warn!(
                segment = %torn.path.display(), sequence = torn.sequence, bytes = torn.bytes,
                "the last record of the log was not written to its end; nobody was told that it was. It is cut off"
            );
        }
        let shared = Shared {
            dir: dir.to_owned(),
            disk,
            options,
            live: Mutex::new(live),
            spare: Mutex::new(None),
            manifest: Mutex::new(manifest),
            keeping: Mutex::new(Vec::new()),
            checkpoint: Mutex::new((0, 0)),
            next: AtomicU64::new(next_sequence),
            spares: AtomicU64::new(0),
        };
        let is_new = offset == SEGMENT_HEADER as u64;
        let log = Self {
            shared: Arc::new(shared),
            file,
            header,
            offset,
            next_sequence,
            generation,
            encoder: match is_new {
                true => Encoder::default(),
                false => Encoder::after(walked.decoder),
            },
            record: Vec::new(),
            is_poisoned: false,
        };
        Ok((log, opened))
    }

    /// [`open`](Self::open) on the kernel's file system.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn open_real(dir: &Path, options: Options) -> Result<(Self, Opened), LogError> {
        Self::open(dir, options, Arc::new(RealDisk))
    }

    /// Appends the entry of [`next_sequence`](Self::next_sequence).
    ///
    /// **Durable** when this returns `Ok` (L7). **Not in the log**, which is as before, after [`AppendError::Full`] and
    /// [`AppendError::Refused`]. **Unknown** after [`AppendError::Sync`], and every later call fails (L8).
    ///
    /// # Errors
    ///
    /// As said.
    pub fn append(&mut self, entry: &Entry) -> Result<(), AppendError> {
        if self.is_poisoned {
            return Err(AppendError::Sync {
                doing: "go on after a failed sync",
                source: None,
            });
        }
        if entry.sequence != self.next_sequence {
            return Err(AppendError::Refused {
                reason: format!(
                    "its sequence is {}, and the next one is {}",
                    entry.sequence, self.next_sequence
                ),
            });
        }
        check(entry).map_err(|malformed| AppendError::Refused {
            reason: malformed.to_string(),
        })?;
        self.encode(entry);
        if self.record.len() as u64 > self.header.bytes.saturating_sub(self.offset) {
            // The new segment knows no schemas yet, so that the record may have to grow by them.
            self.encoder.forget();
            let before = std::mem::take(&mut self.encoder);
            self.encode(entry);
            if let Err(error) = self.begin_segment() {
                self.encoder = before;
                return Err(error);
            }
            self.encode(entry);
        }
        pause::at("log: write the record");
        if let Err((written, source)) = write_all(&*self.file, &self.record, self.offset) {
            self.encoder.forget();
            if written == 0 && is_full(&source) {
                return Err(AppendError::Full {
                    doing: "write the entry",
                    source,
                });
            }
            return Err(self.poison("write", source));
        }
        pause::at("log: sync the record");
        if let Err(source) = self.file.fdatasync() {
            return Err(self.poison("sync", source));
        }
        pause::at("log: the record is durable");
        self.encoder.keep();
        self.offset += self.record.len() as u64;
        self.next_sequence += 1;
        // ORDER next: a number by itself.
        self.shared
            .next
            .store(self.next_sequence, Ordering::Relaxed);
        self.generation = self.generation.max(entry.generation);
        // A large entry's buffer is not kept.
        if self.record.capacity() > 1 << 20 {
            self.record = Vec::new();
        }
        Ok(())
    }

    /// The sequence of the next entry.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// The newest generation of an entry, or the one that the log begins with.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Is there no next segment ready? Then have [`prepare`](Self::prepare) make one, off the hot path.
    #[must_use]
    pub fn needs_segment(&self) -> bool {
        lock(&self.shared.spare).is_none()
    }

    /// A handle for another thread, to prepare and release.
    #[must_use]
    pub fn keeper(&self) -> Keeper {
        Keeper(Arc::clone(&self.shared))
    }

    /// See [`Keeper::prepare`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn prepare(&self) -> Result<bool, KeepError> {
        self.keeper().prepare()
    }

    /// See [`Keeper::release`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn release(&self, through: u64) -> Result<u64, KeepError> {
        self.keeper().release(through)
    }

    fn poison(&mut self, doing: &'static str, source: io::Error) -> AppendError {
        self.is_poisoned = true;
        AppendError::Sync {
            doing,
            source: Some(source),
        }
    }

    /// Makes the whole record of an entry, for the segment as it is.
    fn encode(&mut self, entry: &Entry) {
        self.encoder.forget();
        self.record.clear();
        self.record.resize(RECORD_HEADER, 0);
        self.encoder.encode(entry, &mut self.record);
        let align = usize::try_from(RECORD_ALIGN).unwrap_or(64);
        self.record
            .resize(self.record.len().next_multiple_of(align), 0);
        self.seal(entry);
    }

    /// Writes the record's header, which depends on the segment (L1).
    fn seal(&mut self, entry: &Entry) {
        let bytes = self.record.len() as u64;
        let Some((header, payload)) = self.record.split_at_mut_checked(RECORD_HEADER) else {
            return;
        };
        let sealed = RecordHeader {
            bytes,
            sequence: entry.sequence,
            generation: entry.generation,
            committed_at_ms: entry.committed_at_ms,
            payload_sum: crc32c::crc32c(payload),
        };
        header.copy_from_slice(&sealed.to_bytes(self.header.id));
    }

    /// Begins a segment that the record fits into.
    fn begin_segment(&mut self) -> Result<(), AppendError> {
        let needed = (SEGMENT_HEADER + self.record.len()) as u64;
        let spare = self.spare_of(needed)?;
        let header = SegmentHeader {
            id: SegmentId::random(),
            previous: self.header.id,
            history: self.shared.options.history,
            first_sequence: self.next_sequence,
            base_generation: self.generation,
            bytes: spare.bytes,
            created_at_ms: now_ms(),
        };
        pause::at("log: write a segment's header");
        if let Err((_, source)) = write_all(&*spare.file, &header.to_bytes(), 0) {
            return Err(self.not_begun(spare, "begin a segment", source));
        }
        if let Err(source) = spare.file.fdatasync() {
            return Err(self.poison("sync a new segment", source));
        }
        let path = segment_path(&self.shared.dir, self.next_sequence);
        pause::at("log: name a segment");
        if let Err(source) = self.shared.disk.rename(&spare.path, &path) {
            return Err(self.not_begun(spare, "name a segment", source));
        }
        if let Err(source) = self.shared.disk.sync_dir(&self.shared.dir) {
            return Err(self.poison("sync its directory", source));
        }
        pause::at("log: name the segment in the manifest");
        let (id, first) = (header.id, header.first_sequence);
        let named = lock(&self.shared.manifest).write(|m| (m.newest, m.newest_first) = (id, first));
        if let Err(source) = named {
            return Err(self.poison("write its manifest", source));
        }
        let header_of_live = header.clone();
        lock(&self.shared.live).push(Live {
            path,
            header: header_of_live,
        });
        self.file = spare.file;
        self.header = header;
        self.offset = SEGMENT_HEADER as u64;
        Ok(())
    }

    /// Nothing has the segment's name yet: a full disk changes nothing, anything else ends it.
    fn not_begun(&mut self, spare: Spare, doing: &'static str, source: io::Error) -> AppendError {
        if !is_full(&source) {
            return self.poison(doing, source);
        }
        let mut ready = lock(&self.shared.spare);
        if spare.bytes == self.shared.options.segment_bytes && ready.is_none() {
            *ready = Some(spare);
        } else {
            let _gone_or_not = self.shared.disk.unlink(&spare.path);
        }
        AppendError::Full { doing, source }
    }

    fn spare_of(&mut self, needed: u64) -> Result<Spare, AppendError> {
        let shared = Arc::clone(&self.shared);
        let usual = shared.options.segment_bytes;
        let made = if needed > usual {
            make_spare(&shared, needed.next_multiple_of(4096))
        } else {
            let ready = lock(&shared.spare).take();
            if let Some(ready) = ready {
                return Ok(ready);
            }
            // Perhaps it is being made just now.
            let _keeping = lock(&shared.keeping);
            let ready = lock(&shared.spare).take();
            match ready {
                Some(ready) => return Ok(ready),
                None => make_spare(&shared, usual),
            }
        };
        made.map_err(|source| {
            let doing = "make a segment";
            if is_full(&source) {
                AppendError::Full { doing, source }
            } else {
                self.poison(doing, source)
            }
        })
    }
}

enum Begun {
    Found(Box<dyn DiskFile>, SegmentHeader),
    New(Box<dyn DiskFile>, SegmentHeader),
}

/// Makes the end of the log what was read of it, durably (L9), and cuts off a torn record.
fn settle(
    disk: &dyn Disk,
    dir: &Path,
    newest: &Live,
    (last_begins, offset): (u64, u64),
    torn: Option<&TornTail>,
) -> io::Result<Box<dyn DiskFile>> {
    let reader = open_to_read(&newest.path)?;
    let bytes_of = |from: u64, to: u64| -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(to - from).map_err(io::Error::other)?];
        reader.read_exact_at(&mut bytes, from)?;
        Ok(bytes)
    };
    if let Some(torn) = torn {
        let saved = dir.join(format!("{:020}.torn", torn.sequence));
        let tail = bytes_of(torn.offset, torn.offset + torn.bytes)?;
        super::write_whole(disk, dir, &saved, &tail)?;
    }
    let file = disk.open(&newest.path)?;
    let last = bytes_of(last_begins, offset)?;
    write_all(&*file, &last, last_begins).map_err(|(_, error)| error)?;
    if let Some(torn) = torn {
        write_zeros(&*file, torn.offset, torn.offset + torn.bytes)?;
    }
    file.fdatasync()?;
    Ok(file)
}

/// L13: a segment of another history, behind the newest one, or in the place of a newest one without a record. Then it keeps its id,
/// which the manifest names.
fn next_segment(
    disk: &dyn Disk,
    dir: &Path,
    options: &Options,
    newest: &SegmentHeader,
    first_sequence: u64,
    base_generation: u64,
) -> io::Result<(Box<dyn DiskFile>, SegmentHeader)> {
    let spare = make_file(disk, dir, &dir.join("next.spare"), options.segment_bytes)?;
    let (id, previous) = match newest.first_sequence == first_sequence {
        true => (newest.id, newest.previous),
        false => (SegmentId::random(), newest.id),
    };
    let header = SegmentHeader {
        id,
        previous,
        history: options.history,
        first_sequence,
        base_generation,
        bytes: spare.bytes,
        created_at_ms: now_ms(),
    };
    write_all(&*spare.file, &header.to_bytes(), 0).map_err(|(_, error)| error)?;
    spare.file.fdatasync()?;
    disk.rename(&spare.path, &segment_path(dir, first_sequence))?;
    disk.sync_dir(dir)?;
    Ok((spare.file, header))
}

/// The first segment of a new log, under its name.
fn first_segment(
    disk: &dyn Disk,
    dir: &Path,
    options: &Options,
) -> io::Result<(Box<dyn DiskFile>, SegmentHeader)> {
    let spare = make_file(disk, dir, &dir.join("next.spare"), options.segment_bytes)?;
    let header = SegmentHeader {
        id: SegmentId::random(),
        previous: SegmentId::default(),
        history: options.history,
        first_sequence: options.position + 1,
        base_generation: options.base_generation,
        bytes: spare.bytes,
        created_at_ms: now_ms(),
    };
    write_all(&*spare.file, &header.to_bytes(), 0).map_err(|(_, error)| error)?;
    spare.file.fdatasync()?;
    disk.rename(&spare.path, &segment_path(dir, header.first_sequence))?;
    disk.sync_dir(dir)?;
    Ok((spare.file, header))
}

fn make_dir(dir: &Path, disk: &dyn Disk) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir(dir)?;
    match dir.parent() {
        Some(parent) => disk.sync_dir(parent),
        None => Ok(()),
    }
}

/// What a crash left half-made.
fn unfinished(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for item in fs::read_dir(dir)? {
        let path = item?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("spare" | "tmp")) {
            found.push(path);
        }
    }
    Ok(found)
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}
