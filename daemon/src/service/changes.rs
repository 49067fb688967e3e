//! The log, as watchers read it.

use std::path::PathBuf;

use sherwood_store::Entry;
use sherwood_store::log::{FollowError, Follower};

use crate::flight::{ChangeError, ChangeSource, Changes};

/// The log in this directory.
pub(super) struct LogChanges(pub(super) PathBuf);

impl ChangeSource for LogChanges {
    fn follow(&self, generation: u64) -> Result<Box<dyn Changes>, ChangeError> {
        let follower = Follower::open(&self.0, generation).map_err(told)?;
        Ok(Box::new(Followed(follower)))
    }
}

struct Followed(Follower);

impl Changes for Followed {
    fn next(&mut self, through: u64) -> Result<Option<Entry>, ChangeError> {
        self.0.next(through).map_err(told)
    }
}

fn told(error: FollowError) -> ChangeError {
    match error {
        FollowError::Gone { oldest } => ChangeError::Gone { oldest },
        other => ChangeError::Failed(other.into()),
    }
}
