//! The way in, as a client meets it: a real socket, a real Arrow Flight client, and an engine that only remembers.

mod abuse;
mod actions;
mod bulk;
mod common;
mod exchange;
mod reads;
mod watch;
