//! What stands in a directory after every way in which writing may end.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::{
    ArrayRef, Int64Array, RecordBatch, StringArray, StructArray, TimestampMillisecondArray,
};
use arrow_schema::{DataType, Field};
use bytes::Bytes;
use sherwood_client::Snapshot;
use sherwood_client::import::{read_parquet, read_parquet_bytes, to_parquet_bytes};
use sherwood_client::locate::{ClusterId, StateDir};
use sherwood_shared::schema::{TableId, table_schema};
use sherwood_shared::state::State;

use super::*;

fn of(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let columns = columns
        .into_iter()
        .map(|(name, column)| (name, column, true));
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

fn strings(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

/// Every table, nulls, lists, structs, an added field, columns of others.
pub(crate) fn state(mark: i64) -> State {
    let cluster = of(vec![
        ("cluster_id", strings(&[Some("c")])),
        (
            "updated_at",
            Arc::new(TimestampMillisecondArray::from(vec![mark])),
        ),
        ("region", strings(&[Some("north")])),
    ]);
    let mut peers = ListBuilder::new(StringBuilder::new());
    peers.append_value([Some("n2"), None]);
    peers.append_null();
    let field = |name, data_type| Arc::new(Field::new(name, data_type, true));
    let resources = StructArray::new(
        vec![
            field("memory_total", DataType::Int64),
            field("theirs", DataType::Utf8),
        ]
        .into(),
        vec![
            Arc::new(Int64Array::from(vec![Some(1 << 40), None])),
            strings(&[None, Some("x")]),
        ],
        Some(vec![true, true].into()),
    );
    let nodes = of(vec![
        ("id", strings(&[Some("n1"), Some("n2")])),
        ("peers", Arc::new(peers.finish())),
        ("resources", Arc::new(resources)),
        ("rack", strings(&[Some("r7"), None])),
    ]);
    let ids: Vec<String> = (0..40).map(|n| format!("t{n:03}")).collect();
    let tasks = of(vec![
        ("id", Arc::new(StringArray::from(ids))),
        (
            "started_at",
            Arc::new(TimestampMillisecondArray::from_iter(
                (0..40).map(|n| (n % 3 == 0).then_some(n)),
            )),
        ),
    ]);
    State::new(
        cluster,
        [
            nodes,
            tasks,
            RecordBatch::new_empty(table_schema(TableId::Content)),
        ],
    )
    .unwrap()
}

struct Case {
    tmp: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        Self {
            tmp: tempfile::tempdir().unwrap(),
        }
    }
    fn open(&self) -> Checkpoints {
        let dir = StateDir::open(self.tmp.path()).unwrap();
        Checkpoints::open(&dir, &ClusterId::new("c").unwrap(), 0o640).unwrap()
    }
    fn public(&self) -> std::path::PathBuf {
        self.tmp.path().join("state_c.parquet")
    }
}

fn snapshot(state: &State) -> Snapshot {
    Snapshot::from_state(state).unwrap()
}

fn at(sequence: u64) -> Position {
    Position {
        sequence,
        generation: 10 * sequence,
    }
}

fn read(path: &Path) -> State {
    read_parquet(path, Some("c")).unwrap_or_else(|error| panic!("{path:?}: {error:?}"))
}

#[test]
fn a_checkpoint_is_the_file_that_the_state_as_a_whole_would_be() {
    for state in [state(1), State::empty("c")] {
        let mut bytes = Vec::new();
        export(&snapshot(&state), &mut bytes, &mut Free).unwrap();
        assert_eq!(bytes, to_parquet_bytes(&state).unwrap());
    }
}

#[test]
fn a_checkpoint_is_written_made_public_and_found_again() {
    let case = Case::new();
    let checkpoints = case.open();
    assert_eq!(checkpoints.public().unwrap(), Public::Missing);
    assert_eq!(checkpoints.oldest_kept().unwrap(), 0);
    for sequence in 0..4 {
        let state = state(sequence.try_into().unwrap());
        let written = checkpoints
            .write(&snapshot(&state), at(sequence), &mut Free)
            .unwrap();
        assert_eq!(written.position, at(sequence));
        assert_eq!(fs::metadata(&written.path).unwrap().len(), written.bytes);
        let bytes = Bytes::from(fs::read(&written.path).unwrap());
        assert_eq!(read_position(&bytes), Some(at(sequence)));
        checkpoints.publish(&written.path, &mut Free).unwrap();
        checkpoints.prune(&mut Free).unwrap();
        for path in [&written.path, &case.public(), &checkpoints.base()] {
            assert_eq!(read(path), state, "{path:?}");
        }
        assert_eq!(checkpoints.public().unwrap(), Public::Ours);
    }
    let kept: Vec<u64> = checkpoints
        .list()
        .unwrap()
        .iter()
        .map(|listed| listed.sequence)
        .collect();
    assert_eq!((kept, checkpoints.oldest_kept().unwrap()), (vec![3, 2], 2));
    let foreign = to_parquet_bytes(&state(99)).unwrap();
    fs::write(case.public(), &foreign).unwrap();
    assert_eq!(checkpoints.public().unwrap(), Public::Foreign);
    checkpoints.set_base(&foreign).unwrap();
    assert_eq!(checkpoints.public().unwrap(), Public::Merged);
    assert_eq!(
        fs::read_dir(case.tmp.path().join(DIRECTORY))
            .unwrap()
            .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().is_file()))
            .count(),
        3
    );
}

#[test]
fn on_a_full_disk_what_is_kept_in_case_is_given_up_for_a_newest_checkpoint_that_is_whole() {
    let case = Case::new();
    let checkpoints = case.open();
    assert_eq!(checkpoints.make_room(&mut Free).unwrap(), Room::default());
    for sequence in 1..4 {
        let state = state(sequence.try_into().unwrap());
        let written = checkpoints
            .write(&snapshot(&state), at(sequence), &mut Free)
            .unwrap();
        checkpoints.publish(&written.path, &mut Free).unwrap();
    }
    let newest = checkpoints.list().unwrap()[0].path.clone();
    let good = fs::read(&newest).unwrap();
    let mut damaged = good.clone();
    damaged[100] ^= 1;
    fs::write(&newest, damaged).unwrap();
    let error = checkpoints.make_room(&mut Free).unwrap_err();
    assert!(
        matches!(
            error,
            CheckpointError::Io {
                action: "rely on",
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(checkpoints.list().unwrap().len(), 3);
    fs::write(&newest, good).unwrap();
    let bases = checkpoints.bases().unwrap().len();
    let room = |given_up| Room {
        through: 3,
        given_up,
    };
    // Foreign programs may be at work on what the bases were: they are left, until that turns out not to be enough.
    assert_eq!(checkpoints.make_room(&mut Free).unwrap(), room(2));
    assert_eq!(checkpoints.bases().unwrap().len(), bases);
    let second = checkpoints.make_room(&mut Free).unwrap();
    assert_eq!(second, room(3), "of {bases} bases");
    for path in [&newest, &case.public(), &checkpoints.base()] {
        assert_eq!(read(path), state(3), "{path:?}");
    }
    let left: Vec<u64> = checkpoints
        .list()
        .unwrap()
        .iter()
        .map(|l| l.sequence)
        .collect();
    assert_eq!((left, checkpoints.oldest_kept().unwrap()), (vec![3], 0));
}

/// Fails at one step; as a full disk does, or as a crash does: then every later step fails too, and nothing is cleaned up.
struct Failing {
    left: usize,
    crash: bool,
    failed_at: Option<Step>,
}

impl Pace for Failing {
    fn before(&mut self, step: Step) -> Result<(), Halt> {
        let fail = || Err(Halt::Fail(io::Error::from(io::ErrorKind::StorageFull)));
        if self.failed_at.is_some() && self.crash {
            return fail();
        }
        if self.failed_at.is_none() && self.left == 0 {
            self.failed_at = Some(step);
            return fail();
        }
        self.left = self.left.saturating_sub(1);
        Ok(())
    }
}

#[test]
fn whatever_step_fails_or_is_the_last_a_good_checkpoint_and_a_good_public_file_stay() {
    let (old, new) = (state(1), state(2));
    for crash in [false, true] {
        let mut steps = Vec::new();
        for left in 0.. {
            let case = Case::new();
            let checkpoints = case.open();
            let written = checkpoints
                .write(&snapshot(&old), at(1), &mut Free)
                .unwrap();
            checkpoints.publish(&written.path, &mut Free).unwrap();
            let mut pace = Failing {
                left,
                crash,
                failed_at: None,
            };
            let done = checkpoints
                .write(&snapshot(&new), at(2), &mut pace)
                .and_then(|written| checkpoints.publish(&written.path, &mut pace))
                .and_then(|_| checkpoints.prune(&mut pace));
            let place = format!("crash: {crash}, step {left}: {:?}", pace.failed_at);
            let Some(step) = pace.failed_at else {
                done.unwrap();
                break;
            };
            let error = done.expect_err(&place);
            assert!(
                matches!(error, CheckpointError::Io { .. }),
                "{place}: {error:?}"
            );
            steps.push(step);
            // C1 and C2, before anybody tidies up.
            for listed in checkpoints.list().unwrap() {
                let expected = if listed.sequence == 1 { &old } else { &new };
                assert_eq!(&read(&listed.path), expected, "{place}");
            }
            let public = read(&case.public());
            assert!(public == old || public == new, "{place}");
            // C3: never newer than the public file.
            let base = read(&checkpoints.base());
            assert!(base == public || base == old, "{place}");
            let temporary = |dir: &Path| {
                fs::read_dir(dir).unwrap().any(|entry| {
                    entry
                        .unwrap()
                        .path()
                        .extension()
                        .is_some_and(|e| e == "tmp")
                })
            };
            let dirs = [case.tmp.path().join(DIRECTORY), case.tmp.path().to_owned()];
            assert!(crash || !dirs.iter().any(|dir| temporary(dir)), "{place}");
            // The next start, and the next try.
            let checkpoints = case.open();
            assert!(!temporary(&dirs[0]), "{place}");
            assert_eq!(read(&checkpoints.base()), public, "{place}");
            let written = checkpoints
                .write(&snapshot(&new), at(2), &mut Free)
                .unwrap();
            checkpoints.publish(&written.path, &mut Free).unwrap();
            assert!(!temporary(&dirs[1]), "{place}");
            assert_eq!(read(&case.public()), new, "{place}");
        }
        for step in [
            Step::Create,
            Step::Gather,
            Step::Encode,
            Step::Allocate,
            Step::Write,
            Step::Seal,
            Step::Sync,
            Step::Name,
            Step::Copy,
            Step::Publish,
            Step::Base,
            Step::SyncDirectory,
        ] {
            assert!(
                steps.contains(&step),
                "{step:?} was never the one that failed"
            );
        }
    }
}

#[test]
fn every_cut_and_every_flipped_bit_is_a_named_error_or_the_same_state() {
    let case = Case::new();
    let checkpoints = case.open();
    let state = State::empty("c");
    let written = checkpoints
        .write(&snapshot(&state), at(7), &mut Free)
        .unwrap();
    let bytes = fs::read(&written.path).unwrap();
    for cut in 0..bytes.len() {
        let result = read_parquet_bytes(bytes[..cut].to_vec(), &written.path, Some("c"));
        assert!(result.is_err(), "cut at byte {cut}");
        let _ = read_position(&Bytes::from(bytes[..cut].to_vec()));
    }
    for bit in 0..8 * bytes.len() {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(found) = read_parquet_bytes(flipped, &written.path, Some("c")) {
            assert_eq!(found, state, "bit {bit}");
        }
    }
}

#[test]
fn a_checkpoint_that_is_told_to_stop_says_so_and_leaves_nothing() {
    struct Stopping;
    impl Pace for Stopping {
        fn before(&mut self, step: Step) -> Result<(), Halt> {
            if step == Step::Encode {
                Err(Halt::Stop)
            } else {
                Ok(())
            }
        }
    }
    let case = Case::new();
    let checkpoints = case.open();
    let stopped = checkpoints.write(&snapshot(&state(1)), at(1), &mut Stopping);
    assert!(
        matches!(stopped, Err(CheckpointError::Stopped)),
        "{stopped:?}"
    );
    assert_eq!(
        fs::read_dir(case.tmp.path().join(DIRECTORY))
            .unwrap()
            .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().is_file()))
            .count(),
        0
    );
}

#[test]
fn a_new_public_file_has_the_mode_it_is_told_and_an_old_one_keeps_its_own() {
    use std::os::unix::fs::PermissionsExt;
    let case = Case::new();
    let checkpoints = case.open();
    let written = checkpoints
        .write(&snapshot(&state(1)), at(1), &mut Free)
        .unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    checkpoints.publish(&written.path, &mut Free).unwrap();
    assert_eq!(mode(&case.public()), 0o640, "a new one");
    fs::write(case.public(), "theirs").unwrap();
    fs::set_permissions(case.public(), fs::Permissions::from_mode(0o664)).unwrap();
    checkpoints.publish(&written.path, &mut Free).unwrap();
    assert_eq!((mode(&case.public()), mode(&written.path)), (0o664, 0o600));
}

#[test]
fn a_refused_file_is_moved_aside_with_its_reason_and_no_other_is_overwritten() {
    let case = Case::new();
    let checkpoints = case.open();
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..20 {
        fs::write(case.public(), format!("file {round}")).unwrap();
        let rejected = checkpoints
            .reject(&case.public(), &format!("reason {round}"))
            .unwrap();
        assert!(!case.public().exists());
        assert_eq!(
            fs::read_to_string(&rejected.path).unwrap(),
            format!("file {round}")
        );
        assert_eq!(
            fs::read_to_string(&rejected.reason).unwrap(),
            format!("reason {round}\n")
        );
        assert!(
            rejected
                .path
                .to_string_lossy()
                .ends_with("-state_c.parquet"),
            "{rejected:?}"
        );
        assert!(seen.insert(rejected.path));
    }
}
