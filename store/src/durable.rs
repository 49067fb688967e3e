//! Replacing a small file so that a crash leaves the old content or the new, never a mixture.
//!
//! **Durable** when [`replace`] returns `Ok`: content and name were synced, so that the new
//! content survives a power cut. **Atomic** for readers at any time: they open the old file or
//! the new one. Callers hold the directory's lock (W1), so one temporary name per file is
//! enough, and what a crash leaves behind is overwritten by the next call.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

/// Begins every name that we write into a state directory, but for the metadata file.
pub const OUR_PREFIX: &str = "sherwood.";

/// Replaces `dir/name` by a file of these bytes. An existing file's mode and, where this
/// process may set them, its owner and group are kept: others may still want to write it.
pub fn replace(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let path = dir.join(name);
    let aside = aside(dir, name);
    let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .custom_flags(flags.bits())
        .open(&aside)?;
    file.write_all(bytes)?;
    if let Ok(old) = fs::symlink_metadata(&path)
        && old.is_file()
    {
        // Only root may give a file away; for others the mode is all that can be kept.
        let _not_ours_to_give = fchown(&file, Some(old.uid()), Some(old.gid()));
        file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o777))?;
    }
    file.sync_all()?;
    fs::rename(&aside, &path)?;
    File::open(dir)?.sync_all()
}

fn aside(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{OUR_PREFIX}{name}.tmp"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_keeps_its_mode_and_leaves_nothing_aside() {
        let tmp = tempfile::tempdir().unwrap();
        replace(tmp.path(), "f", b"one").unwrap();
        fs::set_permissions(tmp.path().join("f"), fs::Permissions::from_mode(0o664)).unwrap();
        fs::write(aside(tmp.path(), "f"), "left by a crash, and longer").unwrap();
        replace(tmp.path(), "f", b"two").unwrap();
        assert_eq!(fs::read(tmp.path().join("f")).unwrap(), b"two");
        let mode = fs::metadata(tmp.path().join("f")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o664);
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_replacement_leaves_the_old_content() {
        let tmp = tempfile::tempdir().unwrap();
        replace(tmp.path(), "f", b"one").unwrap();
        // A link in the way is not followed.
        fs::write(tmp.path().join("elsewhere"), "theirs").unwrap();
        std::os::unix::fs::symlink("elsewhere", aside(tmp.path(), "f")).unwrap();
        assert!(replace(tmp.path(), "f", b"two").is_err());
        assert_eq!(fs::read(tmp.path().join("f")).unwrap(), b"one");
        assert_eq!(fs::read(tmp.path().join("elsewhere")).unwrap(), b"theirs");
    }
}
