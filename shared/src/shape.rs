//! Does a record batch message describe arrays of a schema, inside its body?
//!
//! The Arrow crate trusts a message's counts when it skips validation, and panics on
//! some that do not fit even when it does not. This walk looks at every count and
//! every buffer once, and at the outer two offsets of each list and string column: a
//! few nanoseconds a column, whatever the rows. Behind it no access leaves the chunk
//! as long as the offsets in between ascend.

use arrow_ipc::RecordBatch as Message;
use arrow_schema::{DataType, Schema};
use thiserror::Error;

/// What does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ShapeError {
    /// More or fewer arrays or buffers than the schema has.
    #[error("it describes another number of columns or buffers")]
    Count,
    /// A negative or absurd number of rows.
    #[error("{what} has {found} rows, and {expected} are expected")]
    Rows {
        /// Column.
        what: String,
        /// In the message.
        found: i64,
        /// By its parent.
        expected: usize,
    },
    /// A buffer outside the body, not on a multiple of 64, or shorter than its rows need.
    #[error(
        "a buffer of {what} has {len} bytes at {start} of a body of {body}, and {needed} are needed"
    )]
    Buffer {
        /// Column.
        what: String,
        /// First byte.
        start: i64,
        /// Bytes.
        len: i64,
        /// Bytes of the body.
        body: usize,
        /// Bytes that the rows need.
        needed: usize,
    },
    /// A null count that its bitmap does not bear out.
    #[error("{what} should have {counted} nulls, and its bitmap says otherwise")]
    Nulls {
        /// Column.
        what: String,
        /// In the message.
        counted: usize,
    },
    /// Offsets that begin or end outside their values.
    #[error("the offsets of {what} lie outside its values")]
    Offsets {
        /// Column.
        what: String,
    },
    /// Compressed bodies, or a type that chunks never hold.
    #[error("{what} is of a kind that no chunk holds")]
    Kind {
        /// Column or feature.
        what: String,
    },
}

/// Types that a chunk may hold: everything but dictionaries, views, unions and run ends.
#[must_use]
pub fn is_supported(data_type: &DataType) -> bool {
    match data_type {
        DataType::Null
        | DataType::Boolean
        | DataType::Utf8
        | DataType::Binary
        | DataType::LargeUtf8
        | DataType::LargeBinary => true,
        DataType::List(item) | DataType::LargeList(item) | DataType::Map(item, _) => {
            is_supported(item.data_type())
        }
        DataType::FixedSizeList(item, size) => *size >= 0 && is_supported(item.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| is_supported(field.data_type())),
        other => fixed_width(other).is_some(),
    }
}

fn fixed_width(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::FixedSizeBinary(width) => usize::try_from(*width).ok(),
        other => other.primitive_width(),
    }
}

/// Checks `message` against `schema` and the bytes of its `body`.
pub fn check(schema: &Schema, message: &Message<'_>, body: &[u8]) -> Result<(), ShapeError> {
    check_aligned(schema, message, body, 64)
}

/// The same, with buffers on multiples of `align`: other writers align to 8.
pub(crate) fn check_aligned(
    schema: &Schema,
    message: &Message<'_>,
    body: &[u8],
    align: i64,
) -> Result<(), ShapeError> {
    if message.compression().is_some() {
        return Err(ShapeError::Kind {
            what: "a compressed body".to_owned(),
        });
    }
    let (Some(nodes), Some(buffers)) = (message.nodes(), message.buffers()) else {
        return Err(ShapeError::Count);
    };
    let rows = usize::try_from(message.length()).unwrap_or(usize::MAX);
    let mut walk = Walk {
        body,
        align,
        nodes: nodes.iter(),
        buffers: buffers.iter(),
    };
    for field in schema.fields() {
        walk.array(field.name(), field.data_type(), rows)?;
    }
    if walk.nodes.next().is_some() || walk.buffers.next().is_some() {
        return Err(ShapeError::Count);
    }
    Ok(())
}

/// The bits set among the first `rows`; `None` if there are fewer.
fn ones(bitmap: &[u8], rows: usize) -> Option<usize> {
    let (whole, rest) = (bitmap.get(..rows / 8)?, rows % 8);
    let (words, bytes) = whole.as_chunks::<8>();
    let words = words
        .iter()
        .map(|word| u64::from_le_bytes(*word).count_ones() as usize);
    let bytes = bytes.iter().map(|byte| byte.count_ones() as usize);
    let mut ones: usize = words.sum::<usize>() + bytes.sum::<usize>();
    if rest > 0 {
        ones += (bitmap.get(rows / 8)? & ((1 << rest) - 1)).count_ones() as usize;
    }
    Some(ones)
}

struct Walk<'a, N, B> {
    body: &'a [u8],
    align: i64,
    nodes: N,
    buffers: B,
}

impl<'a, 'm, N, B> Walk<'a, N, B>
where
    N: Iterator<Item = &'m arrow_ipc::FieldNode>,
    B: Iterator<Item = &'m arrow_ipc::Buffer>,
{
    fn array(&mut self, what: &str, data_type: &DataType, rows: usize) -> Result<(), ShapeError> {
        let node = self.nodes.next().ok_or(ShapeError::Count)?;
        let nulls = usize::try_from(node.null_count()).unwrap_or(usize::MAX);
        if usize::try_from(node.length()) != Ok(rows) || nulls > rows {
            let what = what.to_owned();
            return Err(ShapeError::Rows {
                what,
                found: node.length(),
                expected: rows,
            });
        }
        if matches!(data_type, DataType::Null) {
            return Ok(());
        }
        let bitmap = if nulls == 0 { 0 } else { rows.div_ceil(8) };
        let bitmap = self.buffer(what, Some(bitmap))?;
        // Absent, it says that there are no nulls; present, it says how many there are.
        if !bitmap.is_empty() && rows.checked_sub(nulls) != ones(bitmap, rows) {
            return Err(ShapeError::Nulls {
                what: what.to_owned(),
                counted: nulls,
            });
        }
        match data_type {
            DataType::Boolean => self.buffer(what, Some(rows.div_ceil(8))).map(drop),
            DataType::Utf8 | DataType::Binary => self.values::<4>(what, rows),
            DataType::LargeUtf8 | DataType::LargeBinary => self.values::<8>(what, rows),
            DataType::List(item) | DataType::Map(item, _) => {
                let items = self.offsets::<4>(what, rows)?;
                self.array(what, item.data_type(), items)
            }
            DataType::LargeList(item) => {
                let items = self.offsets::<8>(what, rows)?;
                self.array(what, item.data_type(), items)
            }
            DataType::FixedSizeList(item, size) => {
                let items = usize::try_from(*size)
                    .ok()
                    .and_then(|size| size.checked_mul(rows));
                self.array(what, item.data_type(), items.unwrap_or(usize::MAX))
            }
            DataType::Struct(fields) => fields
                .iter()
                .try_for_each(|field| self.array(field.name(), field.data_type(), rows)),
            other => match fixed_width(other) {
                Some(width) => self.buffer(what, width.checked_mul(rows)).map(drop),
                None => Err(ShapeError::Kind {
                    what: what.to_owned(),
                }),
            },
        }
    }

    /// The next buffer, aligned, inside the body and at least `needed` bytes; `None`: more than
    /// any buffer has.
    fn buffer(&mut self, what: &str, needed: Option<usize>) -> Result<&'a [u8], ShapeError> {
        let buffer = self.buffers.next().ok_or(ShapeError::Count)?;
        let (start, len) = (buffer.offset(), buffer.length());
        let range = usize::try_from(start).ok().zip(usize::try_from(len).ok());
        let bytes = range.and_then(|(start, len)| self.body.get(start..start.checked_add(len)?));
        bytes
            .filter(|bytes| {
                start % self.align == 0 && needed.is_some_and(|needed| needed <= bytes.len())
            })
            .ok_or_else(|| {
                let needed = needed.unwrap_or(usize::MAX);
                ShapeError::Buffer {
                    what: what.to_owned(),
                    start,
                    len,
                    body: self.body.len(),
                    needed,
                }
            })
    }

    /// An offset buffer of `rows` entries; the number of items they reach to, all of
    /// which the child must have.
    fn offsets<const WIDTH: usize>(
        &mut self,
        what: &str,
        rows: usize,
    ) -> Result<usize, ShapeError> {
        // Arrow allows an array without rows to have no offset at all.
        let needed = if rows == 0 {
            Some(0)
        } else {
            rows.checked_add(1).and_then(|n| n.checked_mul(WIDTH))
        };
        let bytes = self.buffer(what, needed)?;
        if bytes.len() % WIDTH != 0 {
            return Err(ShapeError::Offsets {
                what: what.to_owned(),
            });
        }
        if rows == 0 {
            return Ok(0);
        }
        let offset = |at: usize| {
            let mut wide = [0; 8];
            wide[..WIDTH].copy_from_slice(&bytes[at * WIDTH..(at + 1) * WIDTH]);
            u64::from_le_bytes(wide)
        };
        let outside = || ShapeError::Offsets {
            what: what.to_owned(),
        };
        let (first, last) = (offset(0), offset(rows));
        let most = if WIDTH == 4 {
            0x7fff_ffff
        } else {
            i64::MAX.cast_unsigned()
        };
        if first > last || last > most {
            return Err(outside());
        }
        usize::try_from(last).map_err(|_| outside())
    }

    fn values<const WIDTH: usize>(&mut self, what: &str, rows: usize) -> Result<(), ShapeError> {
        let bytes = self.offsets::<WIDTH>(what, rows)?;
        self.buffer(what, Some(bytes)).map(drop)
    }
}
