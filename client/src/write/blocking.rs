//! The blocking writer: the async one, on a small runtime of its own.
//!
//! The runtime has no thread: it runs in whoever waits for an answer. So nothing is sent or received between calls,
//! and the daemon may close a connection that is long idle; the next call then makes a new one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use serde_json::Value;
use sherwood_shared::schema::TableId;
use tokio::runtime::{Builder, Handle, Runtime};

use super::address::Address;
use super::aio::{AsyncWriter, Pending};
use super::build::Operation;
use super::bulk::Mode;
use super::changes::{AsyncChanges, Change};
use super::connection::Options;
use super::error::WriteError;
use super::outcome::Outcome;

/// Writes through the daemon's socket, and blocks until it is answered. Cheap to clone, `Send + Sync`.
///
/// Inside an async runtime every call is [`WriteError::InsideRuntime`], `spawn_blocking` included: use
/// [`AsyncWriter`] there. After a fork every call in the child is [`WriteError::Forked`]: connect anew there.
#[derive(Clone, Debug)]
pub struct Writer {
    // Before the runtime, in which it lives.
    writer: AsyncWriter,
    engine: Arc<Engine>,
}

/// The runtime, and whose it is.
#[derive(Debug)]
struct Engine {
    runtime: Option<Runtime>,
    pid: u32,
}

impl Engine {
    fn new() -> Result<Self, WriteError> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(WriteError::Runtime)?;
        Ok(Self {
            runtime: Some(runtime),
            pid: std::process::id(),
        })
    }

    /// Runs `future` here, where that neither stops a runtime nor takes a parent's answers.
    fn run<T>(&self, future: impl Future<Output = Result<T, WriteError>>) -> Result<T, WriteError> {
        if std::process::id() != self.pid {
            return Err(WriteError::Forked {
                connected: self.pid,
            });
        }
        if Handle::try_current().is_ok() {
            return Err(WriteError::InsideRuntime);
        }
        match &self.runtime {
            Some(runtime) => runtime.block_on(future),
            None => Err(WriteError::Closed),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        if std::process::id() == self.pid {
            // Waits for nobody, so it may be dropped inside an async runtime.
            runtime.shutdown_background();
        } else {
            // Its poll is the parent's too: what is taken off here would be lost there.
            std::mem::forget(runtime);
        }
    }
}

impl Writer {
    /// Connects to the daemon of `target`: a socket, a snapshot, a state directory, or a cluster's id
    /// ([`Address::of`]).
    ///
    /// # Errors
    ///
    /// [`WriteError`], if no daemon listens there or inside an async runtime.
    pub fn connect(target: impl AsRef<Path>) -> Result<Self, WriteError> {
        Self::connect_with(Address::of(target.as_ref())?, Options::default())
    }

    /// The same, with another patience.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn connect_with(address: Address, options: Options) -> Result<Self, WriteError> {
        let engine = Engine::new()?;
        let writer = engine.run(AsyncWriter::connect_with(address, options))?;
        Ok(Self {
            writer,
            engine: Arc::new(engine),
        })
    }

    /// Applies a transaction or a domain operation, and says what became of it (rules CW2, CW3).
    ///
    /// # Errors
    ///
    /// Nothing was sent: [`WriteError::Unreachable`], [`WriteError::Denied`].
    pub fn apply(&self, operation: impl Into<Operation>) -> Result<Outcome, WriteError> {
        self.engine.run(self.writer.apply(operation))
    }

    /// Begins to send it, and returns without its answer, so that more can follow. It is on its way for sure only
    /// when some thread waits for an answer of this writer.
    ///
    /// # Errors
    ///
    /// As [`apply`](Self::apply).
    pub fn submit(&self, operation: impl Into<Operation>) -> Result<PendingWrite, WriteError> {
        let pending = self.engine.run(self.writer.submit(operation))?;
        Ok(PendingWrite {
            pending,
            engine: Arc::clone(&self.engine),
        })
    }

    /// Puts, patches or deletes many rows of a table in one transaction: Arrow in, no JSON. A patch sets the columns
    /// that `batches` have; of a delete only the key column counts. An id is made if there is none.
    ///
    /// # Errors
    ///
    /// As [`apply`](Self::apply), and [`WriteError::Encode`].
    pub fn bulk(
        &self,
        table: TableId,
        mode: Mode,
        batches: &[RecordBatch],
        id: Option<String>,
    ) -> Result<Outcome, WriteError> {
        self.engine.run(self.writer.bulk(table, mode, batches, id))
    }

    /// What became of the request with this id, as far as the daemon remembers: unknown otherwise.
    ///
    /// # Errors
    ///
    /// If the daemon does not answer.
    pub fn outcome(&self, id: &str) -> Result<Outcome, WriteError> {
        self.engine.run(self.writer.outcome(id))
    }

    /// What the daemon says of itself: an object.
    ///
    /// # Errors
    ///
    /// If the daemon does not answer.
    pub fn status(&self) -> Result<Value, WriteError> {
        self.engine.run(self.writer.status())
    }

    /// Every change after generation `from`, once each and in order, as they come; of these tables only, or of all
    /// if there are none.
    ///
    /// # Errors
    ///
    /// If the daemon does not answer. [`WriteError::Gone`] comes from the changes themselves.
    pub fn watch(&self, from: u64, tables: &[TableId]) -> Result<Changes, WriteError> {
        let changes = self.engine.run(self.writer.watch(from, tables))?;
        Ok(Changes {
            changes: Some(changes),
            engine: Arc::clone(&self.engine),
        })
    }

    /// The options it was connected with.
    #[must_use]
    pub fn options(&self) -> Options {
        self.writer.options()
    }
}

/// An answer that is under way.
#[derive(Debug)]
#[must_use = "what was submitted may be refused"]
pub struct PendingWrite {
    pending: Pending,
    engine: Arc<Engine>,
}

impl PendingWrite {
    /// The request's id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.pending.id()
    }

    /// Waits for it.
    ///
    /// # Errors
    ///
    /// As [`Writer::apply`].
    pub fn wait(self) -> Result<Outcome, WriteError> {
        self.engine.run(self.pending)
    }
}

/// Changes as they come: an iterator that waits for the next, and ends after its first error.
#[derive(Debug)]
pub struct Changes {
    changes: Option<AsyncChanges>,
    engine: Arc<Engine>,
}

impl Changes {
    /// The next change, or `None` if none came for so long.
    ///
    /// # Errors
    ///
    /// As [`AsyncChanges::next`].
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<Change>, WriteError> {
        let Some(changes) = &mut self.changes else {
            return Err(WriteError::Closed);
        };
        let next = self.engine.run(async {
            match tokio::time::timeout(timeout, changes.next()).await {
                Ok(change) => change.map(Some),
                Err(_) => Ok(None),
            }
        });
        if next.is_err() {
            self.changes = None;
        }
        next
    }
}

impl Iterator for Changes {
    type Item = Result<Change, WriteError>;

    fn next(&mut self) -> Option<Self::Item> {
        let changes = self.changes.as_mut()?;
        let next = self.engine.run(changes.next());
        if next.is_err() {
            self.changes = None;
        }
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_of_a_fork_is_told_so_and_leaves_its_parents_runtime_alone() {
        let mut parents = Engine::new().expect("a runtime");
        parents.pid += 1;
        let error = parents.run(async { Ok(()) });
        assert!(
            matches!(error, Err(WriteError::Forked { connected }) if connected == std::process::id() + 1),
            "{error:?}"
        );
        drop(parents);
    }
}
