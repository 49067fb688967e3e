//! A publisher and a reader of states for tests that are written in other languages.
//!
//! ```text
//! make_snapshot publish STATE.parquet RUN_DIR OUT.parquet [SEED [REGION_BYTES [CHUNK_BYTES]]]
//! make_snapshot rows STATE.parquet
//! make_snapshot rewrite STATE.parquet OUT.parquet
//! ```
//!
//! `publish` puts a snapshot of the state into the run directory and says so in a line of
//! JSON: `{"path", "generation"}`. Each line it then reads, a number, is that many random changes,
//! published one by one; the state after them goes to `OUT.parquet`, and another such line is the
//! answer. It holds the witness until its input ends.
//!
//! `rows` prints a state as Sherwood reads it: a line of JSON for the cluster and for each row, with its table
//! in `table` and its values in `row`, timestamps as milliseconds. `rewrite` reads a state and writes it.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::fs;
use std::io::{self, BufRead, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{Array, RecordBatch, StringArray, TimestampMillisecondArray, UInt32Array};
use arrow_select::take::take;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use sherwood_client::import::{read_parquet, write_parquet_atomic};
use sherwood_daemon::publish::{Options, Publisher};
use sherwood_shared::schema::TableId;
use sherwood_shared::state::State;
use sherwood_tests::json::row;

const USAGE: &str = "usage: make_snapshot publish STATE RUN_DIR OUT [SEED [REGION_BYTES [CHUNK_BYTES]]] \
     | rows STATE | rewrite STATE OUT";

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["publish", state, run_dir, out, ref rest @ ..] if rest.len() <= 3 => {
            publish(Path::new(state), Path::new(run_dir), Path::new(out), rest)
        }
        ["rows", state] => rows(Path::new(state)),
        ["rewrite", state, out] => {
            let state = read_parquet(Path::new(state), None)?;
            Ok(write_parquet_atomic(&state, Path::new(out))?)
        }
        _ => Err(USAGE.into()),
    }
}

fn publish(
    source: &Path,
    run_dir: &Path,
    out: &Path,
    numbers: &[&str],
) -> Result<(), Box<dyn Error>> {
    let number = |at: usize| -> Result<Option<u64>, std::num::ParseIntError> {
        numbers.get(at).map(|word| word.parse()).transpose()
    };
    let mut rng = SmallRng::seed_from_u64(number(0)?.unwrap_or(0));
    let mut state = read_parquet(source, None)?;
    let directory = fs::metadata(source.parent().ok_or("the state lies in no directory")?)?;
    let options = Options {
        run_dir: run_dir.to_owned(),
        cluster_id: state.cluster_id().to_owned(),
        state_dir: (directory.dev(), directory.ino()),
        history: *b"a history of 16b",
        region_bytes: number(1)?,
        chunk_bytes: number(2)?.map(usize::try_from).transpose()?,
        mode: 0o644,
    };
    let mut publisher = Publisher::start(options, &state, 1)?;
    let say = |publisher: &Publisher| {
        let line = json!({"path": publisher.path(), "generation": publisher.generation()});
        let mut out = io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush())
    };
    write_parquet_atomic(&state, out)?;
    say(&publisher)?;
    for line in io::stdin().lock().lines() {
        for _ in 0..line?.trim().parse::<u64>()? {
            state = changed(&state, &mut rng)?;
            publisher.publish(&state)?;
            publisher.housekeep()?;
        }
        write_parquet_atomic(&state, out)?;
        say(&publisher)?;
    }
    Ok(())
}

/// A state that differs in the cluster's row and in some rows of one table.
fn changed(state: &State, rng: &mut SmallRng) -> Result<State, Box<dyn Error>> {
    let cluster = state.cluster.clone();
    let mut columns = cluster.columns().to_vec();
    let then = state.updated_at_millis().unwrap_or(0) + rng.random_range(1..1000);
    columns[2] = Arc::new(TimestampMillisecondArray::from(vec![then]));
    let cluster = RecordBatch::try_new(cluster.schema(), columns)?;
    let mut tables = state.tables.clone();
    let table = TableId::ALL[rng.random_range(0..TableId::ALL.len())];
    tables[table as usize] = edited(&tables[table as usize], rng)?;
    Ok(State::new(cluster, tables)?)
}

/// Some rows deleted, some new, some with the values of another: by key, the row to take them from.
fn edited(rows: &RecordBatch, rng: &mut SmallRng) -> Result<RecordBatch, Box<dyn Error>> {
    let keys = rows
        .column(0)
        .as_any()
        .downcast_ref::<StringArray>()
        .ok_or("the key is a string")?;
    let count = u32::try_from(keys.len())?;
    let mut plan: BTreeMap<String, u32> = keys
        .iter()
        .flatten()
        .map(str::to_owned)
        .zip(0..count)
        .collect();
    let any = |rng: &mut SmallRng| rng.random_range(0..count.max(1));
    for _ in 0..rng.random_range(1..6) {
        let at = any(rng);
        let Some((key, _)) = plan.iter().nth(usize::try_from(at)?) else {
            continue;
        };
        let key = key.clone();
        match rng.random_range(0..10) {
            0..2 => drop(plan.remove(&key)),
            2..4 => drop(plan.insert(format!("{key}+{:04x}", rng.random::<u16>()), any(rng))),
            4 => {
                let end = format!("{key}~");
                let gone: Vec<String> = plan
                    .range(key..end)
                    .take(30)
                    .map(|(key, _)| key.clone())
                    .collect();
                plan.retain(|key, _| !gone.contains(key));
            }
            _ => drop(plan.insert(key, any(rng))),
        }
    }
    let from = UInt32Array::from_iter_values(plan.values().copied());
    let mut columns = rows.columns().to_vec();
    for column in &mut columns {
        *column = take(column, &from, None)?;
    }
    columns[0] = Arc::new(StringArray::from_iter_values(plan.keys()));
    Ok(RecordBatch::try_new(rows.schema(), columns)?)
}

fn rows(source: &Path) -> Result<(), Box<dyn Error>> {
    let state = read_parquet(source, None)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    writeln!(
        out,
        "{}",
        json!({"table": "cluster", "row": row(&state.cluster, 0)?})
    )?;
    for table in TableId::ALL {
        let batch = state.table(table);
        for at in 0..batch.num_rows() {
            writeln!(
                out,
                "{}",
                json!({"table": table.name(), "row": row(batch, at)?})
            )?;
        }
    }
    Ok(out.flush()?)
}
