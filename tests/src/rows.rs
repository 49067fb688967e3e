//! A state whose every row carries a checksum of itself and of the version that wrote
//! it, so that a reader can tell a torn, mixed or changed row from a whole one.
//!
//! A row of `content` has the key as `cid`; its `size` is the version that wrote it,
//! its `replication` a checksum of the two, its only provider a text made of both.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::{
    ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMillisecondArray,
};
use sherwood_client::{ReadError, Snapshot};
use sherwood_shared::schema::{TableId, cluster_schema, table_schema};
use sherwood_shared::state::State;

/// The keys of a state, each with the version that wrote its row.
pub type Model = BTreeMap<String, i64>;

/// The checksum that a row of `key`, written as `version`, carries.
#[must_use]
pub fn checksum(key: &str, version: i64) -> i32 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ version.cast_unsigned();
    for byte in key.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    i32::from_le_bytes([
        (hash >> 8) as u8,
        (hash >> 24) as u8,
        (hash >> 40) as u8,
        (hash >> 56) as u8,
    ])
}

fn provider(key: &str, version: i64) -> String {
    format!("provider-of-{key}-at-{version}")
}

/// The rows of a model as a content table.
#[must_use]
pub fn content(model: &Model) -> RecordBatch {
    let mut providers = ListBuilder::new(StringBuilder::new());
    for (key, version) in model {
        providers.values().append_value(provider(key, *version));
        providers.append(true);
    }
    let sums = model.iter().map(|(key, version)| checksum(key, *version));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(model.keys())),
        Arc::new(Int64Array::from_iter_values(model.values().copied())),
        Arc::new(TimestampMillisecondArray::new_null(model.len())),
        Arc::new(providers.finish()),
        Arc::new(BooleanArray::from(vec![None::<bool>; model.len()])),
        Arc::new(Int32Array::from_iter_values(sums)),
    ];
    RecordBatch::try_new(table_schema(TableId::Content), columns).expect("the schema's columns")
}

/// A state of that content; `master_id` says how many rows there are and what their
/// checksums add up to, so that a mixture of two generations does not go unnoticed.
#[must_use]
pub fn state(model: &Model) -> State {
    state_at(model, 1_767_225_600_000)
}

/// The same, with `generation` as the time of the last change, for a [`Checker`].
#[must_use]
pub fn state_at(model: &Model, generation: i64) -> State {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["torture"])),
        Arc::new(StringArray::from(vec![summary(
            model.iter().map(|(k, v)| checksum(k, *v)),
        )])),
        Arc::new(TimestampMillisecondArray::from(vec![generation])),
    ];
    let cluster = RecordBatch::try_new(cluster_schema(), columns).expect("the schema's columns");
    let empty = |id| RecordBatch::new_empty(table_schema(id));
    State {
        cluster,
        tables: [empty(TableId::Nodes), empty(TableId::Tasks), content(model)],
    }
}

fn summary(sums: impl Iterator<Item = i32>) -> String {
    let (mut rows, mut total) = (0_u64, 0_i64);
    for sum in sums {
        rows += 1;
        total = total.wrapping_add(i64::from(sum));
    }
    format!("{rows} rows, {total}")
}

/// Checks snapshots of [`state_at`] in a few microseconds: without a model, and without
/// an allocation once its scratch is large enough.
#[derive(Debug, Default)]
pub struct Checker {
    scratch: String,
}

impl Checker {
    /// Checks every value of every row, their order, and what the cluster's row says of
    /// them: how many there are, their sum, and the generation that last changed one.
    ///
    /// # Errors
    ///
    /// What is torn, mixed, changed or out of order, or could not be read.
    pub fn check(&mut self, snapshot: &Snapshot) -> Result<(), String> {
        self.first_wrong(snapshot)
            .map_err(|what| format!("generation {}: {what}", snapshot.generation()))
    }

    fn first_wrong(&mut self, snapshot: &Snapshot) -> Result<(), String> {
        let updated = snapshot.updated_at_ms();
        let updated = updated.map_err(|error| format!("{error:?}"))?;
        // Less than the generation only where a beat made a new file of the same state.
        let generation = i64::try_from(snapshot.generation()).unwrap_or(i64::MAX);
        let Some(updated) = updated.filter(|updated| (1..=generation).contains(updated)) else {
            return Err(format!("the cluster is of {updated:?}"));
        };
        let (mut rows, mut total) = (0_u64, 0_i64);
        let mut last: Option<&str> = None;
        for row in snapshot.content().iter() {
            let row = row.map_err(|error| format!("{error:?}"))?;
            let key = row.cid();
            let wrong = |what: &str| Err(format!("{key}: {what}"));
            let Some(version) = row.size().filter(|version| *version <= updated) else {
                return wrong("version");
            };
            let sum = checksum(key, version);
            if row.replication() != Some(sum) {
                return wrong("checksum");
            }
            self.scratch.clear();
            let _ = write!(self.scratch, "provider-of-{key}-at-{version}");
            let mut providers = row.providers().into_iter().flatten();
            if providers.next().flatten() != Some(&self.scratch) || providers.next().is_some() {
                return wrong("provider");
            }
            if row.created_at().is_some() || row.pinned().is_some() {
                return wrong("a value where none was written");
            }
            if last.is_some_and(|last| last >= key) {
                return wrong("out of order");
            }
            last = Some(key);
            rows += 1;
            total = total.wrapping_add(i64::from(sum));
        }
        let cluster = snapshot.cluster().map_err(|error| format!("{error:?}"))?;
        let text = |column: usize| {
            let column = cluster.columns().get(column);
            let column = column.and_then(|column| column.as_string_opt::<i32>());
            column.map(|column| column.value(0))
        };
        self.scratch.clear();
        let _ = write!(self.scratch, "{rows} rows, {total}");
        if text(1) != Some(&self.scratch) {
            return Err(format!(
                "a mixture: {:?} is not {:?}",
                text(1),
                self.scratch
            ));
        }
        if text(0) != Some("torture") {
            return Err(format!("the cluster {:?}", text(0)));
        }
        let others = [TableId::Nodes, TableId::Tasks].map(|id| snapshot.table(id).len());
        if others != [0, 0] || snapshot.table(TableId::Content).len() != rows {
            return Err(format!("{others:?} nodes and tasks, {rows} rows"));
        }
        Ok(())
    }
}

/// Checks every byte that a snapshot of such a state says. Returns its model.
///
/// # Errors
///
/// What is torn, mixed or out of order, or could not be read.
pub fn check(snapshot: &Snapshot) -> Result<Model, String> {
    let text = |error: ReadError| format!("generation {}: {error:?}", snapshot.generation());
    let mut model = Model::new();
    let mut sums = Vec::new();
    let mut last: Option<String> = None;
    for row in snapshot.content() {
        let row = row.map_err(text)?;
        let key = row.cid();
        let wrong = |what: &str| {
            Err(format!(
                "generation {}, {key}: {what}",
                snapshot.generation()
            ))
        };
        let Some(version) = row.size() else {
            return wrong("no version");
        };
        if row.replication() != Some(checksum(key, version)) {
            return wrong("checksum");
        }
        let mut providers = row.providers().ok_or("no providers")?;
        if providers.next().flatten() != Some(&provider(key, version)) || providers.next().is_some()
        {
            return wrong("provider");
        }
        if last.as_deref().is_some_and(|last| last >= key) {
            return wrong("out of order");
        }
        last = Some(key.to_owned());
        sums.push(checksum(key, version));
        model.insert(key.to_owned(), version);
    }
    let expected = summary(sums.into_iter());
    let found = snapshot.master_id().map_err(text)?.unwrap_or_default();
    if found != expected {
        return Err(format!(
            "generation {}: a mixture: {found:?} is not {expected:?}",
            snapshot.generation()
        ));
    }
    Ok(model)
}
