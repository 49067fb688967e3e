//! The commands, one module each.

pub mod apply;
pub mod assign;
pub mod cancel;
pub mod claim;
pub mod complete;
pub mod delete;
pub mod export;
pub mod fail;
pub mod get;
pub mod import;
pub mod patch;
pub mod put;
pub mod recover;
pub mod release;
pub mod retry;
pub mod sample;
pub mod snapshot;
pub mod start;
pub mod status;
pub mod verify;
pub mod watch;

mod answer;
