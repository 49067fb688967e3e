//! Processes for one scene each: one that holds on to a snapshot, one that runs out of
//! descriptors and of address space.

use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sherwood_client::{Handle, OpenError, ReadError, Reader};

use super::args::{Args, is_told_to_end};
use super::steps;
use super::tally::say;
use crate::rows::Checker;

/// Holds the snapshot that is newest at the start, says so, and checks it on until it is
/// told to end.
///
/// # Errors
///
/// The snapshot changes.
pub fn hold(args: &Args) -> Result<(), String> {
    steps::hook(args, args.get("seed")?)?;
    let reader = Reader::open(args.path()?).map_err(|error| format!("{error:?}"))?;
    let snapshot = reader.snapshot().map_err(|error| format!("{error:?}"))?;
    let mut checker = Checker::default();
    checker.check(&snapshot)?;
    say(&format!("holds {}", snapshot.generation()));
    while !is_told_to_end() {
        checker.check(&snapshot)?;
        std::thread::sleep(Duration::from_micros(200));
    }
    checker.check(&snapshot)?;
    say(&format!("held {}", snapshot.generation()));
    Ok(())
}

/// Has a handle, gives up the resource `out_of`, says so, and expects a clear error from
/// each new generation until it has the resource again. The parent publishes meanwhile.
///
/// # Errors
///
/// Another error than that, or none.
pub fn resources(args: &Args) -> Result<(), String> {
    let path = args.path()?;
    let reader = Reader::open(&path).map_err(|error| format!("{error:?}"))?;
    let mut handle = reader.handle().map_err(|error| format!("{error:?}"))?;
    let mut checker = Checker::default();
    checker.check(handle.latest())?;
    let before = handle.latest().generation();
    let resource = match args.text("out_of") {
        Some("descriptors") => Resource::RLIMIT_NOFILE,
        Some("address_space") => Resource::RLIMIT_AS,
        other => return Err(format!("out of {other:?}?")),
    };
    let errno = |errno: nix::errno::Errno| errno.to_string();
    let (soft, hard) = getrlimit(resource).map_err(errno)?;
    let room = reserve_heap();
    let least = match resource {
        Resource::RLIMIT_NOFILE => 0,
        // Less than a region fits, and what the heap asks for at most does.
        _ => mapped_bytes()? + (256 << 10),
    };
    setrlimit(resource, least, hard).map_err(errno)?;
    drop(room);
    say("lacks");
    let without = expect_errors(&mut handle, before);
    let opened = Reader::open(&path).map(|_| ());
    setrlimit(resource, soft, hard).map_err(errno)?;
    without?;
    checker.check(handle.latest())?;
    match opened {
        Err(ReadError::Open(OpenError::Resources { .. })) => {}
        other => return Err(format!("opened without {resource:?}: {other:?}")),
    }
    let after = handle.refresh().map_err(|error| format!("{error:?}"))?;
    checker.check(after)?;
    say(&format!("has {}", after.generation()));
    Ok(())
}

/// Looks until a new generation cannot be read for want of the resource; the old one stays.
fn expect_errors(handle: &mut Handle, before: u64) -> Result<(), String> {
    let mut checker = Checker::default();
    for seen in 0..100 {
        while handle.last_error().is_none() {
            if handle.latest().generation() != before {
                return Err(format!("a new generation, {seen} errors before"));
            }
            if is_told_to_end() {
                return Err("nothing was published".to_owned());
            }
        }
        match handle.refresh() {
            Err(ReadError::Open(OpenError::Resources { .. })) => {}
            other => return Err(format!("not for want of it: {:?}", other.map(|_| "ok"))),
        }
        let kept = handle.latest();
        if kept.generation() != before {
            return Err(format!("kept {}, not {before}", kept.generation()));
        }
        checker.check(kept)?;
    }
    Ok(())
}

/// Blocks that the allocator has got and gives back only to us, and one above them that
/// keeps it from shrinking.
fn reserve_heap() -> (Vec<Vec<u8>>, Box<u8>) {
    ((0..64).map(|_| vec![1; 32 << 10]).collect(), Box::new(1))
}

/// The size of this process's address space.
fn mapped_bytes() -> Result<u64, String> {
    let statm = std::fs::read_to_string("/proc/self/statm").map_err(|error| error.to_string())?;
    let pages = statm.split(' ').next().and_then(|pages| pages.parse().ok());
    let pages: u64 = pages.ok_or("no number in /proc/self/statm")?;
    Ok(pages * 4096)
}
