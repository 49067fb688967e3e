//! The snapshot file's writer: rules W2 to W10 of docs/design.md.
//!
//! A [`Publisher`] owns the file of one cluster. It takes effects ([`Publisher::stage`]) or whole
//! states ([`Publisher::publish`]), writes what changed into the unpublished tail of the file
//! (`writer`, `space`), moves a little of what is in the way (`clean`), and stores the head
//! ([`Publisher::commit`]). It reads its own snapshot through the client crate and under leases, like
//! everybody else, but for one thing: in the memory that it is written in.
//!
//! The caller holds the locks of W1 for as long as a publisher lives.

mod change;
mod clean;
mod cut;
mod edit;
mod effects;
mod error;
mod file;
mod sizes;
mod space;
mod staged;
mod tables;
#[cfg(test)]
mod tests;
mod totals;
mod waker;
mod writer;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use sherwood_client::{Handle, ReadError, Reader, Snapshot};
use sherwood_shared::file::FileId;
use sherwood_shared::layout::{Constants, DATA_START};
use sherwood_shared::state::State;
use sherwood_store::Effects;

pub use error::PublishError;
pub use staged::Staged;

use change::Change;
use cut::body_bytes;
use edit::Edit;
use file::Aside;
use sizes::{ROWS_PER_REGION, sizes, sizes_for};
use space::Space;
use staged::Pending;
use tables::TableMap;
use waker::Waker;
use writer::{How, Writer, Written};

/// Free regions kept ready (W2): the two that chunks never take, and one that a publish
/// may open. With fewer the file grows on the hot path each time a region is full.
const SPARE_REGIONS: u64 = 3;
/// Generations that a publish may spend on making room, in its file or by a new one: fewer than
/// are reserved for a call (G1).
const EXTRA_GENERATIONS: usize = 5;

/// What a publisher needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where `<cluster_id>.arrow` goes.
    pub run_dir: PathBuf,
    /// Names the file.
    pub cluster_id: String,
    /// Device and inode of the state directory that the snapshot stands for.
    pub state_dir: (u64, u64),
    /// Names the history that generations count in (F12).
    pub history: [u8; 16],
    /// Bytes of a region, a power of two; `None`: by the state's size.
    pub region_bytes: Option<u64>,
    /// Bytes that a chunk's body takes at most, single rows aside; `None`: by the state's size.
    pub chunk_bytes: Option<usize>,
    /// Mode bits of the published file. No bit may let group or others write (F11).
    pub mode: u32,
}

/// What one publish did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// The new generation.
    pub generation: u64,
    /// Chunks written because their rows changed.
    pub chunks_written: usize,
    /// Chunks moved, to empty a region.
    pub chunks_moved: usize,
    /// Chunks that the generation has in common with the one before, moved ones included.
    pub chunks_shared: usize,
    /// Bytes written: chunks, moves, indexes, footers and root.
    pub bytes_written: u64,
}

/// How the file is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of regions that are being written or hold something of the newest generation.
    pub used_bytes: u64,
    /// Bytes that the newest generation consists of.
    pub live_bytes: u64,
    /// Bytes of regions that the newest generation does not use, and that were not yet
    /// found free: readers may hold them.
    pub dropped_bytes: u64,
    /// Bytes of one region.
    pub region_bytes: u64,
}

/// Owns the snapshot file of one cluster; its only writer.
#[derive(Debug)]
pub struct Publisher {
    options: Options,
    path: PathBuf,
    file_id: FileId,
    writer: Writer,
    waker: Waker,
    /// Our own view, through the client crate. Follows each publish at once, so that
    /// it holds no region that was dropped.
    view: Handle,
    /// W9.
    pending: Option<Pending>,
}

impl Publisher {
    /// W8: makes the file aside, publishes `state` in it as `generation`, gives it its name,
    /// marks the file that had the name and wakes its waiters.
    ///
    /// On an error what stood at the path stands there still.
    pub fn start(options: Options, state: &State, generation: u64) -> Result<Self, PublishError> {
        let (region_bytes, chunk_bytes) = sizes(&options, state);
        let change = Change::whole(state, chunk_bytes);
        let limit = totals::LIMIT;
        Self::begin(
            options,
            Edit::of(&change),
            (region_bytes, chunk_bytes),
            limit,
            generation,
        )
    }

    /// W8, with any content; `sizes` are those of regions and chunks.
    fn begin(
        options: Options,
        edit: Edit<'_>,
        sizes: (u64, usize),
        limit: u64,
        generation: u64,
    ) -> Result<Self, PublishError> {
        let path = options
            .run_dir
            .join(format!("{}.arrow", options.cluster_id));
        let (region_bytes, chunk_bytes) = sizes;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let constants = Constants {
            data_start: if region_bytes < DATA_START {
                region_bytes.max(4096)
            } else {
                DATA_START
            },
            region_bytes,
            file_id: *uuid::Uuid::new_v4().as_bytes(),
            history: options.history,
            created_at_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            writer_pid: std::process::id(),
            cluster_id: options.cluster_id.clone(),
        };
        let io = |action| {
            let path = path.clone();
            move |source| PublishError::io(action, &path, 0, source)
        };
        let mut aside = Aside::make(&path, &constants)?;
        let own = aside.file.try_clone().map_err(io("open again"))?;
        let header = std::sync::Arc::clone(&aside.header);
        let space = Space::new(own, path.clone(), constants, header);
        let mut writer = Writer::new(space, &options, chunk_bytes);
        writer.set_limit(limit);
        if let Some(written) = writer.stage(edit, None, generation, How::Reserve)? {
            writer.commit(written);
        }
        let waker =
            Waker::start(std::sync::Arc::clone(&aside.header)).map_err(io("wake readers of"))?;
        // The old file may still fill a small file system; the next beat tries again.
        if let Err(error) = writer.housekeep(SPARE_REGIONS) {
            tracing::debug!(error = %error, "no regions to spare yet");
        }
        let file_id = aside.allow(options.mode)?;
        // Read as any reader will, before it takes a good file's place; and by this name,
        // under which nobody can ever put another file before our eyes.
        let loans = writer.space().loans();
        let view = Reader::open_own(aside.path(), file_id, loans)?.handle()?;
        aside.name(&path, file_id)?;
        Ok(Self {
            options,
            path,
            file_id,
            writer,
            waker,
            view,
            pending: None,
        })
    }

    /// Publishes what differs between the current snapshot and `next`, as the next
    /// generation. `None`: nothing differs.
    ///
    /// When this returns, every reader of this host that looks sees it (W4).
    ///
    /// # Errors
    ///
    /// As [`stage`](Self::stage).
    pub fn publish(&mut self, next: &State) -> Result<Option<Published>, PublishError> {
        self.settle()?;
        let chunk_bytes = self.writer.chunk_bytes();
        let change = Change::between(self.view.refresh()?, next, chunk_bytes)?;
        if change.is_empty() {
            return Ok(None);
        }
        let mut extra = EXTRA_GENERATIONS;
        let mut write = |publisher: &mut Self, old: &Snapshot, how| {
            let generation = publisher.generation() + 1;
            let edit = Edit::of(&change);
            publisher.writer.stage(edit, Some(old), generation, how)
        };
        match self.make_room(&mut extra, &mut write) {
            Ok(written) => Ok(written.map(|written| self.make_visible(written))),
            // Larger than this file was made for: a new file, with larger regions.
            Err(PublishError::Row { .. } | PublishError::Region { .. }) => {
                let (sizes, limit) = (sizes(&self.options, next), self.writer.limit());
                let change = Change::whole(next, sizes.1);
                let (options, generation) = (self.options.clone(), self.generation() + 1);
                let new = Self::begin(options, Edit::of(&change), sizes, limit, generation)?;
                Ok(Some(self.give_way_to(new)))
            }
            Err(error) => Err(error),
        }
    }

    /// Writes what `effects` change as the next generation: chunks, moves, footers and root,
    /// everything but the head (W9). `None`: nothing changes, nothing is staged.
    ///
    /// Readers see nothing of it before [`commit`](Self::commit), after which they see all of it.
    /// Nothing can fail in between. The generation that is published stays as it is, though its number
    /// may grow: a file system that is full has its chunks moved together first, and a row that is too
    /// large for the file gets a new file with the same state, each of them a generation of its own, at most
    /// five in all. Costs with the chunks touched, whatever the size of the tables (M4); one table's new
    /// chunks are never on the heap together.
    ///
    /// # Errors
    ///
    /// Nothing is staged, and every write is taken back (W5). [`PublishError::Staged`] while another
    /// one is.
    pub fn stage(&mut self, effects: &Effects) -> Result<Option<Staged>, PublishError> {
        self.settle()?;
        if effects.is_empty() {
            return Ok(None);
        }
        let mut extra = EXTRA_GENERATIONS;
        let mut write = |publisher: &mut Self, old: &Snapshot, how| {
            let writer = &mut publisher.writer;
            let (tables, chunk_bytes) = (writer.tables().clone(), writer.chunk_bytes());
            let changes = effects::changes(effects, &tables)?;
            let edit = effects::edit(effects, &changes, &tables, old, chunk_bytes);
            writer.stage(edit, Some(old), writer.generation() + 1, how)
        };
        let written = loop {
            match self.make_room(&mut extra, &mut write) {
                Err(PublishError::Row { bytes, .. } | PublishError::Region { bytes, .. })
                    if extra > 0 && bytes > self.usage().region_bytes =>
                {
                    extra -= 1;
                    self.enlarge(bytes.max(effects::largest_row(effects)))?;
                }
                written => break written?,
            }
        };
        Ok(written.map(|written| {
            let (pending, staged) = Pending::of(written);
            self.pending = Some(pending);
            staged
        }))
    }

    /// [`stage`](Self::stage) and [`commit`](Self::commit) in one.
    ///
    /// # Errors
    ///
    /// Those of `stage`.
    pub fn publish_effects(
        &mut self,
        effects: &Effects,
    ) -> Result<Option<Published>, PublishError> {
        let staged = self.stage(effects)?;
        Ok(staged.map(|staged| self.commit(staged)))
    }

    /// Publishes what was staged: W4, W5, the wake. Cannot fail; when this returns, every reader of
    /// this host that looks sees it.
    ///
    /// What another publisher staged is not published: the answer names the generation that is.
    pub fn commit(&mut self, staged: Staged) -> Published {
        if !self.pending.as_ref().is_some_and(|own| own.is(&staged)) {
            return Published {
                generation: self.generation(),
                ..Published::default()
            };
        }
        self.pending = None;
        self.make_visible(staged.written)
    }

    /// Takes back what was staged (W5): the next [`stage`](Self::stage) writes over it.
    pub fn abandon(&mut self, staged: Staged) {
        if self.pending.as_ref().is_some_and(|own| own.is(&staged)) {
            self.pending = None;
            self.writer.abandon();
        }
    }

    /// Off the hot path, after a publish: probes dropped regions and keeps some free (W6, F8).
    /// Does nothing while a generation is staged.
    ///
    /// # Errors
    ///
    /// No room to keep free.
    pub fn housekeep(&mut self) -> Result<(), PublishError> {
        match self.settle() {
            Ok(()) => self.writer.housekeep(SPARE_REGIONS),
            Err(_) => Ok(()),
        }
    }

    /// Says that we live (F11), and nothing else.
    pub fn pulse(&self) {
        self.writer.space().header().beat();
    }

    /// Once a second: says that we live (F11), looks whether our file still has its name
    /// and makes a new one if not (W8), and keeps house. True: a new file was made.
    /// While a generation is staged it says that we live, and no more.
    ///
    /// # Errors
    ///
    /// The new file cannot be made, or there is no room to keep free.
    pub fn beat(&mut self) -> Result<bool, PublishError> {
        self.pulse();
        if self.settle().is_err() {
            return Ok(false);
        }
        let found = std::fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| FileId::from(&found) == self.file_id) {
            self.housekeep()?;
            return Ok(false);
        }
        self.enlarge(0)?;
        Ok(true)
    }

    /// For tests: the most bytes, items or rows of a column (W10), instead of what a page can hold.
    #[doc(hidden)]
    pub fn set_document_limit(&mut self, limit: u64) {
        self.writer.set_limit(limit);
    }

    /// The newest snapshot, as any reader of this host sees it. If it cannot be read anew, the last one that could:
    /// for showing, not for deciding.
    pub fn snapshot(&mut self) -> &Snapshot {
        self.view.latest()
    }

    /// The published snapshot, and no older one.
    ///
    /// # Errors
    ///
    /// It cannot be read: for want of descriptors or of memory, perhaps.
    pub fn published(&mut self) -> Result<Snapshot, ReadError> {
        self.view.refresh().cloned()
    }

    /// The published generation.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.writer.generation()
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How the file is used.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let space = self.writer.space();
        Usage {
            file_bytes: space.file_bytes(),
            used_bytes: space.used_bytes(),
            live_bytes: space.live_bytes(),
            dropped_bytes: space.dropped_bytes(),
            region_bytes: space.constants().region_bytes,
        }
    }

    /// W9: is nothing staged? What was staged and dropped is abandoned.
    fn settle(&mut self) -> Result<(), PublishError> {
        if let Some(pending) = self.pending.take() {
            if let Some(generation) = pending.generation() {
                self.pending = Some(pending);
                return Err(PublishError::Staged { generation });
            }
            self.writer.abandon();
        }
        Ok(())
    }

    /// Writes, and if the file system is full moves chunks together and writes again.
    fn make_room(
        &mut self,
        extra: &mut usize,
        write: &mut impl FnMut(&mut Self, &Snapshot, How) -> Result<Option<Written>, PublishError>,
    ) -> Result<Option<Written>, PublishError> {
        loop {
            let old = self.view.refresh()?.clone();
            match write(self, &old, How::Reserve) {
                Err(PublishError::Full { .. }) => {}
                done => return done,
            }
            // What is free may be scattered: move chunks together, and try again.
            drop(old);
            if *extra > 0 && self.writer.squeeze(self.generation() + 1)? {
                *extra -= 1;
                self.waker.wake();
                self.view.latest();
                continue;
            }
            let old = self.view.refresh()?.clone();
            return write(self, &old, How::Try);
        }
    }

    /// W4, W5 and the wake.
    fn make_visible(&mut self, written: Written) -> Published {
        let published = self.writer.commit(written);
        self.waker.wake();
        self.view.latest();
        published
    }

    /// W8 with the same state, copied chunk by chunk, in regions that hold rows of `row_bytes`.
    fn enlarge(&mut self, row_bytes: u64) -> Result<(), PublishError> {
        let old = self.view.refresh()?.clone();
        let region_bytes = self.usage().region_bytes;
        let largest = row_bytes.max(region_bytes / ROWS_PER_REGION);
        let sizes = sizes_for(&self.options, self.usage().live_bytes, largest);
        let (limit, generation) = (self.writer.limit(), self.generation() + 1);
        let new = Self::begin(
            self.options.clone(),
            Edit::copy(&old)?,
            sizes,
            limit,
            generation,
        )?;
        self.give_way_to(new);
        Ok(())
    }

    /// A new file in the place of ours (W8), which is marked even if it has no name.
    fn give_way_to(&mut self, new: Self) -> Published {
        let old = std::mem::replace(self, new);
        old.writer.space().header().mark_superseded();
        let (generation, written) = (self.generation(), self.writer.space().live_bytes());
        let chunks: usize = self.writer.tables().iter().map(TableMap::chunk_count).sum();
        Published {
            generation,
            chunks_written: chunks,
            bytes_written: written,
            ..Published::default()
        }
    }
}

/// Bytes that a batch takes in a chunk's body: what [`Options::chunk_bytes`] bounds.
#[must_use]
pub fn chunk_body_bytes(rows: &arrow_array::RecordBatch) -> usize {
    body_bytes(rows, 0, rows.num_rows())
}
