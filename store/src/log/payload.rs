//! An entry as the payload of a record, and back.
//!
//! The byte table is docs/format.md, section 11. In order: schemas that this record is the first of its segment to use,
//! outcomes, effects. Schemas and outcomes come first, so that they can be read without the rest.
//!
//! - **Z1** A schema is written once in a segment and then called by its number. So the records of a segment are
//!   decoded in order, or their schemas at least.
//! - **Z2** What [`check`] refuses is neither written nor read: both sides agree on what an entry is.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_ipc::convert::{IpcSchemaEncoder, fb_to_schema};
use arrow_ipc::root_as_schema;
use arrow_ipc::writer::DictionaryTracker;
use arrow_schema::{DataType, Schema, SchemaRef};
use sherwood_shared::schema::TableId;
use sherwood_shared::shape::is_supported;

use super::arrays::{Known, put_batch, take_batch};
use super::bytes::{Bytes, Malformed, put_text, put_varint};
use super::record::RecordHeader;
use crate::entry::{Effects, Entry, Outcome, TableEffects};
use crate::outcomes::{put_outcome, take_outcome};

/// Schemas that a segment remembers; the others are written each time they are used.
const SCHEMAS: usize = 256;

/// Writes payloads. Knows the schemas that the segment has.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    schemas: Vec<SchemaRef>,
    /// How many of them are in the segment.
    written: usize,
}

impl Encoder {
    /// Appends the payload of an entry that [`check`] accepts.
    ///
    /// Call [`keep`](Self::keep) once it is in the segment, or [`forget`](Self::forget) if it is not.
    pub(super) fn encode(&mut self, entry: &Entry, out: &mut Vec<u8>) {
        let Effects { cluster, tables } = &entry.effects;
        let batches = tables.iter().flat_map(|table| &table.upserts);
        for batch in cluster.iter().chain(batches) {
            let schema = batch.schema_ref();
            if self.schemas.len() < SCHEMAS && self.number(schema).is_none() {
                self.schemas.push(Arc::clone(schema));
            }
        }
        let new = self.schemas.get(self.written..).unwrap_or(&[]);
        put_varint(out, new.len() as u64);
        if !new.is_empty() {
            put_varint(out, self.written as u64);
        }
        for schema in new {
            put_schema(out, schema);
        }
        put_varint(out, entry.outcomes.len() as u64);
        for outcome in &entry.outcomes {
            put_outcome(out, outcome);
        }
        put_varint(out, u64::from(cluster.is_some()));
        if let Some(cluster) = cluster {
            self.put(out, cluster);
        }
        for table in tables {
            put_varint(out, table.upserts.len() as u64);
            for batch in &table.upserts {
                self.put(out, batch);
            }
            put_varint(out, table.delete.len() as u64);
            for key in &table.delete {
                put_text(out, key.as_bytes());
            }
        }
    }

    /// The entry that was encoded last is in the segment, and its schemas with it.
    pub(super) fn keep(&mut self) {
        self.written = self.schemas.len();
    }

    /// The entry that was encoded last is not in the segment.
    pub(super) fn forget(&mut self) {
        self.schemas.truncate(self.written);
    }

    /// Begins where a reader of the segment has come to.
    pub(super) fn after(decoder: Decoder) -> Self {
        Self {
            written: decoder.schemas.len(),
            schemas: decoder
                .schemas
                .into_iter()
                .flatten()
                .map(|known| known.schema)
                .collect(),
        }
    }

    fn number(&self, schema: &SchemaRef) -> Option<usize> {
        let same = |known: &SchemaRef| Arc::ptr_eq(known, schema);
        self.schemas
            .iter()
            .position(same)
            .or_else(|| self.schemas.iter().position(|known| known == schema))
    }

    fn put(&self, out: &mut Vec<u8>, batch: &RecordBatch) {
        match self.number(batch.schema_ref()) {
            Some(number) => put_varint(out, number as u64 + 1),
            None => {
                put_varint(out, 0);
                put_schema(out, batch.schema_ref());
            }
        }
        put_batch(out, batch);
    }
}

/// Reads payloads, those of a segment in order (Z1).
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// By their numbers; `None`: in a record that was passed over.
    schemas: Vec<Option<Known>>,
    /// A record was passed over, and perhaps schemas in it.
    has_gap: bool,
}

impl Decoder {
    /// The whole entry.
    pub(super) fn entry(
        &mut self,
        header: &RecordHeader,
        payload: &[u8],
    ) -> Result<Entry, Malformed> {
        let mut bytes = Bytes::new(payload);
        self.learn(&mut bytes)?;
        let outcomes = take_outcomes(&mut bytes)?;
        let cluster = match bytes.varint()? {
            0 => None,
            1 => Some(self.take(&mut bytes)?),
            _ => return Err(Malformed("more than one cluster row")),
        };
        let mut tables = <[TableEffects; 3]>::default();
        for table in &mut tables {
            for _ in 0..bytes.count()? {
                table.upserts.push(self.take(&mut bytes)?);
            }
            for _ in 0..bytes.count()? {
                table.delete.push(bytes.text()?.to_owned());
            }
        }
        if bytes.left() >= 64 || bytes.rest().iter().any(|&byte| byte != 0) {
            return Err(Malformed("bytes behind its end"));
        }
        let entry = Entry {
            sequence: header.sequence,
            generation: header.generation,
            committed_at_ms: header.committed_at_ms,
            effects: Effects { cluster, tables },
            outcomes,
        };
        check(&entry)?;
        Ok(entry)
    }

    /// Only the outcomes; learns the schemas (Z1).
    pub(super) fn outcomes(&mut self, payload: &[u8]) -> Result<Vec<Outcome>, Malformed> {
        let mut bytes = Bytes::new(payload);
        self.learn(&mut bytes)?;
        take_outcomes(&mut bytes)
    }

    /// Records were passed over, and perhaps schemas in them. Others say their numbers, so only who needs those is lost too.
    pub(super) fn gap(&mut self) {
        self.has_gap = true;
    }

    pub(super) fn has_gap(&self) -> bool {
        self.has_gap
    }

    /// Nothing but the schemas (Z1).
    pub(super) fn skip(&mut self, payload: &[u8]) -> Result<(), Malformed> {
        self.learn(&mut Bytes::new(payload))
    }

    fn learn(&mut self, bytes: &mut Bytes<'_>) -> Result<(), Malformed> {
        let new = bytes.varint()?;
        if new == 0 {
            return Ok(());
        }
        let first = bytes.varint()?;
        if first.saturating_add(new) > SCHEMAS as u64 {
            return Err(Malformed("more schemas than a segment may have"));
        }
        let first = usize::try_from(first).unwrap_or(SCHEMAS);
        if first < self.schemas.len() || first > self.schemas.len() && !self.has_gap {
            return Err(Malformed("schemas whose numbers do not follow"));
        }
        self.schemas.resize_with(first, || None);
        for _ in 0..new {
            let schema = Known::new(take_schema(bytes)?);
            self.schemas.push(Some(schema));
        }
        Ok(())
    }

    fn take(&self, bytes: &mut Bytes<'_>) -> Result<RecordBatch, Malformed> {
        let number = bytes.varint()?;
        let known = number
            .checked_sub(1)
            .and_then(|number| self.schemas.get(usize::try_from(number).ok()?));
        match known {
            Some(Some(known)) => take_batch(bytes, known),
            None if number == 0 => {
                let known = Known::new(take_schema(bytes)?);
                take_batch(bytes, &known)
            }
            _ if self.has_gap => Err(Malformed("a schema that a damaged record had")),
            _ => Err(Malformed("a schema that its segment does not have")),
        }
    }
}

fn take_outcomes(bytes: &mut Bytes<'_>) -> Result<Vec<Outcome>, Malformed> {
    let count = bytes.count()?;
    (0..count).map(|_| take_outcome(bytes)).collect()
}

fn put_schema(out: &mut Vec<u8>, schema: &Schema) {
    let mut tracker = DictionaryTracker::new(false);
    let mut encoder = IpcSchemaEncoder::new().with_dictionary_tracker(&mut tracker);
    put_text(out, encoder.schema_to_fb(schema).finished_data());
}

/// The conversion is Arrow's, and panics on types, widths and units that it does not know. It only reads, so nothing is
/// left half-changed. (A program built with `panic = "abort"` dies instead.)
fn take_schema(bytes: &mut Bytes<'_>) -> Result<SchemaRef, Malformed> {
    let len = bytes.count()?;
    // Its reader needs it on a multiple of 8.
    let aligned = arrow_buffer::Buffer::from(bytes.slice(len)?);
    let message = root_as_schema(&aligned).map_err(|_| Malformed("a damaged schema"))?;
    let schema = catch_unwind(AssertUnwindSafe(|| fb_to_schema(message)))
        .map_err(|_| Malformed("a schema of unknown types"))?;
    if !schema.fields().iter().all(|f| is_supported(f.data_type())) {
        return Err(Malformed("a schema of types that no record holds"));
    }
    Ok(Arc::new(schema))
}

/// What every entry keeps (E2, as far as one list can tell), and the types that a record can hold.
pub(super) fn check(entry: &Entry) -> Result<(), Malformed> {
    let Effects { cluster, tables } = &entry.effects;
    if let Some(cluster) = cluster {
        if cluster.num_rows() != 1 {
            return Err(Malformed("a cluster that is not one row"));
        }
        check_types(cluster)?;
    }
    for (table, id) in tables.iter().zip(TableId::ALL) {
        for batch in &table.upserts {
            check_types(batch)?;
            check_keys(batch, id)?;
        }
        if !table.delete.is_sorted_by(|a, b| a < b) {
            return Err(Malformed("deletions that are not sorted and unique"));
        }
    }
    if entry
        .outcomes
        .iter()
        .any(|outcome| outcome.id.len() > crate::outcomes::MAX_ID_BYTES)
    {
        return Err(Malformed("a transaction's id of more than 256 bytes"));
    }
    Ok(())
}

fn check_types(batch: &RecordBatch) -> Result<(), Malformed> {
    let schema = batch.schema_ref();
    if !schema.fields().iter().all(|f| is_supported(f.data_type())) {
        return Err(Malformed("a column of a type that no record holds"));
    }
    if i32::try_from(batch.num_rows()).is_err() {
        return Err(Malformed("more rows than a table can have"));
    }
    Ok(())
}

fn check_keys(batch: &RecordBatch, table: TableId) -> Result<(), Malformed> {
    let misfit = Malformed("rows without their key as the first column, a text and never null");
    let schema = batch.schema_ref();
    let first = schema.fields().first().ok_or(misfit)?;
    let keys = batch.columns().first().ok_or(misfit)?;
    if first.name() != table.key() || *first.data_type() != DataType::Utf8 || keys.null_count() > 0
    {
        return Err(misfit);
    }
    let keys = keys.as_string::<i32>();
    let sorted = (1..keys.len()).all(|row| keys.value(row - 1) < keys.value(row));
    if !sorted {
        return Err(Malformed("rows that are not sorted by unique keys"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::samples::{cluster_row, task_patch, task_row};
    use super::*;

    /// One that puts rows of two column sets and a cluster, each first used by another record.
    fn entries() -> [Entry; 4] {
        let tasks = |rows: RecordBatch| {
            let mut effects = Effects::default();
            effects.tables[TableId::Tasks as usize].upserts = vec![rows];
            effects
        };
        let cluster = Effects {
            cluster: Some(cluster_row()),
            ..Effects::default()
        };
        let all = [
            tasks(task_row(&["a".to_owned()])),
            tasks(task_patch("b")),
            cluster,
            tasks(task_patch("c")),
        ];
        let mut sequence = 0;
        all.map(|effects| {
            sequence += 1;
            Entry {
                sequence,
                generation: sequence,
                committed_at_ms: 0,
                effects,
                outcomes: Vec::new(),
            }
        })
    }

    #[test]
    fn a_record_that_is_passed_over_takes_its_own_schemas_along_and_no_others() {
        let mut encoder = Encoder::default();
        let payloads = entries().map(|entry| {
            let mut payload = Vec::new();
            encoder.encode(&entry, &mut payload);
            encoder.keep();
            payload
        });
        let header = |number: usize| RecordHeader {
            bytes: 0,
            sequence: number as u64 + 1,
            generation: number as u64 + 1,
            committed_at_ms: 0,
            payload_sum: 0,
        };
        for passed in 0..3 {
            let mut decoder = Decoder::default();
            for (number, payload) in payloads.iter().enumerate() {
                if number == passed {
                    decoder.gap();
                    continue;
                }
                let found = decoder.entry(&header(number), payload);
                let needs_it = passed == 1 && number == 3;
                assert_eq!(
                    found.ok().as_ref(),
                    entries().get(number).filter(|_| !needs_it),
                    "{number} without {passed}"
                );
            }
        }
    }
}
