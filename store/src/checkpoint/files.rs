//! The files of a state directory's checkpoints, and the order in which they change.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::OFlag;
use sherwood_client::Snapshot;
use sherwood_client::import::seal;
use sherwood_client::locate::{ClusterId, StateDir};

use super::encode::encode;
use super::error::{CheckpointError, failed};
use super::keys::{Position, is_checkpoint, keys};
use super::pace::{Pace, Step};
use super::public::{Public, same};
use super::sink::{Paced, Sink};
use super::{BASES, DIRECTORY};

/// Private checkpoints that stay.
const KEPT: usize = 2;

/// The checkpoints of one cluster. The caller holds the state's lock (W1).
#[derive(Debug)]
pub struct Checkpoints {
    pub(super) state_dir: PathBuf,
    pub(super) dir: PathBuf,
    pub(super) public: PathBuf,
    pub(super) mode: u32,
    /// The checkpoint that has taken the public name and is not the base yet.
    pub(super) taken: Mutex<Option<PathBuf>>,
    /// The checkpoint that was read whole, so that it may stand alone (C7).
    relied_on: Mutex<Option<PathBuf>>,
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

/// What [`Checkpoints::make_room`] has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Entries up to this one are in the newest checkpoint, so the log of them may go. 0: there is none.
    pub through: u64,
    /// Files that went.
    pub given_up: usize,
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
            relied_on: Mutex::default(),
        }
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

    /// Removes private checkpoints beyond the two newest.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]; those that are left are whole.
    pub fn prune(&self, pace: &mut dyn Pace) -> Result<(), CheckpointError> {
        let paced = Paced::new(pace);
        for old in self.list()?.into_iter().skip(KEPT) {
            Self::remove_paced(&old.path, &paced)?;
        }
        Ok(())
    }

    /// C7: for a full disk. Gives up what is kept in case of damage, the older checkpoints; the newest is read whole before it stands
    /// alone. If there is still no room when this is called again, and no newer checkpoint, what the base was before goes too: a foreign
    /// program may be at work on one of those (FO3).
    ///
    /// # Errors
    ///
    /// [`CheckpointError`], if the newest is damaged for one: then nothing is given up.
    pub fn make_room(&self, pace: &mut dyn Pace) -> Result<Room, CheckpointError> {
        let all = self.list()?;
        let Some((newest, older)) = all.split_first() else {
            return Ok(Room::default());
        };
        let paced = Paced::new(pace);
        // Its name may not be durable yet, if the sync behind it failed.
        self.sync(&self.dir, &paced)?;
        let relied_on = || {
            self.relied_on
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let is_second = relied_on().as_ref() == Some(&newest.path);
        if !is_second {
            let bytes = fs::read(&newest.path).map_err(failed("read", &newest.path))?;
            if seal::check(&bytes).is_err() || !is_checkpoint(&bytes.into()) {
                let source = io::Error::other("it is damaged, and the older ones are needed");
                return Err(failed("rely on", &newest.path)(source));
            }
            *relied_on() = Some(newest.path.clone());
        }
        let bases = match is_second {
            true => names(&self.dir.join(BASES))?,
            false => Vec::new(),
        };
        let mut given_up = 0;
        for path in older.iter().map(|old| &old.path).chain(&bases) {
            Self::remove_paced(path, &paced)?;
            given_up += 1;
        }
        self.sync(&self.dir, &paced)?;
        Ok(Room {
            through: newest.sequence,
            given_up,
        })
    }

    fn remove_paced(path: &Path, paced: &Paced<'_>) -> Result<(), CheckpointError> {
        paced.before(Step::Remove).map_err(|error| {
            if paced.is_stopped() {
                CheckpointError::Stopped
            } else {
                failed("remove", path)(error)
            }
        })?;
        remove(path)
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

    pub(super) fn sync(&self, dir: &Path, paced: &Paced<'_>) -> Result<(), CheckpointError> {
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

pub(super) fn names(dir: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
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

pub(super) fn remove(path: &Path) -> Result<(), CheckpointError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

pub(super) fn create(path: &Path, mode: u32) -> io::Result<File> {
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
