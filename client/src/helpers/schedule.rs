//! Which node should take a task.

use arrow_array::types::{Float32Type, Int32Type, Int64Type};

use crate::chunk::Chunk;
use crate::columns::nodes::resources;
use crate::columns::{Flag, Number, Structs, Text, nodes};
use crate::error::ReadError;
use crate::rows::{NodeRef, Row, RowRef, TaskRef};
use crate::snapshot::Snapshot;

const MIB: i64 = 1 << 20;

/// What a task needs of a node.
#[derive(Clone, Copy, Debug)]
struct Needs {
    cpu_cores: i32,
    gpu_cores: i32,
    memory: i64,
}

impl Needs {
    /// 1 core, no GPU and 256 MiB where the task does not say.
    fn of(task: &TaskRef<'_>) -> Self {
        let needs = task.resources();
        let memory_mb = needs.and_then(|needs| needs.memory_mb()).unwrap_or(256);
        Self {
            cpu_cores: needs.and_then(|needs| needs.cpu_cores()).unwrap_or(1),
            gpu_cores: needs.and_then(|needs| needs.gpu_cores()).unwrap_or(0),
            memory: i64::from(memory_mb) * MIB,
        }
    }
}

impl Snapshot {
    /// The node that a pending task should go to: of the workers that are online and have what it needs, the one with
    /// the highest 0.4 of its idle CPU plus 0.6 of its free memory, and of equals the first by id.
    ///
    /// A task that does not say needs 1 core, no GPU and 256 MiB; one whose status is null counts as pending. `None`:
    /// there is no such task, it is not pending, or nothing fits.
    pub fn find_available_node_for_task(&self, id: &str) -> Result<Option<NodeRef<'_>>, ReadError> {
        match self.task(id)? {
            Some(task) if task.status().is_none_or(|status| status == "pending") => {
                self.best_node(Needs::of(&task))
            }
            _ => Ok(None),
        }
    }

    fn best_node(&self, needs: Needs) -> Result<Option<NodeRef<'_>>, ReadError> {
        let mut best: Option<(f64, &Chunk, usize)> = None;
        for chunk in self.nodes().table().chunks() {
            let chunk = chunk?;
            let candidates = Candidates::of(chunk);
            for row in chunk.rows() {
                let Some(score) = candidates.score(row, needs) else {
                    continue;
                };
                // The first of equals stays: rows come in the order of their ids.
                if best.is_none_or(|(highest, ..)| score > highest) {
                    best = Some((score, chunk, row));
                }
            }
        }
        Ok(best.map(|(_, chunk, row)| NodeRef::of(Row::new(chunk, row))))
    }
}

/// The columns of a chunk of nodes that decide.
struct Candidates<'s> {
    role: Text<'s>,
    status: Text<'s>,
    cpu_count: Number<'s, Int32Type>,
    cpu_load: Number<'s, Float32Type>,
    gpu_count: Number<'s, Int32Type>,
    gpu_available: Flag<'s>,
    memory_total: Number<'s, Int64Type>,
    memory_available: Number<'s, Int64Type>,
}

impl<'s> Candidates<'s> {
    fn of(chunk: &'s Chunk) -> Self {
        let of = Structs::of(chunk, nodes::RESOURCES);
        Self {
            role: Text::of(chunk, nodes::ROLE),
            status: Text::of(chunk, nodes::STATUS),
            cpu_count: of.number(resources::CPU_COUNT),
            cpu_load: of.number(resources::CPU_LOAD),
            gpu_count: of.number(resources::GPU_COUNT),
            gpu_available: of.flag(resources::GPU_AVAILABLE),
            memory_total: of.number(resources::MEMORY_TOTAL),
            memory_available: of.number(resources::MEMORY_AVAILABLE),
        }
    }

    /// How well a task with these needs would do there; `None` if it cannot go there.
    fn score(&self, row: usize, needs: Needs) -> Option<f64> {
        let free = self.memory_available.get(row)?;
        let fits = free >= needs.memory
            && self.cpu_count.get(row)? >= needs.cpu_cores
            && (needs.gpu_cores <= 0
                || self.gpu_available.get(row)? && self.gpu_count.get(row)? >= needs.gpu_cores)
            && self.role.is(row, "worker")
            && self.status.is(row, "online");
        if !fits {
            return None;
        }
        // A load that is no number is no reason to be preferred.
        let load = f64::from(self.cpu_load.get(row).unwrap_or(0.0));
        let load = if load.is_nan() { 100.0 } else { load };
        let total = self.memory_total.get(row).unwrap_or(0);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a score need not be exact beyond 53 bits"
        )]
        let free = if total > 0 {
            free as f64 / total as f64
        } else {
            0.0
        };
        Some(0.4 * (1.0 - load / 100.0) + 0.6 * free)
    }
}
