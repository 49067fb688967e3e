//! Arrays that keep no more memory alive than they show.

use arrow_array::{Array, ArrayRef, make_array};
use arrow_buffer::ArrowNativeType;
use arrow_data::ArrayData;
use arrow_data::transform::MutableArrayData;
use arrow_schema::DataType;

/// Below this a copy saves nothing worth having.
const SLACK_BYTES: usize = 4096;

/// The array itself, or a copy of it if it is a slice of something larger or begins in the middle of its buffers.
///
/// Unused capacity up to the size of the data is let be: builders grow by doubling, and copying all to win some of
/// it back would cost more than it gives.
pub(crate) fn compact(array: &ArrayRef) -> ArrayRef {
    let data = array.to_data();
    if is_compact(&data) {
        return ArrayRef::clone(array);
    }
    let mut copy = MutableArrayData::new(vec![&data], false, data.len());
    // A part of an array overflows no offset that the whole did not.
    match copy.try_extend(0, 0, data.len()) {
        Ok(()) => make_array(copy.freeze()),
        Err(_) => ArrayRef::clone(array),
    }
}

fn is_compact(data: &ArrayData) -> bool {
    let shown = data.get_slice_memory_size().unwrap_or(0);
    if data.get_buffer_memory_size() > shown.saturating_mul(2).saturating_add(SLACK_BYTES) {
        return false;
    }
    starts_at_zero(data)
}

fn starts_at_zero(data: &ArrayData) -> bool {
    let whole = match data.data_type() {
        DataType::Utf8 | DataType::Binary => spans::<i32>(data, data.buffers()[1].len()),
        DataType::LargeUtf8 | DataType::LargeBinary => spans::<i64>(data, data.buffers()[1].len()),
        DataType::List(_) | DataType::Map(..) => spans::<i32>(data, data.child_data()[0].len()),
        DataType::LargeList(_) => spans::<i64>(data, data.child_data()[0].len()),
        _ => true,
    };
    data.offset() == 0
        && data.nulls().is_none_or(|nulls| nulls.offset() == 0)
        && whole
        && data.child_data().iter().all(starts_at_zero)
}

/// Do the offsets cover all of `len` bytes or items?
fn spans<O: ArrowNativeType>(data: &ArrayData, len: usize) -> bool {
    match data.buffers()[0].typed_data::<O>() {
        [] => len == 0,
        offsets => {
            let ends = (offsets[0].as_usize(), offsets[data.len()].as_usize());
            ends == (0, len)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow_array::builder::{ListBuilder, StringBuilder};
    use arrow_array::{BooleanArray, Int64Array, StringArray};

    fn samples() -> Vec<ArrayRef> {
        let mut lists = ListBuilder::new(StringBuilder::new());
        for row in 0..5_000_u32 {
            lists.append_option(
                (row % 7 != 0).then(|| (0..row % 4).map(|i| Some(format!("{row}-{i}")))),
            );
        }
        vec![
            Arc::new(Int64Array::from_iter(
                (0..5_000).map(|i| (i % 3 != 0).then_some(i)),
            )),
            Arc::new(StringArray::from_iter(
                (0..5_000).map(|i| (i % 5 != 0).then(|| format!("value {i}"))),
            )),
            Arc::new(BooleanArray::from_iter(
                (0..5_000).map(|i| (i % 5 != 0).then_some(i % 2 == 0)),
            )),
            Arc::new(lists.finish()),
        ]
    }

    #[test]
    fn a_slice_is_copied_to_its_own_size_and_a_whole_array_is_not() {
        for whole in samples() {
            let kept = compact(&whole);
            assert!(
                kept.to_data().ptr_eq(&whole.to_data()),
                "{} was copied for nothing",
                whole.data_type()
            );
            for (offset, length) in [
                (1, 4_999),
                (0, 4_999),
                (17, 3),
                (4_999, 1),
                (5_000, 0),
                (8, 16),
            ] {
                let slice = whole.slice(offset, length);
                let copy = compact(&slice);
                let name = format!("{} {offset}+{length}", whole.data_type());
                assert_eq!(&copy, &slice, "{name}");
                let data = copy.to_data();
                assert!(starts_at_zero(&data), "{name}");
                let most = 2 * data.get_slice_memory_size().unwrap() + SLACK_BYTES;
                assert!(
                    copy.get_buffer_memory_size() <= most,
                    "{name} keeps {}",
                    copy.get_buffer_memory_size()
                );
            }
        }
    }
}
