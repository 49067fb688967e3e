//! What the log asks of a file system, so that tests can put one in its place that fails.
//!
//! Only what changes something goes through it; reading is reading. [`RealDisk`] is the kernel's.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{FallocateFlags, OFlag};
use nix::sys::statvfs::statvfs;

/// A file that is written.
pub trait DiskFile: Send + Sync + Debug {
    /// Writes some of the bytes at `offset`; gives how many, as `pwrite(2)`.
    ///
    /// # Errors
    ///
    /// The kernel's.
    fn pwrite(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes the content durable, and of the metadata what is needed to read it.
    ///
    /// # Errors
    ///
    /// The kernel's. What was written before is then in an unknown state, for ever: no second call can say more.
    fn fdatasync(&self) -> io::Result<()>;

    /// Reserves space up to `len` bytes, and makes the file that long.
    ///
    /// # Errors
    ///
    /// The kernel's, `ENOSPC` for one. A file system that cannot reserve is no error.
    fn allocate(&self, len: u64) -> io::Result<()>;
}

/// What changes a directory.
pub trait Disk: Send + Sync + Debug {
    /// Makes a file, empty, for writing. One of that name is an error.
    ///
    /// # Errors
    ///
    /// The kernel's.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file for writing. Links are not followed.
    ///
    /// # Errors
    ///
    /// The kernel's.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Renames within a directory, over whatever has the new name.
    ///
    /// # Errors
    ///
    /// The kernel's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Deletes a file.
    ///
    /// # Errors
    ///
    /// The kernel's.
    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// Makes a directory's names durable.
    ///
    /// # Errors
    ///
    /// The kernel's.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// How many bytes more its file system takes.
    ///
    /// # Errors
    ///
    /// The kernel's.
    fn room(&self, _dir: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

/// The kernel's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

#[derive(Debug)]
struct RealFile(File);

fn flags() -> i32 {
    (OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).bits()
}

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o640);
        let file = options.custom_flags(flags()).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = File::options()
            .write(true)
            .custom_flags(flags())
            .open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn room(&self, dir: &Path) -> io::Result<u64> {
        let found = statvfs(dir)?;
        Ok(found
            .blocks_available()
            .saturating_mul(found.fragment_size()))
    }
}

impl DiskFile for RealFile {
    fn pwrite(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn fdatasync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let len = i64::try_from(len).map_err(io::Error::other)?;
        match nix::fcntl::fallocate(self.0.as_fd(), FallocateFlags::empty(), 0, len) {
            // Zeros are written over it all the same.
            Ok(()) | Err(nix::errno::Errno::EOPNOTSUPP) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Writes all of it, or says how many bytes were written before it failed.
pub(super) fn write_all(
    file: &dyn DiskFile,
    mut bytes: &[u8],
    mut offset: u64,
) -> Result<(), (u64, io::Error)> {
    let mut written = 0;
    while !bytes.is_empty() {
        match file.pwrite(bytes, offset) {
            Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
            Ok(count) => {
                bytes = bytes.get(count..).unwrap_or(&[]);
                offset += count as u64;
                written += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((written, error)),
        }
    }
    Ok(())
}

/// Writes zeros over `[from, to)`, in steps.
pub(super) fn write_zeros(file: &dyn DiskFile, mut from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    while from < to {
        let step = usize::try_from(to - from)
            .unwrap_or(usize::MAX)
            .min(zeros.len());
        write_all(file, zeros.get(..step).unwrap_or(&[]), from).map_err(|(_, error)| error)?;
        from += step as u64;
    }
    Ok(())
}

/// Is it one of the errors of a full disk?
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
