//! What a publish is to write: splices of chunks, made one after the other while they are written,
//! so that a change of a whole table is never on the heap as a whole.

use std::ops::Range;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use sherwood_client::{ReadError, Snapshot, Table};
use sherwood_shared::schema::TableId;

use super::change::{Change, New, Splice, TableChange};
use super::cut::body_bytes;
use super::error::PublishError;

/// An edit of the state.
pub(super) struct Edit<'a> {
    /// The cluster's row, if it changes.
    pub(super) cluster: Option<RecordBatch>,
    /// By [`TableId`].
    pub(super) tables: [TableEdit<'a>; 3],
}

/// An edit of one table.
pub(super) struct TableEdit<'a> {
    /// If this is another one than before, every chunk is replaced.
    pub(super) schema: Option<SchemaRef>,
    /// Bytes of chunks, about, and in how many splices.
    pub(super) foreseen: Foreseen,
    /// Ascending, not overlapping.
    pub(super) splices: Box<dyn Iterator<Item = Result<Splice, PublishError>> + 'a>,
}

/// What an edit will need, about (W2).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Foreseen {
    pub(super) bytes: u64,
    pub(super) largest: u64,
    pub(super) chunks: usize,
    pub(super) splices: usize,
}

impl<'a> Edit<'a> {
    /// Nothing but a new generation.
    pub(super) fn none() -> Self {
        Self {
            cluster: None,
            tables: [TableEdit::none(), TableEdit::none(), TableEdit::none()],
        }
    }

    /// Chunks that are there already.
    pub(super) fn of(change: &'a Change) -> Self {
        Self {
            cluster: change.cluster.clone(),
            tables: change.tables.each_ref().map(TableEdit::of),
        }
    }

    /// Everything that a snapshot has, chunk by chunk: what a new file begins with.
    pub(super) fn copy(snapshot: &'a Snapshot) -> Result<Self, ReadError> {
        let table = |id| TableEdit::copy(snapshot.table(id));
        Ok(Self {
            cluster: Some(snapshot.cluster()?),
            tables: [
                table(TableId::Nodes)?,
                table(TableId::Tasks)?,
                table(TableId::Content)?,
            ],
        })
    }
}

impl<'a> TableEdit<'a> {
    pub(super) fn none() -> Self {
        Self {
            schema: None,
            foreseen: Foreseen::default(),
            splices: Box::new(std::iter::empty()),
        }
    }

    fn of(change: &'a TableChange) -> Self {
        match change {
            TableChange::Keep => Self::none(),
            TableChange::Splices(splices) => Self {
                schema: None,
                foreseen: foreseen(splices.iter().flat_map(Splice::chunks), splices.len()),
                splices: Box::new(splices.iter().cloned().map(Ok)),
            },
            TableChange::Replace {
                schema,
                old,
                chunks,
            } => {
                let whole = Splice {
                    old: Range::clone(old),
                    new: New::Chunks(chunks.clone()),
                };
                Self {
                    schema: Some(SchemaRef::clone(schema)),
                    foreseen: foreseen(chunks.iter(), 1),
                    splices: Box::new(std::iter::once(Ok(whole))),
                }
            }
        }
    }

    fn copy(table: &'a Table) -> Result<Self, ReadError> {
        let splices = table.batches().map(|batch| {
            Ok(Splice {
                old: 0..0,
                new: New::Chunks(vec![batch?]),
            })
        });
        Ok(Self {
            schema: Some(table.schema()?),
            foreseen: Foreseen::default(),
            splices: Box::new(splices),
        })
    }
}

fn foreseen<'c>(chunks: impl Iterator<Item = &'c RecordBatch>, splices: usize) -> Foreseen {
    let mut foreseen = Foreseen {
        splices,
        ..Foreseen::default()
    };
    for rows in chunks {
        let bytes = body_bytes(rows, 0, rows.num_rows()) as u64;
        foreseen.largest = foreseen.largest.max(bytes);
        foreseen.bytes += bytes;
        foreseen.chunks += 1;
    }
    foreseen
}
