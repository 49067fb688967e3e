//! The files of a state directory's checkpoints, and the order in which they change.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, RenameFlags, renameat2};
use sherwood_client::Snapshot;
use sherwood_client::locate::{ClusterId, StateDir};

use super::encode::encode;
use super::error::{CheckpointError, failed};
use super::keys::{Position, is_checkpoint, keys, read_position};
use super::pace::{Pace, Step};
use super::sink::{Paced, Sink};
use super::{BASE, BASES, DIRECTORY, REJECTED};
use crate::durable::OUR_PREFIX;

/// Private checkpoints that stay.
const KEPT: usize = 2;
/// What is copied in one step.
const PIECE: u64 = 4 << 20;

/// The checkpoints of one cluster. The caller holds the state's lock (W1).
#[derive(Debug)]
pub struct Checkpoints {
    state_dir: PathBuf,
    dir: PathBuf,
    public: PathBuf,
    mode: u32,
    /// The checkpoint that has taken the public name and is not the base yet.
    taken: Mutex<Option<PathBuf>>,
}

/// A private checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Where it is.
    pub path: PathBuf,
    /// The last entry in it, by its name.
    pub sequence: u64,
}

/// A checkpoint that was just written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The private file.
    pub path: PathBuf,
    /// Where it stands.
    pub position: Position,
    /// Its length.
    pub bytes: u64,
}

/// A checkpoint that is the public file.
#[derive(Debug)]
pub struct Exchanged {
    /// What its inode says, so that a look at the directory knows it for ours.
    pub found: fs::Metadata,
    /// Where what stood there is now, whole, if anything did.
    pub displaced: Option<PathBuf>,
    /// Whether it is durable, and the base of merges (C3).
    pub rest: Result<(), CheckpointError>,
}

/// What stands at the public name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Public {
    /// Nothing.
    Missing,
    /// A copy of a private checkpoint that is still there.
    Ours,
    /// Another's file, whose changes we have already ([`Checkpoints::set_base`]).
    Merged,
    /// Another's file.
    Foreign,
}

/// A foreign file that was moved aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Where it is now.
    pub path: PathBuf,
    /// The text that says why.
    pub reason: PathBuf,
}

impl Checkpoints {
    /// Makes the directory, if need be, and removes what unfinished work left in it.
    ///
    /// `mode`: of a public file where none is yet; one that is there keeps its own.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn open(dir: &StateDir, cluster: &ClusterId, mode: u32) -> Result<Self, CheckpointError> {
        let checkpoints = Self {
            mode,
            ..Self::at(dir, cluster)
        };
        let Self { state_dir, dir, .. } = &checkpoints;
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Ok(()) => sync_directory(state_dir)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed("make the directory", dir)(error)),
        }
        for path in names(&checkpoints.dir)? {
            if path.extension().is_some_and(|extension| extension == "tmp") {
                remove(&path)?;
            }
        }
        checkpoints.rescue()?;
        // C3: a crash came between the first checkpoint and the base.
        if let ([only], false) = (
            checkpoints.list()?.as_slice(),
            fs::symlink_metadata(checkpoints.base()).is_ok(),
        ) {
            checkpoints.link_base(&only.path, &Paced::new(&mut super::Free))?;
        }
        // C3: a crash came between the public name and the base.
        if checkpoints.public()? == Public::Ours {
            for listed in checkpoints.list()? {
                if same(&listed.path, &checkpoints.public)?
                    && !same(&listed.path, &checkpoints.base())?
                {
                    checkpoints.link_base(&listed.path, &Paced::new(&mut super::Free))?;
                }
            }
        }
        Ok(checkpoints)
    }

    /// To look at only: changes nothing, and the directory may be missing.
    #[must_use]
    pub fn at(dir: &StateDir, cluster: &ClusterId) -> Self {
        let state_dir = dir.path().to_path_buf();
        Self {
            dir: state_dir.join(DIRECTORY),
            public: state_dir.join(cluster.state_file_name()),
            state_dir,
            mode: 0o600,
            taken: Mutex::default(),
        }
    }

    /// Does the public file have the bytes of this checkpoint?
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn is_public(&self, checkpoint: &Path) -> Result<bool, CheckpointError> {
        same(checkpoint, &self.public)
    }

    /// The private checkpoints, the newest first.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn list(&self) -> Result<Vec<Listed>, CheckpointError> {
        list_in(&self.dir)
    }

    /// The public file's path.
    #[must_use]
    pub fn public_path(&self) -> &Path {
        &self.public
    }

    /// C4: entries up to this one are in every checkpoint that is kept, so the log of them may go. 0 while there is
    /// only one: the log must then reach back to it, and to whatever it was made from.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn oldest_kept(&self) -> Result<u64, CheckpointError> {
        let all = self.list()?;
        Ok(all.get(KEPT - 1).map_or(0, |listed| listed.sequence))
    }

    /// Writes a private checkpoint. **Durable** when this returns `Ok` (C1). Replaces one of the same position.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]; nothing is left behind but, after a failed sync of the directory, the checkpoint itself.
    pub fn write(
        &self,
        snapshot: &Snapshot,
        position: Position,
        pace: &mut dyn Pace,
    ) -> Result<Written, CheckpointError> {
        let path = self.dir.join(file_name(position.sequence));
        let aside = path.with_extension("parquet.tmp");
        let paced = Paced::new(pace);
        let bytes = self
            .write_aside(snapshot, position, &aside, &path, &paced)
            .map_err(|error| {
                // The error that matters is the one above; what cannot be removed is, by the next `open`.
                if paced.before(Step::Remove).is_ok() {
                    let _ = fs::remove_file(&aside);
                }
                if paced.is_stopped() {
                    CheckpointError::Stopped
                } else {
                    error
                }
            })?;
        Ok(Written {
            path,
            position,
            bytes,
        })
    }

    fn write_aside(
        &self,
        snapshot: &Snapshot,
        position: Position,
        aside: &Path,
        path: &Path,
        paced: &Paced<'_>,
    ) -> Result<u64, CheckpointError> {
        paced
            .before(Step::Create)
            .map_err(failed("create", aside))?;
        let file = create(aside, 0o600).map_err(failed("create", aside))?;
        let mut sink = Sink::new(&file, paced);
        encode(snapshot, &keys(position), &mut sink, |_| {}, paced).map_err(
            |error| match error {
                CheckpointError::Encode(source) => written(source, aside),
                other => other,
            },
        )?;
        if !sink.seal().map_err(failed("write", aside))? {
            return Err(CheckpointError::Unsealed {
                path: aside.to_owned(),
            });
        }
        paced.before(Step::Sync).map_err(failed("sync", aside))?;
        file.sync_all().map_err(failed("sync", aside))?;
        let bytes = file.metadata().map_err(failed("look at", aside))?.len();
        paced.before(Step::Name).map_err(failed("rename", aside))?;
        fs::rename(aside, path).map_err(failed("rename", aside))?;
        self.sync(&self.dir, paced)?;
        Ok(bytes)
    }

    /// C2 and C3: makes a checkpoint the public file. The mode of what stood there is kept and,
    /// where this process may set them, its owner and group.
    ///
    /// The two change places at one stroke, so that a file that came at the last moment is not lost unseen: it is the caller's to
    /// look at, and to remove or to [reject](Self::reject), also when `rest` is an error. What a crash leaves there is
    /// rejected by the next call.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]; what stood at the public name still does.
    pub fn exchange(
        &self,
        checkpoint: &Path,
        pace: &mut dyn Pace,
    ) -> Result<Exchanged, CheckpointError> {
        let (aside, whole) = (self.aside("tmp"), self.aside("new"));
        let paced = Paced::new(pace);
        let done = self
            .copy_public(checkpoint, &aside, &whole, &paced)
            .map_err(|error| {
                if paced.before(Step::Remove).is_ok() {
                    let _ = fs::remove_file(&aside);
                    let _ = fs::remove_file(&whole);
                }
                if paced.is_stopped() {
                    CheckpointError::Stopped
                } else {
                    error
                }
            });
        let to = done?;
        // From here on nothing may be lost sight of.
        let displaced = self.take_public_name(&whole)?;
        *self.taken() = Some(checkpoint.to_owned());
        let found = to.metadata().map_err(failed("look at", &self.public))?;
        let rest = self
            .sync(&self.state_dir, &paced)
            .and_then(|()| self.link_base(checkpoint, &paced));
        Ok(Exchanged {
            found,
            displaced,
            rest,
        })
    }

    /// [`exchange`](Self::exchange) for who knows what stands there, and removes it. **Durable** when this returns `Ok`.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn publish(
        &self,
        checkpoint: &Path,
        pace: &mut dyn Pace,
    ) -> Result<fs::Metadata, CheckpointError> {
        let exchanged = self.exchange(checkpoint, pace)?;
        if let Some(displaced) = exchanged.displaced {
            remove(&displaced)?;
        }
        exchanged.rest.map(|()| exchanged.found)
    }

    fn taken(&self) -> MutexGuard<'_, Option<PathBuf>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a public file is made (`tmp`), and where a whole one changes places with what it displaces (`new`).
    fn aside(&self, extension: &str) -> PathBuf {
        let name = self.public.file_name().unwrap_or_default();
        self.state_dir.join(format!(
            "{OUR_PREFIX}{}.{extension}",
            name.to_string_lossy()
        ))
    }

    /// What a crash left where files change places: ours, which is removed, or one that was displaced and not looked at.
    fn rescue(&self) -> Result<(), CheckpointError> {
        let whole = self.aside("new");
        let is_ours = match fs::read(&whole) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Ok(bytes) => is_checkpoint(&bytes.into()),
            Err(_) => false,
        };
        match is_ours {
            true => remove(&whole),
            false => self
                .reject(
                    &whole,
                    "it was displaced by our checkpoint, and the daemon stopped before it was read",
                )
                .map(drop),
        }
    }

    fn copy_public(
        &self,
        checkpoint: &Path,
        aside: &Path,
        whole: &Path,
        paced: &Paced<'_>,
    ) -> Result<File, CheckpointError> {
        self.rescue()?;
        let from = File::open(checkpoint).map_err(failed("open", checkpoint))?;
        paced
            .before(Step::Create)
            .map_err(failed("create", aside))?;
        remove(aside)?;
        // Others may open it from its first moment on: never with more than it is to have.
        let to = create(aside, self.mode & 0o600).map_err(failed("create", aside))?;
        loop {
            paced.before(Step::Copy).map_err(failed("write", aside))?;
            // The kernel copies, and shares blocks where the file system can.
            let copied = io::copy(&mut (&from).take(PIECE), &mut (&to));
            if copied.map_err(failed("write", aside))? == 0 {
                break;
            }
            paced.before(Step::Sync).map_err(failed("sync", aside))?;
            to.sync_data().map_err(failed("sync", aside))?;
        }
        let mut mode = self.mode;
        if let Ok(old) = fs::symlink_metadata(&self.public)
            && old.is_file()
        {
            // Only root may give a file away; for others the mode is all that can be kept.
            let _not_ours_to_give = fchown(&to, Some(old.uid()), Some(old.gid()));
            mode = old.mode() & 0o777;
        }
        // Set, so that no umask takes from it.
        to.set_permissions(fs::Permissions::from_mode(mode))
            .map_err(failed("set the mode of", aside))?;
        paced.before(Step::Sync).map_err(failed("sync", aside))?;
        to.sync_all().map_err(failed("sync", aside))?;
        paced
            .before(Step::Publish)
            .map_err(failed("replace", &self.public))?;
        fs::rename(aside, whole).map_err(failed("rename", aside))?;
        Ok(to)
    }

    /// Exchanges `whole` and the public file; where what stood there is now.
    fn take_public_name(&self, whole: &Path) -> Result<Option<PathBuf>, CheckpointError> {
        let exchange = RenameFlags::RENAME_EXCHANGE;
        match renameat2(AT_FDCWD, whole, AT_FDCWD, &self.public, exchange) {
            Ok(()) => return Ok(Some(whole.to_owned())),
            Err(Errno::ENOENT) => {}
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
                // A file system that cannot: what stands there gets a second name first.
                let old = self.aside("old");
                remove(&old)?;
                if fs::hard_link(&self.public, &old).is_ok() {
                    fs::rename(whole, &self.public).map_err(failed("replace", &self.public))?;
                    return Ok(Some(old));
                }
            }
            Err(error) => return Err(failed("replace", &self.public)(error.into())),
        }
        fs::rename(whole, &self.public).map_err(failed("replace", &self.public))?;
        Ok(None)
    }

    /// Removes private checkpoints beyond the two newest.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]; those that are left are whole.
    pub fn prune(&self, pace: &mut dyn Pace) -> Result<(), CheckpointError> {
        let paced = Paced::new(pace);
        for old in self.list()?.into_iter().skip(KEPT) {
            paced.before(Step::Remove).map_err(|error| {
                if paced.is_stopped() {
                    CheckpointError::Stopped
                } else {
                    failed("remove", &old.path)(error)
                }
            })?;
            remove(&old.path)?;
        }
        Ok(())
    }

    /// Takes checkpoints that were found damaged out of the [list](Self::list), so that they do not count as kept (C4): they are
    /// renamed to `<position>.parquet.damaged`, for whoever wants to look at them. **Durable** when this returns `Ok`.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`]; each is at one of its two names.
    pub fn set_damaged_aside(&self, damaged: &[PathBuf]) -> Result<(), CheckpointError> {
        for path in damaged {
            let aside = path.with_extension("parquet.damaged");
            match fs::rename(path, &aside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("set aside", path)(error));
                }
                _ => {}
            }
        }
        match damaged {
            [] => Ok(()),
            _ => sync_directory(&self.dir),
        }
    }

    /// What stands at the public name, by its bytes. What cannot be read is another's, and never ours.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`], of the private files.
    pub fn public(&self) -> Result<Public, CheckpointError> {
        let (public, why) = self.look_at_public();
        if let Some(why) = why {
            tracing::warn!("{why}");
        }
        Ok(public)
    }

    /// The same, and why it could not be looked at.
    pub(crate) fn look_at_public(&self) -> (Public, Option<String>) {
        self.compare_public().map_or_else(
            |error| {
                let cause = std::error::Error::source(&error);
                let cause = cause.map(ToString::to_string).unwrap_or_default();
                let why = format!(
                    "{error} ({cause}). It is taken for another program's file, which is not needed to start"
                );
                (Public::Foreign, Some(why))
            },
            |public| (public, None),
        )
    }

    fn compare_public(&self) -> Result<Public, CheckpointError> {
        if fs::metadata(&self.public).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Ok(Public::Missing);
        }
        for listed in self.list()? {
            if same(&listed.path, &self.public)? {
                return Ok(Public::Ours);
            }
        }
        match same(&self.base(), &self.public)? {
            true => Ok(Public::Merged),
            false => Ok(Public::Foreign),
        }
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
            timed(&names(&self.dir.join(BASES))?)
                .into_iter()
                .map(|(_, path)| path),
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
            for path in superfluous(&timed(&found), Utc::now().timestamp_millis()) {
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
        let mut file = create(&aside, 0o600).map_err(failed("create", &aside))?;
        io::Write::write_all(&mut file, bytes).map_err(failed("write", &aside))?;
        file.sync_all().map_err(failed("sync", &aside))?;
        let base = self.base();
        fs::rename(&aside, &base).map_err(failed("rename", &aside))?;
        sync_directory(&self.dir)?;
        *self.taken() = None;
        self.remember_base();
        Ok(())
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
    fn link_base(&self, checkpoint: &Path, paced: &Paced<'_>) -> Result<(), CheckpointError> {
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

    /// Moves a foreign file that is no state out of the way, and says why beside it. Its writer, if it still has it open, goes on
    /// writing there.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`]; the file is at one of the two places.
    pub fn reject(&self, path: &Path, reason: &str) -> Result<Rejected, CheckpointError> {
        reject(&self.state_dir, path, reason)
    }

    fn sync(&self, dir: &Path, paced: &Paced<'_>) -> Result<(), CheckpointError> {
        let asked = paced.before(Step::SyncDirectory);
        asked.map_err(|error| {
            if paced.is_stopped() {
                CheckpointError::Stopped
            } else {
                failed("sync", dir)(error)
            }
        })?;
        sync_directory(dir)
    }
}

/// The encoder's error; one of the file's where it comes from there.
fn written(source: parquet::errors::ParquetError, path: &Path) -> CheckpointError {
    match source {
        parquet::errors::ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(error) => failed("write", path)(*error),
            Err(inner) => CheckpointError::Encode(parquet::errors::ParquetError::External(inner)),
        },
        other => CheckpointError::Encode(other),
    }
}

/// `<position>.parquet`.
pub(crate) fn file_name(sequence: u64) -> String {
    format!("{sequence:020}.parquet")
}

/// The private checkpoints in a state directory, the newest first.
///
/// # Errors
///
/// [`CheckpointError::Io`].
pub fn list(dir: &StateDir) -> Result<Vec<Listed>, CheckpointError> {
    list_in(&dir.path().join(DIRECTORY))
}

/// The checkpoints in `dir`, the newest first; none if it is missing.
fn list_in(dir: &Path) -> Result<Vec<Listed>, CheckpointError> {
    let mut found: Vec<Listed> = names(dir)?
        .into_iter()
        .filter_map(|path| {
            let digits = path.file_name()?.to_str()?.strip_suffix(".parquet")?;
            let all_digits = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
            let sequence = digits.parse().ok().filter(|_| all_digits)?;
            Some(Listed { path, sequence })
        })
        .collect();
    found.sort_by_key(|listed| std::cmp::Reverse(listed.sequence));
    Ok(found)
}

/// Files that are named by a time in milliseconds, the newest first.
fn timed(names: &[PathBuf]) -> Vec<(i64, PathBuf)> {
    let mut all: Vec<(i64, PathBuf)> = names
        .iter()
        .filter_map(|path| Some((path.file_stem()?.to_str()?.parse().ok()?, path.clone())))
        .collect();
    all.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
    all
}

/// Which of them may go: the four newest stay, and of older ones one for each ten seconds of the last minute and one for
/// each minute of the last ten.
fn superfluous(newest_first: &[(i64, PathBuf)], now: i64) -> Vec<PathBuf> {
    let mut last = i64::MIN;
    let mut gone = Vec::new();
    // From the oldest on, so that what is kept stays kept while it grows older.
    for (number, (time, path)) in newest_first.iter().enumerate().rev() {
        let age = now.saturating_sub(*time);
        let apart = if age <= 60_000 { 10_000 } else { 60_000 };
        if number < 4 || (age <= 600_000 && time.saturating_sub(last) >= apart) {
            last = *time;
        } else {
            gone.push(path.clone());
        }
    }
    gone
}

fn names(dir: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("list", dir)(error)),
    };
    let paths: io::Result<Vec<PathBuf>> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect();
    paths.map_err(failed("list", dir))
}

fn remove(path: &Path) -> Result<(), CheckpointError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn create(path: &Path, mode: u32) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .custom_flags(flags.bits())
        .open(path)
}

pub(crate) fn sync_directory(dir: &Path) -> Result<(), CheckpointError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(failed("sync", dir))
}

/// Have both files the same bytes? A missing one is the same as none.
pub(crate) fn same(one: &Path, other: &Path) -> Result<bool, CheckpointError> {
    let flags = (OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).bits();
    let opened = |path: &Path| File::options().read(true).custom_flags(flags).open(path);
    let open = |path: &Path| match opened(path) {
        // A FIFO or a device: it has no bytes to compare, and reading it may never end.
        Ok(file) if !file.metadata().map_err(failed("look at", path))?.is_file() => Ok(None),
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("open", path)(error)),
    };
    let (Some(mut a), Some(mut b)) = (open(one)?, open(other)?) else {
        return Ok(false);
    };
    let of = |file: &File, path| file.metadata().map_err(failed("look at", path));
    let (found_a, found_b) = (of(&a, one)?, of(&b, other)?);
    if (found_a.dev(), found_a.ino()) == (found_b.dev(), found_b.ino()) {
        return Ok(true);
    }
    if found_a.len() != found_b.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 1 << 18], vec![0; 1 << 18]);
    loop {
        let got = a.read(&mut left).map_err(failed("read", one))?;
        if got == 0 {
            return Ok(true);
        }
        match b.read_exact(&mut right[..got]) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            other_error => other_error.map_err(failed("read", other))?,
        }
        if left[..got] != right[..got] {
            return Ok(false);
        }
    }
}

/// A time as part of a file's name.
pub(crate) fn stamp() -> String {
    let now: DateTime<Utc> = Utc::now();
    now.format("%Y%m%dT%H%M%S%.3fZ").to_string()
}

fn reject(state_dir: &Path, path: &Path, reason: &str) -> Result<Rejected, CheckpointError> {
    let dir = state_dir.join(REJECTED);
    match fs::create_dir(&dir) {
        Ok(()) => sync_directory(state_dir)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed("make the directory", &dir)(error)),
    }
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    // A displaced file is known by the name that it had.
    let name = match name.strip_prefix(OUR_PREFIX) {
        Some(own) => own
            .trim_end_matches(".new")
            .trim_end_matches(".old")
            .to_owned(),
        None => name,
    };
    let stamp = stamp();
    let mut target = dir.join(format!("{stamp}-{name}"));
    let mut count = 1;
    while fs::symlink_metadata(&target).is_ok() {
        count += 1;
        target = dir.join(format!("{stamp}-{count}-{name}"));
    }
    fs::rename(path, &target).map_err(failed("move", path))?;
    let reason_name = format!(
        "{}.reason.txt",
        target.file_name().unwrap_or_default().to_string_lossy()
    );
    let reason_path = dir.join(&reason_name);
    fs::write(&reason_path, format!("{reason}\n")).map_err(failed("write", &reason_path))?;
    sync_directory(&dir)?;
    sync_directory(state_dir)?;
    Ok(Rejected {
        path: target,
        reason: reason_path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A base a second, for twenty minutes: some of each age are there, and never many.
    #[test]
    fn of_bases_there_are_some_of_each_age_and_never_many() {
        let mut kept: Vec<(i64, PathBuf)> = Vec::new();
        for now in (0..1_200_000).step_by(1000) {
            kept.insert(0, (now, PathBuf::from(now.to_string())));
            let gone = superfluous(&kept, now);
            kept.retain(|(_, path)| !gone.contains(path));
            assert!(kept.len() <= 4 + 7 + 10, "{} at {now}", kept.len());
            for age in [0, 1000, 15_000, 45_000, 130_000, 500_000] {
                let near = |(time, _): &(i64, PathBuf)| (now - time - age).abs() <= 60_000.min(age);
                assert!(
                    now < age + 60_000 || kept.iter().any(near),
                    "age {age} at {now}"
                );
            }
        }
    }
}
