//! What the whole-process tests share: the real daemon as a child, states of checked rows,
//! and what a test needs of its machine.

#![forbid(unsafe_code)]

pub mod daemon;
pub mod fuzzing;
pub mod needs;
pub mod rows;
