//! When to write a checkpoint.
//!
//! - **CA1** Soon, for those who read the file: after [`QUIET`] without a change, or [`LATEST`] after the first
//!   one that is not in it.
//! - **CA2** Seldom, for the disk: never more than a tenth of the time goes into checkpoints. The scribe pauses between
//!   their steps for that ([`SHARE`]), so that a large one takes long and the next may follow at once. What a step that only
//!   computes took is its time on a processor: a host that is busy with other things does not make checkpoints rare.
//! - **CA3** Not into a foreign writer's face: while it holds the public file open for writing, and for [`COURTESY`] after it
//!   changed it, that file is left alone. The private checkpoint and the log have everything meanwhile.
//!   Then a refused one makes way, whether anything changed or not.

use std::time::{Duration, Instant};

/// CA1: nothing has changed for this long.
pub const QUIET: Duration = Duration::from_millis(200);
/// CA1: something changed this long ago.
pub const LATEST: Duration = Duration::from_secs(1);
/// CA2: of this many parts of the time, one may be spent.
pub const SHARE: u32 = 10;
/// CA3.
pub const COURTESY: Duration = Duration::from_secs(5);
/// After a checkpoint that failed.
const RETRY: Duration = Duration::from_secs(5);

/// Knows when the next checkpoint is due. Its clock is its caller's.
#[derive(Clone, Debug, Default)]
pub struct Cadence {
    /// The first and the last change that no checkpoint has begun after.
    changes: Option<(Instant, Instant)>,
    /// One is being written.
    is_running: bool,
    /// After a failure.
    not_before: Option<Instant>,
}

impl Cadence {
    /// Something changed.
    pub fn changed(&mut self, now: Instant) {
        let first = self.changes.map_or(now, |(first, _)| first);
        self.changes = Some((first, now));
    }

    /// When to begin, if a checkpoint is owed and none is being written.
    pub fn due(&self) -> Option<Instant> {
        let (first, last) = self.changes.filter(|_| !self.is_running)?;
        let due = (last + QUIET).min(first + LATEST);
        Some(self.not_before.map_or(due, |limit| due.max(limit)))
    }

    /// Nothing is owed and nothing is being written.
    pub fn is_idle(&self) -> bool {
        self.changes.is_none() && !self.is_running
    }

    /// A checkpoint of everything so far begins.
    pub fn began(&mut self) {
        self.changes = None;
        self.is_running = true;
    }

    /// It is durable.
    pub fn succeeded(&mut self) {
        self.is_running = false;
    }

    /// It failed: what it should have held is still owed.
    pub fn failed(&mut self, now: Instant) {
        self.is_running = false;
        self.changed(now);
        self.wait_until(now + RETRY);
    }

    /// What made the last one fail may be over: the next need not wait.
    pub fn hurry(&mut self) {
        self.not_before = None;
    }

    fn wait_until(&mut self, limit: Instant) {
        self.not_before = self.not_before.max(Some(limit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_checkpoint_is_due_when_it_is_quiet_and_at_the_latest_after_a_second() {
        let start = Instant::now();
        let mut cadence = Cadence::default();
        assert_eq!(cadence.due(), None);
        cadence.changed(start);
        assert_eq!(cadence.due(), Some(start + QUIET));
        cadence.changed(start + 150 * MS);
        assert_eq!(cadence.due(), Some(start + 150 * MS + QUIET));
        for at in 0..100 {
            cadence.changed(start + 20 * MS * at);
        }
        assert_eq!(cadence.due(), Some(start + LATEST));
    }

    #[test]
    fn changes_during_a_checkpoint_are_owed_and_one_is_written_at_a_time() {
        let start = Instant::now();
        let mut cadence = Cadence::default();
        cadence.changed(start);
        cadence.began();
        assert_eq!(cadence.due(), None);
        cadence.changed(start + 100 * MS);
        assert_eq!(cadence.due(), None, "one at a time");
        cadence.succeeded();
        assert_eq!(cadence.due(), Some(start + 300 * MS));
        cadence.began();
        cadence.succeeded();
        assert!(cadence.is_idle());
    }

    #[test]
    fn a_failure_leaves_it_owed() {
        let start = Instant::now();
        let mut cadence = Cadence::default();
        cadence.changed(start);
        cadence.began();
        cadence.failed(start);
        assert_eq!(cadence.due(), Some(start + RETRY));
        cadence.hurry();
        assert_eq!(cadence.due(), Some(start + QUIET));
    }
}
