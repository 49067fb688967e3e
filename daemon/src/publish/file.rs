//! W8: making a snapshot file aside, giving it its name, and seeing off the one before.
//!
//! The new file takes the name by an exchange, so that the old one keeps a name beside
//! it until it is marked. A daemon that dies in between leaves that name behind, and
//! the next one marks and removes it ([`sweep`]): readers that never wait would
//! otherwise stay with the old file for ever.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::libc;
use sherwood_shared::file::FileId;
use sherwood_shared::layout::{CONSTANTS_BYTES, Constants, WITNESS_AT};
use sherwood_shared::lock;
use sherwood_shared::mapping::HeaderMut;
use sherwood_shared::pause;

use super::error::PublishError;
use super::space::allocate;

/// A new snapshot file that has no readers yet.
#[derive(Debug)]
pub(super) struct Aside {
    pub(super) file: File,
    pub(super) header: Arc<HeaderMut>,
    path: PathBuf,
    named: bool,
}

impl Aside {
    /// Makes the file beside `path`: exclusive, for us alone, its witness locked, its
    /// constants written, its head empty.
    pub(super) fn make(path: &Path, constants: &Constants) -> Result<Self, PublishError> {
        let aside = aside_path(path, &constants.file_id);
        let io = |action| {
            let aside = aside.clone();
            move |source| PublishError::io(action, &aside, constants.data_start, source)
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW)
            .open(&aside)
            .map_err(io("make"))?;
        let made = Self::prepare(&file, constants);
        let header = made.map_err(io("prepare")).inspect_err(|_| {
            let _ = fs::remove_file(&aside); // nobody knows it yet
        })?;
        Ok(Self {
            file,
            header: Arc::new(header),
            path: aside,
            named: false,
        })
    }

    fn prepare(file: &File, constants: &Constants) -> io::Result<HeaderMut> {
        pause::at("start: lock the witness");
        lock::try_exclusive(file, WITNESS_AT, 1)?; // F11: from the first moment on
        allocate(file, 0, constants.data_start)?; // F8: the gap is no hole either
        pause::at("start: write the constants");
        file.write_all_at(&constants.to_bytes()[..CONSTANTS_BYTES + 4], 0)?;
        HeaderMut::map(file)
    }

    /// Gives the published file its mode. The last step but its name.
    pub(super) fn allow(&self, mode: u32) -> Result<FileId, PublishError> {
        let io = |action| move |source| PublishError::io(action, &self.path, 0, source);
        self.file
            .set_permissions(Permissions::from_mode(mode))
            .map_err(io("set the mode of"))?;
        let metadata = self.file.metadata().map_err(io("stat"))?;
        Ok(FileId::from(&metadata))
    }

    /// Where it is until it is named.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its name, marks the file that had the name and wakes who waits there.
    ///
    /// Nothing that may fail comes after the rename: on an error the file before stands
    /// at `path`, and nobody has seen this one.
    pub(super) fn name(&mut self, path: &Path, id: FileId) -> Result<(), PublishError> {
        pause::at("start: rename");
        take_name(&self.path, path)
            .map_err(|source| PublishError::io("rename a new file to", path, 0, source))?;
        self.named = true;
        pause::at("start: sweep");
        sweep(path, id);
        Ok(())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.named {
            let _ = fs::remove_file(&self.path); // never published, never named
        }
    }
}

/// `.<name>.<first bytes of the file id>`, in the same directory.
fn aside_path(path: &Path, file_id: &[u8; 16]) -> PathBuf {
    let name = aside_prefix(path);
    let id: String = file_id
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    path.with_file_name(format!("{name}{id}"))
}

fn aside_prefix(path: &Path) -> String {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    format!(".{}.", name.unwrap_or_default())
}

/// Is it a name that [`aside_path`] gives, or the second name that [`take_name`] may give to
/// the old file? Another cluster's id may begin like ours: nothing else is ours to remove.
fn is_aside_name(name: &str, prefix: &str) -> bool {
    let id = name
        .strip_prefix(prefix)
        .map(|id| id.strip_suffix(".old").unwrap_or(id));
    id.is_some_and(|id| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Renames `aside` to `path`; what stood at `path` keeps the name `aside`.
fn take_name(aside: &Path, path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return fs::rename(aside, path);
    }
    let exchanged = renameat2(
        AT_FDCWD,
        aside,
        AT_FDCWD,
        path,
        RenameFlags::RENAME_EXCHANGE,
    );
    match exchanged {
        Ok(()) => Ok(()),
        // Not every file system exchanges: a second link keeps the old file findable.
        Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOSYS) => {
            let mut kept = aside.as_os_str().to_owned();
            kept.push(".old");
            let _ = fs::hard_link(path, kept); // without it only waiting readers converge
            fs::rename(aside, path)
        }
        Err(nix::errno::Errno::ENOENT) => fs::rename(aside, path),
        Err(errno) => Err(errno.into()),
    }
}

/// Marks every file that stood at `path` before `current` and removes its name.
///
/// A courtesy (F9): a file that cannot be marked still lets its waiting readers go, by R5.
pub(super) fn sweep(path: &Path, current: FileId) {
    let Some(directory) = path.parent() else {
        return;
    };
    let prefix = aside_prefix(path);
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        if !is_aside_name(&entry.file_name().to_string_lossy(), &prefix) {
            continue;
        }
        let left_over = entry.path();
        if let Err(source) = mark(&left_over, current) {
            tracing::debug!(path = %left_over.display(), error = %source, "cannot mark an old snapshot");
        }
        pause::at("start: remove the old name");
        if let Err(source) = fs::remove_file(&left_over) {
            tracing::warn!(path = %left_over.display(), error = %source, "cannot remove an old snapshot");
        }
    }
}

/// Marks one old file, if it is one of ours.
fn mark(path: &Path, current: FileId) -> io::Result<()> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || FileId::from(&metadata) == current {
        return Ok(());
    }
    let mut bytes = [0; CONSTANTS_BYTES + 4];
    file.read_exact_at(&mut bytes, 0)?;
    if Constants::from_bytes(&bytes).is_err() {
        return Ok(());
    }
    let header = HeaderMut::map(&file)?;
    pause::at("start: mark");
    header.mark_superseded();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_aside_names_are_ours_to_remove() {
        let path = Path::new("/run/sherwood/t.arrow");
        let ours = aside_path(path, &[7; 16]);
        let ours = ours
            .file_name()
            .and_then(|name| name.to_str())
            .expect("is text");
        let prefix = aside_prefix(path);
        assert!(is_aside_name(ours, &prefix), "{ours}");
        assert!(is_aside_name(&format!("{ours}.old"), &prefix), "{ours}");
        let theirs = aside_path(Path::new("/run/sherwood/t.arrow.b.arrow"), &[7; 16]);
        let theirs = theirs
            .file_name()
            .and_then(|name| name.to_str())
            .expect("is text");
        for name in [
            theirs,
            "t.arrow",
            ".t.arrow.",
            ".t.arrow.0123",
            ".t.arrow.0123456789abcdeg",
        ] {
            assert!(!is_aside_name(name, &prefix), "{name}");
        }
    }
}
