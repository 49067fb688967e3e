//! The floors of a durable transaction, and the one way everything durable is loaded and timed.
//!
//! A transaction here is one row, on the disk when it is acknowledged. All of it, ours and the peers', lies in
//! one directory of one file system (`--disk`), so that every row of a run is of the same disk.
//!
//! A **rate** is what all threads together got acknowledged in a fixed time, after a warm-up that is not
//! counted; the detail says what a single transaction took.
//!
//! The floors are the least that one `fdatasync` for each transaction takes, by overwriting 512 bytes of a file that
//! was written and synced before (no metadata to write), and by appending them (the length is metadata).
//! On 64 threads each has a file of its own, so that nothing but the disk is shared.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::measure::{Figure, nanos};
use crate::row::{Outcome, Row};
use crate::{Failure, Setting};

/// The column "who".
pub const WHO: (&str, &str) = ("machine", "-");

/// The question that a rate of transactions answers.
pub const QUESTION: &str = "transact";

/// Threads or clients, where there are many.
pub const MANY: usize = 64;

/// Not counted, for caches and files to come to what they are.
const WARM: Duration = Duration::from_millis(500);
/// Counted.
const BUDGET: Duration = Duration::from_secs(4);

/// Bytes of a floor's write: one sector.
const SECTOR: usize = 512;
/// Sectors of a file that is overwritten.
const SECTORS: u64 = 8192;

/// The name of the floor that one `fdatasync` for each transaction is, on so many threads.
pub fn overwrite(threads: usize) -> String {
    format!("fdatasync of a 512-byte overwrite, {}", counted(threads))
}

fn counted(threads: usize) -> String {
    match threads {
        1 => "1 thread".to_owned(),
        _ => format!("{threads} threads, a file each"),
    }
}

/// All floors.
pub fn run(setting: &Setting<'_>, print: &mut dyn FnMut(Row)) -> Result<(), Failure> {
    for threads in [1, MANY] {
        let rate = rate(threads, |thread| {
            let file = File::create(setting.disk.join(format!("overwritten-{thread}")))?;
            file.write_all_at(&vec![1; SECTOR * usize::try_from(SECTORS)?], 0)?;
            file.sync_all()?;
            let mut at = 0;
            Ok(move || {
                file.write_all_at(&[2; SECTOR], at % SECTORS * SECTOR as u64)?;
                at += 1;
                Ok(file.sync_data()?)
            })
        })?;
        rate.print("floor", &overwrite(threads), WHO, "", print);
        if threads == 1 {
            let one = Outcome::Time(rate.each.clone());
            print(Row::new(
                "floor",
                "one fdatasync of a 512-byte overwrite",
                WHO,
                one,
            ));
        }
        let appending = rate_of_appends(setting.disk, threads)?;
        let name = format!("fdatasync of a 512-byte append, {}", counted(threads));
        appending.print("floor", &name, WHO, "", print);
    }
    Ok(())
}

fn rate_of_appends(disk: &Path, threads: usize) -> Result<Rate, Failure> {
    rate(threads, |thread| {
        let mut file = File::create(disk.join(format!("appended-{thread}")))?;
        file.sync_all()?;
        Ok(move || {
            file.write_all(&[3; SECTOR])?;
            Ok(file.sync_data()?)
        })
    })
}

/// What all threads got done.
#[derive(Debug)]
pub struct Rate {
    /// Transactions in a second, of all threads together.
    pub per_second: f64,
    /// What one took, from the call to the acknowledgement.
    pub each: Figure,
}

impl Rate {
    /// As a row: a rate, the time of a single one in its detail.
    pub fn print(
        &self,
        question: &str,
        name: &str,
        who: (&str, &str),
        detail: &str,
        print: &mut dyn FnMut(Row),
    ) {
        let outcome = Outcome::Number(self.per_second, "tx/s".into());
        let each = format!(
            "one took {:.0} us in the middle, {:.0} us at p99",
            self.each.median / 1e3,
            self.each.p99 / 1e3
        );
        let joint = if detail.is_empty() { "" } else { "; " };
        let mut row =
            Row::new(question, name, who, outcome).detail(format!("{detail}{joint}{each}"));
        if question != "floor" {
            row = row.over(overwrite(MANY), 1.0);
        }
        print(row);
    }
}

/// Runs what `make` gives each thread, over and over on all threads at once.
///
/// `make` runs on the thread it makes for, one after the other for those that share something; its time is not counted.
///
/// # Errors
///
/// The first error of any of them; the others stop.
pub fn rate<Op>(
    threads: usize,
    make: impl Fn(usize) -> Result<Op, Failure> + Sync,
) -> Result<Rate, Failure>
where
    Op: FnMut() -> Result<(), Failure>,
{
    let (stop, ready) = (AtomicBool::new(false), Barrier::new(threads));
    let run = |thread| {
        let made = make(thread);
        // All wait, also for one that failed: it has to come to the barrier too.
        ready.wait();
        let mut op = made.inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
        let begun = Instant::now();
        let mut samples = Vec::new();
        while begun.elapsed() < WARM + BUDGET && !stop.load(Ordering::Relaxed) {
            let start = Instant::now();
            op().inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            let end = Instant::now();
            if start - begun >= WARM && end - begun <= WARM + BUDGET {
                samples.push(nanos(end - start));
            }
        }
        Ok::<_, Failure>(samples)
    };
    let samples = std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || run(thread)))
            .collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().map_err(|_| "a thread panicked")??);
        }
        Ok::<_, Failure>(all)
    })?;
    Rate::of(samples)
}

impl Rate {
    /// Of the times of all that were done in the time that counts.
    pub fn of(samples: Vec<f64>) -> Result<Self, Failure> {
        let per_second = samples.len() as f64 / BUDGET.as_secs_f64();
        let each = Figure::of(samples, 1).ok_or("nothing was done in the time")?;
        Ok(Self { per_second, each })
    }

    /// The times that [`rate`] uses: not counted, counted.
    pub const TIMES: (Duration, Duration) = (WARM, BUDGET);
}

/// A row of 115 bytes; with its key about 130, as in the other questions.
pub fn row(number: u64) -> [u8; 115] {
    let mut row = [b'x'; 115];
    row[..8].copy_from_slice(&number.to_le_bytes());
    row
}
