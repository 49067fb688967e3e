//! The snapshot file's writer: rules W2 to W8 of docs/design.md.
//!
//! A [`Publisher`] owns the file of one cluster. It takes whole states ([`Publisher::publish`])
//! or changes in chunks ([`Publisher::publish_change`]), writes what changed into the
//! unpublished tail of the file (`writer`, `space`), moves a little of what is in
//! the way (`clean`) and stores the head. It reads its own snapshot through the client
//! crate, like everybody else.
//!
//! The caller holds the locks of W1 for as long as a publisher lives.

mod change;
mod clean;
mod cut;
mod error;
mod file;
mod rows;
mod space;
mod tables;
mod waker;
mod writer;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use sherwood_client::{Handle, Reader, Snapshot};
use sherwood_shared::file::FileId;
use sherwood_shared::layout::{Constants, DATA_START};
use sherwood_shared::schema::TableId;
use sherwood_shared::state::State;

pub use change::{Change, Splice, TableChange};
pub use error::PublishError;
pub use rows::RowChanges;

use cut::body_bytes;
use file::Aside;
use space::Space;
use waker::Waker;
use writer::Writer;

/// Above this, chunks are twice as large and regions four times (F4, F7).
const LARGE_STATE_BYTES: u64 = 1 << 30;
const MIDDLE_STATE_BYTES: u64 = 64 << 20;
/// Free regions kept ready (W2): the two that chunks never take, and one that a publish
/// may open. With fewer the file grows on the hot path each time a region is full.
const SPARE_REGIONS: u64 = 3;
/// Generations that a publish may spend on making room.
const SQUEEZES: usize = 4;
/// Regions are at least this many times the largest row.
const ROWS_PER_REGION: u64 = 4;

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
}

impl Publisher {
    /// W8: makes the file aside, publishes `state` in it as `generation`, gives it its name,
    /// marks the file that had the name and wakes its waiters.
    ///
    /// On an error what stood at the path stands there still.
    pub fn start(options: Options, state: &State, generation: u64) -> Result<Self, PublishError> {
        let path = options
            .run_dir
            .join(format!("{}.arrow", options.cluster_id));
        let (region_bytes, chunk_bytes) = sizes(&options, state);
        let change = Change::whole(state, chunk_bytes);
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
        let mut writer = Writer::new(space, &options, chunk_bytes, &change);
        writer.publish(change, generation)?;
        let waker =
            Waker::start(std::sync::Arc::clone(&aside.header)).map_err(io("wake readers of"))?;
        // The old file may still fill a small file system; the next beat tries again.
        if let Err(error) = writer.housekeep(SPARE_REGIONS) {
            tracing::debug!(error = %error, "no regions to spare yet");
        }
        let file_id = aside.allow(options.mode)?;
        // Read as any reader will, before it takes a good file's place; and by this name,
        // under which nobody can ever put another file before our eyes.
        let view = Reader::open(aside.path())?.handle()?;
        aside.name(&path, file_id)?;
        Ok(Self {
            options,
            path,
            file_id,
            writer,
            waker,
            view,
        })
    }

    /// Publishes what differs between the current snapshot and `next`, as the next
    /// generation. `None`: nothing differs.
    ///
    /// When this returns, every reader of this host that looks sees it (W4).
    pub fn publish(&mut self, next: &State) -> Result<Option<Published>, PublishError> {
        let chunk_bytes = self.writer.chunk_bytes();
        let change = Change::between(self.view.refresh()?, next, chunk_bytes)?;
        if change.is_empty() {
            return Ok(None);
        }
        match self.publish_change(change) {
            // Larger than this file was made for: a new file, with larger regions.
            Err(PublishError::Row { .. } | PublishError::Region { .. }) => {
                let generation = self.generation() + 1;
                self.supersede(next, generation).map(Some)
            }
            done => done.map(Some),
        }
    }

    /// Publishes a change given row by row, by [`TableId`], as the next generation. `None`:
    /// nothing to do.
    ///
    /// Costs with the chunks touched, whatever the size of the tables (M4).
    pub fn publish_rows(
        &mut self,
        cluster: Option<arrow_array::RecordBatch>,
        rows: &[RowChanges; 3],
    ) -> Result<Option<Published>, PublishError> {
        let chunk_bytes = self.writer.chunk_bytes();
        let snapshot = self.view.refresh()?;
        let mut change = Change {
            cluster,
            ..Change::default()
        };
        for (id, slot) in TableId::ALL.into_iter().zip(&mut change.tables) {
            *slot = rows::splices(snapshot.table(id), &rows[id as usize], chunk_bytes)?;
        }
        if change.is_empty() {
            return Ok(None);
        }
        self.publish_change(change).map(Some)
    }

    /// Publishes a change in chunks, as the next generation. On a full file system it first
    /// moves chunks together, which takes up to four generations of the same state.
    ///
    /// The caller vouches for the order of keys within and between chunks.
    pub fn publish_change(&mut self, change: Change) -> Result<Published, PublishError> {
        let mut published = self.writer.publish(change.clone(), self.generation() + 1);
        for _ in 0..SQUEEZES {
            // What is free may be scattered: move chunks together, and try again.
            let Err(PublishError::Full { .. }) = published else {
                break;
            };
            if !self.writer.squeeze(self.generation() + 1)? {
                break;
            }
            self.waker.wake();
            self.view.latest();
            published = self.writer.publish(change.clone(), self.generation() + 1);
        }
        let published = published?;
        self.waker.wake();
        self.view.latest();
        Ok(published)
    }

    /// Off the hot path, after a publish: probes dropped regions and keeps some free (W6, F8).
    pub fn housekeep(&mut self) -> Result<(), PublishError> {
        self.writer.housekeep(SPARE_REGIONS)
    }

    /// Says that we live (F11), and nothing else.
    pub fn pulse(&self) {
        self.writer.space().header().beat();
    }

    /// Once a second: says that we live (F11), looks whether our file still has its name
    /// and makes a new one if not (W8), and keeps house. True: a new file was made.
    pub fn beat(&mut self) -> Result<bool, PublishError> {
        self.pulse();
        let found = std::fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| FileId::from(&found) == self.file_id) {
            self.housekeep()?;
            return Ok(false);
        }
        let state = self.view.refresh()?.to_state()?;
        let generation = self.generation() + 1;
        self.supersede(&state, generation)?;
        Ok(true)
    }

    /// The newest snapshot, as any reader of this host sees it.
    pub fn snapshot(&mut self) -> &Snapshot {
        self.view.latest()
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

    /// A new file in the place of ours (W8), which is marked even if it has no name.
    fn supersede(&mut self, state: &State, generation: u64) -> Result<Published, PublishError> {
        let next = Self::start(self.options.clone(), state, generation)?;
        let old = std::mem::replace(self, next);
        old.writer.space().header().mark_superseded();
        let written = self.writer.space().live_bytes();
        let snapshot = self.view.latest();
        let chunks = TableId::ALL.map(|id| snapshot.table(id).chunk_count());
        Ok(Published {
            generation,
            chunks_written: chunks.iter().sum(),
            bytes_written: written,
            ..Published::default()
        })
    }
}

/// Bytes that a batch takes in a chunk's body: what [`Options::chunk_bytes`] bounds.
#[must_use]
pub fn chunk_body_bytes(rows: &arrow_array::RecordBatch) -> usize {
    body_bytes(rows, 0, rows.num_rows())
}

/// Region and chunk size for a state (F4, F7).
fn sizes(options: &Options, state: &State) -> (u64, usize) {
    let total: u64 = TableId::ALL
        .map(|id| chunk_body_bytes(state.table(id)) as u64)
        .iter()
        .sum();
    let by_size = if total > MIDDLE_STATE_BYTES {
        16 << 20
    } else {
        4 << 20
    };
    let region_bytes = options.region_bytes.unwrap_or(by_size);
    // The root holds the cluster's row, and twice the first key of each part.
    let largest = TableId::ALL.map(|id| largest_row(state, id, region_bytes / ROWS_PER_REGION));
    let largest = largest.into_iter().max().unwrap_or(0);
    let largest = largest.max(chunk_body_bytes(&state.cluster) as u64 * 2);
    let enough = (largest * ROWS_PER_REGION).max(4096);
    let region_bytes = region_bytes.max(enough).next_power_of_two();
    let by_size = if total > LARGE_STATE_BYTES {
        256 << 10
    } else {
        128 << 10
    };
    let most = usize::try_from(region_bytes / ROWS_PER_REGION).unwrap_or(usize::MAX);
    (
        region_bytes,
        options.chunk_bytes.unwrap_or(by_size).min(most),
    )
}

/// Bytes of the largest row, if any is larger than `fits`; else 0.
fn largest_row(state: &State, id: TableId, fits: u64) -> u64 {
    let rows = state.table(id);
    let fits = usize::try_from(fits).unwrap_or(usize::MAX);
    let pieces = cut::cut(rows, fits);
    let single = pieces.iter().filter(|piece| piece.len() == 1);
    let bytes = single.map(|piece| body_bytes(rows, piece.start, 1));
    bytes.max().filter(|&bytes| bytes > fits).unwrap_or(0) as u64
}
