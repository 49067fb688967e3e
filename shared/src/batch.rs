//! One chunk: a record batch as an encapsulated Arrow IPC message, metadata then body.
//!
//! The encoding is the Arrow columnar specification's, version 5, little-endian, with
//! every buffer on a multiple of 64 bytes, no compression and no dictionaries, so that
//! a batch decodes without copying a byte.

use std::collections::HashMap;

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_data::UnsafeFlag;
use arrow_ipc::reader::RecordBatchDecoder;
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_ipc::{MetadataVersion, root_as_message};
use arrow_schema::{ArrowError, SchemaRef};
use flatbuffers::FlatBufferBuilder;
use thiserror::Error;

use crate::arrays;
use crate::gathered::{Frame, Sealed};
use crate::layout::{ALIGN, align_up};
use crate::shape::{self, ShapeError};

/// The four bytes that begin every encapsulated message since Arrow 0.15.
const CONTINUATION: [u8; 4] = [0xff; 4];

/// Where a chunk stands in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockAt {
    /// First byte; a multiple of 64.
    pub offset: u64,
    /// Bytes of prefix, metadata and padding; a multiple of 64.
    pub meta_bytes: u32,
    /// Bytes of the body; a multiple of 64.
    pub body_bytes: u32,
}

impl BlockAt {
    /// Bytes of both.
    #[must_use]
    pub fn bytes(self) -> u64 {
        u64::from(self.meta_bytes) + u64::from(self.body_bytes)
    }

    /// First byte after it; `None` if no file is that long.
    #[must_use]
    pub fn end(self) -> Option<u64> {
        self.offset.checked_add(self.bytes())
    }
}

/// Turns record batches into messages. Keeps its buffers between calls.
#[derive(Default)]
pub struct BatchEncoder {
    context: IpcWriteContext,
    builder: FlatBufferBuilder<'static>,
}

impl std::fmt::Debug for BatchEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchEncoder").finish_non_exhaustive()
    }
}

/// A batch ready to be written at a place that is a multiple of 64.
#[derive(Debug)]
pub struct EncodedBatch {
    metadata: Vec<u8>,
    body: Vec<u8>,
    meta_bytes: u32,
    body_bytes: u32,
}

impl EncodedBatch {
    /// Its block, if it were written at `offset`.
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

    /// Its pieces in order, each with its place relative to the block's first byte.
    pub fn pieces(&self) -> impl Iterator<Item = (usize, &[u8])> {
        [
            (0, &self.metadata[..]),
            (self.metadata.len(), &self.body[..]),
        ]
        .into_iter()
    }
}

impl BatchEncoder {
    /// The message of a chunk of gathered rows.
    ///
    /// # Errors
    ///
    /// A chunk of 4 GiB or more.
    pub fn seal<'f>(&mut self, frame: &'f Frame) -> Result<Sealed<'f>, ArrowError> {
        frame.seal(&mut self.builder).ok_or_else(too_large)
    }

    /// Encodes a batch without dictionaries.
    ///
    /// Fails for a batch of 4 GiB or more, and for types that Arrow IPC cannot hold.
    pub fn encode(&mut self, batch: &RecordBatch) -> Result<EncodedBatch, ArrowError> {
        let Some(frame) = Frame::of_batch(batch) else {
            return self.by_arrow(batch);
        };
        let sealed = self.seal(&frame)?;
        let mut bytes = vec![0; usize::try_from(sealed.bytes()).map_err(|_| too_large())?];
        sealed.write_batch(batch, &mut bytes);
        let at = sealed.at(0);
        let body = bytes.split_off(usize::try_from(at.meta_bytes).map_err(|_| too_large())?);
        Ok(EncodedBatch {
            metadata: bytes,
            body,
            meta_bytes: at.meta_bytes,
            body_bytes: at.body_bytes,
        })
    }

    /// Of any types.
    fn by_arrow(&mut self, batch: &RecordBatch) -> Result<EncodedBatch, ArrowError> {
        let alignment = usize::try_from(ALIGN).unwrap_or(64);
        let options = IpcWriteOptions::try_new(alignment, false, MetadataVersion::V5)?;
        let mut tracker = DictionaryTracker::new(false);
        let generator = IpcDataGenerator::default();
        let (dictionaries, encoded) =
            generator.encode(batch, &mut tracker, &options, &mut self.context)?;
        if !dictionaries.is_empty() {
            let what = "a chunk has no dictionaries; cast the column to its values first";
            return Err(ArrowError::InvalidArgumentError(what.to_owned()));
        }
        let metadata = enclosed(&encoded.ipc_message).ok_or_else(too_large)?;
        let body = encoded.arrow_data;
        Ok(EncodedBatch {
            meta_bytes: u32::try_from(metadata.len()).map_err(|_| too_large())?,
            body_bytes: u32::try_from(body.len()).map_err(|_| too_large())?,
            metadata,
            body,
        })
    }
}

/// A message with what goes before and behind it; `None` if it is too long.
pub(crate) fn enclosed(message: &[u8]) -> Option<Vec<u8>> {
    let padded = align_up(8 + message.len() as u64);
    let mut metadata = vec![0; usize::try_from(padded).ok()?];
    metadata[0..4].copy_from_slice(&CONTINUATION);
    metadata[4..8].copy_from_slice(&(u32::try_from(padded).ok()? - 8).to_le_bytes());
    metadata[8..8 + message.len()].copy_from_slice(message);
    Some(metadata)
}

fn too_large() -> ArrowError {
    ArrowError::InvalidArgumentError("a chunk of 4 GiB or more".to_owned())
}

/// Why a chunk could not be decoded: the file is damaged.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// Its metadata is not a record batch message, or does not fit the schema.
    #[error("the message of the chunk is damaged")]
    Message(#[source] ArrowError),
    /// Its metadata does not describe a batch of the table's schema.
    #[error("the chunk does not fit the table's schema: {0}")]
    Shape(#[from] ShapeError),
}

/// Decodes the chunks of one table, without copying and without looking at each value.
///
/// For files whose owner is trusted (F11): every buffer is checked to lie inside the
/// chunk, to be aligned and to be as long as its rows need ([`crate::shape`]); the values
/// in it are not. [`decode_checked`](Self::decode_checked) looks at every value as well.
#[derive(Debug)]
pub struct BatchDecoder {
    schema: SchemaRef,
    /// All columns are of types that [`crate::arrays`] knows.
    is_plain: bool,
}

impl BatchDecoder {
    /// For chunks of this schema.
    #[must_use]
    pub fn new(schema: SchemaRef) -> Self {
        let is_plain = schema
            .fields()
            .iter()
            .all(|field| arrays::knows(field.data_type()));
        Self { schema, is_plain }
    }

    /// Decodes `block`, the exact bytes of one chunk, of which `meta_bytes` are metadata.
    pub fn decode(&self, block: &Buffer, meta_bytes: u32) -> Result<RecordBatch, DecodeError> {
        let (message, body) = self.check(block, meta_bytes)?;
        if !self.is_plain {
            let mut trusted = UnsafeFlag::new();
            // SAFETY: as for `arrays::build`, just below.
            unsafe { trusted.set(true) };
            return self.by_arrow(message, &body, trusted);
        }
        // SAFETY: `check` accepted the message, the types are known, and the chunk comes
        // from a file whose owner is trusted (F11), written by `BatchEncoder` from a
        // valid batch.
        let batch = unsafe { arrays::build(SchemaRef::clone(&self.schema), &message, &body) };
        batch.map_err(DecodeError::Message)
    }

    /// The same, with every value validated: offsets, UTF-8, null counts.
    pub fn decode_checked(
        &self,
        block: &Buffer,
        meta_bytes: u32,
    ) -> Result<RecordBatch, DecodeError> {
        let (message, body) = self.check(block, meta_bytes)?;
        self.by_arrow(message, &body, UnsafeFlag::new())
    }

    /// The message of a block that fits the schema, and the block's body.
    fn check<'b>(
        &self,
        block: &'b Buffer,
        meta_bytes: u32,
    ) -> Result<(arrow_ipc::RecordBatch<'b>, Buffer), DecodeError> {
        let damaged = |what: &str| DecodeError::Message(ArrowError::IpcError(what.to_owned()));
        let split = usize::try_from(meta_bytes).unwrap_or(usize::MAX);
        if split < 8 || block.len() < split || block[0..4] != CONTINUATION {
            return Err(damaged("no message begins here"));
        }
        let message = root_as_message(&block[8..split])
            .map_err(|error| DecodeError::Message(ArrowError::IpcError(error.to_string())))?;
        if message.version() != MetadataVersion::V5 {
            return Err(damaged("a message of another version than 5"));
        }
        let batch = message.header_as_record_batch();
        let batch = batch.ok_or_else(|| damaged("not a record batch"))?;
        shape::check(&self.schema, &batch, &block[split..])?;
        Ok((batch, block.slice(split)))
    }

    fn by_arrow(
        &self,
        message: arrow_ipc::RecordBatch<'_>,
        body: &Buffer,
        skip_validation: UnsafeFlag,
    ) -> Result<RecordBatch, DecodeError> {
        let (schema, none) = (SchemaRef::clone(&self.schema), HashMap::new());
        RecordBatchDecoder::try_new(body, message, schema, &none, &MetadataVersion::V5)
            .and_then(|decoder| {
                decoder
                    .with_require_alignment(true)
                    .with_skip_validation(skip_validation)
                    .read_record_batch()
            })
            .map_err(DecodeError::Message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{TableId, table_schema};
    use arrow_array::{ArrayRef, BooleanArray, Int64Array, ListArray, StringArray, StructArray};
    use arrow_buffer::{NullBuffer, OffsetBuffer};
    use arrow_schema::DataType;
    use std::sync::Arc;

    fn batch() -> RecordBatch {
        let ids: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
        let sizes: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
        RecordBatch::try_from_iter([("id", ids), ("size", sizes)]).expect("equal lengths")
    }

    fn block(encoded: &EncodedBatch) -> Buffer {
        let bytes: Vec<u8> = encoded
            .pieces()
            .flat_map(|(_, piece)| piece)
            .copied()
            .collect();
        assert_eq!(bytes.len() as u64, encoded.bytes());
        let mut aligned = arrow_buffer::MutableBuffer::new(bytes.len());
        aligned.extend_from_slice(&bytes);
        aligned.into()
    }

    #[test]
    fn a_batch_survives_the_round_trip_without_a_copy() {
        let encoded = BatchEncoder::default().encode(&batch()).expect("encodes");
        let block = block(&encoded);
        let decoder = BatchDecoder::new(batch().schema());
        let decoded = decoder.decode(&block, encoded.meta_bytes).expect("decodes");
        assert_eq!(decoded, batch());
        let inside = block.as_ptr_range();
        let values = decoded.column(1).to_data().buffers()[0].as_ptr();
        assert!(inside.contains(&values), "copied");
    }

    /// A batch of every table of the schema, with nulls of every kind.
    fn batch_of(table: TableId, rows: usize) -> RecordBatch {
        let schema = table_schema(table);
        let columns = schema
            .fields()
            .iter()
            .map(|field| column(field.data_type(), field.is_nullable(), rows));
        RecordBatch::try_new(schema.clone(), columns.collect()).expect("the schema's columns")
    }

    fn column(data_type: &DataType, nullable: bool, rows: usize) -> ArrayRef {
        let null = |row: usize| nullable && row % 5 == 3;
        let nulls = || NullBuffer::from_iter((0..rows).map(|row| !null(row)));
        match data_type {
            DataType::Utf8 => Arc::new(StringArray::from_iter(
                (0..rows).map(|row| (!null(row)).then(|| format!("{row:06}é"))),
            )),
            DataType::Boolean => Arc::new(BooleanArray::from_iter(
                (0..rows).map(|row| (!null(row)).then_some(row % 3 == 0)),
            )),
            DataType::List(item) => {
                let lens = (0..rows).map(|row| if null(row) { 0 } else { row % 4 });
                let offsets = OffsetBuffer::<i32>::from_lengths(lens);
                let items = column(
                    item.data_type(),
                    true,
                    offsets[rows].try_into().expect("small"),
                );
                Arc::new(ListArray::new(
                    Arc::clone(item),
                    offsets,
                    items,
                    Some(nulls()),
                ))
            }
            DataType::Struct(fields) => {
                let columns = fields
                    .iter()
                    .map(|field| column(field.data_type(), true, rows));
                Arc::new(StructArray::new(
                    fields.clone(),
                    columns.collect(),
                    Some(nulls()),
                ))
            }
            other => {
                let numbers =
                    Int64Array::from_iter((0..rows).map(|row| (!null(row)).then_some(row as i64)));
                arrow_cast::cast(&numbers, other).expect("a number becomes it")
            }
        }
    }

    #[test]
    fn both_decoders_give_the_same_batch() {
        for table in TableId::ALL {
            for rows in [0, 1, 7, 8, 9, 64, 1000] {
                let batch = batch_of(table, rows);
                let encoded = BatchEncoder::default().encode(&batch).expect("encodes");
                let block = block(&encoded);
                let decoder = BatchDecoder::new(batch.schema());
                assert!(decoder.is_plain, "{table:?}");
                let ours = decoder.decode(&block, encoded.meta_bytes).expect("decodes");
                let arrows = decoder
                    .decode_checked(&block, encoded.meta_bytes)
                    .expect("decodes");
                assert_eq!(ours, batch, "{table:?}, {rows} rows");
                assert_eq!(ours, arrows, "{table:?}, {rows} rows");
            }
        }
    }

    #[test]
    fn every_bit_flip_of_the_metadata_decodes_or_is_an_error_but_never_panics() {
        let encoded = BatchEncoder::default().encode(&batch()).expect("encodes");
        let good = block(&encoded).to_vec();
        let decoder = BatchDecoder::new(batch().schema());
        for bit in 0..usize::try_from(encoded.meta_bytes).expect("small") * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let mut aligned = arrow_buffer::MutableBuffer::new(bad.len());
            aligned.extend_from_slice(&bad);
            let _ = decoder.decode_checked(&aligned.into(), encoded.meta_bytes);
        }
    }
}
