//! Every operation of the disk fails once, and the power is cut at every operation.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::{fs, io};

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::samples::*;
use crate::log::faults::{Fault, FaultyDisk, PowerCut, after_crash};
use crate::log::{AppendError, Disk, DiskFile, Keeper, Log, Options, RealDisk};

const ENTRIES: u64 = 24;

fn tiny() -> Options {
    Options {
        segment_bytes: 4096,
        ..Options::default()
    }
}

/// Appends samples, prepares and releases on the way; gives what was acknowledged and whether the last answer left one unknown.
fn work(dir: &Path, disk: Arc<dyn Disk>) -> (u64, bool) {
    let Ok((mut log, _)) = Log::open(dir, tiny(), disk) else {
        return (0, false);
    };
    let mut acknowledged = log.next_sequence() - 1;
    let mut is_full = 0;
    while acknowledged < ENTRIES {
        if acknowledged % 7 == 3 {
            let _done_or_not = log.prepare();
        }
        if acknowledged % 10 == 9 {
            let _done_or_not = log.release(acknowledged - 4);
        }
        match log.append(&sample(acknowledged + 1)) {
            Ok(()) => acknowledged += 1,
            // Nothing was written, and the fault was for one operation only.
            Err(AppendError::Full { .. }) if is_full == 0 => is_full = 1,
            Err(AppendError::Sync { .. }) => {
                let again = log.append(&sample(acknowledged + 1)).unwrap_err();
                assert!(matches!(again, AppendError::Sync { source: None, .. }));
                return (acknowledged, true);
            }
            Err(error) => panic!("{error}"),
        }
    }
    (acknowledged, false)
}

/// Opens what is left, and checks that everything acknowledged is there, at most one more, and that it goes on.
fn check(dir: &Path, disk: Arc<dyn Disk>, (acknowledged, unknown): (u64, bool), what: &str) {
    let (mut log, opened) =
        Log::open(dir, tiny(), disk).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let last = opened.last_sequence;
    let most = acknowledged + u64::from(unknown);
    assert!(
        (acknowledged..=most).contains(&last),
        "{what}: {last}, {acknowledged}, {unknown}"
    );
    for sequence in last + 1..=last + 12 {
        log.append(&sample(sequence))
            .unwrap_or_else(|error| panic!("{what}: {error:?}"));
    }
    let (found, error) = entries(dir, opened.oldest_sequence);
    assert!(error.is_none(), "{what}: {error:?}");
    assert_eq!(
        found.len() as u64,
        last + 13 - opened.oldest_sequence,
        "{what}"
    );
    assert_samples(&found, opened.oldest_sequence, what);
    for sequence in 1..=last {
        for outcome in sample(sequence).outcomes {
            assert_eq!(opened.outcomes.get(&outcome.id), Some(&outcome), "{what}");
        }
    }
}

#[test]
fn every_failing_operation_loses_nothing_that_was_acknowledged() {
    let count = FaultyDisk::default();
    let tmp = tempfile::tempdir().unwrap();
    assert_eq!(
        work(&tmp.path().join("log"), Arc::new(count.clone())),
        (ENTRIES, false)
    );
    let operations = count.plan.operations();
    assert!(operations > 60, "{operations}");
    for fault in [Fault::Io, Fault::Full, Fault::Short] {
        for number in 0..operations {
            let tmp = tempfile::tempdir().unwrap();
            let dir = tmp.path().join("log");
            let disk = FaultyDisk::default();
            disk.plan.fail(number, fault);
            let done = work(&dir, Arc::new(disk.clone()));
            let what = format!("{fault:?} at operation {number}");
            check(&dir, Arc::new(FaultyDisk::default()), done, &what);
        }
    }
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_that_was_acknowledged() {
    let count = PowerCut::default();
    let tmp = tempfile::tempdir().unwrap();
    work(&tmp.path().join("log"), Arc::new(count.clone()));
    let operations = count.operations();
    let mut crashes = 0_u64;
    for number in 0..operations {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("log");
        let disk = PowerCut::default();
        disk.cut_at(number);
        let acknowledged = work(&dir, Arc::new(disk.clone())).0;
        let chances = disk.chances();
        // Every subset of a few, a seeded sample of many.
        let (subsets, all) = if chances <= 5 {
            (1_u64 << chances, true)
        } else {
            (12, false)
        };
        for subset in 0..subsets {
            let crashed = tempfile::tempdir().unwrap();
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&(number << 8 | subset).to_le_bytes());
            let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
            let mut asked = 0;
            let keep = || {
                asked += 1;
                if all {
                    subset >> (asked - 1) & 1 == 1
                } else {
                    random.next_u32() % 2 == 1
                }
            };
            disk.crash(crashed.path(), keep).unwrap();
            let again = after_crash(crashed.path()).unwrap();
            let what =
                format!("power cut at operation {number}, subset {subset} of {chances} chances");
            check(crashed.path(), Arc::new(again), (acknowledged, true), &what);
            crashes += 1;
        }
    }
    assert!(crashes > operations, "{crashes}");
}

#[test]
fn a_torn_record_is_kept_aside_and_cut_off() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("log");
    drop(log_of(&dir, 3));
    let path = dir.join(format!("{:020}.log", 1));
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    bytes[end - 10] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let (mut log, opened) = Log::open_real(&dir, small()).unwrap();
    let torn = opened.torn.unwrap();
    assert_eq!((torn.sequence, opened.last_sequence), (3, 2));
    assert!(dir.join(format!("{:020}.torn", 3)).exists());
    log.append(&sample(3)).unwrap();
    drop(log);
    let (_, opened) = Log::open_real(&dir, small()).unwrap();
    assert_eq!((opened.torn, opened.last_sequence), (None, 3));
}

/// L14: what is held back makes room at whatever operation there is none.
#[test]
fn a_release_on_a_full_disk_uses_the_room_that_is_held_back() {
    let release = |full_at: Option<u64>| {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("log");
        let disk = FaultyDisk::default();
        let (mut log, _) = Log::open(&dir, tiny(), Arc::new(disk.clone())).unwrap();
        log.prepare().unwrap();
        for sequence in 1..=ENTRIES {
            log.append(&sample(sequence)).unwrap();
        }
        assert!(dir.join("room.reserve").exists());
        let before = disk.plan.operations();
        if let Some(number) = full_at {
            disk.plan.fail(before + number, Fault::Full);
        }
        let oldest = log
            .release(ENTRIES)
            .unwrap_or_else(|error| panic!("{full_at:?}: {error:?}"));
        let operations = disk.plan.operations() - before;
        drop(log);
        let what = format!("full at {full_at:?}");
        let (_, opened) = Log::open(&dir, tiny(), Arc::new(FaultyDisk::default())).unwrap();
        assert_eq!(opened.oldest_sequence, oldest, "{what}");
        for outcome in (1..=ENTRIES).flat_map(|sequence| sample(sequence).outcomes) {
            assert_eq!(opened.outcomes.get(&outcome.id), Some(&outcome), "{what}");
        }
        (oldest, operations)
    };
    let (oldest, operations) = release(None);
    assert!(
        oldest > 1 && operations > 8,
        "{oldest} after {operations} operations"
    );
    for number in 0..operations {
        assert_eq!(release(Some(number)).0, oldest);
    }
}

/// A disk that says how much room it has.
#[derive(Debug, Default)]
struct Sized(AtomicU64);

impl Disk for Sized {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        RealDisk.unlink(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }

    fn room(&self, _: &Path) -> io::Result<u64> {
        Ok(self.0.load(Ordering::Relaxed))
    }
}

/// A disk on which the keeper is at work whenever a segment gets its name.
#[derive(Debug, Default)]
struct Busy(Mutex<Option<Keeper>>);

impl Disk for Busy {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let keeper = match to.extension() {
            Some(extension) if extension == "log" => self.0.lock().unwrap().clone(),
            _ => None,
        };
        if let Some(keeper) = keeper {
            keeper.release(u64::MAX).unwrap();
            keeper.prepare().unwrap();
        }
        RealDisk.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        RealDisk.unlink(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }
}

/// An append that begins a segment holds no lock: the file must not lose its name to the next one.
#[test]
fn a_segment_is_named_while_the_next_one_is_recycled_or_made() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("log");
    let disk = Arc::new(Busy::default());
    let (mut log, _) = Log::open(&dir, tiny(), disk.clone()).unwrap();
    log.prepare().unwrap();
    *disk.0.lock().unwrap() = Some(log.keeper());
    for sequence in 1..=ENTRIES {
        log.append(&sample(sequence)).unwrap();
    }
    *disk.0.lock().unwrap() = None;
    drop(log);
    let (_, opened) = Log::open_real(&dir, tiny()).unwrap();
    assert_eq!(opened.last_sequence, ENTRIES);
    assert!(opened.oldest_sequence > 1, "nothing was released");
    for outcome in (1..=ENTRIES).flat_map(|sequence| sample(sequence).outcomes) {
        assert_eq!(opened.outcomes.get(&outcome.id), Some(&outcome));
    }
}

/// L15: ready beforehand or made when it is needed.
#[test]
fn a_new_segment_leaves_room_for_the_next_checkpoint() {
    const CHECKPOINT: u64 = 10_000;
    let tmp = tempfile::tempdir().unwrap();
    let disk = Arc::new(Sized::default());
    let (mut log, _) = Log::open(&tmp.path().join("log"), tiny(), disk.clone()).unwrap();
    log.keeper().has_checkpoint(CHECKPOINT, 0);
    log.append(&sample(1)).unwrap();
    // One segment is in the log, and one is to come.
    let enough = 2 * tiny().segment_bytes + CHECKPOINT;
    disk.0.store(enough - 1, Ordering::Relaxed);
    assert!(log.prepare().unwrap_err().is_full());
    let refused = loop {
        let next = log.next_sequence();
        if let Err(error) = log.append(&sample(next)) {
            break error;
        }
    };
    assert!(matches!(refused, AppendError::Full { .. }), "{refused:?}");
    let next = log.next_sequence();
    disk.0.store(enough, Ordering::Relaxed);
    log.append(&sample(next)).unwrap();
    // Now there are two.
    assert!(log.prepare().unwrap_err().is_full());
    // What a checkpoint holds, the next one need not take from the log.
    disk.0
        .store(tiny().segment_bytes + CHECKPOINT, Ordering::Relaxed);
    log.keeper().has_checkpoint(CHECKPOINT, next - 1);
    assert!(log.prepare().unwrap_err().is_full(), "one entry is behind");
    log.keeper().has_checkpoint(CHECKPOINT, next);
    assert!(log.prepare().unwrap());
}

/// L14, on a disk that reserves nothing; and L15 of it.
#[test]
fn the_room_that_is_held_back_is_there_and_leaves_that_of_the_next_checkpoint() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("log");
    let held = dir.join("room.reserve");
    let half = tiny().segment_bytes / 2;
    let (log, _) = Log::open(&dir, tiny(), Arc::new(PowerCut::default())).unwrap();
    log.prepare().unwrap();
    assert_eq!(fs::metadata(&held).unwrap().len(), half);
    // One that an earlier version left without any.
    fs::write(&held, "").unwrap();
    log.prepare().unwrap();
    assert_eq!(fs::metadata(&held).unwrap().len(), half);
    drop(log);

    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("log");
    let held = dir.join("room.reserve");
    let disk = Arc::new(Sized::default());
    let (mut log, _) = Log::open(&dir, tiny(), disk.clone()).unwrap();
    log.keeper().has_checkpoint(10_000, 0);
    disk.0.store(u64::MAX, Ordering::Relaxed);
    log.append(&sample(1)).unwrap();
    // The log itself is one segment.
    let enough = 10_000 + tiny().segment_bytes + half;
    log.prepare().unwrap();
    fs::remove_file(&held).unwrap();
    for (room, is_held) in [(enough - 1, false), (enough, true)] {
        disk.0.store(room, Ordering::Relaxed);
        assert!(!log.prepare().unwrap(), "a segment is ready");
        assert_eq!(held.exists(), is_held, "{room} bytes of room");
    }
}
