//! Arrow arrays as the bytes of a record: Arrow's own buffers in Arrow's order, packed.
//!
//! The byte table is docs/format.md, section 11. An Arrow IPC message holds the same arrays behind a description of
//! their buffers; for the single row that most records hold, that description is several times the row
//! (docs/design.md, section 10). Here the schema, which the segment knows, is the description.
//!
//! - **J1** What was written comes back equal: same types, same values, same nulls. What stands under a null is not kept.
//! - **J2** Bytes are not trusted: no read leaves them, no length is believed before the bytes for it were seen, and
//!   arrow validates every array (offsets, UTF-8, nulls).

use std::sync::Arc;

use arrow_array::types::{
    ArrowPrimitiveType, Float32Type, Int32Type, Int64Type, TimestampMillisecondType,
};
use arrow_array::{
    ArrayRef, PrimitiveArray, RecordBatch, RecordBatchOptions, StringArray, make_array,
    new_null_array,
};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer, bit_util};
use arrow_data::ArrayData;
use arrow_schema::{DataType, SchemaRef, TimeUnit};

use super::bytes::{Bytes, Malformed, put_varint};

/// How an array's nulls are written.
const NO_NULLS: u8 = 0;
const BITMAP: u8 = 1;
const ALL_NULL: u8 = 2;

/// Appends a batch: its number of rows, then its columns.
pub(super) fn put_batch(out: &mut Vec<u8>, batch: &RecordBatch) {
    put_varint(out, batch.num_rows() as u64);
    for column in batch.columns() {
        // Most columns of most rows are; this is all there is to them.
        if column.null_count() == column.len()
            && !column.is_empty()
            && may_leave_nulls_out(column.data_type(), true)
        {
            out.push(ALL_NULL);
        } else {
            put_array(out, &column.to_data(), true);
        }
    }
}

/// A schema, with what is needed to read batches of it quickly.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) schema: SchemaRef,
    /// For each column an array of one null, if that may be [left out](may_leave_nulls_out).
    nulls: Vec<Option<ArrayRef>>,
}

impl Known {
    /// A schema whose types are all [supported](sherwood_shared::shape::is_supported).
    pub(super) fn new(schema: SchemaRef) -> Self {
        let fields = schema.fields().iter();
        let nulls = fields.map(|field| {
            may_leave_nulls_out(field.data_type(), true)
                .then(|| new_null_array(field.data_type(), 1))
        });
        Self {
            nulls: nulls.collect(),
            schema,
        }
    }
}

/// Reads a batch.
pub(super) fn take_batch(bytes: &mut Bytes<'_>, known: &Known) -> Result<RecordBatch, Malformed> {
    let rows = bytes.varint()?;
    let rows = i32::try_from(rows).map_err(|_| Malformed("more rows than a table can have"))?;
    let rows = usize::try_from(rows).map_err(|_| Malformed("a negative number of rows"))?;
    let schema = &known.schema;
    let mut columns = Vec::with_capacity(schema.fields().len());
    for (field, null) in schema.fields().iter().zip(&known.nulls) {
        let is_one_null = rows == 1 && bytes.rest().first() == Some(&ALL_NULL);
        columns.push(match null {
            Some(null) if is_one_null => {
                bytes.byte()?;
                Arc::clone(null)
            }
            _ => take_array(bytes, field.data_type(), rows)?,
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(|_| Malformed("columns that do not fit their schema"))
}

/// Only nulls may be left out where they cost as many bytes as values would: below a list of fixed size
/// a few bytes could claim any number of them (J2).
fn may_leave_nulls_out(data_type: &DataType, outside_fixed: bool) -> bool {
    outside_fixed
        && match data_type {
            DataType::FixedSizeList(..) | DataType::FixedSizeBinary(_) | DataType::Null => false,
            DataType::Struct(fields) => fields
                .iter()
                .all(|field| may_leave_nulls_out(field.data_type(), true)),
            _ => true,
        }
}

fn put_array(out: &mut Vec<u8>, data: &ArrayData, outside_fixed: bool) {
    let (rows, first) = (data.len(), data.offset());
    match data.nulls() {
        Some(nulls)
            if nulls.null_count() == rows
                && rows > 0
                && may_leave_nulls_out(data.data_type(), outside_fixed) =>
        {
            return out.push(ALL_NULL);
        }
        Some(nulls) if nulls.null_count() > 0 => {
            out.push(BITMAP);
            put_bits(out, nulls.inner());
        }
        _ => out.push(NO_NULLS),
    }
    let buffer = |at: usize| data.buffers().get(at).map_or(&[][..], Buffer::as_slice);
    let child = |from: usize, len: usize| data.child_data().first().map(|c| c.slice(from, len));
    match data.data_type() {
        DataType::Null => {}
        DataType::Boolean => {
            if let Some(bits) = data.buffers().first() {
                put_bits(out, &BooleanBuffer::new(bits.clone(), first, rows));
            }
        }
        DataType::Utf8 | DataType::Binary => {
            let (from, to) = put_lengths(out, typed::<i32>(data), rows);
            out.extend_from_slice(buffer(1).get(from..to).unwrap_or(&[]));
        }
        DataType::LargeUtf8 | DataType::LargeBinary => {
            let (from, to) = put_lengths(out, typed::<i64>(data), rows);
            out.extend_from_slice(buffer(1).get(from..to).unwrap_or(&[]));
        }
        DataType::List(_) | DataType::Map(..) => {
            let (from, to) = put_lengths(out, typed::<i32>(data), rows);
            if let Some(items) = child(from, to - from) {
                put_array(out, &items, outside_fixed);
            }
        }
        DataType::LargeList(_) => {
            let (from, to) = put_lengths(out, typed::<i64>(data), rows);
            if let Some(items) = child(from, to - from) {
                put_array(out, &items, outside_fixed);
            }
        }
        DataType::FixedSizeList(_, size) => {
            let size = usize::try_from(*size).unwrap_or(0);
            if let Some(items) = child(first * size, rows * size) {
                put_array(out, &items, false);
            }
        }
        DataType::Struct(_) => {
            for child in data.child_data() {
                put_array(out, &child.slice(first, rows), outside_fixed);
            }
        }
        other => {
            let width = fixed_width(other).unwrap_or(0);
            let values = buffer(0).get(first * width..(first + rows) * width);
            out.extend_from_slice(values.unwrap_or(&[]));
        }
    }
}

/// The offsets of an array, from its first on.
fn typed<T: arrow_buffer::ArrowNativeType>(data: &ArrayData) -> &[T] {
    match data.buffers().first() {
        // An array without rows may have no offsets.
        Some(offsets) if !offsets.is_empty() => offsets
            .typed_data::<T>()
            .get(data.offset()..)
            .unwrap_or(&[]),
        _ => &[],
    }
}

/// Appends the lengths between the offsets; gives the range that they span.
fn put_lengths<T>(out: &mut Vec<u8>, offsets: &[T], rows: usize) -> (usize, usize)
where
    T: Copy + TryInto<usize>,
{
    let at = |offset: &T| (*offset).try_into().unwrap_or(0);
    for pair in offsets.windows(2).take(rows) {
        if let [from, to] = pair {
            put_varint(out, (at(to).saturating_sub(at(from))) as u64);
        }
    }
    let from = offsets.first().map_or(0, at);
    (from, offsets.get(rows).map_or(from, at))
}

fn put_bits(out: &mut Vec<u8>, bits: &BooleanBuffer) {
    let start = out.len();
    let whole = bits.len().div_ceil(8);
    let packed = bits.sliced();
    out.extend_from_slice(packed.as_slice().get(..whole).unwrap_or(&[]));
    // The bits behind the last are anybody's; zero, so that equal arrays have equal bytes.
    if !bits.len().is_multiple_of(8)
        && out.len() == start + whole
        && let Some(last) = out.last_mut()
    {
        *last &= (1 << (bits.len() % 8)) - 1;
    }
}

fn fixed_width(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::FixedSizeBinary(width) => usize::try_from(*width).ok(),
        other => other.primitive_width(),
    }
}

/// A column. The types of the schema without their way through [`ArrayData`], which takes several times as long.
fn take_array(
    bytes: &mut Bytes<'_>,
    data_type: &DataType,
    rows: usize,
) -> Result<ArrayRef, Malformed> {
    if bytes.rest().first() != Some(&NO_NULLS) {
        return take_data(bytes, data_type, rows, true).map(make_array);
    }
    match data_type {
        DataType::Utf8 => {
            bytes.byte()?;
            let (offsets, end) = take_offsets::<i32>(bytes, rows)?;
            let values = Buffer::from(bytes.slice(end)?);
            // They ascend from 0 on, as sums of lengths.
            let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
            let array = StringArray::try_new(offsets, values, None);
            array
                .map(|array| Arc::new(array) as ArrayRef)
                .map_err(|_| Malformed("a text that is not UTF-8"))
        }
        DataType::Int32 => primitive::<Int32Type>(bytes, rows),
        DataType::Int64 => primitive::<Int64Type>(bytes, rows),
        DataType::Float32 => primitive::<Float32Type>(bytes, rows),
        DataType::Timestamp(TimeUnit::Millisecond, None) => {
            primitive::<TimestampMillisecondType>(bytes, rows)
        }
        other => take_data(bytes, other, rows, true).map(make_array),
    }
}

fn primitive<T: ArrowPrimitiveType>(
    bytes: &mut Bytes<'_>,
    rows: usize,
) -> Result<ArrayRef, Malformed> {
    bytes.byte()?;
    let len = rows.checked_mul(size_of::<T::Native>());
    let values = bytes.slice(len.ok_or(Malformed("more values than memory"))?)?;
    let values = ScalarBuffer::<T::Native>::new(Buffer::from(values), 0, rows);
    Ok(Arc::new(PrimitiveArray::<T>::new(values, None)))
}

fn take_data(
    bytes: &mut Bytes<'_>,
    data_type: &DataType,
    rows: usize,
    outside_fixed: bool,
) -> Result<ArrayData, Malformed> {
    let nulls = match bytes.byte()? {
        NO_NULLS => None,
        BITMAP => {
            let bits = take_bits(bytes, rows)?;
            Some(NullBuffer::new(bits)).filter(|nulls| nulls.null_count() > 0)
        }
        ALL_NULL if may_leave_nulls_out(data_type, outside_fixed) => {
            return Ok(new_null_array(data_type, rows).to_data());
        }
        _ => return Err(Malformed("nulls of an unknown kind")),
    };
    let array = ArrayData::builder(data_type.clone()).len(rows).nulls(nulls);
    let array = match data_type {
        DataType::Null => array.nulls(None),
        DataType::Boolean => array.add_buffer(take_bits(bytes, rows)?.into_inner()),
        DataType::Utf8 | DataType::Binary => {
            let (offsets, end) = take_offsets::<i32>(bytes, rows)?;
            let values = Buffer::from(bytes.slice(end)?);
            array
                .add_buffer(Buffer::from_vec(offsets))
                .add_buffer(values)
        }
        DataType::LargeUtf8 | DataType::LargeBinary => {
            let (offsets, end) = take_offsets::<i64>(bytes, rows)?;
            let values = Buffer::from(bytes.slice(end)?);
            array
                .add_buffer(Buffer::from_vec(offsets))
                .add_buffer(values)
        }
        DataType::List(item) | DataType::Map(item, _) => {
            let (offsets, end) = take_offsets::<i32>(bytes, rows)?;
            let items = take_data(bytes, item.data_type(), end, outside_fixed)?;
            array
                .add_buffer(Buffer::from_vec(offsets))
                .add_child_data(items)
        }
        DataType::LargeList(item) => {
            let (offsets, end) = take_offsets::<i64>(bytes, rows)?;
            let items = take_data(bytes, item.data_type(), end, outside_fixed)?;
            array
                .add_buffer(Buffer::from_vec(offsets))
                .add_child_data(items)
        }
        DataType::FixedSizeList(item, size) => {
            let items = usize::try_from(*size)
                .ok()
                .and_then(|size| size.checked_mul(rows))
                .ok_or(Malformed("a list of an impossible size"))?;
            array.add_child_data(take_data(bytes, item.data_type(), items, false)?)
        }
        DataType::Struct(fields) => {
            let mut children = Vec::with_capacity(fields.len());
            for field in fields {
                children.push(take_data(bytes, field.data_type(), rows, outside_fixed)?);
            }
            array.child_data(children)
        }
        other => {
            let width = fixed_width(other).ok_or(Malformed("a type that no record holds"))?;
            let len = width.checked_mul(rows);
            let values = bytes.slice(len.ok_or(Malformed("more values than memory"))?)?;
            array.add_buffer(Buffer::from(values))
        }
    };
    array
        .build()
        .map_err(|_| Malformed("an array that arrow refuses"))
}

fn take_bits(bytes: &mut Bytes<'_>, rows: usize) -> Result<BooleanBuffer, Malformed> {
    let packed = bytes.slice(bit_util::ceil(rows, 8))?;
    Ok(BooleanBuffer::new(Buffer::from(packed), 0, rows))
}

/// Reads `rows` lengths as offsets from 0 on; gives the last.
fn take_offsets<T>(bytes: &mut Bytes<'_>, rows: usize) -> Result<(Vec<T>, usize), Malformed>
where
    T: arrow_buffer::ArrowNativeType + TryFrom<u64>,
{
    // Each takes a byte at least (J2).
    if rows > bytes.left() {
        return Err(Malformed("fewer lengths than rows"));
    }
    let mut offsets: Vec<T> = Vec::with_capacity(rows + 1);
    let mut end = 0_u64;
    offsets.push(T::default());
    for _ in 0..rows {
        let next = end.checked_add(bytes.varint()?);
        end = next.ok_or(Malformed("an endless length"))?;
        offsets.push(T::try_from(end).map_err(|_| Malformed("more bytes than a column can have"))?);
    }
    let end = usize::try_from(end).map_err(|_| Malformed("an endless length"))?;
    Ok((offsets, end))
}
