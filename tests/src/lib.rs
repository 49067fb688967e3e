//! What the whole-process tests share: states made of rows that carry their own checksum,
//! rows as JSON for tests in other languages, and processes that publish and read states
//! under duress.

#![forbid(unsafe_code)]

pub mod json;
pub mod rows;
pub mod torture;
