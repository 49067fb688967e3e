//! A start after a crash: the newest checkpoint, and the log behind it.

use std::fs;
use std::sync::Arc;

use arrow_array::{RecordBatch, StringArray, TimestampMillisecondArray};
use arrow_schema::Schema;
use sherwood_client::locate::{ClusterId, StateDir};
use sherwood_client::{Snapshot, TableId};
use sherwood_store::checkpoint::{Checkpoints, Free, Position};
use sherwood_store::log::faults::NoSync;
use sherwood_store::log::{Log, Options, log_dir};
use sherwood_store::{Effects, Entry, Outcome as Settled, TableEffects, Verdict};

use super::write::{Served, mib};
use super::{Say, WHO};
use crate::goal::{Goal, Line};
use crate::keys::task;
use crate::row::{Outcome, Row};
use crate::sample::Sample;
use crate::{Failure, Setting};

/// Tasks in the checkpoint.
const ROWS: u64 = 1_000_000;
/// Entries behind it, of one row each.
const ENTRIES: u64 = 100_000;

/// With a log of patches all over the table, and with one of new tasks.
pub fn ask(setting: &Setting, say: Say<'_>) -> Result<(), Failure> {
    let sample = Sample::tasks(ROWS)?;
    let state = sample.bytes();
    let snapshot = Snapshot::from_state(sample.state())?;
    drop(sample);
    // What is there once it serves.
    let more = 1.0 + ENTRIES as f64 / ROWS as f64;
    for (name, row, grown) in [
        (
            "patches",
            patch as fn(u64) -> Result<RecordBatch, Failure>,
            1.0,
        ),
        ("puts of new tasks", put, more),
    ] {
        let mut stopped = Served::stopped(setting)?;
        write(&stopped.state_dir(), &snapshot, row)?;
        let most = stopped.restart()?;
        let took = stopped.started_in.as_secs_f64();
        let what = format!("1,000,000 tasks, 100,000 logged {name}");
        let number = |what: String, number: f64, unit: &str| {
            Row::new("start", what, WHO, Outcome::Number(number, unit.into()))
        };
        let row = number(format!("{what}, to the first connection"), took, "s");
        say(Line::at_most(row, Goal::Number(2.0)));
        let row = number(format!("{what}, most memory"), mib(most), "MiB");
        say(Line::at_most(row, Goal::Number(1.5 * mib(state) * grown)));
    }
    Ok(())
}

/// What a daemon that was killed has left.
fn write(
    state_dir: &std::path::Path,
    snapshot: &Snapshot,
    row: fn(u64) -> Result<RecordBatch, Failure>,
) -> Result<(), Failure> {
    fs::create_dir_all(state_dir)?;
    let options = Options {
        position: 1,
        ..Options::default()
    };
    let (mut log, _) = Log::open(&log_dir(state_dir), options, Arc::new(NoSync))?;
    let (dir, cluster) = (StateDir::open(state_dir)?, ClusterId::new("bench")?);
    let position = Position {
        sequence: 1,
        generation: 1,
    };
    Checkpoints::open(&dir, &cluster, 0o600)?.write(snapshot, position, &mut Free)?;
    for number in 0..ENTRIES {
        let mut effects = Effects::default();
        effects.tables[TableId::Tasks as usize] = TableEffects {
            upserts: vec![row(number)?],
            delete: Vec::new(),
        };
        let (sequence, at) = (number + 2, 1_767_225_600_000);
        log.append(&Entry {
            sequence,
            generation: sequence,
            committed_at_ms: at,
            effects,
            outcomes: vec![Settled {
                id: format!("{number:032x}").into(),
                verdict: Verdict::Done { task: None },
                generation: sequence,
            }],
        })?;
    }
    Ok(())
}

fn patch(number: u64) -> Result<RecordBatch, Failure> {
    let whole = put(number)?;
    let at = ["id", "status", "updated_at"].map(|name| whole.schema().index_of(name));
    let at = at.into_iter().collect::<Result<Vec<_>, _>>()?;
    let patched = whole.project(&at)?;
    let fields = patched.schema().fields().clone();
    let columns = vec![
        Arc::new(StringArray::from(vec![task(number * 7919 % ROWS)])) as _,
        Arc::new(StringArray::from(vec!["running"])) as _,
        Arc::new(TimestampMillisecondArray::from(vec![1_767_225_700_000])) as _,
    ];
    Ok(RecordBatch::try_new(
        Arc::new(Schema::new(fields)),
        columns,
    )?)
}

fn put(number: u64) -> Result<RecordBatch, Failure> {
    let sample = Sample::tasks(1)?;
    let whole = &sample.state().tables[TableId::Tasks as usize];
    let mut columns = whole.columns().to_vec();
    columns[0] = Arc::new(StringArray::from(vec![task(number | 1 << 62)]));
    Ok(RecordBatch::try_new(whole.schema(), columns)?)
}
