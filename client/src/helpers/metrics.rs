//! How the tasks went, and how long one will take.

use std::time::{SystemTime, UNIX_EPOCH};

use super::counts::{Counter, Counts};
use super::duration::{Mean, Times};
use crate::columns::{Text, tasks};
use crate::error::ReadError;
use crate::snapshot::Snapshot;

/// What [`Snapshot::get_task_execution_metrics`] answers.
#[derive(Clone, Debug, PartialEq)]
pub struct ExecutionMetrics<'s> {
    /// All of them, whatever their status.
    pub total_tasks: u64,
    /// Completed.
    pub completed_tasks: u64,
    /// Failed.
    pub failed_tasks: u64,
    /// Pending.
    pub pending_tasks: u64,
    /// Assigned or running.
    pub running_tasks: u64,
    /// Completed of those that completed or failed; 0 where none did.
    pub completion_rate: f64,
    /// The mean over completed tasks, in seconds; 0 where it is not known.
    pub average_execution_time: f64,
    /// How many there are of each type. Those without a type are only in `total_tasks`.
    pub task_types: Counts<'s>,
}

impl Snapshot {
    /// How many tasks there are in each state and of each type, how many went well, and how long they took.
    ///
    /// A task's duration is `completed_at - started_at` where both are known, else `updated_at - created_at`.
    pub fn get_task_execution_metrics(&self) -> Result<ExecutionMetrics<'_>, ReadError> {
        let mut mean = Mean::default();
        let (mut types, mut states) = (Counter::default(), Counter::default());
        for chunk in self.tasks().table().chunks() {
            let chunk = chunk?;
            let status = Text::of(chunk, tasks::STATUS);
            let kind = Text::of(chunk, tasks::TYPE);
            let times = Times::of(chunk);
            for row in chunk.rows() {
                let status = status.get(row);
                states.add(status);
                types.add(kind.get(row));
                if status == Some("completed") {
                    mean.add(times.duration_ms(row));
                }
            }
        }
        let states = states.counts();
        let (completed, failed) = (states.get("completed"), states.get("failed"));
        Ok(ExecutionMetrics {
            total_tasks: self.tasks().len(),
            completed_tasks: completed,
            failed_tasks: failed,
            pending_tasks: states.get("pending"),
            running_tasks: states.get("assigned") + states.get("running"),
            completion_rate: rate(completed, failed).unwrap_or(0.0),
            average_execution_time: mean.seconds().unwrap_or(0.0),
            task_types: types.counts(),
        })
    }

    /// In how many seconds a task will be done: the mean duration of completed tasks of its type, less the time that it
    /// has run if it is running, and never below 0. 0 if it has ended. Tasks without a type are alike in that.
    ///
    /// `None`: there is no such task, or no completed task of its type to learn from.
    pub fn estimate_time_to_completion(&self, id: &str) -> Result<Option<f64>, ReadError> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        self.time_to_completion(id, now)
    }

    /// The same at another time than now, in milliseconds since the epoch.
    pub fn time_to_completion(&self, id: &str, now_ms: i64) -> Result<Option<f64>, ReadError> {
        let Some((chunk, row)) = self.tasks().table().find_chunk(id)? else {
            return Ok(None);
        };
        let kind = Text::of(chunk, tasks::TYPE).get(row);
        let status = Text::of(chunk, tasks::STATUS).get(row);
        if matches!(status, Some("completed" | "failed" | "cancelled")) {
            return Ok(Some(0.0));
        }
        let Some(mean) = self.mean_duration(kind)? else {
            return Ok(None);
        };
        let begun = Times::of(chunk)
            .begun_ms(row)
            .filter(|_| status == Some("running"));
        let mut has_run = Mean::default();
        has_run.add(begun.map(|begun| now_ms.saturating_sub(begun).max(0)));
        Ok(Some((mean - has_run.seconds().unwrap_or(0.0)).max(0.0)))
    }

    fn mean_duration(&self, kind: Option<&str>) -> Result<Option<f64>, ReadError> {
        let mut mean = Mean::default();
        for chunk in self.tasks().table().chunks() {
            let chunk = chunk?;
            let status = Text::of(chunk, tasks::STATUS);
            let kinds = Text::of(chunk, tasks::TYPE);
            let times = Times::of(chunk);
            for row in chunk.rows() {
                if status.is(row, "completed") && kinds.get(row) == kind {
                    mean.add(times.duration_ms(row));
                }
            }
        }
        Ok(mean.seconds())
    }
}

/// `part` of both together; `None` of nothing.
pub(super) fn rate(part: u64, other: u64) -> Option<f64> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a rate need not be exact beyond 53 bits"
    )]
    (part + other > 0).then(|| part as f64 / (part + other) as f64)
}
