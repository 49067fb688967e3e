//! Keeps the log's directory in order, on a thread of its own: the next segment is made ready, old ones go.
//!
//! Beside the engine's thread, because writing a segment of zeros takes as long as a hundred syncs; beside the
//! scribe's, because a segment may be needed while a large checkpoint is being written.

use std::io;
use std::sync::mpsc::{self, Sender};
use std::thread;

use sherwood_client::locate::StateDir;
use sherwood_store::log::{KeepError, Keeper};

use crate::scribe::is_here;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chore {
    /// Make the next segment ready.
    Prepare,
    /// Let go of segments whose entries all have sequences up to this one.
    Release(u64),
}

/// What came of a chore.
#[derive(Debug)]
pub struct Kept {
    /// Which.
    pub chore: Chore,
    /// Was it done?
    pub result: Result<(), KeepError>,
}

/// Starts the thread, which ends when the sender is dropped. Each chore gets one report.
///
/// # Errors
///
/// The thread cannot be started.
pub fn start(
    keeper: Keeper,
    dir: StateDir,
    report: impl Fn(Kept) + Send + 'static,
) -> io::Result<Sender<Chore>> {
    let (chores, inbox) = mpsc::channel();
    let work = move || {
        for chore in inbox {
            // In a directory that took the place of ours nothing is ours to prepare or to delete.
            let result = match chore {
                _ if !is_here(&dir) => Ok(()),
                Chore::Prepare => keeper.prepare().map(drop),
                Chore::Release(through) => keeper.release(through).map(drop),
            };
            report(Kept { chore, result });
        }
    };
    thread::Builder::new()
        .name("log-keeper".to_owned())
        .spawn(work)?;
    Ok(chores)
}
