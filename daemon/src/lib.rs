//! The Sherwood daemon: a cluster's Parquet state, kept published as a shared-memory snapshot.
//!
//! `main.rs` is the process's edge and calls [`run`]; everything else is here, one idea a module:
//!
//! | module | idea |
//! |---|---|
//! | [`config`] | settings: file, environment, flags |
//! | [`lock`] | one daemon for a state and for a snapshot's name (W1) |
//! | [`generation`] | generations that never go back |
//! | [`durable`] | replacing a small file, crash-safe |
//! | [`metadata`] | `state_metadata.json`, beside others who write it |
//! | [`watch`] | hints that something may have changed |
//! | [`observe`] | looking what has changed, and whether it is good |
//! | [`run_dir`] | where snapshots get their names, and who else could give some |
//! | [`served`] | a cluster being served, and the order of a start |
//! | [`service`] | the loop that joins them |
//! | [`ends`] | where states come from and go, as a trait |
//! | [`publish`] | the snapshot file's writer |
//! | [`log`] | log lines |
//! | `systemd` | word to the service manager |
//! | `run` | from the command line to an exit code |
#![forbid(unsafe_code)]

pub mod config;
pub mod ends;
pub mod generation;
pub mod log;
pub mod metadata;
pub mod observe;
pub mod publish;
mod run;
pub mod run_dir;
pub mod served;
pub mod service;
mod systemd;
pub mod watch;

pub use run::run;
pub use sherwood_store::{durable, lock};
