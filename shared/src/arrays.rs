//! A chunk's arrays, built straight from the message that [`crate::shape`] has checked.
//!
//! The Arrow crate's decoder takes 5 us for a chunk of tasks, most of it for values it
//! makes on the way; this takes 1 to 2 us. It knows the types of the schema, which are all
//! but carried-through columns; for the others the Arrow crate decodes the whole chunk.
//! `both_decoders_give_the_same_batch` holds the two against each other.

use std::sync::Arc;

use arrow_array::types::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMillisecondType,
    UInt64Type,
};
use arrow_array::{
    ArrayRef, BooleanArray, ListArray, PrimitiveArray, RecordBatch, StringArray, StructArray,
};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_ipc::{FieldNode, RecordBatch as Message};
use arrow_schema::{ArrowError, DataType, SchemaRef, TimeUnit};

/// Can [`build`] make arrays of this type?
#[must_use]
pub(crate) fn knows(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8
        | DataType::Boolean
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt64
        | DataType::Float32
        | DataType::Float64
        | DataType::Timestamp(TimeUnit::Millisecond, None) => true,
        DataType::List(item) => knows(item.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| knows(field.data_type())),
        _ => false,
    }
}

/// The batch that `message` describes in `body`, none of it copied.
///
/// # Safety
///
/// [`crate::shape::check`] accepted the message for this schema and body, all types are
/// [known](knows), and the body was written from a valid batch: offsets ascend and strings
/// are UTF-8.
pub(crate) unsafe fn build(
    schema: SchemaRef,
    message: &Message<'_>,
    body: &Buffer,
) -> Result<RecordBatch, ArrowError> {
    let (Some(nodes), Some(buffers)) = (message.nodes(), message.buffers()) else {
        return Err(misfit());
    };
    let mut parts = Parts {
        body,
        nodes: nodes.iter(),
        buffers: buffers.iter(),
    };
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        // SAFETY: passed on from the caller.
        columns.push(unsafe { parts.array(field.data_type()) }?);
    }
    RecordBatch::try_new(schema, columns)
}

fn misfit() -> ArrowError {
    ArrowError::IpcError("the message does not fit the schema it was checked against".to_owned())
}

struct Parts<'a, N, B> {
    body: &'a Buffer,
    nodes: N,
    buffers: B,
}

impl<'m, N, B> Parts<'_, N, B>
where
    N: Iterator<Item = &'m FieldNode>,
    B: Iterator<Item = &'m arrow_ipc::Buffer>,
{
    /// # Safety
    ///
    /// As of [`build`].
    unsafe fn array(&mut self, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
        let node = self.nodes.next().ok_or_else(misfit)?;
        let rows = usize::try_from(node.length()).map_err(|_| misfit())?;
        let nulls = if node.null_count() > 0 {
            Some(NullBuffer::new(BooleanBuffer::new(self.buffer()?, 0, rows)))
        } else {
            self.buffers.next().ok_or_else(misfit)?; // all ones
            None
        };
        Ok(match data_type {
            DataType::Utf8 => {
                // SAFETY: passed on from the caller.
                let offsets = unsafe { self.offsets(rows) }?;
                let values = self.buffer()?;
                // SAFETY: the last offset lies inside the values, as was checked; that
                // they are UTF-8 and cut at characters is the caller's promise.
                let array = unsafe { StringArray::new_unchecked(offsets, values, nulls) };
                Arc::new(array)
            }
            DataType::Boolean => {
                let values = BooleanBuffer::new(self.buffer()?, 0, rows);
                Arc::new(BooleanArray::new(values, nulls))
            }
            DataType::Int32 => self.primitive::<Int32Type>(rows, nulls)?,
            DataType::Int64 => self.primitive::<Int64Type>(rows, nulls)?,
            DataType::UInt64 => self.primitive::<UInt64Type>(rows, nulls)?,
            DataType::Float32 => self.primitive::<Float32Type>(rows, nulls)?,
            DataType::Float64 => self.primitive::<Float64Type>(rows, nulls)?,
            DataType::Timestamp(TimeUnit::Millisecond, None) => {
                self.primitive::<TimestampMillisecondType>(rows, nulls)?
            }
            DataType::List(item) => {
                // SAFETY: passed on from the caller.
                let offsets = unsafe { self.offsets(rows) }?;
                // SAFETY: passed on from the caller.
                let items = unsafe { self.array(item.data_type()) }?;
                Arc::new(ListArray::try_new(Arc::clone(item), offsets, items, nulls)?)
            }
            DataType::Struct(fields) => {
                let mut columns = Vec::with_capacity(fields.len());
                for field in fields {
                    // SAFETY: passed on from the caller.
                    columns.push(unsafe { self.array(field.data_type()) }?);
                }
                let fields = fields.clone();
                Arc::new(StructArray::try_new_with_length(
                    fields, columns, nulls, rows,
                )?)
            }
            _ => return Err(misfit()),
        })
    }

    fn primitive<T: ArrowPrimitiveType>(
        &mut self,
        rows: usize,
        nulls: Option<NullBuffer>,
    ) -> Result<ArrayRef, ArrowError> {
        let values = ScalarBuffer::new(self.buffer()?, 0, rows);
        Ok(Arc::new(PrimitiveArray::<T>::new(values, nulls)))
    }

    /// # Safety
    ///
    /// As of [`build`]: the offsets ascend.
    unsafe fn offsets(&mut self, rows: usize) -> Result<OffsetBuffer<i32>, ArrowError> {
        let buffer = self.buffer()?;
        if rows == 0 {
            return Ok(OffsetBuffer::new_empty());
        }
        let offsets = ScalarBuffer::new(buffer, 0, rows + 1);
        // SAFETY: not empty, as rows + 1 is at least 2; ascending by the caller's promise,
        // and from 0 on since the first was checked not to be above the last.
        Ok(unsafe { OffsetBuffer::new_unchecked(offsets) })
    }

    fn buffer(&mut self) -> Result<Buffer, ArrowError> {
        let buffer = self.buffers.next().ok_or_else(misfit)?;
        let start = usize::try_from(buffer.offset()).map_err(|_| misfit())?;
        let len = usize::try_from(buffer.length()).map_err(|_| misfit())?;
        if start
            .checked_add(len)
            .is_none_or(|end| end > self.body.len())
        {
            return Err(misfit());
        }
        Ok(self.body.slice_with_length(start, len))
    }
}
