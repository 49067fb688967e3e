//! The log as a whole, on real files; what fails is in `faults`.

mod damage;
mod happy;
mod samples;
