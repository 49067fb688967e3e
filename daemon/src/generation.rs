//! Generations that never go back: over restarts, kill -9 and power cuts (F12).
//!
//! A generation is published long before it could be made durable one by one. So they are
//! reserved in blocks: the file `sherwood.generation`, beside the state's lock, holds a ceiling
//! that is durable before any generation below it is used, and a start begins above it.
//!
//! - **G1** No generation above the durable ceiling is ever published.
//! - **G2** A start begins above the ceiling that the last one left.
//! - **G3** A directory without the file begins a new history; a file that cannot be understood
//!   is an error, since a guess could repeat generations that readers have seen.
//! - **G4** A directory that was copied or restored (its device and inode are not those that the
//!   file names) begins a new history too: the original may publish the same numbers. The
//!   count goes on from the ceiling, so that it does not go back either.
//! - **G5** So does a directory whose file was restored in place, from a backup: the snapshot that
//!   was published last has this history and a generation above the ceiling. The count goes on
//!   from that generation.
//!
//! Not promised: G5 where no snapshot is left to tell, as after a reboot. Restore a state without
//! its `sherwood.generation`; G3 is certain.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sherwood_client::locate::StateDir;
use sherwood_store::durable;
use tracing::warn;

/// The file in the state directory.
pub const GENERATION_FILE: &str = "sherwood.generation";

/// Generations reserved with one sync. At 1,000 publishes a second that is a sync each second.
pub const BLOCK: u64 = 2048;

/// Below this many left, [`Generations::top_up`] reserves the next block, so that a publish
/// does not have to wait for the disk.
const LOW: u64 = BLOCK / 2;

const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    format: u32,
    history: String,
    reserved_through: u64,
    state_dir_device: u64,
    state_dir_inode: u64,
}

/// Why there are no generations to publish with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerationError {
    /// The file cannot be read.
    #[error("cannot read the generation file {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The file is not what this version writes (G3).
    #[error(
        "the generation file {path:?} is damaged or of a newer version; if the state is good, remove this file to begin a new history"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// The file parses, but holds a value that it cannot.
    #[error(
        "the generation file {path:?} has {value} as its `{key}`; if the state is good, remove this file to begin a new history"
    )]
    BadValue {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// The next block could not be made durable. Nothing was reserved.
    #[error("cannot write the generation file {path:?}; make room in the state directory")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// After 2^64 generations.
    #[error(
        "the generation file {path:?} has no generations left; remove it to begin a new history"
    )]
    Exhausted {
        /// The file.
        path: PathBuf,
    },
}

/// The reserved generations of a state directory. The caller holds its lock (W1).
#[derive(Debug)]
pub struct Generations {
    dir: PathBuf,
    record: Record,
    history: [u8; 16],
}

/// What the last snapshot at a daemon's path says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its history.
    pub history: [u8; 16],
    /// Its generation.
    pub generation: u64,
}

impl Generations {
    /// Reads the directory's file, or begins a history. **Durable** when this returns `Ok`: the
    /// first block, so that the second value, the first generation to publish, may be used. It is
    /// greater than `above` too, and new to the history of what was `seen` (G5).
    pub fn open(
        dir: &StateDir,
        above: u64,
        seen: Option<Seen>,
    ) -> Result<(Self, u64), GenerationError> {
        let path = dir.path().join(GENERATION_FILE);
        let mut record = match fs::read(&path) {
            Ok(bytes) => parse(&path, &bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Record {
                format: FORMAT,
                history: new_history(),
                reserved_through: 0,
                state_dir_device: 0,
                state_dir_inode: 0,
            },
            Err(source) => return Err(GenerationError::Read { path, source }),
        };
        let (device, inode) = dir.identity();
        let known = (record.state_dir_device, record.state_dir_inode);
        if known != (device, inode) && record.reserved_through > 0 {
            record.history = new_history(); // G4
        }
        record.state_dir_device = device;
        record.state_dir_inode = inode;
        let mut history = decoded(&path, &record)?;
        let mut highest = record.reserved_through.max(above);
        if let Some(seen) = seen
            && seen.history == history
            && seen.generation > highest
        {
            warn!(
                path = %path.display(),
                reserved_through = record.reserved_through,
                published = seen.generation,
                "the generation file is older than the snapshot: it was restored; a new history begins"
            );
            record.history = new_history(); // G5
            history = decoded(&path, &record)?;
            highest = seen.generation;
        }
        let first = highest
            .checked_add(1)
            .ok_or(GenerationError::Exhausted { path })?;
        let mut generations = Self {
            dir: dir.path().to_path_buf(),
            record,
            history,
        };
        generations.reserve_through(first.saturating_add(BLOCK - 1))?;
        Ok((generations, first))
    }

    /// Names the history that these generations count in.
    pub fn history(&self) -> [u8; 16] {
        self.history
    }

    /// The same, as 32 hexadecimal digits.
    pub fn history_hex(&self) -> &str {
        &self.record.history
    }

    /// G1: makes sure that the next generations after `published` may be used, 8 of them: more
    /// than any one call of the publisher takes.
    pub fn ensure(&mut self, published: u64) -> Result<(), GenerationError> {
        self.keep(published, 8)
    }

    /// The same ahead of need, for a moment when nobody waits.
    pub fn top_up(&mut self, published: u64) -> Result<(), GenerationError> {
        self.keep(published, LOW)
    }

    fn keep(&mut self, published: u64, ahead: u64) -> Result<(), GenerationError> {
        let exhausted = || GenerationError::Exhausted {
            path: self.dir.join(GENERATION_FILE),
        };
        let needed = published.checked_add(ahead).ok_or_else(exhausted)?;
        if needed <= self.record.reserved_through {
            return Ok(());
        }
        self.reserve_through(published.saturating_add(BLOCK))
    }

    fn reserve_through(&mut self, ceiling: u64) -> Result<(), GenerationError> {
        let next = Record {
            reserved_through: ceiling,
            ..self.record.clone()
        };
        serde_json::to_vec(&next)
            .map_err(io::Error::other)
            .and_then(|bytes| durable::replace(&self.dir, GENERATION_FILE, &bytes))
            .map_err(|source| GenerationError::Write {
                path: self.dir.join(GENERATION_FILE),
                source,
            })?;
        self.record = next;
        Ok(())
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Record, GenerationError> {
    let record: Record =
        serde_json::from_slice(bytes).map_err(|source| GenerationError::Damaged {
            path: path.to_path_buf(),
            source,
        })?;
    if record.format != FORMAT {
        return Err(GenerationError::BadValue {
            path: path.to_path_buf(),
            key: "format",
            value: record.format.to_string(),
        });
    }
    Ok(record)
}

fn new_history() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

fn decoded(path: &Path, record: &Record) -> Result<[u8; 16], GenerationError> {
    decode(&record.history).ok_or_else(|| GenerationError::BadValue {
        path: path.to_path_buf(),
        key: "history",
        value: record.history.clone(),
    })
}

fn decode(hex: &str) -> Option<[u8; 16]> {
    if hex.len() != 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(hex, 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path) -> Result<(Generations, u64), GenerationError> {
        Generations::open(&StateDir::open(dir).unwrap(), 0, None)
    }

    #[test]
    fn generations_never_go_back_however_a_run_ends() {
        let tmp = tempfile::tempdir().unwrap();
        let mut highest = 0;
        let mut history = None;
        // Runs of different lengths, each ended without a word.
        for publishes in [
            0,
            1,
            LOW - 1,
            LOW,
            LOW + 1,
            BLOCK - 1,
            BLOCK,
            BLOCK + 1,
            5 * BLOCK,
        ] {
            let (mut generations, first) = open(tmp.path()).unwrap();
            assert!(
                first > highest,
                "run of {publishes}: {first} after {highest}"
            );
            assert_eq!(
                *history.get_or_insert(generations.history()),
                generations.history()
            );
            highest = first;
            for _ in 0..publishes {
                generations.ensure(highest).unwrap();
                highest += 1;
                assert!(highest <= generations.record.reserved_through, "rule G1");
            }
            let on_disk = fs::read(tmp.path().join(GENERATION_FILE)).unwrap();
            assert_eq!(parse(Path::new("f"), &on_disk).unwrap(), generations.record);
        }
    }

    #[test]
    fn every_cut_of_the_file_is_an_error_and_stays_as_it_is() {
        let tmp = tempfile::tempdir().unwrap();
        let (generations, _) = open(tmp.path()).unwrap();
        let whole = serde_json::to_vec(&generations.record).unwrap();
        let path = tmp.path().join(GENERATION_FILE);
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let error = open(tmp.path()).expect_err("a cut file");
            assert!(
                matches!(error, GenerationError::Damaged { .. }),
                "cut at {cut}: {error}"
            );
            assert_eq!(fs::read(&path).unwrap(), &whole[..cut], "cut at {cut}");
        }
        for (key, from, to) in [
            ("format", "\"format\":1", "\"format\":2"),
            ("history", "\"history\":\"", "\"history\":\"x"),
        ] {
            let text = String::from_utf8(whole.clone()).unwrap().replace(from, to);
            fs::write(&path, text).unwrap();
            let error = open(tmp.path()).expect_err(key).to_string();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn a_copied_directory_begins_a_history_of_its_own_and_counts_on() {
        let tmp = tempfile::tempdir().unwrap();
        let (a, b) = (tmp.path().join("a"), tmp.path().join("b"));
        fs::create_dir(&a).unwrap();
        fs::create_dir(&b).unwrap();
        let (original, first) = open(&a).unwrap();
        fs::copy(a.join(GENERATION_FILE), b.join(GENERATION_FILE)).unwrap();
        let (copy, copy_first) = open(&b).unwrap();
        assert_ne!(original.history(), copy.history());
        assert!(copy_first > first);
        assert_eq!(open(&b).unwrap().0.history(), copy.history());
        assert_eq!(open(&a).unwrap().0.history(), original.history());
    }

    #[test]
    fn a_start_begins_above_the_number_it_is_given_too() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = StateDir::open(tmp.path()).unwrap();
        assert_eq!(
            Generations::open(&dir, 10 * BLOCK, None).unwrap().1,
            10 * BLOCK + 1
        );
        assert_eq!(Generations::open(&dir, 5, None).unwrap().1, 11 * BLOCK + 1);
    }

    #[test]
    fn a_snapshot_tells_of_a_restored_file_only_by_its_history_and_a_higher_generation() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = StateDir::open(tmp.path()).unwrap();
        let path = tmp.path().join(GENERATION_FILE);
        let (original, _) = open(tmp.path()).unwrap();
        let backup = fs::read(&path).unwrap();
        let ours = original.history();
        for above in [0, 10, 3 * BLOCK] {
            let highest = BLOCK.max(above);
            for (history, generation, restored) in [
                (ours, 1, false),
                (ours, highest, false),
                (ours, highest + 1, true),
                (ours, highest + 7 * BLOCK, true),
                ([7; 16], highest + 7 * BLOCK, false),
            ] {
                let seen = Seen {
                    history,
                    generation,
                };
                fs::write(&path, &backup).unwrap();
                let (opened, first) = Generations::open(&dir, above, Some(seen)).unwrap();
                let expected = if restored { generation } else { highest } + 1;
                assert_eq!(first, expected, "{seen:?} above {above}");
                assert_eq!(opened.history() != ours, restored, "{seen:?} above {above}");
                let (again, next) = open(tmp.path()).unwrap();
                assert_eq!(again.history(), opened.history(), "{seen:?} above {above}");
                assert!(next > first, "{seen:?} above {above}");
            }
        }
    }

    #[test]
    fn the_last_generation_is_an_error_not_a_wrap() {
        let tmp = tempfile::tempdir().unwrap();
        let (mut generations, _) = open(tmp.path()).unwrap();
        assert!(generations.ensure(u64::MAX - 3).is_err());
        generations.reserve_through(u64::MAX).unwrap();
        assert!(matches!(
            open(tmp.path()),
            Err(GenerationError::Exhausted { .. })
        ));
    }
}
