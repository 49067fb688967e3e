//! A foreign state file, compared with what it was made from.
//!
//! Another program has read the public file, changed something and written the whole again. What it changed is the
//! difference to what it had read, and that is what is merged: everything else in its file is merely old.
//!
//! - **FO1** Only a file whose owner may write counts.
//! - **FO2** A checkpoint of ours that is not the newest is not a change: somebody put an old file back. Merging it would take back
//!   what was acknowledged since, so it is refused, and `sherwood recover` goes back for those who mean to.
//! - **FO3** What it was made from is one of the states that stood at the public name in the last minutes: we may have replaced
//!   what it read while it was being written. If the file kept our keys they say which; else the one with the same
//!   `updated_at` of the cluster; else the one that it differs from least.
//!
//! Not promised: FO3 for a program that takes more than ten minutes from reading to writing and keeps neither. Its old values may
//! come back.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use sherwood_client::import;
use sherwood_client::locate::ClusterId;
use sherwood_shared::state::State;
use sherwood_store::checkpoint::{
    CheckpointError, Checkpoints, Position, Public, is_checkpoint, read_position,
};
use sherwood_store::merge::{Diff, Theirs, diff};
use tracing::debug;

use crate::flight::Access;
use crate::log::chain;
use crate::observe::FileId;

/// A foreign file, read.
#[derive(Debug)]
pub struct Loaded {
    /// Its state, and what of it the file has.
    pub theirs: Theirs,
    /// The file's bytes: the next base.
    pub bytes: Bytes,
}

/// What a foreign file is compared with, and who may leave one.
#[derive(Clone, Debug)]
pub struct Comparer {
    /// The bases.
    pub checkpoints: Arc<Checkpoints>,
    /// FO1.
    pub access: Arc<Access>,
    /// Whose states they are.
    pub cluster: ClusterId,
}

/// What a foreign file says.
#[derive(Debug)]
pub enum Comparison {
    /// Nothing that we do not have: it is our own, or was merged.
    Known,
    /// These changes.
    Changes(Box<Diff>),
}

impl Comparer {
    /// Compares what was read from `path`, which was `id` before and after.
    ///
    /// # Errors
    ///
    /// Why the file is refused, in words.
    pub fn compare(&self, path: &Path, id: FileId, loaded: &Loaded) -> Result<Comparison, String> {
        may_count(path, id.owner(), &self.access)?;
        let at_public_name = path == self.checkpoints.public_path();
        if at_public_name
            && matches!(
                self.checkpoints.public().map_err(|error| chain(&error))?,
                Public::Ours | Public::Merged
            )
        {
            return Ok(Comparison::Known);
        }
        if is_checkpoint(&loaded.bytes) {
            let position = read_position(&loaded.bytes).unwrap_or_default();
            return Err(format!(
                "{path:?} is a checkpoint that sherwoodd wrote itself, of position {} in the log, and not the newest: it is not taken for a change. \
                 To go back to it, use `sherwood recover restore`; to take its rows, `sherwood import`",
                position.sequence
            ));
        }
        let changes = self.changes(path, loaded)?;
        Ok(match changes.is_empty() {
            true => Comparison::Known,
            false => Comparison::Changes(Box::new(changes)),
        })
    }

    /// FO3.
    fn changes(&self, path: &Path, loaded: &Loaded) -> Result<Diff, String> {
        let diff = |base: &State| diff(base, &loaded.theirs).map_err(|error| chain(&error));
        let load = |base: &Path| import::read_parquet(base, Some(self.cluster.as_str()));
        let failed = |error: CheckpointError| chain(&error);
        if let Some(Position { sequence, .. }) = read_position(&loaded.bytes) {
            let base = self.checkpoints.base_at(sequence).map_err(failed)?;
            let base = base.ok_or_else(|| {
                format!(
                    "{path:?} was made from the state at position {sequence} of the log, which is too long ago: what was changed since cannot be told from what it is to change. Read the state again, and repeat the change"
                )
            })?;
            return diff(&load(&base).map_err(|error| chain(&error))?);
        }
        let mut best: Option<Diff> = None;
        for candidate in self.checkpoints.bases().map_err(failed)? {
            let base = match load(&candidate) {
                Ok(base) => base,
                Err(error) => {
                    debug!(base = %candidate.display(), error = chain(&error), "not a base");
                    continue;
                }
            };
            let found = diff(&base)?;
            // The engine's clock stands in each checkpoint, and a program that leaves it alone tells what it read.
            let theirs = loaded.theirs.state.updated_at_millis();
            let is_it =
                found.is_empty() || (theirs.is_some() && theirs == base.updated_at_millis());
            if is_it {
                return Ok(found);
            }
            if best
                .as_ref()
                .is_none_or(|best| weight(&found) < weight(best))
            {
                best = Some(found);
            }
        }
        match best {
            Some(changes) => Ok(changes),
            // Nothing tells what it was made from: then only what is new in it counts.
            None => diff(&State::empty(self.cluster.as_str())),
        }
    }
}

/// FO1.
///
/// # Errors
///
/// Why not, in words.
pub fn may_count(path: &Path, owner: u32, access: &Access) -> Result<(), String> {
    if access.may_write_as(owner) {
        return Ok(());
    }
    Err(format!(
        "{path:?} belongs to uid {owner}, who may not write: have a writer replace it, or allow that user with `write_users` under [access]"
    ))
}

/// Rows that differ.
fn weight(diff: &Diff) -> usize {
    diff.rows().iter().map(|(set, deleted)| set + deleted).sum()
}
