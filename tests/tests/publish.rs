//! Any sequence of states that is published reads back as it was, in little memory.

use std::path::Path;

use proptest::prelude::*;
use sherwood_client::{Reader, Snapshot, TableId};
use sherwood_daemon::publish::{Options, Publisher};
use sherwood_tests::rows::{Model, check, state};

fn options(run_dir: &Path, region_bytes: u64, chunk_bytes: usize) -> Options {
    Options {
        run_dir: run_dir.to_owned(),
        cluster_id: "torture".to_owned(),
        state_dir: (1, 2),
        history: [7; 16],
        region_bytes: Some(region_bytes),
        chunk_bytes: Some(chunk_bytes),
        mode: 0o644,
    }
}

/// A step from one state to the next.
#[derive(Clone, Debug)]
enum Step {
    Put(Vec<u16>),
    Delete(u16, u16),
    Replace(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => proptest::collection::vec(any::<u16>(), 1..20).prop_map(Step::Put),
        2 => (any::<u16>(), 0_u16..300).prop_map(|(start, len)| Step::Delete(start, len)),
        1 => (0_u16..2000).prop_map(Step::Replace),
    ]
}

fn key(number: u16) -> String {
    format!(
        "cid-{number:05}-{}",
        "x".repeat(usize::from(number % 7) * 3)
    )
}

fn take(model: &mut Model, step: &Step, version: i64) {
    match step {
        Step::Put(numbers) => model.extend(numbers.iter().map(|&number| (key(number), version))),
        Step::Delete(start, len) => {
            let range = key(*start)..key(start.saturating_add(*len));
            let gone: Vec<_> = model.range(range).map(|(key, _)| key.clone()).collect();
            model.retain(|key, _| !gone.contains(key));
        }
        Step::Replace(rows) => {
            *model = (0..*rows)
                .map(|row| (key(row.wrapping_mul(31)), version))
                .collect();
        }
    }
}

fn chunks_are_within_size(snapshot: &Snapshot, chunk_bytes: usize) -> Result<(), TestCaseError> {
    let table = snapshot.table(TableId::Content);
    let mut small = 0;
    for batch in table.batches() {
        let batch = batch.expect("decodes");
        let bytes = sherwood_daemon::publish::chunk_body_bytes(&batch);
        prop_assert!(
            batch.num_rows() == 1 || bytes <= chunk_bytes,
            "{bytes} bytes"
        );
        small += usize::from(bytes < chunk_bytes / 8);
    }
    prop_assert!(small <= 1 + table.chunk_count() / 2, "{small} crumbs");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_states_reads_back_as_it_was_published(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        const REGION: u64 = 32 << 10;
        let run_dir = tempfile::tempdir().expect("a directory");
        let mut model = Model::new();
        let mut publisher =
            Publisher::start(options(run_dir.path(), REGION, 2048), &state(&model), 1).expect("starts");
        let reader = Reader::open(publisher.path()).expect("opens");
        let mut handle = reader.handle().expect("a handle");
        let mut held: Vec<(Snapshot, Model)> = Vec::new();
        for (version, step) in (1_i64..).zip(&steps) {
            take(&mut model, step, version);
            publisher.publish(&state(&model)).expect("publishes");
            let snapshot = handle.latest();
            prop_assert_eq!(snapshot.generation(), publisher.generation());
            prop_assert_eq!(check(snapshot), Ok(model.clone()));
            chunks_are_within_size(snapshot, 2048)?;
            for (wanted, version) in model.iter().take(3) {
                let found = snapshot.content_item(wanted).expect("reads").expect("is there");
                prop_assert_eq!(found.size(), Some(*version));
            }
            prop_assert!(snapshot.content_item("cid-none").expect("reads").is_none());
            if version % 7 == 0 {
                held.push((snapshot.clone(), model.clone()));
            }
            for (old, old_model) in &held {
                prop_assert_eq!(&check(old), &Ok(old_model.clone()), "held since {}", old.generation());
            }
            if version % 20 == 0 {
                held.clear();
                handle.latest();
                publisher.housekeep().expect("keeps house");
            }
            let usage = publisher.usage();
            let bound = usage.live_bytes * 3 / 2 + 8 * REGION;
            prop_assert!(usage.used_bytes <= bound.max(usage.live_bytes * 2), "{usage:?}");
        }
    }
}
