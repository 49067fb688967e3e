//! Why nothing was written (rule CW3), or why a call has no answer.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use arrow_schema::ArrowError;
use tonic::Status;

use super::pipeline::chain;
use crate::ReadError;
use crate::locate::{BadClusterId, LocateError};

/// Why a writer could not be had, or a call not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A state directory that does not lead to a state.
    #[error(transparent)]
    Locate(Box<LocateError>),
    /// A snapshot that cannot be read, so that nobody can say whose it is.
    #[error(transparent)]
    Read(Box<ReadError>),
    /// Neither a path nor a name that could be a cluster's.
    #[error("{target:?} is neither a path that exists nor a cluster id")]
    Target {
        /// As it was given.
        target: PathBuf,
        /// What is wrong with it as an id.
        #[source]
        source: BadClusterId,
    },
    /// A state that no daemon serves.
    #[error("no daemon serves {target:?}: {why}; start sherwoodd on it")]
    NotServed {
        /// What was to be written to.
        target: PathBuf,
        /// How that is known, as part of a sentence.
        why: String,
    },
    /// Nobody listens at the socket, or this user may not connect.
    #[error("cannot connect to {socket:?}; is sherwoodd running, and may this user connect?")]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The daemon does not let this user do that. Nothing was applied.
    #[error("the daemon does not allow it: {}", said(status))]
    Denied {
        /// What it said.
        status: Box<Status>,
    },
    /// There was no connection within the deadline. Nothing was sent.
    #[error("no connection to the daemon within {} s, so nothing was sent: {reason}", waited.as_secs_f64())]
    Unreachable {
        /// The deadline.
        waited: Duration,
        /// What the last attempt ended with.
        reason: String,
    },
    /// The changes asked for are no longer kept.
    #[error("{}", gone(*oldest))]
    Gone {
        /// The oldest generation that can be asked for, where the daemon said so.
        oldest: Option<u64>,
    },
    /// A call that changes nothing, or a watch, failed.
    #[error("the daemon did not answer {call:?}: {}", said(status))]
    Call {
        /// The action.
        call: &'static str,
        /// What it said.
        status: Box<Status>,
    },
    /// The daemon's answer to a call makes no sense to this version.
    #[error("the daemon's answer to {call:?} cannot be understood: {why}")]
    Answer {
        /// The action.
        call: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Rows that Arrow does not encode. Nothing was sent.
    #[error("these rows cannot be sent")]
    Encode(#[source] ArrowError),
    /// A blocking writer was used where it would stop an async runtime.
    #[error(
        "a blocking Writer cannot be used inside an async runtime, which it would stop: use AsyncWriter"
    )]
    InsideRuntime,
    /// An async writer was used where no tokio runtime runs.
    #[error("an AsyncWriter needs a running tokio runtime: use Writer where there is none")]
    OutsideRuntime,
    /// The writer's runtime could not be made.
    #[error("cannot make the writer's runtime")]
    Runtime(#[source] io::Error),
    /// The process has forked since the writer was connected.
    #[error(
        "this writer was connected by process {connected}, which forked: connect anew in the child"
    )]
    Forked {
        /// Who connected it.
        connected: u32,
    },
    /// The runtime that the writer lived in has ended. What was not answered may have been applied.
    #[error("the writer's runtime has ended")]
    Closed,
    /// From [`Outcome::done`](super::Outcome::done): the daemon refused it, and nothing of it was applied.
    #[error("refused: {reason}")]
    Refused {
        /// Why.
        reason: String,
        /// The generation it was judged against, where known.
        generation: Option<u64>,
    },
    /// From [`Outcome::done`](super::Outcome::done): it may have been applied. Ask again with the id.
    #[error("it is not known whether {id:?} was applied: {reason}; send it again with the same id")]
    Unknown {
        /// The id.
        id: String,
        /// Why it is not known.
        reason: String,
    },
}

/// What a status says, and why. It is no `source`: it prints its message among what nobody but a programmer reads.
fn said(status: &Status) -> String {
    let cause = std::error::Error::source(status).map(chain);
    let message = status.message();
    match cause.filter(|cause| !message.ends_with(cause.as_str())) {
        Some(cause) => format!("{message}: {cause}"),
        None => message.to_owned(),
    }
}

fn gone(oldest: Option<u64>) -> String {
    let next = match oldest {
        Some(oldest) => format!("read the state, and watch from generation {oldest}"),
        None => "read the state, and watch from its generation".to_owned(),
    };
    format!("these changes are no longer kept: {next}")
}

impl From<LocateError> for WriteError {
    fn from(error: LocateError) -> Self {
        Self::Locate(Box::new(error))
    }
}

impl From<ReadError> for WriteError {
    fn from(error: ReadError) -> Self {
        Self::Read(Box::new(error))
    }
}
