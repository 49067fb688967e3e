//! The engine against ends that live in memory and fail on purpose.

mod bulk;
mod domain;
mod doubles;
mod faults;
mod first;
mod model;
