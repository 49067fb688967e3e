//! The run directory: where the snapshot file gets its name.
//!
//! Readers trust a snapshot that belongs to root, to themselves or to the owner of its directory
//! (F11). So whoever owns the directory, or may rename in it, chooses what readers believe: a
//! daemon that published into somebody else's directory would lend that person its name.
//! [`make`] therefore takes an existing directory only
//!
//! - **D1** if it belongs to this daemon's user or to root, and
//! - **D2** if nobody else may write in it, or nobody may rename what is not theirs (the sticky bit,
//!   as on /dev/shm).
//!
//! The directories above it are the administrator's matter.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use nix::unistd::geteuid;

/// Why there is no run directory to publish into. An existing one was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunDirError {
    /// It cannot be made or entered.
    #[error("cannot make or open the run directory {path:?}")]
    Make {
        /// The run directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// D1.
    #[error(
        "the run directory {path:?} belongs to uid {owner}, who could put a snapshot of their own there that readers trust; give it to uid {daemon}, whom the daemon runs as, or name another with --run-dir"
    )]
    Owner {
        /// The run directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The daemon's user.
        daemon: u32,
    },
    /// D2.
    #[error(
        "the run directory {path:?} has mode {mode:04o}: others could rename snapshots in it; take their right to write away (chmod go-w), or set the sticky bit (chmod +t)"
    )]
    Writable {
        /// The run directory.
        path: PathBuf,
        /// Its mode bits.
        mode: u32,
    },
}

/// The run directory by its real path. One that is missing is made, with mode 0755 whatever the
/// umask: readers are other users.
pub fn make(path: &Path) -> Result<PathBuf, RunDirError> {
    let (real, owner, mode) = make_and_look(path).map_err(|source| RunDirError::Make {
        path: path.to_path_buf(),
        source,
    })?;
    judge(&real, owner, mode, geteuid().as_raw())?;
    Ok(real)
}

fn make_and_look(path: &Path) -> io::Result<(PathBuf, u32, u32)> {
    if !path.exists() {
        // Never writable by others, not even until the mode is set.
        DirBuilder::new().recursive(true).mode(0o755).create(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o755))?;
    }
    let real = path.canonicalize()?;
    let found = real.metadata()?;
    if !found.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok((real, found.uid(), found.mode() & 0o7777))
}

/// D1 and D2.
fn judge(path: &Path, owner: u32, mode: u32, daemon: u32) -> Result<(), RunDirError> {
    const OTHERS_WRITE: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    let path = path.to_path_buf();
    if owner != daemon && owner != 0 {
        return Err(RunDirError::Owner {
            path,
            owner,
            daemon,
        });
    }
    if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
        return Err(RunDirError::Writable { path, mode });
    }
    Ok(())
}

/// As written, but from the root: for a name in a lock file before the directory is made.
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// Is it on a file system that lives in memory?
pub fn is_memory(path: &Path) -> bool {
    const RAMFS_MAGIC: i128 = 0x8584_58f6;
    let FsType(tmpfs) = TMPFS_MAGIC;
    statfs(path).is_ok_and(|found| {
        let FsType(magic) = found.filesystem_type();
        magic == tmpfs || i128::from(magic) & 0xffff_ffff == RAMFS_MAGIC
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_taken_only_if_nobody_else_can_choose_what_readers_trust() {
        let (root, daemon, other) = (0, 7, 8);
        for mode in 0..=0o7777 {
            let writable = mode & 0o020 != 0 || mode & 0o002 != 0;
            let sticky = mode & 0o1000 != 0;
            for owner in [root, daemon, other] {
                let judged = judge(Path::new("/r"), owner, mode, daemon);
                let as_expected = match judged {
                    Ok(()) => owner != other && (sticky || !writable),
                    Err(RunDirError::Owner { .. }) => owner == other,
                    Err(RunDirError::Writable { .. }) => owner != other && writable && !sticky,
                    Err(RunDirError::Make { .. }) => false,
                };
                assert!(as_expected, "mode {mode:04o}, owner {owner}: {judged:?}");
            }
        }
    }

    #[test]
    fn a_missing_directory_is_made_for_readers_and_a_file_is_none() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("a/b");
        let made = make(&path).unwrap();
        assert_eq!(made, path.canonicalize().unwrap());
        assert_eq!(fs::metadata(&made).unwrap().mode() & 0o7777, 0o755);
        assert_eq!(make(&path).unwrap(), made);
        fs::write(made.join("file"), "").unwrap();
        let error = make(&made.join("file")).unwrap_err();
        assert!(matches!(error, RunDirError::Make { .. }), "{error}");
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused_with_a_remedy() {
        let tmp = tempfile::tempdir().unwrap();
        let mode = |mode| fs::set_permissions(tmp.path(), Permissions::from_mode(mode)).unwrap();
        mode(0o777);
        let error = make(tmp.path()).unwrap_err().to_string();
        assert!(error.contains("mode 0777"), "{error}");
        assert!(error.contains("chmod go-w"), "{error}");
        mode(0o1777);
        make(tmp.path()).unwrap();
    }
}
