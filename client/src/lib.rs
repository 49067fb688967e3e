//! stub: the API as it will be; bodies come.
#![allow(unused_variables, missing_docs)]
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use sherwood_shared::schema::TableId;
use sherwood_shared::state::State;

/// Why a snapshot could not be opened or refreshed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("stub")]
    Stub,
}

/// Reads one snapshot file, newest first. Cheap to clone, `Send + Sync`.
#[derive(Clone)]
pub struct Reader;
impl Reader {
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ReadError> { todo!() }
    pub fn handle(&self) -> Handle { todo!() }
    /// The newest snapshot, owned.
    pub fn snapshot(&self) -> Result<Snapshot, ReadError> { todo!() }
    pub fn path(&self) -> &Path { todo!() }
    /// Is a daemon alive behind this file, and when did it last beat?
    pub fn liveness(&self) -> Result<Liveness, ReadError> { todo!() }
}

/// What can be said of the daemon behind a snapshot file.
#[derive(Clone, Copy, Debug)]
pub struct Liveness {
    /// The witness lock is held: a daemon lives.
    pub alive: bool,
    /// As the daemon saw itself.
    pub pid: u32,
}

/// One thread's view: `latest` is one relaxed load when nothing changed.
pub struct Handle;
impl Handle {
    /// The newest snapshot; after a failed refresh the last good one (see `last_error`).
    pub fn latest(&mut self) -> &Snapshot { todo!() }
    pub fn refresh(&mut self) -> Result<&Snapshot, ReadError> { todo!() }
    pub fn last_error(&self) -> Option<&ReadError> { todo!() }
    /// Waits for a generation newer than the one last returned. `None`: the time is over.
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<&Snapshot>, ReadError> { todo!() }
}

/// One state of the cluster, immutable, kept as long as one likes.
#[derive(Clone)]
pub struct Snapshot;
impl Snapshot {
    /// The same type on the heap, from a state read without a daemon (generation 0).
    pub fn from_state(state: State) -> Snapshot { todo!() }
    pub fn generation(&self) -> u64 { todo!() }
    pub fn history(&self) -> [u8; 16] { todo!() }
    pub fn published_at(&self) -> Option<SystemTime> { todo!() }
    /// Device and inode of the state directory this snapshot stands for.
    pub fn state_dir(&self) -> Option<(u64, u64)> { todo!() }
    /// One row.
    pub fn cluster(&self) -> Result<RecordBatch, ReadError> { todo!() }
    pub fn table(&self, id: TableId) -> &Table { todo!() }
    /// The document's one-row table. Copies.
    pub fn to_document(&self) -> Result<RecordBatch, ReadError> { todo!() }
    pub fn to_state(&self) -> Result<State, ReadError> { todo!() }
}

/// One table of a snapshot, sorted by key, in chunks.
pub struct Table;
impl Table {
    pub fn len(&self) -> u64 { todo!() }
    pub fn schema(&self) -> Result<SchemaRef, ReadError> { todo!() }
    /// The chunks in key order, zero-copy.
    pub fn batches(&self) -> impl Iterator<Item = Result<RecordBatch, ReadError>> + '_ { std::iter::empty() }
    /// The chunk that holds `key` and the row in it.
    pub fn find(&self, key: &str) -> Result<Option<(RecordBatch, usize)>, ReadError> { todo!() }
}

/// Typed rows: `snapshot.tasks()?.get("t1")?` etc. come later.
pub mod import;

pub mod locate {
    //! Finding a state: stub.
    use super::*;
    pub struct Located { pub parquet: Option<PathBuf>, pub snapshot: Option<PathBuf> }
}
