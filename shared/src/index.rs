//! The chunk index of a part: the footer's facts and the chunks' first keys, in a
//! layout that our own readers use in place, without parsing.
//!
//! The byte table is docs/format.md, section 5. A search for a key looks at the
//! *fences*: eight bytes of each chunk's first key, behind the prefix that all first
//! keys of the part share, as a big-endian number. Fences order as the keys do, but
//! different keys may share one; then the keys themselves decide.
//!
//! Not promised to other implementations: they have the footer, which says the same.

use std::sync::Arc;

use arrow_buffer::{Buffer, ScalarBuffer};
use thiserror::Error;

use crate::batch::BlockAt;
use crate::layout::{ALIGN, align_up};

const MAGIC: u32 = u32::from_le_bytes(*b"SWIX");
const HEAD_BYTES: usize = 32;
/// Fence, block and row number of one chunk.
const CHUNK_BYTES: usize = 8 + 16 + 8;

/// What the index says of one chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkEntry {
    /// Where it stands.
    pub block: BlockAt,
    /// Its rows, at least one.
    pub rows: u32,
    /// The key of its first row.
    pub first_key: Arc<str>,
}

/// Bytes of an index over `chunks` chunks; a multiple of 64.
#[must_use]
pub fn index_bytes(chunks: usize) -> u64 {
    align_up((HEAD_BYTES + chunks * CHUNK_BYTES) as u64)
}

/// Appends the index of `chunks` to `out`, whose length is a multiple of 64 and stays one.
pub fn append(out: &mut Vec<u8>, chunks: &[ChunkEntry]) {
    let prefix = common_prefix(chunks);
    out.reserve(HEAD_BYTES + chunks.len() * CHUNK_BYTES + 64);
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(
        &u32::try_from(chunks.len())
            .unwrap_or(u32::MAX)
            .to_le_bytes(),
    );
    out.extend_from_slice(&u32::try_from(prefix).unwrap_or(0).to_le_bytes());
    out.extend_from_slice(&[0; HEAD_BYTES - 12]);
    for chunk in chunks {
        out.extend_from_slice(&fence(&chunk.first_key.as_bytes()[prefix..]).to_le_bytes());
    }
    for chunk in chunks {
        out.extend_from_slice(&chunk.block.offset.to_le_bytes());
        let sizes = u64::from(chunk.block.body_bytes) << 32 | u64::from(chunk.block.meta_bytes);
        out.extend_from_slice(&sizes.to_le_bytes());
    }
    let mut rows_until = 0_u64;
    for chunk in chunks {
        rows_until += u64::from(chunk.rows);
        out.extend_from_slice(&rows_until.to_le_bytes());
    }
    out.resize(
        out.len()
            .next_multiple_of(usize::try_from(ALIGN).unwrap_or(64)),
        0,
    );
}

/// The first eight bytes of `rest`, short ones filled with zeros, as a number that
/// orders as they do.
#[must_use]
pub fn fence(rest: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let len = rest.len().min(8);
    bytes[..len].copy_from_slice(&rest[..len]);
    u64::from_be_bytes(bytes)
}

/// Bytes that every first key begins with: keys are sorted, so the outer two decide.
fn common_prefix(chunks: &[ChunkEntry]) -> usize {
    let (Some(first), Some(last)) = (chunks.first(), chunks.last()) else {
        return 0;
    };
    let pairs = first.first_key.bytes().zip(last.first_key.bytes());
    pairs.take_while(|(a, b)| a == b).count()
}

/// Why bytes are not a chunk index: the file is damaged.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IndexError {
    /// No index begins there.
    #[error("no chunk index begins there")]
    Magic,
    /// It holds another number of chunks than the root says, or is cut.
    #[error("the chunk index holds {found} chunks in {bytes} bytes, and the root says {expected}")]
    Chunks {
        /// In the index.
        found: u32,
        /// In the root.
        expected: u32,
        /// Bytes there are.
        bytes: usize,
    },
}

/// The index of a part, in place.
#[derive(Clone, Debug)]
pub struct PartIndex {
    prefix: usize,
    fences: ScalarBuffer<u64>,
    /// Offset, then metadata bytes (low half) and body bytes (high half), by chunk.
    blocks: ScalarBuffer<u64>,
    rows_until: ScalarBuffer<u64>,
}

impl PartIndex {
    /// Reads the index in `bytes`, which begin on a multiple of 64.
    pub fn parse(bytes: &Buffer, expected: u32) -> Result<Self, IndexError> {
        let word = |at: usize| {
            let bytes = bytes
                .get(at..at + 4)
                .and_then(|bytes| bytes.try_into().ok());
            bytes.map(u32::from_le_bytes)
        };
        let (Some(MAGIC), Some(found), Some(prefix)) = (word(0), word(4), word(8)) else {
            return Err(IndexError::Magic);
        };
        let chunks = usize::try_from(expected).unwrap_or(usize::MAX);
        let needed = chunks
            .checked_mul(CHUNK_BYTES)
            .and_then(|all| all.checked_add(HEAD_BYTES));
        if found != expected || needed.is_none_or(|needed| needed > bytes.len()) {
            return Err(IndexError::Chunks {
                found,
                expected,
                bytes: bytes.len(),
            });
        }
        if !(bytes.as_ptr() as usize).is_multiple_of(8) {
            return Err(IndexError::Magic);
        }
        let words = |skip: usize, count: usize| {
            ScalarBuffer::new(bytes.clone(), HEAD_BYTES / 8 + skip, count)
        };
        Ok(Self {
            prefix: usize::try_from(prefix).unwrap_or(usize::MAX),
            fences: words(0, chunks),
            blocks: words(chunks, chunks * 2),
            rows_until: words(chunks * 3, chunks),
        })
    }

    /// The index of chunks that stand in no file.
    pub fn on_heap(chunks: &[ChunkEntry]) -> Result<Self, IndexError> {
        let mut bytes = Vec::new();
        append(&mut bytes, chunks);
        let mut aligned = arrow_buffer::MutableBuffer::new(bytes.len());
        aligned.extend_from_slice(&bytes);
        Self::parse(
            &aligned.into(),
            u32::try_from(chunks.len()).unwrap_or(u32::MAX),
        )
    }

    /// Number of chunks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fences.len()
    }

    /// A part of an empty table has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fences.is_empty()
    }

    /// Where a chunk stands.
    #[must_use]
    pub fn block(&self, chunk: usize) -> Option<BlockAt> {
        let offset = *self.blocks.get(chunk * 2)?;
        let sizes = *self.blocks.get(chunk * 2 + 1)?;
        let low = u32::try_from(sizes & u64::from(u32::MAX)).ok()?;
        let high = u32::try_from(sizes >> 32).ok()?;
        Some(BlockAt {
            offset,
            meta_bytes: low,
            body_bytes: high,
        })
    }

    /// The raw words of the blocks of some chunks: equal words, equal chunks.
    #[must_use]
    pub fn block_words(&self, chunks: std::ops::Range<usize>) -> Option<&[u64]> {
        self.blocks.get(chunks.start * 2..chunks.end * 2)
    }

    /// Rows in the chunks before `chunk`.
    #[must_use]
    pub fn rows_before(&self, chunk: usize) -> u64 {
        chunk
            .checked_sub(1)
            .and_then(|last| self.rows_until.get(last))
            .copied()
            .unwrap_or(0)
    }

    /// Rows of a chunk.
    #[must_use]
    pub fn rows(&self, chunk: usize) -> u64 {
        let until = self.rows_until.get(chunk).copied().unwrap_or(0);
        until.saturating_sub(self.rows_before(chunk))
    }

    /// The chunks in which `key` could be. `first_key` is that of the part.
    #[must_use]
    pub fn candidates(&self, key: &str, first_key: &str) -> Candidates {
        let prefix = first_key.as_bytes().get(..self.prefix).unwrap_or_default();
        let (head, rest) = key.as_bytes().split_at(self.prefix.min(key.len()));
        match head.cmp(prefix) {
            std::cmp::Ordering::Less => Candidates {
                chunks: 0..0,
                is_certain: true,
            },
            std::cmp::Ordering::Greater => {
                let last = self.len().saturating_sub(1);
                Candidates {
                    chunks: last..self.len(),
                    is_certain: true,
                }
            }
            std::cmp::Ordering::Equal => {
                let wanted = fence(rest);
                let end = self.fences.partition_point(|&fence| fence <= wanted);
                let is_certain = end == 0 || self.fences[end - 1] < wanted;
                let below = if is_certain {
                    end
                } else {
                    self.fences[..end].partition_point(|&fence| fence < wanted)
                };
                Candidates {
                    chunks: below.saturating_sub(1)..end,
                    is_certain,
                }
            }
        }
    }
}

/// The chunks of a part in which a key could be, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidates {
    /// Empty: the key is before the first chunk. All but the first share the key's fence.
    pub chunks: std::ops::Range<usize>,
    /// It is the last of them, without a look at its keys.
    pub is_certain: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entries(keys: &[String]) -> Vec<ChunkEntry> {
        let block = |i: usize| BlockAt {
            offset: 64 * i as u64,
            meta_bytes: 128,
            body_bytes: 64,
        };
        let entry = |(i, key): (usize, &String)| ChunkEntry {
            block: block(i),
            rows: u32::try_from(i).unwrap_or(0) + 1,
            first_key: key.as_str().into(),
        };
        keys.iter().enumerate().map(entry).collect()
    }

    fn parsed(chunks: &[ChunkEntry]) -> PartIndex {
        PartIndex::on_heap(chunks).expect("parses")
    }

    proptest! {
        /// Against the definition: the chunk with the greatest first key not above the key.
        #[test]
        fn the_right_chunk_is_always_the_last_candidate_not_above_the_key(
            keys in proptest::collection::btree_set("(task-|task-0000)?[a-c0]{0,12}", 1..40),
            key in "(task-|task-0000)?[a-c0]{0,12}",
        ) {
            let keys: Vec<String> = keys.into_iter().collect();
            let index = parsed(&entries(&keys));
            let right = keys.iter().rposition(|first| *first <= key);
            let candidates = index.candidates(&key, &keys[0]);
            let found = candidates.chunks.clone().rev().find(|&chunk| keys[chunk] <= key);
            prop_assert_eq!(found, right, "{:?} of {:?}", candidates, keys);
            if candidates.is_certain {
                let last = candidates.chunks.clone().next_back();
                prop_assert_eq!(last, right, "{:?} of {:?}", candidates, keys);
            }
        }
    }

    #[test]
    fn an_index_says_what_was_put_in() {
        let keys: Vec<String> = (0..100).map(|i| format!("task-{i:04}")).collect();
        let chunks = entries(&keys);
        let index = parsed(&chunks);
        for (i, chunk) in chunks.iter().enumerate() {
            assert_eq!(index.block(i), Some(chunk.block), "chunk {i}");
            assert_eq!(index.rows(i), u64::from(chunk.rows), "chunk {i}");
        }
        assert_eq!(index.block(100), None);
    }
}
