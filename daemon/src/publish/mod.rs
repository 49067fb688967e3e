//! The snapshot file's writer: stub.
#![allow(unused_variables)]
use std::path::{Path, PathBuf};

use sherwood_shared::state::State;

/// What a publisher needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where `<cluster_id>.arrow` goes.
    pub run_dir: PathBuf,
    /// Names the file.
    pub cluster_id: String,
    /// Device and inode of the state directory that the snapshot stands for.
    pub state_dir: (u64, u64),
    /// Names the history that generations count in.
    pub history: [u8; 16],
    /// Bytes of a region; None: chosen by the state's size.
    pub region_bytes: Option<u64>,
    /// Bytes aimed at for a chunk; None: chosen by the state's size.
    pub chunk_bytes: Option<usize>,
    /// Mode bits of the published file.
    pub mode: u32,
}

/// Why nothing was published. The last snapshot stays.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The run directory has no room.
    #[error("no room")]
    Full,
}

/// What one publish did.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    /// The new generation.
    pub generation: u64,
    /// Chunks written because their rows changed.
    pub chunks_written: usize,
    /// Chunks shared with the generation before.
    pub chunks_shared: usize,
    /// Bytes written, chunk moves, footers and root included.
    pub bytes_written: u64,
}

/// Owns the snapshot file; the only writer.
pub struct Publisher;

impl Publisher {
    /// Rule W8: makes the file aside, publishes `state` as `generation`, renames it in, marks and wakes the old one.
    pub fn start(options: Options, state: &State, generation: u64) -> Result<Self, PublishError> {
        todo!()
    }
    /// Publishes what differs from the current snapshot. `None`: nothing differs.
    pub fn publish(&mut self, next: &State) -> Result<Option<Published>, PublishError> {
        todo!()
    }
    /// Once a second: the liveness beat, the path check (W8 again if the file is gone), housekeeping.
    pub fn beat(&mut self) -> Result<(), PublishError> {
        todo!()
    }
    /// The published generation.
    pub fn generation(&self) -> u64 {
        todo!()
    }
    /// The file.
    pub fn path(&self) -> &Path {
        todo!()
    }
}
