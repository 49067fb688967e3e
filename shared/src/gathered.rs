//! Rows gathered along runs of others, as a chunk, without arrays in between.
//!
//! A chunk that a commit touches is the old one with a few rows changed: each of its buffers is a few pieces of the old
//! chunk's, and of the changes'. [`Frame::of`] says how long they become, from the runs and not from the rows, and
//! [`Sealed::write`] copies them to where they are to stand. A whole batch is the same with one run a column.
//!
//! Knows the types that `arrays` knows; `BatchEncoder` has the Arrow crate encode the others.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMillisecondType,
    UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_buffer::bit_mask::set_bits;
use arrow_buffer::{BooleanBuffer, NullBuffer};
use arrow_ipc::{FieldNode, MessageBuilder, MessageHeader, MetadataVersion, RecordBatchBuilder};
use arrow_schema::{DataType, TimeUnit};
use flatbuffers::FlatBufferBuilder;

use crate::batch::{BlockAt, enclosed};

/// Consecutive rows of one source, or of nulls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// [`NULLS`], or the number of the source.
    source: u32,
    start: usize,
    len: usize,
}

/// The source of nulls.
const NULLS: u32 = u32::MAX;

impl Run {
    /// `None`: nulls.
    #[must_use]
    pub fn of(source: Option<u32>, start: usize, len: usize) -> Self {
        Self {
            source: source.unwrap_or(NULLS),
            start: if source.is_some() { start } else { 0 },
            len,
        }
    }

    /// Does `next` take up where this one ends?
    #[must_use]
    pub fn goes_on(&self, next: &Self) -> bool {
        self.source == next.source && (self.source == NULLS || self.start + self.len == next.start)
    }

    /// Makes it longer by so many rows.
    pub fn lengthen(&mut self, rows: usize) {
        self.len += rows;
    }

    /// The number of the source; `None`: nulls.
    #[must_use]
    pub fn source(&self) -> Option<usize> {
        (self.source != NULLS).then_some(usize::try_from(self.source).unwrap_or(usize::MAX))
    }

    /// The first row of the source.
    #[must_use]
    pub fn start(&self) -> usize {
        self.start
    }

    /// How many rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.len
    }
}

/// A column: the rows of `sources` that `runs` name, in their order.
#[derive(Clone, Copy, Debug)]
pub struct Column<'a> {
    /// Of all sources.
    pub data_type: &'a DataType,
    /// What runs number.
    pub sources: &'a [ArrayRef],
    /// In the order of the rows.
    pub runs: &'a [Run],
}

/// A chunk as it will be: its message, and how long each buffer is.
#[derive(Clone, Debug)]
pub struct Frame {
    rows: usize,
    nodes: Vec<FieldNode>,
    buffers: Vec<arrow_ipc::Buffer>,
    body: usize,
}

impl Frame {
    /// The frame of `rows` rows. `None`: a column of a type that it does not know, or larger than its type can hold.
    #[must_use]
    pub fn of<'a>(rows: usize, columns: impl Iterator<Item = Column<'a>>) -> Option<Self> {
        let mut frame = Self {
            rows,
            nodes: Vec::with_capacity(32),
            buffers: Vec::with_capacity(96),
            body: 0,
        };
        for Column {
            data_type,
            sources,
            runs,
        } in columns
        {
            frame.array(data_type, sources, runs, rows)?;
        }
        Some(frame)
    }

    /// The frame of a whole batch.
    #[must_use]
    pub fn of_batch(batch: &RecordBatch) -> Option<Self> {
        let all = [Run::of(Some(0), 0, batch.num_rows())];
        Self::of(batch.num_rows(), columns_of(batch, &all))
    }

    /// Bytes of the body.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.body
    }

    /// How many rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    fn array(
        &mut self,
        data_type: &DataType,
        sources: &[ArrayRef],
        runs: &[Run],
        rows: usize,
    ) -> Option<()> {
        let nulls: usize = runs.iter().map(|run| nulls_in(sources, run)).sum();
        let all = [Run::of(None, 0, rows)];
        // What some encoders keep under nulls is not copied if there is nothing else.
        let runs = if nulls == rows { &all } else { runs };
        self.nodes.push(FieldNode::new(
            i64::try_from(rows).ok()?,
            i64::try_from(nulls).ok()?,
        ));
        self.buffer(if nulls == 0 { 0 } else { rows.div_ceil(8) })?;
        match data_type {
            DataType::Boolean => self.buffer(rows.div_ceil(8)),
            DataType::Utf8 => {
                let bytes = |run: &Run| {
                    let source = run.source().and_then(|source| sources.get(source));
                    source.map_or(0, |source| {
                        span(source.as_string::<i32>().value_offsets(), run).len()
                    })
                };
                let bytes = i32::try_from(runs.iter().map(bytes).sum::<usize>()).ok()?;
                self.buffer((rows + 1) * 4)?;
                self.buffer(usize::try_from(bytes).ok()?)
            }
            DataType::List(item) => {
                let (lists, items) = items(sources, runs);
                let count = items.iter().map(Run::rows).sum();
                let _fits = i32::try_from(count).ok()?;
                self.buffer((rows + 1) * 4)?;
                self.array(item.data_type(), &lists, &items, count)
            }
            DataType::Struct(fields) => {
                for (number, field) in fields.iter().enumerate() {
                    self.array(field.data_type(), &children(sources, number), runs, rows)?;
                }
                Some(())
            }
            other => self.buffer(rows.checked_mul(width(other)?)?),
        }
    }

    fn buffer(&mut self, bytes: usize) -> Option<()> {
        let (start, len) = (i64::try_from(self.body).ok()?, i64::try_from(bytes).ok()?);
        self.buffers.push(arrow_ipc::Buffer::new(start, len));
        self.body += bytes.next_multiple_of(64);
        Some(())
    }

    /// Its message, made by `builder`; `None` if it has 4 GiB or more.
    pub(crate) fn seal(&self, builder: &mut FlatBufferBuilder<'_>) -> Option<Sealed<'_>> {
        builder.reset();
        let buffers = builder.create_vector(&self.buffers);
        let nodes = builder.create_vector(&self.nodes);
        let mut batch = RecordBatchBuilder::new(builder);
        batch.add_length(i64::try_from(self.rows).ok()?);
        batch.add_nodes(nodes);
        batch.add_buffers(buffers);
        let batch = batch.finish().as_union_value();
        let mut message = MessageBuilder::new(builder);
        message.add_version(MetadataVersion::V5);
        message.add_header_type(MessageHeader::RecordBatch);
        message.add_bodyLength(i64::try_from(self.body).ok()?);
        message.add_header(batch);
        let message = message.finish();
        builder.finish(message, None);
        let metadata = enclosed(builder.finished_data())?;
        Some(Sealed {
            frame: self,
            meta_bytes: u32::try_from(metadata.len()).ok()?,
            body_bytes: u32::try_from(self.body).ok()?,
            metadata,
        })
    }
}

/// A chunk of which all is known but where it stands.
#[derive(Debug)]
pub struct Sealed<'f> {
    frame: &'f Frame,
    metadata: Vec<u8>,
    meta_bytes: u32,
    body_bytes: u32,
}

impl Sealed<'_> {
    /// Its block, if it stood at `offset`.
    #[must_use]
    pub fn at(&self, offset: u64) -> BlockAt {
        BlockAt {
            offset,
            meta_bytes: self.meta_bytes,
            body_bytes: self.body_bytes,
        }
    }

    /// Bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.at(0).bytes()
    }

    /// Writes it to `out`, which has its [bytes](Self::bytes): every one of them, padding included. `columns` are those that its
    /// frame is [of](Frame::of).
    pub fn write<'a>(&self, columns: impl Iterator<Item = Column<'a>>, out: &mut [u8]) {
        let body = put(out, &self.metadata);
        let mut parts = Parts {
            nodes: self.frame.nodes.iter(),
            buffers: self.frame.buffers.iter(),
            body,
        };
        for Column {
            data_type,
            sources,
            runs,
        } in columns
        {
            parts.array(data_type, sources, runs);
        }
    }

    /// The same, of the batch that its frame is [of](Frame::of_batch).
    pub fn write_batch(&self, batch: &RecordBatch, out: &mut [u8]) {
        let all = [Run::of(Some(0), 0, batch.num_rows())];
        self.write(columns_of(batch, &all), out);
    }
}

/// Columns that are gathered from themselves.
fn columns_of<'a>(batch: &'a RecordBatch, all: &'a [Run]) -> impl Iterator<Item = Column<'a>> {
    batch.columns().iter().map(|column| Column {
        data_type: column.data_type(),
        sources: std::slice::from_ref(column),
        runs: all,
    })
}

/// Takes the buffers of a body from its front, in their order.
struct Parts<'b, N, B> {
    nodes: N,
    buffers: B,
    body: &'b mut [u8],
}

impl<'f, 'b, N, B> Parts<'b, N, B>
where
    N: Iterator<Item = &'f FieldNode>,
    B: Iterator<Item = &'f arrow_ipc::Buffer>,
{
    fn array(&mut self, data_type: &DataType, sources: &[ArrayRef], runs: &[Run]) {
        let node = self.nodes.next();
        let count =
            |of: fn(&FieldNode) -> i64| node.and_then(|node| usize::try_from(of(node)).ok());
        let rows = count(FieldNode::length).unwrap_or(0);
        let all = [Run::of(None, 0, rows)];
        let is_null = count(FieldNode::null_count) == Some(rows);
        let runs = if is_null { &all } else { runs };
        let bitmap = self.next();
        if !bitmap.is_empty() {
            bits(bitmap, runs, |source| {
                let nulls = sources[source].nulls().map(NullBuffer::inner);
                nulls.map_or(Bits::Ones, Bits::Of)
            });
        }
        match data_type {
            DataType::Boolean => {
                let values = self.next();
                bits(values, runs, |source| {
                    Bits::Of(sources[source].as_boolean().values())
                });
            }
            DataType::Utf8 => {
                let of = |source: usize| sources[source].as_string::<i32>();
                offsets(self.next(), runs, |source| of(source).value_offsets());
                let mut values = self.next();
                for run in runs {
                    if let Some(source) = run.source() {
                        let texts = of(source);
                        let bytes = &texts.value_data()[span(texts.value_offsets(), run)];
                        values = put(values, bytes);
                    }
                }
            }
            DataType::List(item) => {
                let of = |source: usize| sources[source].as_list::<i32>();
                offsets(self.next(), runs, |source| of(source).value_offsets());
                let (lists, items) = items(sources, runs);
                self.array(item.data_type(), &lists, &items);
            }
            DataType::Struct(fields) => {
                for (number, field) in fields.iter().enumerate() {
                    self.array(field.data_type(), &children(sources, number), runs);
                }
            }
            other => {
                let width = width(other).unwrap_or(0);
                let mut values = self.next();
                for run in runs {
                    let (bytes, rows) = (run.source(), run.len * width);
                    values = match bytes.map(|source| bytes_of(sources[source].as_ref())) {
                        Some(bytes) => put(values, &bytes[run.start * width..][..rows]),
                        None => zeros(values, rows),
                    };
                }
            }
        }
    }

    /// The next buffer, whose padding is written.
    fn next(&mut self) -> &'b mut [u8] {
        let len = self.buffers.next().map_or(0, arrow_ipc::Buffer::length);
        let len = usize::try_from(len).unwrap_or(0);
        let (buffer, rest) = std::mem::take(&mut self.body).split_at_mut(len);
        self.body = zeros(rest, len.next_multiple_of(64) - len);
        buffer
    }
}

/// Puts `bytes` in front; what is left.
fn put<'b>(out: &'b mut [u8], bytes: &[u8]) -> &'b mut [u8] {
    let (front, rest) = out.split_at_mut(bytes.len());
    front.copy_from_slice(bytes);
    rest
}

/// Puts zeros in front; what is left.
fn zeros(out: &mut [u8], bytes: usize) -> &mut [u8] {
    let (front, rest) = out.split_at_mut(bytes);
    front.fill(0);
    rest
}

/// The bits of a source.
enum Bits<'a> {
    Ones,
    Of(&'a BooleanBuffer),
}

/// Gathers bits; zeros for nulls.
fn bits<'a>(out: &mut [u8], runs: &[Run], of: impl Fn(usize) -> Bits<'a>) {
    out.fill(0);
    let mut at = 0;
    for run in runs {
        match run.source().map(&of) {
            Some(Bits::Of(source)) => {
                let start = source.offset() + run.start;
                set_bits(out, source.values(), at, start, run.len);
            }
            Some(Bits::Ones) => ones(out, at, run.len),
            None => {}
        }
        at += run.len;
    }
}

/// Sets `len` bits from `at` on.
fn ones(out: &mut [u8], at: usize, len: usize) {
    let end = at + len;
    let (first, last) = (at.next_multiple_of(8).min(end), end / 8 * 8);
    for bit in (at..first).chain(last.max(first)..end) {
        out[bit / 8] |= 1 << (bit % 8);
    }
    if first < last {
        out[first / 8..last / 8].fill(0xff);
    }
}

/// Gathers offsets: from 0 on, whatever those of the sources begin with.
fn offsets<'a>(out: &mut [u8], runs: &[Run], of: impl Fn(usize) -> &'a [i32]) {
    let (out, _) = out.as_chunks_mut::<4>();
    let Some((first, mut out)) = out.split_first_mut() else {
        return;
    };
    let mut end = 0_i32;
    *first = end.to_le_bytes();
    for run in runs {
        let (own, rest) = out.split_at_mut(run.len);
        out = rest;
        match run.source().map(&of) {
            Some(source) => {
                let source = &source[run.start..=run.start + run.len];
                // Both are from 0 to i32::MAX, as is their sum: the frame was made.
                let shift = end.wrapping_sub(source[0]);
                for (own, at) in own.iter_mut().zip(&source[1..]) {
                    *own = at.wrapping_add(shift).to_le_bytes();
                }
                end = source[run.len].wrapping_add(shift);
            }
            None => own.fill(end.to_le_bytes()),
        }
    }
}

/// The nulls among the rows of a run.
fn nulls_in(sources: &[ArrayRef], run: &Run) -> usize {
    let Some(source) = run.source().and_then(|source| sources.get(source)) else {
        return run.len;
    };
    match source.nulls() {
        None => 0,
        Some(nulls) if run.len == nulls.len() || nulls.null_count() == 0 => nulls.null_count(),
        Some(nulls) if nulls.null_count() == nulls.len() => run.len,
        Some(nulls) if run.len == 1 => usize::from(nulls.is_null(run.start)),
        Some(nulls) => nulls.slice(run.start, run.len).null_count(),
    }
}

/// What the rows of a run span by the offsets of their source.
fn span(offsets: &[i32], run: &Run) -> std::ops::Range<usize> {
    let at = |row: usize| usize::try_from(offsets[row]).unwrap_or(0);
    at(run.start)..at(run.start + run.len)
}

/// The items of lists, along runs of theirs.
fn items(sources: &[ArrayRef], runs: &[Run]) -> (Vec<ArrayRef>, Vec<Run>) {
    let lists = sources.iter().map(|source| source.as_list::<i32>());
    let mut items: Vec<Run> = Vec::new();
    for run in runs {
        let Some(source) = run.source() else { continue };
        let span = span(sources[source].as_list::<i32>().value_offsets(), run);
        let next = Run {
            source: run.source,
            start: span.start,
            len: span.len(),
        };
        match items.last_mut() {
            _ if next.len == 0 => {}
            Some(last) if last.goes_on(&next) => last.len += next.len,
            _ => items.push(next),
        }
    }
    (lists.map(|list| Arc::clone(list.values())).collect(), items)
}

/// A field of structs.
fn children(sources: &[ArrayRef], number: usize) -> Vec<ArrayRef> {
    let columns = sources.iter();
    columns
        .map(|source| Arc::clone(source.as_struct().column(number)))
        .collect()
}

/// Bytes of a value of fixed width.
fn width(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::Int32 | DataType::Float32 => Some(4),
        DataType::Int64
        | DataType::UInt64
        | DataType::Float64
        | DataType::Timestamp(TimeUnit::Millisecond, None) => Some(8),
        _ => None,
    }
}

/// The values of an array of fixed width.
fn bytes_of(array: &dyn Array) -> &[u8] {
    fn of<T: ArrowPrimitiveType>(array: &dyn Array) -> &[u8] {
        array.as_primitive::<T>().values().inner().as_slice()
    }
    match array.data_type() {
        DataType::Int32 => of::<Int32Type>(array),
        DataType::Float32 => of::<Float32Type>(array),
        DataType::Int64 => of::<Int64Type>(array),
        DataType::UInt64 => of::<UInt64Type>(array),
        DataType::Float64 => of::<Float64Type>(array),
        DataType::Timestamp(TimeUnit::Millisecond, None) => of::<TimestampMillisecondType>(array),
        _ => &[],
    }
}
