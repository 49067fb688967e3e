//! One table of a snapshot: its parts, and in them its chunks.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_buffer::Buffer;
use arrow_schema::Schema;
use sherwood_shared::batch::BatchDecoder;
use sherwood_shared::index::{self, ChunkEntry, PartIndex};
use sherwood_shared::root::{PartRoot, TableRoot};
use sherwood_shared::schema::{SCHEMA_VERSION, TableId, table_schema};
use sherwood_shared::shape::is_supported;

use super::snapshot::Check;
use super::{VerifyError, chain};

/// What goes from one part of a table to the next.
struct Walk {
    id: TableId,
    /// Of the schema, as the root says.
    version: u32,
    /// Of the first part that has one: all have the same.
    schema: Option<Schema>,
    last_key: Option<String>,
}

impl Check {
    /// Checks a table against what the root says of it.
    pub(super) fn table(
        &mut self,
        id: TableId,
        root: &TableRoot,
        version: u32,
    ) -> Result<(), VerifyError> {
        let name = id.name();
        if root.parts.is_empty() {
            self.report.find(
                None,
                format!("{name} has no part, not even one without rows"),
            );
        }
        let mut rows = 0_u64;
        let mut walk = Walk {
            id,
            version,
            schema: None,
            last_key: None,
        };
        for (number, part) in root.parts.iter().enumerate() {
            let what = format!("part {number} of {name}");
            if part.chunks == 0 && root.parts.len() > 1 {
                self.report.find(
                    part.index_at,
                    format!("{what} is empty, and not the only one"),
                );
            }
            self.part(&mut walk, part, &what)?;
            rows = rows.saturating_add(part.rows);
        }
        if rows != root.rows {
            let what = format!(
                "the parts of {name} have {rows} rows, and the table {}",
                root.rows
            );
            self.report.find(None, what);
        }
        Ok(())
    }

    fn part(&mut self, walk: &mut Walk, part: &PartRoot, what: &str) -> Result<(), VerifyError> {
        if !self.place(part.index_at, part.footer_end, what) {
            return Ok(());
        }
        let Some(bytes) = self.copy.read(part.index_at, part.footer_end)? else {
            return Ok(());
        };
        let Some((footer, footer_at)) = self.footer(&bytes, part.index_at, what) else {
            return Ok(());
        };
        self.schema(walk, &footer.schema, footer_at, what);
        let chunks = usize::try_from(part.chunks).unwrap_or(usize::MAX);
        if footer.blocks.len() != chunks {
            let what = format!(
                "the footer of {what} names {} chunks, and the root {chunks}",
                footer.blocks.len()
            );
            self.report.find(footer_at, what);
        }
        let decoder = BatchDecoder::new(Arc::new(footer.schema));
        let mut entries = Vec::with_capacity(footer.blocks.len());
        for (number, &block) in footer.blocks.iter().enumerate() {
            let what = format!("chunk {number} of {what}");
            self.report.chunks += 1;
            let end = block.end().unwrap_or(u64::MAX);
            if !self.place(block.offset, end, &what) {
                continue;
            }
            let Some(batch) = self.decode(&decoder, block, &what)? else {
                continue;
            };
            if let Some((rows, first_key)) = self.keys(walk, &batch, block.offset, &what) {
                entries.push(ChunkEntry {
                    block,
                    rows,
                    first_key: first_key.into(),
                });
            }
        }
        if entries.len() == footer.blocks.len() {
            self.rows_and_first_key(part, &entries, what);
            let room = usize::try_from(footer_at - part.index_at).unwrap_or(0);
            self.index(part, &bytes, room, &entries, what);
        }
        Ok(())
    }

    fn schema(&mut self, walk: &mut Walk, schema: &Schema, at: u64, what: &str) {
        if let Some(first) = &walk.schema {
            if first != schema {
                self.report.find(
                    at,
                    format!("{what} has another schema than the part before"),
                );
            }
            return;
        }
        for field in schema.fields() {
            if !is_supported(field.data_type()) {
                let trouble = format!(
                    "{what} has a column {} of type {}, which no chunk holds",
                    field.name(),
                    field.data_type()
                );
                self.report.find(at, trouble);
            }
        }
        if let Err(trouble) = same_fields(&table_schema(walk.id), schema, walk.version) {
            self.report.find(at, format!("{what} {trouble}"));
        }
        walk.schema = Some(schema.clone());
    }

    /// The number of rows and the first key, if all keys are in order.
    fn keys(
        &mut self,
        walk: &mut Walk,
        batch: &RecordBatch,
        at: u64,
        what: &str,
    ) -> Option<(u32, String)> {
        let key = walk.id.key();
        let keys = batch
            .column_by_name(key)
            .and_then(|column| column.as_string_opt::<i32>());
        let Some(keys) = keys else {
            self.report.find(at, format!("{what} has no {key}"));
            return None;
        };
        if keys.is_empty() {
            self.report.find(at, format!("{what} has no rows"));
            return None;
        }
        let mut in_order = true;
        let mut last = walk.last_key.as_deref();
        for row in 0..keys.len() {
            if keys.is_null(row) {
                self.report
                    .find(at, format!("row {row} of {what} has a null as its {key}"));
                in_order = false;
                continue;
            }
            let value = keys.value(row);
            if let Some(last) = last.filter(|last| *last >= value) {
                let trouble = if last == value {
                    format!("row {row} of {what} repeats the {key} {value:?}")
                } else {
                    format!("row {row} of {what}: {value:?} comes after {last:?}")
                };
                self.report.find(at, trouble);
                in_order = false;
            }
            last = Some(value);
        }
        walk.last_key = last.map(str::to_owned);
        let rows = u32::try_from(keys.len()).ok()?;
        in_order.then(|| (rows, keys.value(0).to_owned()))
    }

    fn rows_and_first_key(&mut self, part: &PartRoot, entries: &[ChunkEntry], what: &str) {
        let rows: u64 = entries.iter().map(|entry| u64::from(entry.rows)).sum();
        if rows != part.rows {
            let trouble = format!("{what} has {rows} rows, and the root says {}", part.rows);
            self.report.find(part.index_at, trouble);
        }
        let first_key = entries.first().map_or("", |entry| &entry.first_key);
        if first_key != part.first_key.as_ref() {
            let trouble = format!(
                "{what} begins with {first_key:?}, and the root says {:?}",
                part.first_key
            );
            self.report.find(part.index_at, trouble);
        }
    }

    /// The index, which is at most `room` bytes long, must be the one of these chunks.
    fn index(
        &mut self,
        part: &PartRoot,
        bytes: &Buffer,
        room: usize,
        entries: &[ChunkEntry],
        what: &str,
    ) {
        let mut expected = Vec::new();
        index::append(&mut expected, entries);
        let found = bytes.get(..room.min(expected.len())).unwrap_or_default();
        if found == expected {
            return;
        }
        let differs = found.iter().zip(&expected).position(|(a, b)| a != b);
        let at = part.index_at + differs.unwrap_or(found.len()) as u64;
        let trouble = match PartIndex::parse(bytes, part.chunks) {
            _ if found.len() < expected.len() => "runs into its footer".to_owned(),
            Err(error) => chain(&error),
            Ok(index) => {
                let wrong = entries.iter().enumerate().find(|(number, entry)| {
                    index.block(*number) != Some(entry.block)
                        || index.rows(*number) != u64::from(entry.rows)
                });
                match wrong {
                    Some((number, _)) => {
                        format!(
                            "places chunk {number} elsewhere than the footer, or counts its rows wrong"
                        )
                    }
                    None => "does not sort the chunks by their first keys".to_owned(),
                }
            }
        };
        self.report.find(
            at,
            format!("the chunk index of {what} is damaged: {trouble}"),
        );
    }
}

/// The fields that this release knows must be as it knows them, and of a table in its own
/// version there must be all of them, in order, before those of others.
pub(super) fn same_fields(expected: &Schema, found: &Schema, version: u32) -> Result<(), String> {
    for (place, field) in expected.fields().iter().enumerate() {
        let name = field.name();
        let at = found.fields().find(name);
        match at {
            Some((_, found)) if found != field => {
                return Err(format!(
                    "has a column {name} of another kind than the schema's"
                ));
            }
            Some((at, _)) if at == place => {}
            _ if version < SCHEMA_VERSION => {}
            Some(_) => return Err(format!("has its column {name} in another place")),
            None => return Err(format!("has no column {name}")),
        }
    }
    Ok(())
}
