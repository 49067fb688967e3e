//! Makes a cluster's state durable: the log, the checkpoints, and how a state comes back from them.
//!
//! - [`entry`]: what one commit changes and decides, the unit of the log;
//! - the log and the checkpoints: bytes in docs/format.md, rules in docs/design.md.
//!
//! Knows nothing of sockets, snapshots' writers or services: the daemon's engine drives it, and
//! `sherwood recover` uses it without a daemon.

#![forbid(unsafe_code)]

pub mod entry;
pub mod log;
pub mod outcomes;

pub use entry::{Effects, Entry, Outcome, TableEffects, Verdict};
pub use outcomes::Outcomes;
