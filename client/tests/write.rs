//! The writers against a socket that drops, delays and talks nonsense.

mod stub;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use serde_json::json;
use sherwood_client::TableId;
use sherwood_client::write::{
    Address, AsyncWriter, ChangeOp, Mode, Node, Options, Outcome, PendingWrite, Transaction,
    WriteError, Writer, tasks,
};
use stub::{Act, Stub};
use tempfile::TempDir;
use tonic::{Code, Status};

/// Longer than any machine takes; deadlines that have to pass are short.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(600);

fn place() -> (TempDir, Stub) {
    let dir = tempfile::tempdir().expect("a directory");
    let stub = Stub::start(&dir.path().join("c.sock"));
    (dir, stub)
}

fn writer(stub: &Stub, deadline: Duration) -> Writer {
    let options = Options::default()
        .deadline(deadline)
        .bulk_deadline(deadline);
    Writer::connect_with(Address::Socket(stub.path().into()), options).expect("connects")
}

fn transaction(id: &str) -> Transaction {
    Transaction::new()
        .id(id)
        .patch(tasks("t1").set("status", "running"))
}

fn done(generation: u64) -> Outcome {
    Outcome::Done {
        generation,
        task: None,
    }
}

fn rows(count: usize) -> RecordBatch {
    let ids: StringArray = (0..count).map(|row| Some(format!("t{row}"))).collect();
    RecordBatch::try_from_iter([("id", Arc::new(ids) as ArrayRef)]).expect("a batch")
}

#[test]
fn an_answer_lost_with_its_connection_is_asked_for_again_with_the_same_id() {
    for act in [
        Act::Drop,
        Act::ApplyAndDrop,
        Act::ApplyAndEnd,
        Act::Garbage,
        Act::WrongId,
        Act::Unknown,
        Act::Status(Code::Unavailable),
        Act::Status(Code::Internal),
    ] {
        let (_dir, stub) = place();
        let writer = writer(&stub, LONG);
        stub.will(&[act, act, act]);
        assert_eq!(
            writer.apply(transaction("a")).ok(),
            Some(done(1)),
            "{act:?}"
        );
        let seen = stub.seen();
        assert_eq!(seen.ids(), ["a"; 4], "{act:?}");
        assert_eq!(seen.applied, ["a"], "{act:?}");
    }
}

#[test]
fn what_was_pipelined_is_applied_once_each_and_in_order_whatever_breaks() {
    for (number, act) in [Act::Drop, Act::ApplyAndDrop, Act::Garbage, Act::WrongId]
        .into_iter()
        .enumerate()
    {
        for broken in 0..6 {
            let (_dir, stub) = place();
            let writer = writer(&stub, LONG);
            let mut acts = vec![Act::Serve; broken];
            acts.push(act);
            stub.will(&acts);
            let ids: Vec<String> = (0..6).map(|id| format!("{number}-{id}")).collect();
            let pending: Vec<_> = ids
                .iter()
                .map(|id| writer.submit(transaction(id)).expect("submits"))
                .collect();
            let outcomes: Vec<_> = pending
                .into_iter()
                .map(|pending| pending.wait().expect("an outcome"))
                .collect();
            let all_done = outcomes.iter().all(Outcome::is_done);
            assert!(all_done, "{act:?} at {broken}: {outcomes:?}");
            if matches!(act, Act::Garbage | Act::WrongId) {
                // The stub goes on with what it has of the old connection.
                stub.seen().applied.sort();
            }
            assert_eq!(stub.seen().applied, ids, "{act:?} at {broken}");
        }
    }
}

#[test]
fn a_request_that_the_daemon_cannot_read_is_found_among_its_neighbours() {
    for guilty in 0..4 {
        let (_dir, stub) = place();
        let writer = writer(&stub, LONG);
        // All at once until the guilty one ends the stream, then one at a time.
        let mut acts = vec![Act::Serve; guilty];
        acts.push(Act::Status(Code::OutOfRange));
        acts.push(Act::Status(Code::OutOfRange));
        stub.will(&acts);
        let pending: Vec<_> = (0..4)
            .map(|id| {
                writer
                    .submit(transaction(&id.to_string()))
                    .expect("submits")
            })
            .collect();
        let outcomes: Vec<_> = pending
            .into_iter()
            .map(|pending| pending.wait().expect("an outcome"))
            .collect();
        for (id, outcome) in outcomes.iter().enumerate() {
            let refused =
                matches!(outcome, Outcome::Refused { reason, .. } if reason == "so it is said");
            assert_eq!(refused, id == guilty, "{guilty}: {outcomes:?}");
            assert_eq!(outcome.is_done(), id != guilty, "{guilty}: {outcomes:?}");
        }
    }
}

#[test]
fn a_request_that_is_too_large_to_be_read_is_refused_in_its_turn() {
    for at in 0..3 {
        let (_dir, stub) = place();
        let writer = writer(&stub, SHORT);
        let mut acts = vec![Act::Serve; at];
        acts.push(Act::RefuseUnread);
        stub.will(&acts);
        let pending: Vec<_> = (0..3)
            .map(|id| writer.submit(transaction(&id.to_string())))
            .collect();
        for (id, pending) in pending.into_iter().enumerate() {
            let outcome = pending.and_then(PendingWrite::wait).expect("an outcome");
            let refused =
                matches!(&outcome, Outcome::Refused { reason, .. } if reason == "too large");
            assert_eq!(refused, id == at, "{at}, {id}: {outcome:?}");
            assert_eq!(outcome.is_done(), id != at, "{at}, {id}: {outcome:?}");
        }
        assert_eq!(stub.seen().ids(), ["0", "1", "2"], "{at}");
    }
}

#[test]
fn what_may_have_been_applied_before_is_unknown_and_not_refused_or_denied() {
    for code in [
        Code::InvalidArgument,
        Code::OutOfRange,
        Code::PermissionDenied,
    ] {
        let (_dir, stub) = place();
        let writer = writer(&stub, LONG);
        stub.will(&[Act::ApplyAndDrop, Act::Status(code)]);
        let outcome = writer.apply(transaction("a")).expect("an outcome");
        assert!(
            matches!(&outcome, Outcome::Unknown { id, .. } if id == "a"),
            "{code:?}: {outcome:?}"
        );
        stub.will(&[Act::ApplyAndDrop, Act::Status(code)]);
        let outcome = writer.bulk(TableId::Tasks, Mode::Put, &[rows(1)], Some("b".into()));
        let outcome = outcome.expect("an outcome");
        assert!(
            matches!(&outcome, Outcome::Unknown { id, .. } if id == "b"),
            "{code:?}: {outcome:?}"
        );
        assert_eq!(stub.seen().applied, ["a", "b"], "{code:?}");
    }
}

#[test]
fn what_never_found_room_is_refused_and_what_found_it_late_is_done() {
    let (_dir, stub) = place();
    let batches = [rows(1)];
    let patient = writer(&stub, LONG);
    stub.will(&[Act::Busy; 3]);
    let put = patient.bulk(TableId::Tasks, Mode::Put, &batches, None);
    assert_eq!(put.ok(), Some(done(1)));
    stub.will(&[Act::Busy; 3]);
    assert_eq!(patient.apply(transaction("a")).ok(), Some(done(2)));
    let hasty = writer(&stub, SHORT);
    for (acts, is_refused) in [
        (vec![Act::Busy; 1000], true),
        ([vec![Act::Drop], vec![Act::Busy; 1000]].concat(), false),
    ] {
        for bulk in [true, false] {
            stub.seen().acts.clear();
            stub.will(&acts);
            let outcome = match bulk {
                true => hasty.bulk(TableId::Tasks, Mode::Put, &batches, None),
                false => hasty.apply(transaction("b")),
            };
            let outcome = outcome.expect("an outcome");
            match &outcome {
                Outcome::Refused { reason, .. } if is_refused => {
                    assert!(reason.contains("no room"), "{reason}");
                }
                Outcome::Unknown { .. } if !is_refused => {}
                _ => panic!("bulk {bulk}, {is_refused}: {outcome:?}"),
            }
        }
    }
}

#[test]
fn an_answer_that_came_while_nobody_waited_counts_after_the_deadline_too() {
    let (_dir, stub) = place();
    // Longer than to send takes, so that it is not over before the answer is on its way.
    let deadline = SHORT * 3;
    let writer = writer(&stub, deadline);
    stub.will(&[Act::Late]);
    let pending = writer.submit(transaction("a")).expect("submits");
    while stub.seen().applied.is_empty() {
        // So that it is sent: nothing runs between calls.
        writer.status().expect("an answer");
    }
    stub.answer_late();
    std::thread::sleep(deadline * 2);
    assert_eq!(pending.wait().ok(), Some(done(1)));
}

/// The same where not even the stream was open when somebody looked last.
#[test]
fn a_stream_that_opened_while_nobody_waited_counts_after_the_deadline_too() {
    let (_dir, stub) = place();
    let deadline = SHORT * 3;
    let writer = writer(&stub, deadline);
    stub.seen().holds_back = true;
    let pending = writer.submit(transaction("a")).expect("submits");
    while stub.seen().holds_back {
        writer.status().expect("an answer");
    }
    stub.answer_late();
    while stub.seen().applied.is_empty() {
        std::thread::yield_now();
    }
    std::thread::sleep(deadline * 2);
    assert_eq!(pending.wait().ok(), Some(done(1)));
}

#[test]
fn what_was_sent_and_never_answered_is_unknown_after_the_deadline_and_can_be_asked_for() {
    for act in [
        Act::Silence,
        Act::Unknown,
        Act::Garbage,
        Act::Status(Code::Unavailable),
    ] {
        let (_dir, stub) = place();
        let writer = writer(&stub, SHORT);
        stub.will(&[act; 1000]);
        let outcome = writer.apply(transaction("a")).expect("an outcome");
        assert!(
            matches!(&outcome, Outcome::Unknown { id, .. } if id == "a"),
            "{act:?}: {outcome:?}"
        );
        assert!(stub.seen().applied.is_empty(), "{act:?}");
        stub.seen().acts.clear();
        let before = writer.outcome("a").expect("an answer");
        assert!(matches!(before, Outcome::Unknown { .. }), "{before:?}");
        assert_eq!(
            writer.apply(transaction("a")).ok(),
            Some(done(1)),
            "{act:?}"
        );
        assert_eq!(writer.outcome("a").ok(), Some(done(1)), "{act:?}");
    }
}

#[test]
fn what_was_never_sent_is_an_error_and_not_unknown() {
    let (_dir, stub) = place();
    let writer = writer(&stub, SHORT);
    assert_eq!(writer.apply(transaction("a")).ok(), Some(done(1)));
    let path = stub.path().to_owned();
    let seen = stub.stop();
    let error = writer.apply(transaction("b"));
    // The old connection may have taken the request before it was seen to be gone: then it is unknown.
    match &error {
        Err(WriteError::Unreachable { .. }) => {}
        Ok(Outcome::Unknown { id, .. }) => assert_eq!(id, "b"),
        other => panic!("{other:?}"),
    }
    let error = writer.apply(transaction("c"));
    assert!(
        matches!(error, Err(WriteError::Unreachable { .. })),
        "{error:?}"
    );
    let stub = Stub::start_with(&path, seen);
    assert_eq!(writer.apply(transaction("d")).ok(), Some(done(2)));
    assert_eq!(stub.seen().applied, ["a", "d"]);
    assert_eq!(writer.outcome("d").ok(), Some(done(2)));
}

#[test]
fn a_daemon_that_is_started_anew_meanwhile_settles_what_was_under_way() {
    let (_dir, stub) = place();
    let path = stub.path().to_owned();
    let writer = writer(&stub, LONG);
    stub.will(&[Act::ApplyAndDrop]);
    let waiter = std::thread::spawn({
        let writer = writer.clone();
        move || writer.apply(transaction("a"))
    });
    while stub.seen().applied.is_empty() {
        std::thread::yield_now();
    }
    let stub = Stub::start_with(&path, stub.stop());
    let outcome = waiter.join().expect("ends").expect("an outcome");
    assert_eq!(outcome, done(1));
    assert_eq!(stub.seen().applied, ["a"]);
}

#[test]
fn a_refusal_says_why_and_a_user_who_may_not_write_is_told_so() {
    let (_dir, stub) = place();
    let writer = writer(&stub, LONG);
    stub.will(&[Act::Refuse]);
    let refused = writer.apply(transaction("a")).expect("an outcome");
    let reason = "tasks: no row with id \"t1\"".to_owned();
    let generation = Some(7);
    assert_eq!(refused, Outcome::Refused { reason, generation });
    let error = refused.done().expect_err("refused");
    assert_eq!(error.to_string(), "refused: tasks: no row with id \"t1\"");
    drop(writer);
    let writer = self::writer(&stub, LONG);
    stub.will(&[Act::Status(Code::PermissionDenied)]);
    let denied = writer.apply(transaction("b"));
    assert!(
        matches!(denied, Err(WriteError::Denied { .. })),
        "{denied:?}"
    );
    assert!(stub.seen().applied.is_empty());
}

#[test]
fn a_bulk_put_is_sent_again_whole_with_its_id_until_it_is_settled() {
    for act in [
        Act::Drop,
        Act::ApplyAndDrop,
        Act::ApplyAndEnd,
        Act::Garbage,
        Act::WrongId,
        Act::Unknown,
        Act::Status(Code::Unavailable),
    ] {
        let (_dir, stub) = place();
        let writer = writer(&stub, LONG);
        stub.will(&[act, act]);
        let batches = [rows(60_000), rows(7)];
        let outcome = writer.bulk(TableId::Tasks, Mode::Put, &batches, Some("a".into()));
        assert_eq!(outcome.ok(), Some(done(1)), "{act:?}");
        let seen = stub.seen();
        let request = json!({"put": "tasks", "id": "a"});
        assert_eq!(
            seen.requests,
            [request.clone(), request.clone(), request],
            "{act:?}"
        );
        assert_eq!(seen.rows["a"], 60_007);
        assert_eq!(seen.applied, ["a"], "{act:?}");
    }
}

#[test]
fn a_bulk_put_is_refused_denied_or_unknown_as_a_transaction_is() {
    let (_dir, stub) = place();
    let batches = [rows(1)];
    let put = |writer: &Writer| writer.bulk(TableId::Tasks, Mode::Patch, &batches, None);
    let patient = writer(&stub, LONG);
    stub.will(&[
        Act::Refuse,
        Act::Status(Code::InvalidArgument),
        Act::Status(Code::PermissionDenied),
    ]);
    assert!(matches!(put(&patient), Ok(Outcome::Refused { .. })));
    assert!(matches!(put(&patient), Ok(Outcome::Refused { .. })));
    assert!(matches!(put(&patient), Err(WriteError::Denied { .. })));
    let hasty = writer(&stub, SHORT);
    stub.will(&[Act::Silence]);
    assert!(matches!(put(&hasty), Ok(Outcome::Unknown { .. })));
    let other =
        RecordBatch::try_from_iter([("cid", Arc::new(StringArray::from(vec!["c"])) as ArrayRef)]);
    let mixed = [rows(1), other.expect("a batch")];
    let error = patient.bulk(TableId::Tasks, Mode::Put, &mixed, None);
    assert!(matches!(error, Err(WriteError::Encode(_))), "{error:?}");
    assert!(stub.seen().applied.is_empty());
}

#[test]
fn domain_operations_are_sent_by_name_and_a_claim_gives_its_task_or_none() {
    let (_dir, stub) = place();
    let writer = writer(&stub, LONG);
    assert!(
        writer
            .assign("t", "n")
            .is_ok_and(|outcome| outcome.is_done())
    );
    assert_eq!(
        writer.claim("n", &["build"]).ok(),
        Some(Some("task-1".into()))
    );
    assert_eq!(writer.claim::<&str>("idle", &[]).ok(), Some(None));
    let node = Node {
        id: "n".into(),
        ..Node::default()
    };
    assert!(writer.register(node).is_ok_and(|outcome| outcome.is_done()));
    let mut requests = stub.seen().requests.clone();
    for request in &mut requests {
        let id = request
            .as_object_mut()
            .and_then(|request| request.shift_remove("id"));
        assert_eq!(
            id.and_then(|id| Some(id.as_str()?.len())),
            Some(36),
            "a UUID"
        );
    }
    let expected = [
        json!({"do": "assign", "task": "t", "node": "n"}),
        json!({"do": "claim", "node": "n", "types": ["build"]}),
        json!({"do": "claim", "node": "idle"}),
        json!({"do": "register", "node": {"id": "n"}}),
    ];
    assert_eq!(requests, expected);
}

#[test]
fn a_blocking_writer_refuses_to_stop_a_runtime_and_may_be_dropped_in_one() {
    let (_dir, stub) = place();
    let writer = writer(&stub, LONG);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let error = writer.apply(transaction("a"));
        assert!(matches!(error, Err(WriteError::InsideRuntime)), "{error:?}");
        let error = Writer::connect(stub.path());
        assert!(matches!(error, Err(WriteError::InsideRuntime)), "{error:?}");
        drop(writer);
    });
    assert!(stub.seen().requests.is_empty());
}

#[test]
fn an_async_writer_lives_in_its_callers_runtime_and_only_there() {
    let (_dir, stub) = place();
    let connect = pin!(AsyncWriter::connect(stub.path()));
    let error = connect.poll(&mut Context::from_waker(Waker::noop()));
    assert!(
        matches!(error, Poll::Ready(Err(WriteError::OutsideRuntime))),
        "{error:?}"
    );
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let writer = AsyncWriter::connect(stub.path()).await.expect("connects");
        let outcomes = futures::future::join_all((0..100).map(|id| {
            let writer = writer.clone();
            async move { writer.apply(transaction(&id.to_string())).await }
        }));
        let outcomes = outcomes.await;
        assert!(
            outcomes
                .iter()
                .all(|outcome| outcome.as_ref().is_ok_and(Outcome::is_done)),
            "{outcomes:?}"
        );
        assert_eq!(
            writer.status().await.expect("an answer"),
            json!({"cluster_id": "c", "trouble": {}})
        );
    });
    let seen = stub.seen();
    assert_eq!(seen.applied.len(), 100);
    assert_eq!(seen.connections, 2, "one for transactions, one for calls");
}

#[test]
fn threads_share_a_blocking_writer() {
    let (_dir, stub) = place();
    let writer = writer(&stub, LONG);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let writer = &writer;
            scope.spawn(move || {
                for turn in 0..50 {
                    let id = format!("{thread}-{turn}");
                    let outcome = writer.apply(transaction(&id)).expect("an outcome");
                    assert!(outcome.is_done(), "{id}: {outcome:?}");
                }
            });
        }
    });
    assert_eq!(stub.seen().applied.len(), 400);
}

#[test]
fn a_watch_goes_on_where_it_was_and_hands_out_every_generation_once() {
    let (_dir, stub) = place();
    let line = |generation: u64| {
        json!({"generation": generation, "at": 1000, "ops": [
            {"put": "tasks", "row": {"id": "t", "status": "running"}},
            {"delete": "content", "key": "c"},
        ]})
        .to_string()
    };
    let part = |generation: u64, id: &str, more: bool| {
        json!({"generation": generation, "at": 1000, "more": more,
               "ops": [{"put": "tasks", "row": {"id": id}}]})
        .to_string()
    };
    let unavailable = || Some(Status::unavailable("restarted"));
    stub.seen().watch.extend([
        (
            vec![line(4), format!("{}\n{}\n", line(5), line(6))],
            unavailable(),
        ),
        (vec![], unavailable()),
        (vec![line(5), line(6), line(7)], unavailable()),
        // Cut off for being slow, within a change.
        (
            vec![part(8, "t1", true), part(8, "t2", true)],
            Some(Status::out_of_range("gone, read from 7: too slow for 30 s")),
        ),
        (
            vec![
                part(8, "t1", true),
                part(8, "t2", true),
                part(8, "t3", false),
            ],
            Some(Status::out_of_range(
                "gone, read from 12: the log begins there",
            )),
        ),
    ]);
    let writer = writer(&stub, LONG);
    let mut changes = writer.watch(3, &[TableId::Tasks]).expect("watches");
    for generation in 4..=7 {
        let change = changes.next().expect("a change").expect("no error");
        assert_eq!(change.generation, generation);
        assert_eq!(
            change.at,
            std::time::UNIX_EPOCH.checked_add(Duration::from_secs(1))
        );
        assert!(
            matches!(&change.ops[..], [ChangeOp::Put { row, .. }, ChangeOp::Delete { key, .. }]
                if row["status"] == "running" && key == "c"),
            "{change:?}"
        );
    }
    let change = changes.next().expect("a change").expect("no error");
    assert_eq!((change.generation, change.ops.len()), (8, 3), "{change:?}");
    let end = changes.next();
    assert!(
        matches!(end, Some(Err(WriteError::Gone { oldest: Some(12) }))),
        "{end:?}"
    );
    assert!(changes.next().is_none());
    let asked: Vec<_> = stub
        .seen()
        .requests
        .iter()
        .map(|request| request["watch"].clone())
        .collect();
    let from = |from: u64| json!({"from": from, "tables": ["tasks"]});
    assert_eq!(asked, [from(3), from(6), from(6), from(7), from(7)]);
}

#[test]
fn a_watch_that_has_nothing_waits_no_longer_than_it_is_told() {
    let (_dir, stub) = place();
    let writer = writer(&stub, LONG);
    let mut changes = writer.watch(3, &[]).expect("watches");
    assert!(changes.wait(SHORT).is_ok_and(|change| change.is_none()));
    stub.seen().watch.push_back((vec!["{}".into()], None));
    let mut changes = writer.watch(3, &[]).expect("watches");
    let error = changes.wait(LONG);
    assert!(matches!(error, Err(WriteError::Answer { .. })), "{error:?}");
    assert!(changes.next().is_none());
}

#[test]
fn a_path_without_a_daemon_is_an_error_that_says_what_to_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let error = Writer::connect(dir.path().join("c.sock")).expect_err("nobody there");
    assert!(
        error.to_string().contains("is sherwoodd running"),
        "{error}"
    );
    std::fs::write(
        dir.path().join("state_metadata.json"),
        r#"{"cluster_id":"c"}"#,
    )
    .expect("writes");
    let error = Writer::connect(dir.path()).expect_err("not served");
    assert!(matches!(error, WriteError::NotServed { .. }), "{error}");
    assert!(error.to_string().contains("start sherwoodd"), "{error}");
    let error = Writer::connect("no such/cluster").expect_err("no cluster");
    assert!(matches!(error, WriteError::Target { .. }), "{error}");
}
