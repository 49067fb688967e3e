//! A call's incoming bytes, counted before anybody keeps them.
//!
//! A message is held in memory until it is whole, so a client that announces a large one and sends it slowly, or many
//! at once, would fill the daemon. Here, below gRPC's own decoder, each message's length is read as it passes:
//!
//! - **FY1** A message is charged to its user's share of [`Limits::request_bytes`](super::limits::Limits) when its
//!   length is known, before its bytes are taken, and until the next one begins or the call's bytes end. Whoever works
//!   on it longer charges it himself.
//! - **FY2** A message that has begun must be whole within [`Limits::stall`](super::limits::Limits).
//! - **FY3** A call that its client takes back has not ended: else the half of a bulk transaction would be taken for
//!   the whole. (hyper and tonic, each for one kind of reset, call it the end of the bytes.)
//!
//! Breaking any of them ends the call with a status that says so.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use hyper::body::{Bytes, Incoming};
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;

use super::quota::{Held, Quota};

/// The prefix of a gRPC message: a flag, and the length in four bytes, big-endian.
const PREFIX: usize = 5;

/// How long a call may wait for its next message, once the one before it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Between {
    /// As long as a message may take (FY2).
    Stall,
    /// For ever.
    Idle,
}

/// The bytes of one call.
pub(super) struct Counted {
    inner: Incoming,
    quota: Arc<Quota>,
    uid: u32,
    held: Option<Held>,
    /// Of the prefix that is being read.
    prefix: [u8; PREFIX],
    prefix_len: usize,
    /// Bytes of the current message that have not come yet.
    missing: usize,
    largest: usize,
    between: Between,
    stall: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// Is the timer running for what is waited for now?
    armed: bool,
}

impl Counted {
    pub(super) fn new(
        inner: Incoming,
        quota: Arc<Quota>,
        uid: u32,
        largest: usize,
        between: Between,
        stall: Duration,
    ) -> Self {
        Self {
            inner,
            quota,
            uid,
            held: None,
            prefix: [0; PREFIX],
            prefix_len: 0,
            missing: 0,
            largest,
            between,
            stall,
            timer: None,
            armed: false,
        }
    }

    /// FY1: follows the messages through `bytes`.
    fn follow(&mut self, mut bytes: &[u8]) -> Result<(), Status> {
        while !bytes.is_empty() {
            if self.missing > 0 {
                let taken = self.missing.min(bytes.len());
                self.missing -= taken;
                bytes = bytes.get(taken..).unwrap_or_default();
                continue;
            }
            if self.prefix_len == 0 {
                self.held = None;
                self.armed = false;
            }
            let (Some(slot), Some((&byte, rest))) =
                (self.prefix.get_mut(self.prefix_len), bytes.split_first())
            else {
                return Ok(());
            };
            *slot = byte;
            bytes = rest;
            self.prefix_len += 1;
            if self.prefix_len == PREFIX {
                self.prefix_len = 0;
                let [_, a, b, c, d] = self.prefix;
                let len = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
                // The decoder says it better, and takes none of it.
                if len <= self.largest {
                    self.held = Some(self.quota.take(self.uid, len).ok_or_else(|| busy(len))?);
                }
                self.missing = len;
            }
        }
        Ok(())
    }

    fn is_between(&self) -> bool {
        self.missing == 0 && self.prefix_len == 0
    }

    /// FY2.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        if self.is_between() && self.between == Between::Idle {
            self.armed = false;
            return Poll::Pending;
        }
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep(self.stall)));
        if !self.armed {
            timer.as_mut().reset(Instant::now() + self.stall);
            self.armed = true;
        }
        timer.as_mut().poll(cx).map(|()| {
            Status::deadline_exceeded(format!(
                "no whole message came within {} s; nothing of it was done",
                self.stall.as_secs()
            ))
        })
    }
}

/// FY3. Not "cancelled": tonic's decoder takes that for the end of the stream.
fn broken_off(why: impl std::fmt::Display) -> Status {
    Status::aborted(format!("the call was broken off: {why}"))
}

/// The budget is used up.
pub(super) fn busy(bytes: usize) -> Status {
    Status::resource_exhausted(format!(
        "the daemon has no room for {bytes} more bytes of requests of this user now; nothing was done: send it again later, or in smaller parts"
    ))
}

impl Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(polled) => polled,
            Poll::Pending => {
                let status = ready!(self.poll_stall(cx));
                return Poll::Ready(Some(Err(status)));
            }
        };
        match polled {
            Some(Ok(frame)) => {
                let followed = frame.data_ref().map_or(Ok(()), |bytes| self.follow(bytes));
                Poll::Ready(Some(followed.map(|()| frame)))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(broken_off(error)))),
            None => {
                self.held = None;
                if self.inner.is_end_stream() {
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Err(broken_off("the client took it back"))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
