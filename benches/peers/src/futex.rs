//! The floor of a wake: a store and `FUTEX_WAKE` here, and another process,
//! asleep in `FUTEX_WAIT` on the same mapped word, running again.
//!
//! The two share a page: word 0 is the futex, word 1 the time at which the
//! child ran, word 2 the last round it has finished. The clock is
//! `CLOCK_MONOTONIC`, one for all processes.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memmap2::MmapMut;

use crate::cores::Core;
use crate::measure::{Figure, monotonic_nanos};
use crate::{Failure, Setting};

/// Wakes that count.
const ROUNDS: u32 = 1_000;
/// The last word the child is sent.
const STOP: u32 = u32::MAX;
/// The three words of the shared page.
struct Page(MmapMut);

impl Page {
    fn open(path: &Path) -> Result<Self, Failure> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        file.set_len(4096)?;
        // SAFETY: only this program's two processes know the file; all access is atomic.
        Ok(Self(unsafe { MmapMut::map_mut(&file)? }))
    }

    fn futex(&self) -> &AtomicU32 {
        // SAFETY: page-aligned, in bounds, mapped as long as `self`, only used atomically.
        unsafe { AtomicU32::from_ptr(self.0.as_ptr().cast::<u32>().cast_mut()) }
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        let place = self.0[index * 64..index * 64 + 8].as_ptr();
        // SAFETY: 64-byte aligned, in bounds as just sliced, mapped as long as `self`, only used atomically.
        unsafe { AtomicU64::from_ptr(place.cast::<u64>().cast_mut()) }
    }
}

/// Times the wakes of a process that has been asleep for `gap`, while this one spun.
pub fn wake(setting: &Setting<'_>, gap: Duration) -> Result<Figure, Failure> {
    let path = setting.dir.join(format!("futex-{}", gap.as_micros()));
    let page = Page::open(&path)?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("futex-child")
        .arg(&path)
        .spawn()?;
    let _core = Core::first();
    let mut samples = Vec::new();
    for round in 1..=ROUNDS {
        let spin = Instant::now();
        while spin.elapsed() < gap {
            std::hint::spin_loop();
        }
        let start = monotonic_nanos();
        page.futex().store(round, Ordering::Release);
        futex(page.futex(), libc::FUTEX_WAKE, 1);
        while page.word(2).load(Ordering::Acquire) != u64::from(round) {
            if let Some(status) = child.try_wait()? {
                return Err(format!("the waiting process ended: {status}").into());
            }
            std::thread::sleep(Duration::from_micros(20));
        }
        let took = page.word(1).load(Ordering::Relaxed).saturating_sub(start);
        samples.push(Duration::from_nanos(took).as_secs_f64() * 1e9);
    }
    page.futex().store(STOP, Ordering::Release);
    futex(page.futex(), libc::FUTEX_WAKE, 1);
    child.wait()?;
    Figure::of(samples, 1).ok_or_else(|| "no wake was seen".into())
}

/// The waiting half.
pub fn child(path: &Path) -> Result<(), Failure> {
    let _core = Core::last();
    let page = Page::open(path)?;
    let mut seen = 0;
    loop {
        futex(page.futex(), libc::FUTEX_WAIT, seen);
        let woken = monotonic_nanos();
        let round = page.futex().load(Ordering::Acquire);
        if round == STOP {
            return Ok(());
        }
        if round != seen {
            seen = round;
            page.word(1).store(woken, Ordering::Relaxed);
            page.word(2).store(u64::from(round), Ordering::Release);
        }
    }
}

/// `futex(word, op, value)` without a timeout; a spurious return is the caller's to see.
fn futex(word: &AtomicU32, op: libc::c_int, value: u32) {
    // SAFETY: `word` is a live, aligned u32, and the timeout may be null for both operations.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            op,
            value,
            std::ptr::null::<libc::timespec>(),
        )
    };
}
