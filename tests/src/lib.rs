//! What the whole-process tests share: states made of rows that carry their own checksum,
//! and processes that publish and read them under duress.

#![forbid(unsafe_code)]

pub mod rows;
pub mod torture;
