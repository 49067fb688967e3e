//! What the fuzz targets do with any bytes at all, and the seeds they begin with.
//!
//! The targets in `fuzz/` and the replay of the corpus in `tests/corpus.rs` call the same functions: whatever fuzzing
//! finds becomes a file in `tests/corpus/<target>/`, and from then on a test. Each function returns for every input; a
//! panic, a signal or a contradiction (checked here) is a find.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use arrow_array::RecordBatch;
use arrow_buffer::{Buffer, MutableBuffer};
use sherwood_client::Snapshot;
use sherwood_client::filter::Filter;
use sherwood_client::import;
use sherwood_client::locate::Metadata;
use sherwood_daemon::engine::Request;
use sherwood_daemon::flight::{self, Limits};
use sherwood_shared::batch::{BatchDecoder, BatchEncoder, BlockAt};
use sherwood_shared::footer;
use sherwood_shared::index::{self, ChunkEntry, PartIndex};
use sherwood_shared::layout::{CONSTANTS_BYTES, Constants};
use sherwood_shared::received;
use sherwood_shared::root::{PartRoot, Root, TableRoot};
use sherwood_shared::schema::{TableId, table_schema};
use sherwood_shared::transaction::{Answer, DomainOp, Transaction};
use sherwood_store::{Effects, Entry, Outcome, Verdict, log};

use crate::daemon::{parquet as parquet_of, state_with_tasks};

/// A target: any bytes in, nothing out.
pub type Target = fn(&[u8]);

/// Every target, by its name.
pub const TARGETS: [(&str, Target); 9] = [
    ("header", header),
    ("root", root),
    ("index", part_index),
    ("chunk", chunk),
    ("parquet", parquet),
    ("metadata", metadata),
    ("filter", filter),
    ("action", action),
    ("log", log),
];

/// The constants of a header, which are what they were once they parse.
pub fn header(bytes: &[u8]) {
    let Some(first) = bytes.first_chunk::<{ CONSTANTS_BYTES + 4 }>() else {
        return;
    };
    if let Ok(constants) = Constants::from_bytes(first) {
        let again = Constants::from_bytes(&constants.to_bytes());
        assert_eq!(again, Ok(constants));
    }
}

/// A root record and what is reached from it. The checksum is mended, so that what is behind it is reached too.
pub fn root(bytes: &[u8]) {
    let _refused_by_its_checksum = Root::parse(bytes);
    let mut mended = bytes.to_vec();
    if let Some(len) = mended.get(4..8).and_then(|len| len.try_into().ok()) {
        let len = usize::try_from(u32::from_le_bytes(len)).unwrap_or(usize::MAX);
        if (12..=mended.len()).contains(&len) {
            mended[8..12].fill(0);
            let sum = crc32c::crc32c(&mended[..len]);
            mended[8..12].copy_from_slice(&sum.to_le_bytes());
        }
    }
    if let Ok(root) = Root::parse(&mended) {
        let mut again = Vec::new();
        root.append(&mut again);
        assert_eq!(Root::parse(&again), Ok(root));
    }
    let _damaged = footer::parse(bytes);
}

/// A part's index: the first byte is the number of chunks that the root claims.
pub fn part_index(bytes: &[u8]) {
    let Some((&claimed, rest)) = bytes.split_first() else {
        return;
    };
    let Ok(index) = PartIndex::parse(&aligned(rest), claimed.into()) else {
        return;
    };
    for chunk in 0..index.len() + 2 {
        let _none_behind_the_last = (index.block(chunk), chunk < index.len());
        if chunk < index.len() {
            let _any_number = (index.rows(chunk), index.rows_before(chunk));
        }
    }
    for key in [
        "",
        "a",
        "task-0000007",
        "\u{10FFFF}",
        "task-0000007-and-more",
    ] {
        for first_key in ["", "task-0000000", "z"] {
            let found = index.candidates(key, first_key);
            assert!(
                found.chunks.end <= index.len(),
                "{found:?} of {}",
                index.len()
            );
        }
    }
}

/// A chunk of the tasks table: the first two bytes say how much of it is metadata, in steps of eight.
pub fn chunk(bytes: &[u8]) {
    let Some((&[low, high], block)) = bytes.split_first_chunk() else {
        return;
    };
    let decoder = BatchDecoder::new(table_schema(TableId::Tasks));
    let meta_bytes = u32::from(u16::from_le_bytes([low, high])) * 8;
    if let Ok(batch) = decoder.decode_checked(&aligned(block), meta_bytes) {
        for column in batch.columns() {
            column.to_data().validate_full().expect("checked, so valid");
        }
    }
}

/// A Parquet state, which reads back equal once it is one.
pub fn parquet(bytes: &[u8]) {
    let read = |bytes: Vec<u8>| import::read_parquet_bytes(bytes, Path::new("fuzzed"), None).ok();
    if let Some(state) = read(bytes.to_vec())
        && let Ok(written) = import::to_parquet_bytes(&state)
    {
        assert_eq!(read(written).expect("what we wrote"), state);
    }
}

/// Metadata, and each thing one can ask of it.
pub fn metadata(bytes: &[u8]) {
    if let Ok(metadata) = Metadata::parse(PathBuf::from("/s/state_metadata.json"), bytes) {
        let _each_is_an_answer = (
            metadata.cluster_id(),
            metadata.parquet_path(),
            metadata.snapshot_path(),
        );
    }
}

/// A filter, on each table that it fits: the table's filtered rows are those that the masks accept.
pub fn filter(bytes: &[u8]) {
    static SNAPSHOT: OnceLock<Option<Snapshot>> = OnceLock::new();
    let snapshot =
        SNAPSHOT.get_or_init(|| Snapshot::from_state(&state_with_tasks("c", 20, 0)).ok());
    let Some(snapshot) = snapshot else { return };
    let text = String::from_utf8_lossy(bytes);
    let filter = match Filter::parse(&text) {
        Ok(filter) => filter,
        Err(error) => {
            let _shown = (error.to_string(), error.pointer(), error.character());
            return;
        }
    };
    for table in TableId::ALL.map(|id| snapshot.table(id)) {
        let Ok(schema) = table.schema() else { return };
        let Ok(filter) = filter.bind(&schema) else {
            continue;
        };
        let accepted = |batch: RecordBatch| filter.mask(&batch).expect("its schema").true_count();
        let masked: usize = table.batches().flatten().map(accepted).sum();
        let filtered = table.filter(&filter).map(|batch| batch.expect("reads"));
        let filtered: usize = filtered.map(|batch| batch.num_rows()).sum();
        assert_eq!(filtered, masked, "{text:?} of {}", table.id().name());
    }
}

/// What stands in a log: headers, and entries, which read back equal once they are some.
pub fn log(bytes: &[u8]) {
    log::fuzzing::read(bytes);
}

/// What a client may send to the way in: each kind of body, command and message; what is one is written as it was read.
pub fn action(bytes: &[u8]) {
    let limits = Limits::default();
    let actions = DomainOp::ACTIONS.into_iter().chain(["transaction"]);
    let parsed = actions.map(|action| flight::parse(action, bytes, &limits));
    for request in parsed.chain([flight::parse_message(bytes, &limits)]) {
        match request {
            Ok(Request::Transaction(transaction)) => {
                let again = Transaction::from_json(transaction.to_json().as_bytes());
                assert_eq!(again.expect("what we wrote"), transaction);
            }
            Ok(Request::Domain { id, op }) => {
                let again = DomainOp::from_object(op.action(), op.body(id.as_deref()));
                assert_eq!(again.expect("what we wrote"), (id, op));
            }
            Ok(_) => {}
            Err(answer) => {
                let again = Answer::from_json(answer.to_json().as_bytes());
                assert_eq!(again.expect("what we wrote"), answer);
            }
        }
    }
    let _each_is_an_answer = (flight::parse_command(bytes), flight::Wish::parse(bytes));
    // A message as DoPut has it: the first two bytes say how much of it is metadata.
    if let Some((&[low, high], rest)) = bytes.split_first_chunk() {
        let split = usize::from(u16::from_le_bytes([low, high])).min(rest.len());
        let (message, body) = rest.split_at(split);
        let _either = received::schema(message);
        let schema = table_schema(TableId::Tasks);
        if let Ok(batch) = received::batch(&schema, message, aligned(body)) {
            for column in batch.columns() {
                column.to_data().validate_full().expect("checked, so valid");
            }
        }
    }
}

fn aligned(bytes: &[u8]) -> Buffer {
    let mut buffer = MutableBuffer::new(bytes.len());
    buffer.extend_from_slice(bytes);
    buffer.into()
}

/// The seeds of a target: good inputs, and each with a few plain kinds of damage. The same at every call.
///
/// # Panics
///
/// If there is no such target.
#[must_use]
pub fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let good = match target {
        "header" => vec![constants().to_bytes().to_vec()],
        "root" => roots(),
        "index" => [0, 1, 5].map(index_of).to_vec(),
        "chunk" => [0, 3].map(chunk_of).to_vec(),
        "parquet" => [0, 3]
            .map(|tasks| parquet_of(&state_with_tasks("c", tasks, 0)))
            .to_vec(),
        "metadata" => METADATA
            .iter()
            .map(|text| text.as_bytes().to_vec())
            .collect(),
        "filter" => FILTERS
            .iter()
            .map(|text| text.as_bytes().to_vec())
            .collect(),
        "action" => ACTIONS
            .iter()
            .map(|text| text.as_bytes().to_vec())
            .collect(),
        "log" => vec![log::fuzzing::headers(), log::fuzzing::written(&entries())],
        other => panic!("there is no target {other}"),
    };
    let mut seeds = Vec::new();
    for (number, good) in good.into_iter().enumerate() {
        for (name, at) in [
            ("cut-in-the-middle", good.len() / 2),
            ("cut-at-the-end", good.len().saturating_sub(1)),
        ] {
            seeds.push((format!("{number}-{name}"), good[..at].to_vec()));
        }
        for part in 1..4 {
            let mut flipped = good.clone();
            let at = good.len() * part / 4;
            if let Some(byte) = flipped.get_mut(at) {
                *byte ^= 1 << part;
            }
            seeds.push((format!("{number}-flipped-{part}"), flipped));
        }
        seeds.push((format!("{number}-good"), good));
    }
    seeds
}

const FILTERS: [&str; 6] = [
    "status = 'pending' and assigned_to = 'node-3' or \"type\" in ('a', null, 'it''s')",
    "id like 'task-%\\_0_' or id >= 'task-0000003' and id not in ('x')",
    "resources.cpu_cores <= -2.50 or not (progress > 0.3 and pinned)",
    "input_cids not contains 'c' and created_at < '2026-01-02T03:04:05.678Z'",
    "not not ((updated_at is not null)) or error contains '' or true",
    "pinned and size <> 99999999999999999999999999 or replication is null",
];

const METADATA: [&str; 6] = [
    "{}",
    r#"{"cluster_id": "c", "version": "0.1.0", "schema": "x", "updated_at": 1.5}"#,
    r#"{"cluster_id": null, "parquet_path": "state_c.parquet", "snapshot_path": "/run/sherwood/c.arrow"}"#,
    r#"{"cluster_id": "../c", "parquet_path": "../../etc/passwd", "snapshot_path": 7}"#,
    r#"[{"cluster_id": "\ud800"}]"#,
    "{\"cluster_id\": \"a\\u0000b\", \"deep\": [[[[[[[[[[]]]]]]]]]]}",
];

const ACTIONS: [&str; 7] = [
    r#"{"id":"i","if":[{"table":"tasks","key":"t","column":"resources.cpu_cores","equals":4},{"table":"nodes","key":"n","exists":true},{"generation":17}],"ops":[{"put":"tasks","row":{"id":"t","input_cids":["a",null]}},{"patch":"cluster","set":{"master_id":"n"}},{"delete":"content","key":"c"}]}"#,
    r#"{"do":"transaction","id":"i","ops":[{"patch":"tasks","key":"t","set":{"status":"running"}}]}"#,
    r#"{"do":"claim","node":"n","types":["a","b"]}"#,
    r#"{"id":"i","task":"t","node":"n"}"#,
    r#"{"node":{"id":"n","resources":{"cpu_load":0.5}}}"#,
    r#"{"put":"tasks","id":"i"}"#,
    r#"{"from":18446744073709551615,"tables":["tasks","cluster"]}"#,
];

/// Every kind of change, and two entries that share a schema.
fn entries() -> Vec<Entry> {
    let state = state_with_tasks("c", 3, 0);
    let outcome = |id: &str, verdict| Outcome {
        id: id.into(),
        verdict,
        generation: 9,
    };
    let entry = |sequence: u64| {
        let mut effects = Effects::default();
        effects.tables[TableId::Tasks as usize].upserts =
            vec![state.table(TableId::Tasks).slice(0, 2)];
        effects.tables[TableId::Content as usize].delete = vec!["a".to_owned(), "b".to_owned()];
        effects.cluster = sequence.is_multiple_of(2).then(|| state.cluster.clone());
        Entry {
            sequence,
            generation: sequence,
            committed_at_ms: 1_767_225_600_000,
            effects,
            outcomes: vec![
                outcome(
                    "i",
                    Verdict::Done {
                        task: Some("t".into()),
                    },
                ),
                outcome(
                    "j",
                    Verdict::Refused {
                        reason: "no such task".into(),
                    },
                ),
            ],
        }
    };
    vec![entry(1), entry(2)]
}

fn constants() -> Constants {
    Constants {
        data_start: 2 << 20,
        region_bytes: 4 << 20,
        file_id: [3; 16],
        history: [7; 16],
        created_at_ms: 1_767_225_600_000,
        writer_pid: 42,
        cluster_id: "default".to_owned(),
    }
}

fn roots() -> Vec<Vec<u8>> {
    let part = |chunks: u32| PartRoot {
        footer_end: 1 << 22,
        index_at: (1 << 22) - 4096,
        rows: u64::from(chunks) * 100,
        chunks,
        first_key: Arc::from("task-0000000"),
    };
    let table = |parts: u32| TableRoot {
        rows: 100,
        schema_fingerprint: 0x1234_5678,
        parts: (0..parts).map(part).collect(),
    };
    let root = Root {
        generation: 9,
        published_at_ms: 1_767_225_600_000,
        state_dir: sherwood_client::FileId {
            device: 1,
            inode: 2,
        },
        schema_version: 2,
        arrow_at: 1 << 21,
        live_bytes: 12345,
        regions: vec![0, 1, 7],
        tables: [table(1), table(3), table(1)],
    };
    let mut record = Vec::new();
    root.append(&mut record);
    let mut part_footer = Vec::new();
    let block = BlockAt {
        offset: 4096,
        meta_bytes: 256,
        body_bytes: 512,
    };
    let _of_our_own_schema =
        footer::append(&mut part_footer, &table_schema(TableId::Content), &[block]);
    vec![record, part_footer]
}

fn index_of(chunks: u8) -> Vec<u8> {
    let keys: Vec<String> = (0..chunks)
        .map(|chunk| format!("task-{chunk:07}"))
        .collect();
    let entries: Vec<ChunkEntry> = keys
        .iter()
        .zip(1_u64..)
        .map(|(key, number)| ChunkEntry {
            block: BlockAt {
                offset: number * 4096,
                meta_bytes: 256,
                body_bytes: 1024,
            },
            rows: 10,
            first_key: Arc::from(key.as_str()),
        })
        .collect();
    let mut bytes = Vec::new();
    index::append(&mut bytes, &entries);
    bytes.insert(0, chunks);
    bytes
}

fn chunk_of(tasks: usize) -> Vec<u8> {
    static EMPTY: OnceLock<RecordBatch> = OnceLock::new();
    let state = state_with_tasks("c", tasks, 0);
    let empty = EMPTY.get_or_init(|| RecordBatch::new_empty(table_schema(TableId::Tasks)));
    let rows = if tasks == 0 {
        empty
    } else {
        state.table(TableId::Tasks)
    };
    let Ok(encoded) = BatchEncoder::default().encode(rows) else {
        return Vec::new();
    };
    let steps = u16::try_from(encoded.at(0).meta_bytes / 8).unwrap_or(0);
    let mut bytes = steps.to_le_bytes().to_vec();
    for (_, piece) in encoded.pieces() {
        bytes.extend_from_slice(piece);
    }
    bytes
}
