//! What a recovery and a checkpoint cost on this machine: a checkpoint of 1,000,000 tasks, and a log of 100,000 entries of one row each.
//!
//!     cargo run --release -p sherwood-store --example recover_speed -- DIRECTORY
//!
//! Each is measured in a process of its own, so that its peak of memory is its own; the state's bytes are those of its arrays' values.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::{
    Array, ArrayRef, RecordBatch, StringArray, TimestampMillisecondArray, new_empty_array,
    new_null_array,
};
use arrow_schema::{DataType, FieldRef, Schema};
use sherwood_client::Snapshot;
use sherwood_client::locate::{ClusterId, StateDir};
use sherwood_shared::schema::{TableId, table_schema};
use sherwood_shared::state::State;
use sherwood_store::checkpoint::{Checkpoints, Free, Position};
use sherwood_store::log::faults::NoSync;
use sherwood_store::log::{Log, Options, log_dir};
use sherwood_store::recover::recover;
use sherwood_store::{Effects, Entry, TableEffects};

const TASKS: u64 = 1_000_000;
const ENTRIES: u64 = 100_000;

fn main() {
    let mut args = std::env::args().skip(1);
    let dir = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let root = dir.join("sherwood-recover-speed");
    match args.next().as_deref() {
        None => {
            for log in ["none", "patches", "puts"] {
                let _there_or_not = fs::remove_dir_all(&root);
                fs::create_dir_all(&root).expect("a directory");
                again(&dir, "write", log);
                again(&dir, "recover", log);
            }
            again(&dir, "checkpoint", "");
            let _there_or_not = fs::remove_dir_all(&root);
        }
        Some("write") => write(&root, &args.next().unwrap_or_default()),
        Some("recover") => measured(&args.next().unwrap_or_default(), || {
            bytes_of(&recover(&state_dir(&root), None).expect("a state").state)
        }),
        Some("checkpoint") => {
            let state = recover(&state_dir(&root), None).expect("a state").state;
            let bytes = bytes_of(&state);
            let snapshot = Snapshot::from_state(&state).expect("a snapshot");
            drop(state);
            // What was needed to come here is not the checkpoint's.
            fs::write("/proc/self/clear_refs", "5").expect("a new peak");
            measured("checkpoint", || {
                checkpoints(&root)
                    .write(&snapshot, at(2 * ENTRIES), &mut Free)
                    .expect("a checkpoint");
                bytes
            });
        }
        Some(other) => panic!("no step {other}"),
    }
}

/// This program, for one step.
fn again(dir: &Path, step: &str, log: &str) {
    let program = std::env::current_exe().expect("this program");
    let status = Command::new(program).arg(dir).args([step, log]).status();
    assert!(status.expect("it runs").success(), "{step} {log}");
}

/// Does `work`, which gives the bytes of a state, and says what it cost.
fn measured(name: &str, work: impl FnOnce() -> u64) {
    let (before, began, cpu) = (memory("VmRSS"), Instant::now(), cpu());
    let bytes = work();
    let (took, cpu) = (began.elapsed(), self::cpu() - cpu);
    let (peak, mib) = (memory("VmHWM"), |bytes: u64| bytes >> 20);
    println!(
        "{name}: {took:.2?}, {cpu:.2?} of user time; peak {} MiB, {} MiB of them before it; the state's {} MiB",
        mib(peak),
        mib(before),
        mib(bytes)
    );
}

fn memory(what: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let digits = line.and_then(|line| line.split_whitespace().nth(1));
    digits.and_then(|kib| kib.parse().ok()).unwrap_or(0_u64) << 10
}

fn cpu() -> Duration {
    let used = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF);
    let user = used.expect("a process knows what it used").user_time();
    let micros = user.tv_sec() * 1_000_000 + user.tv_usec();
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

fn bytes_of(state: &State) -> u64 {
    let columns = state.tables.iter().flat_map(RecordBatch::columns);
    let sizes = columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or(0));
    sizes.sum::<usize>() as u64
}

fn state_dir(root: &Path) -> StateDir {
    StateDir::open(root).expect("a state directory")
}

fn checkpoints(root: &Path) -> Checkpoints {
    let cluster = ClusterId::new("c").expect("a name");
    Checkpoints::open(&state_dir(root), &cluster, 0o600).expect("checkpoints")
}

fn at(sequence: u64) -> Position {
    Position {
        sequence,
        generation: sequence,
    }
}

fn write(root: &Path, log: &str) {
    let options = Options {
        position: 1,
        ..Options::default()
    };
    let (mut entries, _) = Log::open(&log_dir(root), options, Arc::new(NoSync)).expect("a log");
    let mut state = State::empty("c");
    state.tables[TableId::Tasks as usize] = tasks(0, TASKS);
    let snapshot = Snapshot::from_state(&state).expect("a snapshot");
    let written = checkpoints(root).write(&snapshot, at(1), &mut Free);
    let bytes = written.expect("a checkpoint").bytes;
    println!(
        "a checkpoint of {TASKS} tasks: {} MiB on the disk",
        bytes >> 20
    );
    if log == "none" {
        return;
    }
    for number in 0..ENTRIES {
        let rows = match log {
            "patches" => patch(number * 7919 % TASKS),
            _ => tasks(TASKS + number, 1),
        };
        let sequence = number + 2;
        let mut effects = Effects::default();
        effects.tables[TableId::Tasks as usize] = TableEffects {
            upserts: vec![rows],
            delete: Vec::new(),
        };
        let entry = Entry {
            sequence,
            generation: sequence,
            committed_at_ms: 1_767_225_600_000,
            effects,
            outcomes: Vec::new(),
        };
        entries.append(&entry).expect("appended");
    }
}

fn cid(of: u64) -> String {
    let digest = of.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuy{digest:020}")
}

/// Whole rows: a work's queue, every third of it assigned.
fn tasks(from: u64, count: u64) -> RecordBatch {
    let schema = table_schema(TableId::Tasks);
    let rows = usize::try_from(count).unwrap_or(0);
    let all = from..from + count;
    let text = |of: &dyn Fn(u64) -> Option<String>| -> ArrayRef {
        Arc::new(StringArray::from_iter(all.clone().map(of)))
    };
    let column = |field: &FieldRef| -> ArrayRef {
        match field.name().as_str() {
            "id" => text(&|task| Some(format!("task-{task:010}"))),
            "type" => text(&|task| {
                Some(["transcode", "embed", "train"][usize::try_from(task % 3).unwrap_or(0)].into())
            }),
            "status" => {
                text(&|task| Some(["pending", "assigned"][usize::from(task % 3 == 0)].into()))
            }
            "assigned_to" => {
                text(&|task| (task % 3 == 0).then(|| format!("node-{:04}", task % 997)))
            }
            "created_at" | "updated_at" => Arc::new(TimestampMillisecondArray::from_iter_values(
                all.clone()
                    .map(|task| 1_767_225_600_000 + (task * 37).cast_signed()),
            )),
            "input_cids" => {
                let mut lists = ListBuilder::new(StringBuilder::new());
                if let DataType::List(item) = field.data_type() {
                    lists = lists.with_field(Arc::clone(item));
                }
                all.clone()
                    .for_each(|task| lists.append_value([Some(cid(task))]));
                Arc::new(lists.finish())
            }
            _ if rows == 0 => new_empty_array(field.data_type()),
            _ => new_null_array(field.data_type(), rows),
        }
    };
    let columns = schema.fields().iter().map(column).collect();
    RecordBatch::try_new(schema, columns).expect("the schema's columns")
}

fn patch(task: u64) -> RecordBatch {
    let schema = table_schema(TableId::Tasks);
    let fields = ["id", "status", "updated_at"].map(|name| schema.field_with_name(name).cloned());
    let fields = fields.map(|field| field.expect("a field of the schema"));
    let columns: [ArrayRef; 3] = [
        Arc::new(StringArray::from(vec![format!("task-{task:010}")])),
        Arc::new(StringArray::from(vec!["running"])),
        Arc::new(TimestampMillisecondArray::from(vec![1_767_225_700_000])),
    ];
    RecordBatch::try_new(Arc::new(Schema::new(fields.to_vec())), columns.to_vec())
        .expect("three columns")
}
