//! Many rows in Arrow form do what the same rows do one by one.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, Int32Array, Int64Array, LargeStringArray, RecordBatch, StringArray,
    StructArray,
};
use arrow_schema::{DataType, Field};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use sherwood_shared::schema::TableId;
use sherwood_shared::transaction::OutcomeKind::{Done, Refused};

use super::super::{Bulk, BulkMode, Request};
use super::doubles::*;

fn bulk(mode: BulkMode, columns: Vec<(&str, ArrayRef)>) -> Request {
    let rows = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    );
    Request::Bulk(Bulk {
        id: None,
        table: TableId::Tasks,
        mode,
        rows: rows.expect("columns of one length"),
    })
}

/// What may be given for a row: `None` leaves it null.
#[derive(Clone, Debug)]
struct Row {
    status: Option<&'static str>,
    cpu_cores: Option<i32>,
    x_quota: Option<i64>,
    has_resources: bool,
    created_at: Option<i64>,
}

fn row() -> impl Strategy<Value = Row> {
    let status = prop_oneof![Just(None), Just(Some("pending")), Just(Some("running"))];
    (
        status,
        prop::option::of(1..3_i32),
        prop::option::of(1..3_i64),
        any::<bool>(),
        prop::option::of(1..9_i64),
    )
        .prop_map(
            |(status, cpu_cores, x_quota, has_resources, created_at)| Row {
                status,
                cpu_cores,
                x_quota,
                has_resources,
                created_at,
            },
        )
}

/// Which columns a request has.
#[derive(Clone, Copy, Debug)]
struct Columns {
    status: bool,
    resources: bool,
    x_quota: bool,
    created_at: bool,
}

fn columns() -> impl Strategy<Value = Columns> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(status, resources, x_quota, created_at)| Columns {
            status: status || !(resources || created_at),
            resources,
            x_quota,
            created_at,
        },
    )
}

fn as_arrow(mode: BulkMode, columns: Columns, rows: &[(String, Row)]) -> Request {
    let keys: StringArray = rows.iter().map(|(key, _)| Some(key.as_str())).collect();
    // The key need not be first.
    let mut made: Vec<(&str, ArrayRef)> = Vec::new();
    if columns.status {
        let status: LargeStringArray = rows.iter().map(|(_, row)| row.status).collect();
        made.push(("status", Arc::new(status)));
    }
    made.push(("id", Arc::new(keys)));
    if columns.resources {
        let cores: Int64Array = rows
            .iter()
            .map(|(_, row)| row.cpu_cores.map(i64::from))
            .collect();
        let mut fields = vec![Field::new("cpu_cores", DataType::Int64, true)];
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(cores)];
        if columns.x_quota {
            let quota: Int64Array = rows.iter().map(|(_, row)| row.x_quota).collect();
            fields.insert(0, Field::new("x_quota", DataType::Int64, true));
            arrays.insert(0, Arc::new(quota));
        }
        let nulls = rows.iter().map(|(_, row)| row.has_resources).collect();
        made.push((
            "resources",
            Arc::new(StructArray::new(fields.into(), arrays, Some(nulls))),
        ));
    }
    if columns.created_at {
        let times: arrow_array::TimestampSecondArray =
            rows.iter().map(|(_, row)| row.created_at).collect();
        made.push(("created_at", Arc::new(times)));
    }
    bulk(mode, made)
}

fn as_json(mode: BulkMode, columns: Columns, rows: &[(String, Row)]) -> Request {
    let ops: Vec<Value> = rows
        .iter()
        .map(|(key, row)| {
            let mut set = Map::new();
            if columns.status {
                set.insert("status".to_owned(), json!(row.status));
            }
            if columns.resources {
                let mut resources = json!({"cpu_cores": row.cpu_cores});
                if columns.x_quota {
                    resources["x_quota"] = json!(row.x_quota);
                }
                set.insert(
                    "resources".to_owned(),
                    if row.has_resources {
                        resources
                    } else {
                        Value::Null
                    },
                );
            }
            if columns.created_at {
                set.insert(
                    "created_at".to_owned(),
                    json!(row.created_at.map(|seconds| seconds * 1_000)),
                );
            }
            match mode {
                BulkMode::Put => {
                    set.insert("id".to_owned(), json!(key));
                    json!({"put": "tasks", "row": set})
                }
                BulkMode::Patch => json!({"patch": "tasks", "key": key, "set": set}),
                BulkMode::Delete => json!({"delete": "tasks", "key": key}),
            }
        })
        .collect();
    transaction(&json!({"ops": ops}))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn rows_in_arrow_form_do_what_they_do_in_json(
        steps in prop::collection::vec(
            (
                prop_oneof![3 => Just(BulkMode::Put), 3 => Just(BulkMode::Patch), 1 => Just(BulkMode::Delete)],
                columns(),
                prop::collection::hash_map("[a-e]{1,2}", row(), 1..12),
            ),
            1..6,
        ),
    ) {
        let mut by_rows = engine_at(with_strange_columns(), 5_000);
        let mut by_bulk = engine_at(with_strange_columns(), 5_000);
        for (mode, columns, keyed) in steps {
            let mut rows: Vec<(String, Row)> = keyed.into_iter().collect();
            if mode != BulkMode::Put {
                // Mostly rows that are there.
                let there = super::doubles::rows(&by_rows, TableId::Tasks);
                let some: Vec<_> = rows.iter().filter(|(key, _)| there.contains_key(key)).cloned().collect();
                rows = if some.is_empty() { rows } else { some };
            }
            let one_by_one = one(&mut by_rows, as_json(mode, columns, &rows));
            let at_once = one(&mut by_bulk, as_arrow(mode, columns, &rows));
            prop_assert_eq!(one_by_one.outcome, at_once.outcome, "{:?} {:?}", one_by_one, at_once);
            prop_assert_eq!(
                super::doubles::rows(&by_rows, TableId::Tasks),
                super::doubles::rows(&by_bulk, TableId::Tasks),
                "{:?} {:?} {:?}", mode, columns, rows
            );
        }
    }
}

#[test]
fn keys_are_found_in_tables_of_many_chunks() {
    let mut engine = engine(with_strange_columns());
    let keys = |numbers: &mut dyn Iterator<Item = u32>| -> ArrayRef {
        Arc::new(
            numbers
                .map(|number| Some(format!("task-{number:06}")))
                .collect::<StringArray>(),
        )
    };
    // Every second key, over three chunks of the heap's snapshot.
    assert_eq!(
        one(
            &mut engine,
            bulk(
                BulkMode::Put,
                vec![("id", keys(&mut (0..20_000).map(|n| n * 2)))]
            )
        )
        .outcome,
        Done
    );
    let patch = |numbers: Vec<u32>| {
        let len = numbers.len();
        let status = StringArray::from_iter_values(std::iter::repeat_n("running", len));
        bulk(
            BulkMode::Patch,
            vec![
                ("id", keys(&mut numbers.into_iter())),
                ("status", Arc::new(status)),
            ],
        )
    };
    for numbers in [
        vec![0],
        vec![39_998],
        (0..20_000).map(|n| n * 2).collect(),
        (0..20_000).rev().map(|n| n * 2).collect(),
        (0..200).map(|n| n * 198).collect(),
        vec![0, 16_382, 16_384, 16_386, 39_998],
    ] {
        assert_eq!(one(&mut engine, patch(numbers)).outcome, Done);
    }
    let more = " in tasks, nor 1 other of these rows";
    for (missing, others) in [
        (vec![1, 2, 40_001], more),
        (vec![16_383, 0], " in tasks"),
        (vec![39_999], " in tasks"),
        (vec![50_000, 60_000], more),
    ] {
        let answer = one(&mut engine, patch(missing.clone()));
        assert_eq!(answer.outcome, Refused, "{missing:?}");
        let reason = answer.reason.expect("a reason");
        assert!(
            reason.contains("no row \"task-0") && reason.ends_with(others),
            "{reason}"
        );
    }
}

#[test]
fn what_is_wrong_with_rows_is_named() {
    let mut engine = engine(with_strange_columns());
    let text = |values: &[Option<&str>]| -> ArrayRef {
        Arc::new(StringArray::from_iter(values.iter().copied()))
    };
    let id = |values: &[Option<&str>]| ("id", text(values));
    assert_eq!(
        one(&mut engine, bulk(BulkMode::Put, vec![id(&[Some("a")])])).outcome,
        Done
    );
    let long = "k".repeat(1025);
    let cases: Vec<(Request, &[&str])> = vec![
        (
            bulk(BulkMode::Put, vec![id(&[Some("b"), None])]),
            &["position 1", "id"],
        ),
        (
            bulk(BulkMode::Put, vec![id(&[Some("b"), Some("c"), Some("b")])]),
            &["\"b\"", "0", "2"],
        ),
        (bulk(BulkMode::Put, vec![id(&[Some("")])]), &["1 to 1024"]),
        (
            bulk(BulkMode::Put, vec![id(&[Some(&long)])]),
            &["1 to 1024", "1025"],
        ),
        (
            bulk(BulkMode::Put, vec![("status", text(&[Some("x")]))]),
            &["no column id"],
        ),
        (
            bulk(
                BulkMode::Put,
                vec![id(&[Some("b")]), ("colour", text(&[None]))],
            ),
            &["no column colour in tasks"],
        ),
        (
            bulk(
                BulkMode::Put,
                vec![
                    id(&[Some("b"), Some("c")]),
                    ("priority", Arc::new(Int64Array::from(vec![1, 1 << 40]))),
                ],
            ),
            &["priority", "\"c\"", "1099511627776"],
        ),
        (
            bulk(
                BulkMode::Put,
                vec![
                    id(&[Some("b")]),
                    ("status", Arc::new(Int32Array::from(vec![1]))),
                ],
            ),
            &["status", "Int32"],
        ),
        (
            bulk(BulkMode::Patch, vec![id(&[Some("a")])]),
            &["no column besides the key"],
        ),
        (
            bulk(
                BulkMode::Patch,
                vec![id(&[Some("a"), Some("z")]), ("status", text(&[None, None]))],
            ),
            &["no row \"z\" in tasks"],
        ),
        (
            bulk(BulkMode::Delete, vec![id(&[Some("z")])]),
            &["no row \"z\" in tasks"],
        ),
    ];
    for (case, told) in cases {
        let shown = format!("{case:?}");
        let answer = one(&mut engine, case);
        assert_eq!(answer.outcome, Refused, "{shown}: {answer:?}");
        let reason = answer.reason.expect("a reason");
        for told in told {
            assert!(reason.contains(told), "{shown}: {reason:?} has no {told:?}");
        }
    }
    assert_eq!(rows(&engine, TableId::Tasks).len(), 1);
}

#[test]
fn a_bulk_of_tasks_can_be_claimed() {
    let mut engine = engine(with_strange_columns());
    let node = json!({"node": {"id": "n", "resources": {"cpu_count": 1, "memory_available": 1_i64 << 40}}});
    one(&mut engine, domain("register", &node));
    let claim = || domain("claim", &json!({"node": "n"}));
    assert_eq!(one(&mut engine, claim()).task, None);
    let ids: ArrayRef = Arc::new(StringArray::from(vec!["b", "a"]));
    assert_eq!(ids.len(), 2);
    let put = bulk(BulkMode::Put, vec![("id", ids)]);
    let answers =
        submit(&mut engine, vec![claim(), put, claim(), claim(), claim()]).expect("not fatal");
    let taken: Vec<Option<&str>> = answers
        .iter()
        .map(|answer| answer.task.as_deref())
        .collect();
    assert_eq!(taken, [None, None, Some("a"), Some("b"), None]);
}
