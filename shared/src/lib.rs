//! stub
pub mod head;
pub mod schema;
pub mod state;
