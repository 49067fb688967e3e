//! How busy a node is.

use arrow_array::types::Int32Type;

use super::metrics::rate;
use crate::columns::tasks::resources;
use crate::columns::{Structs, Text, tasks};
use crate::error::ReadError;
use crate::rows::NodeRef;
use crate::snapshot::Snapshot;

/// What [`Snapshot::get_node_resource_utilization`] answers. Parts are 0 to 1 where the node's own figures are sound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Utilization {
    /// `cpu_load` as a part; 0 where it is null.
    pub cpu_utilization: f64,
    /// The part of the memory that is not available; 1 where the total is 0 or null.
    pub memory_utilization: f64,
    /// The part of the disk that is not available; 1 where the total is 0 or null.
    pub disk_utilization: f64,
    /// The GPUs that its active tasks need, as a part of those it has, at most 1; `None` without GPUs.
    pub gpu_utilization: Option<f64>,
    /// Tasks assigned to it or running there.
    pub active_tasks: u64,
    /// Tasks that completed there.
    pub completed_tasks: u64,
    /// Tasks that failed there.
    pub failed_tasks: u64,
    /// Completed of those that completed or failed; 1 where none did.
    pub success_rate: f64,
    /// 0.4 of the CPU's, 0.4 of the memory's and 0.2 of the disk's utilization.
    pub load_index: f64,
}

impl Snapshot {
    /// How busy a node is, by its own figures and by the tasks that are there. `None`: there is no such node.
    pub fn get_node_resource_utilization(
        &self,
        id: &str,
    ) -> Result<Option<Utilization>, ReadError> {
        let Some(node) = self.node(id)? else {
            return Ok(None);
        };
        let tasks = self.tasks_at(id)?;
        Ok(Some(utilization(&node, &tasks)))
    }

    fn tasks_at(&self, node: &str) -> Result<TasksAt, ReadError> {
        let mut found = TasksAt::default();
        for chunk in self.tasks().table().chunks() {
            let chunk = chunk?;
            let assigned = Text::of(chunk, tasks::ASSIGNED_TO);
            let status = Text::of(chunk, tasks::STATUS);
            let gpus = Structs::of(chunk, tasks::RESOURCES);
            let gpus = gpus.number::<Int32Type>(resources::GPU_CORES);
            for row in chunk.rows() {
                if !assigned.is(row, node) {
                    continue;
                }
                match status.get(row) {
                    Some("assigned" | "running") => {
                        found.active += 1;
                        found.gpu_cores += i64::from(gpus.get(row).unwrap_or(0).max(0));
                    }
                    Some("completed") => found.completed += 1,
                    Some("failed") => found.failed += 1,
                    _ => {}
                }
            }
        }
        Ok(found)
    }
}

#[derive(Debug, Default)]
struct TasksAt {
    active: u64,
    completed: u64,
    failed: u64,
    gpu_cores: i64,
}

#[expect(
    clippy::cast_precision_loss,
    reason = "parts need not be exact beyond 53 bits"
)]
fn utilization(node: &NodeRef<'_>, tasks: &TasksAt) -> Utilization {
    let has = node.resources();
    let used = |total: Option<i64>, available: Option<i64>| match total {
        None | Some(0) => 1.0,
        Some(total) => (total as f64 - available.unwrap_or(0) as f64) / total as f64,
    };
    let cpu = has.and_then(|has| has.cpu_load()).unwrap_or(0.0);
    let cpu = f64::from(cpu) / 100.0;
    let memory = used(
        has.and_then(|has| has.memory_total()),
        has.and_then(|has| has.memory_available()),
    );
    let disk = used(
        has.and_then(|has| has.disk_total()),
        has.and_then(|has| has.disk_available()),
    );
    let gpus = has
        .and_then(|has| has.gpu_count())
        .filter(|count| *count > 0);
    Utilization {
        cpu_utilization: cpu,
        memory_utilization: memory,
        disk_utilization: disk,
        gpu_utilization: gpus.map(|count| (tasks.gpu_cores as f64 / f64::from(count)).min(1.0)),
        active_tasks: tasks.active,
        completed_tasks: tasks.completed,
        failed_tasks: tasks.failed,
        success_rate: rate(tasks.completed, tasks.failed).unwrap_or(1.0),
        load_index: 0.4 * cpu + 0.4 * memory + 0.2 * disk,
    }
}
