//! The socket's name in the run directory.
//!
//! The caller holds the lock of the cluster's name there (V4), so a socket that stands at the name is one that a
//! daemon left behind.
//!
//! - **FS1** The socket is bound at another name, gets its mode, and is renamed into place: nobody meets a socket of
//!   the wrong mode, and no client finds none while one daemon follows another.
//! - **FS2** Only a socket is replaced. Anything else at the name is an error, a link too: it is not followed.
//! - **FS3** At the end the name goes only if it is still ours.
//!
//! Not promised: FS2 and FS3 against somebody who changes the name between the look and the act. Only the daemon's
//! user and root can (D1, D2).

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

/// Why there is no socket. What stood at the name stands there still.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// FS2.
    #[error("{path:?} is not a socket, and only a socket is replaced; move it away")]
    InTheWay {
        /// The name.
        path: PathBuf,
    },
    /// The kernel's word.
    #[error("cannot make the socket {path:?}")]
    Make {
        /// The name.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// A socket's name, and which socket it should lead to.
#[derive(Debug)]
pub(super) struct Name {
    path: PathBuf,
    inode: (u64, u64),
}

/// Binds `path` (FS1, FS2).
pub(super) fn bind(path: &Path, mode: u32) -> Result<(UnixListener, Name), SocketError> {
    let failed = |source| SocketError::Make {
        path: path.to_path_buf(),
        source,
    };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            let path = path.to_path_buf();
            return Err(SocketError::InTheWay { path });
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let dir = path
        .parent()
        .ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    let dir = File::options()
        .read(true)
        .custom_flags((OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC).bits())
        .open(dir)
        .map_err(failed)?;
    // By way of the descriptor: a socket's address holds 107 bytes, and run directories may be deep.
    let aside = format!(
        "/proc/self/fd/{}/.sherwood-{}.sock",
        dir.as_raw_fd(),
        std::process::id()
    );
    let aside = PathBuf::from(aside);
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&aside).map_err(failed)?;
    let placed = place(&listener, &aside, path, mode);
    match placed {
        Ok(name) => Ok((listener, name)),
        Err(error) => {
            let _the_first_error_counts = fs::remove_file(&aside);
            Err(failed(error))
        }
    }
}

fn place(listener: &UnixListener, aside: &Path, path: &Path, mode: u32) -> io::Result<Name> {
    listener.set_nonblocking(true)?;
    fs::set_permissions(aside, Permissions::from_mode(mode))?;
    let inode = identity(aside)?;
    fs::rename(aside, path)?;
    Ok(Name {
        path: path.to_path_buf(),
        inode,
    })
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

impl Name {
    /// Does the name still lead to our socket?
    pub(super) fn in_place(&self) -> bool {
        identity(&self.path).is_ok_and(|found| found == self.inode)
    }

    /// Lets others connect than until now.
    pub(super) fn set_mode(&self, mode: u32) -> io::Result<()> {
        if self.in_place() {
            fs::set_permissions(&self.path, Permissions::from_mode(mode))?;
        }
        Ok(())
    }

    /// FS3.
    pub(super) fn remove(&self) {
        if self.in_place() {
            let _gone_either_way = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_only_our_own_is_removed() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("c.sock");
        let (first, old) = bind(&path, 0o600).unwrap();
        drop(first);
        assert!(UnixStream::connect(&path).is_err());
        let (_listener, new) = bind(&path, 0o666).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o666);
        assert!(!old.in_place() && new.in_place());
        old.remove();
        assert!(path.exists());
        new.remove();
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0);
    }

    #[test]
    fn nothing_but_a_socket_is_replaced() {
        let tmp = tempfile::tempdir().unwrap();
        let target = tmp.path().join("precious");
        fs::write(&target, "x").unwrap();
        let link = tmp.path().join("link.sock");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let dir = tmp.path().join("dir.sock");
        fs::create_dir(&dir).unwrap();
        for path in [&target, &link, &dir] {
            let error = bind(path, 0o600).unwrap_err();
            assert!(
                matches!(error, SocketError::InTheWay { .. }),
                "{path:?}: {error}"
            );
        }
        assert_eq!(fs::read_to_string(&target).unwrap(), "x");
    }

    #[test]
    fn a_deep_run_directory_is_no_obstacle() {
        let tmp = tempfile::tempdir().unwrap();
        let deep = tmp.path().join("d".repeat(100)).join("e".repeat(100));
        fs::create_dir_all(&deep).unwrap();
        let path = deep.join("c.sock");
        let (_listener, name) = bind(&path, 0o600).unwrap();
        assert!(name.in_place());
    }
}
