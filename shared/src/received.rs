//! Record batches that another process sends, as Arrow IPC messages: schema first, then batches.
//!
//! Nothing about them is trusted: each count and buffer is checked ([`crate::shape`]), then each value. What no chunk
//! may hold (dictionaries, views, compressed bodies) is refused by name.

use std::collections::HashMap;

use arrow_array::RecordBatch;
use arrow_buffer::{Buffer, MutableBuffer};
use arrow_ipc::reader::RecordBatchDecoder;
use arrow_ipc::{MessageHeader, MetadataVersion, root_as_message};
use arrow_schema::{ArrowError, Schema, SchemaRef};

use crate::batch::DecodeError;
use crate::footer::schema_of;
use crate::shape::{self, ShapeError, is_supported};

fn damaged(what: &str) -> ArrowError {
    ArrowError::IpcError(what.to_owned())
}

/// The schema in a message.
pub fn schema(message: &[u8]) -> Result<Schema, DecodeError> {
    let message = root_as_message(message)
        .map_err(|error| DecodeError::Message(damaged(&error.to_string())))?;
    let schema = message.header_as_schema();
    let schema = schema.ok_or_else(|| DecodeError::Message(damaged("not a schema")))?;
    if schema.fields().is_none() || schema.endianness() != arrow_ipc::Endianness::Little {
        let what = "a schema without fields, or big-endian";
        return Err(DecodeError::Message(damaged(what)));
    }
    let schema = schema_of(schema).map_err(DecodeError::Message)?;
    for field in schema.fields() {
        if !is_supported(field.data_type()) {
            let what = format!("the column {:?} ({})", field.name(), field.data_type());
            return Err(ShapeError::Kind { what }.into());
        }
    }
    Ok(schema)
}

/// The batch in a message, copied once if its body is not aligned.
pub fn batch(schema: &SchemaRef, message: &[u8], body: Buffer) -> Result<RecordBatch, DecodeError> {
    const ALIGN: usize = 64;
    let message = root_as_message(message)
        .map_err(|error| DecodeError::Message(damaged(&error.to_string())))?;
    if message.version() != MetadataVersion::V5 {
        let what = "a message of another version than 5";
        return Err(DecodeError::Message(damaged(what)));
    }
    if message.header_type() == MessageHeader::DictionaryBatch {
        let what = "a dictionary".to_owned();
        return Err(ShapeError::Kind { what }.into());
    }
    let batch = message.header_as_record_batch();
    let batch = batch.ok_or_else(|| DecodeError::Message(damaged("not a record batch")))?;
    shape::check_aligned(schema, &batch, &body, 8)?;
    let body = if body.as_ptr().align_offset(ALIGN) == 0 {
        body
    } else {
        let mut aligned = MutableBuffer::new(body.len());
        aligned.extend_from_slice(&body);
        drop(body);
        aligned.into()
    };
    let (schema, none) = (SchemaRef::clone(schema), HashMap::new());
    RecordBatchDecoder::try_new(&body, batch, schema, &none, &MetadataVersion::V5)
        .and_then(|decoder| decoder.with_require_alignment(false).read_record_batch())
        .map_err(DecodeError::Message)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::DictionaryArray;
    use arrow_array::types::Int32Type;
    use arrow_array::{ArrayRef, Int64Array, ListArray, StringArray};
    use arrow_ipc::writer::{
        DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions,
    };

    use super::*;

    /// As other writers encode: buffers on multiples of 8.
    fn encoded(rows: &RecordBatch) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        let options = IpcWriteOptions::try_new(8, false, MetadataVersion::V5).unwrap();
        let (mut tracker, mut context) =
            (DictionaryTracker::new(false), IpcWriteContext::default());
        let generator = IpcDataGenerator::default();
        let schema = generator.schema_to_bytes_with_dictionary_tracker(
            &rows.schema(),
            &mut tracker,
            &options,
        );
        let (_, batch) = generator
            .encode(rows, &mut tracker, &options, &mut context)
            .unwrap();
        (schema.ipc_message, batch.ipc_message, batch.arrow_data)
    }

    fn rows() -> RecordBatch {
        let ids: ArrayRef = Arc::new(StringArray::from(vec!["a", "bb", "c"]));
        let sizes: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
        let lists = [Some(vec![Some(1)]), None, Some(vec![None, Some(2)])];
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists));
        RecordBatch::try_from_iter([("id", ids), ("size", sizes), ("list", lists)]).unwrap()
    }

    #[test]
    fn a_batch_survives_wherever_its_bytes_lie() {
        let (schema_message, message, body) = encoded(&rows());
        let schema = Arc::new(schema(&schema_message).unwrap());
        for shift in 0..64 {
            let mut moved = vec![0; shift];
            moved.extend_from_slice(&body);
            let moved = Buffer::from(moved).slice(shift);
            assert_eq!(batch(&schema, &message, moved).unwrap(), rows(), "{shift}");
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_a_batch_or_an_error_but_no_panic() {
        let (schema_message, message, body) = encoded(&rows());
        let good = Arc::new(schema(&schema_message).unwrap());
        for bit in 0..message.len() * 8 {
            let mut bad = message.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let _either = batch(&good, &bad, Buffer::from(body.clone()));
        }
        for bit in 0..body.len() * 8 {
            let mut bad = body.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            if let Ok(read) = batch(&good, &message, Buffer::from(bad)) {
                for column in read.columns() {
                    column.to_data().validate_full().unwrap();
                }
            }
        }
        for cut in 0..message.len() {
            assert!(
                batch(&good, &message[..cut], Buffer::from(body.clone())).is_err(),
                "{cut}"
            );
        }
        for cut in 0..body.len() - 64 {
            let _either = batch(&good, &message, Buffer::from(&body[..cut]));
        }
        for bit in 0..schema_message.len() * 8 {
            let mut bad = schema_message.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = schema(&bad) {
                let _either = batch(&Arc::new(other), &message, Buffer::from(body.clone()));
            }
        }
    }

    #[test]
    fn what_no_chunk_holds_is_refused_by_name() {
        let categories: DictionaryArray<Int32Type> = vec!["a", "b", "a"].into_iter().collect();
        let categories: ArrayRef = Arc::new(categories);
        let (schema_message, ..) =
            encoded(&RecordBatch::try_from_iter([("kind", categories)]).unwrap());
        let error = schema(&schema_message).unwrap_err().to_string();
        assert!(error.contains("\"kind\""), "{error}");
    }
}
