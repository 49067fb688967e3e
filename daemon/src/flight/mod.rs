//! The way in: Arrow Flight on a Unix socket, `<run-dir>/<cluster_id>.sock`.
//!
//! The protocol is docs/flight.md's. Here a request is read, judged by what needs no state (who asks, how much, of
//! which form) and handed on as a [`Submission`]; the engine decides, and its answer goes back. The server has threads
//! of its own: however slow a client is, the engine never waits for it.
//!
//! | module | idea |
//! |---|---|
//! | `socket` | the socket's name (S) |
//! | `server` | connections: accepting, ending (J) |
//! | `peer` | who asks, and what he may do (I) |
//! | `limits`, `quota`, `body` | how much he may ask for (Q, Y) |
//! | `service` | the calls of Arrow Flight |
//! | `action`, `exchange`, `put`, `read`, `watch` | each of them |

mod action;
mod body;
mod exchange;
mod json;
mod limits;
mod peer;
mod put;
mod quota;
mod read;
mod server;
mod service;
mod socket;
mod watch;

pub use action::{parse, parse_message};
pub use limits::{BULK_FACTOR, JSON_FACTOR, Limits};
pub use peer::Access;
pub use put::{Command, parse_command};
pub use server::{Load, Options, Running, ServeError, serve};
pub use socket::SocketError;
pub use watch::{Announced, ChangeError, ChangeSource, Changes, Wish};

use crate::engine::Submission;

/// Where submissions go. Must not block.
type Submit = Box<dyn Fn(Submission) + Send + Sync>;
