//! What a review of the protocol found, each seen to fail before it was mended.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::{Field, Schema};
use sherwood_client::Reader;
use sherwood_daemon::publish::{Options, PublishError, Publisher};
use sherwood_shared::state::State;
use sherwood_store::Effects;
use sherwood_tests::rows::{Model, check, content, state};

fn options(run_dir: &Path) -> Options {
    Options {
        run_dir: run_dir.to_owned(),
        cluster_id: "torture".to_owned(),
        state_dir: (1, 2),
        history: [7; 16],
        region_bytes: None,
        chunk_bytes: None,
        mode: 0o644,
    }
}

fn model(rows: usize) -> Model {
    (0..rows).map(|row| (format!("cid-{row:06}"), 1)).collect()
}

/// The state with one more column in its cluster table.
fn with_cluster_column(mut state: State, name: &str, column: ArrayRef) -> State {
    let mut fields = state.cluster.schema().fields().to_vec();
    fields.push(Arc::new(Field::new(name, column.data_type().clone(), true)));
    let mut columns = state.cluster.columns().to_vec();
    columns.push(column);
    let schema = Arc::new(Schema::new(fields));
    state.cluster = RecordBatch::try_new(schema, columns).expect("one row each");
    state
}

#[test]
fn every_waiting_handle_of_a_reader_follows_to_a_file_that_took_the_place_unmarked() {
    let run_dir = tempfile::tempdir().expect("a directory");
    let first = Publisher::start(options(run_dir.path()), &state(&model(3)), 1).expect("starts");
    let reader = Reader::open(first.path()).expect("opens");
    let mut handles = [
        reader.handle().expect("a handle"),
        reader.handle().expect("a handle"),
    ];
    std::fs::remove_file(first.path()).expect("removes");
    drop(first); // nothing is left that could mark the old file
    let _second = Publisher::start(options(run_dir.path()), &state(&model(4)), 50).expect("starts");
    for (number, handle) in handles.iter_mut().enumerate() {
        let seen = handle.wait(Duration::from_secs(20)).expect("waits");
        assert_eq!(
            seen.map(|seen| seen.generation()),
            Some(50),
            "handle {number}"
        );
    }
}

#[test]
fn snapshot_and_liveness_look_at_the_path_themselves() {
    let run_dir = tempfile::tempdir().expect("a directory");
    let first = Publisher::start(options(run_dir.path()), &state(&model(3)), 1).expect("starts");
    let reader = Reader::open(first.path()).expect("opens");
    std::fs::remove_file(first.path()).expect("removes");
    drop(first);
    let _second = Publisher::start(options(run_dir.path()), &state(&model(4)), 50).expect("starts");
    assert!(reader.liveness().expect("looks").alive);
    assert_eq!(reader.snapshot().expect("reads").generation(), 50);
}

#[test]
fn a_foreign_column_may_be_called_as_our_root_column() {
    let run_dir = tempfile::tempdir().expect("a directory");
    let column: ArrayRef = Arc::new(Int64Array::from(vec![42]));
    let mine = with_cluster_column(state(&model(3)), "sherwood", column);
    let mut publisher = Publisher::start(options(run_dir.path()), &mine, 1).expect("starts");
    assert_eq!(publisher.snapshot().cluster().expect("reads"), mine.cluster);
    assert_eq!(publisher.publish(&mine).expect("compares"), None);
}

#[test]
fn a_cluster_row_of_some_megabytes_gets_regions_that_hold_it() {
    let run_dir = tempfile::tempdir().expect("a directory");
    let mut publisher =
        Publisher::start(options(run_dir.path()), &state(&model(3)), 1).expect("starts");
    let column: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(5 << 20)]));
    let large = with_cluster_column(state(&model(3)), "notes", column);
    publisher
        .publish(&large)
        .expect("a new file with larger regions");
    assert_eq!(
        publisher.snapshot().cluster().expect("reads"),
        large.cluster
    );
    assert_eq!(check(publisher.snapshot()), Ok(model(3)));
}

#[test]
fn small_regions_make_small_chunks() {
    let run_dir = tempfile::tempdir().expect("a directory");
    let small = Options {
        region_bytes: Some(64 << 10),
        ..options(run_dir.path())
    };
    let mut publisher = Publisher::start(small, &state(&model(4000)), 1).expect("starts");
    assert_eq!(check(publisher.snapshot()), Ok(model(4000)));
}

#[test]
fn deleting_from_an_empty_table_publishes_nothing() {
    let run_dir = tempfile::tempdir().expect("a directory");
    let mut publisher =
        Publisher::start(options(run_dir.path()), &state(&Model::new()), 1).expect("starts");
    let mut effects = Effects::default();
    effects.tables[2].delete = vec!["cid-none".to_owned()];
    assert!(publisher.stage(&effects).expect("looks").is_none());
    assert_eq!(publisher.generation(), 1);
}

/// On a file system that ends at 3.4 times the state: one-row changes go on for ever, and a
/// state that does not fit is refused and hurts nothing.
#[test]
fn a_file_that_cannot_grow_goes_on_with_what_it_has() {
    const SIZE: &str = "size=1200k";
    let mount = tempfile::tempdir().expect("a directory");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", SIZE, "tmpfs"])
        .arg(mount.path())
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        sherwood_tests::needs::not_run(
            "a_file_that_cannot_grow_goes_on_with_what_it_has",
            "needs root to mount a tmpfs",
        );
        return;
    }
    let result = std::panic::catch_unwind(|| churn(mount.path()));
    let unmounted = Command::new("umount").arg(mount.path()).status();
    assert!(unmounted.is_ok_and(|status| status.success()), "unmounts");
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

fn churn(run_dir: &Path) {
    let mut model = model(4000);
    let small = Options {
        region_bytes: Some(64 << 10),
        ..options(run_dir)
    };
    let mut publisher = Publisher::start(small, &state(&model), 1).expect("starts");
    let reader = Reader::open(publisher.path()).expect("opens");
    let mut handle = reader.handle().expect("a handle");
    for version in 2..3000_i64 {
        let key = format!("cid-{:06}", (version * 7919) % 4000);
        model.insert(key.clone(), version);
        let mut effects = Effects::default();
        effects.tables[2].upserts = vec![content(&Model::from([(key, version)]))];
        effects.cluster = Some(state(&model).cluster);
        let staged = publisher
            .stage(&effects)
            .unwrap_or_else(|error| panic!("version {version}: {error:?} {:?}", publisher.usage()))
            .expect("a change");
        publisher.commit(staged);
        handle.latest();
        if version % 500 == 0 {
            let _ = publisher.housekeep(); // off the hot path; may find no room to spare
            assert_eq!(
                check(handle.latest()).as_ref(),
                Ok(&model),
                "version {version}"
            );
        }
    }
    let too_large: Model = (0..20_000)
        .map(|row| (format!("cid-{row:06}"), 1))
        .collect();
    let refused = publisher.publish(&state(&too_large));
    assert!(
        matches!(refused, Err(PublishError::Full { .. })),
        "{refused:?}"
    );
    assert_eq!(check(handle.latest()).as_ref(), Ok(&model));
    model.insert("cid-000000".to_owned(), 9999);
    publisher
        .publish(&state(&model))
        .expect("what fits is published again");
    assert_eq!(check(handle.latest()), Ok(model));
}
