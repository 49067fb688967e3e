//! The two ends that the service joins: where states come from, and where they go.
//!
//! In the daemon they are the Parquet import and the snapshot file ([`Real`]). They are a trait
//! so that the service's own rules can be tested without either.

use std::error::Error;
use std::path::Path;

use sherwood_client::import;
use sherwood_shared::state::State;

use crate::publish::{Options, PublishError, Published, Publisher};

/// Any error; its `Display` and sources say what is wrong.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Both ends.
pub trait Ends: Send + Sync + 'static {
    /// The publishing end, once started.
    type Publisher: Publish;

    /// Reads the state file `path`. A file of another cluster than `expected` is an error.
    fn load(&self, path: &Path, expected: Option<&str>) -> Result<State, BoxError>;

    /// The state of a cluster that has none yet.
    fn empty(&self, cluster_id: &str) -> State;

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
    /// Publishes what differs. `None`: nothing does.
    fn publish(&mut self, next: &State) -> Result<Option<Published>, PublishError>;
    /// To be called after a publish, when nobody waits.
    fn housekeep(&mut self) -> Result<(), PublishError>;
    /// Says that the daemon lives (F11), and nothing else: takes no generation, cannot fail.
    fn pulse(&mut self);
    /// To be called each second. True: the snapshot file was gone and has been made again (W8).
    fn beat(&mut self) -> Result<bool, PublishError>;
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

    fn load(&self, path: &Path, expected: Option<&str>) -> Result<State, BoxError> {
        Ok(import::read_parquet(path, expected)?)
    }

    fn empty(&self, cluster_id: &str) -> State {
        State::empty(cluster_id)
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
    fn publish(&mut self, next: &State) -> Result<Option<Published>, PublishError> {
        self.publish(next)
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
    fn generation(&self) -> u64 {
        self.generation()
    }
    fn path(&self) -> &Path {
        self.path()
    }
}
