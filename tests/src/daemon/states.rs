//! Plausible states for a daemon to load: a few nodes, as many tasks as asked for, a little content.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, StructArray,
    TimestampMillisecondArray,
};
use arrow_schema::{DataType, Field};
use sherwood_client::{Snapshot, TableId, import};
use sherwood_shared::state::State;

const BEGIN_MS: i64 = 1_767_225_600_000;

/// A state as the bytes of its Parquet file.
///
/// # Panics
///
/// If it cannot be written, which a state always can.
#[must_use]
pub fn parquet(state: &State) -> Vec<u8> {
    import::to_parquet_bytes(state).expect("encodes")
}

/// The state of `cluster` with three nodes, `tasks` tasks and two content items. `turn` shows in one field of the
/// task in the middle (`updated_at`), and nowhere else.
///
/// # Panics
///
/// Never: the columns fit.
#[must_use]
pub fn state_with_tasks(cluster: &str, tasks: usize, turn: i64) -> State {
    let rows = 0..i64::try_from(tasks).expect("a small number");
    let middle = rows.end / 2;
    let ids = rows.clone().map(|row| format!("task-{row:07}"));
    let kinds = rows
        .clone()
        .map(|row| ["transcode", "index", "pin"][usize::try_from(row % 3).unwrap_or(0)]);
    let statuses = rows
        .clone()
        .map(|row| if row % 4 == 0 { "running" } else { "pending" });
    let updated = rows
        .clone()
        .map(|row| BEGIN_MS + row + if row == middle { turn } else { 0 });
    let cores: ArrayRef = Arc::new(Int32Array::from_iter_values(
        rows.clone().map(|row| i32::try_from(row % 8).unwrap_or(0)),
    ));
    let resources = StructArray::from(vec![(
        Arc::new(Field::new("cpu_cores", DataType::Int32, true)),
        cores,
    )]);
    let inputs = rows.clone().map(|row| format!("bafyinput{row:010}"));
    let tasks = table(vec![
        ("id", Arc::new(StringArray::from_iter_values(ids))),
        ("type", Arc::new(StringArray::from_iter_values(kinds))),
        ("status", Arc::new(StringArray::from_iter_values(statuses))),
        (
            "updated_at",
            Arc::new(TimestampMillisecondArray::from_iter_values(updated)),
        ),
        ("resources", Arc::new(resources)),
        ("input_cid", Arc::new(StringArray::from_iter_values(inputs))),
    ]);
    state(cluster, tasks)
}

/// Which turn of [`state_with_tasks`] a snapshot is of.
///
/// # Panics
///
/// If it is of another state, or cannot be read.
#[must_use]
pub fn turn(snapshot: &Snapshot) -> i64 {
    let middle = snapshot.table(TableId::Tasks).len() / 2;
    let id = format!("task-{middle:07}");
    let task = snapshot.task(&id).expect("reads").expect("is there");
    let updated = task.updated_at().expect("a time");
    updated - BEGIN_MS - i64::try_from(middle).expect("a small number")
}

/// Rows of nodes, tasks and content.
#[must_use]
pub fn counts(snapshot: &Snapshot) -> [u64; 3] {
    TableId::ALL.map(|id| snapshot.table(id).len())
}

/// The state of `cluster` with these tasks, three nodes and two content items.
///
/// # Panics
///
/// If the tasks are no table.
#[must_use]
pub fn state(cluster: &str, tasks: RecordBatch) -> State {
    let head = table(vec![
        ("cluster_id", Arc::new(StringArray::from(vec![cluster]))),
        ("master_id", Arc::new(StringArray::from(vec!["node-0"]))),
        (
            "updated_at",
            Arc::new(TimestampMillisecondArray::from(vec![BEGIN_MS])),
        ),
    ]);
    let nodes = table(vec![
        (
            "id",
            Arc::new(StringArray::from(vec!["node-0", "node-1", "node-2"])),
        ),
        (
            "role",
            Arc::new(StringArray::from(vec!["master", "worker", "worker"])),
        ),
        (
            "status",
            Arc::new(StringArray::from(vec!["online", "online", "offline"])),
        ),
    ]);
    let content = table(vec![
        ("cid", Arc::new(StringArray::from(vec!["bafy-a", "bafy-b"]))),
        ("size", Arc::new(Int64Array::from(vec![1 << 40, 7]))),
    ]);
    State::new(head, [nodes, tasks, content]).expect("a state")
}

fn table(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let columns = columns
        .into_iter()
        .map(|(name, column)| (name, column, true));
    RecordBatch::try_from_iter_with_nullable(columns).expect("columns of one length")
}
