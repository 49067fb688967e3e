//! stub
pub mod schema;
pub mod state;
