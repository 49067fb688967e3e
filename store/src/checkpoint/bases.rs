//! What the public file was: the base that a foreign replacement of it is compared with, and those before it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};

use chrono::Utc;

use super::error::{CheckpointError, failed};
use super::files::{Checkpoints, create, names, sync_directory};
use super::keys::{is_checkpoint, read_position};
use super::pace::Step;
use super::sink::Paced;
use super::{BASE, BASES};

/// Of the bases that were, so many stay whatever their size: a foreign program reads one, works, and replaces it.
const NEWEST: usize = 4;
/// Older ones stay only while all together have no more bytes than this.
const MOST_BYTES: u64 = 1 << 30;

impl Checkpoints {
    pub(super) fn taken(&self) -> MutexGuard<'_, Option<PathBuf>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file that a foreign replacement of the public one is compared with. It may be missing.
    #[must_use]
    pub fn base(&self) -> PathBuf {
        self.dir.join(BASE)
    }

    /// What the public file has been in the last minutes, the newest first: the base, and those before it. A foreign file
    /// was made from one of them.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn bases(&self) -> Result<Vec<PathBuf>, CheckpointError> {
        // Its copy is read by others from the exchange on, the base follows a few syncs later.
        let mut all: Vec<PathBuf> = self.taken().iter().cloned().collect();
        all.push(self.base());
        all.extend(
            remembered(&names(&self.dir.join(BASES))?)
                .into_iter()
                .map(|base| base.path),
        );
        Ok(all)
    }

    /// Which of the [`bases`](Self::bases) stands at this place in the log.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn base_at(&self, sequence: u64) -> Result<Option<PathBuf>, CheckpointError> {
        let own = self.list()?.into_iter().map(|listed| listed.path);
        let all = self.bases()?.into_iter().chain(own);
        let stands_there = |path: &PathBuf| {
            let bytes = fs::read(path).unwrap_or_default().into();
            is_checkpoint(&bytes)
                && read_position(&bytes).is_some_and(|position| position.sequence == sequence)
        };
        Ok(all.into_iter().find(stands_there))
    }

    /// Keeps the base under a name of its time, and lets old ones go. Best effort: with fewer of them a merge knows less.
    fn remember_base(&self) {
        let dir = self.dir.join(BASES);
        let made = match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => {
                let now = Utc::now().timestamp_millis();
                fs::hard_link(self.base(), dir.join(format!("{now:020}.parquet")))
            }
        };
        let thinned = made.and_then(|()| {
            let found = names(&dir).map_err(io::Error::other)?;
            for path in superfluous(&remembered(&found), Utc::now().timestamp_millis()) {
                fs::remove_file(path)?;
            }
            Ok(())
        });
        if let Err(error) = thinned {
            tracing::debug!(dir = %dir.display(), %error, "a base is not remembered");
        }
    }

    /// C3: from now on the base is this foreign file, whose changes are in the log. **Durable** when this returns `Ok`.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`]; the base is the old one or this.
    pub fn set_base(&self, bytes: &[u8]) -> Result<(), CheckpointError> {
        // Not the name that `link_base` uses: another thread may be there.
        let aside = self.dir.join(format!("{BASE}.foreign.tmp"));
        self.put_base(&aside, bytes).inspect_err(|_| {
            let _gone_or_not = fs::remove_file(&aside);
        })?;
        sync_directory(&self.dir)?;
        *self.taken() = None;
        self.remember_base();
        Ok(())
    }

    fn put_base(&self, aside: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
        let mut file = create(aside, 0o600).map_err(failed("create", aside))?;
        io::Write::write_all(&mut file, bytes).map_err(failed("write", aside))?;
        file.sync_all().map_err(failed("sync", aside))?;
        fs::rename(aside, self.base()).map_err(failed("rename", aside))
    }

    /// C3, at a first start: from now on the base is this checkpoint, of the state that was adopted. **Durable** when this returns
    /// `Ok`.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn base_on(&self, checkpoint: &Path) -> Result<(), CheckpointError> {
        self.link_base(checkpoint, &Paced::new(&mut super::Free))
    }

    /// The base becomes a second name of a private checkpoint, which never changes (C1).
    pub(super) fn link_base(
        &self,
        checkpoint: &Path,
        paced: &Paced<'_>,
    ) -> Result<(), CheckpointError> {
        let base = self.base();
        let aside = self.dir.join(format!("{BASE}.tmp"));
        paced.before(Step::Base).map_err(|error| {
            if paced.is_stopped() {
                CheckpointError::Stopped
            } else {
                failed("replace", &base)(error)
            }
        })?;
        match fs::remove_file(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &aside)(error));
            }
            _ => {}
        }
        if fs::hard_link(checkpoint, &aside).is_err() {
            fs::copy(checkpoint, &aside).map_err(failed("write", &aside))?;
            File::open(&aside)
                .and_then(|file| file.sync_all())
                .map_err(failed("sync", &aside))?;
        }
        fs::rename(&aside, &base).map_err(failed("rename", &aside))?;
        // Two names of one file: a rename between them does nothing, and leaves the temporary one.
        let _ = fs::remove_file(&aside);
        self.sync(&self.dir, paced)?;
        self.remember_base();
        Ok(())
    }
}

/// A base that was.
struct Remembered {
    /// When it became the base, in milliseconds; its name.
    time: i64,
    path: PathBuf,
    bytes: u64,
}

/// Those among these files, the newest first.
fn remembered(names: &[PathBuf]) -> Vec<Remembered> {
    let mut all: Vec<Remembered> = names
        .iter()
        .filter_map(|path| {
            Some(Remembered {
                time: path.file_stem()?.to_str()?.parse().ok()?,
                path: path.clone(),
                bytes: fs::metadata(path).map_or(0, |found| found.len()),
            })
        })
        .collect();
    all.sort_by_key(|base| std::cmp::Reverse(base.time));
    all
}

/// Which of them may go: the newest stay, and of older ones one for each ten seconds of the last minute and one for
/// each minute of the last ten, as long as all together are not too large.
fn superfluous(newest_first: &[Remembered], now: i64) -> Vec<PathBuf> {
    let (mut last, mut left) = (i64::MIN, Vec::new());
    let mut gone = Vec::new();
    // From the oldest on, so that what is kept stays kept while it grows older.
    for (number, base) in newest_first.iter().enumerate().rev() {
        let age = now.saturating_sub(base.time);
        let apart = if age <= 60_000 { 10_000 } else { 60_000 };
        if number < NEWEST || (age <= 600_000 && base.time.saturating_sub(last) >= apart) {
            last = base.time;
            left.push(base);
        } else {
            gone.push(base.path.clone());
        }
    }
    let mut bytes: u64 = 0;
    for (number, base) in left.into_iter().rev().enumerate() {
        bytes = bytes.saturating_add(base.bytes);
        if number >= NEWEST && bytes > MOST_BYTES {
            gone.push(base.path.clone());
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A base a second, for twenty minutes; `check` gets the time and what is left, the newest first.
    fn each_second(bytes: u64, check: impl Fn(i64, &[Remembered])) {
        let mut kept: Vec<Remembered> = Vec::new();
        for time in (0..1_200_000).step_by(1000) {
            let path = PathBuf::from(time.to_string());
            kept.insert(0, Remembered { time, path, bytes });
            let gone = superfluous(&kept, time);
            kept.retain(|base| !gone.contains(&base.path));
            check(time, &kept);
        }
    }

    #[test]
    fn of_bases_there_are_some_of_each_age_and_never_many() {
        // Just as large as all of them may be.
        each_second(MOST_BYTES / 21, |now, kept| {
            assert!(kept.len() <= NEWEST + 7 + 10, "{} at {now}", kept.len());
            for age in [0, 1000, 15_000, 45_000, 130_000, 500_000] {
                let near = |base: &Remembered| (now - base.time - age).abs() <= 60_000.min(age);
                assert!(
                    now < age + 60_000 || kept.iter().any(near),
                    "age {age} at {now}"
                );
            }
        });
    }

    #[test]
    fn of_large_bases_the_newest_are_left_and_no_more_than_their_share_of_the_disk() {
        for (bytes, most) in [
            (MOST_BYTES / 6, 6),
            (MOST_BYTES / 4 + 1, NEWEST),
            (MOST_BYTES * 2, NEWEST),
            (u64::MAX, NEWEST),
        ] {
            each_second(bytes, |now, kept| {
                let expected = most.min(usize::try_from(now / 1000 + 1).unwrap());
                // Those of one age that are not the newest are thinned out.
                let least = expected.min(NEWEST);
                assert!(
                    (least..=expected).contains(&kept.len()),
                    "{} of {bytes} bytes at {now}",
                    kept.len()
                );
                assert!(
                    kept[..least]
                        .iter()
                        .zip(0..)
                        .all(|(base, n)| base.time == now - n * 1000)
                );
            });
        }
    }
}
