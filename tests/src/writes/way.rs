//! The way to a store: what writers and checkers need of it, whichever it is.

use super::transaction::{Answer, Rows, Transaction};

/// One writer's connection.
pub trait Way: Send {
    /// Asks for one transaction. What goes wrong on the way is [`Answer::Unknown`].
    fn ask(&mut self, transaction: &Transaction) -> Answer;

    /// A row's number, as a reader sees it now.
    ///
    /// # Errors
    ///
    /// The store is gone.
    fn look(&mut self, key: &str) -> Result<Option<i64>, String>;
}

/// A store that runs as a process of its own.
pub trait Store: Sync {
    /// Starts it, and waits for nothing.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    fn start(&mut self) -> Result<(), String>;

    /// Waits until it serves.
    ///
    /// # Errors
    ///
    /// It ended, or never does; with what it said.
    fn ready(&mut self) -> Result<(), String>;

    /// May it die by itself, as it was told to?
    fn may_die(&self) -> bool {
        false
    }

    /// What it said since its start, for the message of a test that fails.
    fn said(&self) -> String {
        String::new()
    }

    /// Does it run?
    fn is_alive(&mut self) -> bool;

    /// Stops all its threads where they are, with SIGSTOP, if it still runs: only [`Self::kill`] comes after this.
    fn freeze(&mut self);

    /// Ends it with SIGKILL if it still runs, and waits for its end.
    fn kill(&mut self);

    /// A connection to it.
    ///
    /// # Errors
    ///
    /// It does not serve.
    fn way(&self) -> Result<Box<dyn Way>, String>;

    /// All rows as a reader sees them now, and their generation.
    ///
    /// # Errors
    ///
    /// They cannot be read.
    fn rows(&self) -> Result<(u64, Rows), String>;

    /// Everything that a machine keeps in memory alone is gone, as after a power cut. It does not run.
    fn forget_memory(&mut self);
}
