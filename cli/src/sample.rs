//! A plausible cluster state of any size, to try things on.
//!
//! The same [`Options`] give the same state, byte for byte, on every machine and in every release that has this
//! generator unchanged: it has its own random numbers and its own notion of now ([`BASE_TIME_MILLIS`]).
//!
//! What is plausible about it: one master, workers and a few leechers; some nodes offline, some with GPUs; loads and
//! free memory that leave room; tasks of a few types in every status, whose assignees exist and whose times, errors
//! and progress agree with their status; inputs that are content of the cluster; content with at least one provider, and some of
//! it orphaned. CIDs are well-formed (version 1, base32, SHA-256) of data that nobody has.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray, TimestampMillisecondArray};
use sherwood_client::import::{WriteError, write_parquet_atomic};
use sherwood_shared::schema::{SCHEMA_VERSION, TableId, cluster_schema};
use sherwood_shared::state::{State, StateError};

use self::table::Table;

mod table;

/// The moment every sample was taken: 2026-01-02T03:04:05.678Z.
pub const BASE_TIME_MILLIS: i64 = 1_767_323_045_678;

/// How large, and which, a sample is.
#[derive(Clone, Debug)]
pub struct Options {
    /// Rows of `nodes`.
    pub nodes: usize,
    /// Rows of `tasks`.
    pub tasks: usize,
    /// Rows of `content`.
    pub content: usize,
    /// The cluster's name.
    pub cluster_id: String,
    /// Another seed, another state.
    pub seed: u64,
}

/// Why no sample was made.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// More rows than surely fit: the text of one column is counted with 32 bits.
    #[error("{asked} {} are more than a sample can have: ask for at most {most}", table.name())]
    TooMany {
        /// The table.
        table: TableId,
        /// Rows asked for.
        asked: usize,
        /// Rows there can be.
        most: usize,
    },
    /// The generated tables are no state, which is a bug in the generator.
    #[error("the sample is not a valid state")]
    State(#[from] StateError),
    /// The Parquet file could not be written.
    #[error("the sample's state was not written")]
    Write(#[from] WriteError),
    /// The metadata file, or the directory, could not be written.
    #[error("cannot write {path:?}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
}

/// Makes the state.
///
/// # Errors
///
/// [`SampleError::TooMany`].
pub fn generate(options: &Options) -> Result<State, SampleError> {
    // The most text a row has in one column: four peers, three input CIDs, a CID.
    let asked = [
        (options.nodes, 100),
        (options.tasks, 3 * 59),
        (options.content, 59),
    ];
    for (table, (asked, bytes)) in TableId::ALL.into_iter().zip(asked) {
        let most = (1 << 31) / bytes;
        if asked > most {
            return Err(SampleError::TooMany { table, asked, most });
        }
    }
    let cluster = cluster(options)?;
    let nodes = nodes(options)?;
    let tasks = tasks(options)?;
    let content = content(options)?;
    Ok(State::new(cluster, [nodes, tasks, content])?)
}

/// Writes `state_<cluster_id>.parquet` and, after it, the `state_metadata.json` that names it, into `out_dir`
/// (made if need be). Returns the path of the Parquet file.
///
/// # Errors
///
/// [`SampleError::Write`] and [`SampleError::Io`].
pub fn write(state: &State, out_dir: &Path) -> Result<PathBuf, SampleError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| SampleError::Io { path, source }
    };
    std::fs::create_dir_all(out_dir).map_err(io(out_dir))?;
    let directory = std::fs::canonicalize(out_dir).map_err(io(out_dir))?;
    let parquet = directory.join(format!("state_{}.parquet", state.cluster_id()));
    write_parquet_atomic(state, &parquet)?;

    #[expect(
        clippy::cast_precision_loss,
        reason = "milliseconds of this era are exact in a double"
    )]
    let updated_at = state
        .updated_at_millis()
        .map(|millis| millis as f64 / 1_000.0);
    let metadata = serde_json::json!({
        "cluster_id": state.cluster_id(),
        "version": SCHEMA_VERSION,
        "schema": "sherwood cluster state",
        "updated_at": updated_at,
        "state_path": directory,
        "parquet_path": parquet,
        "node_count": state.table(TableId::Nodes).num_rows(),
        "task_count": state.table(TableId::Tasks).num_rows(),
        "content_count": state.table(TableId::Content).num_rows(),
    });
    let path = directory.join("state_metadata.json");
    std::fs::write(&path, format!("{metadata:#}\n")).map_err(io(&path))?;
    Ok(parquet)
}

fn cluster(options: &Options) -> Result<RecordBatch, StateError> {
    let master = (options.nodes > 0).then(|| node_id(0));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![options.cluster_id.as_str()])),
        Arc::new(StringArray::from(vec![master])),
        Arc::new(TimestampMillisecondArray::from(vec![BASE_TIME_MILLIS])),
    ];
    RecordBatch::try_new(cluster_schema(), columns).map_err(|_| StateError::NoClusterId)
}

const GIB: i64 = 1 << 30;

fn nodes(options: &Options) -> Result<RecordBatch, StateError> {
    let mut t = Table::new(TableId::Nodes);
    for index in 0..options.nodes {
        let mut draw = Draw::new(options.seed, 1, index);
        let role = match index {
            0 => "master",
            _ if draw.one_in(6) => "leecher",
            _ => "worker",
        };
        let online = index == 0 || !draw.one_in(10);
        let gpus = if role != "leecher" && draw.one_in(3) {
            1 << draw.below(4)
        } else {
            0
        };
        let cores = 4 << draw.below(5);
        let memory = (8 << draw.below(6)) * GIB;
        let disk = (100 << draw.below(6)) * GIB;

        t.next("id").text(Some(&node_id(index)));
        t.next("role").text(Some(role));
        t.next("status")
            .text(Some(if online { "online" } else { "offline" }));
        t.next("peers").texts(
            (1..options.nodes.min(5)).map(|step| node_id((index + step * step) % options.nodes)),
        );
        let mut capabilities = vec!["storage"];
        if role != "leecher" {
            capabilities.push("compute");
        }
        if gpus > 0 {
            capabilities.push("gpu");
        }
        t.next("capabilities").texts(capabilities);
        let r = t.next("resources").fields();
        r.next().int32(Some(cores));
        r.next()
            .float32(Some(if online { draw.unit() * 95.0 } else { 0.0 }));
        r.next().int32(Some(gpus));
        r.next().boolean(gpus > 0 && online);
        r.next().int64(memory);
        r.next().int64(draw.part_of(memory));
        r.next().int64(disk);
        r.next().int64(draw.part_of(disk));
        let number = index + 1;
        t.next("address").text(Some(&format!(
            "/ip4/10.0.{}.{}/tcp/4001",
            number / 250 % 250,
            number % 250
        )));
        let silence = if online {
            draw.below(5_000)
        } else {
            60_000 + draw.below(86_400_000)
        };
        t.next("last_seen").time(Some(BASE_TIME_MILLIS - silence));
    }
    t.finish()
}

const TYPES: [&str; 5] = [
    "model_training",
    "data_processing",
    "inference",
    "indexing",
    "replication",
];
const ERRORS: [&str; 3] = [
    "out of memory",
    "input not found: no provider answered",
    "deadline exceeded",
];

fn tasks(options: &Options) -> Result<RecordBatch, StateError> {
    let mut t = Table::new(TableId::Tasks);
    let mut id = String::new();
    for index in 0..options.tasks {
        let mut draw = Draw::new(options.seed, 2, index);
        let kind = draw.index(TYPES.len());
        let status = match draw.below(20) {
            0..=4 => "pending",
            5 => "assigned",
            6..=8 => "running",
            9..=17 => "completed",
            _ => "failed",
        };
        let finished = matches!(status, "completed" | "failed");
        let started = finished || status == "running";
        let created = BASE_TIME_MILLIS - 600_000 - draw.below(7 * 86_400_000);
        let started_at = started.then(|| created + draw.below(60_000));
        let completed_at = started_at
            .filter(|_| finished)
            .map(|at| at + 1_000 + draw.below(500_000));
        let assigned = status != "pending" && options.nodes > 0;

        id.clear();
        // Cannot fail: the target is a string.
        let _ = write!(id, "task-{index:010}");
        t.next("id").text(Some(&id));
        t.next("type").text(Some(TYPES[kind]));
        t.next("status").text(Some(status));
        t.next("created_at").time(Some(created));
        t.next("updated_at")
            .time(completed_at.or(started_at).or(Some(created)));
        // The master leads, the others work.
        let assignee = assigned.then(|| {
            node_id(draw.index(options.nodes.saturating_sub(1)) + usize::from(options.nodes > 1))
        });
        t.next("assigned_to").text(assignee.as_deref());
        let r = t.next("resources").fields();
        r.next().int32(Some(1 << draw.below(4)));
        r.next()
            .int32(Some(if kind == 0 { 1 << draw.below(2) } else { 0 }));
        r.next().int32(Some(256 << draw.below(6)));
        let inputs = if options.content > 0 {
            1 + draw.below(3)
        } else {
            0
        };
        let inputs: Vec<String> = (0..inputs)
            .map(|_| content_cid(options.seed, draw.index(options.content)))
            .collect();
        let output =
            (status == "completed").then(|| cid(RAW, &mut Draw::new(options.seed, 4, index)));
        t.next("input_cid").text(inputs.first().map(String::as_str));
        t.next("output_cid").text(output.as_deref());
        t.next("input_cids").texts(&inputs);
        t.next("output_cids").texts(output.iter());
        t.next("started_at").time(started_at);
        t.next("completed_at").time(completed_at);
        t.next("error")
            .text((status == "failed").then(|| ERRORS[draw.index(ERRORS.len())]));
        t.next("priority").int32(
            draw.one_in(4)
                .then(|| i32::try_from(draw.below(10)).unwrap_or(0)),
        );
        t.next("progress").float32(match status {
            "completed" => Some(1.0),
            "running" | "failed" => Some(draw.unit()),
            _ => None,
        });
    }
    t.finish()
}

fn content(options: &Options) -> Result<RecordBatch, StateError> {
    let mut t = Table::new(TableId::Content);
    for index in 0..options.content {
        let mut draw = Draw::new(options.seed, 3, index);
        t.next("cid").text(Some(&content_cid(options.seed, index)));
        // From a KiB to some GiB, every order of magnitude as often.
        let size = 1_i64 << (10 + draw.below(22));
        t.next("size").int64(size + draw.below(size));
        t.next("created_at")
            .time(Some(BASE_TIME_MILLIS - draw.below(90 * 86_400_000)));
        let wanted = 1 + draw.below(3);
        let providers = usize::try_from(wanted).unwrap_or(1).min(options.nodes);
        let first = draw.index(options.nodes);
        t.next("providers")
            .texts((0..providers).map(|step| node_id((first + step) % options.nodes)));
        t.next("pinned").boolean(!draw.one_in(3));
        t.next("replication")
            .int32(Some(i32::try_from(wanted).unwrap_or(1)));
    }
    t.finish()
}

fn node_id(index: usize) -> String {
    format!("node-{index:05}")
}

/// A file's root, as `ipfs add` makes it.
const DAG_PB: u8 = 0x70;
/// A block of bytes.
const RAW: u8 = 0x55;

/// The CID of a content item can be told from its index: tasks name items that the content table will hold.
fn content_cid(seed: u64, index: usize) -> String {
    let mut draw = Draw::new(seed, 5, index);
    let codec = if draw.one_in(3) { RAW } else { DAG_PB };
    cid(codec, &mut draw)
}

/// Version 1, codec, SHA2-256, 32 bytes that might be a digest.
fn cid(codec: u8, draw: &mut Draw) -> String {
    let mut bytes = [0_u8; 36];
    bytes[..4].copy_from_slice(&[1, codec, 0x12, 32]);
    for word in bytes[4..].chunks_exact_mut(8) {
        word.copy_from_slice(&draw.next().to_le_bytes());
    }
    multibase(&bytes)
}

/// Base32 without padding, after its prefix.
fn multibase(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(1 + bytes.len().div_ceil(5) * 8);
    text.push('b');
    let (mut bits, mut count) = (0_u32, 0);
    for &byte in bytes {
        bits = bits << 8 | u32::from(byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            text.push(base32(bits >> count));
        }
        bits &= (1 << count) - 1;
    }
    if count > 0 {
        text.push(base32(bits << (5 - count)));
    }
    text
}

fn base32(bits: u32) -> char {
    char::from(b"abcdefghijklmnopqrstuvwxyz234567"[(bits & 31) as usize])
}

/// Random numbers of one row (SplitMix64): a row does not depend on how many there are before it.
struct Draw(u64);

impl Draw {
    fn new(seed: u64, stream: u64, index: usize) -> Self {
        let mut draw = Draw(seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95));
        let start = draw.next() ^ index as u64;
        Draw(start)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// From 0 to below `end`; 0 if that is not positive.
    fn below(&mut self, end: i64) -> i64 {
        let end = u128::try_from(end).unwrap_or(0);
        // The high half of a 64 by 64 bit product is below its one factor.
        i64::try_from((u128::from(self.next()) * end) >> 64).unwrap_or(0)
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(i64::try_from(len).unwrap_or(i64::MAX))).unwrap_or(0)
    }

    fn one_in(&mut self, n: i64) -> bool {
        self.below(n) == 0
    }

    fn unit(&mut self) -> f32 {
        #[expect(clippy::cast_precision_loss, reason = "below 2^24")]
        let numerator = self.below(1 << 24) as f32;
        numerator / (1 << 24) as f32
    }

    /// Between a tenth and nine tenths of it.
    fn part_of(&mut self, whole: i64) -> i64 {
        whole / 10 + self.below(whole / 10 * 8)
    }
}

#[cfg(test)]
mod tests;
