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
//!   written: then it is kept in memory. The entry of the log that has the changes says what was merged, as the id of its outcome
//!   ([`merge_id`]), and a copy of the file was put beside the base before. So a start after a death between the two
//!   knows that it was merged, and makes it the base ([`settle`]). Merged a second time against the old base, it would bring back a
//!   row that it once added and that we have deleted since, and values that we have set back.
//! - **FO5** The id has the entry's sequence in it. So it tells that the base is behind, and never that a file was seen before: the
//!   same bytes that are put there again, once the base has moved on, are a replacement again. A file that was moved aside is merged
//!   once: its id has its name instead ([`aside_id`]).
//!
//! Not promised: FO4 where the copy beside the base could not be written, the daemon dies before the base is, and the public file
//! is replaced by yet another before the next start. FO3 for a program that takes more than ten minutes from reading to writing and
//! keeps neither. Its old values may come back.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use sherwood_client::import;
use sherwood_client::locate::ClusterId;
use sherwood_shared::state::State;
use sherwood_store::checkpoint::{
    CheckpointError, Checkpoints, Position, Public, is_checkpoint, read_position,
};
use sherwood_store::merge::{Diff, Theirs, diff};
use sherwood_store::{Outcomes, Verdict};
use tracing::{debug, warn};
use twox_hash::XxHash64;

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
    /// Is it the base or our newest checkpoint, byte for byte, that stands at the public name `path`? What cannot be read is not.
    #[must_use]
    pub fn stands_at(&self, path: &Path) -> bool {
        if path != self.checkpoints.public_path() {
            return false;
        }
        let is_it = |file: &Path| self.checkpoints.is_public(file).unwrap_or(false);
        // The newest checkpoint is the public file a moment before it is the base.
        let newest = || self.checkpoints.list().ok()?.into_iter().next();
        is_it(&self.checkpoints.base()) || newest().is_some_and(|newest| is_it(&newest.path))
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
        let dir = private(&self.checkpoints);
        let (path, aside) = (copy_of(&dir, bytes), dir.join("merging.tmp"));
        let written = || -> io::Result<()> {
            let mut file = fs::File::create(&aside)?;
            file.write_all(bytes)?;
            file.sync_data()?;
            fs::rename(&aside, &path)
        };
        written().inspect_err(|_| {
            // It may have taken the last room.
            let _gone_or_not = fs::remove_file(&aside);
        })?;
        fs::File::open(&dir)?.sync_all()
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

/// The directory of the bases.
fn private(checkpoints: &Checkpoints) -> PathBuf {
    let base = checkpoints.base();
    base.parent().unwrap_or(&base).to_owned()
}

/// How the names of copies begin that are kept of files while they are merged.
const MERGING: &str = "merging-";

/// FO4: where the copy of a file stands. By its content, since the next file may come before this one is the base.
fn copy_of(dir: &Path, bytes: &[u8]) -> PathBuf {
    dir.join(format!("{MERGING}{}.parquet", Content::of(bytes).0))
}

/// FO4: the copies, and when each was written.
fn copies(dir: &Path) -> Vec<(PathBuf, Option<SystemTime>)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let copies = entries.filter(|entry| {
        let name = entry.file_name();
        name.as_encoded_bytes().starts_with(MERGING.as_bytes())
    });
    let written = |entry: &fs::DirEntry| entry.metadata().and_then(|found| found.modified()).ok();
    copies
        .map(|entry| (entry.path(), written(&entry)))
        .collect()
}

/// FO4: `bytes` are the base's file by now, and the copy of it goes, with those that were written before; without `bytes`, all do.
pub fn is_settled(checkpoints: &Checkpoints, bytes: Option<&[u8]>) {
    let dir = private(checkpoints);
    let all = copies(&dir);
    let this = bytes.map(|bytes| copy_of(&dir, bytes));
    let is_it = |path: &Path| this.as_deref() == Some(path);
    let since = all.iter().find(|(path, _)| is_it(path));
    let since = since.and_then(|(_, written)| *written);
    for (path, written) in &all {
        let goes = this.is_none() || is_it(path) || since.is_some() && *written < since;
        if goes && let Err(error) = fs::remove_file(path) {
            // What is left is looked at by the next start.
            debug!(path = %path.display(), %error, "not removed");
        }
    }
}

/// A file's content, short: what a merge is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content(String);

impl Content {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(format!(
            "{:016x}-{}",
            XxHash64::oneshot(0, bytes),
            bytes.len()
        ))
    }
}

/// How the ids of merges begin.
const MERGED: &str = "sherwoodd merged ";
/// What stands between the content and the sequence.
const IN_ENTRY: &str = " in entry ";

/// FO4: what the entry `sequence` says that it merged, from the public name.
#[must_use]
pub fn merge_id(content: &Content, sequence: u64) -> String {
    format!("{MERGED}{}{IN_ENTRY}{sequence}", content.0)
}

/// FO5: the same of a file that was moved aside to `path`. Its name is hashed, since it may be longer than an id.
#[must_use]
pub fn aside_id(content: &Content, path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let name = XxHash64::oneshot(0, name);
    format!("{MERGED}{} as {name:016x}", content.0)
}

/// What was merged last from the public name, and in which entry.
fn last_merge(outcomes: &Outcomes) -> Option<(Content, u64)> {
    let merges = outcomes.iter().filter_map(|outcome| {
        let is_done = matches!(outcome.verdict, Verdict::Done { .. });
        let (content, sequence) = outcome.id.strip_prefix(MERGED)?.split_once(IN_ENTRY)?;
        let sequence = sequence.parse().ok().filter(|_| is_done)?;
        Some((Content(content.to_owned()), sequence))
    });
    merges.last()
}

/// FO4, at a start: makes the base what was merged last, if it is not. `public`: a file at the public name that is not ours and not
/// the base. `Some`: what is the base and cannot be written as such, for [`Comparer::merged`].
///
/// # Errors
///
/// Why it cannot be told, in words. The base is as it was.
pub fn settle(
    checkpoints: &Checkpoints,
    outcomes: &Outcomes,
    public: Option<&Path>,
) -> Result<Option<Bytes>, String> {
    let Some(merged) = merged_last(checkpoints, outcomes, public)? else {
        is_settled(checkpoints, None);
        return Ok(None);
    };
    match checkpoints.set_base(&merged) {
        Ok(()) => {
            is_settled(checkpoints, None);
            Ok(None)
        }
        Err(error) => {
            warn!(
                error = chain(&error),
                "a foreign file was merged, but cannot be kept for comparison on disk; it is kept in memory, and tried again"
            );
            Ok(Some(merged))
        }
    }
}

/// What was merged last, if that is not the base.
fn merged_last(
    checkpoints: &Checkpoints,
    outcomes: &Outcomes,
    public: Option<&Path>,
) -> Result<Option<Bytes>, String> {
    let dir = private(checkpoints);
    let copies = copies(&dir);
    // Most starts end here, without a look at a base that may be large.
    if copies.is_empty() && public.is_none() {
        return Ok(None);
    }
    // A checkpoint of ours that took the name since, older than the merge maybe, is the base that goes with it (C3).
    let is_ours = |found: Public| found == Public::Ours;
    if public.is_none() && checkpoints.public().is_ok_and(is_ours) {
        return Ok(None);
    }
    let Some((content, sequence)) = last_merge(outcomes) else {
        return Ok(None);
    };
    if let Some(base) = read_if_there(&checkpoints.base())? {
        let has_moved_on = is_checkpoint(&base)
            && read_position(&base).is_some_and(|position| position.sequence >= sequence);
        if has_moved_on || Content::of(&base) == content {
            return Ok(None);
        }
    }
    let is_it = |bytes: &Bytes| Content::of(bytes) == content;
    for (path, _) in copies {
        if let Some(copy) = read_if_there(&path)?.filter(is_it) {
            return Ok(Some(copy));
        }
    }
    let there = public.map(read_if_there).transpose()?.flatten();
    Ok(there.filter(is_it))
}

/// A file; `None`: there is none, or something else.
fn read_if_there(path: &Path) -> Result<Option<Bytes>, String> {
    let read = || match fs::metadata(path)?.is_file() {
        true => fs::read(path).map(|bytes| Some(Bytes::from(bytes))),
        false => Ok(None),
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{path:?} cannot be read: {error}")),
        Ok(found) => Ok(found),
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
