//! What the whole-process tests share: states made of rows that carry their own checksum,
//! and rows as JSON for tests in other languages.

#![forbid(unsafe_code)]

pub mod json;
pub mod rows;
