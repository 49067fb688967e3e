//! Ends that fail at every step, and what the clients are told.

use arrow_array::RecordBatch;
use serde_json::{Value, json};
use sherwood_shared::schema::TableId;
use sherwood_shared::state::State;
use sherwood_shared::transaction::Answer;
use sherwood_shared::transaction::OutcomeKind::{Done, Refused, Unknown};

use super::super::{JournalError, Request, StageError, Submission};
use super::doubles::*;

fn put(id: &str) -> Request {
    transaction(&json!({"id": id, "ops": [{"put": "tasks", "row": {"id": id}}]}))
}

fn bad(id: &str) -> Request {
    transaction(&json!({"id": id, "ops": [{"delete": "tasks", "key": "nobody"}]}))
}

fn keys(engine: &TestEngine) -> Vec<String> {
    rows(engine, TableId::Tasks).into_keys().collect()
}

#[test]
fn after_a_failed_sync_nobody_knows_and_nothing_more_is_taken() {
    let mut engine = engine(State::empty("c"));
    one(&mut engine, put("before"));
    engine.journal().fail = Some(|| JournalError::Broken("EIO".into()));
    let generation = engine.publisher().generation;
    let (fatal, answers) =
        submit(&mut engine, vec![put("a"), bad("b"), put("a")]).expect_err("fatal");
    assert!(fatal.source.is_some());
    for answer in &answers {
        assert_eq!(answer.outcome, Unknown, "{answer:?}");
        assert!(
            answer
                .reason
                .as_ref()
                .is_some_and(|reason| reason.contains("same id")),
            "{answer:?}"
        );
    }
    assert_eq!(keys(&engine), ["before"]);
    assert_eq!(engine.publisher().generation, generation);
    engine.journal().fail = None;
    let (fatal, answers) =
        submit(&mut engine, vec![put("c"), put("before")]).expect_err("fatal for ever");
    assert!(fatal.source.is_none());
    let outcomes: Vec<_> = answers.iter().map(|answer| answer.outcome).collect();
    assert_eq!(outcomes, [Refused, Done], "what was done stays done");
    assert_eq!(keys(&engine), ["before"]);
    assert_eq!(engine.journal().entries.len(), 1);
}

#[test]
fn what_a_failed_sync_has_not_reached_is_refused_and_not_unknown() {
    let mut engine = engine(State::empty("c"));
    engine.journal().fail = Some(|| JournalError::Broken("EIO".into()));
    let first = json!({"if": [{"generation": 1}], "ops": [{"put": "tasks", "row": {"id": "b"}}]});
    let (_, answers) = submit(&mut engine, vec![put("a"), transaction(&first)]).expect_err("fatal");
    assert_eq!(
        (answers[0].outcome, answers[1].outcome),
        (Unknown, Refused),
        "{answers:?}"
    );
}

#[test]
fn a_full_log_refuses_all_and_forgets_them() {
    let mut engine = engine(State::empty("c"));
    engine.journal().fail = Some(|| JournalError::Full("no space left".into()));
    let answers = submit(&mut engine, vec![put("a"), bad("b")]).expect("not fatal");
    for answer in &answers {
        assert_eq!(answer.outcome, Refused, "{answer:?}");
        assert!(
            answer
                .reason
                .as_ref()
                .is_some_and(|reason| reason.contains("full")),
            "{answer:?}"
        );
    }
    assert!(keys(&engine).is_empty());
    engine.journal().fail = None;
    assert_eq!(one(&mut engine, put("a")).outcome, Done);
    assert_eq!(keys(&engine), ["a"]);
}

#[test]
fn an_entry_that_the_log_does_not_take_is_refused_alone() {
    let mut engine = engine(State::empty("c"));
    engine.journal().refuses = |entry| {
        let rows = entry.effects.tables[TableId::Tasks as usize].upserts.iter();
        let mut keys = rows.map(|rows| rows.column(0).clone());
        keys.any(|keys| format!("{keys:?}").contains("guilty"))
    };
    let answers = submit(
        &mut engine,
        vec![put("a"), put("guilty"), put("b"), bad("c")],
    )
    .expect("not fatal");
    let outcomes: Vec<_> = answers.iter().map(|answer| answer.outcome).collect();
    assert_eq!(outcomes, [Done, Refused, Done, Refused]);
    assert!(
        answers[1]
            .reason
            .as_ref()
            .is_some_and(|reason| reason.contains("cannot be logged")),
        "{answers:?}"
    );
    assert_eq!(keys(&engine), ["a", "b"]);
    // It is remembered: the outcome alone went into the log.
    engine.journal().refuses = |_| false;
    assert_eq!(one(&mut engine, put("guilty")), answers[1]);
}

#[test]
fn a_transaction_that_cannot_be_staged_is_refused_alone_and_remembered() {
    for place in 0..7 {
        let mut engine = engine(State::empty("c"));
        engine.publisher().fails = |effects| {
            let mut rows = effects.tables[TableId::Tasks as usize].upserts.iter();
            rows.any(|rows| format!("{:?}", rows.column(0)).contains("guilty"))
        };
        let names: Vec<String> = (0..7)
            .map(|number| {
                if number == place {
                    "guilty".to_owned()
                } else {
                    format!("t{number}")
                }
            })
            .collect();
        let answers =
            submit(&mut engine, names.iter().map(|name| put(name)).collect()).expect("not fatal");
        for (number, answer) in answers.iter().enumerate() {
            assert_eq!(
                answer.outcome == Done,
                number != place,
                "{place}: {answer:?}"
            );
        }
        let reason = answers[place].reason.as_deref().unwrap_or_default();
        assert!(reason.contains("this cannot be staged"), "{reason}");
        let mut expected: Vec<String> = names
            .iter()
            .filter(|name| *name != "guilty")
            .cloned()
            .collect();
        expected.sort();
        assert_eq!(keys(&engine), expected);
        assert_eq!(
            one(&mut engine, put("guilty")),
            answers[place],
            "remembered"
        );
    }
}

#[test]
fn an_id_is_judged_once_whatever_became_of_it() {
    let mut engine = engine(State::empty("c"));
    let first = submit(&mut engine, vec![bad("x"), put("y")]).expect("not fatal");
    let again = submit(&mut engine, vec![put("y"), put("x"), bad("y")]).expect("not fatal");
    assert_eq!(
        again,
        [first[1].clone(), first[0].clone(), first[1].clone()]
    );
    assert_eq!(keys(&engine), ["y"]);
    assert_eq!(engine.journal().entries.len(), 1, "nothing new to log");
    // A group of nothing but refusals is logged for its ids, and takes no generation.
    let generation = engine.publisher().generation;
    assert_eq!(one(&mut engine, bad("z")).generation, Some(generation));
    assert_eq!(engine.publisher().generation, generation);
    assert_eq!(engine.journal().entries.len(), 2);
    // One without an id leaves nothing at all.
    let nameless = transaction(&json!({"ops": [{"delete": "tasks", "key": "nobody"}]}));
    assert_eq!(one(&mut engine, nameless).outcome, Refused);
    assert_eq!(engine.journal().entries.len(), 2);
    for id in ["", &"i".repeat(257)] {
        let Request::Transaction(mut long) = put("w") else {
            unreachable!()
        };
        long.id = Some(id.to_owned());
        let answer = one(&mut engine, Request::Transaction(long));
        assert!(
            answer
                .reason
                .as_ref()
                .is_some_and(|reason| reason.contains("256")),
            "{answer:?}"
        );
    }
}

#[test]
fn a_condition_on_the_generation_is_judged_against_what_is_published() {
    let mut engine = engine(State::empty("c"));
    let at = |generation: u64, id: &str| {
        transaction(
            &json!({"if": [{"generation": generation}], "ops": [{"put": "tasks", "row": {"id": id}}]}),
        )
    };
    // Not in one generation with what came before it in the group.
    let answers = submit(
        &mut engine,
        vec![put("a"), at(1, "b"), at(2, "c"), put("d")],
    )
    .expect("not fatal");
    let outcomes: Vec<_> = answers.iter().map(|answer| answer.outcome).collect();
    assert_eq!(outcomes, [Done, Refused, Done, Done]);
    let generations: Vec<_> = answers.iter().map(|answer| answer.generation).collect();
    assert_eq!(generations, [Some(2), Some(2), Some(3), Some(3)]);
    assert_eq!(engine.journal().entries.len(), 2);
}

#[test]
fn a_patch_logs_its_columns_and_no_more() {
    let mut engine = engine(State::empty("c"));
    one(
        &mut engine,
        transaction(&json!({"ops": [{"put": "tasks", "row": {"id": "a", "type": "x"}}]})),
    );
    let set = json!({"ops": [{"patch": "tasks", "key": "a", "set": {"status": "running"}}]});
    one(&mut engine, transaction(&set));
    let columns = |entry: usize, engine: &mut TestEngine| -> Vec<Vec<String>> {
        let upserts =
            &engine.journal().entries[entry].effects.tables[TableId::Tasks as usize].upserts;
        let names = |rows: &RecordBatch| {
            rows.schema()
                .fields()
                .iter()
                .map(|field| field.name().clone())
                .collect()
        };
        upserts.iter().map(names).collect()
    };
    assert_eq!(
        columns(0, &mut engine),
        [["id", "type", "created_at", "updated_at"]]
    );
    assert_eq!(columns(1, &mut engine), [["id", "status", "updated_at"]]);
    // What cancels itself out in a group is not logged at all.
    let ops = json!([{"put": "tasks", "row": {"id": "b"}}, {"delete": "tasks", "key": "b"}]);
    assert_eq!(
        one(&mut engine, transaction(&json!({"ops": ops}))).outcome,
        Done
    );
    assert_eq!(engine.journal().entries.len(), 2);
}

/// Each refusal names what the sender has to change.
#[test]
fn refusals_name_table_row_and_column() {
    let mut engine = engine(State::empty("c"));
    one(
        &mut engine,
        transaction(
            &json!({"ops": [{"put": "tasks", "row": {"id": "t", "status": "pending", "resources": {"cpu_cores": 1}}}]}),
        ),
    );
    let put = |row: Value| json!({"ops": [{"put": "tasks", "row": row}]});
    let patch = |set: Value| json!({"ops": [{"patch": "tasks", "key": "t", "set": set}]});
    let when = |condition: Value| json!({"if": [condition], "ops": []});
    let long = "k".repeat(1025);
    let cases: Vec<(Value, &[&str])> = vec![
        (put(json!({"status": "x"})), &["tasks", "id"]),
        (put(json!({"id": null})), &["tasks", "id"]),
        (put(json!({"id": 7})), &["tasks", "id"]),
        (put(json!({"id": ""})), &["1 to 1024", "has 0"]),
        (put(json!({"id": long})), &["1 to 1024", "has 1025"]),
        (
            put(json!({"id": "u", "colour": 1})),
            &["tasks", "\"u\"", "no column colour"],
        ),
        (
            put(json!({"id": "u", "resources": {"colour": 1}})),
            &["no column resources.colour"],
        ),
        (
            put(json!({"id": "u", "status": 1})),
            &["column status", "1 is not text"],
        ),
        (
            put(json!({"id": "u", "priority": 2_147_483_648_i64})),
            &["column priority", "2147483648", "int32"],
        ),
        (
            put(json!({"id": "u", "priority": 1.0})),
            &["column priority", "1.0", "int32"],
        ),
        (
            put(json!({"id": "u", "progress": 1e39})),
            &["column progress", "float32"],
        ),
        (
            put(json!({"id": "u", "progress": "1"})),
            &["column progress", "\"1\"", "number"],
        ),
        (
            put(json!({"id": "u", "created_at": "yesterday"})),
            &["column created_at", "yesterday", "milliseconds"],
        ),
        (
            put(json!({"id": "u", "created_at": "2026-01-02T03:04:05"})),
            &["column created_at"],
        ),
        (
            put(json!({"id": "u", "created_at": 1.5})),
            &["column created_at", "1.5"],
        ),
        (
            put(json!({"id": "u", "input_cids": "c"})),
            &["column input_cids", "a list of texts"],
        ),
        (
            put(json!({"id": "u", "input_cids": ["c", 1]})),
            &["column input_cids[]", "1 is not text"],
        ),
        (
            put(json!({"id": "u", "resources": {"cpu_cores": "2"}})),
            &["column resources.cpu_cores", "int32"],
        ),
        (
            put(json!({"id": "u", "resources": 3})),
            &["column resources", "an object"],
        ),
        (patch(json!({})), &["\"t\"", "sets nothing"]),
        (patch(json!({"id": "other"})), &["its id is its key"]),
        (patch(json!({"colour": 1})), &["no column colour"]),
        (
            patch(json!({"resources": {"cpu_cores": -3_000_000_000_i64}})),
            &["resources.cpu_cores", "-3000000000"],
        ),
        (
            json!({"ops": [{"patch": "tasks", "key": "nobody", "set": {"status": "x"}}]}),
            &["no row \"nobody\" in tasks"],
        ),
        (
            json!({"ops": [{"delete": "nodes", "key": "n"}]}),
            &["no row \"n\" in nodes"],
        ),
        (
            json!({"ops": [{"patch": "cluster", "set": {"colour": 1}}]}),
            &["cluster", "no column colour"],
        ),
        (
            json!({"ops": [{"patch": "cluster", "set": {"cluster_id": "d"}}]}),
            &["cluster \"c\": its cluster_id is its key and stays"],
        ),
        (
            json!({"ops": [{"patch": "cluster", "key": "d", "set": {"master_id": "n"}}]}),
            &["cluster \"c\", not \"d\""],
        ),
        (
            when(json!({"table": "tasks", "key": "t", "exists": false})),
            &["tasks \"t\" is there"],
        ),
        (
            when(json!({"table": "tasks", "key": "u", "exists": true})),
            &["tasks \"u\" is not there"],
        ),
        (
            when(json!({"table": "tasks", "key": "t", "column": "status", "equals": "x"})),
            &["status is \"pending\", not \"x\""],
        ),
        (
            when(json!({"table": "tasks", "key": "t", "column": "colour", "equals": "x"})),
            &["no column colour"],
        ),
        (
            when(json!({"table": "tasks", "key": "t", "column": "status", "equals": 3})),
            &["column status", "3 is not text"],
        ),
        (
            when(json!({"table": "tasks", "key": "u", "column": "status", "equals": null})),
            &["no row \"u\""],
        ),
        (
            when(
                json!({"table": "tasks", "key": "t", "column": "resources.cpu_cores", "equals": 2}),
            ),
            &["is 1, not 2"],
        ),
        (
            when(json!({"table": "tasks", "key": "t", "column": "resources.colour", "equals": 2})),
            &["no column resources.colour"],
        ),
        (when(json!({"generation": 7})), &["generation is 2, not 7"]),
    ];
    let before = engine.publisher().state.clone();
    for (case, told) in cases {
        // Whole or not at all: what is fine before it goes too.
        let mut whole = case.clone();
        if let Some(ops) = whole["ops"].as_array_mut() {
            ops.insert(0, json!({"put": "tasks", "row": {"id": "fine"}}));
        }
        for case in [case, whole] {
            let answer = one(&mut engine, transaction(&case));
            assert_eq!(answer.outcome, Refused, "{case}: {answer:?}");
            let reason = answer.reason.expect("a reason");
            for told in told {
                assert!(reason.contains(told), "{case}: {reason:?} has no {told:?}");
            }
        }
    }
    assert_eq!(engine.publisher().state, before);
}

#[test]
fn times_may_be_milliseconds_or_text() {
    let mut engine = engine(State::empty("c"));
    for (given, expected) in [
        (json!(1_700_000_000_123_i64), 1_700_000_000_123_i64),
        (json!("2023-11-14T22:13:20.123Z"), 1_700_000_000_123),
        (json!("2023-11-14T23:13:20.123999+01:00"), 1_700_000_000_123),
        (json!("1969-12-31T23:59:59.9999Z"), -1),
        (json!("2023-11-14"), 1_699_920_000_000),
    ] {
        let row = json!({"id": "t", "created_at": given});
        assert_eq!(
            one(
                &mut engine,
                transaction(&json!({"ops": [{"put": "tasks", "row": row}]}))
            )
            .outcome,
            Done
        );
        assert_eq!(
            rows(&engine, TableId::Tasks)["t"]["created_at"],
            expected,
            "{given}"
        );
    }
}

#[test]
fn the_cluster_is_patched_like_a_row() {
    let mut engine = engine_at(State::empty("c"), 77);
    let set = json!({"if": [{"table": "cluster", "column": "master_id", "equals": null}],
                     "ops": [{"patch": "cluster", "set": {"master_id": "n1", "updated_at": 1}}]});
    assert_eq!(one(&mut engine, transaction(&set)).outcome, Done);
    assert_eq!(
        cluster(&engine),
        json!({"cluster_id": "c", "master_id": "n1", "updated_at": 77})
    );
    assert_eq!(one(&mut engine, transaction(&set)).outcome, Refused);
}

#[test]
fn an_id_that_is_done_keeps_its_answer_when_nothing_can_be_written() {
    let failures: [fn(&mut TestEngine); 4] = [
        |engine| engine.journal().fail = Some(|| JournalError::Full("no space left".into())),
        |engine| engine.journal().fail = Some(|| JournalError::Broken("EIO".into())),
        |engine| engine.publisher().is_lost = true,
        |engine| engine.publisher().fails = |_| true,
    ];
    for (number, fail) in failures.into_iter().enumerate() {
        let mut engine = engine(State::empty("c"));
        let first = submit(&mut engine, vec![put("done"), bad("refused")]).expect("not fatal");
        fail(&mut engine);
        let again = vec![put("done"), put("new"), bad("refused"), put("done")];
        let answers = submit(&mut engine, again).unwrap_or_else(|(_, answers)| answers);
        let kept = [&answers[0], &answers[2], &answers[3]];
        assert_eq!(kept, [&first[0], &first[1], &first[0]], "{number}");
        assert_ne!(answers[1].outcome, Done, "{number}");
    }
}

#[test]
fn after_a_failed_sync_the_ids_of_its_group_stay_unknown() {
    let mut engine = engine(State::empty("c"));
    let done = one(&mut engine, put("before"));
    engine.journal().fail = Some(|| JournalError::Broken("EIO".into()));
    submit(&mut engine, vec![put("a"), bad("b")]).expect_err("fatal");
    let (_, answers) = submit(
        &mut engine,
        vec![put("a"), bad("b"), put("c"), put("before"), put("a")],
    )
    .expect_err("fatal for ever");
    let outcomes: Vec<_> = answers.iter().map(|answer| answer.outcome).collect();
    assert_eq!(outcomes, [Unknown, Unknown, Refused, Done, Unknown]);
    assert_eq!(answers[3], done);
}

#[test]
fn a_refusal_whose_logging_failed_is_unknown() {
    let mut engine = engine(State::empty("c"));
    engine.publisher().fails = |_| true;
    engine.journal().fail = Some(|| JournalError::Broken("EIO".into()));
    let (_, answers) = submit(&mut engine, vec![put("a")]).expect_err("fatal");
    assert_eq!(answers[0].outcome, Unknown, "{answers:?}");
}

#[test]
fn both_halves_of_a_group_are_answered_when_the_sync_fails_in_the_first() {
    let mut engine = engine(State::empty("c"));
    engine.journal().fail = Some(|| JournalError::Broken("EIO".into()));
    engine.publisher().fails = |effects| {
        let mut rows = effects.tables[TableId::Tasks as usize].upserts.iter();
        rows.any(|rows| rows.num_rows() > 2)
    };
    let group = ["a", "b", "c", "d", "e"].map(put);
    let (fatal, answers) = submit(&mut engine, group.into()).expect_err("fatal");
    assert!(fatal.source.is_some());
    let unknown = answers.iter().filter(|answer| answer.outcome == Unknown);
    assert_eq!(unknown.count(), 2, "{answers:?}");
}

#[test]
fn who_lost_its_place_logs_nothing_and_says_so() {
    let mut engine = engine(State::empty("c"));
    one(&mut engine, put("before"));
    engine.publisher().is_lost = true;
    // Also what would only be remembered.
    for group in [vec![put("a"), bad("b")], vec![bad("b")], vec![put("a")]] {
        let answers = submit(&mut engine, group).expect("not fatal");
        for answer in answers {
            assert_eq!(answer.outcome, Unknown, "{answer:?}");
            let reason = answer.reason.unwrap_or_default();
            assert!(reason.contains("another is here"), "{reason}");
        }
    }
    let nameless = transaction(&json!({"ops": [{"put": "tasks", "row": {"id": "x"}}]}));
    assert_eq!(one(&mut engine, nameless).outcome, Refused);
    assert_eq!(engine.journal().entries.len(), 1);
    assert_eq!(keys(&engine), ["before"]);
}

#[test]
fn a_refusal_that_may_pass_is_not_remembered() {
    let mut engine = engine(State::empty("c"));
    engine.publisher().fails = |_| true;
    engine.publisher().with = StageError::Passing;
    let answers = submit(&mut engine, vec![put("a"), put("b"), bad("c")]).expect("not fatal");
    for answer in &answers {
        assert_eq!(answer.outcome, Refused, "{answer:?}");
    }
    let reason = answers[0].reason.as_deref().unwrap_or_default();
    assert!(reason.contains("cannot be published now"), "{reason}");
    engine.publisher().fails = |_| false;
    let again = submit(&mut engine, vec![put("a"), put("b"), put("c")]).expect("not fatal");
    let outcomes: Vec<_> = again.iter().map(|answer| answer.outcome).collect();
    assert_eq!(
        outcomes,
        [Done, Done, Refused],
        "its own fault is remembered"
    );
}

#[test]
fn a_commit_ends_with_its_time_and_leaves_the_rest_in_order() {
    let mut engine = engine(State::empty("c"));
    let now = std::time::Instant::now();
    let first = |id: &str| {
        transaction(
            &json!({"id": id, "if": [{"table": "tasks", "key": "none", "exists": false}, {"generation": 9}], "ops": []}),
        )
    };
    let answered = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let group = [put("a"), put("b"), first("c"), put("d"), first("e")];
    let group = group.map(|request| {
        let answered = std::sync::Arc::clone(&answered);
        let reply = Box::new(move |answer: Answer| {
            let id = answer.id.unwrap_or_default();
            answered.lock().expect("no panic").push(id);
        });
        Submission { request, reply }
    });
    let mut queue = std::collections::VecDeque::from(group);
    for left in [3, 1, 0] {
        engine
            .commit_until(&mut queue, Some(now))
            .expect("not fatal");
        assert_eq!(queue.len(), left);
    }
    assert_eq!(
        *answered.lock().expect("no panic"),
        ["a", "b", "c", "d", "e"]
    );
    assert_eq!(engine.journal().entries.len(), 3);
}

#[test]
fn a_group_in_which_all_are_guilty_is_tried_little_more_than_once_each() {
    static TRIED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let mut engine = engine(State::empty("c"));
    engine.publisher().fails = |_| {
        TRIED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        true
    };
    let group: Vec<Request> = (0..512).map(|number| put(&format!("t{number}"))).collect();
    let answers = submit(&mut engine, group).expect("not fatal");
    assert!(answers.iter().all(|answer| answer.outcome == Refused));
    let tried = TRIED.load(std::sync::atomic::Ordering::Relaxed);
    assert!(tried <= 512 + 9, "{tried} times");
}
