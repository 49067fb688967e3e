//! The rows of a table that a filter accepts.

use arrow_array::{Array, BooleanArray, RecordBatch};
use arrow_select::filter::filter_record_batch;

use super::bind::BoundFilter;
use super::error::{MaskError, ScanError};
use super::keys::KeyRanges;
use crate::chunk::Chunk;
use crate::rows::{Row, RowRef, Rows};
use crate::table::Table;

/// The batches of a filtered table: [`Table::filter`].
#[derive(Debug)]
pub struct Filtered<'a> {
    table: &'a Table,
    filter: &'a BoundFilter,
    ranges: KeyRanges,
    /// Which of the ranges, and the chunk to look at next.
    range: usize,
    chunk: Option<usize>,
    /// Chunks below this one were looked at.
    unseen: usize,
}

impl Table {
    /// The rows that `filter` accepts, in key order: one batch for each chunk that has some. A chunk of which all are
    /// accepted is not copied.
    ///
    /// `filter` has to be bound to this table's [`schema`](Self::schema). Chunks whose keys it cannot accept
    /// (`id = 'a'`, `id like 'task-1%'`) are not looked at (Q3).
    pub fn filter<'a>(&'a self, filter: &'a BoundFilter) -> Filtered<'a> {
        Filtered {
            table: self,
            filter,
            ranges: KeyRanges::of(&filter.node, self.id().key()),
            range: 0,
            chunk: None,
            unseen: 0,
        }
    }
}

impl<'s, R: RowRef<'s> + 's> Rows<'s, R> {
    /// The rows that `filter` accepts, in key order. As [`Table::filter`], without a copy of any row.
    pub fn filter(
        &self,
        filter: &'s BoundFilter,
    ) -> impl Iterator<Item = Result<R, ScanError>> + use<'s, R> {
        let mut chunks = self.table().filter(filter);
        let masked = std::iter::from_fn(move || chunks.next_match().transpose());
        masked.flat_map(|found| {
            let (found, error) = match found {
                Ok(found) => (Some(found), None),
                Err(error) => (None, Some(Err(error))),
            };
            let rows = found.into_iter().flat_map(|(chunk, mask)| {
                // What is null accepts nothing.
                let accepted = move |row: &usize| mask.is_valid(*row) && mask.value(*row);
                let rows = (0..chunk.keys.len()).filter(accepted);
                rows.map(move |row| Ok(R::of(Row::new(chunk, row))))
            });
            rows.chain(error)
        })
    }
}

impl<'a> Filtered<'a> {
    /// The next chunk that may hold keys of the ranges.
    pub(super) fn next_chunk(&mut self) -> Result<Option<&'a Chunk>, ScanError> {
        if self.table.is_empty() {
            return Ok(None);
        }
        while let Some(range) = self.ranges.as_slice().get(self.range) {
            let chunk = match self.chunk {
                Some(chunk) => chunk,
                None => self.table.chunk_of(&range.from)?.max(self.unseen),
            };
            let Some(found) = self.table.chunk_at(chunk)? else {
                return Ok(None);
            };
            let is_behind = |to: &Vec<u8>| found.key(0).as_bytes() >= to.as_slice();
            if range.to.as_ref().is_some_and(is_behind) {
                self.range += 1;
                self.chunk = None;
                continue;
            }
            self.unseen = chunk + 1;
            self.chunk = Some(chunk + 1);
            return Ok(Some(found));
        }
        Ok(None)
    }

    /// The next chunk of which some row is accepted, and which ones. Nothing more after an error.
    fn next_match(&mut self) -> Result<Option<(&'a Chunk, BooleanArray)>, ScanError> {
        let found = self.find_match();
        if !matches!(found, Ok(Some(_))) {
            self.range = usize::MAX;
        }
        found
    }

    fn find_match(&mut self) -> Result<Option<(&'a Chunk, BooleanArray)>, ScanError> {
        while let Some(chunk) = self.next_chunk()? {
            let mask = self.filter.mask(&chunk.batch)?;
            if mask.has_true() {
                return Ok(Some((chunk, mask)));
            }
        }
        Ok(None)
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>, ScanError> {
        let Some((chunk, mask)) = self.next_match()? else {
            return Ok(None);
        };
        let batch = filter_record_batch(&chunk.batch, &mask).map_err(|source| {
            let column = self.table.id().name().to_owned();
            MaskError::Kernel { column, source }
        })?;
        Ok(Some(batch))
    }
}

impl Iterator for Filtered<'_> {
    type Item = Result<RecordBatch, ScanError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}

impl std::iter::FusedIterator for Filtered<'_> {}
