//! The engine against ends that live in memory and fail on purpose, and against the real ones.

mod bulk;
mod claims;
mod domain;
mod doubles;
mod faults;
mod first;
mod model;
mod real;
