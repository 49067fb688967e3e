//! Entries to log.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, Int32Array, RecordBatch, StringArray, TimestampMillisecondArray, new_null_array,
};
use arrow_schema::Schema;
use sherwood_shared::schema::{TableId, cluster_schema, table_schema};

use crate::entry::{Effects, Entry, Outcome, TableEffects, Verdict};
use crate::log::{Log, Options, read};

/// A row of tasks, all of the columns that a writer would fill.
pub(in crate::log) fn task_row(keys: &[String]) -> RecordBatch {
    let schema = table_schema(TableId::Tasks);
    let rows = keys.len();
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            "id" => Arc::new(StringArray::from(keys.to_vec())),
            "type" => Arc::new(StringArray::from(vec!["transcode"; rows])),
            "status" => Arc::new(StringArray::from(vec!["pending"; rows])),
            "created_at" | "updated_at" => Arc::new(TimestampMillisecondArray::from(vec![
                    1_767_225_600_000;
                    rows
                ])),
            "input_cid" => {
                let cid = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi";
                Arc::new(StringArray::from(vec![cid; rows]))
            }
            "priority" => Arc::new(Int32Array::from(vec![7; rows])),
            _ => new_null_array(field.data_type(), rows),
        }
    });
    RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap()
}

/// One column of one task.
pub(in crate::log) fn task_patch(key: &str) -> RecordBatch {
    let schema = table_schema(TableId::Tasks);
    let fields = vec![schema.field(0).clone(), schema.field(2).clone()];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![key])),
        Arc::new(StringArray::from(vec!["running"])),
    ];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

pub(in crate::log) fn cluster_row() -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["default"])),
        Arc::new(StringArray::from(vec![Some("node-1")])),
        Arc::new(TimestampMillisecondArray::from(vec![1_767_225_600_000])),
    ];
    RecordBatch::try_new(cluster_schema(), columns).unwrap()
}

pub(in crate::log) fn outcome(sequence: u64) -> Outcome {
    Outcome {
        id: Arc::from(format!("4b1f5d0e-8a7c-4a53-9b6e-{sequence:012}")),
        verdict: match sequence % 3 {
            0 => Verdict::Done { task: None },
            1 => Verdict::Done {
                task: Some(Arc::from("task-0000001")),
            },
            _ => Verdict::Refused {
                reason: Arc::from("task task-0000001 is not pending but running"),
            },
        },
        generation: sequence * 2,
    }
}

pub(in crate::log) fn put(sequence: u64) -> Entry {
    with_tasks(
        sequence,
        TableEffects {
            upserts: vec![task_row(&[format!("task-{sequence:07}")])],
            delete: vec![],
        },
    )
}

pub(in crate::log) fn patch(sequence: u64) -> Entry {
    with_tasks(
        sequence,
        TableEffects {
            upserts: vec![task_patch(&format!("task-{sequence:07}"))],
            delete: vec![],
        },
    )
}

pub(in crate::log) fn with_tasks(sequence: u64, tasks: TableEffects) -> Entry {
    Entry {
        sequence,
        generation: sequence * 2,
        committed_at_ms: 1_767_225_600_000 + sequence.cast_signed(),
        effects: Effects {
            cluster: None,
            tables: [TableEffects::default(), tasks, TableEffects::default()],
        },
        outcomes: vec![outcome(sequence)],
    }
}

/// Entries of every kind, one after the other.
pub(in crate::log) fn sample(sequence: u64) -> Entry {
    match sequence % 5 {
        0 => Entry {
            effects: Effects {
                cluster: Some(cluster_row()),
                ..Effects::default()
            },
            ..put(sequence)
        },
        1 => put(sequence),
        2 => patch(sequence),
        3 => with_tasks(
            sequence,
            TableEffects {
                upserts: vec![],
                delete: vec!["a".to_owned(), "b".to_owned()],
            },
        ),
        _ => Entry {
            effects: Effects::default(),
            generation: (sequence - 1) * 2,
            outcomes: vec![outcome(sequence), outcome(sequence + 1_000_000)],
            ..put(sequence)
        },
    }
}

pub(in crate::log) fn small() -> Options {
    Options {
        segment_bytes: 4096,
        ..Options::default()
    }
}

/// A log of these many samples, in small segments.
pub(in crate::log) fn log_of(dir: &std::path::Path, entries: u64) -> Log {
    let (mut log, _) = Log::open_real(dir, small()).unwrap();
    for sequence in 1..=entries {
        log.append(&sample(sequence)).unwrap();
    }
    log
}

/// Every entry from `from` on, up to the error if there is one.
pub(in crate::log) fn entries(
    dir: &std::path::Path,
    from: u64,
) -> (Vec<Entry>, Option<crate::log::LogError>) {
    let mut found = Vec::new();
    match read(dir, from) {
        Err(error) => return (found, Some(error)),
        Ok(entries) => {
            for entry in entries {
                match entry {
                    Ok(entry) => found.push(entry),
                    Err(error) => return (found, Some(error)),
                }
            }
        }
    }
    (found, None)
}

/// These samples and no others.
pub(in crate::log) fn assert_samples(found: &[Entry], first: u64, what: &str) {
    for (entry, sequence) in found.iter().zip(first..) {
        assert_eq!(*entry, sample(sequence), "{what}: entry {sequence}");
    }
}
