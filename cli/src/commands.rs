//! The commands, one module each.

pub mod export;
pub mod get;
pub mod sample;
pub mod snapshot;
pub mod status;
pub mod verify;
pub mod watch;
