//! Changes, from a generation on, as they become durable and visible.
//!
//! A watcher is given what the log holds, not what it was told in time: it can be as slow as it likes without costing
//! memory, and comes back after any restart.
//!
//! - **H1** Exactly once, in order: every commit above `from`, by growing generation, without a gap. What cannot be
//!   given so ends the stream with OUT_OF_RANGE and `gone, read from N`: read the tables, and watch from their generation.
//! - **H2** A commit is shown once it is durable and published, never before.
//! - **H3** A commit that is too large for one message comes in several; all but the last say `"more": true`.
//! - **H4** A watcher that takes nothing for [`Limits::slow_watcher`](super::limits::Limits), while there is something to
//!   take, is cut off in the same way; N is then the generation up to which it has everything.
//! - **H5** At most a few watchers read the log at once, and a large commit that waits for its watcher is charged to him
//!   like a request, with at most half of what he could get. While there is no room for it, it is not kept: it is read
//!   again later.
//! - **H6** A watcher of some tables is told every [`Limits::watch_progress`](super::limits::Limits) how far it is, by a
//!   line without operations, if what happened since its last line was not for it.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::Result as ActionResult;
use futures::{Stream, StreamExt, stream};
use serde::Deserialize;
use sherwood_shared::schema::TableId;
use sherwood_shared::transaction::Target;
use sherwood_store::entry::{Entry, TableEffects};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::json::{push_row, push_text};
use super::quota::Held;
use super::server::{Shared, told};
use super::service::{FlightService, cut};

/// Bytes of JSON after which a message is sent.
const MESSAGE_BYTES: usize = 64 << 10;

/// Watchers that read the log at once (H5).
pub(super) const READERS: usize = 4;

/// How often a watcher asks again for room for a large commit.
const ROOM: Duration = Duration::from_millis(50);

/// What is durable and visible to every reader: said by the engine after each commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// The log's last sequence.
    pub sequence: u64,
    /// The published generation.
    pub generation: u64,
}

impl Announced {
    /// For a server that serves no watches.
    #[must_use]
    pub fn never() -> watch::Receiver<Self> {
        watch::channel(Self::default()).1
    }
}

/// Where commits can be read again.
pub trait ChangeSource: Send + Sync {
    /// Reads from the first commit above `generation` on. May block.
    fn follow(&self, generation: u64) -> Result<Box<dyn Changes>, ChangeError>;
}

/// Commits one after the other.
pub trait Changes: Send {
    /// The next one, up to and with the sequence `through`. `None`: there is none yet. May block.
    fn next(&mut self, through: u64) -> Result<Option<Entry>, ChangeError>;
}

/// Why there are no changes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// The log does not reach back that far.
    #[error("the log begins after generation {oldest}")]
    Gone {
        /// From this generation on it can be followed.
        oldest: u64,
    },
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

impl From<ChangeError> for Status {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Gone { oldest } => gone(oldest, "the log does not reach back that far"),
            ChangeError::Failed(_) => Status::data_loss(crate::log::chain(&error)),
        }
    }
}

fn gone(from: u64, why: &str) -> Status {
    Status::out_of_range(format!("gone, read from {from}: {why}"))
}

/// What a watcher asks for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// Changes above this generation; left out: from now on.
    pub from: Option<u64>,
    /// Of these tables alone.
    pub tables: Option<Vec<String>>,
}

impl Wish {
    /// Reads the action's body.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        let wish: Self = serde_json::from_slice(body).map_err(|error| {
            format!(
                "the body is not as it should be: {}",
                cut(&error.to_string())
            )
        })?;
        wish.filter()?;
        Ok(wish)
    }

    fn filter(&self) -> Result<Filter, String> {
        let Some(names) = &self.tables else {
            return Ok(Filter {
                cluster: true,
                tables: [true; 3],
            });
        };
        let mut filter = Filter {
            cluster: false,
            tables: [false; 3],
        };
        for name in names {
            match TableId::ALL
                .into_iter()
                .position(|table| table.name() == name)
            {
                Some(at) => filter.tables[at] = true,
                None if name == Target::Cluster.name() => filter.cluster = true,
                None => {
                    return Err(format!(
                        "there is no table {:?}; there are cluster, nodes, tasks and content",
                        cut(name)
                    ));
                }
            }
        }
        Ok(filter)
    }
}

#[derive(Clone, Copy)]
struct Filter {
    cluster: bool,
    tables: [bool; 3],
}

impl Filter {
    fn of(self, table: Target) -> bool {
        match table {
            Target::Cluster => self.cluster,
            Target::Table(table) => self.tables[table as usize],
        }
    }
}

/// One commit on its way to a watcher.
struct Pieces {
    entry: Entry,
    filter: Filter,
    at: At,
    /// The charge of a large one.
    _held: Option<Held>,
}

/// What comes next of a commit: the table, its upsert batch, the row in it; behind the batches, the deletion.
#[derive(Clone, Copy, Debug, Default)]
struct At {
    table: usize,
    batch: usize,
    row: usize,
}

impl Pieces {
    fn new(entry: Entry, filter: Filter, held: Option<Held>) -> Self {
        Self {
            entry,
            filter,
            at: At::default(),
            _held: held,
        }
    }

    /// The next message, and whether it is the last. `None`: there is nothing (more) to tell.
    fn next(&mut self) -> Option<(String, bool)> {
        let mut ops = String::new();
        while ops.len() < MESSAGE_BYTES && self.push_op(&mut ops) {}
        if ops.is_empty() {
            return None;
        }
        let mut rest = String::new();
        let before = self.at;
        let more = self.push_op(&mut rest);
        self.at = before;
        let (generation, at) = (self.entry.generation, self.entry.committed_at_ms);
        let more_field = if more { ",\"more\":true" } else { "" };
        let line =
            format!("{{\"generation\":{generation},\"at\":{at},\"ops\":[{ops}]{more_field}}}\n");
        Some((line, !more))
    }

    /// False: that was all.
    fn push_op(&mut self, out: &mut String) -> bool {
        const NONE: &TableEffects = &TableEffects {
            upserts: Vec::new(),
            delete: Vec::new(),
        };
        loop {
            let At { table, batch, row } = self.at;
            let target = match table {
                0 => Target::Cluster,
                other => match TableId::ALL.get(other - 1) {
                    Some(table) => Target::Table(*table),
                    None => return false,
                },
            };
            let effects = &self.entry.effects;
            let (upserts, delete) = match target {
                Target::Cluster => (effects.cluster.as_slice(), &NONE.delete),
                Target::Table(table) => {
                    let effects = effects.tables.get(table as usize).unwrap_or(NONE);
                    (&effects.upserts[..], &effects.delete)
                }
            };
            if !self.filter.of(target) {
                self.at = At {
                    table: table + 1,
                    ..At::default()
                };
                continue;
            }
            if let Some(rows) = upserts.get(batch) {
                if row >= rows.num_rows() {
                    self.at = At {
                        table,
                        batch: batch + 1,
                        row: 0,
                    };
                    continue;
                }
                separate(out);
                out.push_str("{\"put\":");
                push_text(out, target.name());
                out.push_str(",\"row\":");
                push_row(out, rows, row);
                out.push('}');
            } else if let Some(key) = delete.get(row) {
                separate(out);
                out.push_str("{\"delete\":");
                push_text(out, target.name());
                out.push_str(",\"key\":");
                push_text(out, key);
                out.push('}');
            } else {
                self.at = At {
                    table: table + 1,
                    ..At::default()
                };
                continue;
            }
            self.at.row += 1;
            return true;
        }
    }
}

fn separate(out: &mut String) {
    if !out.is_empty() {
        out.push(',');
    }
}

/// Bytes of a commit in memory.
fn bytes_of(entry: &Entry) -> usize {
    let tables = entry.effects.tables.iter();
    let tables = tables.map(|table| {
        let upserts: usize = table
            .upserts
            .iter()
            .map(|rows| rows.get_array_memory_size())
            .sum();
        let keys: usize = table.delete.iter().map(|key| key.len() + 24).sum();
        upserts + keys
    });
    tables.sum()
}

/// Begins a watch.
pub(super) async fn watch_changes(
    service: &FlightService,
    body: &[u8],
) -> Result<impl Stream<Item = Result<ActionResult, Status>> + use<>, Status> {
    service.check_read()?;
    let wish = Wish::parse(body).map_err(Status::invalid_argument)?;
    let filter = wish.filter().map_err(Status::invalid_argument)?;
    let shared = Arc::clone(&service.shared);
    let (Some(source), announced) = (shared.changes.clone(), shared.announced.clone()) else {
        return Err(Status::unimplemented("this daemon keeps no log to watch"));
    };
    let place = shared.watches.take(service.peer.uid, 1).ok_or_else(|| {
        Status::resource_exhausted("there are as many watches as this user may have now; end one")
    })?;
    let newest = announced.borrow().generation;
    let from = wish.from.unwrap_or(newest);
    if from > newest {
        // Not of this history: what was acknowledged had been published.
        return Err(gone(newest, "that generation has not been published here"));
    }
    let changes = follow(&source, from).await?;
    let (sender, messages) = mpsc::channel(1);
    let (ending, ended) = oneshot::channel();
    let watcher = Watcher {
        shared,
        uid: service.peer.uid,
        filter,
        announced,
        source,
        changes: Some(changes),
        delivered: from,
        delivered_at_ms: 0,
        told: from,
        told_at: Instant::now(),
        sender,
        _place: place,
    };
    tokio::spawn(async move {
        let status = watcher.run().await;
        let _the_client_has_gone = ending.send(status);
    });
    let ended = stream::once(ended).filter_map(|status| async { status.ok().flatten().map(Err) });
    let messages =
        ReceiverStream::new(messages).map(|line: String| Ok(ActionResult { body: line.into() }));
    Ok(messages.chain(ended))
}

async fn follow(source: &Arc<dyn ChangeSource>, from: u64) -> Result<Box<dyn Changes>, Status> {
    let source = Arc::clone(source);
    let followed = tokio::task::spawn_blocking(move || source.follow(from)).await;
    Ok(followed.map_err(|error| Status::internal(error.to_string()))??)
}

fn stopping() -> Status {
    Status::unavailable("the daemon is stopping; watch again from the last generation")
}

/// One watch that runs.
struct Watcher {
    shared: Arc<Shared>,
    uid: u32,
    filter: Filter,
    announced: watch::Receiver<Announced>,
    source: Arc<dyn ChangeSource>,
    /// None while another thread reads.
    changes: Option<Box<dyn Changes>>,
    /// The client has everything up to this generation.
    delivered: u64,
    /// When that was committed.
    delivered_at_ms: i64,
    /// The generation of its last line, and when it was sent (H6).
    told: u64,
    told_at: Instant,
    sender: mpsc::Sender<String>,
    _place: Held,
}

impl Watcher {
    /// Until the client goes (`None`) or there is a reason to end.
    async fn run(mut self) -> Option<Status> {
        match self.watch().await {
            Ok(never) => match never {},
            Err(ending) => ending,
        }
    }

    async fn watch(&mut self) -> Result<Infallible, Option<Status>> {
        let mut stop = self.shared.stop.clone();
        loop {
            let next_word = self.told_at + self.shared.limits.watch_progress;
            let is_ahead = self.delivered > self.told;
            if is_ahead && next_word <= Instant::now() {
                let (generation, at) = (self.delivered, self.delivered_at_ms);
                self.send(format!(
                    "{{\"generation\":{generation},\"at\":{at},\"ops\":[]}}\n"
                ))
                .await?;
                self.told = generation;
            }
            let through = self.announced.borrow_and_update().sequence;
            if let Some(pieces) = self.next(through).await? {
                self.deliver(pieces).await?;
                continue;
            }
            tokio::select! {
                changed = self.announced.changed() => if changed.is_err() {
                    return Err(Some(stopping()));
                },
                () = told(&mut stop) => return Err(Some(stopping())),
                () = self.sender.closed() => return Err(None),
                () = sleep_until(next_word), if self.delivered > self.told => {}
            }
        }
    }

    /// H5.
    async fn next(&mut self, through: u64) -> Result<Option<Pieces>, Option<Status>> {
        let mut held = None;
        loop {
            let Some(entry) = self.read(through).await.map_err(Some)? else {
                return Ok(None);
            };
            let bytes = bytes_of(&entry);
            if bytes <= MESSAGE_BYTES {
                return Ok(Some(Pieces::new(entry, self.filter, None)));
            }
            let charge = bytes.min(self.shared.bytes.share() / 2);
            held = held.or_else(|| self.shared.bytes.take(self.uid, charge));
            if held.is_some() {
                return Ok(Some(Pieces::new(entry, self.filter, held)));
            }
            drop(entry);
            held = Some(self.room(charge).await?);
            let again = follow(&self.source, self.delivered).await;
            self.changes = Some(again.map_err(Some)?);
        }
    }

    /// The next commit that changes something.
    async fn read(&mut self, through: u64) -> Result<Option<Entry>, Status> {
        let permit = self.shared.log_readers.clone().acquire_owned().await;
        let _permit = permit.map_err(|error| Status::internal(error.to_string()))?;
        let Some(mut changes) = self.changes.take() else {
            return Err(Status::internal("the log's reader is lost"));
        };
        let read = tokio::task::spawn_blocking(move || {
            let read = loop {
                match changes.next(through) {
                    // Outcomes alone (E4).
                    Ok(Some(entry)) if entry.effects.is_empty() => {}
                    other => break other,
                }
            };
            (read, changes)
        });
        let (read, changes) = read
            .await
            .map_err(|error| Status::internal(error.to_string()))?;
        self.changes = Some(changes);
        Ok(read?)
    }

    /// H4, for a large commit.
    async fn room(&mut self, bytes: usize) -> Result<Held, Option<Status>> {
        let mut stop = self.shared.stop.clone();
        let wait = async {
            loop {
                sleep(ROOM).await;
                if let Some(held) = self.shared.bytes.take(self.uid, bytes) {
                    return held;
                }
            }
        };
        tokio::select! {
            held = timeout(self.shared.limits.slow_watcher, wait) => held.map_err(|_| {
                Some(gone(
                    self.delivered,
                    "there is no room for a large commit; watch again later",
                ))
            }),
            () = told(&mut stop) => Err(Some(stopping())),
            () = self.sender.closed() => Err(None),
        }
    }

    async fn deliver(&mut self, mut pieces: Pieces) -> Result<(), Option<Status>> {
        let generation = pieces.entry.generation;
        while let Some((line, is_last)) = pieces.next() {
            self.send(line).await?;
            if is_last {
                self.told = generation;
                break;
            }
        }
        self.delivered = generation;
        self.delivered_at_ms = pieces.entry.committed_at_ms;
        Ok(())
    }

    /// The error: how the stream ends (H4).
    async fn send(&mut self, line: String) -> Result<(), Option<Status>> {
        let most = self.shared.limits.slow_watcher;
        let mut stop = self.shared.stop.clone();
        let sent = tokio::select! {
            sent = self.sender.send_timeout(line, most) => sent,
            () = told(&mut stop) => return Err(Some(stopping())),
        };
        self.told_at = Instant::now();
        sent.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Closed(_) => None,
            mpsc::error::SendTimeoutError::Timeout(_) => {
                let why = format!("nothing was taken for {} s", most.as_secs());
                Some(gone(self.delivered, &why))
            }
        })
    }
}

/// As many as may read the log at once.
pub(super) fn readers() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(READERS))
}
