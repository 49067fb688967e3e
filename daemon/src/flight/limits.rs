//! What one client, one user and all together may ask for: every limit and its default.
//!
//! The daemon's memory besides the snapshot file is to stay within 64 MiB and a tenth of the state, under load
//! too. So what clients have under way shares one budget, [`Limits::request_bytes`], of which one user gets two thirds
//! (FQ2): a little more than 50 MiB. The largest single requests are made to fit that: JSON takes eight times its text once
//! parsed, rows twice their bytes while they are put together.

use std::time::Duration;

/// The limits of the way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of all users together; one user gets at most two thirds (FQ2).
    pub connections: usize,
    /// Calls at once on one connection. More wait at the client, as HTTP/2 has it.
    pub calls_per_connection: u32,
    /// Transactions under way in one exchange. More wait in the socket.
    pub pipelined: usize,
    /// Bytes that all requests under way may hold: received parts as they are, parsed JSON as
    /// [`JSON_FACTOR`] times its text.
    pub request_bytes: usize,
    /// Bytes of one transaction as JSON.
    pub json_bytes: usize,
    /// Operations of one transaction.
    pub transaction_ops: usize,
    /// Rows of one bulk transaction.
    pub bulk_rows: usize,
    /// Bytes of one bulk transaction, as received.
    pub bulk_bytes: usize,
    /// Watches of all users together; one user gets at most two thirds (FQ2).
    pub watches: usize,
    /// How long the engine may take to answer, before the answer is "unknown".
    pub answer: Duration,
    /// How long a started message may take to arrive whole, and a call to send its first.
    pub stall: Duration,
    /// How long a new connection may be without a call.
    pub first_call: Duration,
    /// How long a watcher may leave a change untaken.
    pub slow_watcher: Duration,
    /// How often a watcher of some tables is told how far it is, while nothing happens to them.
    pub watch_progress: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            calls_per_connection: 128,
            pipelined: 64,
            request_bytes: 76 << 20,
            json_bytes: 4 << 20,
            transaction_ops: 10_000,
            bulk_rows: 1_000_000,
            bulk_bytes: 24 << 20,
            watches: 256,
            answer: Duration::from_secs(30),
            stall: Duration::from_secs(60),
            first_call: Duration::from_secs(30),
            slow_watcher: Duration::from_secs(30),
            watch_progress: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// Bytes of one message: whatever is the larger of the two kinds, and its wrapping.
    pub(super) fn message_bytes(&self) -> usize {
        self.json_bytes
            .max(self.bulk_bytes)
            .saturating_add(64 << 10)
    }
}

/// Parsed JSON takes about so many times the bytes of its text: a value is 32 bytes, an object's entry 100.
pub const JSON_FACTOR: usize = 8;

/// Rows in bulk take so many times their bytes while they are received and put together.
pub const BULK_FACTOR: usize = 2;

/// What a request costs beside its bytes: its channel, its closure, its place in queues.
pub(super) const REQUEST_OVERHEAD: usize = 1024;

/// Bytes of a question: of whatever is no transaction and no rows.
pub(super) const QUESTION_BYTES: usize = 64 << 10;

/// Data that a stream and a connection may have sent before it is read. Over a Unix socket a window costs tens
/// of microseconds to reopen, so small ones are quick enough; all connections together may fill theirs.
pub(super) const STREAM_WINDOW: u32 = 128 << 10;
/// See [`STREAM_WINDOW`].
pub(super) const CONNECTION_WINDOW: u32 = 256 << 10;
/// Bytes of one HTTP/2 frame.
pub(super) const FRAME_BYTES: u32 = 32 << 10;
/// Bytes that wait to be sent on one stream.
pub(super) const SEND_BUFFER: usize = 128 << 10;
/// Bytes of a call's headers.
pub(super) const HEADER_BYTES: u32 = 16 << 10;
/// How often a peer is asked for a sign of life, and how long it may take: a header that never ends holds its
/// connection no longer than both.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(60);
