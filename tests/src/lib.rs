//! What the whole-process tests share: states made of rows that carry their own checksum.

#![forbid(unsafe_code)]

pub mod rows;
