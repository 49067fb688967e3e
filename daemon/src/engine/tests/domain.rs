//! Domain operations: every step from every state, and what a claim takes.

use serde_json::{Value, json};
use sherwood_shared::schema::TableId;
use sherwood_shared::state::State;
use sherwood_shared::transaction::OutcomeKind;

use super::doubles::*;

const NOW: i64 = 9_000;
const STATES: [&str; 6] = [
    "pending",
    "assigned",
    "running",
    "completed",
    "failed",
    "cancelled",
];

/// An engine with two nodes, one of them online.
fn with_nodes() -> TestEngine {
    let mut engine = engine_at(State::empty("c"), NOW);
    let resources = json!({"cpu_count": 4, "gpu_count": 1, "gpu_available": false, "memory_available": 1_i64 << 30});
    done(
        &mut engine,
        "register",
        &json!({"node": {"id": "n1", "role": "worker", "resources": resources}}),
    );
    done(
        &mut engine,
        "register",
        &json!({"node": {"id": "n2", "status": "offline"}}),
    );
    engine
}

fn done(engine: &mut TestEngine, action: &str, body: &Value) -> Option<String> {
    let answer = one(engine, domain(action, body));
    assert_eq!(
        answer.outcome,
        OutcomeKind::Done,
        "{action} {body}: {answer:?}"
    );
    answer.task
}

fn refused(engine: &mut TestEngine, action: &str, body: &Value) -> String {
    let answer = one(engine, domain(action, body));
    assert_eq!(
        answer.outcome,
        OutcomeKind::Refused,
        "{action} {body}: {answer:?}"
    );
    answer.reason.expect("a reason")
}

fn put(engine: &mut TestEngine, table: &str, row: &Value) {
    let answer = one(
        engine,
        transaction(&json!({"ops": [{"put": table, "row": row}]})),
    );
    assert_eq!(answer.outcome, OutcomeKind::Done, "{row}: {answer:?}");
}

fn task(engine: &TestEngine, id: &str) -> Value {
    rows(engine, TableId::Tasks)[id].clone()
}

/// A task in a state, with everything that it may carry there.
fn in_state(engine: &mut TestEngine, status: &str) {
    let mut row = json!({"id": "t", "type": "x", "status": status, "created_at": 1});
    if status != "pending" {
        row["assigned_to"] = json!("n1");
        row["started_at"] = json!(2);
        row["progress"] = json!(0.5);
    }
    if status == "failed" {
        row["error"] = json!("oh");
        row["completed_at"] = json!(3);
    }
    put(engine, "tasks", &row);
}

#[test]
fn each_step_is_allowed_from_its_states_alone_and_leads_to_its_own() {
    let steps: [(&str, Value, &[&str], &str); 7] = [
        (
            "assign",
            json!({"task": "t", "node": "n1"}),
            &["pending"],
            "assigned",
        ),
        ("start", json!({"task": "t"}), &["assigned"], "running"),
        (
            "complete",
            json!({"task": "t", "outputs": ["c1", "c2"]}),
            &["assigned", "running"],
            "completed",
        ),
        (
            "fail",
            json!({"task": "t", "reason": "no"}),
            &["assigned", "running"],
            "failed",
        ),
        (
            "release",
            json!({"task": "t"}),
            &["assigned", "running"],
            "pending",
        ),
        (
            "cancel",
            json!({"task": "t"}),
            &["pending", "assigned", "running"],
            "cancelled",
        ),
        ("retry", json!({"task": "t"}), &["failed"], "pending"),
    ];
    for (action, body, allowed, to) in steps {
        for from in STATES {
            let mut engine = with_nodes();
            in_state(&mut engine, from);
            let before = task(&engine, "t");
            if !allowed.contains(&from) {
                let reason = refused(&mut engine, action, &body);
                assert!(
                    reason.contains(&format!("is {from}")),
                    "{action} from {from}: {reason}"
                );
                assert_eq!(task(&engine, "t"), before, "{action} from {from}");
                continue;
            }
            done(&mut engine, action, &body);
            let after = task(&engine, "t");
            assert_eq!(after["status"], to, "{action} from {from}");
            assert_eq!(after["updated_at"], NOW, "{action} from {from}");
            let (node, started, ended, error) = (
                &after["assigned_to"],
                &after["started_at"],
                &after["completed_at"],
                &after["error"],
            );
            match action {
                "assign" => assert_eq!(node, "n1"),
                "start" => assert_eq!((started, ended), (&json!(NOW), &Value::Null)),
                "complete" => {
                    assert_eq!(
                        (ended, error, &after["progress"]),
                        (&json!(NOW), &Value::Null, &json!(1))
                    );
                    assert_eq!(
                        (&after["output_cid"], &after["output_cids"]),
                        (&json!("c1"), &json!(["c1", "c2"]))
                    );
                    assert_eq!(started, &json!(2));
                }
                "fail" => assert_eq!(
                    (ended, error, node),
                    (&json!(NOW), &json!("no"), &json!("n1"))
                ),
                "cancel" => assert_eq!(ended, &json!(NOW)),
                _ => {
                    assert_eq!(
                        (node, started, ended, error),
                        (&Value::Null, &Value::Null, &Value::Null, &Value::Null)
                    );
                    assert_eq!(after["progress"], Value::Null);
                }
            }
        }
    }
}

#[test]
fn a_task_without_a_status_is_pending() {
    let mut engine = with_nodes();
    put(&mut engine, "tasks", &json!({"id": "t"}));
    assert!(refused(&mut engine, "start", &json!({"task": "t"})).contains("is pending"));
    assert_eq!(
        done(&mut engine, "claim", &json!({"node": "n1"})).as_deref(),
        Some("t")
    );
}

#[test]
fn work_goes_to_nodes_that_are_there_and_online() {
    let mut engine = with_nodes();
    put(
        &mut engine,
        "tasks",
        &json!({"id": "t", "status": "pending"}),
    );
    for action in ["assign", "claim"] {
        let body = |node: &str| match action {
            "assign" => json!({"task": "t", "node": node}),
            _ => json!({"node": node}),
        };
        assert!(
            refused(&mut engine, action, &body("n2")).contains("offline"),
            "{action}"
        );
        assert!(
            refused(&mut engine, action, &body("n3")).contains("no row \"n3\" in nodes"),
            "{action}"
        );
    }
    assert!(
        refused(&mut engine, "assign", &json!({"task": "u", "node": "n1"}))
            .contains("no row \"u\" in tasks")
    );
}

#[test]
fn a_claim_takes_the_oldest_task_that_fits_and_then_the_next() {
    let mut engine = with_nodes();
    let tasks = [
        json!({"id": "big", "type": "x", "status": "pending", "created_at": 1, "resources": {"cpu_cores": 5}}),
        json!({"id": "gpu", "type": "x", "status": "pending", "created_at": 1, "resources": {"gpu_cores": 1}}),
        json!({"id": "fat", "type": "x", "status": "pending", "created_at": 1, "resources": {"memory_mb": 1025}}),
        json!({"id": "run", "type": "x", "status": "running", "created_at": 1}),
        json!({"id": "b", "type": "x", "status": "pending", "created_at": 2}),
        json!({"id": "a", "type": "x", "status": "pending", "created_at": 2, "resources": {"cpu_cores": 4, "memory_mb": 1024}}),
        json!({"id": "0", "type": "y", "status": "pending", "created_at": 3}),
    ];
    for task in &tasks {
        put(&mut engine, "tasks", task);
    }
    let claim = |types: &[&str]| domain("claim", &json!({"node": "n1", "types": types}));
    // In one group: each sees what those before it took.
    let group = vec![
        claim(&["y", "z"]),
        claim(&[]),
        claim(&["x"]),
        claim(&["x"]),
        claim(&[]),
    ];
    let answers = submit(&mut engine, group).expect("not fatal");
    let taken: Vec<Option<&str>> = answers
        .iter()
        .map(|answer| answer.task.as_deref())
        .collect();
    assert_eq!(taken, [Some("0"), Some("a"), Some("b"), None, None]);
    assert!(
        answers
            .iter()
            .all(|answer| answer.outcome == OutcomeKind::Done),
        "{answers:?}"
    );
    assert_eq!(task(&engine, "a")["assigned_to"], "n1");
    // What comes back, and what comes new, can be claimed; what goes cannot.
    done(&mut engine, "release", &json!({"task": "b"}));
    put(
        &mut engine,
        "tasks",
        &json!({"id": "new", "type": "x", "status": "pending", "created_at": 0}),
    );
    put(
        &mut engine,
        "tasks",
        &json!({"id": "newer", "type": "x", "status": "pending", "created_at": 0}),
    );
    one(
        &mut engine,
        transaction(&json!({"ops": [{"delete": "tasks", "key": "newer"}]})),
    );
    // A transaction that is refused gives its task back.
    let half = json!({"ops": [{"patch": "tasks", "key": "new", "set": {"status": "running"}}, {"delete": "tasks", "key": "none"}]});
    let group = vec![transaction(&half), claim(&[]), claim(&[]), claim(&[])];
    let answers = submit(&mut engine, group).expect("not fatal");
    let taken: Vec<Option<&str>> = answers
        .iter()
        .map(|answer| answer.task.as_deref())
        .collect();
    assert_eq!(taken, [None, Some("new"), Some("b"), None], "{answers:?}");
    // With usable GPUs and more memory the others fit too.
    let more = json!({"resources": {"gpu_available": true, "memory_available": 1_i64 << 40}});
    done(
        &mut engine,
        "heartbeat",
        &json!({"node": "n1", "set": more}),
    );
    let answers = submit(&mut engine, vec![claim(&[]), claim(&[]), claim(&[])]).expect("not fatal");
    let taken: Vec<Option<&str>> = answers
        .iter()
        .map(|answer| answer.task.as_deref())
        .collect();
    assert_eq!(taken, [Some("fat"), Some("gpu"), None]);
}

#[test]
fn a_claim_that_is_repeated_gets_the_same_task() {
    let mut engine = with_nodes();
    for id in ["a", "b"] {
        put(&mut engine, "tasks", &json!({"id": id}));
    }
    let claim = || domain("claim", &json!({"id": "once", "node": "n1"}));
    let answers = submit(&mut engine, vec![claim(), claim()]).expect("not fatal");
    assert_eq!(answers[0].task.as_deref(), Some("a"));
    assert_eq!(answers[0], answers[1]);
    assert_eq!(one(&mut engine, claim()), answers[0]);
}

#[test]
fn nodes_register_beat_and_leave() {
    let mut engine = with_nodes();
    let node = |engine: &TestEngine, id: &str| rows(engine, TableId::Nodes).get(id).cloned();
    assert_eq!(node(&engine, "n1").expect("there")["status"], "online");
    assert_eq!(node(&engine, "n1").expect("there")["last_seen"], NOW);
    assert_eq!(node(&engine, "n2").expect("there")["status"], "offline");
    done(
        &mut engine,
        "heartbeat",
        &json!({"node": "n1", "set": {"resources": {"cpu_load": 0.5}, "last_seen": 7}}),
    );
    let after = node(&engine, "n1").expect("there");
    assert_eq!(
        (
            &after["resources"]["cpu_load"],
            &after["resources"]["cpu_count"]
        ),
        (&json!(0.5), &json!(4))
    );
    assert_eq!(after["last_seen"], 7, "what the node says counts");
    assert!(refused(&mut engine, "heartbeat", &json!({"node": "n9"})).contains("n9"));
    // Registering again: online, unless it says otherwise, and what it leaves out is gone.
    done(&mut engine, "register", &json!({"node": {"id": "n2"}}));
    assert_eq!(node(&engine, "n2").expect("there")["status"], "online");

    for (id, status) in [("t1", "running"), ("t2", "completed"), ("t3", "assigned")] {
        put(
            &mut engine,
            "tasks",
            &json!({"id": id, "status": status, "assigned_to": "n1"}),
        );
    }
    let reason = refused(&mut engine, "remove_node", &json!({"node": "n1"}));
    assert!(
        reason.contains("2 open task(s)") && reason.contains("t1"),
        "{reason}"
    );
    assert!(refused(&mut engine, "remove_node", &json!({"node": "n9"})).contains("n9"));
    let group = vec![
        domain("complete", &json!({"task": "t1"})),
        domain("cancel", &json!({"task": "t3"})),
        domain("remove_node", &json!({"node": "n1"})),
    ];
    let answers = submit(&mut engine, group).expect("not fatal");
    assert!(
        answers
            .iter()
            .all(|answer| answer.outcome == OutcomeKind::Done),
        "{answers:?}"
    );
    assert_eq!(node(&engine, "n1"), None);
}

#[test]
fn content_is_added_pinned_provided_and_removed() {
    let mut engine = with_nodes();
    let content = |engine: &TestEngine| rows(engine, TableId::Content).get("c1").cloned();
    done(
        &mut engine,
        "add_content",
        &json!({"content": {"cid": "c1", "size": 5}}),
    );
    assert_eq!(
        content(&engine),
        Some(json!({"cid": "c1", "size": 5, "created_at": NOW}))
    );
    done(&mut engine, "pin", &json!({"cid": "c1"}));
    assert_eq!(content(&engine).expect("there")["pinned"], true);
    done(&mut engine, "unpin", &json!({"cid": "c1"}));
    assert_eq!(content(&engine).expect("there")["pinned"], false);
    for node in ["n1", "n2", "n1"] {
        done(
            &mut engine,
            "add_provider",
            &json!({"cid": "c1", "node": node}),
        );
    }
    assert_eq!(
        content(&engine).expect("there")["providers"],
        json!(["n1", "n2"])
    );
    assert!(
        refused(
            &mut engine,
            "add_provider",
            &json!({"cid": "c1", "node": "n9"})
        )
        .contains("n9")
    );
    for node in ["n1", "n9", "n2"] {
        done(
            &mut engine,
            "drop_provider",
            &json!({"cid": "c1", "node": node}),
        );
    }
    assert_eq!(content(&engine).expect("there")["providers"], json!([]));
    done(&mut engine, "remove_content", &json!({"cid": "c1"}));
    assert_eq!(content(&engine), None);
    for (action, body) in [
        ("pin", json!({"cid": "c1"})),
        ("unpin", json!({"cid": "c1"})),
        ("remove_content", json!({"cid": "c1"})),
        ("drop_provider", json!({"cid": "c1", "node": "n1"})),
    ] {
        assert!(
            refused(&mut engine, action, &body).contains("no row \"c1\" in content"),
            "{action}"
        );
    }
}
