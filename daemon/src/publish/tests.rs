//! Staging, and what becomes of it: committed, abandoned, dropped, failed at any step.

use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use nix::libc;
use parquet::file::metadata::ParquetMetaDataReader;
use proptest::prelude::*;
use sherwood_client::Reader;
use sherwood_client::import::to_parquet_bytes;
use sherwood_shared::schema::TableId;
use sherwood_store::{TableEffects, apply};

use super::space::Fault;
use super::totals::Totals;
use super::*;

const CONTENT: usize = TableId::Content as usize;

fn options(run_dir: &Path) -> Options {
    Options {
        run_dir: run_dir.to_owned(),
        cluster_id: "c".to_owned(),
        state_dir: (1, 2),
        history: [7; 16],
        region_bytes: Some(32 << 10),
        chunk_bytes: Some(2048),
        mode: 0o600,
    }
}

fn key(number: u16) -> String {
    format!(
        "cid-{number:05}-{}",
        "x".repeat(usize::from(number % 7) * 3)
    )
}

/// Rows of content with some of its columns; `extra`: one that the table does not know.
fn rows(keys: &[u16], version: i64, extra: bool) -> RecordBatch {
    let names: ArrayRef = Arc::new(StringArray::from_iter_values(
        keys.iter().map(|&at| key(at)),
    ));
    let sizes: ArrayRef = Arc::new(Int64Array::from(vec![version; keys.len()]));
    let mut lists = ListBuilder::new(StringBuilder::new());
    for &at in keys {
        for item in 0..u64::from(at % 4) + version.unsigned_abs() % 3 {
            lists.values().append_value(format!("{version}/{item}"));
        }
        lists.append(at % 5 != 0);
    }
    let lists: ArrayRef = Arc::new(lists.finish());
    let mut columns = vec![("cid", names, false), ("size", sizes, true)];
    if version % 2 == 0 {
        columns.push(("providers", lists, true));
    }
    if extra {
        let notes = keys
            .iter()
            .map(|&at| (at % 3 != 0).then(|| format!("n{at}-{version}")));
        let notes: ArrayRef = Arc::new(StringArray::from_iter(notes));
        columns.push(("notes", notes, true));
    }
    RecordBatch::try_from_iter_with_nullable(columns).expect("fits")
}

fn content(upserts: Vec<RecordBatch>, delete: Vec<String>) -> Effects {
    let mut effects = Effects::default();
    effects.tables[CONTENT] = TableEffects { upserts, delete };
    effects
}

fn put(keys: impl IntoIterator<Item = u16>, version: i64) -> Effects {
    let keys: Vec<u16> = keys.into_iter().collect();
    content(vec![rows(&keys, version, false)], Vec::new())
}

fn start(run_dir: &Path, rows: u16) -> (Publisher, State) {
    let mut state = State::empty("c");
    apply(&put(0..rows, 2), &mut state).expect("applies");
    let publisher = Publisher::start(options(run_dir), &state, 1).expect("starts");
    (publisher, state)
}

/// What readers see, through a reader of its own; and the publisher's own view and sums.
fn check(publisher: &mut Publisher, state: &State, what: &str) {
    let reader = Reader::open(publisher.path()).expect("opens");
    let seen = reader.snapshot().expect("reads");
    assert_eq!(seen.generation(), publisher.generation(), "{what}");
    assert!(
        seen.to_state().expect("reads") == *state,
        "{what}: other rows"
    );
    for id in TableId::ALL {
        let mut expected = Totals::default();
        expected.add(state.table(id));
        let (rows, columns) = publisher.writer.totals()[id as usize].numbers();
        let (expected_rows, expected) = expected.numbers();
        assert_eq!(rows, expected_rows, "{what}: rows of {}", id.name());
        // What was never measured yet is 0.
        let columns: Vec<u64> = columns.to_vec();
        let padded = columns
            .iter()
            .chain(std::iter::repeat(&0))
            .take(expected.len());
        assert!(padded.eq(expected), "{what}: {columns:?}, not {expected:?}");
    }
    let view = publisher.snapshot();
    assert_eq!(view.generation(), seen.generation(), "{what}");
}

/// A step, and what becomes of what it staged.
#[derive(Clone, Debug)]
enum Step {
    Put(Vec<u16>, bool),
    Delete(u16, u16),
    Both(Vec<u16>, u16, u16),
    Whole(u16),
}

fn step() -> impl Strategy<Value = (Step, u8)> {
    let keys = || proptest::collection::vec(0_u16..3000, 1..80);
    let step = prop_oneof![
        6 => (keys(), prop::bool::weighted(0.1)).prop_map(|(keys, extra)| Step::Put(keys, extra)),
        2 => (0_u16..3000, 0_u16..700).prop_map(|(start, len)| Step::Delete(start, len)),
        2 => (keys(), 0_u16..3000, 0_u16..700).prop_map(|(keys, start, len)| Step::Both(keys, start, len)),
        1 => (0_u16..1500).prop_map(Step::Whole),
    ];
    (step, 0_u8..6)
}

fn effects_of(step: &Step, version: i64) -> Option<Effects> {
    let sorted = |keys: &[u16]| {
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        keys.dedup();
        keys
    };
    Some(match step {
        Step::Put(keys, extra) => content(vec![rows(&sorted(keys), version, *extra)], Vec::new()),
        Step::Delete(from, len) => content(Vec::new(), (*from..from + len).map(key).collect()),
        Step::Both(keys, from, len) => {
            let gone = *from..from + len;
            let (odd, even): (Vec<u16>, Vec<u16>) = sorted(keys)
                .into_iter()
                .filter(|at| !gone.contains(at))
                .partition(|at| at % 2 == 1);
            let upserts = vec![rows(&odd, version, false), rows(&even, version + 1, false)];
            content(upserts, gone.map(key).collect())
        }
        Step::Whole(_) => return None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn readers_see_what_was_committed_and_nothing_of_what_was_abandoned(
        first in 0_u16..1500,
        steps in proptest::collection::vec(step(), 1..30),
    ) {
        let run_dir = tempfile::tempdir().expect("a directory");
        let (mut publisher, mut state) = start(run_dir.path(), first);
        for (version, (step, fate)) in (3_i64..).zip(&steps) {
            let before = publisher.generation();
            let Some(effects) = effects_of(step, version) else {
                let Step::Whole(rows) = step else { continue };
                let mut next = State::empty("c");
                apply(&put((0..*rows).map(|at| at * 2), version), &mut next).expect("applies");
                publisher.publish(&next).expect("publishes");
                state = next;
                check(&mut publisher, &state, "a whole state");
                continue;
            };
            let mut next = state.clone();
            apply(&effects, &mut next).expect("applies");
            let Some(staged) = publisher.stage(&effects).expect("stages") else {
                prop_assert_eq!(&next, &state, "version {}", version);
                continue;
            };
            prop_assert_eq!(staged.generation(), before + 1);
            check(&mut publisher, &state, "staged");
            match fate {
                0 => publisher.abandon(staged),
                1 => drop(staged),
                _ => {
                    let published = publisher.commit(staged);
                    prop_assert_eq!(published.generation, before + 1);
                    state = next;
                }
            }
            check(&mut publisher, &state, "settled");
            let table = publisher.snapshot().table(TableId::Content);
            let mut small = 0;
            for batch in table.batches() {
                let batch = batch.expect("decodes");
                let bytes = chunk_body_bytes(&batch);
                prop_assert!(batch.num_rows() == 1 || bytes <= 2048, "{} bytes", bytes);
                small += usize::from(bytes < 256);
            }
            let count = publisher.snapshot().table(TableId::Content).chunk_count();
            prop_assert!(small <= 1 + count / 2, "{} crumbs of {}", small, count);
            if fate % 3 == 0 {
                publisher.housekeep().expect("keeps house");
            }
        }
    }
}

/// Every place, write, copy and allocation of a stage fails once.
#[test]
fn a_stage_that_fails_at_any_step_changes_nothing_and_the_next_one_works() {
    for (errno, for_good) in [
        (libc::EIO, false),
        (libc::ENOSPC, false),
        (libc::ENOSPC, true),
    ] {
        let run_dir = tempfile::tempdir().expect("a directory");
        let (mut publisher, mut state) = start(run_dir.path(), 600);
        let (mut after, mut failed) = (0, 0);
        for version in 3.. {
            let keys =
                (0..90_u16).map(|at| (at * 7 + u16::try_from(version % 5).expect("small")) % 700);
            let keys: std::collections::BTreeSet<u16> = keys.collect();
            let effects = put(keys, version);
            let mut next = state.clone();
            apply(&effects, &mut next).expect("applies");
            let what =
                format!("errno {errno}, for good: {for_good}, step {after}, version {version}");
            let generation = publisher.generation();
            let fault = Fault {
                after,
                errno,
                for_good,
            };
            publisher.writer.space().fault.set(Some(fault));
            let staged = publisher.stage(&effects);
            let reached = publisher
                .writer
                .space()
                .fault
                .take()
                .is_none_or(|left| left.after == 0);
            match staged {
                Ok(staged) => {
                    // A full file system may have been squeezed, or not reached.
                    assert!(
                        errno == libc::ENOSPC || !reached,
                        "{what}: a failure was lost"
                    );
                    publisher.commit(staged.expect("a change"));
                    state = next;
                }
                Err(error) => {
                    let expected = matches!(
                        (&error, errno),
                        (PublishError::Io { .. }, libc::EIO)
                            | (PublishError::Full { .. }, libc::ENOSPC)
                    );
                    assert!(expected, "{what}: {error:?}");
                    failed += 1;
                    if errno == libc::EIO {
                        assert_eq!(publisher.generation(), generation, "{what}");
                    }
                    check(&mut publisher, &state, &what);
                    let staged = publisher
                        .stage(&effects)
                        .expect("stages")
                        .expect("a change");
                    publisher.commit(staged);
                    state = next;
                }
            }
            check(&mut publisher, &state, &what);
            if !reached {
                break;
            }
            after += 1;
        }
        assert!(
            for_good || errno == libc::ENOSPC || failed > 20,
            "only {failed} steps failed"
        );
        assert!(after > 20, "only {after} steps");
    }
}

#[test]
fn a_snapshot_of_the_publishers_own_stays_as_it_is_while_regions_are_used_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut publisher, mut state) = start(dir.path(), 300);
    let (kept, expected) = (publisher.snapshot().clone(), state.clone());
    for version in 3..200 {
        let effects = put(
            (0..300).filter(|at| i64::from(at % 3) == version % 3),
            version,
        );
        apply(&effects, &mut state).expect("applies");
        publisher.publish_effects(&effects).expect("publishes");
    }
    let used = publisher.usage();
    assert!(
        used.file_bytes < 100 * used.region_bytes,
        "no region was used again"
    );
    assert!(kept.to_state().expect("reads") == expected, "other rows");
    check(&mut publisher, &state, "at the end");
}

#[test]
fn while_a_generation_is_staged_nothing_else_is_written() {
    let run_dir = tempfile::tempdir().expect("a directory");
    let (mut publisher, mut state) = start(run_dir.path(), 50);
    let effects = put([3], 4);
    let staged = publisher
        .stage(&effects)
        .expect("stages")
        .expect("a change");
    let refused = |error| matches!(error, PublishError::Staged { generation: 2 });
    assert!(publisher.stage(&effects).is_err_and(refused));
    assert!(publisher.publish(&State::empty("c")).is_err_and(refused));
    publisher.housekeep().expect("does nothing");
    std::fs::remove_file(publisher.path()).expect("removes");
    assert!(!publisher.beat().expect("does nothing"));
    publisher.commit(staged);
    apply(&effects, &mut state).expect("applies");
    assert!(publisher.beat().expect("makes a new file"));
    check(&mut publisher, &state, "a new file");
    assert_eq!(publisher.generation(), 3);
}

#[test]
fn what_another_publisher_staged_is_neither_committed_nor_abandoned() {
    let [first, second] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let (mut publisher, state) = start(first.path(), 50);
    let (mut other, _) = start(second.path(), 50);
    let own = publisher
        .stage(&put([3], 4))
        .expect("stages")
        .expect("a change");
    let foreign = other
        .stage(&put([3], 4))
        .expect("stages")
        .expect("a change");
    assert_eq!(publisher.commit(foreign).generation, 1);
    check(&mut publisher, &state, "foreign");
    assert_eq!(publisher.commit(own).generation, 2);
}

#[test]
fn a_row_larger_than_a_region_gets_a_new_file_before_it_is_staged() {
    let run_dir = tempfile::tempdir().expect("a directory");
    let (mut publisher, mut state) = start(run_dir.path(), 300);
    let reader = Reader::open(publisher.path()).expect("opens");
    let mut handle = reader.handle().expect("a handle");
    let cid: ArrayRef = Arc::new(StringArray::from(vec!["large-1", "large-2"]));
    let notes: ArrayRef = Arc::new(StringArray::from(vec![
        "a".repeat(40 << 10),
        "b".repeat(1 << 20),
    ]));
    let effects = content(
        vec![RecordBatch::try_from_iter([("cid", cid), ("notes", notes)]).expect("fits")],
        Vec::new(),
    );
    let staged = publisher
        .stage(&effects)
        .expect("stages")
        .expect("a change");
    assert_eq!(staged.generation(), 3);
    assert!(publisher.usage().region_bytes >= 4 << 20);
    check(&mut publisher, &state, "staged");
    publisher.commit(staged);
    apply(&effects, &mut state).expect("applies");
    check(&mut publisher, &state, "committed");
    let seen = handle
        .wait(std::time::Duration::from_secs(20))
        .expect("follows");
    assert!(seen.is_some_and(|seen| seen.to_state().expect("reads") == state));
}

#[test]
fn a_table_that_would_outgrow_the_document_is_refused_by_column() {
    let run_dir = tempfile::tempdir().expect("a directory");
    let (mut publisher, mut state) = start(run_dir.path(), 100);
    let refused = |publisher: &mut Publisher, effects: &Effects, state: &State| {
        let error = publisher.stage(effects).expect_err("is too large");
        check(publisher, state, &error.to_string());
        match error {
            PublishError::TooLarge { table, column, .. } => format!("{table}: {column}"),
            other => panic!("{other:?}"),
        }
    };
    // The items of the lists take the most, and those of ten rows more than thirty bytes.
    let mut totals = Totals::default();
    totals.add(state.table(TableId::Content));
    let most = totals.numbers().1.iter().max();
    publisher.set_document_limit(most.expect("columns") + 30);
    assert_eq!(
        refused(&mut publisher, &put(100..110, 2), &state),
        "content: providers.item"
    );
    let swap = content(vec![rows(&[100], 2, false)], vec![key(4)]);
    let staged = publisher.stage(&swap).expect("fits").expect("a change");
    publisher.commit(staged);
    apply(&swap, &mut state).expect("applies");
    check(&mut publisher, &state, "one for one");
    publisher.set_document_limit(10_000);
    let cid: ArrayRef = Arc::new(StringArray::from(vec!["z"]));
    let mut lists = ListBuilder::new(StringBuilder::new());
    (0..10_001).for_each(|_| lists.values().append_value(""));
    lists.append(true);
    let long: ArrayRef = Arc::new(lists.finish());
    let batch = RecordBatch::try_from_iter([("cid", Arc::clone(&cid)), ("providers", long)]);
    let effects = content(vec![batch.expect("fits")], Vec::new());
    assert_eq!(
        refused(&mut publisher, &effects, &state),
        "content: providers"
    );
    let mut lists = ListBuilder::new(StringBuilder::new());
    lists.values().append_value("y".repeat(10_001));
    lists.append(true);
    let wide: ArrayRef = Arc::new(lists.finish());
    let batch = RecordBatch::try_from_iter([("cid", cid), ("providers", wide)]);
    let effects = content(vec![batch.expect("fits")], Vec::new());
    assert_eq!(
        refused(&mut publisher, &effects, &state),
        "content: providers.item"
    );
    // Rows without any text but the keys' are counted too.
    publisher.set_document_limit(100);
    assert_eq!(
        refused(&mut publisher, &put(200..201, 3), &state),
        "content: content"
    );
}

/// What the totals say is at least what Parquet makes of a column, dictionary, lengths, levels and all; so that what they let through can be
/// written.
#[test]
fn no_page_of_a_checkpoint_is_larger_than_the_totals_of_its_column() {
    let long = |version: i64| {
        let keys: Vec<u16> = (0..4000).collect();
        rows(&keys, version, true)
    };
    for table in [long(1), long(2), rows(&[7], 2, true), rows(&[5], 2, false)] {
        let mut state = State::empty("c");
        let effects = content(vec![table], Vec::new());
        apply(&effects, &mut state).expect("applies");
        let mut totals = Totals::default();
        totals.add(state.table(TableId::Content));
        let fields = state.table(TableId::Content).schema().fields().clone();
        let file = bytes::Bytes::from(to_parquet_bytes(&state).expect("writes"));
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&file);
        let metadata = metadata.expect("a footer");
        let mut columns = 0;
        for column in metadata.row_group(0).columns() {
            let path: Vec<&str> = column
                .column_path()
                .parts()
                .iter()
                .map(String::as_str)
                .collect();
            let ["content", "list", "element", name, rest @ ..] = path.as_slice() else {
                continue;
            };
            let name = match rest {
                [] => (*name).to_owned(),
                _ => format!("{name}.item"),
            };
            let most = totals
                .of(&fields, &name)
                .unwrap_or_else(|| panic!("{name}"));
            // Two pages' headers are in it.
            let found = u64::try_from(column.uncompressed_size()).expect("a size");
            assert!(found <= most + 128, "{name}: {found} bytes of {most}");
            columns += 1;
        }
        assert!(columns >= 6, "{columns}");
    }
}

#[test]
fn a_new_column_of_a_table_without_rows_is_there_for_all_readers() {
    let run_dir = tempfile::tempdir().expect("a directory");
    let (mut publisher, mut state) = start(run_dir.path(), 0);
    let effects = content(vec![rows(&[], 3, true)], Vec::new());
    let staged = publisher
        .stage(&effects)
        .expect("stages")
        .expect("a change");
    publisher.commit(staged);
    apply(&effects, &mut state).expect("applies");
    check(&mut publisher, &state, "no rows");
    assert!(
        publisher.stage(&effects).expect("looks").is_none(),
        "the column is there"
    );
}
