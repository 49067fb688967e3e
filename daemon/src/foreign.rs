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
//! - **FO4** What was merged last is the base from the moment at which its changes are logged, also while the base's file cannot be
//!   written: then it is kept in memory. A daemon that dies between the two finds the file that it was merging beside the base,
//!   and takes it for the base if its changes are in the state ([`settle`]). Without that, the next change of the same
//!   column would look as if we had changed it too, and ours would stay.
//!
//! Not promised: FO3 for a program that takes more than ten minutes from reading to writing and keeps neither. Its old values may
//! come back.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use sherwood_client::Snapshot;
use sherwood_client::import;
use sherwood_client::locate::ClusterId;
use sherwood_shared::state::State;
use sherwood_store::checkpoint::{
    CheckpointError, Checkpoints, Position, is_checkpoint, read_position,
};
use sherwood_store::merge::{Diff, Theirs, diff, resolve};
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
    /// FO4: what was merged last, while it is not the base's file.
    pub merged: Option<Bytes>,
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
    /// Is it the base, byte for byte, that stands at the public name `path`? What cannot be read is not.
    #[must_use]
    pub fn stands_at(&self, path: &Path) -> bool {
        let is_base = || self.checkpoints.is_public(&self.checkpoints.base());
        path == self.checkpoints.public_path() && is_base().unwrap_or(false)
    }

    /// Compares what was read from `path`, which was `id` before and after.
    ///
    /// # Errors
    ///
    /// Why the file is refused, in words.
    pub fn compare(&self, path: &Path, id: FileId, loaded: &Loaded) -> Result<Comparison, String> {
        if self.merged.as_ref() == Some(&loaded.bytes) {
            return Ok(Comparison::Known);
        }
        if self.stands_at(path) {
            return Ok(Comparison::Known);
        }
        let at_public_name = path == self.checkpoints.public_path();
        // Only now: a copy of our own took its owner from what it replaced.
        may_count(path, id.owner(), &self.access)?;
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
            false => {
                if at_public_name && let Err(error) = self.keep_merging(&loaded.bytes) {
                    // Only a daemon that dies in the next moment would need it.
                    debug!(error = chain(&error), "what is being merged is not kept");
                }
                Comparison::Changes(Box::new(changes))
            }
        })
    }

    /// FO4. Durable when this returns `Ok`.
    fn keep_merging(&self, bytes: &[u8]) -> io::Result<()> {
        let path = merging(&self.checkpoints);
        let aside = path.with_extension("tmp");
        let mut file = fs::File::create(&aside)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(&aside, &path)
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
        let merged = self.merged.iter().map(|bytes| {
            let name = Path::new("the file that was merged last");
            import::read_parquet_bytes(bytes.clone(), name, Some(self.cluster.as_str()))
        });
        let bases = self.checkpoints.bases().map_err(failed)?;
        for base in merged.chain(bases.iter().map(|base| load(base))) {
            let base = match base {
                Ok(base) => base,
                Err(error) => {
                    debug!(error = chain(&error), "not a base");
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

/// FO4: the file that is being merged.
fn merging(checkpoints: &Checkpoints) -> PathBuf {
    checkpoints.base().with_file_name("merging.parquet")
}

/// FO4: `bytes` are the base's file by now; without them, whatever was being merged is.
pub fn is_settled(checkpoints: &Checkpoints, bytes: Option<&[u8]>) {
    let path = merging(checkpoints);
    let is_it = bytes.is_none_or(|bytes| fs::read(&path).is_ok_and(|found| found == bytes));
    if is_it && let Err(error) = fs::remove_file(&path) {
        // What is left is looked at by the next start.
        debug!(path = %path.display(), %error, "not removed");
    }
}

/// FO4, at a start, after recovery: what a daemon was merging when it died is the base, if all of it is in `snapshot`.
///
/// # Errors
///
/// Why it is not, in words. The base is as it was.
pub fn settle(
    checkpoints: &Checkpoints,
    cluster: &ClusterId,
    snapshot: &Snapshot,
) -> Result<(), String> {
    let path = merging(checkpoints);
    let bytes = match fs::read(&path) {
        Ok(bytes) => Bytes::from(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    let was_merged = || -> Result<bool, String> {
        let name = Some(cluster.as_str());
        let base = import::read_parquet(&checkpoints.base(), name).map_err(|e| chain(&e))?;
        let (state, columns) =
            import::read_parquet_columns(bytes.clone(), &path, name).map_err(|e| chain(&e))?;
        let changes = diff(&base, &Theirs { state, columns }).map_err(|e| chain(&e))?;
        let left = resolve(&changes, snapshot).map_err(|e| chain(&e))?;
        Ok(left.is_empty())
    };
    let settled = was_merged().and_then(|was_merged| match was_merged {
        true => checkpoints.set_base(&bytes).map_err(|e| chain(&e)),
        false => Ok(()),
    });
    is_settled(checkpoints, None);
    settled
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
