//! Two threads on two cores. Both programs compile this file.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Holds the calling thread to one core until dropped.
///
/// The first and the last core that the process may use, so that two threads
/// are on different ones where there are two. Where the kernel refuses, the
/// thread stays free: the figure is noisier, not wrong.
#[derive(Debug)]
pub struct Core {
    before: Option<CpuSet>,
}

impl Core {
    /// The first core.
    pub fn first() -> Self {
        Self::hold((0..CpuSet::count()).collect())
    }

    /// The last core.
    pub fn last() -> Self {
        Self::hold((0..CpuSet::count()).rev().collect())
    }

    fn hold(order: Vec<usize>) -> Self {
        let this_thread = Pid::from_raw(0);
        let before = sched_getaffinity(this_thread).ok();
        let mut only = CpuSet::new();
        let core = order.into_iter().find(|&core| {
            before
                .as_ref()
                .is_some_and(|set| set.is_set(core) == Ok(true))
        });
        if core.is_some_and(|core| only.set(core).is_ok()) {
            // Refused: the thread stays free, as said above.
            let _ = sched_setaffinity(this_thread, &only);
        }
        Self { before }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = sched_setaffinity(Pid::from_raw(0), before);
        }
    }
}
