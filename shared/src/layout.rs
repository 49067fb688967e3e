//! Where things stand in a snapshot file: the header's byte table and the regions behind it.
//!
//! The authority is docs/format.md, section 2; the constants below repeat it, and in tests/tests/format_doc.rs
//! `the_byte_table_matches_format_md` fails when the two drift apart.
//!
//! The daemon writes the *constants* once, before the file gets its name, and never
//! again. Behind them stand three words, each on cache lines of its own, that the
//! daemon alone stores and readers load relaxed. All integers are little-endian.
//!
//! Not promised: anything about bytes between the header and `data_start`, which
//! are zero today.

use thiserror::Error;

/// The magic of an Arrow IPC file, which every snapshot file is (F1).
pub const ARROW_MAGIC: [u8; 8] = *b"ARROW1\0\0";
/// Says that the gap behind the Arrow magic holds our header.
pub const FORMAT_MAGIC: [u8; 8] = *b"SHERWOOD";
/// Changes when an older reader could misread the file.
pub const FORMAT_VERSION: u32 = 1;

/// Bytes of the header that a reader maps: one page.
pub const HEADER_BYTES: usize = 4096;
/// Bytes of the constants, the checksum behind them not included.
pub const CONSTANTS_BYTES: usize = 256;
/// Longest cluster id, in bytes of UTF-8.
pub const CLUSTER_ID_MAX_BYTES: usize = 128;

/// Offset of the head word (F5). Its low half, the first four bytes, is the futex word.
pub const HEAD_AT: usize = 512;
/// Offset of `intact_from` (W7): generations below it may have been overwritten in part.
pub const INTACT_FROM_AT: usize = 640;
/// Offset of the beat counter (F11).
pub const BEAT_AT: usize = 768;

/// Where region 0 begins unless a test asks for less.
pub const DATA_START: u64 = 2 << 20;
/// Every block, footer and root begins on a multiple of this.
pub const ALIGN: u64 = 64;
/// The witness (F11): the byte that a live daemon holds an exclusive lock on. Far
/// behind any region, so that no lease ever meets it.
pub const WITNESS_AT: u64 = 1 << 62;

/// Rounds up to the next multiple of [`ALIGN`].
#[must_use]
pub const fn align_up(bytes: u64) -> u64 {
    bytes.div_ceil(ALIGN) * ALIGN
}

/// What the header says once and for all about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constants {
    /// Bytes before region 0.
    pub data_start: u64,
    /// Bytes of every region: a power of two, at least one page.
    pub region_bytes: u64,
    /// Random; no two files share it.
    pub file_id: [u8; 16],
    /// Names the history that generations count in (F12).
    pub history: [u8; 16],
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// The daemon's pid, as it saw itself. Information only: nothing relies on it.
    pub writer_pid: u32,
    /// Whose state this is.
    pub cluster_id: String,
}

/// Why bytes are not the header of a snapshot file that we can read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// Not a Sherwood snapshot at all.
    #[error("not a Sherwood snapshot: byte {at} does not carry the magic {expected:?}")]
    Magic {
        /// Offset of the magic.
        at: usize,
        /// What should stand there.
        expected: &'static str,
    },
    /// Made by another release.
    #[error(
        "snapshot format version {found}, and this reader knows version {FORMAT_VERSION}: \
         upgrade the older of the daemon and this program"
    )]
    Version {
        /// What the file says.
        found: u32,
    },
    /// Damaged.
    #[error("damaged header: checksum {found:#010x}, computed {computed:#010x}")]
    Checksum {
        /// In the file.
        found: u32,
        /// Of the bytes that stand before it.
        computed: u32,
    },
    /// A constant that no daemon writes.
    #[error("damaged header: {field} is {value}")]
    Value {
        /// Which.
        field: &'static str,
        /// What it says.
        value: u64,
    },
}

impl Constants {
    /// The bytes `[0, CONSTANTS_BYTES + 4)` of a file: constants and their checksum.
    ///
    /// A cluster id beyond [`CLUSTER_ID_MAX_BYTES`] is cut; callers check it before.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; CONSTANTS_BYTES + 4] {
        let mut bytes = [0_u8; CONSTANTS_BYTES + 4];
        let id = self.cluster_id.as_bytes();
        let id = &id[..id.len().min(CLUSTER_ID_MAX_BYTES)];
        bytes[0..8].copy_from_slice(&ARROW_MAGIC);
        bytes[8..16].copy_from_slice(&FORMAT_MAGIC);
        bytes[16..20].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.data_start.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.region_bytes.to_le_bytes());
        bytes[40..56].copy_from_slice(&self.file_id);
        bytes[56..72].copy_from_slice(&self.history);
        bytes[72..80].copy_from_slice(&self.created_at_ms.to_le_bytes());
        bytes[80..84].copy_from_slice(&self.writer_pid.to_le_bytes());
        let id_len = u32::try_from(id.len()).unwrap_or(0);
        bytes[84..88].copy_from_slice(&id_len.to_le_bytes());
        bytes[88..88 + id.len()].copy_from_slice(id);
        let checksum = crc32c::crc32c(&bytes[..CONSTANTS_BYTES]);
        bytes[CONSTANTS_BYTES..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads them back. The version is judged before the checksum, so that a file of
    /// another release is called that and not damaged.
    pub fn from_bytes(bytes: &[u8; CONSTANTS_BYTES + 4]) -> Result<Self, HeaderError> {
        if bytes[0..8] != ARROW_MAGIC {
            return Err(HeaderError::Magic {
                at: 0,
                expected: "ARROW1",
            });
        }
        if bytes[8..16] != FORMAT_MAGIC {
            return Err(HeaderError::Magic {
                at: 8,
                expected: "SHERWOOD",
            });
        }
        let found = u32_at(bytes, 16);
        if found != FORMAT_VERSION {
            return Err(HeaderError::Version { found });
        }
        let found = u32_at(bytes, CONSTANTS_BYTES);
        let computed = crc32c::crc32c(&bytes[..CONSTANTS_BYTES]);
        if found != computed {
            return Err(HeaderError::Checksum { found, computed });
        }
        let region_bytes = u64_at(bytes, 32);
        if !region_bytes.is_power_of_two() || !(4096..=1 << 36).contains(&region_bytes) {
            return Err(HeaderError::Value {
                field: "region_bytes",
                value: region_bytes,
            });
        }
        let data_start = u64_at(bytes, 24);
        if data_start < HEADER_BYTES as u64
            || !data_start.is_multiple_of(4096)
            || data_start > 1 << 36
        {
            return Err(HeaderError::Value {
                field: "data_start",
                value: data_start,
            });
        }
        let id_len = u32_at(bytes, 84);
        let cluster_id = usize::try_from(id_len)
            .ok()
            .filter(|&len| len <= CLUSTER_ID_MAX_BYTES)
            .and_then(|len| std::str::from_utf8(&bytes[88..88 + len]).ok())
            .ok_or(HeaderError::Value {
                field: "cluster_id_bytes",
                value: u64::from(id_len),
            })?;
        Ok(Self {
            data_start,
            region_bytes,
            file_id: array_at(bytes, 40),
            history: array_at(bytes, 56),
            created_at_ms: u64_at(bytes, 72),
            writer_pid: u32_at(bytes, 80),
            cluster_id: cluster_id.to_owned(),
        })
    }

    /// First byte of a region.
    #[must_use]
    pub fn region_start(&self, region: u32) -> u64 {
        // Saturates for what only a damaged file names: beyond every file's end.
        u64::from(region)
            .saturating_mul(self.region_bytes)
            .saturating_add(self.data_start)
    }

    /// The region that holds the byte at `offset`; `None` before region 0 or absurdly far.
    #[must_use]
    pub fn region_of(&self, offset: u64) -> Option<u32> {
        let behind = offset.checked_sub(self.data_start)?;
        u32::try_from(behind / self.region_bytes).ok()
    }

    /// The region that wholly holds `[start, end)` (W3: no block crosses one).
    #[must_use]
    pub fn region_of_range(&self, start: u64, end: u64) -> Option<u32> {
        let region = self.region_of(start)?;
        (start < end && self.region_of(end - 1)? == region).then_some(region)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

/// `N` bytes at a constant offset of a buffer whose length the type fixes.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constants() -> Constants {
        Constants {
            data_start: DATA_START,
            region_bytes: 4 << 20,
            file_id: [7; 16],
            history: [9; 16],
            created_at_ms: 1_767_225_600_000,
            writer_pid: 4242,
            cluster_id: "sample".to_owned(),
        }
    }

    #[test]
    fn constants_survive_the_round_trip() {
        assert_eq!(
            Constants::from_bytes(&constants().to_bytes()),
            Ok(constants())
        );
    }

    #[test]
    fn every_single_bit_flip_of_the_constants_is_refused() {
        let good = constants().to_bytes();
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Constants::from_bytes(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_range_belongs_to_a_region_only_if_it_lies_wholly_inside() {
        let c = constants();
        let second = c.region_start(1);
        assert_eq!(c.region_of_range(second - 64, second), Some(0));
        assert_eq!(c.region_of_range(second, second + 64), Some(1));
        assert_eq!(c.region_of_range(second - 64, second + 64), None);
        assert_eq!(c.region_of_range(second, second), None);
        assert_eq!(c.region_of(c.data_start - 1), None);
    }
}
