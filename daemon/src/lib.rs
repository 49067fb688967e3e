//! stub
pub mod publish;
