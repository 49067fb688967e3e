//! What the publisher knows of each table: its parts, their chunks, where they stand.
//!
//! Small beside the state: some 60 bytes a chunk. A publish works on a copy that
//! shares the parts it does not touch, and throws the copy away if it fails.

use std::ops::Range;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use sherwood_shared::index::ChunkEntry;
use sherwood_shared::root::{PartRoot, TableRoot};
use sherwood_shared::schema::TableId;

/// Most chunks of a part (F2): a publish writes the index and footer of each part it
/// touches, 56 bytes a chunk.
pub(super) const MOST_CHUNKS: usize = 512;
/// Bytes of an index and a footer for each chunk, and for the part as a whole.
const PART_BYTES_PER_CHUNK: u64 = 32 + 24;
const PART_BYTES: u64 = 6 << 10;

/// Most chunks of a part in a file with regions of `region_bytes`: index and footer take
/// half a region at most.
pub(super) fn most_chunks(region_bytes: u64) -> usize {
    let fit = (region_bytes / 2).saturating_sub(PART_BYTES) / PART_BYTES_PER_CHUNK;
    usize::try_from(fit)
        .unwrap_or(MOST_CHUNKS)
        .clamp(8, MOST_CHUNKS)
}

/// One table as the file holds it.
#[derive(Clone, Debug)]
pub(super) struct TableMap {
    pub(super) id: TableId,
    pub(super) schema: SchemaRef,
    /// The generation that brought the schema: equal numbers, equal schemas.
    pub(super) schema_since: u64,
    /// Of a part; a part with an eighth of it is joined to its neighbour, if both are.
    pub(super) most_chunks: usize,
    /// At least one; only the only one may be empty.
    pub(super) parts: Vec<Arc<Part>>,
}

/// Consecutive chunks with one index and one footer.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    pub(super) chunks: Vec<ChunkEntry>,
    /// Where its index and footer stand; `None`: they are to be written.
    pub(super) placed: Option<Placed>,
}

/// Where the index and the footer of a part stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    pub(super) index_at: u64,
    pub(super) footer_end: u64,
}

impl Placed {
    pub(super) fn bytes(self) -> u64 {
        self.footer_end - self.index_at
    }
}

impl Part {
    pub(super) fn rows(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.rows)).sum()
    }
}

impl TableMap {
    /// A table without rows, to be written.
    pub(super) fn empty(id: TableId, schema: SchemaRef, most_chunks: usize) -> Self {
        Self {
            id,
            schema,
            schema_since: 0,
            most_chunks,
            parts: vec![Arc::default()],
        }
    }

    pub(super) fn chunk_count(&self) -> usize {
        self.parts.iter().map(|part| part.chunks.len()).sum()
    }

    /// Puts `chunks` in the place of those at `range`, by their number in key order.
    ///
    /// Returns what was taken out. The parts touched are to be written.
    pub(super) fn splice(
        &mut self,
        range: Range<usize>,
        chunks: Vec<ChunkEntry>,
    ) -> Vec<ChunkEntry> {
        let mut taken = Vec::new();
        let mut start = 0;
        let mut chunks = Some(chunks);
        let last = self.parts.len() - 1;
        for (number, part) in self.parts.iter_mut().enumerate() {
            let len = part.chunks.len();
            let local = range.start.clamp(start, start + len) - start
                ..range.end.clamp(start, start + len) - start;
            let begins_here = range.start < start + len || number == last;
            start += len;
            let inserted = if begins_here {
                chunks.take().unwrap_or_default()
            } else {
                Vec::new()
            };
            if local.is_empty() && inserted.is_empty() {
                continue;
            }
            let part = Arc::make_mut(part);
            part.placed = None;
            taken.extend(part.chunks.splice(local, inserted));
        }
        self.balance();
        taken
    }

    /// Parts of at most `most_chunks`, none empty but the only one, few small.
    fn balance(&mut self) {
        let most = self.most_chunks;
        let small = |part: &Part| part.chunks.len() < most.div_ceil(8);
        let fine = |part: &Arc<Part>| part.chunks.len() <= most && !part.chunks.is_empty();
        let pair_is_small = self
            .parts
            .windows(2)
            .any(|pair| small(&pair[0]) && small(&pair[1]));
        if self.parts.iter().all(fine) && !pair_is_small {
            return;
        }
        let mut balanced: Vec<Arc<Part>> = Vec::with_capacity(self.parts.len() + 1);
        for part in self.parts.drain(..) {
            if part.chunks.is_empty() {
                continue;
            }
            if let Some(before) = balanced.last_mut()
                && small(before)
                && small(&part)
            {
                let before = Arc::make_mut(before);
                before.placed = None;
                before.chunks.extend(part.chunks.iter().cloned());
                continue;
            }
            if part.chunks.len() <= most {
                balanced.push(part);
                continue;
            }
            // Leave room in each piece, so that the next split is far away.
            let pieces = part.chunks.len().div_ceil(most * 3 / 4);
            let size = part.chunks.len().div_ceil(pieces);
            balanced.extend(part.chunks.chunks(size).map(|chunks| {
                Arc::new(Part {
                    chunks: chunks.to_vec(),
                    placed: None,
                })
            }));
        }
        if balanced.is_empty() {
            balanced.push(Arc::default());
        }
        self.parts = balanced;
    }

    /// What the root says of it. Every part is placed.
    pub(super) fn root(&self) -> TableRoot {
        let parts = self.parts.iter().map(|part| {
            let placed = part.placed.unwrap_or(Placed {
                index_at: 0,
                footer_end: 0,
            });
            PartRoot {
                footer_end: placed.footer_end,
                index_at: placed.index_at,
                rows: part.rows(),
                chunks: u32::try_from(part.chunks.len()).unwrap_or(u32::MAX),
                first_key: part
                    .chunks
                    .first()
                    .map(|chunk| Arc::clone(&chunk.first_key))
                    .unwrap_or_default(),
            }
        });
        let parts: Vec<PartRoot> = parts.collect();
        let rows = parts.iter().map(|part| part.rows).sum();
        TableRoot {
            rows,
            schema_fingerprint: self.schema_since,
            parts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sherwood_shared::batch::BlockAt;
    use sherwood_shared::schema::table_schema;

    fn chunk(number: u64) -> ChunkEntry {
        let block = BlockAt {
            offset: number * 64,
            meta_bytes: 64,
            body_bytes: 64,
        };
        ChunkEntry {
            block,
            rows: 1,
            first_key: format!("{number:08}").into(),
        }
    }

    proptest! {
        /// Against a plain vector.
        #[test]
        fn splices_do_to_parts_what_they_do_to_a_vector(
            splices in proptest::collection::vec((any::<u16>(), 0_usize..900, 0_usize..1500), 1..12),
        ) {
            let mut table = TableMap::empty(TableId::Tasks, table_schema(TableId::Tasks), MOST_CHUNKS);
            let mut model: Vec<ChunkEntry> = Vec::new();
            let mut next = 0;
            for (at, remove, insert) in splices {
                let start = usize::from(at) % (model.len() + 1);
                let end = (start + remove).min(model.len());
                let new: Vec<_> = (0..insert as u64).map(|i| chunk(next + i)).collect();
                next += insert as u64;
                let taken = table.splice(start..end, new.clone());
                let expected: Vec<_> = model.splice(start..end, new).collect();
                prop_assert_eq!(taken, expected);
                let flat: Vec<_> = table.parts.iter().flat_map(|part| part.chunks.clone()).collect();
                prop_assert_eq!(&flat, &model);
                let sizes: Vec<_> = table.parts.iter().map(|part| part.chunks.len()).collect();
                prop_assert!(sizes.iter().all(|&size| size <= MOST_CHUNKS), "{:?}", sizes);
                prop_assert!(sizes.len() == 1 || sizes.iter().all(|&size| size > 0), "{:?}", sizes);
            }
        }
    }
}
