//! Recovery against the states that the entries make one by one, and every way in which files may be missing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::{Field, Schema};
use sherwood_client::Snapshot;
use sherwood_client::import::{read_parquet, to_parquet_bytes, write_parquet_atomic};
use sherwood_client::locate::{ClusterId, StateDir};
use sherwood_shared::schema::TableId;
use sherwood_shared::state::State;

use super::tools::{list, restore, salvage, verify};
use super::*;
use crate::apply::apply;
use crate::checkpoint::{CheckpointError, Free};
use crate::entry::{Effects, Entry, Outcome, Verdict};
use crate::log::{Log, LogError, Options, RealDisk};
use crate::outcomes::Outcomes;

mod last_record;

/// A state directory, and the state after each entry in it.
struct Case {
    tmp: tempfile::TempDir,
    /// By sequence; the first is what the log began with.
    states: Vec<State>,
    log: Option<Log>,
    seed: u64,
}

impl Case {
    /// With a log and a checkpoint of position 0.
    fn new(seed: u64) -> Self {
        let mut case = Self {
            tmp: tempfile::tempdir().unwrap(),
            states: vec![crate::checkpoint::tests::state(0)],
            log: None,
            seed,
        };
        case.open_log(0);
        case.checkpoint(0);
        case
    }
    fn path(&self) -> &Path {
        self.tmp.path()
    }
    fn dir(&self) -> StateDir {
        StateDir::open(self.path()).unwrap()
    }
    fn open_log(&mut self, position: u64) {
        let options = Options {
            position,
            segment_bytes: 4096,
            ..Options::default()
        };
        let (log, _) = Log::open(&log::log_dir(self.path()), options, Arc::new(RealDisk)).unwrap();
        self.log = Some(log);
    }
    fn checkpoints(&self) -> Checkpoints {
        Checkpoints::open(&self.dir(), &ClusterId::new("c").unwrap(), 0o644).unwrap()
    }
    fn at(sequence: usize) -> Position {
        let sequence = sequence as u64;
        Position {
            sequence,
            generation: if sequence == 0 { 0 } else { 100 + 2 * sequence },
        }
    }
    /// A private checkpoint of the state after entry `sequence`, made public.
    fn checkpoint(&self, sequence: usize) -> PathBuf {
        let checkpoints = self.checkpoints();
        let snapshot = Snapshot::from_state(&self.states[sequence]).unwrap();
        let written = checkpoints
            .write(&snapshot, Self::at(sequence), &mut Free)
            .unwrap();
        checkpoints.publish(&written.path, &mut Free).unwrap();
        checkpoints.prune(&mut Free).unwrap();
        written.path
    }
    fn below(&mut self, end: u64) -> u64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % end
    }
    /// Logs some more entries.
    fn append(&mut self, count: usize) {
        for _ in 0..count {
            let effects = self.effects();
            let position = Self::at(self.states.len());
            let entry = Entry {
                sequence: position.sequence,
                generation: position.generation,
                committed_at_ms: 5,
                effects,
                outcomes: vec![Outcome {
                    id: Arc::from(format!("id-{}", position.sequence)),
                    verdict: Verdict::Done { task: None },
                    generation: position.generation,
                }],
            };
            let mut next = self.states.last().unwrap().clone();
            apply(&entry.effects, &mut next).unwrap();
            self.states.push(next);
            self.log.as_mut().unwrap().append(&entry).unwrap();
        }
    }
    /// Random upserts of a few columns, new ones among them, and deletions.
    fn effects(&mut self) -> Effects {
        let mut effects = Effects::default();
        let mut rows: BTreeMap<String, Option<bool>> = BTreeMap::new();
        for _ in 0..1 + self.below(3) {
            let key = format!("t{:03}", self.below(60));
            let change = (self.below(4) > 0).then(|| self.below(2) == 0);
            rows.insert(key, change);
        }
        for wide in [false, true] {
            let keys = rows
                .iter()
                .filter(|(_, change)| **change == Some(wide))
                .map(|(key, _)| key.as_str());
            let keys: Vec<&str> = keys.collect();
            if keys.is_empty() {
                continue;
            }
            let number = i64::try_from(self.below(1000)).unwrap();
            let text =
                |text: String| -> ArrayRef { Arc::new(StringArray::from(vec![text; keys.len()])) };
            let mut columns = vec![("status", text(format!("s{number}")))];
            if wide {
                columns.push(("assigned_to", text(format!("n{number}"))));
                columns.push((
                    "theirs",
                    Arc::new(Int64Array::from(vec![number; keys.len()])),
                ));
            }
            let mut fields = vec![Field::new("id", arrow_schema::DataType::Utf8, false)];
            fields.extend(
                columns
                    .iter()
                    .map(|(name, column)| Field::new(*name, column.data_type().clone(), true)),
            );
            let mut arrays: Vec<ArrayRef> = vec![Arc::new(StringArray::from(keys.clone()))];
            arrays.extend(columns.into_iter().map(|(_, column)| column));
            let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
            effects.tables[TableId::Tasks as usize].upserts.push(batch);
        }
        let gone = rows.iter().filter(|(_, change)| change.is_none());
        effects.tables[TableId::Tasks as usize].delete = gone.map(|(key, _)| key.clone()).collect();
        effects
    }
    fn recover(&self) -> Result<Recovered, RecoverError> {
        let before = contents(self.path());
        let recovered = recover(&self.dir(), None);
        assert!(
            before == contents(self.path()),
            "B1: recovery changed a file"
        );
        recovered
    }
    fn error(&self) -> RecoverError {
        match self.recover() {
            Err(error) => error,
            Ok(recovered) => panic!("recovered the state after {:?}", recovered.position),
        }
    }
}

/// Every file below a directory.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(contents(&path)),
            false => drop(found.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    found
}

fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    // A new file: the old one may have other names.
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn recovery_after_any_prefix_of_the_log_is_the_state_that_the_entries_made_one_by_one() {
    for seed in 0..3 {
        let mut case = Case::new(seed);
        for sequence in 0..40 {
            let recovered = case.recover().unwrap();
            assert_eq!(recovered.position, Case::at(sequence), "seed {seed}");
            assert!(
                recovered.state == case.states[sequence],
                "seed {seed}, after entry {sequence}"
            );
            assert_eq!(
                (
                    recovered.warnings.len(),
                    recovered.foreign,
                    recovered.adopted.map(|adopted| adopted.path)
                ),
                (0, None, None)
            );
            if sequence % 7 == 6 {
                case.checkpoint(sequence);
                let recovered = case.recover().unwrap();
                assert_eq!(recovered.checkpoint.unwrap().sequence, sequence as u64);
                assert!(
                    recovered.state == case.states[sequence],
                    "seed {seed}, at checkpoint {sequence}"
                );
            }
            case.append(1);
        }
    }
}

#[test]
fn a_damaged_newest_checkpoint_is_replaced_by_the_older_one_and_the_log_with_a_warning() {
    let mut case = Case::new(7);
    case.append(10);
    case.checkpoint(4);
    let newest = case.checkpoint(9);
    let good = fs::read(&newest).unwrap();
    let at = good.len() / 3;
    for bad in [
        Vec::new(),
        good[..at].to_vec(),
        b"PAR1 and nothing else".to_vec(),
        vec![0; at],
        {
            let mut flipped = good.clone();
            flipped[at] ^= 1;
            flipped
        },
    ] {
        fs::remove_file(&newest).unwrap();
        fs::write(&newest, &bad).unwrap();
        let recovered = case.recover().unwrap();
        assert!(recovered.state == case.states[10], "{} bytes", bad.len());
        assert_eq!(recovered.checkpoint.unwrap().sequence, 4);
        assert!(
            recovered.warnings[0].contains("00009.parquet"),
            "{:?}",
            recovered.warnings
        );
    }
    // Swapped for the older one: it says what it holds.
    let older = newest.with_file_name(crate::checkpoint::file_name(4));
    fs::copy(&older, &newest).unwrap();
    let recovered = case.recover().unwrap();
    assert!(recovered.state == case.states[10]);
    assert!(
        recovered.warnings[0].contains("after entry 4"),
        "{:?}",
        recovered.warnings
    );
    damage(&older);
    let error = case.error();
    assert!(
        matches!(&error, RecoverError::Checkpoints { bad, .. } if bad.len() == 2),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("sherwood recover salvage"),
        "{error}"
    );
}

#[test]
fn a_checkpoint_and_a_log_that_do_not_belong_together_are_named_errors() {
    let mut case = Case::new(3);
    case.append(3);
    let log_dir = log::log_dir(case.path());
    let short = contents(&log_dir);
    case.append(6);
    case.checkpoint(5);
    case.checkpoint(8);
    // An older copy of the log.
    let whole = contents(&log_dir);
    let put = |files: &BTreeMap<PathBuf, Vec<u8>>| {
        fs::remove_dir_all(&log_dir).unwrap();
        fs::create_dir(&log_dir).unwrap();
        files
            .iter()
            .for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    };
    put(&short);
    let error = case.error();
    assert!(
        matches!(
            error,
            RecoverError::Log(LogError::EndsBefore { last: 3, needed: 8 })
        ),
        "{error:?}"
    );
    assert!(error.to_string().contains("sherwood recover"), "{error}");
    put(&whole);
    assert!(case.recover().unwrap().state == case.states[9]);
    // No log at all, or an empty directory of it.
    for empty in [true, false] {
        fs::remove_dir_all(&log_dir).unwrap();
        if empty {
            fs::create_dir(&log_dir).unwrap();
        }
        let error = case.error();
        assert!(
            matches!(error, RecoverError::NoLog { sequence: 8, .. }),
            "{error:?}"
        );
        assert!(
            error
                .to_string()
                .contains("sherwood recover restore --to 8"),
            "{error}"
        );
        fs::create_dir_all(&log_dir).unwrap();
    }
    put(&whole);
    // A log, and no checkpoint.
    fs::rename(
        case.path().join("checkpoints"),
        case.path().join("elsewhere"),
    )
    .unwrap();
    let error = case.error();
    assert!(
        matches!(error, RecoverError::NoCheckpoint { .. }),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("sherwood recover salvage"),
        "{error}"
    );
}

#[test]
fn a_directory_without_checkpoints_is_adopted_as_other_programs_left_it() {
    let state = crate::checkpoint::tests::state(3);
    let tmp = tempfile::tempdir().unwrap();
    let dir = StateDir::open(tmp.path()).unwrap();
    let cluster = ClusterId::new("c").unwrap();
    assert!(matches!(
        recover(&dir, None),
        Err(RecoverError::NoCluster { .. })
    ));
    let empty = recover(&dir, Some(&cluster)).unwrap();
    assert_eq!(
        (empty.state, empty.position, empty.checkpoint),
        (State::empty("c"), Position::default(), None)
    );
    fs::write(tmp.path().join("x.parquet"), "").unwrap();
    assert!(matches!(
        recover(&dir, Some(&cluster)),
        Err(RecoverError::NotEmpty { .. })
    ));
    fs::remove_file(tmp.path().join("x.parquet")).unwrap();

    let path = tmp.path().join("state_c.parquet");
    fs::write(&path, "PAR1 cut").unwrap();
    assert!(matches!(
        recover(&dir, None),
        Err(RecoverError::Load { .. })
    ));
    write_parquet_atomic(&state, &path).unwrap();
    for wanted in [None, Some(&cluster)] {
        let adopted = recover(&dir, wanted).unwrap();
        assert_eq!(adopted.state, state);
        assert_eq!(
            (
                adopted.adopted.map(|adopted| adopted.path),
                adopted.cluster,
                adopted.public_is_stale
            ),
            (
                Some(dir.path().join("state_c.parquet")),
                cluster.clone(),
                false
            )
        );
    }
    let other = ClusterId::new("d").unwrap();
    assert!(matches!(
        recover(&dir, Some(&other)),
        Err(RecoverError::Locate(_))
    ));
    // A crash between the first log and the first checkpoint.
    drop(
        Log::open(
            &log::log_dir(tmp.path()),
            Options::default(),
            Arc::new(RealDisk),
        )
        .unwrap(),
    );
    assert_eq!(recover(&dir, None).unwrap().state, state);
}

#[test]
fn the_public_file_may_be_gone_stale_or_anothers_and_the_state_is_the_same() {
    let mut case = Case::new(1);
    case.append(4);
    let old = fs::read(case.checkpoint(2)).unwrap();
    case.checkpoint(4);
    let public = case.path().join("state_c.parquet");
    let foreign = to_parquet_bytes(&crate::checkpoint::tests::state(77)).unwrap();
    let look = |case: &Case| {
        let recovered = case.recover().unwrap();
        assert!(recovered.state == case.states[4]);
        (recovered.public_is_stale, recovered.foreign.is_some())
    };
    assert_eq!(look(&case), (false, false));
    fs::write(&public, &old).unwrap();
    assert_eq!(look(&case), (true, false));
    fs::write(&public, &foreign).unwrap();
    assert_eq!(look(&case), (false, true));
    case.checkpoints().set_base(&foreign).unwrap();
    assert_eq!(look(&case), (false, false));
    fs::write(&public, "no state at all").unwrap();
    assert_eq!(look(&case), (false, true));
    fs::remove_file(&public).unwrap();
    assert_eq!(look(&case), (true, false));
    let other = ClusterId::new("d").unwrap();
    let error = recover(&case.dir(), Some(&other)).expect_err("another cluster");
    assert!(
        matches!(error, RecoverError::WrongCluster { .. }),
        "{error:?}"
    );
}

#[test]
fn any_state_that_is_still_in_reach_can_be_restored_and_nothing_is_deleted() {
    for to in 0..12 {
        let mut case = Case::new(5);
        case.append(11);
        case.checkpoint(3);
        case.checkpoint(7);
        case.log = None;
        fs::write(case.path().join("sherwood.generation"), "{}").unwrap();
        let before = contents(case.path());
        let done = restore(&case.dir(), to);
        if to < 3 {
            let error = done.expect_err("before the oldest checkpoint");
            assert!(
                matches!(error, RecoverError::Unreachable { .. }),
                "{to}: {error:?}"
            );
            continue;
        }
        let restored = done.unwrap();
        let to = usize::try_from(to).unwrap();
        assert_eq!(restored.position, Case::at(to));
        let recovered = case.recover().unwrap();
        assert!(recovered.state == case.states[to], "restored to {to}");
        assert_eq!(recovered.position, Case::at(to));
        assert!(!case.path().join("sherwood.generation").exists());
        assert!(
            read_parquet(&case.path().join("state_c.parquet"), None).unwrap() == case.states[to]
        );
        assert!(restored.missing.is_empty(), "{restored:?}");
        let outcomes = Outcomes::load(&log::log_dir(case.path())).unwrap();
        for id in 1..12 {
            let is_known = outcomes.get(&format!("id-{id}")).is_some();
            assert_eq!(is_known, id <= to, "id-{id}, restored to {to}");
        }
        let kept = contents(&restored.set_aside);
        for (path, bytes) in &before {
            let name = path.strip_prefix(case.path()).unwrap();
            if name != Path::new("sherwood.lock") {
                assert_eq!(
                    kept.get(&restored.set_aside.join(name)),
                    Some(bytes),
                    "{name:?}"
                );
            }
        }
        // The new log goes on from there.
        case.states.truncate(to + 1);
        case.open_log(to as u64);
        case.append(2);
        assert!(case.recover().unwrap().state == case.states[to + 2]);
    }
    let case = Case::new(5);
    let error = restore(&case.dir(), 9).expect_err("beyond the log");
    assert!(error.to_string().contains("ends with entry 0"), "{error}");
}

#[test]
fn a_restore_that_was_cut_off_after_any_move_is_finished_by_the_next_one() {
    for done in 0.. {
        let mut case = Case::new(9);
        case.append(6);
        case.checkpoint(4);
        case.log = None;
        fs::write(case.path().join("sherwood.generation"), "{}").unwrap();
        let moves = tools::cut_off(&case.dir(), 5, done).unwrap();
        let error = case.error();
        assert!(matches!(error, RecoverError::Restoring { .. }), "{error:?}");
        let restored = restore(&case.dir(), 3).unwrap();
        assert_eq!(restored.position, Case::at(5), "{done} of {moves} moves");
        assert!(
            case.recover().unwrap().state == case.states[5],
            "{done} of {moves} moves"
        );
        assert_eq!(fs::read_dir(restored.set_aside).unwrap().count(), 4);
        if done == moves {
            break;
        }
    }
}

#[test]
fn a_restore_and_a_running_daemon_exclude_each_other() {
    let case = Case::new(1);
    let holder = crate::lock::Holder::this_process(case.path(), Path::new("/run"));
    let _held =
        crate::lock::Lock::acquire(&case.path().join(crate::lock::STATE_LOCK), &holder).unwrap();
    assert!(matches!(
        restore(&case.dir(), 0),
        Err(RecoverError::Lock(_))
    ));
}

#[test]
fn a_salvage_saves_what_can_be_read_and_says_what_is_missing() {
    let mut case = Case::new(11);
    case.append(8);
    case.checkpoint(3);
    let newest = case.checkpoint(6);
    let out = case.path().join("salvaged");
    let salvaged = |case: &Case| {
        let _ = fs::remove_file(&out);
        let done = salvage(&case.dir(), &out).unwrap();
        (read_parquet(&out, None).unwrap(), done)
    };
    let (state, done) = salvaged(&case);
    assert!(
        state == case.states[8] && done.missing.is_empty(),
        "{done:?}"
    );
    assert!(matches!(
        salvage(&case.dir(), &out),
        Err(RecoverError::Exists { .. })
    ));
    damage(&newest);
    let (state, done) = salvaged(&case);
    assert!(
        state == case.states[8] && done.missing.len() == 1,
        "{done:?}"
    );
    damage(&newest.with_file_name(crate::checkpoint::file_name(3)));
    let (state, done) = salvaged(&case);
    assert!(
        state == case.states[8] && done.missing.len() == 3,
        "{done:?}"
    );
    fs::remove_dir_all(log::log_dir(case.path())).unwrap();
    let (state, done) = salvaged(&case);
    assert!(
        state == case.states[6] && done.missing.last().unwrap().contains("after entry 6"),
        "{done:?}"
    );
}

#[test]
fn a_listing_tells_the_good_from_the_bad() {
    let mut case = Case::new(2);
    case.append(5);
    case.checkpoint(2);
    let newest = case.checkpoint(4);
    for listing in [list(&case.dir()).unwrap(), verify(&case.dir()).unwrap()] {
        let sequences: Vec<u64> = listing
            .checkpoints
            .iter()
            .map(|line| line.sequence)
            .collect();
        assert_eq!(sequences, [4, 2]);
        assert!(
            listing
                .checkpoints
                .iter()
                .all(|line| line.problem.is_none() && line.generation.is_some()),
            "{listing:?}"
        );
        let log = &listing.log;
        assert_eq!(
            (log.first, log.last, log.problem.as_deref()),
            (Some(Case::at(1)), Some(Case::at(5)), None)
        );
        assert!(!log.segments.is_empty());
    }
    damage(&newest);
    for listing in [list(&case.dir()).unwrap(), verify(&case.dir()).unwrap()] {
        let bad: Vec<bool> = listing
            .checkpoints
            .iter()
            .map(|line| line.problem.is_some())
            .collect();
        assert_eq!(bad, [true, false]);
    }
}

#[test]
fn a_checkpoint_that_cannot_be_listed_is_said_with_its_path() {
    let case = Case::new(2);
    fs::remove_dir_all(case.path().join("checkpoints")).unwrap();
    fs::write(case.path().join("checkpoints"), "a file").unwrap();
    let error = case.error();
    assert!(
        matches!(error, RecoverError::Checkpoint(CheckpointError::Io { .. })),
        "{error:?}"
    );
}

#[test]
fn a_damaged_checkpoint_that_was_set_aside_is_none_of_the_two_that_are_kept() {
    let mut case = Case::new(7);
    case.append(10);
    case.checkpoint(4);
    let newest = case.checkpoint(9);
    damage(&newest);
    let recovered = case.recover().unwrap();
    assert_eq!(recovered.damaged, std::slice::from_ref(&newest));
    case.checkpoints()
        .set_damaged_aside(&recovered.damaged)
        .unwrap();
    assert!(newest.with_extension("parquet.damaged").exists());
    assert_eq!(case.checkpoints().oldest_kept().unwrap(), 0);
    case.checkpoint(10);
    let kept = case.checkpoints().list().unwrap();
    let kept: Vec<u64> = kept.iter().map(|listed| listed.sequence).collect();
    assert_eq!(kept, [10, 4]);
}

#[test]
fn whatever_stands_at_the_public_name_does_not_keep_a_state_from_coming_back() {
    let mut case = Case::new(7);
    case.append(6);
    case.checkpoint(4);
    let public = case.path().join("state_c.parquet");
    for what in ["a FIFO", "a directory", "a link to itself"] {
        let _ = fs::remove_file(&public);
        let _ = fs::remove_dir(&public);
        match what {
            "a FIFO" => nix::unistd::mkfifo(&public, nix::sys::stat::Mode::S_IRWXU).unwrap(),
            "a directory" => fs::create_dir(&public).unwrap(),
            _ => std::os::unix::fs::symlink(&public, &public).unwrap(),
        }
        let recovered = recover(&case.dir(), None).unwrap();
        assert!(recovered.state == case.states[6], "{what}");
        assert!(recovered.foreign.is_some(), "{what}");
        let is_said = recovered.warnings.iter().any(|w| w.contains("state_c"));
        assert_eq!(is_said, what == "a link to itself", "{what}");
        assert_eq!(
            case.checkpoints().public().unwrap(),
            Public::Foreign,
            "{what}"
        );
    }
}

#[test]
fn the_only_checkpoint_is_the_base_where_a_first_start_was_cut_off_before_it() {
    let mut case = Case::new(7);
    case.append(1);
    let base = case.checkpoints().base();
    fs::remove_file(&base).unwrap();
    fs::remove_file(case.path().join("state_c.parquet")).unwrap();
    let listed = case.checkpoints().list().unwrap();
    assert_eq!(fs::read(&base).unwrap(), fs::read(&listed[0].path).unwrap());
}

/// Ways to damage a segment.
const WAYS: [&str; 4] = ["deleted", "header", "record", "manifest"];

/// A log of 60 entries in small segments, checkpoints of 10 and 30, and damage to one of its segments, or to the manifest.
/// With the first sequence that is damaged and the first that is not any more.
fn damaged_log(way: &str, at: usize) -> Option<(Case, u64, u64)> {
    let mut case = Case::new(21);
    case.append(60);
    case.checkpoint(10);
    case.checkpoint(30);
    case.log = None;
    let dir = log::log_dir(case.path());
    let segments = list(&case.dir()).unwrap().log.segments;
    let segment = segments.get(at)?;
    let next = segments.get(at + 1).map_or(61, |next| next.first_sequence);
    let mut bytes = fs::read(&segment.path).unwrap();
    match way {
        "deleted" => fs::remove_file(&segment.path).unwrap(),
        "header" => {
            bytes[70] ^= 1;
            fs::write(&segment.path, bytes).unwrap();
        }
        "record" => {
            bytes[128 + 64 + 10] ^= 1;
            fs::write(&segment.path, bytes).unwrap();
            return Some((case, segment.first_sequence, segment.first_sequence + 1));
        }
        _ if at > 0 => return None,
        _ => {
            fs::write(dir.join("manifest"), "none").unwrap();
            return Some((case, 61, 61));
        }
    }
    Some((case, segment.first_sequence, next))
}

#[test]
fn damage_behind_the_newest_checkpoint_leaves_everything_before_it_to_a_restore_and_the_rest_to_a_salvage()
 {
    let mut seen = [0, 0];
    for way in WAYS {
        for at in 0.. {
            let Some((mut case, first, next)) = damaged_log(way, at) else {
                break;
            };
            let what = format!("{way}: segment {at}, entries {first} to {}", next - 1);
            let out = case.path().join("saved");
            let saved = salvage(&case.dir(), &out).unwrap();
            if way != "record" {
                let through = if next > 60 { first - 1 } else { 60 };
                assert_eq!(saved.through, through.max(30), "{what}: {saved:?}");
            }
            fs::remove_file(&out).unwrap();
            match case.recover() {
                // L12: the checkpoint holds it.
                Ok(recovered) => {
                    assert!(next <= 31, "{what}");
                    assert!(recovered.state == case.states[60], "{what}");
                    seen[0] += 1;
                    case.open_log(30);
                    case.append(3);
                    let again = case.recover().unwrap();
                    assert!(again.state == case.states[63], "{what}: after it went on");
                    let log = case.log.as_ref().unwrap();
                    log.release(30).unwrap();
                    let again = case.recover().unwrap();
                    assert!(again.state == case.states[63], "{what}: after a release");
                }
                Err(error) => {
                    assert!(next > 31 || way == "record", "{what}: {error}");
                    seen[1] += 1;
                    let text = error.to_string();
                    assert!(text.contains("sherwood recover restore"), "{what}: {text}");
                    // A segment that holds entries of both, with its schemas in the damaged record.
                    let to = match first <= 30 {
                        true => 30,
                        false => first - 1,
                    };
                    let restored = restore(&case.dir(), to);
                    let restored = restored.unwrap_or_else(|error| panic!("{what}: {error}"));
                    assert_eq!(restored.position.sequence, to, "{what}");
                    let at = usize::try_from(to).unwrap();
                    assert!(case.recover().unwrap().state == case.states[at], "{what}");
                }
            }
        }
    }
    assert!(seen[0] >= 3 && seen[1] >= 3, "{seen:?}");
}
