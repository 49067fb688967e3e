//! The cluster at a glance.

use arrow_array::types::{Int32Type, Int64Type};

use super::counts::{Counter, Counts};
use crate::columns::nodes::resources;
use crate::columns::{Number, Structs, Text, content, nodes, tasks};
use crate::error::ReadError;
use crate::snapshot::Snapshot;

/// The roles that a summary always names.
const ROLES: [&str; 3] = ["master", "worker", "leecher"];
/// The states of tasks that a summary always names.
const STATES: [&str; 5] = ["pending", "assigned", "running", "completed", "failed"];

/// What [`Snapshot::get_cluster_status_summary`] answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusSummary<'s> {
    /// The cluster.
    pub cluster_id: String,
    /// Its master, if it has one.
    pub master_id: Option<String>,
    /// When the state last changed, in milliseconds since the epoch.
    pub updated_at: Option<i64>,
    /// Its nodes.
    pub nodes: NodeSummary<'s>,
    /// What they have, all of them together.
    pub resources: ResourceSummary,
    /// Its tasks.
    pub tasks: TaskSummary<'s>,
    /// Its content.
    pub content: ContentSummary,
}

/// The nodes of a [`StatusSummary`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSummary<'s> {
    /// All of them.
    pub total: u64,
    /// Those that are `online`.
    pub active: u64,
    /// `master`, `worker`, `leecher`, and any other that was seen.
    pub by_role: Counts<'s>,
}

/// What all nodes have together. A figure that is null counts as 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceSummary {
    /// CPU cores.
    pub cpu_cores: i64,
    /// GPUs; available are those of nodes that say so.
    pub gpu_cores: Share,
    /// Memory, in bytes.
    pub memory: Share,
}

/// All of something, and what of it is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// All.
    pub total: i64,
    /// Free.
    pub available: i64,
}

/// The tasks of a [`StatusSummary`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSummary<'s> {
    /// All of them.
    pub total: u64,
    /// `pending`, `assigned`, `running`, `completed`, `failed`, and any other that was seen.
    pub by_status: Counts<'s>,
}

/// The content of a [`StatusSummary`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentSummary {
    /// Items.
    pub total: u64,
    /// Bytes, all items together.
    pub total_size: i64,
}

impl Snapshot {
    /// How many nodes, tasks and items there are, of which kinds, and what the nodes have.
    pub fn get_cluster_status_summary(&self) -> Result<StatusSummary<'_>, ReadError> {
        let (nodes, resources) = self.summary_of_nodes()?;
        Ok(StatusSummary {
            cluster_id: self.cluster_id()?,
            master_id: self.master_id()?,
            updated_at: self.updated_at_ms()?,
            nodes,
            resources,
            tasks: TaskSummary {
                total: self.tasks().len(),
                by_status: self.tasks_by_status()?,
            },
            content: ContentSummary {
                total: self.content().len(),
                total_size: self.size_of_content()?,
            },
        })
    }

    fn summary_of_nodes(&self) -> Result<(NodeSummary<'_>, ResourceSummary), ReadError> {
        let (mut roles, mut active) = (Counter::default(), 0);
        let mut all = ResourceSummary::default();
        for chunk in self.nodes().table().chunks() {
            let chunk = chunk?;
            let role = Text::of(chunk, nodes::ROLE);
            let status = Text::of(chunk, nodes::STATUS);
            let of = Structs::of(chunk, nodes::RESOURCES);
            let cpus = of.number::<Int32Type>(resources::CPU_COUNT);
            let gpus = of.number::<Int32Type>(resources::GPU_COUNT);
            let gpus_free = of.flag(resources::GPU_AVAILABLE);
            let memory = of.number::<Int64Type>(resources::MEMORY_TOTAL);
            let memory_free = of.number::<Int64Type>(resources::MEMORY_AVAILABLE);
            for row in chunk.rows() {
                roles.add(role.get(row));
                active += u64::from(status.is(row, "online"));
                let gpus = i64::from(gpus.get(row).unwrap_or(0));
                add(&mut all.cpu_cores, i64::from(cpus.get(row).unwrap_or(0)));
                add(&mut all.gpu_cores.total, gpus);
                if gpus_free.get(row) == Some(true) {
                    add(&mut all.gpu_cores.available, gpus);
                }
                add(&mut all.memory.total, memory.get(row).unwrap_or(0));
                add(&mut all.memory.available, memory_free.get(row).unwrap_or(0));
            }
        }
        let mut by_role = roles.counts();
        by_role.always_name(&ROLES);
        let nodes = NodeSummary {
            total: self.nodes().len(),
            active,
            by_role,
        };
        Ok((nodes, all))
    }

    fn tasks_by_status(&self) -> Result<Counts<'_>, ReadError> {
        let mut states = Counter::default();
        for chunk in self.tasks().table().chunks() {
            let chunk = chunk?;
            let status = Text::of(chunk, tasks::STATUS);
            for row in chunk.rows() {
                states.add(status.get(row));
            }
        }
        let mut states = states.counts();
        states.always_name(&STATES);
        Ok(states)
    }

    fn size_of_content(&self) -> Result<i64, ReadError> {
        let mut sum = 0;
        for chunk in self.content().table().chunks() {
            let chunk = chunk?;
            let sizes = Number::<Int64Type>::of(chunk, content::SIZE);
            for row in chunk.rows() {
                add(&mut sum, sizes.get(row).unwrap_or(0));
            }
        }
        Ok(sum)
    }
}

/// Figures are anybody's: a sum beyond what 64 bits hold stays at their end.
fn add(sum: &mut i64, more: i64) {
    *sum = sum.saturating_add(more);
}
