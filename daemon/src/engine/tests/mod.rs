//! The engine against ends that live in memory and fail on purpose.

mod doubles;
mod first;
