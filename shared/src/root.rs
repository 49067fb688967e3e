//! The root of a snapshot: what one generation consists of (F2).
//!
//! It stands in the file twice, side by side. First as a one-row Arrow table with a
//! footer of its own ([`root_batch`]), for any Arrow implementation: the cluster's
//! columns and a struct `sherwood`. Right behind its end, where the head points, the
//! *root record* ([`Root::append`]) says the same in a fixed layout that our own readers
//! parse in nanoseconds (docs/decisions/0001). The byte table is docs/format.md, section 4.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, FixedSizeBinaryArray, ListArray, RecordBatch, StringArray, StructArray,
    TimestampMillisecondArray, UInt32Array, UInt64Array,
};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{ArrowError, Field, Fields, Schema};
use thiserror::Error;

use crate::file::FileId;
use crate::schema::TableId;

/// Name of the struct column that holds what is not the cluster's own.
pub const ROOT_COLUMN: &str = "sherwood";

const MAGIC: u32 = u32::from_le_bytes(*b"SWRT");
const HEAD_BYTES: usize = 80;
const TABLE_BYTES: usize = 32;
const PART_BYTES: usize = 48;

/// One generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Counts publishes within the file's history (F12).
    pub generation: u64,
    /// Milliseconds since the Unix epoch, by the daemon's clock.
    pub published_at_ms: u64,
    /// The state directory that the snapshot stands for.
    pub state_dir: FileId,
    /// Version of the tables' schema.
    pub schema_version: u32,
    /// First byte of the Arrow root's batch, in the record's region (W3). Its footer
    /// ends where this record begins.
    pub arrow_at: u64,
    /// Bytes of chunks, indexes and footers that this generation consists of.
    pub live_bytes: u64,
    /// The regions that hold them, ascending. A reader leases all of them (R2).
    pub regions: Vec<u32>,
    /// By [`TableId`].
    pub tables: [TableRoot; 3],
}

/// One table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableRoot {
    /// Rows of all parts.
    pub rows: u64,
    /// Equal fingerprints, equal schemas.
    pub schema_fingerprint: u64,
    /// In key order; at least one, so that an empty table has a schema as well.
    pub parts: Vec<PartRoot>,
}

/// One part of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartRoot {
    /// End of its footer: the file cut there is an Arrow IPC file.
    pub footer_end: u64,
    /// Start of its chunk index, in the footer's region, before the footer.
    pub index_at: u64,
    /// Rows in it.
    pub rows: u64,
    /// Chunks in it.
    pub chunks: u32,
    /// Key of its first row; empty in the only part of an empty table.
    pub first_key: Arc<str>,
}

/// Why bytes are not a root record: the file is damaged.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RootError {
    /// No record begins where the head points.
    #[error("no root record stands where the head points")]
    Magic,
    /// Cut, or its counts do not fit its length.
    #[error("the root record is cut: {bytes} bytes, and {what} need more")]
    Short {
        /// Which field or list.
        what: &'static str,
        /// Bytes it has.
        bytes: usize,
    },
    /// Its bytes are not what was written.
    #[error("the root record is damaged: checksum {found:#010x}, computed {computed:#010x}")]
    Checksum {
        /// In the record.
        found: u32,
        /// Of its bytes.
        computed: u32,
    },
    /// A key is not UTF-8.
    #[error("the root record is damaged: the first key of a part is not UTF-8")]
    Key,
}

impl Root {
    /// Appends the record to `out`.
    pub fn append(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let u32_of = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let parts = || self.tables.iter().flat_map(|table| &table.parts);
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(&[0; 8]); // length and checksum, below
        out.extend_from_slice(&self.schema_version.to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.published_at_ms.to_le_bytes());
        out.extend_from_slice(&self.state_dir.device.to_le_bytes());
        out.extend_from_slice(&self.state_dir.inode.to_le_bytes());
        out.extend_from_slice(&self.live_bytes.to_le_bytes());
        out.extend_from_slice(&self.arrow_at.to_le_bytes());
        out.extend_from_slice(&u32_of(self.regions.len()).to_le_bytes());
        out.extend_from_slice(&u32_of(self.tables.len()).to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        debug_assert_eq!(out.len() - start, HEAD_BYTES);
        for table in &self.tables {
            out.extend_from_slice(&table.rows.to_le_bytes());
            out.extend_from_slice(&table.schema_fingerprint.to_le_bytes());
            out.extend_from_slice(&u32_of(table.parts.len()).to_le_bytes());
            out.extend_from_slice(&[0; TABLE_BYTES - 20]);
        }
        for part in parts() {
            out.extend_from_slice(&part.footer_end.to_le_bytes());
            out.extend_from_slice(&part.index_at.to_le_bytes());
            out.extend_from_slice(&part.rows.to_le_bytes());
            out.extend_from_slice(&part.chunks.to_le_bytes());
            out.extend_from_slice(&u32_of(part.first_key.len()).to_le_bytes());
            out.extend_from_slice(&[0; PART_BYTES - 32]);
        }
        for region in &self.regions {
            out.extend_from_slice(&region.to_le_bytes());
        }
        for part in parts() {
            out.extend_from_slice(part.first_key.as_bytes());
        }
        let len = u32_of(out.len() - start);
        out[start + 4..start + 8].copy_from_slice(&len.to_le_bytes());
        let checksum = crc32c::crc32c(&out[start..]);
        out[start + 8..start + 12].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Reads the record at the front of `bytes`, which may go on behind it.
    pub fn parse(bytes: &[u8]) -> Result<Self, RootError> {
        let mut head = Cursor {
            record: bytes,
            at: 0,
        };
        if head.u32() != Some(MAGIC) {
            return Err(RootError::Magic);
        }
        let short = |what| RootError::Short {
            what,
            bytes: bytes.len(),
        };
        let len = head.count().unwrap_or(usize::MAX);
        let record = bytes.get(..len).filter(|record| record.len() >= HEAD_BYTES);
        let record = record.ok_or(short("its own length"))?;
        let found = head.u32().unwrap_or(0);
        let checksum = crc32c::crc32c(&record[..8]);
        let checksum = crc32c::crc32c_append(checksum, &[0; 4]);
        let computed = crc32c::crc32c_append(checksum, &record[12..]);
        if found != computed {
            return Err(RootError::Checksum { found, computed });
        }
        let mut at = Cursor { record, at: 12 };
        let mut root = Self {
            schema_version: at.u32().ok_or(short("the head"))?,
            generation: at.u64().ok_or(short("the head"))?,
            published_at_ms: at.u64().ok_or(short("the head"))?,
            state_dir: FileId {
                device: at.u64().ok_or(short("the head"))?,
                inode: at.u64().ok_or(short("the head"))?,
            },
            live_bytes: at.u64().ok_or(short("the head"))?,
            arrow_at: at.u64().ok_or(short("the head"))?,
            regions: Vec::new(),
            tables: Default::default(),
        };
        let regions = at.count().ok_or(short("the regions"))?;
        if at.count() != Some(root.tables.len()) {
            return Err(short("the tables"));
        }
        at.skip(8).ok_or(short("the head"))?;
        let mut counts = [0; 3];
        for (table, count) in root.tables.iter_mut().zip(&mut counts) {
            table.rows = at.u64().ok_or(short("the tables"))?;
            table.schema_fingerprint = at.u64().ok_or(short("the tables"))?;
            *count = at.count().ok_or(short("the tables"))?;
            at.skip(TABLE_BYTES - 20).ok_or(short("the tables"))?;
        }
        let mut key_bytes = Vec::new();
        for (table, count) in root.tables.iter_mut().zip(counts) {
            if count > record.len() / PART_BYTES {
                return Err(short("the parts"));
            }
            table.parts.reserve_exact(count);
            for _ in 0..count {
                let mut part = PartRoot {
                    footer_end: at.u64().ok_or(short("the parts"))?,
                    index_at: at.u64().ok_or(short("the parts"))?,
                    rows: at.u64().ok_or(short("the parts"))?,
                    ..PartRoot::default()
                };
                part.chunks = at.u32().ok_or(short("the parts"))?;
                key_bytes.push(at.count().ok_or(short("the parts"))?);
                at.skip(PART_BYTES - 32).ok_or(short("the parts"))?;
                table.parts.push(part);
            }
        }
        if regions > record.len() / 4 {
            return Err(short("the regions"));
        }
        root.regions.reserve_exact(regions);
        for _ in 0..regions {
            root.regions.push(at.u32().ok_or(short("the regions"))?);
        }
        let parts = root.tables.iter_mut().flat_map(|table| &mut table.parts);
        for (part, bytes) in parts.zip(key_bytes) {
            let key = at.skip(bytes).ok_or(short("the first keys"))?;
            part.first_key = std::str::from_utf8(key).map_err(|_| RootError::Key)?.into();
        }
        Ok(root)
    }
}

struct Cursor<'a> {
    record: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn skip(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(bytes)?;
        let slice = self.record.get(self.at..end)?;
        self.at = end;
        Some(slice)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.skip(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.skip(8)?.try_into().ok()?))
    }

    fn count(&mut self) -> Option<usize> {
        usize::try_from(self.u32()?).ok()
    }
}

/// The root as an Arrow table of one row: the cluster's columns, then [`ROOT_COLUMN`].
///
/// `cluster` is the one-row cluster table; `history` is the file's (F12).
pub fn root_batch(
    root: &Root,
    history: [u8; 16],
    cluster: &RecordBatch,
) -> Result<RecordBatch, ArrowError> {
    let published = i64::try_from(root.published_at_ms).unwrap_or(i64::MAX);
    let regions = UInt32Array::from_iter_values(root.regions.iter().copied());
    let sherwood = structs([
        (
            "generation",
            Arc::new(UInt64Array::from(vec![root.generation])),
        ),
        (
            "history",
            Arc::new(FixedSizeBinaryArray::try_from_iter(std::iter::once(
                history,
            ))?),
        ),
        (
            "schema_version",
            Arc::new(UInt32Array::from(vec![root.schema_version])),
        ),
        (
            "published_at",
            Arc::new(TimestampMillisecondArray::from(vec![published])),
        ),
        (
            "state_device",
            Arc::new(UInt64Array::from(vec![root.state_dir.device])),
        ),
        (
            "state_inode",
            Arc::new(UInt64Array::from(vec![root.state_dir.inode])),
        ),
        ("tables", tables(root)?),
        ("regions", lists([root.regions.len()], Arc::new(regions))?),
    ])?;
    let mut fields: Vec<_> = cluster.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(
        ROOT_COLUMN,
        sherwood.data_type().clone(),
        false,
    )));
    let mut columns = cluster.columns().to_vec();
    columns.push(sherwood);
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// One row an entry: `name`, `rows` and the list of its parts.
fn tables(root: &Root) -> Result<ArrayRef, ArrowError> {
    let parts = || root.tables.iter().flat_map(|table| &table.parts);
    let all_parts = structs([
        (
            "footer_end",
            Arc::new(UInt64Array::from_iter_values(
                parts().map(|part| part.footer_end),
            )),
        ),
        (
            "chunks",
            Arc::new(UInt32Array::from_iter_values(
                parts().map(|part| part.chunks),
            )),
        ),
        (
            "rows",
            Arc::new(UInt64Array::from_iter_values(parts().map(|part| part.rows))),
        ),
        (
            "first_key",
            Arc::new(
                parts()
                    .map(|part| Some(&*part.first_key))
                    .collect::<StringArray>(),
            ),
        ),
    ])?;
    let names = TableId::ALL.map(TableId::name);
    let rows = root.tables.iter().map(|table| table.rows);
    let entries = structs([
        ("name", Arc::new(StringArray::from_iter_values(names))),
        ("rows", Arc::new(UInt64Array::from_iter_values(rows))),
        (
            "parts",
            lists(root.tables.iter().map(|table| table.parts.len()), all_parts)?,
        ),
    ])?;
    lists([root.tables.len()], entries)
}

fn structs<const N: usize>(columns: [(&str, ArrayRef); N]) -> Result<ArrayRef, ArrowError> {
    let field =
        |(name, column): &(&str, ArrayRef)| Field::new(*name, column.data_type().clone(), false);
    let fields: Fields = columns.iter().map(field).collect();
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    Ok(Arc::new(StructArray::try_new(fields, columns, None)?))
}

fn lists(lens: impl IntoIterator<Item = usize>, items: ArrayRef) -> Result<ArrayRef, ArrowError> {
    let field = Arc::new(Field::new("item", items.data_type().clone(), false));
    Ok(Arc::new(ListArray::try_new(
        field,
        OffsetBuffer::from_lengths(lens),
        items,
        None,
    )?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Root {
        let part = |n: u64, key: &str| PartRoot {
            footer_end: n * 64,
            index_at: n * 64 - 640,
            rows: n,
            chunks: 3,
            first_key: key.into(),
        };
        Root {
            generation: 1 << 40 | 7,
            published_at_ms: 1_767_225_600_000,
            state_dir: FileId {
                device: 1,
                inode: 2,
            },
            schema_version: 1,
            arrow_at: 4096,
            live_bytes: 12345,
            regions: vec![0, 3, 4],
            tables: [
                TableRoot {
                    rows: 1,
                    schema_fingerprint: 5,
                    parts: vec![part(100, "a")],
                },
                TableRoot {
                    rows: 2,
                    schema_fingerprint: 6,
                    parts: vec![part(200, "b"), part(300, "é")],
                },
                TableRoot {
                    rows: 0,
                    schema_fingerprint: 7,
                    parts: vec![part(400, "")],
                },
            ],
        }
    }

    #[test]
    fn a_record_survives_the_round_trip_whatever_stands_behind_it() {
        let mut bytes = Vec::new();
        root().append(&mut bytes);
        assert_eq!(Root::parse(&bytes), Ok(root()));
        bytes.extend_from_slice(&[0xaa; 100]);
        assert_eq!(Root::parse(&bytes), Ok(root()));
    }

    #[test]
    fn every_cut_and_every_bit_flip_of_a_record_is_refused() {
        let mut good = Vec::new();
        root().append(&mut good);
        for cut in 0..good.len() {
            assert!(Root::parse(&good[..cut]).is_err(), "cut at byte {cut}");
        }
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Root::parse(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn the_arrow_root_says_what_the_record_says() {
        let id: ArrayRef = Arc::new(StringArray::from(vec!["sample"]));
        let cluster = RecordBatch::try_from_iter([("cluster_id", id)]).expect("one column");
        let batch = root_batch(&root(), [3; 16], &cluster).expect("builds");
        assert_eq!(batch.num_rows(), 1);
        let sherwood = batch.column_by_name(ROOT_COLUMN).expect("is there");
        let text = format!("{sherwood:?}");
        for fact in ["1099511627783", "25600", "19200", "\"é\""] {
            assert!(text.contains(fact), "{fact} in {text}");
        }
    }
}
