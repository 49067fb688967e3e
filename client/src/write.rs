//! Writes: transactions through the daemon's socket, blocking or async.
//!
//! ```no_run
//! use sherwood_client::write::{Outcome, Transaction, Writer, tasks};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let writer = Writer::connect("/var/lib/sherwood")?;
//! let transaction = Transaction::new()
//!     .require(tasks("task-1").column("status").equals("assigned"))
//!     .patch(tasks("task-1").set("status", "running"));
//! match writer.apply(transaction)? {
//!     Outcome::Done { generation, .. } => println!("done in generation {generation}"),
//!     Outcome::Refused { reason, .. } => println!("refused: {reason}"),
//!     Outcome::Unknown { id, reason } => println!("ask again for {id}: {reason}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! - [`Writer`] blocks and needs no runtime; [`AsyncWriter`] lives in the caller's tokio runtime;
//! - [`Transaction`] with [`nodes`], [`tasks`], [`content`], [`cluster`]: what to write;
//! - [`Outcome`]: what became of it; [`Changes`], [`AsyncChanges`]: what everybody wrote.
//!
//! The rules, by name:
//!
//! - **CW1** Every request has an id, made here if the caller gave none. The daemon applies an id once, so a
//!   request is sent again, with the same id, whenever a connection breaks before its answer came.
//! - **CW2** `Ok(Outcome::Done)`: durable, and visible to every reader of the host; a
//!   [`Handle::latest`](crate::Handle::latest) after it sees that generation. `Ok(Outcome::Refused)`: nothing of it
//!   was applied. `Ok(Outcome::Unknown)`: it may have been; only this one has to be asked again.
//! - **CW3** `Err`: nothing was applied, because nothing was sent.
//! - **CW4** Requests of one writer are answered in the order in which they were submitted; those of one connection
//!   are applied in that order.
//! - **CW5** One connection for transactions, one for calls, one for bulk, and one for each [`Changes`], so that none
//!   of them waits for another's bytes.
//!
//! Not promised: order between transactions, bulk puts and other writers. Wait for the answer where it matters.

mod address;
mod aio;
mod blocking;
mod build;
mod bulk;
mod changes;
mod connection;
mod domain;
mod error;
mod outcome;
mod pipeline;
mod row;

pub use address::Address;
pub use aio::{AsyncWriter, Pending};
pub use blocking::{Changes, PendingWrite, Writer};
pub use build::{
    Cluster, Column, Condition, Key, Operation, Patch, Transaction, cluster, content, generation,
    nodes, tasks,
};
pub use bulk::Mode;
pub use changes::{AsyncChanges, Change, ChangeOp};
pub use connection::Options;
pub use error::WriteError;
pub use outcome::{Done, Outcome};
pub use row::{Content, Node, NodeResources, Row, Task, TaskResources};
pub use sherwood_shared::transaction::{Answer, DomainOp, OutcomeKind};
