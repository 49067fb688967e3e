//! A decoded chunk, and how a key is found in it.
//!
//! The first look-up is a plain binary search. A chunk that is asked again gets
//! *samples*: eight bytes of every n-th key, behind the prefix that all its keys share,
//! side by side. Counting those not above the key is one independent pass over a few
//! cache lines, where a binary search of the keys waits for one memory access after
//! the other; what is left to search is a dozen neighbouring rows.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch, StringArray};
use sherwood_shared::batch::BlockAt;
use sherwood_shared::index::{ChunkEntry, fence};

use crate::table::TableSchema;

/// Samples of a chunk: eight cache lines.
const SAMPLES: usize = 64;
/// Bytes of the shared prefix that are compared; more may be shared.
const PREFIX_BYTES: usize = 56;

/// A decoded chunk.
#[derive(Debug)]
pub(crate) struct Chunk {
    samples: OnceLock<Samples>,
    was_asked: AtomicBool,
    pub(crate) keys: StringArray,
    pub(crate) batch: RecordBatch,
    pub(crate) schema: Arc<TableSchema>,
}

#[derive(Debug)]
struct Samples {
    fences: [u64; SAMPLES],
    /// Rows from one sample to the next.
    step: usize,
    prefix: [u8; PREFIX_BYTES],
    prefix_len: usize,
}

impl Chunk {
    pub(crate) fn new(batch: RecordBatch, schema: Arc<TableSchema>) -> Self {
        let keys = batch.column(schema.key).as_string::<i32>().clone();
        let was_asked = AtomicBool::new(false);
        Self {
            samples: OnceLock::new(),
            was_asked,
            keys,
            batch,
            schema,
        }
    }

    /// What an index says of it, on the heap.
    pub(crate) fn entry(&self) -> ChunkEntry {
        ChunkEntry {
            block: BlockAt {
                offset: 0,
                meta_bytes: 0,
                body_bytes: 0,
            },
            rows: u32::try_from(self.keys.len()).unwrap_or(u32::MAX),
            first_key: self.key(0).into(),
        }
    }

    /// The numbers of its rows.
    pub(crate) fn rows(&self) -> Range<usize> {
        0..self.keys.len()
    }

    /// The key of a row; empty beyond the last.
    pub(crate) fn key(&self, row: usize) -> &str {
        // The writer refuses null keys, and rows are counted by the same array.
        if row < self.keys.len() {
            self.keys.value(row)
        } else {
            ""
        }
    }

    /// The row of `key`, by the bytes of the keys.
    pub(crate) fn row(&self, key: &str) -> Option<usize> {
        let rows = match self.samples.get() {
            Some(samples) => {
                let (rows, wanted) = samples.narrow(key, self.keys.len())?;
                if rows.len() <= samples.step {
                    return self.scan(rows, samples.prefix_len, wanted, key);
                }
                rows // many keys share a fence
            }
            None => {
                if self.was_asked.load(Ordering::Relaxed) {
                    let _ = self.samples.set(Samples::of(self));
                }
                self.was_asked.store(true, Ordering::Relaxed);
                0..self.keys.len()
            }
        };
        self.search(rows, key)
    }

    /// Looks at the fences of a few neighbouring rows, all of them: loads that do not
    /// wait for one another.
    fn scan(&self, rows: Range<usize>, prefix: usize, wanted: u64, key: &str) -> Option<usize> {
        let (offsets, data) = (self.keys.value_offsets(), self.keys.value_data());
        let offsets = offsets.get(rows.start..=rows.end)?;
        let mut below = 0;
        for pair in offsets.windows(2) {
            let start = usize::try_from(pair[0]).ok()? + prefix;
            let end = usize::try_from(pair[1]).ok()?;
            below += usize::from(fence_in(data, start, end) < wanted);
        }
        // Equal fences follow each other; nearly always there is one.
        (rows.start + below..rows.end)
            .map(|row| (row, self.key(row)))
            .take_while(|(_, found)| found.as_bytes() <= key.as_bytes())
            .find_map(|(row, found)| (found == key).then_some(row))
    }

    fn search(&self, rows: Range<usize>, key: &str) -> Option<usize> {
        let (mut low, mut high) = (rows.start, rows.end);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.key(middle).as_bytes().cmp(key.as_bytes()) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }
}

impl Samples {
    fn of(chunk: &Chunk) -> Self {
        let rows = chunk.keys.len();
        let (first, last) = (
            chunk.key(0).as_bytes(),
            chunk.key(rows.saturating_sub(1)).as_bytes(),
        );
        let shared = first.iter().zip(last).take_while(|(a, b)| a == b).count();
        let prefix_len = shared.min(PREFIX_BYTES);
        let mut prefix = [0; PREFIX_BYTES];
        prefix[..prefix_len].copy_from_slice(&first[..prefix_len]);
        let step = rows.div_ceil(SAMPLES).max(1);
        // Places beyond the last row count as above every key.
        let mut fences = [u64::MAX; SAMPLES];
        for (sample, slot) in fences.iter_mut().enumerate() {
            if sample * step < rows {
                *slot = fence(&chunk.key(sample * step).as_bytes()[prefix_len..]);
            }
        }
        Self {
            fences,
            step,
            prefix,
            prefix_len,
        }
    }

    /// The rows in which `key` is, if it is in the chunk, and its fence.
    fn narrow(&self, key: &str, rows: usize) -> Option<(Range<usize>, u64)> {
        let key = key.as_bytes();
        if !key.starts_with(&self.prefix[..self.prefix_len]) {
            return None;
        }
        let wanted = fence(&key[self.prefix_len..]);
        let below = self.fences.iter().filter(|&&fence| fence < wanted).count();
        let not_above = self.fences.iter().filter(|&&fence| fence <= wanted).count();
        let start = below.saturating_sub(1) * self.step;
        Some((start.min(rows)..(not_above * self.step).min(rows), wanted))
    }
}

/// The fence of `data[start..end]`, without a branch that depends on the length.
fn fence_in(data: &[u8], start: usize, end: usize) -> u64 {
    let Some(bytes) = data
        .get(start..start + 8)
        .and_then(|bytes| bytes.first_chunk())
    else {
        return fence(data.get(start..end).unwrap_or_default());
    };
    let excess = 8_usize.saturating_sub(end.saturating_sub(start)).min(8) * 8;
    let mask = u64::MAX
        .checked_shl(u32::try_from(excess).unwrap_or(64))
        .unwrap_or(0);
    u64::from_be_bytes(*bytes) & mask
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::ArrayRef;
    use sherwood_shared::schema::{TableId, table_schema};

    fn chunk(keys: &[String]) -> Chunk {
        let schema = table_schema(TableId::Content);
        let mut columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from_iter_values(keys))];
        for field in schema.fields().iter().skip(1) {
            columns.push(arrow_array::new_null_array(field.data_type(), keys.len()));
        }
        let batch = RecordBatch::try_new(schema.clone(), columns).expect("the schema's columns");
        let schema = TableSchema::new(TableId::Content, schema).expect("the schema");
        Chunk::new(batch, Arc::new(schema))
    }

    /// Keys that share long prefixes, that differ only behind the eight bytes of a
    /// fence, that are prefixes of each other, and that end in zeros.
    fn hard_keys(count: usize) -> Vec<String> {
        let shapes: [fn(usize) -> String; 4] = [
            |i| format!("task-{i:010}"),
            |i| format!("{}{i:03}", "same-for-more-than-sixty-four-bytes-".repeat(3)),
            |i| "a".repeat(i % 40 + 1),
            |i| format!("k{:04}{}", i / 7, "\0".repeat(i % 7)),
        ];
        let mut keys: Vec<_> = (0..count).map(|i| shapes[i % 4](i)).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    #[test]
    fn every_key_is_found_with_and_without_samples_and_no_other() {
        for count in [0, 1, 2, 63, 64, 65, 127, 1000] {
            let keys = hard_keys(count);
            let chunk = chunk(&keys);
            for round in ["first", "second", "third"] {
                for (row, key) in keys.iter().enumerate() {
                    assert_eq!(
                        chunk.row(key),
                        Some(row),
                        "{round} round, {count} keys, {key:?}"
                    );
                    let near = format!("{key}\u{1}");
                    let expected = keys.binary_search(&near).ok();
                    assert_eq!(
                        chunk.row(&near),
                        expected,
                        "{round} round, {count} keys, {near:?}"
                    );
                }
                for key in ["", "zzz", "task-", "same"] {
                    let expected = keys.binary_search(&key.to_owned()).ok();
                    assert_eq!(
                        chunk.row(key),
                        expected,
                        "{round} round, {count} keys, {key:?}"
                    );
                }
            }
        }
    }
}
