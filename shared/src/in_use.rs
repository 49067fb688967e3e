//! Is anybody writing a file? Asked of the kernel, by a read lease.
//!
//! `F_SETLEASE` with `F_RDLCK` succeeds only while nobody has the file open for writing. The lease is given
//! back at once: it is the question alone. Only the file's owner, or root, may ask; and not every file system answers.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::libc;

/// Linux's `asm-generic/fcntl.h`; the libc crate does not have it everywhere.
const F_SETSIG: libc::c_int = 10;

/// Does anybody have `file` open for writing? `None`: the kernel does not say, for want of right or because the
/// file system has no leases.
///
/// `file` must be open for reading only. A program that opens the file for writing within the microseconds of the question waits
/// for its end, as if for a slow disk.
pub fn is_open_for_writing(file: &File) -> io::Result<Option<bool>> {
    let set = |command: libc::c_int, value: libc::c_int| {
        // SAFETY:
        // - the descriptor is open for the whole call (a reference to its `File`);
        // - all three commands take an int and touch no memory of ours.
        let code = unsafe { libc::fcntl(file.as_raw_fd(), command, value) };
        if code == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    };
    // If somebody opens the file meanwhile we get a signal: one that does nothing by default, where SIGIO would kill us.
    set(F_SETSIG, libc::SIGURG)?;
    match set(libc::F_SETLEASE, libc::F_RDLCK) {
        Ok(()) => set(libc::F_SETLEASE, libc::F_UNLCK).map(|()| Some(false)),
        Err(error) => match error.raw_os_error() {
            Some(libc::EAGAIN) => Ok(Some(true)),
            Some(libc::EACCES | libc::EPERM | libc::EINVAL | libc::EOPNOTSUPP) => Ok(None),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_shows_as_long_as_it_has_the_file_open_and_a_reader_does_not() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("f");
        std::fs::write(&path, "x").unwrap();
        let ask = || is_open_for_writing(&File::open(&path).unwrap()).unwrap();
        let Some(open) = ask() else {
            return eprintln!("NOT RUN: in_use: this file system has no leases");
        };
        assert!(!open);
        let reader = File::open(&path).unwrap();
        assert_eq!(ask(), Some(false));
        let writer = File::options().append(true).open(&path).unwrap();
        assert_eq!(ask(), Some(true));
        drop(writer);
        assert_eq!(ask(), Some(false));
        drop(reader);
    }
}
