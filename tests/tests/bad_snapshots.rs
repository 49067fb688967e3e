//! Bad input, the reader's side: snapshot files that are cut, damaged, not to be trusted or not yet made.
//!
//! Each is opened by a child, with and without a daemon's lock on it (which is what makes a reader map the regions
//! rather than copy them), and gets an error that names the file and the matter; never a panic, never a signal.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use sherwood_shared::head::rule::{END_LIMIT, HeadWord};
use sherwood_shared::layout::{CONSTANTS_BYTES, Constants, HEAD_AT, WITNESS_AT};
use sherwood_shared::lock;
use sherwood_shared::root::Root;
use sherwood_tests::daemon::{Daemon, Place, binary};
use sherwood_tests::needs;

/// The child that opens.
struct Opener {
    child: Child,
    paths: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Opener {
    fn start() -> Self {
        let mut child = Command::new(binary("test_snapshot_opener"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let paths = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            paths,
            answers,
        }
    }

    /// What it says to this file.
    fn open(&mut self, path: &Path, what: &str) -> String {
        writeln!(self.paths, "{}", path.display()).unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        if answer.is_empty() {
            panic!("{what}: the reader died: {:?}", self.child.wait());
        }
        answer
    }

    /// Refuses it, and says all of `parts`.
    fn refuses(&mut self, path: &Path, what: &str, parts: &[&str]) {
        let answer = self.open(path, what);
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(answer.starts_with("error: "), "{what}: {answer}");
        for part in parts.iter().chain([&name]) {
            assert!(answer.contains(part), "{what}: no {part:?} in {answer}");
        }
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped_already = self.child.wait();
    }
}

/// A copy of a small snapshot that the real daemon made.
struct Sample {
    dir: tempfile::TempDir,
    bytes: Vec<u8>,
    constants: Constants,
    head: HeadWord,
    /// Holds the lock of a live daemon.
    witness: Option<File>,
}

impl Sample {
    fn make() -> Self {
        let place = Place::with_tasks(20);
        let flags = ["--region-bytes", "16384", "--chunk-bytes", "1024"];
        let daemon = Daemon::start_with(&place, &flags);
        let bytes = fs::read(place.snapshot()).unwrap();
        daemon.stop();
        let constants = bytes[..CONSTANTS_BYTES + 4].try_into().unwrap();
        let constants = Constants::from_bytes(constants).unwrap();
        let head = bytes[HEAD_AT..HEAD_AT + 8].try_into().unwrap();
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self {
            dir: dir.unwrap(),
            bytes,
            constants,
            head: HeadWord::from_raw(u64::from_le_bytes(head)),
            witness: None,
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("sample.arrow")
    }

    /// Writes it, changed; `alive`: with the lock that a daemon holds.
    fn write(&mut self, alive: bool, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
        // As a daemon does: locked before it has a name that anybody looks at (W8).
        let path = self.path();
        let aside = path.with_extension("aside");
        let mut bytes = self.bytes.clone();
        change(&mut bytes);
        fs::write(&aside, bytes).unwrap();
        fs::set_permissions(&aside, fs::Permissions::from_mode(0o644)).unwrap();
        let file = File::options().read(true).write(true).open(&aside).unwrap();
        if alive {
            lock::try_exclusive(&file, WITNESS_AT, 1).unwrap();
        }
        fs::rename(&aside, &path).unwrap();
        self.witness = Some(file);
        path
    }

    fn root_at(&self) -> usize {
        usize::try_from(self.head.end_bytes()).unwrap()
    }
}

#[test]
fn a_good_file_is_read_with_and_without_its_daemon() {
    let mut opener = Opener::start();
    let mut sample = Sample::make();
    for alive in [false, true] {
        let path = sample.write(alive, |_| {});
        assert_eq!(opener.open(&path, "the whole"), "ok 1\n", "alive: {alive}");
    }
}

#[test]
fn a_file_cut_at_any_byte_of_its_header_or_at_any_region_is_truncated() {
    let mut opener = Opener::start();
    let mut sample = Sample::make();
    let region = usize::try_from(sample.constants.region_bytes).unwrap();
    let end = sample.root_at();
    let boundaries = (0..sample.bytes.len()).step_by(region / 4);
    let last = end.next_multiple_of(region);
    for alive in [false, true] {
        let path = sample.write(alive, |_| {});
        let file = File::options().write(true).open(&path).unwrap();
        for cut in (0..=4096)
            .chain(boundaries.clone())
            .filter(|&cut| cut < last)
        {
            file.set_len(0).unwrap();
            file.write_all_at(&sample.bytes[..cut], 0).unwrap();
            let what = format!("cut at byte {cut}, alive: {alive}");
            opener.refuses(&path, &what, &["truncated", &format!("{cut} bytes")]);
        }
    }
}

#[test]
fn a_header_that_is_not_ours_or_damaged_is_told() {
    let mut opener = Opener::start();
    let mut sample = Sample::make();
    for (at, value, parts) in [
        (0, b"PAR1".as_slice(), ["not a Sherwood snapshot", "ARROW1"]),
        (8, b"NOTTINGH", ["not a Sherwood snapshot", "SHERWOOD"]),
        (16, &2_u32.to_le_bytes(), ["format version 2", "upgrade"]),
        (16, &0_u32.to_le_bytes(), ["format version 0", "upgrade"]),
        (32, &[0xFF; 8], ["damaged header", "checksum"]),
    ] {
        let path = sample.write(true, |bytes| {
            bytes[at..at + value.len()].copy_from_slice(value)
        });
        opener.refuses(&path, &format!("{value:?} at {at}"), &parts);
    }
    // Every bit of the constants.
    for bit in 0..(CONSTANTS_BYTES + 4) * 8 {
        let path = sample.write(true, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        opener.refuses(&path, &format!("bit {bit}"), &[]);
    }
    // Constants that are whole and make no sense.
    let good = sample.constants.clone();
    for region_bytes in [0, 1, 4095, 12288, 1 << 40, u64::MAX] {
        let constants = Constants {
            region_bytes,
            ..good.clone()
        }
        .to_bytes();
        let path = sample.write(true, |bytes| {
            bytes[..constants.len()].copy_from_slice(&constants)
        });
        opener.refuses(&path, &format!("regions of {region_bytes} bytes"), &[]);
    }
    for data_start in [0, 1, 1 << 40, u64::MAX] {
        let constants = Constants {
            data_start,
            ..good.clone()
        }
        .to_bytes();
        let path = sample.write(true, |bytes| {
            bytes[..constants.len()].copy_from_slice(&constants)
        });
        opener.refuses(&path, &format!("data from {data_start}"), &[]);
    }
}

#[test]
fn a_head_that_points_anywhere_else_is_damage() {
    let mut opener = Opener::start();
    let mut sample = Sample::make();
    let path = sample.write(false, |bytes| bytes[HEAD_AT..HEAD_AT + 8].fill(0));
    opener.refuses(&path, "an empty head", &["still being made", "try again"]);
    let right = sample.head.end_bytes();
    let inside = (64..sample.bytes.len() as u64 + 65536).step_by(64);
    let outside = [END_LIMIT - 64, END_LIMIT / 2, 1 << 32];
    for alive in [false, true] {
        for end in inside.clone().chain(outside).filter(|&end| end != right) {
            let head = HeadWord::new(end, 1).unwrap().raw().to_le_bytes();
            let path = sample.write(alive, |bytes| {
                bytes[HEAD_AT..HEAD_AT + 8].copy_from_slice(&head)
            });
            opener.refuses(&path, &format!("a head at {end}, alive: {alive}"), &[]);
        }
    }
}

/// The root with a right checksum and wrong facts: every offset and count in it, one after the other.
#[test]
fn a_root_whose_offsets_lead_out_of_bounds_is_damage() {
    let mut opener = Opener::start();
    let mut sample = Sample::make();
    let at = sample.root_at();
    let good = Root::parse(&sample.bytes[at..]).unwrap();
    let length = sample.bytes.len() as u64;
    let mut cases: Vec<(String, Root)> = Vec::new();
    let mut case = |what: String, change: &dyn Fn(&mut Root)| {
        let mut root = good.clone();
        change(&mut root);
        cases.push((what, root));
    };
    for wrong in [
        0,
        1,
        63,
        64,
        4096,
        length - 64,
        length,
        length + 1,
        1 << 40,
        u64::MAX - 63,
        u64::MAX,
    ] {
        case(format!("arrow_at {wrong}"), &|root| root.arrow_at = wrong);
        for table in 0..3 {
            case(format!("table {table}: index_at {wrong}"), &|root| {
                root.tables[table].parts[0].index_at = wrong;
            });
            case(format!("table {table}: footer_end {wrong}"), &|root| {
                root.tables[table].parts[0].footer_end = wrong;
            });
        }
    }
    for region in [1 << 10, 1 << 20, u32::MAX] {
        case(format!("region {region} besides"), &|root| {
            root.regions.push(region)
        });
    }
    case("no regions".into(), &|root| root.regions.clear());
    for chunks in [1000, u32::MAX] {
        case(format!("{chunks} chunks"), &|root| {
            root.tables[1].parts[0].chunks = chunks
        });
    }
    for (what, root) in cases {
        let mut record = Vec::new();
        root.append(&mut record);
        for alive in [false, true] {
            let path = sample.write(alive, |bytes| {
                bytes[at..at + record.len()].copy_from_slice(&record);
            });
            if what.starts_with("arrow_at") {
                // For other readers: ours goes by the footer, which ends where the record begins.
                opener.open(&path, &what);
            } else {
                opener.refuses(&path, &format!("{what}, alive: {alive}"), &[]);
            }
        }
    }
}

/// Nothing forged (F11: a trusted file's values are taken as they are), but nobody brought down either.
#[test]
fn no_flipped_byte_of_the_data_brings_a_reader_down() {
    let mut opener = Opener::start();
    let mut sample = Sample::make();
    let used = usize::try_from(sample.constants.data_start).unwrap()..sample.root_at() + 512;
    let seed = 0x5EED_u64;
    let mut state = seed;
    for round in 0..3000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let at = used.start + usize::try_from(state >> 33).unwrap() % used.len();
        let bit = state & 7;
        let path = sample.write(round % 2 == 0, |bytes| bytes[at] ^= 1 << bit);
        opener.open(&path, &format!("bit {bit} of byte {at}"));
    }
}

#[test]
fn a_file_that_others_could_write_is_not_trusted() {
    let mut opener = Opener::start();
    let mut sample = Sample::make();
    for mode in [0o664, 0o646, 0o666, 0o620, 0o602] {
        let path = sample.write(true, |_| {});
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        opener.refuses(
            &path,
            &format!("{mode:o}"),
            &["not trusted", &format!("mode {mode:o}")],
        );
    }
    let path = sample.write(true, |_| {});
    let link = sample.dir.path().join("link.arrow");
    symlink(&path, &link).unwrap();
    opener.refuses(&link, "a link", &["not trusted", "symbolic link"]);
    opener.refuses(
        sample.dir.path(),
        "a directory",
        &["not trusted", "not a regular file"],
    );
    let missing = sample.dir.path().join("missing.arrow");
    opener.refuses(
        &missing,
        "nothing",
        &["no snapshot", "is sherwoodd running"],
    );
    let fifo = sample.dir.path().join("fifo.arrow");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    opener.refuses(&fifo, "a pipe", &["not trusted", "not a regular file"]);
}

#[test]
fn a_file_that_belongs_to_someone_else_is_not_trusted() {
    if !needs::root("a_file_that_belongs_to_someone_else_is_not_trusted") {
        return;
    }
    let mut opener = Opener::start();
    let mut sample = Sample::make();
    let path = sample.write(true, |_| {});
    chown(&path, Some(12345), None).unwrap();
    opener.refuses(&path, "of uid 12345", &["not trusted", "uid 12345"]);
    // Unless the directory is theirs as well: then it is where their daemon publishes.
    chown(sample.dir.path(), Some(12345), None).unwrap();
    assert_eq!(fs::metadata(sample.dir.path()).unwrap().uid(), 12345);
    assert_eq!(opener.open(&path, "in its owner's directory"), "ok 1\n");
}
