//! Tasks, by what they are.

use arrow_array::types::Int32Type;

use crate::columns::tasks::resources;
use crate::columns::{Structs, Text, tasks};
use crate::error::ReadError;
use crate::rows::{Rows, TaskRef};
use crate::snapshot::Snapshot;

impl Snapshot {
    /// All tasks.
    #[must_use]
    pub fn get_all_tasks(&self) -> Rows<'_, TaskRef<'_>> {
        self.tasks()
    }

    /// The task with this id.
    pub fn get_task_by_id(&self, id: &str) -> Result<Option<TaskRef<'_>>, ReadError> {
        self.task(id)
    }

    /// The tasks in a state: `pending`, `assigned`, `running`, `completed`, `failed`, ...
    pub fn find_tasks_by_status<'s>(
        &'s self,
        status: &str,
    ) -> impl Iterator<Item = Result<TaskRef<'s>, ReadError>> {
        self.tasks_where(tasks::STATUS, status)
    }

    /// The tasks of a type.
    pub fn find_tasks_by_type<'s>(
        &'s self,
        r#type: &str,
    ) -> impl Iterator<Item = Result<TaskRef<'s>, ReadError>> {
        self.tasks_where(tasks::TYPE, r#type)
    }

    /// The tasks that are assigned to a node, or were when they ended.
    pub fn find_tasks_by_node<'s>(
        &'s self,
        node: &str,
    ) -> impl Iterator<Item = Result<TaskRef<'s>, ReadError>> {
        self.tasks_where(tasks::ASSIGNED_TO, node)
    }

    /// The tasks that need at least so many cores, GPUs and MiB of memory. A need that is null is below every minimum
    /// that is given; without any, these are the tasks that state their needs at all.
    pub fn find_tasks_by_resource_requirements(
        &self,
        cpu_cores: Option<i64>,
        gpu_cores: Option<i64>,
        memory_mb: Option<i64>,
    ) -> impl Iterator<Item = Result<TaskRef<'_>, ReadError>> {
        let minima = [
            (resources::CPU_CORES, cpu_cores),
            (resources::GPU_CORES, gpu_cores),
            (resources::MEMORY_MB, memory_mb),
        ];
        self.tasks().select(move |chunk| {
            let of = Structs::of(chunk, tasks::RESOURCES);
            let minima = minima.map(|(field, least)| (of.number::<Int32Type>(field), least));
            move |row| {
                let is_enough = |least: i64, need: Option<i32>| {
                    need.is_some_and(|need| i64::from(need) >= least)
                };
                of.is_valid(row)
                    && minima.iter().all(|(needs, least)| {
                        least.is_none_or(|least| is_enough(least, needs.get(row)))
                    })
            }
        })
    }

    fn tasks_where<'s>(
        &'s self,
        column: usize,
        text: &str,
    ) -> impl Iterator<Item = Result<TaskRef<'s>, ReadError>> {
        self.tasks().select(move |chunk| {
            let texts = Text::of(chunk, column);
            move |row| texts.is(row, text)
        })
    }
}
