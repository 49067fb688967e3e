//! Publishing one generation into one file: rules W2 to W7, in order.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_schema::{ArrowError, Schema};
use sherwood_client::Snapshot;
use sherwood_shared::batch::{BatchEncoder, BlockAt};
use sherwood_shared::file::FileId;
use sherwood_shared::footer;
use sherwood_shared::gathered::{Frame, Sealed};
use sherwood_shared::head::rule::{END_LIMIT, HeadWord};
use sherwood_shared::index::{self, ChunkEntry, index_bytes};
use sherwood_shared::pause;
use sherwood_shared::root::{Root, root_batch};
use sherwood_shared::schema::{SCHEMA_VERSION, TableId};

use super::change::{New, Splice};
use super::clean;
use super::edit::{Edit, TableEdit};
use super::error::PublishError;
use super::sizes;
use super::space::{Space, Stream};
use super::tables::{Part, Placed, TableMap, most_chunks};
use super::totals::{self, Totals};
use super::{Options, Published};

/// What a message needs beside its body: a bound, checked by the encoder's own sizes.
const META_BYTES_PER_COLUMN: u64 = 96;
const META_BYTES: u64 = 512;
/// What a footer needs for its schema: a guess for the reservation alone.
const SCHEMA_BYTES_PER_COLUMN: u64 = 256;

/// Writes generations into one file.
#[derive(Debug)]
pub(super) struct Writer {
    space: Space,
    encoder: BatchEncoder,
    tables: [TableMap; 3],
    totals: [Totals; 3],
    /// The most that one of them may be (W10).
    limit: u64,
    cluster: RecordBatch,
    generation: u64,
    chunk_bytes: usize,
    options: Options,
    state_dir: FileId,
    /// Bytes that the last root took: where the next one is looked for room for.
    root_bytes: u64,
    /// Scratch, kept between publishes.
    bytes: Vec<u8>,
}

impl Writer {
    /// A writer into a file without a generation; the first edit says every schema.
    pub(super) fn new(space: Space, options: &Options, chunk_bytes: usize) -> Self {
        let (device, inode) = options.state_dir;
        let most_chunks = most_chunks(space.constants().region_bytes);
        let empty =
            |id| TableMap::empty(id, sherwood_shared::schema::table_schema(id), most_chunks);
        Self {
            space,
            encoder: BatchEncoder::default(),
            tables: TableId::ALL.map(empty),
            totals: Default::default(),
            limit: totals::LIMIT,
            cluster: RecordBatch::new_empty(sherwood_shared::schema::cluster_schema()),
            generation: 0,
            chunk_bytes,
            options: options.clone(),
            state_dir: FileId { device, inode },
            root_bytes: 4096,
            bytes: Vec::new(),
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    pub(super) fn tables(&self) -> &[TableMap; 3] {
        &self.tables
    }

    #[cfg(test)]
    pub(super) fn totals(&self) -> &[Totals; 3] {
        &self.totals
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    pub(super) fn space(&self) -> &Space {
        &self.space
    }

    /// Off the hot path: keeps free regions ready for the next publishes (W2, F8).
    pub(super) fn housekeep(&mut self, spare: u64) -> Result<(), PublishError> {
        self.space.housekeep(spare)
    }

    /// Writes `edit` as `generation`, all of it but the head: nothing that can fail is left (W9).
    /// `None`: it changes nothing. `old` is what it changes, if there is something yet.
    ///
    /// On an error, or if nothing changed, all is as it was: no region was dropped and every
    /// move is taken back (W5).
    pub(super) fn stage(
        &mut self,
        edit: Edit<'_>,
        old: Option<&Snapshot>,
        generation: u64,
        how: How,
    ) -> Result<Option<Written>, PublishError> {
        self.space.begin();
        let written = self.write(edit, old, generation, how);
        if !matches!(written, Ok(Some(_))) {
            self.space.undo();
        }
        written
    }

    /// W4 and W5. What was staged is what was written last.
    pub(super) fn commit(&mut self, written: Written) -> Published {
        pause::at("publish: store the head");
        self.space.header().publish(written.head); // W4
        pause::at("publish: drop regions");
        let root_region = self
            .space
            .constants()
            .region_of(written.head.end_bytes() - 1);
        let generation = written.published.generation;
        self.space
            .committed(generation, root_region.unwrap_or(u32::MAX)); // W5
        self.generation = generation;
        self.tables = written.tables;
        self.totals = written.totals;
        self.cluster = written.cluster;
        // What the next publish cuts; what is cut already stays.
        let (region_bytes, total) = (self.space.constants().region_bytes, self.space.live_bytes());
        self.chunk_bytes = sizes::chunk_bytes(&self.options, region_bytes, total);
        written.published
    }

    /// Takes back what was staged (W5).
    pub(super) fn abandon(&mut self) {
        self.space.undo();
    }

    /// Publishes the same state again with chunks moved together, to free regions when
    /// the file cannot grow. False: there is nothing to move.
    pub(super) fn squeeze(&mut self, generation: u64) -> Result<bool, PublishError> {
        let written = self.stage(Edit::none(), None, generation, How::Squeeze)?;
        Ok(written.is_some_and(|written| self.commit(written).chunks_moved > 0))
    }

    /// Everything before the store of the head.
    fn write(
        &mut self,
        edit: Edit<'_>,
        old: Option<&Snapshot>,
        generation: u64,
        how: How,
    ) -> Result<Option<Written>, PublishError> {
        if how == How::Reserve {
            self.reserve(&edit.tables)?;
        }
        let mut tables = self.tables.clone();
        let mut totals = self.totals.clone();
        let mut changed = edit.cluster.is_some() || how == How::Squeeze;
        let cluster = edit.cluster.unwrap_or_else(|| self.cluster.clone());
        let mut fresh = Fresh::default();
        for ((table, totals), edit) in tables.iter_mut().zip(&mut totals).zip(edit.tables) {
            changed |= self.write_table(table, totals, edit, old, generation, &mut fresh)?;
        }
        if !changed {
            return Ok(None);
        }
        let budget = if how == How::Squeeze {
            self.space.constants().region_bytes
        } else {
            clean::budget(fresh.bytes, self.chunk_bytes as u64)
        };
        let cleaned = clean::clean(&mut self.space, &mut tables, budget, how == How::Squeeze)?;
        self.take_up_a_footer(&mut tables);
        let mut bytes_written = fresh.bytes;
        for table in &mut tables {
            let schema = Arc::clone(&table.schema);
            for part in table.parts.iter_mut().filter(|part| part.placed.is_none()) {
                bytes_written += self.write_part(Arc::make_mut(part), &schema)?;
            }
        }
        let (head, root_bytes) = self.write_root(&tables, &cluster, generation)?;
        let chunks: usize = tables.iter().map(TableMap::chunk_count).sum();
        let published = Published {
            generation,
            chunks_written: fresh.chunks,
            chunks_moved: cleaned.chunks,
            chunks_shared: chunks - fresh.chunks,
            bytes_written: bytes_written + cleaned.bytes + root_bytes,
        };
        Ok(Some(Written {
            published,
            head,
            tables,
            totals,
            cluster,
        }))
    }

    /// Writes the new chunks of one table, splice by splice as the edit makes them, and puts
    /// them into its map. False: there were none.
    fn write_table(
        &mut self,
        table: &mut TableMap,
        totals: &mut Totals,
        edit: TableEdit<'_>,
        old: Option<&Snapshot>,
        generation: u64,
        fresh: &mut Fresh,
    ) -> Result<bool, PublishError> {
        let mut changed = false;
        if let Some(schema) = edit.schema
            && (table.schema != schema || table.schema_since == 0)
        {
            table.schema = schema;
            table.schema_since = generation;
            changed = true;
            // The footers say the schema, also of a table without rows.
            for part in &mut table.parts {
                if let Some(placed) = Arc::make_mut(part).placed.take() {
                    self.space.dead(placed.index_at, placed.bytes());
                }
            }
        }
        let mut done: Vec<(std::ops::Range<usize>, Vec<ChunkEntry>)> = Vec::new();
        for splice in edit.splices {
            let Splice { old: range, new } = splice?;
            changed = true;
            let mut entries = Vec::with_capacity(1);
            match new {
                New::Chunks(chunks) => {
                    for number in range.clone() {
                        let rows = old.map(|old| old.table(table.id).batch(number));
                        if let Some(rows) = rows.transpose()?.flatten() {
                            totals.take(&rows);
                        }
                    }
                    for rows in &chunks {
                        totals.add(rows);
                        entries.push(self.write_chunk(table.id, rows)?);
                    }
                }
                New::Gathered(chunk) => {
                    let (rows, frame) = *chunk;
                    totals.change(&rows);
                    let first_key = rows.first_key().unwrap_or_default().into();
                    let write =
                        |sealed: &Sealed<'_>, out: &mut [u8]| sealed.write(rows.columns(), out);
                    entries.push(self.write_frame(table.id, &frame, first_key, write)?);
                }
            }
            fresh.bytes += entries.iter().map(|entry| entry.block.bytes()).sum::<u64>();
            fresh.chunks += entries.len();
            match done.last_mut() {
                Some((before, chunks)) if before.end == range.start => {
                    before.end = range.end;
                    chunks.append(&mut entries);
                }
                _ => done.push((range, entries)),
            }
        }
        let name = table.id.name();
        if let Some(column) = totals.beyond(name, table.schema.fields(), self.limit) {
            return Err(PublishError::TooLarge {
                table: name,
                column,
                limit: self.limit,
            });
        }
        // Last first, so that the numbers of those to come stay right.
        for (range, entries) in done.into_iter().rev() {
            let parts: Vec<_> = table.parts.iter().filter_map(|part| part.placed).collect();
            for taken in table.splice(range, entries) {
                self.space.dead(taken.block.offset, taken.block.bytes());
            }
            self.forget(&parts, table);
        }
        Ok(changed)
    }

    /// Has one part written anew whose footer stands in a region that is full. So all are
    /// soon in the open one, and two regions in turn are enough for footers.
    fn take_up_a_footer(&mut self, tables: &mut [TableMap; 3]) {
        let mut parts = tables.iter_mut().flat_map(|table| &mut table.parts);
        let cold = parts.find(|part| {
            part.placed
                .is_some_and(|placed| self.space.is_sealed(placed.index_at))
        });
        if let Some(part) = cold
            && let Some(placed) = Arc::make_mut(part).placed.take()
        {
            self.space.dead(placed.index_at, placed.bytes());
        }
    }

    /// The parts that a splice took apart: their indexes and footers are dead.
    fn forget(&mut self, before: &[Placed], table: &TableMap) {
        for placed in before {
            let still = table.parts.iter().filter_map(|part| part.placed);
            if !still
                .into_iter()
                .any(|still| still.index_at == placed.index_at)
            {
                self.space.dead(placed.index_at, placed.bytes());
            }
        }
    }

    /// W2, before a byte is written, so that a file that cannot grow is found out early.
    fn reserve(&mut self, edits: &[TableEdit<'_>; 3]) -> Result<(), PublishError> {
        let (mut fresh, mut largest, mut meta) = (0, 0, self.root_bytes + 1024);
        for (table, edit) in self.tables.iter().zip(edits) {
            let foreseen = edit.foreseen;
            if foreseen.splices == 0 {
                continue;
            }
            let columns = table.schema.flattened_fields().len() as u64;
            let message = columns * META_BYTES_PER_COLUMN + META_BYTES;
            largest = largest.max(foreseen.largest + message);
            fresh += foreseen.bytes + foreseen.chunks as u64 * message;
            let most = table.most_chunks;
            let per_part = index_bytes(most) + most as u64 * 24 + columns * SCHEMA_BYTES_PER_COLUMN;
            let parts = foreseen.splices.min(table.parts.len()) + foreseen.chunks / (most / 2) + 1;
            meta += per_part * parts as u64;
        }
        let meta = meta.min(fresh * 2 + (1 << 20));
        self.space.reserve([fresh, 0, meta], largest)
    }

    fn write_chunk(
        &mut self,
        table: TableId,
        rows: &RecordBatch,
    ) -> Result<ChunkEntry, PublishError> {
        let first_key = first_key(rows, table);
        if let Some(frame) = Frame::of_batch(rows) {
            let write = |sealed: &Sealed<'_>, out: &mut [u8]| sealed.write_batch(rows, out);
            return self.write_frame(table, &frame, first_key, write);
        }
        let encoded = self
            .encoder
            .encode(rows)
            .map_err(|source| encode_error(&self.space, source))?;
        let offset = self.place_chunk(table, &first_key, encoded.bytes())?;
        for (at, piece) in encoded.pieces() {
            self.space.write(offset + at as u64, piece)?;
        }
        self.space.live(offset, encoded.bytes());
        let rows = u32::try_from(rows.num_rows()).unwrap_or(u32::MAX);
        Ok(ChunkEntry {
            block: encoded.at(offset),
            rows,
            first_key,
        })
    }

    /// Writes a chunk of gathered rows, straight to where it stands.
    fn write_frame(
        &mut self,
        table: TableId,
        frame: &Frame,
        first_key: Arc<str>,
        write: impl FnOnce(&Sealed<'_>, &mut [u8]),
    ) -> Result<ChunkEntry, PublishError> {
        let sealed = self.encoder.seal(frame);
        let sealed = sealed.map_err(|source| encode_error(&self.space, source))?;
        let offset = self.place_chunk(table, &first_key, sealed.bytes())?;
        write(&sealed, self.space.room(offset, sealed.bytes())?);
        self.space.live(offset, sealed.bytes());
        Ok(ChunkEntry {
            block: sealed.at(offset),
            rows: u32::try_from(frame.rows()).unwrap_or(u32::MAX),
            first_key,
        })
    }

    fn place_chunk(
        &mut self,
        table: TableId,
        first_key: &str,
        bytes: u64,
    ) -> Result<u64, PublishError> {
        let limit = self.space.constants().region_bytes;
        if bytes > limit {
            return Err(PublishError::Row {
                table: table.name(),
                key: first_key.to_owned(),
                bytes,
                limit,
            });
        }
        self.space.place(Stream::Fresh, bytes)
    }

    /// A part's index and footer, side by side in one region, above its chunks.
    fn write_part(&mut self, part: &mut Part, schema: &Schema) -> Result<u64, PublishError> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        index::append(&mut bytes, &part.chunks);
        let blocks: Vec<BlockAt> = part.chunks.iter().map(|chunk| chunk.block).collect();
        footer::append(&mut bytes, schema, &blocks)
            .map_err(|source| encode_error(&self.space, source))?;
        let len = bytes.len() as u64;
        let last_chunk = blocks.iter().map(|block| block.offset).max();
        let index_at = self.space.place_above(last_chunk, len)?;
        self.space.write(index_at, &bytes)?;
        self.space.live(index_at, len);
        part.placed = Some(Placed {
            index_at,
            footer_end: index_at + len,
        });
        self.bytes = bytes;
        Ok(len)
    }

    /// The Arrow root, its footer, and behind its end the root record: in one region (W3).
    ///
    /// What it says depends on where it stands (the regions it names include its own),
    /// so room is taken first, by the last root's size, and again if that was short.
    fn write_root(
        &mut self,
        tables: &[TableMap; 3],
        cluster: &RecordBatch,
        generation: u64,
    ) -> Result<(HeadWord, u64), PublishError> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let mut room = self.root_bytes;
        loop {
            let arrow_at = self.space.place(Stream::Meta, room)?;
            let region = self
                .space
                .constants()
                .region_of(arrow_at)
                .unwrap_or(u32::MAX);
            let root = Root {
                generation,
                published_at_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
                state_dir: self.state_dir,
                schema_version: SCHEMA_VERSION,
                arrow_at,
                live_bytes: self.space.live_bytes(),
                regions: self.space.in_use(region),
                tables: [tables[0].root(), tables[1].root(), tables[2].root()],
            };
            let mut bytes = std::mem::take(&mut self.bytes);
            bytes.clear();
            let end = self.encode_root(&root, cluster, &mut bytes)?;
            let len = bytes.len() as u64;
            if len > room {
                self.space.trim(arrow_at, 0);
                self.bytes = bytes;
                room = len + 256;
                continue;
            }
            self.space.write(arrow_at, &bytes)?;
            self.space.trim(arrow_at, len);
            self.bytes = bytes;
            self.root_bytes = len + 256;
            let path = self.space.path().to_owned();
            let head = HeadWord::new(arrow_at + end, generation).ok_or(PublishError::Limit {
                path,
                limit: END_LIMIT,
            })?;
            return Ok((head, len));
        }
    }

    /// Appends all of it to `out`; the root's end, from the start of `out`.
    fn encode_root(
        &mut self,
        root: &Root,
        cluster: &RecordBatch,
        out: &mut Vec<u8>,
    ) -> Result<u64, PublishError> {
        let history = self.space.constants().history;
        let mut encode = || -> Result<u64, ArrowError> {
            let batch = root_batch(root, history, cluster)?;
            let encoded = self.encoder.encode(&batch)?;
            encoded
                .pieces()
                .for_each(|(_, piece)| out.extend_from_slice(piece));
            footer::append(out, &batch.schema(), &[encoded.at(root.arrow_at)])?;
            Ok(out.len() as u64)
        };
        let end = encode().map_err(|source| encode_error(&self.space, source))?;
        root.append(out);
        Ok(end)
    }
}

fn encode_error(space: &Space, source: ArrowError) -> PublishError {
    PublishError::Encode {
        path: space.path().to_owned(),
        source,
    }
}

/// How a generation is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// After room for all that is foreseen was found.
    Reserve,
    /// As far as it goes: what is foreseen is more than what is needed.
    Try,
    /// With chunks moved together, wherever they are.
    Squeeze,
}

/// A generation that is written and not yet published.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) published: Published,
    head: HeadWord,
    tables: [TableMap; 3],
    totals: [Totals; 3],
    cluster: RecordBatch,
}

/// New chunks so far.
#[derive(Debug, Default)]
struct Fresh {
    chunks: usize,
    bytes: u64,
}

fn first_key(rows: &RecordBatch, table: TableId) -> Arc<str> {
    let keys = rows
        .column_by_name(table.key())
        .and_then(|keys| keys.as_string_opt::<i32>());
    keys.filter(|keys| !keys.is_empty())
        .map_or_else(Arc::default, |keys| keys.value(0).into())
}
