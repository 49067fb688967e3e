//! The public file: a copy of a private checkpoint, where other programs look for the state.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, RenameFlags, renameat2};
use nix::sys::statvfs::statvfs;

use super::error::{CheckpointError, failed};
use super::files::{Checkpoints, create, remove};
use super::keys::is_checkpoint;
use super::pace::{Pace, Step};
use super::sink::Paced;
use crate::durable::OUR_PREFIX;

/// What is copied in one step.
const PIECE: u64 = 4 << 20;

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

impl Checkpoints {
    /// Does the public file have the bytes of this checkpoint?
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn is_public(&self, checkpoint: &Path) -> Result<bool, CheckpointError> {
        same(checkpoint, &self.public)
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

    /// Where a public file is made (`tmp`), and where a whole one changes places with what it displaces (`new`).
    fn aside(&self, extension: &str) -> PathBuf {
        let name = self.public.file_name().unwrap_or_default();
        self.state_dir.join(format!(
            "{OUR_PREFIX}{}.{extension}",
            name.to_string_lossy()
        ))
    }

    /// What a crash left where files change places: half of ours or ours, which is removed, or one that was displaced and not
    /// looked at.
    pub(super) fn rescue(&self) -> Result<(), CheckpointError> {
        remove(&self.aside("tmp"))?;
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
        self.leaves_room(&from).map_err(failed("write", aside))?;
        paced
            .before(Step::Create)
            .map_err(failed("create", aside))?;
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

    /// C7: the public file is not worth the room of the next checkpoint, without which nothing is written any more.
    fn leaves_room(&self, checkpoint: &File) -> io::Result<()> {
        let bytes = checkpoint.metadata()?.len();
        let old = fs::symlink_metadata(&self.public).map_or(0, |old| old.len());
        // Where it cannot be said, the copy finds out.
        let room = statvfs(&self.state_dir).map_or(u64::MAX, |found| {
            found
                .blocks_available()
                .saturating_mul(found.fragment_size())
        });
        match room.saturating_add(old) < bytes.saturating_mul(2) {
            true => Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "No space left but what the next checkpoint needs",
            )),
            false => Ok(()),
        }
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
