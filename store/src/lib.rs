//! Makes a cluster's state durable: the log, the checkpoints, and how a state comes back from them.
//!
//! - [`entry`]: what one commit changes and decides, the unit of the log;
//! - [`checkpoint`]: the state as Parquet files, private ones and the public one;
//! - [`lock`], [`durable`]: one daemon for a state directory, and small files that a crash leaves whole;
//! - [`mod@apply`]: what that does to rows;
//! - [`merge`]: foreign states, three-way;
//! - [`mod@recover`]: a state from both, and what an operator does when that fails;
//! - [`log`], [`outcomes`]: what was committed since, and what became of transactions with ids.
//!
//! The bytes are in docs/format.md, the rules in docs/design.md.
//!
//! Knows nothing of sockets, snapshots' writers or services: the daemon's engine drives it, and
//! `sherwood recover` uses it without a daemon.

#![forbid(unsafe_code)]

pub mod apply;
pub mod checkpoint;
pub mod durable;
pub mod entry;
pub mod lock;
pub mod log;
pub mod merge;
pub mod outcomes;
pub mod recover;

pub use apply::{ApplyError, Changes, Fold, Gathering, apply, merge_rows};
pub use entry::{Effects, Entry, Outcome, TableEffects, Verdict};
pub use outcomes::Outcomes;
