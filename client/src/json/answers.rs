//! What the helpers answer, in the shapes of the document's dicts.

use serde_json::{Map, Value, json};

use crate::error::ReadError;
use crate::helpers::{
    ClusterMetadata, Connection, Counts, ExecutionMetrics, StatusSummary, Topology, Utilization,
};

const GIB: f64 = (1_u64 << 30) as f64;

/// Bytes as GiB with two decimals.
#[expect(clippy::cast_precision_loss, reason = "rounded to two decimals")]
fn gib(bytes: i64) -> f64 {
    (bytes as f64 / GIB * 100.0).round() / 100.0
}

/// Milliseconds as seconds.
#[expect(
    clippy::cast_precision_loss,
    reason = "a millisecond is exact for 280,000 years"
)]
fn seconds(millis: Option<i64>) -> Option<f64> {
    millis.map(|millis| millis as f64 / 1000.0)
}

impl Counts<'_> {
    /// `{text: count}`, in the order of the texts.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let counts = self.iter();
        Value::Object(
            counts
                .map(|(text, count)| (text.to_owned(), count.into()))
                .collect(),
        )
    }
}

impl ClusterMetadata {
    /// `cluster_id, master_id, updated_at` (seconds since the epoch), `node_count, task_count, content_count`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "cluster_id": self.cluster_id,
            "master_id": self.master_id,
            "updated_at": seconds(self.updated_at),
            "node_count": self.node_count,
            "task_count": self.task_count,
            "content_count": self.content_count,
        })
    }
}

impl Utilization {
    /// Its fields by their names. What is not a number is null.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "cpu_utilization": self.cpu_utilization,
            "memory_utilization": self.memory_utilization,
            "disk_utilization": self.disk_utilization,
            "gpu_utilization": self.gpu_utilization,
            "active_tasks": self.active_tasks,
            "completed_tasks": self.completed_tasks,
            "failed_tasks": self.failed_tasks,
            "success_rate": self.success_rate,
            "load_index": self.load_index,
        })
    }
}

impl ExecutionMetrics<'_> {
    /// Its fields by their names.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "total_tasks": self.total_tasks,
            "completed_tasks": self.completed_tasks,
            "failed_tasks": self.failed_tasks,
            "pending_tasks": self.pending_tasks,
            "running_tasks": self.running_tasks,
            "completion_rate": self.completion_rate,
            "average_execution_time": self.average_execution_time,
            "task_types": self.task_types.to_json(),
        })
    }
}

impl StatusSummary<'_> {
    /// The document's nested object; sizes in GiB with two decimals, `updated_at` in seconds since the epoch.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let resources = &self.resources;
        json!({
            "cluster_id": self.cluster_id,
            "master_id": self.master_id,
            "updated_at": seconds(self.updated_at),
            "nodes": {
                "total": self.nodes.total,
                "active": self.nodes.active,
                "by_role": self.nodes.by_role.to_json(),
            },
            "resources": {
                "cpu_cores": resources.cpu_cores,
                "gpu_cores": {
                    "total": resources.gpu_cores.total,
                    "available": resources.gpu_cores.available,
                },
                "memory_gb": {
                    "total": gib(resources.memory.total),
                    "available": gib(resources.memory.available),
                },
            },
            "tasks": {
                "total": self.tasks.total,
                "by_status": self.tasks.by_status.to_json(),
            },
            "content": {
                "total": self.content.total,
                "total_size_gb": gib(self.content.total_size),
            },
        })
    }
}

impl Topology<'_> {
    /// `nodes` with their resources, `connections` and `unknown_peers` as pairs of `source` and `target`.
    pub fn to_json(&self) -> Result<Value, ReadError> {
        let nodes = self.nodes.iter().map(|node| {
            let node = node?;
            let has = node.resources();
            let memory = has.and_then(|has| has.memory_total());
            Ok(json!({
                "id": node.id(),
                "role": node.role(),
                "status": node.status(),
                "resources": {
                    "cpu_count": has.and_then(|has| has.cpu_count()),
                    "memory_gb": memory.map(gib),
                    "gpu_count": has.and_then(|has| has.gpu_count()),
                },
            }))
        });
        let nodes = nodes.collect::<Result<Vec<Value>, ReadError>>()?;
        Ok(json!({
            "nodes": nodes,
            "connections": pairs(&self.connections),
            "unknown_peers": pairs(&self.unknown_peers),
        }))
    }
}

fn pairs(connections: &[Connection<'_>]) -> Value {
    let pairs = connections.iter().map(|connection| {
        let mut pair = Map::new();
        pair.insert("source".to_owned(), connection.source.into());
        pair.insert("target".to_owned(), connection.target.into());
        Value::Object(pair)
    });
    pairs.collect()
}
