//! The engine's side of the way in: what is asked of the one writer.

mod request;

pub use request::{Bulk, BulkMode, Request, Submission};
