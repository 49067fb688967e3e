//! Whole processes that publish, read, die and are stopped, and what they tell each other.
//!
//! - [`args`]: how a process is told what to be, and [`tally`]: what it tells back, in lines
//!   on its standard output;
//! - [`writer`], [`reader`], [`scenes`]: what it may be;
//! - [`steps`]: delays or death between two steps of the protocol;
//! - [`processes`], [`chaos`]: the parent's side.
//!
//! Every process draws its choices from a seed and tells the seed when something is wrong.
//! It dies with its parent (`PR_SET_PDEATHSIG`), except a forked child, which ends by
//! itself within a second.

pub mod args;
pub mod chaos;
pub mod processes;
pub mod reader;
pub mod scenes;
pub mod steps;
pub mod tally;
pub mod writer;

/// The cluster whose state is published.
pub const CLUSTER: &str = "torture";
