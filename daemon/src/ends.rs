//! The two ends that the service joins: where foreign states come from, and where snapshots go.
//!
//! In the daemon they are the Parquet import and the snapshot file ([`Real`]). They are a trait
//! so that the service's own rules can be tested with ends that fail on purpose.

use std::error::Error;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use sherwood_client::import::{self, ImportError};
use sherwood_client::{ReadError, Snapshot};
use sherwood_shared::state::State;
use sherwood_store::Effects;
use sherwood_store::merge::Theirs;

use crate::foreign::Loaded;
use crate::publish::{Options, PublishError, Published, Publisher, Staged};

/// Any error; its `Display` and sources say what is wrong.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Both ends.
pub trait Ends: Send + Sync + 'static {
    /// The publishing end, once started.
    type Publisher: Publish;

    /// Reads the state file `path`. A file of another cluster than `expected` is an error.
    fn load(&self, path: &Path, expected: Option<&str>) -> Result<Loaded, BoxError>;

    /// Rule W8: publishes `state` as `generation` in a new file.
    fn start(
        &self,
        options: Options,
        state: &State,
        generation: u64,
    ) -> Result<Self::Publisher, PublishError>;
}

/// A snapshot file's only writer.
pub trait Publish {
    /// A change that is written and that nobody sees yet.
    type Staged;
    /// Writes everything of the next generation but the word that makes it visible. `None`: nothing differs.
    fn stage(&mut self, effects: &Effects) -> Result<Option<Self::Staged>, PublishError>;
    /// The generation that a staged change will be.
    fn staged_generation(staged: &Self::Staged) -> u64;
    /// Makes it visible. Cannot fail.
    fn commit(&mut self, staged: Self::Staged) -> Published;
    /// Takes it back.
    fn abandon(&mut self, staged: Self::Staged);
    /// To be called after a publish, when nobody waits.
    fn housekeep(&mut self) -> Result<(), PublishError>;
    /// Says that the daemon lives (F11), and nothing else: takes no generation, cannot fail.
    fn pulse(&mut self);
    /// To be called each second. True: the snapshot file was gone and has been made again (W8).
    fn beat(&mut self) -> Result<bool, PublishError>;
    /// The published snapshot, and no older one.
    fn snapshot(&mut self) -> Result<Snapshot, ReadError>;
    /// The published generation.
    fn generation(&self) -> u64;
    /// The snapshot file.
    fn path(&self) -> &Path;
}

/// Parquet and the snapshot file.
#[derive(Clone, Copy, Debug)]
pub struct Real;

impl Ends for Real {
    type Publisher = Publisher;

    fn load(&self, path: &Path, expected: Option<&str>) -> Result<Loaded, BoxError> {
        let failed = |source| ImportError::Io {
            path: path.to_owned(),
            source,
        };
        // Before it is opened: opening a pipe would wait for its writer.
        if !fs::metadata(path).map_err(failed)?.is_file() {
            return Err(ImportError::NotAFile {
                path: path.to_owned(),
            }
            .into());
        }
        let bytes = Bytes::from(fs::read(path).map_err(failed)?);
        let (state, columns) = import::read_parquet_columns(bytes.clone(), path, expected)?;
        Ok(Loaded {
            theirs: Theirs { state, columns },
            bytes,
        })
    }

    fn start(
        &self,
        options: Options,
        state: &State,
        generation: u64,
    ) -> Result<Publisher, PublishError> {
        Publisher::start(options, state, generation)
    }
}

impl Publish for Publisher {
    type Staged = Staged;
    fn stage(&mut self, effects: &Effects) -> Result<Option<Staged>, PublishError> {
        self.stage(effects)
    }
    fn staged_generation(staged: &Staged) -> u64 {
        staged.generation()
    }
    fn commit(&mut self, staged: Staged) -> Published {
        self.commit(staged)
    }
    fn abandon(&mut self, staged: Staged) {
        self.abandon(staged);
    }
    fn housekeep(&mut self) -> Result<(), PublishError> {
        self.housekeep()
    }
    fn pulse(&mut self) {
        Self::pulse(self);
    }
    fn beat(&mut self) -> Result<bool, PublishError> {
        self.beat()
    }
    fn snapshot(&mut self) -> Result<Snapshot, ReadError> {
        self.published()
    }
    fn generation(&self) -> u64 {
        self.generation()
    }
    fn path(&self) -> &Path {
        self.path()
    }
}
