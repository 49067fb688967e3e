//! One table of a snapshot: parts, and in them chunks that are decoded when first touched.
//!
//! A part of one snapshot is the same part of the next while its footer stands at the
//! same place of the same life of a region (R4): then it is shared, with all chunks
//! that were decoded. Of a part that changed, the decoded chunks that did not change
//! are carried over, by groups of [`GROUP`], so that neither a refresh nor a look-up
//! grows with the table.

use std::sync::{Arc, OnceLock};

use arrow_array::RecordBatch;
use arrow_schema::{DataType, SchemaRef};
use sherwood_shared::batch::BatchDecoder;
use sherwood_shared::footer;
use sherwood_shared::index::PartIndex;
use sherwood_shared::mapping::Region;
use sherwood_shared::root::{PartRoot, TableRoot};
use sherwood_shared::schema::{TableId, table_schema};

use crate::chunk::Chunk;
use crate::error::{Damage, ReadError};
use crate::regions::Regions;

/// Chunks whose decoded forms are shared or carried over together.
const GROUP: usize = 32;

/// One table, sorted by its key, cut into chunks.
#[derive(Debug)]
pub struct Table {
    id: TableId,
    rows: u64,
    fingerprint: u64,
    schema: OnceLock<Arc<TableSchema>>,
    parts: Vec<Arc<Part>>,
    regions: Arc<Regions>,
}

/// What all chunks of a table have in common.
#[derive(Debug)]
pub(crate) struct TableSchema {
    pub(crate) schema: SchemaRef,
    decoder: BatchDecoder,
    pub(crate) key: usize,
    /// Where the columns that this release knows stand, by their place in
    /// [`table_schema`].
    pub(crate) known: Vec<Option<usize>>,
}

impl TableSchema {
    pub(crate) fn new(id: TableId, schema: SchemaRef) -> Result<Self, Damage> {
        let expected = table_schema(id);
        let mut known = Vec::with_capacity(expected.fields().len());
        for field in expected.fields() {
            let at = schema.index_of(field.name()).ok();
            let found = at.map(|at| schema.field(at).data_type());
            if let Some(found) = found
                && !holds(found, field.data_type())
            {
                let what = format!(
                    "has a column {} of type {found}, and it is {} by the schema",
                    field.name(),
                    field.data_type(),
                );
                return Err(Damage::Table {
                    table: id.name(),
                    what,
                });
            }
            known.push(at);
        }
        let key = schema.index_of(id.key()).map_err(|_| Damage::Table {
            table: id.name(),
            what: format!("has no column {}", id.key()),
        })?;
        Ok(Self {
            decoder: BatchDecoder::new(SchemaRef::clone(&schema)),
            schema,
            key,
            known,
        })
    }
}

/// Is `found` the `expected` type, or a struct that has fields of others behind those that are expected?
fn holds(found: &DataType, expected: &DataType) -> bool {
    match (found, expected) {
        (DataType::Struct(found), DataType::Struct(expected)) => {
            found.len() >= expected.len()
                && found.iter().zip(expected).all(|(found, expected)| {
                    found.name() == expected.name()
                        && holds(found.data_type(), expected.data_type())
                })
        }
        _ => found.equals_datatype(expected),
    }
}

#[derive(Debug, Default)]
struct Group {
    slots: [OnceLock<Arc<Chunk>>; GROUP],
}

#[derive(Debug)]
struct Part {
    root: PartRoot,
    /// The region that the footer lies in: same region life, same part (R4).
    footer_region: Option<Arc<Region>>,
    body: OnceLock<PartBody>,
}

#[derive(Debug)]
struct PartBody {
    index: PartIndex,
    groups: Box<[OnceLock<Arc<Group>>]>,
}

impl PartBody {
    fn new(index: PartIndex) -> Self {
        let groups = index.len().div_ceil(GROUP);
        Self {
            index,
            groups: (0..groups).map(|_| OnceLock::new()).collect(),
        }
    }

    fn group(&self, group: usize) -> std::ops::Range<usize> {
        group * GROUP..((group + 1) * GROUP).min(self.index.len())
    }

    /// Takes over what `old` had decoded and this part still has.
    fn carry_over(&self, old: &PartBody) {
        for (number, slot) in self.groups.iter().enumerate() {
            let range = self.group(number);
            let same = old.index.block_words(range.clone());
            let same = same.filter(|_| old.group(number) == range);
            if same.is_some() && same == self.index.block_words(range.clone()) {
                if let Some(group) = old.groups.get(number).and_then(OnceLock::get) {
                    let _ = slot.set(Arc::clone(group));
                }
                continue;
            }
            // Chunks move by a few places when one is split or merged: look around.
            let mut group = None;
            for chunk in range {
                let block = self.index.block(chunk);
                let near = chunk.saturating_sub(4)..chunk + 5;
                let Some(found) = near.clone().find(|&at| old.index.block(at) == block) else {
                    continue;
                };
                if let Some(decoded) = old.decoded(found) {
                    let group = group.get_or_insert_with(Group::default);
                    let _ = group.slots[chunk % GROUP].set(Arc::clone(decoded));
                }
            }
            if let Some(group) = group {
                let _ = slot.set(Arc::new(group));
            }
        }
    }

    fn decoded(&self, chunk: usize) -> Option<&Arc<Chunk>> {
        self.groups.get(chunk / GROUP)?.get()?.slots[chunk % GROUP].get()
    }
}

impl Table {
    /// The table that `root` describes; decodes nothing yet.
    ///
    /// `old` is the same table of the snapshot before, out of the same file.
    pub(crate) fn mapped(
        id: TableId,
        root: TableRoot,
        regions: &Arc<Regions>,
        old: Option<&Table>,
    ) -> Result<Self, ReadError> {
        let old = old.filter(|old| old.fingerprint == root.schema_fingerprint);
        let schema = OnceLock::new();
        if let Some(known) = old.and_then(|old| old.schema.get()) {
            let _ = schema.set(Arc::clone(known));
        }
        let mut parts = Vec::with_capacity(root.parts.len());
        for part in root.parts {
            parts.push(Part::mapped(part, regions, old)?);
        }
        let in_parts: u64 = parts.iter().map(|part| part.root.rows).sum();
        if in_parts != root.rows
            || parts
                .iter()
                .any(|part| (part.root.rows == 0) != (part.root.chunks == 0))
        {
            let what = "has other rows in its parts than the root says".to_owned();
            return Err(regions.damaged(
                0,
                Damage::Table {
                    table: id.name(),
                    what,
                },
            ));
        }
        if parts.is_empty() {
            let what = "has no part".to_owned();
            return Err(regions.damaged(
                0,
                Damage::Table {
                    table: id.name(),
                    what,
                },
            ));
        }
        let regions = Arc::clone(regions);
        Ok(Self {
            id,
            rows: root.rows,
            fingerprint: root.schema_fingerprint,
            schema,
            parts,
            regions,
        })
    }

    /// A table on the heap, in chunks of at most `rows_per_chunk` rows.
    pub(crate) fn on_heap(
        id: TableId,
        batch: &RecordBatch,
        rows_per_chunk: usize,
    ) -> Result<Self, Damage> {
        let schema = Arc::new(TableSchema::new(id, batch.schema())?);
        let starts = (0..batch.num_rows()).step_by(rows_per_chunk);
        let chunks: Vec<_> = starts
            .map(|start| batch.slice(start, rows_per_chunk.min(batch.num_rows() - start)))
            .map(|slice| Chunk::new(slice, Arc::clone(&schema)))
            .collect();
        let entries: Vec<_> = chunks.iter().map(Chunk::entry).collect();
        let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        let index = PartIndex::on_heap(&entries)?;
        let body = PartBody::new(index);
        for (number, chunk) in chunks.into_iter().enumerate() {
            let group = body.groups[number / GROUP].get_or_init(Arc::default);
            let _ = group.slots[number % GROUP].set(Arc::new(chunk));
        }
        let rows = batch.num_rows() as u64;
        let first_key = entries
            .first()
            .map(|entry| entry.first_key.clone())
            .unwrap_or_default();
        let root = PartRoot {
            rows,
            chunks: count,
            first_key,
            ..PartRoot::default()
        };
        let part = Part {
            root,
            footer_region: None,
            body: OnceLock::from(body),
        };
        Ok(Self {
            id,
            rows,
            fingerprint: 0,
            schema: OnceLock::from(schema),
            parts: vec![Arc::new(part)],
            regions: Arc::default(),
        })
    }

    /// Which table it is.
    #[must_use]
    pub fn id(&self) -> TableId {
        self.id
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.rows
    }

    /// No rows at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Number of chunks, which are what changes hands: a refresh decodes those that changed.
    #[must_use]
    pub fn chunk_count(&self) -> usize {
        self.parts
            .iter()
            .map(|part| usize::try_from(part.root.chunks).unwrap_or(0))
            .sum()
    }

    /// The columns: those of the document, those added since, then carried-through ones.
    pub fn schema(&self) -> Result<SchemaRef, ReadError> {
        Ok(SchemaRef::clone(&self.table_schema()?.schema))
    }

    /// The chunks in key order, not copied.
    pub fn batches(&self) -> impl Iterator<Item = Result<RecordBatch, ReadError>> + '_ {
        self.chunks()
            .map(|chunk| chunk.map(|chunk| chunk.batch.clone()))
    }

    pub(crate) fn chunks(&self) -> impl Iterator<Item = Result<&Chunk, ReadError>> + '_ {
        self.parts.iter().flat_map(move |part| {
            let chunks = usize::try_from(part.root.chunks).unwrap_or(0);
            (0..chunks).map(move |chunk| self.chunk(part, chunk))
        })
    }

    /// One chunk by its place in key order; `None` beyond the last.
    pub fn batch(&self, mut chunk: usize) -> Result<Option<RecordBatch>, ReadError> {
        for part in &self.parts {
            let chunks = usize::try_from(part.root.chunks).unwrap_or(0);
            if chunk < chunks {
                return self
                    .chunk(part, chunk)
                    .map(|chunk| Some(chunk.batch.clone()));
            }
            chunk -= chunks;
        }
        Ok(None)
    }

    /// The number, in key order, of the chunk that `key` belongs to: the last one whose first
    /// key is not above it, or the first.
    pub fn chunk_of(&self, key: &str) -> Result<usize, ReadError> {
        let after = self
            .parts
            .partition_point(|part| part.root.first_key.as_ref() <= key);
        let before = after.saturating_sub(1);
        let chunks = |part: &Arc<Part>| usize::try_from(part.root.chunks).unwrap_or(0);
        let start: usize = self.parts[..before].iter().map(chunks).sum();
        let part = &self.parts[before];
        let candidates = self.body(part)?.index.candidates(key, &part.root.first_key);
        for chunk in candidates.chunks.rev() {
            if candidates.is_certain || self.chunk(part, chunk)?.key(0) <= key {
                return Ok(start + chunk);
            }
        }
        Ok(start)
    }

    /// The chunk that holds `key`, and the row in it.
    ///
    /// A binary search over parts, then chunks, then rows; decodes at most the chunks
    /// it compares with.
    pub fn find(&self, key: &str) -> Result<Option<(RecordBatch, usize)>, ReadError> {
        Ok(self
            .find_chunk(key)?
            .map(|(chunk, row)| (chunk.batch.clone(), row)))
    }

    pub(crate) fn find_chunk(&self, key: &str) -> Result<Option<(&Chunk, usize)>, ReadError> {
        let after = self
            .parts
            .partition_point(|part| part.root.first_key.as_ref() <= key);
        let Some(part) = after.checked_sub(1).and_then(|at| self.parts.get(at)) else {
            return Ok(None);
        };
        let body = self.body(part)?;
        let candidates = body.index.candidates(key, &part.root.first_key);
        // Nearly always the last one alone is looked at.
        for chunk in candidates.chunks.rev() {
            let chunk = self.chunk(part, chunk)?;
            if candidates.is_certain || chunk.key(0) <= key {
                return Ok(chunk.row(key).map(|row| (chunk, row)));
            }
        }
        Ok(None)
    }

    fn table_schema(&self) -> Result<&Arc<TableSchema>, ReadError> {
        if let Some(schema) = self.schema.get() {
            return Ok(schema);
        }
        let end = self.parts.first().map_or(0, |part| part.root.footer_end);
        let damaged = |source| self.regions.damaged(end, source);
        let footer = self.regions.footer(end)?;
        let footer = footer::parse(&footer).map_err(|source| damaged(Damage::Footer(source)))?;
        let schema = TableSchema::new(self.id, Arc::new(footer.schema)).map_err(damaged)?;
        Ok(self.schema.get_or_init(|| Arc::new(schema)))
    }

    fn body<'a>(&'a self, part: &'a Part) -> Result<&'a PartBody, ReadError> {
        part.body(&self.regions)
    }

    fn chunk<'a>(&'a self, part: &'a Part, number: usize) -> Result<&'a Chunk, ReadError> {
        let body = self.body(part)?;
        let out_of_bounds = || {
            let what = "a chunk";
            self.regions
                .damaged(part.root.index_at, Damage::OutOfBounds { what })
        };
        let group = body.groups.get(number / GROUP).ok_or_else(out_of_bounds)?;
        let slot = &group.get_or_init(Arc::default).slots[number % GROUP];
        if let Some(chunk) = slot.get() {
            return Ok(chunk);
        }
        let block = body.index.block(number).ok_or_else(out_of_bounds)?;
        let schema = self.table_schema()?;
        let damaged = |source: Damage| self.regions.damaged(block.offset, source);
        let end = block.end().ok_or_else(out_of_bounds)?;
        let bytes = self.regions.buffer(block.offset, end, "a chunk")?;
        let batch = schema.decoder.decode(&bytes, block.meta_bytes);
        let batch = batch.map_err(|source| damaged(source.into()))?;
        if batch.num_rows() as u64 != body.index.rows(number) {
            let what = format!(
                "has a chunk of {} rows whose index says {}",
                batch.num_rows(),
                body.index.rows(number)
            );
            return Err(damaged(Damage::Table {
                table: self.id.name(),
                what,
            }));
        }
        Ok(slot.get_or_init(|| Arc::new(Chunk::new(batch, Arc::clone(schema)))))
    }
}

impl Part {
    fn mapped(
        root: PartRoot,
        regions: &Regions,
        old: Option<&Table>,
    ) -> Result<Arc<Self>, ReadError> {
        let region = regions.region_of(root.index_at, root.footer_end, "a part")?;
        if region.is_copied() {
            // A copy holds no lease: what stands at an offset may be another life's.
            let footer_region = Some(Arc::clone(region));
            return Ok(Arc::new(Self {
                root,
                footer_region,
                body: OnceLock::new(),
            }));
        }
        let near = old.and_then(|old| {
            let after = old
                .parts
                .partition_point(|part| part.root.first_key <= root.first_key);
            old.parts.get(after.saturating_sub(1))
        });
        if let Some(same) = near
            && same.root == root
            && same
                .footer_region
                .as_ref()
                .is_some_and(|old| Arc::ptr_eq(old, region))
        {
            return Ok(Arc::clone(same));
        }
        let footer_region = Some(Arc::clone(region));
        let part = Self {
            root,
            footer_region,
            body: OnceLock::new(),
        };
        if let Some(old) = near.and_then(|near| near.body.get()) {
            part.body(regions)?.carry_over(old);
        }
        Ok(Arc::new(part))
    }

    fn body(&self, regions: &Regions) -> Result<&PartBody, ReadError> {
        if let Some(body) = self.body.get() {
            return Ok(body);
        }
        let bytes = regions.buffer(self.root.index_at, self.root.footer_end, "a chunk index")?;
        let index = PartIndex::parse(&bytes, self.root.chunks)
            .map_err(|source| regions.damaged(self.root.index_at, source.into()))?;
        Ok(self.body.get_or_init(|| PartBody::new(index)))
    }
}
