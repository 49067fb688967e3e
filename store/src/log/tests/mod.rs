//! The log as a whole, on real files; what fails is in `faults`.

mod crafted;
mod crash;
mod damage;
mod follow;
mod happy;
pub(super) mod samples;
