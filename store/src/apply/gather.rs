//! One column of the merged rows, gathered along runs.

use arrow_array::cast::AsArray;
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, PrimitiveArray, StringArray, StructArray,
    downcast_primitive, make_array, new_null_array,
};
use arrow_buffer::{BooleanBufferBuilder, NullBuffer, OffsetBuffer};
use arrow_data::ArrayData;
use arrow_data::transform::MutableArrayData;
use arrow_schema::{ArrowError, DataType};
use sherwood_shared::gathered::Run;

/// The rows of `sources` that `runs` name, in their order. All sources are of `data_type`.
pub(super) fn gather(
    data_type: &DataType,
    sources: &[ArrayRef],
    runs: &[Run],
) -> Result<ArrayRef, ArrowError> {
    macro_rules! primitive_of {
        ($type:ty) => {
            return Ok(primitive::<$type>(data_type, sources, runs))
        };
    }
    let rows = runs.iter().map(Run::rows).sum();
    // Many columns of a table are rarely used.
    let is_null = |source: &ArrayRef| source.null_count() == source.len();
    if sources.iter().all(is_null) || runs.iter().all(|run| run.source().is_none()) {
        return Ok(new_null_array(data_type, rows));
    }
    downcast_primitive! {
        data_type => (primitive_of),
        DataType::Struct(fields) if !fields.is_empty() => {
            let mut columns = Vec::with_capacity(fields.len());
            for (number, field) in fields.iter().enumerate() {
                let children: Vec<ArrayRef> = sources
                    .iter()
                    .map(|source| ArrayRef::clone(source.as_struct().column(number)))
                    .collect();
                columns.push(gather(field.data_type(), &children, runs)?);
            }
            let nulls = nulls(sources, runs, rows);
            Ok(std::sync::Arc::new(StructArray::try_new(fields.clone(), columns, nulls)?))
        }
        DataType::Utf8 => text(sources, runs, rows),
        _ => other(sources, runs, rows),
    }
}

fn primitive<T: ArrowPrimitiveType>(
    data_type: &DataType,
    sources: &[ArrayRef],
    runs: &[Run],
) -> ArrayRef {
    let rows = runs.iter().map(Run::rows).sum();
    let mut values: Vec<T::Native> = Vec::with_capacity(rows);
    let arrays: Vec<&[T::Native]> = sources
        .iter()
        .map(|source| source.as_primitive::<T>().values().as_ref())
        .collect();
    for run in runs {
        match run.source() {
            Some(source) => {
                values.extend_from_slice(&arrays[source][run.start()..run.start() + run.rows()]);
            }
            None => values.resize(values.len() + run.rows(), T::Native::default()),
        }
    }
    let array = PrimitiveArray::<T>::new(values.into(), nulls(sources, runs, rows));
    std::sync::Arc::new(array.with_data_type(data_type.clone()))
}

fn text(sources: &[ArrayRef], runs: &[Run], rows: usize) -> Result<ArrayRef, ArrowError> {
    let arrays: Vec<&StringArray> = sources.iter().map(|source| source.as_string()).collect();
    let overflow = || ArrowError::OffsetOverflowError(usize::try_from(i32::MAX).unwrap_or(0));
    let mut offsets: Vec<i32> = Vec::with_capacity(rows + 1);
    let mut values: Vec<u8> = Vec::with_capacity(text_bytes(&arrays, runs));
    let mut end = 0_i32;
    offsets.push(end);
    for run in runs {
        let Some(array) = run.source().map(|source| arrays[source]) else {
            offsets.resize(offsets.len() + run.rows(), end);
            continue;
        };
        let own = &array.value_offsets()[run.start()..=run.start() + run.rows()];
        let (from, to) = (own[0], own[run.rows()]);
        let shift = end - from; // both are from 0 to i32::MAX
        end = end.checked_add(to - from).ok_or_else(overflow)?;
        offsets.extend(own[1..].iter().map(|&at| at + shift));
        let span = usize::try_from(from).unwrap_or(0)..usize::try_from(to).unwrap_or(0);
        values.extend_from_slice(&array.value_data()[span]);
    }
    let offsets = OffsetBuffer::new(offsets.into());
    let array = StringArray::try_new(offsets, values.into(), nulls(sources, runs, rows))?;
    Ok(std::sync::Arc::new(array))
}

/// The nulls of the runs; `None` if there are none.
fn nulls(sources: &[ArrayRef], runs: &[Run], rows: usize) -> Option<NullBuffer> {
    let sources: Vec<Option<&NullBuffer>> = sources
        .iter()
        .map(|source| source.nulls().filter(|nulls| nulls.null_count() > 0))
        .collect();
    if sources.iter().all(Option::is_none) && runs.iter().all(|run| run.source().is_some()) {
        return None;
    }
    let mut bits = BooleanBufferBuilder::new(rows);
    for run in runs {
        match run.source().map(|source| sources[source]) {
            Some(Some(nulls)) => {
                let start = nulls.offset() + run.start();
                bits.append_packed_range(start..start + run.rows(), nulls.validity());
            }
            Some(None) => bits.append_n(run.rows(), true),
            None => bits.append_n(run.rows(), false),
        }
    }
    Some(NullBuffer::new(bits.finish())).filter(|nulls| nulls.null_count() > 0)
}

/// Every other type.
fn other(sources: &[ArrayRef], runs: &[Run], rows: usize) -> Result<ArrayRef, ArrowError> {
    let data: Vec<ArrayData> = sources.iter().map(Array::to_data).collect();
    let with_nulls = runs.iter().any(|run| run.source().is_none());
    let mut out = MutableArrayData::new(data.iter().collect(), with_nulls, rows);
    for run in runs {
        match run.source() {
            Some(source) => out.try_extend(source, run.start(), run.start() + run.rows())?,
            None => out.try_extend_nulls(run.rows())?,
        }
    }
    Ok(make_array(out.freeze()))
}

/// Bytes of the values of runs of text.
fn text_bytes(arrays: &[&StringArray], runs: &[Run]) -> usize {
    let run_bytes = |run: &Run| {
        let offsets = arrays.get(run.source()?)?.value_offsets();
        let span = (
            offsets.get(run.start())?,
            offsets.get(run.start() + run.rows())?,
        );
        usize::try_from(span.1 - span.0).ok()
    };
    runs.iter().filter_map(run_bytes).sum()
}
