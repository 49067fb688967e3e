//! The document's helper functions, by the path of a state: its names, its parameters, its shapes (feature `json`).
//!
//! `state_path` is a state directory, a Parquet file or a snapshot file. Each call finds the state, reads one snapshot of it
//! and answers from that; a program that asks often keeps a [`Source`](crate::Source) and asks its snapshots, whose
//! [methods](crate::helpers) have the same names and copy nothing.
//!
//! Rows are objects with the columns of the state, in key order, as [`json`](crate::json) writes them: timestamps are text in
//! UTC, nulls are null. No state, and a state that cannot be read, are errors and never an empty answer.
//!
//! ```no_run
//! use sherwood_client::cluster_state_helpers::{find_available_node_for_task, find_tasks_by_status};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let state = "/var/lib/sherwood";
//! for task in find_tasks_by_status(state, "pending")? {
//!     let id = task["id"].as_str().unwrap_or_default();
//!     let node = find_available_node_for_task(state, id)?;
//!     println!("{id} -> {:?}", node.map(|node| node["id"].clone()));
//! }
//! # Ok(())
//! # }
//! ```

use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use serde_json::{Map, Value, json};
use sherwood_shared::state::State;

use crate::error::ReadError;
use crate::find::{FindError, Places};
use crate::json::{ExportError, JsonError, Rows, row};
use crate::locate::{self, LocateError, StateDir};
use crate::rows::RowRef;
use crate::snapshot::Snapshot;

/// Why a helper has no answer.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// There is no state, or it could not be read.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The snapshot is damaged.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A column of a kind that JSON has no form for.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The state was not exported.
    #[error(transparent)]
    Export(#[from] ExportError),
}

impl From<LocateError> for HelperError {
    fn from(error: LocateError) -> Self {
        Self::Find(error.into())
    }
}

type Answer<T> = Result<T, HelperError>;

fn snapshot(state_path: impl AsRef<Path>) -> Answer<Snapshot> {
    Ok(Places::at(state_path)?.or_newest().find()?.snapshot)
}

fn object<'s, R: RowRef<'s>>(found: &R) -> Answer<Value> {
    let (batch, at) = found.batch();
    Ok(row(batch, at)?)
}

fn objects<'s, R: RowRef<'s>>(
    rows: impl Iterator<Item = Result<R, ReadError>>,
) -> Answer<Vec<Value>> {
    let mut chunk: Option<(&RecordBatch, Rows<'s>)> = None;
    let mut objects = Vec::new();
    for row in rows {
        let row = row?;
        let (batch, at) = row.batch();
        // Rows come chunk by chunk: how the columns of one are written is found out once.
        let writer = match &chunk {
            Some((known, writer)) if std::ptr::eq(*known, batch) => writer,
            _ => &chunk.insert((batch, Rows::new(batch)?)).1,
        };
        objects.push(writer.value(at));
    }
    Ok(objects)
}

fn maybe<'s, R: RowRef<'s>>(found: Option<R>) -> Answer<Option<Value>> {
    found.as_ref().map(object).transpose()
}

/// The state directory: `base_dir` or its usual children, or the first of the usual places
/// ([`find_state`](crate::locate::find_state)).
#[must_use]
pub fn get_state_path_from_metadata(base_dir: Option<&Path>) -> Option<PathBuf> {
    locate::find_state(base_dir)
}

/// What `state_metadata.json` says. Of a directory with a state file and no metadata, `parquet_path` and `state_path`.
///
/// (The document's function answers a pair, whose first value was a connection and is always nothing.)
pub fn connect_to_state_store(state_path: impl AsRef<Path>) -> Answer<Value> {
    let dir = StateDir::open(state_path)?;
    if let Some(metadata) = dir.metadata()? {
        return Ok(Value::Object(metadata.keys().clone()));
    }
    let (file, _) = dir.newest_state_file()?;
    Ok(json!({ "parquet_path": file.path, "state_path": dir.path() }))
}

/// The document's table of one row.
pub fn get_cluster_state(state_path: impl AsRef<Path>) -> Answer<RecordBatch> {
    Ok(snapshot(state_path)?.get_cluster_state()?)
}

/// The row of that table as an object, its lists as arrays.
pub fn get_cluster_state_as_dict(state_path: impl AsRef<Path>) -> Answer<Value> {
    Ok(snapshot(state_path)?.get_cluster_state_as_dict()?)
}

/// Nodes, tasks and content as a flat table each (the document's `get_cluster_state_as_pandas`).
pub fn get_cluster_state_as_tables(state_path: impl AsRef<Path>) -> Answer<State> {
    Ok(snapshot(state_path)?.get_cluster_state_as_tables()?)
}

/// `cluster_id, master_id, updated_at` (seconds since the epoch), `node_count, task_count, content_count`.
pub fn get_cluster_metadata(state_path: impl AsRef<Path>) -> Answer<Value> {
    Ok(snapshot(state_path)?.get_cluster_metadata()?.to_json())
}

/// All nodes.
pub fn get_all_nodes(state_path: impl AsRef<Path>) -> Answer<Vec<Value>> {
    objects(snapshot(state_path)?.get_all_nodes().iter())
}

/// The node with this id.
pub fn get_node_by_id(state_path: impl AsRef<Path>, id: &str) -> Answer<Option<Value>> {
    maybe(snapshot(state_path)?.get_node_by_id(id)?)
}

/// The nodes of a role.
pub fn find_nodes_by_role(state_path: impl AsRef<Path>, role: &str) -> Answer<Vec<Value>> {
    objects(snapshot(state_path)?.find_nodes_by_role(role))
}

/// The nodes that list a capability.
pub fn find_nodes_by_capability(
    state_path: impl AsRef<Path>,
    capability: &str,
) -> Answer<Vec<Value>> {
    objects(snapshot(state_path)?.find_nodes_by_capability(capability))
}

/// The nodes that have GPUs, and whose GPUs are available.
pub fn find_nodes_with_gpu(state_path: impl AsRef<Path>) -> Answer<Vec<Value>> {
    objects(snapshot(state_path)?.find_nodes_with_gpu())
}

/// How busy a node is: the fields of [`Utilization`](crate::helpers::Utilization). `None`: there is no such node.
pub fn get_node_resource_utilization(
    state_path: impl AsRef<Path>,
    id: &str,
) -> Answer<Option<Value>> {
    let found = snapshot(state_path)?.get_node_resource_utilization(id)?;
    Ok(found.map(|found| found.to_json()))
}

/// All tasks.
pub fn get_all_tasks(state_path: impl AsRef<Path>) -> Answer<Vec<Value>> {
    objects(snapshot(state_path)?.get_all_tasks().iter())
}

/// The task with this id.
pub fn get_task_by_id(state_path: impl AsRef<Path>, id: &str) -> Answer<Option<Value>> {
    maybe(snapshot(state_path)?.get_task_by_id(id)?)
}

/// The tasks in a state.
pub fn find_tasks_by_status(state_path: impl AsRef<Path>, status: &str) -> Answer<Vec<Value>> {
    objects(snapshot(state_path)?.find_tasks_by_status(status))
}

/// The tasks of a type.
pub fn find_tasks_by_type(state_path: impl AsRef<Path>, r#type: &str) -> Answer<Vec<Value>> {
    objects(snapshot(state_path)?.find_tasks_by_type(r#type))
}

/// The tasks that are assigned to a node, or were when they ended.
pub fn find_tasks_by_node(state_path: impl AsRef<Path>, node: &str) -> Answer<Vec<Value>> {
    objects(snapshot(state_path)?.find_tasks_by_node(node))
}

/// The tasks that need at least so much: see the [method](Snapshot::find_tasks_by_resource_requirements).
pub fn find_tasks_by_resource_requirements(
    state_path: impl AsRef<Path>,
    cpu_cores: Option<i64>,
    gpu_cores: Option<i64>,
    memory_mb: Option<i64>,
) -> Answer<Vec<Value>> {
    let snapshot = snapshot(state_path)?;
    objects(snapshot.find_tasks_by_resource_requirements(cpu_cores, gpu_cores, memory_mb))
}

/// The node that a pending task should go to: see the [method](Snapshot::find_available_node_for_task).
pub fn find_available_node_for_task(
    state_path: impl AsRef<Path>,
    id: &str,
) -> Answer<Option<Value>> {
    maybe(snapshot(state_path)?.find_available_node_for_task(id)?)
}

/// How the tasks went: the fields of [`ExecutionMetrics`](crate::helpers::ExecutionMetrics).
pub fn get_task_execution_metrics(state_path: impl AsRef<Path>) -> Answer<Value> {
    Ok(snapshot(state_path)?
        .get_task_execution_metrics()?
        .to_json())
}

/// In how many seconds a task will be done: see the [method](Snapshot::estimate_time_to_completion).
pub fn estimate_time_to_completion(state_path: impl AsRef<Path>, id: &str) -> Answer<Option<f64>> {
    Ok(snapshot(state_path)?.estimate_time_to_completion(id)?)
}

/// All content.
pub fn get_all_content(state_path: impl AsRef<Path>) -> Answer<Vec<Value>> {
    objects(snapshot(state_path)?.get_all_content().iter())
}

/// The item with this CID.
pub fn find_content_by_cid(state_path: impl AsRef<Path>, cid: &str) -> Answer<Option<Value>> {
    maybe(snapshot(state_path)?.find_content_by_cid(cid)?)
}

/// The items that a node provides.
pub fn find_content_by_provider(
    state_path: impl AsRef<Path>,
    provider: &str,
) -> Answer<Vec<Value>> {
    objects(snapshot(state_path)?.find_content_by_provider(provider))
}

/// The items that are not pinned and that no task refers to: see the [method](Snapshot::find_orphaned_content).
pub fn find_orphaned_content(state_path: impl AsRef<Path>) -> Answer<Vec<Value>> {
    objects(snapshot(state_path)?.find_orphaned_content()?)
}

/// `{cid: [provider, ...]}`, as stored.
pub fn get_content_availability_map(state_path: impl AsRef<Path>) -> Answer<Value> {
    let snapshot = snapshot(state_path)?;
    let mut map = Map::new();
    for item in snapshot.get_content_availability_map() {
        let (cid, providers) = item?;
        let providers = providers.map(|providers| providers.map(Value::from).collect::<Value>());
        map.insert(cid.to_owned(), providers.into());
    }
    Ok(Value::Object(map))
}

/// How much there is, and of which kinds: the document's nested object.
pub fn get_cluster_status_summary(state_path: impl AsRef<Path>) -> Answer<Value> {
    Ok(snapshot(state_path)?
        .get_cluster_status_summary()?
        .to_json())
}

/// Nodes and the connections between them.
pub fn get_network_topology(state_path: impl AsRef<Path>) -> Answer<Value> {
    Ok(snapshot(state_path)?.get_network_topology()?.to_json()?)
}

/// Writes the state as one JSON object, in place of the file at `output_path`, whole or not at all.
pub fn export_state_to_json(
    state_path: impl AsRef<Path>,
    output_path: impl AsRef<Path>,
) -> Answer<()> {
    Ok(snapshot(state_path)?.export_state_to_json(output_path)?)
}
