//! stub
pub mod document;
pub mod schema;
pub mod state;
