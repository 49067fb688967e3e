//! Cutting rows into chunks: how large a range of rows is, and where to cut it.

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;

/// Bytes that rows `[start, start + len)` of a batch take in a chunk's body, padding of
/// each buffer to 64 bytes included. Costs with the columns, not with the rows.
pub(super) fn body_bytes(batch: &RecordBatch, start: usize, len: usize) -> usize {
    batch
        .columns()
        .iter()
        .map(|column| array_bytes(column.as_ref(), start, len))
        .sum()
}

/// Where to cut a batch so that each piece takes at most `chunk_bytes`, single rows
/// aside: ranges of rows, in order, none empty, of about equal bytes.
pub(super) fn cut(batch: &RecordBatch, chunk_bytes: usize) -> Vec<std::ops::Range<usize>> {
    let rows = batch.num_rows();
    let total = body_bytes(batch, 0, rows);
    if rows == 0 {
        return Vec::new();
    }
    if total <= chunk_bytes {
        return std::iter::once(0..rows).collect();
    }
    // Leave an eighth of each for rows to come, so that the next insert splits nothing.
    let pieces = total.div_ceil(chunk_bytes - chunk_bytes / 8);
    let target = total.div_ceil(pieces);
    let mut cuts = Vec::with_capacity(pieces);
    let mut start = 0;
    while start < rows {
        // The most rows that fit: body_bytes grows with the rows.
        let (mut fits, mut too_many) = (1, rows - start + 1);
        while fits + 1 < too_many {
            let middle = fits + (too_many - fits) / 2;
            if body_bytes(batch, start, middle) <= target {
                fits = middle;
            } else {
                too_many = middle;
            }
        }
        cuts.push(start..start + fits);
        start += fits;
    }
    cuts
}

fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(64)
}

fn array_bytes(array: &dyn Array, start: usize, len: usize) -> usize {
    let nulls = if array.null_count() > 0 {
        padded(len.div_ceil(8))
    } else {
        0
    };
    nulls + values_bytes(array, start, len)
}

fn values_bytes(array: &dyn Array, start: usize, len: usize) -> usize {
    /// Bytes of `len` offsets and their end, and the range of values they reach over.
    macro_rules! offsets {
        ($array:expr, $width:expr) => {{
            let offsets = $array.value_offsets();
            let from = usize::try_from(offsets[start]).unwrap_or(0);
            let to = usize::try_from(offsets[start + len]).unwrap_or(from);
            (padded((len + 1) * $width), from, to.saturating_sub(from))
        }};
    }
    match array.data_type() {
        DataType::Null => 0,
        DataType::Boolean => padded(len.div_ceil(8)),
        DataType::Utf8 => {
            let (own, _, values) = offsets!(array.as_string::<i32>(), 4);
            own + padded(values)
        }
        DataType::LargeUtf8 => {
            let (own, _, values) = offsets!(array.as_string::<i64>(), 8);
            own + padded(values)
        }
        DataType::Binary => {
            let (own, _, values) = offsets!(array.as_binary::<i32>(), 4);
            own + padded(values)
        }
        DataType::LargeBinary => {
            let (own, _, values) = offsets!(array.as_binary::<i64>(), 8);
            own + padded(values)
        }
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let (own, from, items) = offsets!(list, 4);
            own + array_bytes(list.values().as_ref(), from, items)
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            let (own, from, items) = offsets!(list, 8);
            own + array_bytes(list.values().as_ref(), from, items)
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let (own, from, items) = offsets!(map, 4);
            own + array_bytes(map.entries(), from, items)
        }
        DataType::FixedSizeList(_, size) => {
            let size = usize::try_from(*size).unwrap_or(0);
            array_bytes(
                array.as_fixed_size_list().values().as_ref(),
                start * size,
                len * size,
            )
        }
        DataType::Struct(_) => {
            let columns = array.as_struct().columns();
            columns
                .iter()
                .map(|column| array_bytes(column.as_ref(), start, len))
                .sum()
        }
        DataType::FixedSizeBinary(width) => padded(len * usize::try_from(*width).unwrap_or(0)),
        other => padded(len * other.primitive_width().unwrap_or(8)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::builder::{ListBuilder, StringBuilder};
    use arrow_array::{ArrayRef, Int64Array, StringArray};
    use proptest::prelude::*;
    use sherwood_shared::batch::BatchEncoder;
    use std::sync::Arc;

    fn batch(rows: &[(String, Option<i64>, Vec<String>)]) -> RecordBatch {
        let ids: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.0)));
        let sizes: ArrayRef = Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.1)));
        let mut lists = ListBuilder::new(StringBuilder::new());
        for row in rows {
            row.2
                .iter()
                .for_each(|item| lists.values().append_value(item));
            lists.append(true);
        }
        let lists: ArrayRef = Arc::new(lists.finish());
        RecordBatch::try_from_iter([("id", ids), ("size", sizes), ("lists", lists)]).expect("fits")
    }

    proptest! {
        /// Against the encoder, and against what a cut promises.
        #[test]
        fn pieces_cover_the_rows_and_take_what_was_foreseen(
            rows in proptest::collection::vec(
                ("[a-z]{0,40}", any::<Option<i64>>(), proptest::collection::vec("[a-z]{0,9}", 0..4)),
                0..200,
            ),
            chunk_bytes in 512_usize..4096,
        ) {
            let batch = batch(&rows);
            let mut next = 0;
            for piece in cut(&batch, chunk_bytes) {
                prop_assert_eq!(piece.start, next);
                prop_assert!(!piece.is_empty());
                next = piece.end;
                let foreseen = body_bytes(&batch, piece.start, piece.len());
                prop_assert!(piece.len() == 1 || foreseen <= chunk_bytes, "{} bytes", foreseen);
                let slice = batch.slice(piece.start, piece.len());
                let encoded = BatchEncoder::default().encode(&slice).expect("encodes");
                let encoded = usize::try_from(encoded.at(0).body_bytes).expect("small");
                prop_assert!(encoded <= foreseen, "{} bytes encoded, {} foreseen", encoded, foreseen);
            }
            prop_assert_eq!(next, batch.num_rows());
        }
    }
}
