//! The state directory's disk is full: of what somebody else writes, of our own log, of a state that has become too large. What is refused says so, nothing acknowledged is lost,
//! the daemon goes on running, and goes on by itself as soon as there is room.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use sherwood_tests::daemon::wait_for;
use sherwood_tests::needs::{self, SmallTmpfs};
use sherwood_tests::writes::lone::Lone;
use sherwood_tests::writes::power::{Disk, Kind};
use tempfile::TempDir;

/// Small segments, so that a small disk holds several.
const FLAGS: [&str; 2] = ["--log-segment-bytes", "1048576"];
/// Rows of 100 KiB.
const ROWS: u64 = 40;
/// What a full disk is told as.
const FULL: [&str; 2] = [
    "the state directory is full",
    "make space for the state directory",
];
/// What the daemon logs when it gives up what it kept in case.
const GIVEN_UP: &str = "the disk is full: what is kept in case of damage is given up for room: an older checkpoint, the log before the newest, and then older bases";

/// Somebody who leaves no more than so many bytes of a file system to others, whatever becomes free.
struct Greedy {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

fn room_in(dir: &Path) -> u64 {
    let room = statvfs(dir).expect("a file system");
    room.blocks_available() * room.fragment_size()
}

impl Greedy {
    /// The disk is that full when this returns.
    fn begin(dir: &Path, left: u64) -> Self {
        let path = dir.join("somebody's");
        let mut file = File::create(&path).expect("a file that fills");
        let dir = dir.to_owned();
        let take = move |file: &mut File| -> io::Result<()> {
            let block = vec![0xA5; 1 << 20];
            loop {
                let more =
                    usize::try_from(room_in(&dir).saturating_sub(left)).unwrap_or(usize::MAX);
                match block.get(..more.min(block.len())) {
                    Some([]) | None => break,
                    Some(some) => file.write_all(some)?,
                }
            }
            file.sync_data()
        };
        let _as_full_as_it_gets = take(&mut file);
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                let _as_full_as_it_gets = take(&mut file);
                thread::sleep(Duration::from_millis(1));
            }
        });
        let thread = Some(thread);
        Self { path, stop, thread }
    }
}

impl Drop for Greedy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _its_panic_is_printed = thread.join();
        }
        let _gone_with_its_disk = fs::remove_file(&self.path);
    }
}

fn memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").expect("a tmpfs")
}

/// Each refusal was for want of room, and says what to do.
fn refusals_give_advice(place: &Lone, when: &str) {
    for reason in place.refusals() {
        for part in FULL {
            assert!(reason.contains(part), "{when}: no {part:?} in {reason:?}");
        }
    }
}

/// Whether anything was refused while the disk was kept that full.
fn filled_by_somebody(name: &str, disk: &Path, left: u64) -> bool {
    let when = format!("{name}, {left} bytes left");
    let run = memory();
    let mut place = Lone::new(disk.join("state"), run.path().join("run"), &FLAGS);
    place.start();
    place.write(50, ROWS).expect("there is room");
    let greedy = Greedy::begin(disk, left);
    let refused = place.write(200, ROWS).err().map(|refused| refused.1);
    // Still there, for all who ask.
    let another = place.overwrite(ROWS);
    let _done_or_refused = place.is_done(&another);
    place.check(&when);
    refusals_give_advice(&place, &when);
    assert!(place.daemon().is_running(), "{when}");
    // Killed while it is full, it starts or says why not.
    place.stop();
    let mut daemon = place.spawn();
    wait_for("a start on a full disk", || {
        daemon.count("ready") > 0 || !daemon.is_running()
    });
    if daemon.is_running() {
        place.serve(daemon);
        place.check(&format!("{when}, started"));
        drop(greedy);
    } else {
        let (status, log) = daemon.end();
        assert_eq!(status.code(), Some(1), "{when}: {log}");
        for part in ["No space left", "make room"] {
            assert!(log.contains(part), "{when}: no {part:?} in {log}");
        }
        drop(greedy);
        place.start();
        place.check(&format!("{when}, started with room"));
    }
    for change in refused.iter().chain([&another]) {
        place.is_done_at_last(change, &when);
    }
    for _ in 0..30 {
        let change = place.overwrite(ROWS);
        place.is_done_at_last(&change, &when);
    }
    place.check(&format!("{when}, with room"));
    place.start_from_the_files();
    place.check(&format!("{when}, from the files"));
    place.stop();
    fs::remove_dir_all(place.state()).expect("it was there");
    refused.is_some()
}

#[test]
fn a_disk_that_somebody_fills_refuses_with_advice_and_goes_on_with_room() {
    let name = "a_disk_that_somebody_fills_refuses_with_advice_and_goes_on_with_room";
    let Some(disk) = Disk::new(name, Kind::Ext4, 64 << 20) else {
        return;
    };
    let on = |what: &str, disk: &Path| {
        for left in [0, 64 << 10, 6 << 20] {
            let refused = filled_by_somebody(what, disk, left);
            // With 6 MiB there is room for each checkpoint, and after it for the log.
            assert!(
                refused || left > 1 << 20,
                "{what}, {left}: nothing was refused"
            );
        }
    };
    on("ext4", &disk.path());
    drop(disk);
    let root = tempfile::tempdir().expect("a directory");
    let disk = SmallTmpfs::mount(&root.path().join("disk"), 64 << 20);
    on("tmpfs", disk.path());
}

/// Overwrites rows until the daemon had to make room, and on.
fn filled_by_our_log(name: &str, disk: &Path) {
    let run = memory();
    let mut place = Lone::new(disk.join("state"), run.path().join("run"), &FLAGS);
    place.start();
    let mut written = 0;
    while place.daemon().count(GIVEN_UP) == 0 {
        let change = place.overwrite(ROWS);
        place.is_done_at_last(&change, name);
        written += 1;
        assert!(written < 3000, "{name}: it was never full");
    }
    for _ in 0..100 {
        let change = place.overwrite(ROWS);
        place.is_done_at_last(&change, name);
    }
    refusals_give_advice(&place, name);
    place.check(name);
    place.start();
    place.check(&format!("{name}, started"));
    place.start_from_the_files();
    place.check(&format!("{name}, from the files"));
}

#[test]
fn a_disk_that_our_own_log_fills_empties_itself() {
    let name = "a_disk_that_our_own_log_fills_empties_itself";
    let Some(disk) = Disk::new(name, Kind::Ext4, 40 << 20) else {
        return;
    };
    filled_by_our_log("ext4", &disk.path());
    drop(disk);
    let root = tempfile::tempdir().expect("a directory");
    let disk = SmallTmpfs::mount(&root.path().join("disk"), 32 << 20);
    filled_by_our_log("tmpfs", disk.path());
}

#[test]
fn what_unfinished_files_took_is_there_for_the_next_start() {
    let name = "what_unfinished_files_took_is_there_for_the_next_start";
    if !needs::root(name) {
        return;
    }
    let (root, run) = (tempfile::tempdir().expect("a directory"), memory());
    let disk = SmallTmpfs::mount(&root.path().join("disk"), 64 << 20);
    let state = disk.path().join("state");
    let mut place = Lone::new(state, run.path().join("run"), &FLAGS);
    place.start();
    for unfinished in [
        "state/checkpoints/00000000000000001000.parquet.tmp",
        "state/sherwood.state_c.parquet.tmp",
    ] {
        place.write(20, ROWS).expect("there is room");
        place.stop();
        let _there_or_not = fs::remove_file(disk.path().join(unfinished));
        let full = disk.fill(unfinished);
        place.start();
        place.check(unfinished);
        assert!(room_in(disk.path()) > 1 << 20, "{full:?} is still there");
    }
}

/// Puts new rows until the disk is too small for them, then deletes some.
fn outgrown(name: &str, disk: &Path) {
    let run = memory();
    let mut place = Lone::new(disk.join("state"), run.path().join("run"), &FLAGS);
    place.start();
    let patience = Duration::from_secs(3);
    let mut rows = 0_u64;
    let refused = loop {
        let change = place.put(format!("k{rows}"));
        if !place.is_done_within(&change, patience) {
            break change;
        }
        rows += 1;
    };
    refusals_give_advice(&place, name);
    place.check(name);
    let rest = format!("{name}, {rows} rows");
    needs::tell(&rest);
    for row in 0..rows * 2 / 3 {
        let change = place.delete(format!("k{row}"));
        assert!(
            place.is_done_within(&change, patience),
            "{rest}: row {row} is not deleted: {:?}",
            place.refusals()
        );
    }
    place.is_done_at_last(&refused, &rest);
    place.check(&rest);
    place.start_from_the_files();
    place.check(&format!("{rest}, from the files"));
}

#[test]
fn a_state_that_outgrows_its_disk_is_refused_until_rows_are_deleted() {
    let name = "a_state_that_outgrows_its_disk_is_refused_until_rows_are_deleted";
    let Some(disk) = Disk::new(name, Kind::Ext4, 40 << 20) else {
        return;
    };
    outgrown("ext4", &disk.path());
    drop(disk);
    let root = tempfile::tempdir().expect("a directory");
    let disk = SmallTmpfs::mount(&root.path().join("disk"), 32 << 20);
    outgrown("tmpfs", disk.path());
}
