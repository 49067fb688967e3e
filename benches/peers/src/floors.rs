//! What the machine takes at least: a load, a copy, a hop, a wake, a mapping.

use std::fs::{self, File};
use std::hint::{black_box, spin_loop};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memmap2::Mmap;

use crate::cores::Core;
use crate::keys::Draw;
use crate::measure::{Figure, WAKES, batched, each, nanos, timed};
use crate::row::{Outcome, Row};
use crate::{Failure, Setting, futex};

/// The column "who".
pub const WHO: (&str, &str) = ("machine", "-");

/// For what is timed in batches.
const BUDGET: Duration = Duration::from_millis(400);

/// All floors.
pub fn run(setting: &Setting<'_>, print: &mut dyn FnMut(Row)) -> Result<(), Failure> {
    let mut floor = |name: &str, figure: Figure, detail: &str| {
        print(Row::new("floor", name, WHO, Outcome::Time(figure)).detail(detail));
    };
    floor(
        "clock",
        batched(BUDGET, Instant::now),
        "one read of the clock: what is timed one by one includes about one",
    );
    floor(
        "load",
        mapped_load(setting)?,
        "a relaxed load of a word in a read-only shared mapping, in a loop",
    );
    for (name, rows) in [
        ("random load, 10,000 rows", 10_000_u64),
        ("random load, 1,000,000 rows", 1_000_000),
    ] {
        floor(
            name,
            random_load(rows * 130),
            "one load whose address depends on the load before, in as many bytes as so many rows take",
        );
    }
    for (name, bytes) in [("memcpy 128 KiB", 128 << 10), ("memcpy 1 MiB", 1 << 20)] {
        floor(name, memcpy(bytes), "warm source and target");
    }
    let (write, fresh) = (vec![1_u8; 16 << 20], setting.dir.join("fresh"));
    let figure = each(BUDGET, 100, || {
        let mut file = File::create(&fresh)?;
        let (took, done) = timed(|| file.write_all(&write));
        done?;
        Ok::<_, std::io::Error>(took / 16)
    })?;
    floor(
        "write 1 MiB, fresh pages",
        figure,
        "1/16 of writing 16 MiB to a new tmpfs file: the kernel clears and then fills each page",
    );
    fs::remove_file(&fresh)?;
    floor(
        "hop",
        hop()?,
        "half a round trip of a cache line between two threads",
    );
    floor(
        "map",
        map(setting)?,
        "open, fstat, map a file of 2 MiB, touch one page, unmap, close",
    );
    for (name, gap) in WAKES {
        let detail =
            "from just before the store to the other process running; the waker spins meanwhile";
        floor(name, futex::wake(setting, gap)?, detail);
    }
    Ok(())
}

/// What drifts, once more: a virtual machine's cores are near each other or far
/// apart as its host has it at the moment, and a hop takes 30 or 200 ns.
pub fn again(_: &Setting<'_>, print: &mut dyn FnMut(Row)) -> Result<(), Failure> {
    let row = Row::new("floor", "hop, at the end", WHO, Outcome::Time(hop()?));
    print(
        row.detail(
            "the same as hop, after all peers: the two differ where a host moves its guests",
        ),
    );
    Ok(())
}

/// A file of `bytes` mapped read-only.
pub fn mapped(path: &std::path::Path, bytes: usize) -> Result<Mmap, Failure> {
    fs::write(path, vec![7_u8; bytes])?;
    let file = File::open(path)?;
    // SAFETY: nobody else knows this file, and nothing shrinks it while it is mapped.
    Ok(unsafe { Mmap::map(&file)? })
}

fn mapped_load(setting: &Setting<'_>) -> Result<Figure, Failure> {
    let map = mapped(&setting.dir.join("word"), 4096)?;
    // SAFETY: the mapping is page-aligned, 4096 bytes long and outlives `word`;
    // only relaxed loads of 8 bytes are made, which std allows on read-only memory.
    let word = unsafe { AtomicU64::from_ptr(map.as_ptr().cast::<u64>().cast_mut()) };
    Ok(batched(BUDGET, || word.load(Ordering::Relaxed)))
}

/// A walk through `bytes` of memory in one random cycle over its cache lines.
fn random_load(bytes: u64) -> Figure {
    let lines = usize::try_from(bytes / 64).unwrap_or(1).max(2);
    let mut draw = Draw::new(1);
    // Sattolo's shuffle: a permutation that is one single cycle.
    let mut order: Vec<u32> = (0..u32::try_from(lines).unwrap_or(u32::MAX)).collect();
    for last in (1..lines).rev() {
        let other = usize::try_from(draw.below(last as u64)).unwrap_or(0);
        order.swap(last, other);
    }
    let mut memory = vec![[0_u32; 16]; lines];
    for (line, next) in memory.iter_mut().zip(&order) {
        line[0] = *next;
    }
    drop(order);
    let mut at = 0_usize;
    batched(BUDGET, || {
        at = memory[at][0] as usize;
        at
    })
}

fn memcpy(bytes: usize) -> Figure {
    let (from, mut to) = (vec![1_u8; bytes], vec![2_u8; bytes]);
    batched(BUDGET, || {
        black_box(&mut to).copy_from_slice(black_box(&from));
    })
}

/// Two threads on two cores count one word up in turn.
fn hop() -> Result<Figure, Failure> {
    const ROUNDS: u32 = 16;
    let word = &AtomicU64::new(0);
    let mut next = 0;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _core = Core::last();
            loop {
                let seen = wait_for(word, |seen| seen % 2 == 1 || seen == u64::MAX);
                if seen == u64::MAX {
                    return;
                }
                word.store(seen + 1, Ordering::Relaxed);
            }
        });
        // After the other has started: a thread inherits what its parent is held to.
        let _core = Core::first();
        let (all, mut samples) = (Instant::now(), Vec::new());
        while all.elapsed() < BUDGET {
            let start = Instant::now();
            for _ in 0..ROUNDS {
                word.store(next + 1, Ordering::Relaxed);
                next = wait_for(word, |seen| seen == next + 2);
            }
            samples.push(nanos(start.elapsed()) / f64::from(2 * ROUNDS));
        }
        word.store(u64::MAX, Ordering::Relaxed);
        Figure::of(samples, 2 * ROUNDS)
    })
    .ok_or_else(|| "no round trip was seen".into())
}

/// Spins until `word` is as `wanted`; gives way now and then, for a machine of
/// one core.
fn wait_for(word: &AtomicU64, wanted: impl Fn(u64) -> bool) -> u64 {
    for turn in 1_u32.. {
        let seen = word.load(Ordering::Relaxed);
        if wanted(seen) {
            return seen;
        }
        if turn.is_multiple_of(4096) {
            std::thread::yield_now();
        } else {
            spin_loop();
        }
    }
    u64::MAX
}

fn map(setting: &Setting<'_>) -> Result<Figure, Failure> {
    let path = setting.dir.join("map");
    fs::write(&path, vec![7_u8; 2 << 20])?;
    each(BUDGET, 20_000, || {
        let (took, done) = timed(|| {
            let file = File::open(&path)?;
            file.metadata()?;
            // SAFETY: nobody else knows this file, and nothing shrinks it while it is mapped.
            let map = unsafe { Mmap::map(&file)? };
            black_box(map[4096]);
            Ok::<_, std::io::Error>(())
        });
        done?;
        Ok(took)
    })
}
