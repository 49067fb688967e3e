//! What a claim takes, whatever happened before: the index of pending tasks never lies, and is not made in vain.

use std::collections::BTreeMap;
use std::path::Path;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use proptest::prelude::*;
use serde_json::{Value, json};
use sherwood_client::import::{read_parquet_columns, to_parquet_bytes};
use sherwood_shared::schema::TableId;
use sherwood_shared::state::State;
use sherwood_shared::transaction::OutcomeKind::{Done, Refused};
use sherwood_store::merge::{Theirs, diff};

use super::super::*;
use super::doubles::*;

fn with_node() -> TestEngine {
    let mut engine = engine_at(State::empty("c"), 9_000);
    let resources = json!({"cpu_count": 2, "memory_available": 1_i64 << 40});
    let node = json!({"node": {"id": "n", "resources": resources}});
    assert_eq!(one(&mut engine, domain("register", &node)).outcome, Done);
    engine
}

fn claim(types: &[&str]) -> Request {
    match types {
        [] => domain("claim", &json!({"node": "n"})),
        types => domain("claim", &json!({"node": "n", "types": types})),
    }
}

/// The oldest that fits the node, by a look at every row.
fn expected(rows: &BTreeMap<String, Value>, types: &[&str]) -> Option<String> {
    let fits = |row: &&Value| {
        let of_type = row["type"].as_str();
        let is_wanted = types.is_empty() || of_type.is_some_and(|found| types.contains(&found));
        let cores = row["resources"]["cpu_cores"].as_i64().unwrap_or(1);
        row["status"].as_str().unwrap_or("pending") == "pending" && is_wanted && cores <= 2
    };
    let fitting = rows.values().filter(fits);
    let age = |row: &&Value| {
        let created_at = row["created_at"].as_i64().unwrap_or(i64::MIN);
        (created_at, row["id"].as_str().map(str::to_owned))
    };
    fitting.min_by_key(age).and_then(|row| age(&row).1)
}

fn bulk(mode: BulkMode, rows: &[(String, Option<&'static str>)]) -> Request {
    let keys = rows.iter().map(|(key, _)| key.as_str());
    let keys: ArrayRef = Arc::new(StringArray::from_iter_values(keys));
    let statuses = rows.iter().map(|(_, status)| *status);
    let statuses: ArrayRef = Arc::new(StringArray::from_iter(statuses));
    let columns = vec![("id", keys, true), ("status", statuses, true)];
    Request::Bulk(Bulk {
        id: None,
        table: TableId::Tasks,
        mode,
        rows: RecordBatch::try_from_iter_with_nullable(columns).expect("two columns"),
    })
}

/// What a program that read `base` and made it `next` asks for.
fn merge(base: &State, next: &State) -> Request {
    let bytes = to_parquet_bytes(next).expect("a file");
    let (state, columns) = read_parquet_columns(bytes, Path::new("theirs"), None).expect("reads");
    let changes = diff(base, &Theirs { state, columns }).expect("a difference");
    Request::Merge {
        id: uuid::Uuid::new_v4().to_string(),
        changes: Box::new(changes),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(String, Value),
    Patch(String, Value),
    Bulk(BulkMode, Vec<(String, Option<&'static str>)>),
    Theirs(String, Value),
    Claim(Vec<&'static str>),
}

fn step() -> impl Strategy<Value = Step> {
    let status =
        || prop_oneof![3 => Just(None), 3 => Just(Some("pending")), 1 => Just(Some("running"))];
    let of_type = prop_oneof![Just(Value::Null), Just(json!("x")), Just(json!("y"))];
    let row = (status(), of_type, 1..4_i64, 1..6_i64).prop_map(
        |(status, of_type, cores, created_at)| json!({"status": status, "type": of_type, "created_at": created_at, "resources": {"cpu_cores": cores}}),
    );
    let row = row.boxed();
    let key = || "[a-f]";
    let mode = prop_oneof![
        Just(BulkMode::Put),
        Just(BulkMode::Patch),
        Just(BulkMode::Delete)
    ];
    let rows = prop::collection::btree_map(key(), status(), 1..4);
    let types = prop_oneof![Just(vec![]), Just(vec!["x"]), Just(vec!["x", "y"])];
    prop_oneof![
        4 => (key(), row.clone()).prop_map(|(key, row)| Step::Put(key, row)),
        3 => (key(), row.clone()).prop_map(|(key, row)| Step::Patch(key, row)),
        2 => (mode, rows).prop_map(|(mode, rows)| Step::Bulk(mode, rows.into_iter().collect())),
        1 => (key(), row).prop_map(|(key, row)| Step::Theirs(key, row)),
        4 => types.prop_map(Step::Claim),
    ]
}

fn put(key: &str, row: &Value) -> Request {
    let mut row = row.clone();
    row["id"] = json!(key);
    transaction(&json!({"ops": [{"put": "tasks", "row": row}]}))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_claim_takes_the_oldest_after_bulks_merges_and_groups_that_failed(
        groups in prop::collection::vec((prop::collection::vec(step(), 1..5), any::<bool>()), 1..12),
    ) {
        let mut engine = with_node();
        for (steps, fails) in groups {
            // A group that cannot be published at all; and claims in it, of what it put there itself.
            engine.publisher().fails = if fails { |_| true } else { |_| false };
            let before = rows(&engine, TableId::Tasks);
            let mut group = Vec::new();
            for step in &steps {
                group.push(match step {
                    Step::Put(key, row) => put(key, row),
                    Step::Patch(key, set) => transaction(&json!({"ops": [{"patch": "tasks", "key": key, "set": set}]})),
                    Step::Bulk(mode, rows) => bulk(*mode, rows),
                    Step::Theirs(key, row) => {
                        let mut theirs = engine_at(engine.publisher().state.clone(), 8_000);
                        one(&mut theirs, put(key, row));
                        merge(&engine.publisher().state, &theirs.publisher().state)
                    }
                    Step::Claim(types) => claim(types),
                });
            }
            submit(&mut engine, group).expect("not fatal");
            if fails {
                prop_assert_eq!(&before, &rows(&engine, TableId::Tasks));
            }
            engine.publisher().fails = |_| false;
            for types in [&["x"][..], &[]] {
                let expected = expected(&rows(&engine, TableId::Tasks), types);
                let answer = one(&mut engine, claim(types));
                prop_assert_eq!(answer.task, expected, "{:?} after {:?}", types, steps);
                prop_assert!(engine.pending.is_some());
            }
        }
    }
}

#[test]
fn the_index_outlives_bulks_merges_and_groups_that_failed() {
    let mut engine = with_node();
    one(&mut engine, put("a", &json!({"created_at": 5})));
    assert_eq!(one(&mut engine, claim(&["none"])).task, None);
    let rows = vec![("b".to_owned(), None), ("c".to_owned(), Some("running"))];
    one(&mut engine, bulk(BulkMode::Put, &rows));
    assert!(engine.pending.is_some(), "after a bulk");
    let base = engine.publisher().state.clone();
    let mut theirs = engine_at(base.clone(), 1);
    one(&mut theirs, put("d", &json!({"created_at": 1})));
    let next = theirs.publisher().state.clone();
    assert_eq!(one(&mut engine, merge(&base, &next)).outcome, Done);
    assert!(engine.pending.is_some(), "after a merge");
    engine.publisher().fails = |_| true;
    one(&mut engine, put("e", &json!({"created_at": 0})));
    assert!(engine.pending.is_some(), "after a group that failed");
    engine.publisher().fails = |_| false;
    let taken: Vec<Option<String>> = (0..4).map(|_| one(&mut engine, claim(&[])).task).collect();
    let taken: Vec<Option<&str>> = taken.iter().map(Option::as_deref).collect();
    assert_eq!(taken, [Some("d"), Some("a"), Some("b"), None]);
}

#[test]
fn an_index_that_gave_up_is_tried_again() {
    let mut engine = with_node();
    let ops: Vec<Value> = (0..1_100)
        .map(|number| json!({"put": "tasks", "row": {"id": format!("t{number:04}"), "type": format!("type-{number}")}}))
        .collect();
    one(&mut engine, transaction(&json!({"ops": ops})));
    let next = one(&mut engine, claim(&[])).task;
    assert_eq!(next.as_deref(), Some("t0000"));
    let is_given_up = |engine: &TestEngine| {
        let pending = engine.pending.as_ref();
        pending.is_some_and(Pending::gave_up)
    };
    assert!(is_given_up(&engine));
    let ops: Vec<Value> = (10..1_100)
        .map(|number| json!({"delete": "tasks", "key": format!("t{number:04}")}))
        .collect();
    one(&mut engine, transaction(&json!({"ops": ops})));
    for _ in 0..64 {
        one(&mut engine, claim(&["type-9"]));
    }
    assert!(!is_given_up(&engine));
    assert_eq!(one(&mut engine, claim(&[])).task.as_deref(), Some("t0001"));
}

#[test]
fn a_foreign_state_is_merged_as_one_transaction() {
    let mut engine = with_node();
    one(
        &mut engine,
        put("a", &json!({"status": "pending", "priority": 1})),
    );
    one(&mut engine, put("b", &json!({"status": "pending"})));
    let base = engine.publisher().state.clone();
    let mut theirs = engine_at(base.clone(), 7);
    let ops = json!([{"patch": "tasks", "key": "a", "set": {"status": "running", "priority": 2}},
                     {"delete": "tasks", "key": "b"},
                     {"put": "tasks", "row": {"id": "c"}}]);
    one(&mut theirs, transaction(&json!({"ops": ops})));
    // Ours since then: the status of a, and b. They stay.
    let ops = json!([{"patch": "tasks", "key": "a", "set": {"status": "failed"}},
                     {"patch": "tasks", "key": "b", "set": {"priority": 9}}]);
    one(&mut engine, transaction(&json!({"ops": ops})));
    let changes = merge(&base, &theirs.publisher().state.clone());
    let entries = engine.journal().entries.len();
    let before = engine.publisher().generation;
    let answer = one(&mut engine, changes);
    assert_eq!(
        (answer.outcome, answer.generation),
        (Done, Some(before + 1))
    );
    assert_eq!(engine.journal().entries.len(), entries + 1);
    let found = rows(&engine, TableId::Tasks);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(
        (&found["a"]["status"], &found["a"]["priority"]),
        (&json!("failed"), &json!(2))
    );
    assert_eq!(found["b"]["priority"], json!(9));
    assert_eq!(found["c"]["updated_at"], json!(7), "its writer's time");
    // Again: nothing is left to do, but that it was merged is remembered. By its id it is merged once.
    for twice in ["first", "second"] {
        let Request::Merge { changes, .. } = merge(&base, &theirs.publisher().state.clone()) else {
            panic!("a merge")
        };
        let id = "again".to_owned();
        let answer = one(&mut engine, Request::Merge { id, changes });
        assert_eq!(
            (answer.outcome, answer.generation),
            (Done, Some(before + 1)),
            "{twice}"
        );
        assert_eq!(engine.journal().entries.len(), entries + 2, "{twice}");
    }
    let last = engine.journal().entries.last().unwrap();
    assert!(last.effects.is_empty(), "{last:?}");
    assert_eq!(last.outcomes.len(), 1, "{last:?}");
}

/// It is tried again as it is, and the next change of ours may take away what it was refused for.
#[test]
fn a_merge_that_is_refused_is_not_remembered() {
    let base = State::empty("c");
    let mut engine = engine_at(base.clone(), 7);
    let mut theirs = engine_at(base.clone(), 7);
    one(&mut theirs, put("a", &json!({"status": "pending"})));
    for (fails, outcome, entries) in [(true, Refused, 0), (false, Done, 1)] {
        engine.publisher().fails = if fails { |_| true } else { |_| false };
        let Request::Merge { changes, .. } = merge(&base, &theirs.publisher().state.clone()) else {
            panic!("a merge")
        };
        let id = "merged".to_owned();
        let answer = one(&mut engine, Request::Merge { id, changes });
        assert_eq!(answer.outcome, outcome, "{answer:?}");
        assert_eq!(engine.journal().entries.len(), entries, "{answer:?}");
    }
}
