//! What the whole-process tests share: states of rows that carry their own checksum, rows as
//! JSON, the real daemon as a child, processes that publish and read states under duress,
//! and what a test needs of its machine.

#![forbid(unsafe_code)]

pub mod daemon;
pub mod fuzzing;
pub mod json;
pub mod needs;
pub mod rows;
pub mod torture;
pub mod writes;
