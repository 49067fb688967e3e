//! The way in, as a client meets it: a real socket, a real Arrow Flight client, and an engine that only remembers.

mod actions;
mod bulk;
mod common;
mod exchange;
