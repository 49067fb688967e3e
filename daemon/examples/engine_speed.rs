//! What a transaction costs the engine: judged, staged, logged, synced, published and answered, without a socket.
//!
//!     cargo run --release -p sherwood-daemon --example engine_speed -- [DIRECTORY [TASKS...] [OPERATION...]]
//!
//! Requests come in groups of 1 and of 32, as from 64 clients that each wait for their answer. Prints transactions per
//! second and CPU microseconds per transaction of the engine's thread, with a log that syncs and with one that does not;
//! for the former also how that compares with one bare fdatasync for each transaction, measured in between.

use std::collections::VecDeque;
use std::error::Error;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow_array::{
    ArrayRef, RecordBatch, StringArray, StructArray, TimestampMillisecondArray, new_null_array,
};
use arrow_schema::DataType;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use sherwood_daemon::engine::{Engine, Request, Submission, wall_clock};
use sherwood_daemon::publish::{Options as PublishOptions, Publisher};
use sherwood_shared::schema::{TableId, table_schema};
use sherwood_shared::state::State;
use sherwood_shared::transaction::{DomainOp, OutcomeKind, Transaction};
use sherwood_store::Outcomes;
use sherwood_store::log::faults::NoSync;
use sherwood_store::log::{Log, Options};

/// As in the daemon.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;
type RealEngine = Engine<Publisher, Log, Outcomes>;

fn main() -> Outcome<()> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let (mut sizes, mut only) = (Vec::new(), Vec::new());
    for arg in args {
        match arg.parse::<usize>() {
            Ok(size) => sizes.push(size),
            Err(_) => only.push(arg),
        }
    }
    if sizes.is_empty() {
        sizes = vec![10_000, 1_000_000];
    }
    let dir = dir.join(format!("sherwood-engine-speed-{}", std::process::id()));
    for tasks in sizes {
        let state = state(tasks)?;
        for (name, request) in [
            ("put new", put_new as Make),
            ("put old", put_old),
            ("patch", patch),
            ("claim", claim),
        ] {
            if !only.is_empty() && !only.iter().any(|only| only == name) {
                continue;
            }
            for group in [1, 32] {
                for synced in [false, true] {
                    let measured = measure(&dir, &state, tasks, request, group, synced);
                    fs::remove_dir_all(&dir)?;
                    let measured = measured?;
                    println!(
                        "{tasks:>9} tasks, {name:<7}, groups of {group:>2}, {}: {measured}",
                        if synced { "synced  " } else { "not synced" },
                    );
                }
            }
        }
    }
    Ok(())
}

/// The request of a number, for a state of so many tasks.
type Make = fn(usize, usize) -> Outcome<Request>;

fn transaction(text: &str) -> Outcome<Request> {
    Ok(Request::Transaction(Transaction::from_json(
        text.as_bytes(),
    )?))
}

fn put(number: usize, task: usize) -> Outcome<Request> {
    transaction(&format!(
        r#"{{"id":"put-{number:032}","ops":[{{"put":"tasks","row":{{"id":"task-{task:09}","type":"transcode","status":"pending","priority":3,
           "input_cid":"bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi","resources":{{"cpu_cores":2,"memory_mb":512}}}}}}]}}"#
    ))
}

fn put_new(number: usize, tasks: usize) -> Outcome<Request> {
    put(number, tasks + number)
}

fn put_old(number: usize, tasks: usize) -> Outcome<Request> {
    put(number, scattered(number, tasks))
}

fn patch(number: usize, tasks: usize) -> Outcome<Request> {
    let task = scattered(number, tasks);
    transaction(&format!(
        r#"{{"id":"patch-{number:030}","ops":[{{"patch":"tasks","key":"task-{task:09}","set":{{"status":"running","progress":0.5}}}}]}}"#
    ))
}

fn claim(number: usize, _: usize) -> Outcome<Request> {
    let body = format!(r#"{{"id":"claim-{number:030}","node":"node"}}"#);
    let (id, op) = DomainOp::from_json("claim", body.as_bytes())?;
    Ok(Request::Domain { id, op })
}

/// All over the table.
fn scattered(number: usize, tasks: usize) -> usize {
    number.wrapping_mul(0x9e37_79b9) % tasks
}

fn state(tasks: usize) -> Outcome<State> {
    let mut state = State::empty("c");
    let schema = table_schema(TableId::Tasks);
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        let text = |make: fn(usize) -> String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values((0..tasks).map(make)))
        };
        match field.name().as_str() {
            "id" => text(|task| format!("task-{task:09}")),
            "type" => text(|_| "transcode".to_owned()),
            "status" => text(|_| "pending".to_owned()),
            "input_cid" => {
                text(|task| format!("bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oc{task:012}"))
            }
            "created_at" | "updated_at" => Arc::new(TimestampMillisecondArray::from_iter_values(
                (0..tasks).map(|task| 1_767_225_600_000 + i64::try_from(task).unwrap_or(0)),
            )),
            _ => new_null_array(field.data_type(), tasks),
        }
    });
    let tasks = RecordBatch::try_new(Arc::clone(&schema), columns.collect())?;
    let schema = table_schema(TableId::Nodes);
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match (field.name().as_str(), field.data_type()) {
            ("id", _) => Arc::new(StringArray::from(vec!["node"])),
            ("status", _) => Arc::new(StringArray::from(vec!["online"])),
            ("resources", DataType::Struct(fields)) => {
                let columns = fields.iter().map(|field| -> ArrayRef {
                    match field.name().as_str() {
                        "cpu_count" => Arc::new(arrow_array::Int32Array::from(vec![64])),
                        "memory_available" => {
                            Arc::new(arrow_array::Int64Array::from(vec![1 << 40]))
                        }
                        _ => new_null_array(field.data_type(), 1),
                    }
                });
                Arc::new(StructArray::new(fields.clone(), columns.collect(), None))
            }
            (_, other) => new_null_array(other, 1),
        }
    });
    let nodes = RecordBatch::try_new(Arc::clone(&schema), columns.collect())?;
    state.tables[TableId::Nodes as usize] = nodes;
    state.tables[TableId::Tasks as usize] = tasks;
    Ok(state)
}

fn engine(dir: &Path, state: &State, synced: bool) -> Outcome<RealEngine> {
    let (log_dir, run_dir) = (dir.join("log"), dir.join("run"));
    fs::create_dir_all(dir)?;
    // Where the daemon has it: in memory.
    let shm = Path::new("/dev/shm");
    let run_dir = match shm.is_dir() {
        true => shm.join(format!("sherwood-engine-speed-{}", std::process::id())),
        false => run_dir,
    };
    fs::create_dir_all(&run_dir)?;
    let (log, opened) = match synced {
        true => Log::open_real(&log_dir, Options::default())?,
        false => Log::open(&log_dir, Options::default(), Arc::new(NoSync))?,
    };
    let options = PublishOptions {
        run_dir,
        cluster_id: "c".to_owned(),
        state_dir: (1, 1),
        history: [7; 16],
        region_bytes: None,
        chunk_bytes: None,
        mode: 0o600,
    };
    let publisher = Publisher::start(options, state, 1)?;
    Ok(Engine::new(publisher, log, opened.outcomes, wall_clock()))
}

fn measure(
    dir: &Path,
    state: &State,
    tasks: usize,
    make: Make,
    group: usize,
    synced: bool,
) -> Outcome<String> {
    let mut engine = engine(dir, state, synced)?;
    let bare_path = dir.join("bare");
    fs::write(&bare_path, vec![0; 1 << 20])?;
    let bare = File::options().write(true).open(&bare_path)?;
    bare.sync_all()?;
    let groups = if group == 1 { 2_000 } else { 300 };
    let (ask, asked) = std::sync::mpsc::channel::<()>();
    let keeper = engine.journal().keeper();
    let keeping = std::thread::spawn(move || {
        asked.iter().for_each(|()| drop(keeper.prepare()));
    });
    ask.send(())?;
    let done = Arc::new(AtomicU64::new(0));
    let mut number = 0;
    let mut taken = Vec::with_capacity(groups);
    let mut cpu = Duration::ZERO;
    let mut syncs = Vec::with_capacity(groups);
    // The first groups build what is kept.
    for round in 0..groups + 20 {
        let mut queue = VecDeque::with_capacity(group);
        for _ in 0..group {
            let done = Arc::clone(&done);
            let reply = Box::new(move |answer: sherwood_shared::transaction::Answer| {
                let is_done = answer.outcome == OutcomeKind::Done;
                done.fetch_add(u64::from(is_done), Ordering::Relaxed);
            });
            let request = make(number, tasks)?;
            queue.push_back(Submission { request, reply });
            number += 1;
        }
        let before = thread_cpu()?;
        let begun = Instant::now();
        engine.commit_until(&mut queue, None)?;
        engine.publisher().housekeep()?;
        if round >= 20 {
            taken.push(begun.elapsed());
            cpu += thread_cpu()? - before;
        }
        if engine.journal().needs_segment() {
            ask.send(())?;
        }
        if synced {
            let begun = Instant::now();
            bare.write_at(&[7; 512], (round as u64 % 2_000) * 512)?;
            bare.sync_data()?;
            syncs.push(begun.elapsed());
        }
    }
    drop(ask);
    let _it_ended = keeping.join();
    fs::remove_file(engine.publisher().path())?;
    let all: Duration = taken.iter().sum();
    taken.sort();
    syncs.sort();
    let transactions = (groups * group) as f64;
    let per_second = transactions / all.as_secs_f64();
    let refused = number as u64 - done.load(Ordering::Relaxed);
    let mut said = format!(
        "{per_second:>8.0} a second, {:>6.2} us of CPU each; a group's median {:?}",
        cpu.as_secs_f64() * 1e6 / transactions,
        taken[taken.len() / 2],
    );
    if refused > 0 {
        said.push_str(&format!("; {refused} refused"));
    }
    if synced {
        let sync: Duration = syncs.iter().sum();
        let bare = syncs.len() as f64 / sync.as_secs_f64();
        said.push_str(&format!(
            "; {:.1} x a bare fdatasync each ({bare:.0} a second, median {:?})",
            per_second / bare,
            syncs[syncs.len() / 2],
        ));
    }
    Ok(said)
}

fn thread_cpu() -> Outcome<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(u64::try_from(micros)?))
}
