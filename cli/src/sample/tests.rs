use std::collections::BTreeSet;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMillisecondType;
use arrow_array::{Array, StringArray};
use sherwood_client::import::read_parquet;

use super::*;

fn options(nodes: usize, tasks: usize, content: usize) -> Options {
    Options {
        nodes,
        tasks,
        content,
        cluster_id: "sample".to_owned(),
        seed: 7,
    }
}

fn strings<'a>(state: &'a State, table: TableId, column: &str) -> &'a StringArray {
    state
        .table(table)
        .column_by_name(column)
        .unwrap()
        .as_string::<i32>()
}

#[test]
fn a_sample_has_the_rows_asked_for_down_to_none() {
    for (nodes, tasks, content) in [
        (20, 1_000, 500),
        (0, 0, 0),
        (1, 3, 2),
        (0, 5, 5),
        (3, 5, 0),
        (2, 0, 9),
    ] {
        let state = generate(&options(nodes, tasks, content)).unwrap();
        let rows = TableId::ALL.map(|table| state.table(table).num_rows());
        assert_eq!(rows, [nodes, tasks, content]);
    }
}

#[test]
fn more_rows_than_fit_are_refused_before_any_is_made() {
    let error = generate(&options(20, 20_000_000, 0))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("20000000 tasks") && error.contains("at most 12"),
        "{error}"
    );
}

#[test]
fn the_same_options_give_the_same_sample_and_another_seed_another() {
    let one = generate(&options(20, 100, 50)).unwrap();
    assert_eq!(generate(&options(20, 100, 50)).unwrap(), one);
    assert_ne!(
        generate(&Options {
            seed: 8,
            ..options(20, 100, 50)
        })
        .unwrap(),
        one
    );
    // Written down, so that a change to the generator is a decision.
    assert_eq!(
        strings(&one, TableId::Content, "cid").value(0),
        "bafkreiairfomyxy43ddzkeajv6cvbyp6wb4obznpveskimf2ovya44isri"
    );
}

#[test]
fn a_sample_agrees_with_itself() {
    let state = generate(&options(20, 1_000, 500)).unwrap();
    let set = |table, column| {
        strings(&state, table, column)
            .iter()
            .flatten()
            .collect::<BTreeSet<_>>()
    };
    let (nodes, cids) = (set(TableId::Nodes, "id"), set(TableId::Content, "cid"));
    assert!(set(TableId::Tasks, "assigned_to").is_subset(&nodes));
    assert!(set(TableId::Tasks, "input_cid").is_subset(&cids));
    assert!(
        cids.difference(&set(TableId::Tasks, "input_cid")).count() > 0,
        "nothing is orphaned"
    );
    let roles = set(TableId::Nodes, "role");
    assert_eq!(roles, ["leecher", "master", "worker"].into());
    let statuses = set(TableId::Tasks, "status");
    assert_eq!(
        statuses,
        ["assigned", "completed", "failed", "pending", "running"].into()
    );
    assert_eq!(state.master_id(), Some("node-00000"));

    let providers = state
        .table(TableId::Content)
        .column_by_name("providers")
        .unwrap()
        .as_list::<i32>();
    let all = providers.values().as_string::<i32>();
    assert!(all.iter().flatten().all(|id| nodes.contains(id)));
    assert!((0..providers.len()).all(|row| providers.value_length(row) > 0));

    let tasks = state.table(TableId::Tasks);
    let time = |name: &str| {
        tasks
            .column_by_name(name)
            .unwrap()
            .as_primitive::<TimestampMillisecondType>()
    };
    let (created, updated) = (time("created_at"), time("updated_at"));
    let (started, completed) = (time("started_at"), time("completed_at"));
    for (row, status) in strings(&state, TableId::Tasks, "status")
        .iter()
        .flatten()
        .enumerate()
    {
        let finished = matches!(status, "completed" | "failed");
        assert_eq!(completed.is_valid(row), finished, "row {row}");
        assert_eq!(
            started.is_valid(row),
            finished || status == "running",
            "row {row}"
        );
        assert_eq!(
            strings(&state, TableId::Tasks, "error").is_valid(row),
            status == "failed",
            "row {row}"
        );
        assert!(
            created.value(row) <= updated.value(row) && updated.value(row) <= BASE_TIME_MILLIS,
            "row {row}"
        );
        assert!(
            !finished || started.value(row) < completed.value(row),
            "row {row}"
        );
    }
}

/// A CID of known content, computed by the program that defines them: `ipfs block put` of an empty block.
#[test]
fn cids_are_well_formed() {
    let digest = [
        0xe3b0_c442_98fc_1c14_u64,
        0x9afb_f4c8_996f_b924,
        0x27ae_41e4_649b_934c,
        0xa495_991b_7852_b855,
    ];
    let mut bytes = vec![1, RAW, 0x12, 32];
    bytes.extend(digest.iter().flat_map(|word| word.to_be_bytes()));
    assert_eq!(
        multibase(&bytes),
        "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
    );
    let made = cid(DAG_PB, &mut Draw::new(1, 2, 3));
    assert!(made.starts_with("bafybei") && made.len() == 59, "{made}");
}

#[test]
fn a_written_sample_is_found_by_its_metadata_and_reads_back() {
    let directory = tempfile::tempdir().unwrap();
    let state = generate(&options(3, 10, 5)).unwrap();
    let out = directory.path().join("new/state");
    let parquet = write(&state, &out).unwrap();
    assert_eq!(parquet.file_name().unwrap(), "state_sample.parquet");
    assert_eq!(read_parquet(&parquet, Some("sample")).unwrap(), state);

    let text = std::fs::read_to_string(out.join("state_metadata.json")).unwrap();
    let metadata: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(metadata["cluster_id"], "sample");
    assert_eq!(metadata["updated_at"], 1_767_323_045.678);
    assert_eq!(
        metadata["parquet_path"].as_str().map(Path::new),
        Some(parquet.as_path())
    );
    assert_eq!(metadata["task_count"], 10);
}
