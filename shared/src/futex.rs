//! Waiting for a word to change, across processes, on a read-only mapping (F10, R5).

use std::io;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use nix::libc;

/// Sleeps while `word` holds `expected`, at most for `timeout`.
///
/// Returns on a wake, a change, a signal or the time's end alike: the caller looks
/// again. `FUTEX_WAIT` without the private flag, since writer and readers map the
/// page in different processes; it works on read-only mappings.
pub fn wait(word: &AtomicU32, expected: u32, timeout: Duration) -> io::Result<()> {
    let timeout = libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(timeout.subsec_nanos()),
    };
    // SAFETY:
    // - `word` is a live, aligned 32-bit word for the whole call (a reference);
    // - `timeout` is a live timespec that the kernel only reads;
    // - FUTEX_WAIT only reads `word`, so a read-only page suffices.
    let code = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            expected,
            &raw const timeout,
        )
    };
    if code == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EINTR | libc::ETIMEDOUT) => Ok(()),
        _ => Err(error),
    }
}

/// Wakes everybody who waits on `word`, in every process.
pub fn wake_all(word: &AtomicU32) {
    // SAFETY: FUTEX_WAKE uses the address as a name only; the reference keeps it mapped.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX);
    }
}
