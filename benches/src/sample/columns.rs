//! The columns of a sample, in the document's order and types.

use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::{
    ArrayRef, BooleanArray, Float32Array, Int32Array, Int64Array, RecordBatch, StringArray,
    StructArray, TimestampMillisecondArray,
};
use arrow_schema::{Field, Schema};

use super::BEGIN;
use crate::Failure;
use crate::keys::{Draw, task};

/// A batch of columns whose names come from the document; the first is the key.
fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch, Failure> {
    let fields: Vec<Field> = columns
        .iter()
        .enumerate()
        .map(|(index, (name, column))| Field::new(*name, column.data_type().clone(), index > 0))
        .collect();
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    Ok(RecordBatch::try_new(
        Arc::new(Schema::new(fields)),
        columns,
    )?)
}

/// The one row of the cluster.
pub(super) fn cluster() -> Result<RecordBatch, Failure> {
    batch(vec![
        ("cluster_id", text(1, |_| "bench".into())),
        ("master_id", text(1, |_| "node-0000000000".into())),
        ("updated_at", times(1)),
    ])
}

/// No nodes, in the document's columns.
pub(super) fn nodes() -> Result<RecordBatch, Failure> {
    let int32 = || Arc::new(Int32Array::from_iter_values(0..0)) as ArrayRef;
    let int64 = || Arc::new(Int64Array::from_iter_values(0..0)) as ArrayRef;
    batch(vec![
        ("id", text(0, task)),
        ("role", text(0, task)),
        ("status", text(0, task)),
        ("peers", list(0, |_| Vec::new())),
        ("capabilities", list(0, |_| Vec::new())),
        (
            "resources",
            structure(vec![
                ("cpu_count", int32()),
                ("cpu_load", Arc::new(Float32Array::from_iter_values([]))),
                ("gpu_count", int32()),
                (
                    "gpu_available",
                    Arc::new(BooleanArray::from(Vec::<bool>::new())),
                ),
                ("memory_total", int64()),
                ("memory_available", int64()),
                ("disk_total", int64()),
                ("disk_available", int64()),
            ]),
        ),
    ])
}

/// Tasks, each in all of the document's columns.
pub(super) fn tasks(rows: u64) -> Result<RecordBatch, Failure> {
    let mut draw = Draw::new(rows);
    let mut pick = |from: &'static [&'static str]| {
        let of = from.len() as u64;
        let picks: Vec<_> = (0..rows)
            .map(|_| usize::try_from(draw.below(of)).map_or("", |index| from[index]))
            .collect();
        Arc::new(StringArray::from_iter_values(picks)) as ArrayRef
    };
    let numbers = |modulo: i32| {
        let values = (0..rows).map(|row| i32::try_from(row % 1_000).unwrap_or(0) % modulo);
        Arc::new(Int32Array::from_iter_values(values)) as ArrayRef
    };
    batch(vec![
        ("id", text(rows, task)),
        ("type", pick(&["train", "infer", "encode", "pin"])),
        (
            "status",
            pick(&["pending", "assigned", "running", "completed", "failed"]),
        ),
        ("created_at", times(rows)),
        ("updated_at", times(rows)),
        (
            "assigned_to",
            text(rows, |row| format!("node-{:04}", row % 100)),
        ),
        (
            "resources",
            structure(vec![
                ("cpu_cores", numbers(8)),
                ("gpu_cores", numbers(2)),
                ("memory_mb", numbers(999)),
            ]),
        ),
        (
            "input_cid",
            text(rows, |row| format!("bafybeigdyrzt{row:017}")),
        ),
        ("output_cid", text(rows, |_| String::new())),
        ("input_cids", list(rows, |_| Vec::new())),
        ("output_cids", list(rows, |_| Vec::new())),
    ])
}

/// Content, each in all of the document's columns.
pub(super) fn content(rows: u64) -> Result<RecordBatch, Failure> {
    batch(vec![
        (
            "cid",
            text(rows, |row| {
                format!("bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3{row:014}")
            }),
        ),
        (
            "size",
            Arc::new(Int64Array::from_iter_values((0..rows).map(|_| BEGIN))),
        ),
        ("created_at", times(rows)),
        (
            "providers",
            list(rows, |row| {
                (0..2)
                    .map(|copy| format!("12D3KooW{:08}", (row + copy) % 100))
                    .collect()
            }),
        ),
        (
            "pinned",
            Arc::new(
                (0..rows)
                    .map(|row| Some(row % 2 == 0))
                    .collect::<BooleanArray>(),
            ),
        ),
        (
            "replication",
            Arc::new(Int32Array::from_iter_values((0..rows).map(|_| 2))),
        ),
    ])
}

fn text(rows: u64, of: impl Fn(u64) -> String) -> ArrayRef {
    Arc::new(StringArray::from_iter_values((0..rows).map(of)))
}

fn times(rows: u64) -> ArrayRef {
    Arc::new(TimestampMillisecondArray::from_iter_values(
        (0..rows).map(|_| BEGIN),
    ))
}

fn list(rows: u64, of: impl Fn(u64) -> Vec<String>) -> ArrayRef {
    let mut builder = ListBuilder::new(StringBuilder::new());
    for row in 0..rows {
        for value in of(row) {
            builder.values().append_value(value);
        }
        builder.append(true);
    }
    Arc::new(builder.finish())
}

fn structure(columns: Vec<(&str, ArrayRef)>) -> ArrayRef {
    let fields: Vec<_> = columns
        .into_iter()
        .map(|(name, column)| {
            (
                Arc::new(Field::new(name, column.data_type().clone(), true)),
                column,
            )
        })
        .collect();
    Arc::new(StructArray::from(fields))
}
