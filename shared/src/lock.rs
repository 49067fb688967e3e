//! Open-file-description byte-range locks: leases, probes, the witness, the daemon's lock.
//!
//! `F_OFD_SETLK` alone is used, never the classic POSIX locks (any close of the file
//! in the process drops those) and never `F_OFD_GETLK` (W6: it need not see a lock
//! that was just taken). A lock belongs to the open file description: it lives until
//! the last descriptor *and the last mapping* made from it are gone (F6).

use std::io;
use std::os::fd::AsFd;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// Tries to share `[start, start + len)` with other readers. Never waits.
///
/// `WouldBlock`: somebody holds it exclusively at this moment.
pub fn try_shared(file: impl AsFd, start: u64, len: u64) -> io::Result<()> {
    set(file, libc::F_RDLCK, start, len)
}

/// Tries to own `[start, start + len)` alone. Never waits; needs a writable descriptor.
///
/// `WouldBlock`: somebody else holds some of it.
pub fn try_exclusive(file: impl AsFd, start: u64, len: u64) -> io::Result<()> {
    set(file, libc::F_WRLCK, start, len)
}

/// Gives `[start, start + len)` back.
///
/// Only the writer and the daemon's own lock use this: a reader never unlocks (R3),
/// since that would also drop the lease of a forked child.
pub fn unlock(file: impl AsFd, start: u64, len: u64) -> io::Result<()> {
    set(file, libc::F_UNLCK, start, len)
}

/// Is the range locked exclusively by another open file description? (R1, the witness.)
///
/// Asks by taking a shared lock and giving it back, on a description that holds no
/// other lock there.
pub fn is_held_exclusively(file: impl AsFd, start: u64, len: u64) -> io::Result<bool> {
    match try_shared(file.as_fd(), start, len) {
        Ok(()) => unlock(file, start, len).map(|()| false),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}

fn set(file: impl AsFd, kind: libc::c_int, start: u64, len: u64) -> io::Result<()> {
    let too_far = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let lock = libc::flock {
        l_type: libc::c_short::try_from(kind).map_err(too_far)?,
        l_whence: libc::c_short::try_from(libc::SEEK_SET).map_err(too_far)?,
        l_start: libc::off_t::try_from(start).map_err(too_far)?,
        l_len: libc::off_t::try_from(len).map_err(too_far)?,
        l_pid: 0, // must be zero for the OFD commands
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&lock)) {
        Ok(_) => Ok(()),
        // Linux says EAGAIN for "somebody else has it". EACCES is a security module that
        // forbids locks: no reason to try again (R2).
        Err(nix::errno::Errno::EAGAIN) => Err(io::ErrorKind::WouldBlock.into()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_lease_outlives_its_descriptor_and_dies_with_its_mapping() {
        let path = tempfile::NamedTempFile::new().expect("a temporary file");
        path.as_file().set_len(8192).expect("two pages");
        let reader = File::open(path.path()).expect("opens");
        try_shared(&reader, 4096, 4096).expect("nobody else holds it");
        let region = crate::mapping::Region::map(&reader, 4096, 4096).expect("maps");
        drop(reader);
        let probe = try_exclusive(path.as_file(), 4096, 4096);
        assert_eq!(probe.expect_err("leased").kind(), io::ErrorKind::WouldBlock);
        try_exclusive(path.as_file(), 0, 4096).expect("the page before is free");
        drop(region);
        try_exclusive(path.as_file(), 4096, 4096).expect("free once unmapped");
    }

    #[test]
    fn asking_for_a_witness_leaves_no_lock_behind() {
        let path = tempfile::NamedTempFile::new().expect("a temporary file");
        let reader = File::open(path.path()).expect("opens");
        assert!(!is_held_exclusively(&reader, 1 << 62, 1).expect("asks"));
        try_exclusive(path.as_file(), 1 << 62, 1).expect("the question left nothing");
        assert!(is_held_exclusively(&reader, 1 << 62, 1).expect("asks"));
    }
}
