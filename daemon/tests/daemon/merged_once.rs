//! FO4 and FO5: what was merged is not merged again, whenever the daemon dies; what is put there again on purpose is.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use serde_json::json;
use sherwood_client::import::to_parquet_bytes;
use sherwood_client::locate::{ClusterId, StateDir};
use sherwood_daemon::ends::{Ends, Real};
use sherwood_daemon::flight::Access;
use sherwood_daemon::foreign::{Comparer, Comparison, settle};
use sherwood_daemon::observe::FileId;
use sherwood_daemon::service::Order;
use sherwood_shared::schema::TableId;
use sherwood_shared::transaction::OutcomeKind;
use sherwood_store::Outcomes;
use sherwood_store::checkpoint::Checkpoints;

use crate::common::{Case, Running, parquet, tasks, wait_for};
use crate::foreign::{age, await_file, await_rejected, narrow, put, reason_of, rejected};

/// The tasks and their statuses, as readers see them.
fn statuses(running: &Running) -> Vec<(String, String)> {
    let state = running.snapshot();
    let column = state.table(TableId::Tasks).column_by_name("status");
    let statuses = column.unwrap().as_string::<i32>().iter();
    let statuses = statuses.map(|status| status.unwrap_or("-").to_owned());
    tasks(&state).into_iter().zip(statuses).collect()
}

fn owned(wanted: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(id, status): &(&str, &str)| ((*id).to_owned(), (*status).to_owned());
    wanted.iter().map(owned).collect()
}

/// Its changes: a status of `ours`, and a row `theirs`.
fn theirs() -> Vec<u8> {
    narrow(&[("ours", "running"), ("t1", "-"), ("theirs", "running")])
}

fn checkpoints(case: &Case) -> PathBuf {
    case.state_dir().join("checkpoints")
}

/// Replaces the state file, by a rename.
fn replace(case: &Case, bytes: &[u8]) {
    let aside = case.state_dir().join("theirs.tmp");
    fs::write(&aside, bytes).unwrap();
    fs::rename(&aside, case.file()).unwrap();
}

/// The base follows the public file a few syncs later.
fn await_base(case: &Case) {
    let base = checkpoints(case).join("base.parquet");
    wait_for("the base to follow", || {
        fs::read(&base).unwrap() == fs::read(case.file()).unwrap()
    });
}

/// Forgets what the base was before: as if minutes had gone by.
fn forget_bases(case: &Case) {
    let bases = checkpoints(case).join("bases");
    let entries = fs::read_dir(bases).into_iter().flatten().flatten();
    entries.for_each(|entry| fs::remove_file(entry.path()).unwrap());
}

/// What is left by a daemon that merged [`theirs`], took its changes back for a writer of ours, and died before the base
/// was written. `blocked`: names in `checkpoints/` that it could not write at.
fn died_before_the_base(blocked: &[&str]) -> Case {
    let case = Case::with(&["t1"]);
    let running = case.start();
    running.transact(json!({"ops": [{"patch": "tasks", "key": "t1", "set": {"status": "-"}}]}));
    put(&running, "ours");
    await_file(&case, &["ours", "t1"]);
    let blocked: Vec<PathBuf> = blocked
        .iter()
        .map(|name| checkpoints(&case).join(name))
        .collect();
    blocked
        .iter()
        .for_each(|path| fs::create_dir(path).unwrap());
    replace(&case, &theirs());
    running.await_tasks(&["ours", "t1", "theirs"]);
    let back = json!({"ops": [
        {"delete": "tasks", "key": "theirs"},
        {"patch": "tasks", "key": "ours", "set": {"status": "pending"}},
    ]});
    assert_eq!(running.transact(back).outcome, OutcomeKind::Done);
    let after = case.crashed();
    assert_ne!(
        fs::read(checkpoints(&after).join("base.parquet")).unwrap(),
        theirs()
    );
    for path in blocked {
        fs::remove_dir(checkpoints(&after).join(path.file_name().unwrap())).unwrap();
    }
    after
}

/// The base's file of a foreign state, until it has its name.
const BASE: &str = "base.parquet.foreign.tmp";
/// Its copy, before the entry is logged.
const COPY: &str = "merging.tmp";

#[test]
fn a_merge_that_was_logged_is_not_done_again_by_the_next_start() {
    for blocked in [&[BASE][..], &[BASE, COPY]] {
        let case = died_before_the_base(blocked);
        let running = case.start();
        // The file was looked at when ours takes its place.
        await_file(&case, &["ours", "t1"]);
        assert_eq!(running.history(), [["ours", "t1"]], "blocked: {blocked:?}");
        assert_eq!(
            statuses(&running),
            owned(&[("ours", "pending"), ("t1", "-")]),
            "blocked: {blocked:?}"
        );
        await_base(&case);
        running.stop().unwrap();
        // The base has moved on, so the same bytes are a replacement again: while no daemon runs...
        forget_bases(&case);
        replace(&case, &theirs());
        let running = case.start();
        running.await_tasks(&["ours", "t1", "theirs"]);
        let wanted = [("ours", "running"), ("t1", "-"), ("theirs", "running")];
        assert_eq!(statuses(&running), owned(&wanted));
        // ... and while one does.
        let back = running.transact(json!({"ops": [{"delete": "tasks", "key": "theirs"}]}));
        assert_eq!(back.outcome, OutcomeKind::Done);
        await_file(&case, &["ours", "t1"]);
        await_base(&case);
        forget_bases(&case);
        replace(&case, &theirs());
        running.await_tasks(&["ours", "t1", "theirs"]);
        running.stop().unwrap();
    }
}

#[test]
fn a_merge_that_was_logged_is_the_base_also_of_what_came_after_it() {
    let case = died_before_the_base(&[BASE]);
    // Made from what was merged, and put there while no daemon ran.
    let more = [
        ("ours", "running"),
        ("t1", "-"),
        ("theirs", "running"),
        ("more", "-"),
    ];
    replace(&case, &narrow(&more));
    let running = case.start();
    running.await_tasks(&["more", "ours", "t1"]);
    assert_eq!(
        statuses(&running),
        owned(&[("more", "-"), ("ours", "pending"), ("t1", "-")])
    );
    running.stop().unwrap();
}

#[test]
fn a_base_that_cannot_be_written_at_the_start_either_is_kept_in_memory() {
    let case = died_before_the_base(&[BASE]);
    let base = checkpoints(&case).join("base.parquet");
    fs::remove_file(&base).unwrap();
    fs::create_dir(&base).unwrap();
    let running = case.start();
    fs::remove_dir(&base).unwrap();
    await_file(&case, &["ours", "t1"]);
    assert_eq!(running.history(), [["ours", "t1"]]);
    running.stop().unwrap();
}

/// A file that broke off was moved aside: where, and the rest of it.
fn moved_aside(case: &Case, running: &Running) -> (PathBuf, Vec<u8>) {
    put(running, "ours");
    let bytes = parquet("c", &["t1", "theirs"]);
    let (half, rest) = bytes.split_at(bytes.len() / 2);
    fs::write(case.file(), half).unwrap();
    age(&case.file());
    running.await_refusal(1);
    put(running, "ours too");
    let aside = await_rejected(case, "the file aside");
    (aside, rest.to_vec())
}

fn finish(aside: &Path, rest: &[u8]) {
    let mut file = fs::File::options().append(true).open(aside).unwrap();
    file.write_all(rest).unwrap();
}

#[test]
fn a_file_that_was_moved_aside_before_a_restart_may_be_finished_after_it() {
    let case = Case::with(&["t1"]);
    let running = case.start();
    let (aside, rest) = moved_aside(&case, &running);
    running.stop().unwrap();
    let running = case.start();
    finish(&aside, &rest);
    running.order(Order::Reload);
    running.await_tasks(&["ours", "ours too", "t1", "theirs"]);
    wait_for("the merged file to go", || rejected(&case).is_empty());
    running.stop().unwrap();
}

#[test]
fn a_file_that_was_moved_aside_and_merged_is_not_merged_again_after_a_crash() {
    let case = Case::with(&["t1"]);
    let running = case.start();
    let (aside, rest) = moved_aside(&case, &running);
    let reason = reason_of(&aside);
    finish(&aside, &rest);
    let whole = fs::read(&aside).unwrap();
    running.order(Order::Reload);
    running.await_tasks(&["ours", "ours too", "t1", "theirs"]);
    wait_for("the merged file to go", || rejected(&case).is_empty());
    let back = running.transact(json!({"ops": [{"delete": "tasks", "key": "theirs"}]}));
    assert_eq!(back.outcome, OutcomeKind::Done);
    // It died before it removed the file.
    let after = case.crashed();
    let dir = after.state_dir().join("rejected");
    let name = aside.file_name().unwrap().to_str().unwrap();
    fs::write(dir.join(name), whole).unwrap();
    fs::write(dir.join(format!("{name}.reason.txt")), reason).unwrap();
    let running = after.start();
    wait_for("the merged file to go", || rejected(&after).is_empty());
    assert_eq!(running.history(), [["ours", "ours too", "t1"]]);
    running.stop().unwrap();
}

/// What is merged is known by its content, and there is a copy of each.
#[test]
fn a_file_that_came_while_the_last_one_was_made_the_base_does_not_hide_that_it_was_merged() {
    let case = died_before_the_base(&[BASE]);
    let (checkpoints, outcomes) = dead(&case);
    // It began to merge another one, which is gone again.
    let more = narrow(&[
        ("ours", "running"),
        ("t1", "-"),
        ("theirs", "running"),
        ("more", "-"),
    ]);
    let comparer = Comparer {
        checkpoints: Arc::clone(&checkpoints),
        access: Arc::new(Access::resolve(&[], &[]).0),
        cluster: ClusterId::new("c").unwrap(),
        merged: None,
    };
    replace(&case, &more);
    let loaded = Real.load(&case.file(), Some("c")).unwrap();
    let id = FileId::of(&case.file()).unwrap();
    let compared = comparer.compare(&case.file(), id, &loaded);
    assert!(
        matches!(compared, Ok(Comparison::Changes(_))),
        "{compared:?}"
    );
    fs::remove_file(case.file()).unwrap();
    assert_eq!(settle(&checkpoints, &outcomes, None), Ok(None));
    assert!(fs::read(checkpoints.base()).unwrap() == theirs());
    let left = fs::read_dir(checkpoints.base().parent().unwrap()).unwrap();
    let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(left.filter(|name| name.starts_with("merging")).count(), 0);
}

/// A full disk: our checkpoint took the name, and then the base could not be written.
#[test]
fn what_was_merged_is_not_the_base_of_a_checkpoint_that_took_its_place() {
    let case = died_before_the_base(&[BASE]);
    let (checkpoints, outcomes) = dead(&case);
    let newest = checkpoints.list().unwrap()[0].path.clone();
    fs::copy(&newest, case.file()).unwrap();
    assert_eq!(settle(&checkpoints, &outcomes, None), Ok(None));
    assert!(fs::read(checkpoints.base()).unwrap() != theirs());
}

/// What the next start has before it settles.
fn dead(case: &Case) -> (Arc<Checkpoints>, Outcomes) {
    let dir = StateDir::open(case.state_dir()).unwrap();
    let cluster = ClusterId::new("c").unwrap();
    let checkpoints = Checkpoints::open(&dir, &cluster, 0o644).unwrap();
    let outcomes = Outcomes::load(&case.state_dir().join("log")).unwrap();
    (Arc::new(checkpoints), outcomes)
}

#[test]
fn a_file_aside_that_has_nothing_new_goes_and_is_no_change_to_what_comes_later() {
    let case = Case::with(&["t1"]);
    let running = case.start();
    let (aside, _) = moved_aside(&case, &running);
    await_file(&case, &["ours", "ours too", "t1"]);
    // Its writer finished it with what the state has: old values, as far as later bases are concerned.
    fs::write(&aside, to_parquet_bytes(&running.snapshot()).unwrap()).unwrap();
    running.order(Order::Reload);
    wait_for("the file and its reason to go", || {
        rejected(&case).is_empty() && reason_of(&aside).is_empty()
    });
    put(&running, "later");
    await_file(&case, &["later", "ours", "ours too", "t1"]);
    running.stop().unwrap();
}
