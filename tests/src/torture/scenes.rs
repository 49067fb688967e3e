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

/// Has a handle, gives up the resource `out_of`, says so, and expects clear errors for new
/// generations and the old snapshot whole until it has the resource again. The parent
/// publishes meanwhile.
///
/// # Errors
///
/// Another error than that, or none.
pub fn resources(args: &Args) -> Result<(), String> {
    let path = args.path()?;
    let reader = Reader::open(&path).map_err(|error| format!("{error:?}"))?;
    let mut handle = reader.handle().map_err(|error| format!("{error:?}"))?;
    let resource = match args.text("out_of") {
        Some("descriptors") => Resource::RLIMIT_NOFILE,
        Some("address_space") => Resource::RLIMIT_AS,
        other => return Err(format!("out of {other:?}?")),
    };
    let errno = |errno: nix::errno::Errno| errno.to_string();
    let (soft, hard) = getrlimit(resource).map_err(errno)?;
    // Heap that the allocator keeps when we give it back, since the last block stays.
    let mut blocks: Vec<_> = (0..64).map(|_| vec![1_u8; 32 << 10]).collect();
    let _top = blocks.pop();
    let least = match resource {
        Resource::RLIMIT_NOFILE => 1, // all that are open stay so, and no other is to be had
        _ => mapped_bytes()? + LITTLE,
    };
    setrlimit(resource, least, hard).map_err(errno)?;
    drop(blocks);
    say("lacks");
    let without = expect_errors(&mut handle);
    let opened = Reader::open(&path).map(|_| ());
    setrlimit(resource, soft, hard).map_err(errno)?;
    let kept = without?;
    match opened {
        Err(ReadError::Open(OpenError::Resources { .. })) => {}
        other => return Err(format!("opened without {resource:?}: {other:?}")),
    }
    let after = handle.refresh().map_err(|error| format!("{error:?}"))?;
    Checker::default().check(after)?;
    say(&format!("has {}", after.generation() - kept));
    Ok(())
}

/// Address space that is left: less than a region, more than a refresh allocates.
const LITTLE: u64 = 256 << 10;
/// Refreshes that have to fail.
const ERRORS: u32 = 100;

/// Looks until many new generations could not be read for want of the resource. Some may:
/// those that need no region but those that are leased. Returns the last of them.
fn expect_errors(handle: &mut Handle) -> Result<u64, String> {
    let mut checker = Checker::default();
    let mut errors = 0;
    let mut last = 0;
    while errors < ERRORS {
        match handle.refresh() {
            Ok(_) => {}
            Err(ReadError::Open(OpenError::Resources { .. })) => errors += 1,
            Err(other) => return Err(format!("not for want of it: {other:?}")),
        }
        let kept = handle.latest();
        checker.check(kept)?;
        if kept.generation() < last {
            return Err(format!("{} came after {last}", kept.generation()));
        }
        last = kept.generation();
        if is_told_to_end() {
            return Err(format!("only {errors} errors"));
        }
    }
    Ok(last)
}

/// The size of this process's address space.
fn mapped_bytes() -> Result<u64, String> {
    let statm = std::fs::read_to_string("/proc/self/statm").map_err(|error| error.to_string())?;
    let pages = statm.split(' ').next().and_then(|pages| pages.parse().ok());
    let pages: u64 = pages.ok_or("no number in /proc/self/statm")?;
    Ok(pages * 4096)
}
