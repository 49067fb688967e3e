//! Reads a snapshot as fast as it can, between marks that strace sees. See `tests/fast_path.rs`.
#![forbid(unsafe_code)]

use std::error::Error;

use sherwood_client::{Handle, Reader};

const LOOKS: u64 = 1_000_000;
const REFRESHES: u64 = 1_000;
/// Seen before the marks, so that the allocator has what it needs.
const WARM_UP: u64 = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("no path")?;
    let mut handle = Reader::open(path)?.handle()?;
    println!("attached");
    let generation = handle.latest().generation();
    mark("looks-begin");
    let mut sum = 0_u64;
    for _ in 0..LOOKS {
        sum = sum.wrapping_add(handle.latest().generation());
    }
    mark("looks-end");
    if sum != generation.wrapping_mul(LOOKS) {
        return Err("it changed while nobody published".into());
    }
    println!("looked");
    see(&mut handle, WARM_UP)?;
    mark("refreshes-begin");
    see(&mut handle, REFRESHES)?;
    mark("refreshes-end");
    print!("{}", std::fs::read_to_string("/proc/self/maps")?);
    Ok(())
}

/// A syscall that nothing else makes.
fn mark(name: &str) {
    let _nowhere = std::fs::metadata(format!("/mark/{name}"));
}

/// Refreshes so many times, and reads the row that changed each time.
fn see(handle: &mut Handle, refreshes: u64) -> Result<(), Box<dyn Error>> {
    let mut seen = handle.latest().generation();
    let mut turn = None;
    let mut left = refreshes;
    while left > 0 {
        let snapshot = handle.latest();
        if snapshot.generation() == seen {
            std::hint::spin_loop();
            continue;
        }
        seen = snapshot.generation();
        let task = snapshot.task("task-0000032")?.ok_or("the row is gone")?;
        let now = task.updated_at();
        if now <= turn {
            return Err(format!("{now:?} after {turn:?}").into());
        }
        turn = now;
        left -= 1;
    }
    Ok(())
}
