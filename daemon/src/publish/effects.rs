//! Effects as an edit: each chunk that has a changed key is merged anew, one after the other.
//!
//! The chunks are found by going through the sorted keys and the chunks' first keys side by
//! side, so that a hundred thousand keys cost one pass and not as many searches.

use std::collections::VecDeque;
use std::ops::Range;

use arrow_array::RecordBatch;
use arrow_select::concat::concat_batches;
use sherwood_client::{Snapshot, Table};
use sherwood_shared::gathered::Frame;
use sherwood_shared::schema::TableId;
use sherwood_store::{ApplyError, Changes, Effects, Gathering};

use super::PublishError;
use super::change::{New, Splice};
use super::cut::{body_bytes, cut};
use super::edit::{Edit, Foreseen, TableEdit};
use super::tables::TableMap;

/// The changes of each table; `None`: none.
pub(super) fn changes<'a>(
    effects: &'a Effects,
    tables: &[TableMap; 3],
) -> Result<[Option<Changes<'a>>; 3], ApplyError> {
    let mut changes = [None, None, None];
    for (slot, table) in changes.iter_mut().zip(tables) {
        let effects = &effects.tables[table.id as usize];
        if !effects.is_empty() {
            let (upserts, delete) = (&effects.upserts, &effects.delete);
            *slot = Some(Changes::new(table.id, &table.schema, upserts, delete)?);
        }
    }
    Ok(changes)
}

/// About the most bytes that a row of the effects takes in a chunk.
pub(super) fn largest_row(effects: &Effects) -> u64 {
    let batches = effects.tables.iter().flat_map(|table| &table.upserts);
    let largest = batches.flat_map(|rows| {
        let rows_bytes = |row| body_bytes(rows, row, 1) as u64;
        (0..rows.num_rows()).map(rows_bytes)
    });
    largest.max().unwrap_or(0)
}

/// The edit that makes `changes` to what `tables` describes and `snapshot` holds.
pub(super) fn edit<'a>(
    effects: &Effects,
    changes: &'a [Option<Changes<'a>>; 3],
    tables: &[TableMap; 3],
    snapshot: &'a Snapshot,
    chunk_bytes: usize,
) -> Edit<'a> {
    let table = |id: TableId| {
        let Some(changes) = &changes[id as usize] else {
            return TableEdit::none();
        };
        let table = snapshot.table(id);
        let (touched, mut foreseen) = touched(&tables[id as usize], changes);
        let rows = effects.tables[id as usize].upserts.iter();
        let new: usize = rows.map(|rows| body_bytes(rows, 0, rows.num_rows())).sum();
        foreseen.bytes += new as u64;
        foreseen.chunks += new / chunk_bytes.max(1);
        foreseen.largest = foreseen.largest.max(chunk_bytes as u64);
        let merging = Merging {
            table,
            changes,
            touched: touched.into_iter(),
            chunks: table.chunk_count(),
            chunk_bytes,
            held: None,
            done: 0,
            ready: VecDeque::new(),
        };
        TableEdit {
            schema: changes.widen().then(|| changes.schema()),
            foreseen,
            splices: Box::new(merging),
        }
    };
    Edit {
        cluster: effects.cluster.clone(),
        tables: TableId::ALL.map(table),
    }
}

/// One chunk, and the numbers of the changes that fall into it.
#[derive(Debug)]
struct Touched {
    chunk: usize,
    changes: Range<usize>,
}

/// The chunks that changes fall into, ascending; all of them if the table gets columns.
fn touched(table: &TableMap, changes: &Changes<'_>) -> (Vec<Touched>, Foreseen) {
    let (mut touched, mut foreseen) = (Vec::new(), Foreseen::default());
    let mut next = 0; // change
    let mut number = 0; // of the part's first chunk
    let last_part = table.parts.len().saturating_sub(1);
    for (at, part) in table.parts.iter().enumerate() {
        let part_ends = table.parts.get(at + 1).and_then(|part| part.chunks.first());
        let mut chunk = 0;
        while chunk < part.chunks.len() && (next < changes.len() || changes.widen()) {
            if !changes.widen() {
                let Some(key) = changes.key(next) else { break };
                let beyond = |first: &str| first <= key;
                if part_ends.is_some_and(|next| beyond(&next.first_key)) && at < last_part {
                    break;
                }
                // The last chunk whose first key is not above it, or the first of all.
                let follow = &part.chunks[chunk + 1..];
                chunk += follow.partition_point(|next| beyond(&next.first_key));
            }
            let until = part.chunks.get(chunk + 1).or(part_ends);
            let start = next;
            while let Some(key) = changes.key(next)
                && until.is_none_or(|until| key < until.first_key.as_ref())
            {
                next += 1;
            }
            touched.push(Touched {
                chunk: number + chunk,
                changes: start..next,
            });
            let bytes = part.chunks[chunk].block.bytes();
            foreseen.largest = foreseen.largest.max(bytes);
            foreseen.bytes += bytes;
            chunk += 1;
        }
        number += part.chunks.len();
    }
    if number == 0 {
        touched.push(Touched {
            chunk: 0,
            changes: 0..changes.len(),
        });
    }
    foreseen.chunks = touched.len();
    foreseen.splices = touched.len();
    (touched, foreseen)
}

/// Merges chunk after chunk.
struct Merging<'a> {
    table: &'a Table,
    changes: &'a Changes<'a>,
    touched: std::vec::IntoIter<Touched>,
    /// Of the table.
    chunks: usize,
    chunk_bytes: usize,
    /// Rows too few for a chunk, and the chunks they come from: to be joined to a neighbour,
    /// so that deletions do not leave crumbs.
    held: Option<(Range<usize>, RecordBatch)>,
    /// Where the last splice ends.
    done: usize,
    ready: VecDeque<Splice>,
}

impl Iterator for Merging<'_> {
    type Item = Result<Splice, PublishError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(splice) = self.ready.pop_front() {
                return Some(Ok(splice));
            }
            let step = match self.touched.next() {
                Some(touched) => self.merge(&touched),
                None => match self.held.take() {
                    Some((old, rows)) => self.join(old, rows, self.chunks),
                    None => return None,
                },
            };
            if let Err(error) = step {
                return Some(Err(error));
            }
        }
    }
}

impl Merging<'_> {
    fn merge(&mut self, touched: &Touched) -> Result<(), PublishError> {
        let number = touched.chunk;
        let (old, range) = match self.table.batch(number)? {
            Some(old) => (old, number..number + 1),
            None => (RecordBatch::new_empty(self.table.schema()?), 0..0),
        };
        if let Some(chunk) = self.gather(&old, touched)? {
            if let Some((before, held)) = self.held.take() {
                self.join(before, held, range.start)?;
            }
            self.done = range.end;
            self.ready.push_back(Splice {
                old: range,
                new: New::Gathered(Box::new(chunk)),
            });
            return Ok(());
        }
        let Some(rows) = self.changes.merge(&old, touched.changes.clone())? else {
            return Ok(());
        };
        let (range, rows) = match self.held.take() {
            Some((before, held)) if before.end == range.start => {
                (before.start..range.end, self.concat(&held, &rows)?)
            }
            Some((before, held)) => {
                self.join(before, held, range.start)?;
                (range, rows)
            }
            None => (range, rows),
        };
        if self.is_small(&rows) && self.chunks > 1 {
            self.held = Some((range, rows));
        } else {
            self.splice(range, &rows);
        }
        Ok(())
    }

    /// The new rows of a chunk, if they make one chunk again: nearly always they do, and are gathered where they are to stand.
    fn gather(
        &self,
        old: &RecordBatch,
        touched: &Touched,
    ) -> Result<Option<(Gathering, Frame)>, PublishError> {
        let is_held_next_to_it = matches!(&self.held, Some((held, _)) if held.end == touched.chunk);
        if is_held_next_to_it || self.chunks == 0 {
            return Ok(None);
        }
        let Some(gathering) = self.changes.gather(old, touched.changes.clone())? else {
            return Ok(None);
        };
        let frame = Frame::of(gathering.rows(), gathering.columns());
        let frame = frame.filter(|frame| {
            let fits = frame.body_bytes() <= self.chunk_bytes && frame.rows() > 0;
            fits && (self.chunks == 1 || !self.is_few(frame.body_bytes()))
        });
        Ok(frame.map(|frame| (gathering, frame)))
    }

    /// Joins too few rows to a neighbour that is not changed itself, if there is one: that
    /// before, or that behind if it lies below `free`.
    fn join(
        &mut self,
        mut range: Range<usize>,
        mut rows: RecordBatch,
        free: usize,
    ) -> Result<(), PublishError> {
        if rows.num_rows() > 0 && !self.changes.widen() {
            if range.start > self.done {
                if let Some(before) = self.table.batch(range.start - 1)? {
                    rows = self.concat(&before, &rows)?;
                    range.start -= 1;
                }
            } else if range.end < free
                && let Some(behind) = self.table.batch(range.end)?
            {
                rows = self.concat(&rows, &behind)?;
                range.end += 1;
            }
        }
        self.splice(range, &rows);
        Ok(())
    }

    fn splice(&mut self, old: Range<usize>, rows: &RecordBatch) {
        self.done = old.end;
        let pieces = cut(rows, self.chunk_bytes);
        let new = match pieces.as_slice() {
            // A slice of all rows would count its nulls anew.
            [_all] => vec![rows.clone()],
            pieces => pieces
                .iter()
                .map(|piece| rows.slice(piece.start, piece.len()))
                .collect(),
        };
        self.ready.push_back(Splice {
            old,
            new: New::Chunks(new),
        });
    }

    fn is_small(&self, rows: &RecordBatch) -> bool {
        self.is_few(body_bytes(rows, 0, rows.num_rows()))
    }

    /// Are so many bytes too few for a chunk?
    fn is_few(&self, bytes: usize) -> bool {
        bytes < self.chunk_bytes / 4
    }

    fn concat(&self, a: &RecordBatch, b: &RecordBatch) -> Result<RecordBatch, PublishError> {
        concat_batches(&a.schema(), [a, b]).map_err(|source| PublishError::Rows {
            table: self.table.id().name(),
            source,
        })
    }
}
