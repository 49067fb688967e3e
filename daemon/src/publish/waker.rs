//! Waking the readers that wait, off the publishing thread (F10).

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use sherwood_shared::mapping::HeaderMut;

/// A thread that wakes the waiters of one file when it is told to.
///
/// Waking costs with the number of waiters; telling the thread does not.
#[derive(Debug)]
pub(super) struct Waker {
    tell: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Waker {
    pub(super) fn start(header: Arc<HeaderMut>) -> std::io::Result<Self> {
        // One slot: whatever was published before the thread looks is one wake.
        let (tell, told): (SyncSender<()>, Receiver<()>) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("waker".to_owned())
            .spawn(move || {
                while told.recv().is_ok() {
                    header.wake();
                }
            })?;
        Ok(Self {
            tell: Some(tell),
            thread: Some(thread),
        })
    }

    /// Asks for a wake. Never waits.
    pub(super) fn wake(&self) {
        if let Some(Err(TrySendError::Disconnected(()))) =
            self.tell.as_ref().map(|tell| tell.try_send(()))
        {
            tracing::error!(
                "the waker thread is gone: waiting readers will notice within a second"
            );
        }
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        self.tell = None; // ends the thread
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
