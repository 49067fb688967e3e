//! How long tasks take.

use arrow_array::types::TimestampMillisecondType;

use crate::chunk::Chunk;
use crate::columns::{Number, tasks};

/// The times of a chunk's tasks.
#[derive(Debug)]
pub(super) struct Times<'s> {
    started: Number<'s, TimestampMillisecondType>,
    completed: Number<'s, TimestampMillisecondType>,
    created: Number<'s, TimestampMillisecondType>,
    updated: Number<'s, TimestampMillisecondType>,
}

impl<'s> Times<'s> {
    pub(super) fn of(chunk: &'s Chunk) -> Self {
        Self {
            started: Number::of(chunk, tasks::STARTED_AT),
            completed: Number::of(chunk, tasks::COMPLETED_AT),
            created: Number::of(chunk, tasks::CREATED_AT),
            updated: Number::of(chunk, tasks::UPDATED_AT),
        }
    }

    /// How long a task took that has ended, in milliseconds: from its start to its completion where both are known,
    /// else from its creation to its last change. Clocks that went back make it 0.
    pub(super) fn duration_ms(&self, row: usize) -> Option<i64> {
        let exact = self.completed.get(row).zip(self.started.get(row));
        let (end, begin) = exact.or_else(|| self.updated.get(row).zip(self.created.get(row)))?;
        Some(end.saturating_sub(begin).max(0))
    }

    /// Since when a task has been running: its start where that is known, else its creation.
    pub(super) fn begun_ms(&self, row: usize) -> Option<i64> {
        self.started.get(row).or_else(|| self.created.get(row))
    }
}

/// The mean of durations, in seconds.
#[derive(Debug, Default)]
pub(super) struct Mean {
    sum_ms: i128,
    count: u64,
}

impl Mean {
    pub(super) fn add(&mut self, ms: Option<i64>) {
        let Some(ms) = ms else { return };
        self.sum_ms += i128::from(ms);
        self.count += 1;
    }

    /// `None` of nothing.
    pub(super) fn seconds(&self) -> Option<f64> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a mean of times need not be exact beyond 53 bits"
        )]
        (self.count > 0).then(|| self.sum_ms as f64 / 1e3 / self.count as f64)
    }
}
