//! States as plain JSON rows, with nulls everywhere, and the tables that hold them.

use std::sync::Arc;

use arrow_array::{RecordBatch, StringArray, TimestampMillisecondArray};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};
use sherwood_client::Snapshot;
use sherwood_shared::schema::{TableId, table_schema};
use sherwood_shared::state::State;

/// One state, by table.
#[derive(Debug)]
pub struct Model {
    pub nodes: Vec<Value>,
    pub tasks: Vec<Value>,
    pub content: Vec<Value>,
}

struct Dice {
    rng: SmallRng,
}

impl Dice {
    /// One in four is null.
    fn maybe(&mut self, value: impl FnOnce(&mut Self) -> Value) -> Value {
        if self.rng.random_bool(0.25) {
            Value::Null
        } else {
            value(self)
        }
    }

    fn one_of(&mut self, pool: &[&str]) -> Value {
        self.maybe(|dice| json!(pool[dice.rng.random_range(0..pool.len())]))
    }

    fn number(&mut self, range: std::ops::Range<i64>) -> Value {
        self.maybe(|dice| json!(dice.rng.random_range(range)))
    }

    fn flag(&mut self) -> Value {
        self.maybe(|dice| json!(dice.rng.random_bool(0.5)))
    }

    fn list(&mut self, pool: &[&str]) -> Value {
        self.maybe(|dice| {
            let len = dice.rng.random_range(0..4);
            (0..len).map(|_| dice.one_of(pool)).collect()
        })
    }

    fn object(&mut self, fields: impl FnOnce(&mut Self) -> Value) -> Value {
        self.maybe(fields)
    }

    fn node(&mut self, id: &str) -> Value {
        let gib = 1_i64 << 30;
        json!({
            "id": id,
            "role": self.one_of(&["master", "worker", "worker", "leecher", "Worker", "odd"]),
            "status": self.one_of(&["online", "online", "online", "offline", "ONLINE"]),
            "peers": self.list(&["n0", "n1", "n2", "n3", "n10", "nobody", ""]),
            "capabilities": self.list(&["gpu", "GPU", "fast", "disk"]),
            "resources": self.object(|dice| json!({
                "cpu_count": dice.number(-1..9),
                "cpu_load": dice.maybe(|dice| json!(f64::from(dice.rng.random_range(-2..220)) / 2.0)),
                "gpu_count": dice.number(-1..4),
                "gpu_available": dice.flag(),
                "memory_total": dice.number(0..3).as_i64().map(|n| n * gib),
                "memory_available": dice.number(0..5).as_i64().map(|n| n * gib / 4),
                "disk_total": dice.number(0..3).as_i64().map(|n| n * gib),
                "disk_available": dice.number(0..5).as_i64().map(|n| n * gib / 4),
            })),
        })
    }

    fn task(&mut self, id: &str) -> Value {
        let cids = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"];
        json!({
            "id": id,
            "type": self.one_of(&["train", "embed", "Train"]),
            "status": self.one_of(&["pending", "assigned", "running", "completed", "completed", "failed", "cancelled", "odd"]),
            "created_at": self.number(1_000_000..2_000_000),
            "updated_at": self.number(1_500_000..2_500_000),
            "started_at": self.number(1_200_000..2_200_000),
            "completed_at": self.number(1_500_000..2_500_000),
            "assigned_to": self.one_of(&["n0", "n1", "n2", "n3", "nobody"]),
            "resources": self.object(|dice| json!({
                "cpu_cores": dice.number(0..5),
                "gpu_cores": dice.number(0..3),
                "memory_mb": dice.number(0..600),
            })),
            "input_cid": self.one_of(&cids),
            "output_cid": self.one_of(&cids),
            "input_cids": self.list(&cids),
            "output_cids": self.list(&cids),
        })
    }

    fn item(&mut self, cid: &str) -> Value {
        json!({
            "cid": cid,
            "size": self.number(0..1 << 40),
            "providers": self.list(&["n0", "n1", "n2", "nobody"]),
            "pinned": self.flag(),
        })
    }
}

impl Model {
    /// At most so many rows of each; sometimes none.
    pub fn random(seed: u64, most: [usize; 3]) -> Self {
        let mut dice = Dice {
            rng: SmallRng::seed_from_u64(seed),
        };
        let mut ids = |prefix: &str, most: usize| -> Vec<String> {
            let rows = dice.rng.random_range(0..=most);
            let mut ids: Vec<_> = (0..rows).map(|row| format!("{prefix}{row}")).collect();
            ids.sort();
            ids
        };
        let (nodes, tasks, content) = (ids("n", most[0]), ids("t", most[1]), ids("c", most[2]));
        Self {
            nodes: nodes.iter().map(|id| dice.node(id)).collect(),
            tasks: tasks.iter().map(|id| dice.task(id)).collect(),
            content: content.iter().map(|id| dice.item(id)).collect(),
        }
    }

    pub fn rows(&self, table: TableId) -> &[Value] {
        match table {
            TableId::Nodes => &self.nodes,
            TableId::Tasks => &self.tasks,
            TableId::Content => &self.content,
        }
    }

    /// The same, as the client reads it.
    pub fn snapshot(&self) -> Snapshot {
        let cluster = RecordBatch::try_from_iter_with_nullable(vec![
            (
                "cluster_id",
                Arc::new(StringArray::from(vec!["c"])) as _,
                true,
            ),
            (
                "master_id",
                Arc::new(StringArray::from(vec![None::<&str>])) as _,
                true,
            ),
            (
                "updated_at",
                Arc::new(TimestampMillisecondArray::from(vec![1_234])) as _,
                true,
            ),
        ]);
        let tables = TableId::ALL.map(|table| {
            let rows: Vec<&Map<String, Value>> = self
                .rows(table)
                .iter()
                .map(|row| row.as_object().expect("an object"))
                .collect();
            let schema = table_schema(table);
            let reader = arrow_json::ReaderBuilder::new(schema.clone());
            let mut decoder = reader
                .with_batch_size(rows.len().max(1))
                .build_decoder()
                .expect("a decoder");
            decoder.serialize(&rows).expect("rows of the schema");
            let batch = decoder.flush().expect("rows of the schema");
            batch.unwrap_or_else(|| RecordBatch::new_empty(schema))
        });
        let state = State::new(cluster.expect("one row"), tables).expect("a state");
        Snapshot::from_state(&state).expect("a snapshot")
    }
}
