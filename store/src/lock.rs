//! Rule W1: one daemon for a state, one for a snapshot's name.
//!
//! The lock is `flock(2)`'s, exclusive, on a file that is never deleted: in the durable state
//! directory, taken before anything else is looked at, and a second one in the run directory,
//! because two state directories may hold clusters of one name. The kernel releases it when
//! the process ends, however it ends.
//!
//! - **K1** A lock counts only while its file is the one at its name: a file that was deleted
//!   or replaced locks nothing. Looked at when the lock is taken, and by [`Lock::in_place`].
//! - **K2** The holder writes who it is into the file, so that the loser can say whom to stop.
//!   It is written after the lock is taken and read without one: a reader may find nothing
//!   yet, or a holder that is gone, and then names nobody or the wrong one; the lock itself
//!   is never in doubt.
//!
//! The file is readable by its owner only: whoever can open it can lock it, and so could keep
//! the daemon from starting.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

/// The lock file of a state directory.
pub const STATE_LOCK: &str = "sherwood.lock";

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// As that process sees itself: another in another pid namespace.
    pub pid: u32,
    /// Its state directory.
    pub state_dir: PathBuf,
    /// Its run directory.
    pub run_dir: PathBuf,
}

impl Holder {
    /// This process, working on these directories.
    pub fn this_process(state_dir: &Path, run_dir: &Path) -> Self {
        Self {
            pid: std::process::id(),
            state_dir: state_dir.to_path_buf(),
            run_dir: run_dir.to_path_buf(),
        }
    }
}

/// Why a lock was not taken. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another daemon has it.
    #[error("{}; stop it first, or choose another directory", whom(path, holder.as_ref()))]
    Held {
        /// The lock file.
        path: PathBuf,
        /// The other daemon, where it could be read.
        holder: Option<Holder>,
    },
    /// The lock file cannot be made or opened.
    #[error(
        "cannot open the lock file {path:?}; the daemon must be able to write to its state and run directories"
    )]
    Open {
        /// The lock file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel did not lock it, for another reason than another holder.
    #[error("cannot lock {path:?}")]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Somebody replaces the lock file again and again.
    #[error("the lock file {path:?} is being replaced by another program; it must be left alone")]
    Replaced {
        /// The lock file.
        path: PathBuf,
    },
}

fn whom(path: &Path, holder: Option<&Holder>) -> String {
    match holder {
        Some(Holder {
            pid,
            state_dir,
            run_dir,
        }) => format!(
            "another sherwoodd (pid {pid}, state directory {state_dir:?}, run directory {run_dir:?}) already serves this cluster: it holds {path:?}"
        ),
        None => format!("another sherwoodd already serves this cluster: it holds {path:?}"),
    }
}

/// A lock that is held until this is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock of the file `path`, without waiting, and leaves word of `holder` in it.
    pub fn acquire(path: &Path, holder: &Holder) -> Result<Self, LockError> {
        // Each turn is lost only to somebody who replaced the file just then.
        for _ in 0..16 {
            let file = open(path).map_err(|source| LockError::Open {
                path: path.to_path_buf(),
                source,
            })?;
            let failed = |source| LockError::Lock {
                path: path.to_path_buf(),
                source,
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(LockError::Held {
                        path: path.to_path_buf(),
                        holder: read_holder(&file),
                    });
                }
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
            let lock = Self {
                file,
                path: path.to_path_buf(),
            };
            if lock.in_place() {
                lock.write_holder(holder).map_err(failed)?;
                return Ok(lock);
            }
        }
        Err(LockError::Replaced {
            path: path.to_path_buf(),
        })
    }

    /// K1: is the locked file still the one at its name?
    pub fn in_place(&self) -> bool {
        match (self.file.metadata(), fs::symlink_metadata(&self.path)) {
            (Ok(ours), Ok(named)) => (ours.dev(), ours.ino()) == (named.dev(), named.ino()),
            _ => false,
        }
    }

    /// The lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn write_holder(&self, holder: &Holder) -> io::Result<()> {
        let mut line = serde_json::to_vec(holder).map_err(io::Error::other)?;
        line.push(b'\n');
        // The new text first and the old one's rest cut off after it: a reader in between
        // finds a whole first line.
        self.file.write_all_at(&line, 0)?;
        self.file.set_len(line.len() as u64)
    }
}

fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags.bits())
        .open(path)
}

fn read_holder(file: &File) -> Option<Holder> {
    let mut bytes = vec![0; 16 << 10];
    let len = file.read_at(&mut bytes, 0).ok()?;
    let line = bytes[..len].split(|&b| b == b'\n').next()?;
    serde_json::from_slice(line).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(pid: u32) -> Holder {
        Holder {
            pid,
            state_dir: "/s".into(),
            run_dir: "/r".into(),
        }
    }

    #[test]
    fn the_loser_names_the_holder_and_the_lock_is_free_once_dropped() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join(STATE_LOCK);
        fs::write(&path, "x\n".repeat(5000)).unwrap();
        let first = Lock::acquire(&path, &holder(7)).unwrap();
        let error = Lock::acquire(&path, &holder(8)).unwrap_err();
        let text = error.to_string();
        for fact in ["pid 7", "\"/s\"", "\"/r\"", "sherwood.lock"] {
            assert!(text.contains(fact), "{text}");
        }
        drop(first);
        let again = Lock::acquire(&path, &holder(8)).unwrap();
        assert_eq!(read_holder(&again.file), Some(holder(8)));
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
    }

    #[test]
    fn a_holder_that_has_not_written_yet_is_an_unnamed_one() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join(STATE_LOCK);
        let held = open(&path).unwrap();
        held.try_lock().unwrap();
        for content in ["", "{\"pid\": 7, \"state", "\u{0}\u{0}"] {
            fs::write(&path, content).unwrap();
            match Lock::acquire(&path, &holder(8)) {
                Err(LockError::Held { holder: None, .. }) => {}
                other => panic!("{content:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_lock_whose_file_was_replaced_is_no_longer_in_place() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join(STATE_LOCK);
        let lock = Lock::acquire(&path, &holder(7)).unwrap();
        assert!(lock.in_place());
        fs::remove_file(&path).unwrap();
        assert!(!lock.in_place());
        fs::write(&path, "").unwrap();
        assert!(!lock.in_place());
    }

    #[test]
    fn a_lock_file_that_is_a_link_is_not_followed() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join(STATE_LOCK);
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(matches!(
            Lock::acquire(&path, &holder(7)),
            Err(LockError::Open { .. })
        ));
        assert!(!tmp.path().join("elsewhere").exists());
    }
}
