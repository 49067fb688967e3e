//! Small states and the files of other writers.

use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::{
    ArrayRef, Int64Array, RecordBatch, StringArray, StructArray, TimestampMillisecondArray,
};
use arrow_schema::{DataType, Field};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use sherwood_shared::document::to_document;
use sherwood_shared::schema::{TableId, table_schema};
use sherwood_shared::state::State;

fn strings(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn of(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))
        .unwrap()
}

/// Every table, nulls, lists, structs, a later field and columns of others.
pub fn small_state() -> State {
    let cluster = of(vec![
        ("cluster_id", strings(&[Some("c")])),
        ("master_id", strings(&[Some("n1")])),
        (
            "updated_at",
            Arc::new(TimestampMillisecondArray::from(vec![1_700_000_000_123])),
        ),
        ("region", strings(&[Some("north")])),
    ]);
    let mut peers = ListBuilder::new(StringBuilder::new());
    peers.append_value([Some("n2"), None]);
    peers.append_null();
    let resources: ArrayRef = Arc::new(StructArray::from(vec![(
        Arc::new(Field::new("memory_total", DataType::Int64, true)),
        Arc::new(Int64Array::from(vec![Some(1 << 40), None])) as ArrayRef,
    )]));
    let nodes = of(vec![
        ("id", strings(&[Some("n1"), Some("n2")])),
        ("role", strings(&[Some("master"), None])),
        ("peers", Arc::new(peers.finish())),
        ("resources", resources),
        ("rack", strings(&[Some("r7"), None])),
    ]);
    let tasks = of(vec![
        ("id", strings(&[Some("t1")])),
        ("status", strings(&[Some("running")])),
        (
            "started_at",
            Arc::new(TimestampMillisecondArray::from(vec![1_700_000_000_000])),
        ),
    ]);
    let content = RecordBatch::new_empty(table_schema(TableId::Content));
    State::new(cluster, [nodes, tasks, content]).unwrap()
}

/// That state as a document.
pub fn document() -> RecordBatch {
    to_document(&small_state()).unwrap()
}

/// A file with one row group for each batch, as some other writer would make it.
pub fn parquet(groups: &[&RecordBatch], properties: WriterProperties) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut bytes, groups[0].schema(), Some(properties)).unwrap();
    for group in groups {
        writer.write(group).unwrap();
        writer.flush().unwrap();
    }
    writer.close().unwrap();
    bytes
}
