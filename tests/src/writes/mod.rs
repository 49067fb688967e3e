//! What proves that writes survive: writers that keep a ledger, crashes of every kind, and checkers of what is
//! there afterwards.
//!
//! - [`transaction`]: transactions as the writers here make them, and their answers;
//! - [`model`]: the rules of transactions once more, in fifty lines, with faults that can be planted;
//! - [`ledger`]: what each writer wanted and was told, and what the state has to be for it;
//! - [`history`]: is there an order of all transactions that explains every answer?
//! - [`watcher`]: do the changes that a watcher saw make the state that readers see?
//! - [`power`]: a file system whose plug can be pulled;
//! - [`way`]: the way to a daemon; [`stand_in`]: a small store to try all of this on;
//! - [`load`], [`crash`]: writers at work, and what happens to the daemon meanwhile;
//! - [`sherwood`]: the daemon as such a store; [`failpoints`]: its death at a named step;
//! - [`lone`]: one writer of large rows, for disks that are to be full;
//! - [`historian`]: a process that makes a history; [`foreign`]: writers that know nothing but the Parquet file.
//!
//! Each checker is itself tested against planted faults (`tests/writes_checkers.rs`, `tests/writes_harness.rs`):
//! one that finds nothing in them proves nothing about the daemon.

pub mod crash;
pub mod failpoints;
pub mod foreign;
pub mod historian;
pub mod history;
pub mod ledger;
pub mod load;
pub mod lone;
pub mod model;
pub mod power;
pub mod sherwood;
pub mod stand_in;
pub mod transaction;
pub mod watcher;
pub mod way;
