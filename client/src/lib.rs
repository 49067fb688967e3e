//! Reads a Sherwood cluster state: zero-copy from the daemon's snapshot file, or from
//! Parquet without a daemon.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let reader = sherwood_client::Reader::open("/run/sherwood/default.arrow")?;
//! let mut handle = reader.handle()?; // one per thread
//! if let Some(task) = handle.latest().task("task-1")? {
//!     println!("{} is {:?}", task.id(), task.status());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! - [`Reader`], [`Handle`]: acquiring the newest snapshot, waiting for the next;
//! - [`Snapshot`], [`Table`], [`rows`]: what one holds;
//! - [`helpers`]: the document's questions, as methods of a snapshot;
//! - `filter` (a feature): rows by a condition, `status = 'pending'`;
//! - `write` (feature `write`): transactions, through the daemon;
//! - [`import`]: Parquet; [`locate`]: where a state is; [`verify`]: is a file whole?
//!
//! No syscall and no lock while nothing changes; no thread and no runtime of its own.

#![forbid(unsafe_code)]

mod chunk;
#[cfg(feature = "json")]
pub mod cluster_state_helpers;
mod columns;
mod error;
#[cfg(feature = "filter")]
pub mod filter;
#[cfg(feature = "parquet")]
pub mod find;
pub mod helpers;
#[cfg(feature = "parquet")]
pub mod import;
#[cfg(feature = "json")]
pub mod json;
pub mod locate;
mod reader;
mod regions;
pub mod rows;
mod snapshot;
#[cfg(feature = "parquet")]
mod source;
mod table;
#[cfg(feature = "parquet")]
pub mod verify;
#[cfg(feature = "write")]
pub mod write;

pub use error::{Damage, ReadError};
pub use reader::{Handle, Liveness, Reader};
pub use rows::{ContentRef, NodeRef, TaskRef};
pub use sherwood_shared::file::{FileId, OpenError};
pub use sherwood_shared::schema::TableId;
#[cfg(feature = "parquet")]
pub use snapshot::ParquetError;
pub use snapshot::Snapshot;
#[cfg(feature = "parquet")]
pub use source::Source;
pub use table::Table;

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
