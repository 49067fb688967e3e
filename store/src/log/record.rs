//! The header of a record: which entry it is, and a checksum over all of it.
//!
//! The byte table is docs/format.md, section 11. A record begins on a multiple of 64 bytes and ends on one.
//!
//! - **L1** A record belongs to one life of one segment: its checksum begins with the segment's id, so that bytes of
//!   another segment, or of an earlier life of the same file, are never taken for one.
//! - **L2** The header's checksum covers the payload's, and that the payload: nothing of a record is unchecked.

use super::segment::SegmentId;

/// Records begin on multiples of this.
pub(super) const RECORD_ALIGN: u64 = 64;
/// Bytes of a record's header.
pub(super) const RECORD_HEADER: usize = 48;
const MAGIC: [u8; 4] = *b"SREC";

/// What a record's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    /// All of it: header, payload, zeros up to a multiple of 64.
    pub(super) bytes: u64,
    pub(super) sequence: u64,
    pub(super) generation: u64,
    pub(super) committed_at_ms: i64,
    /// CRC-32C of the payload and the zeros behind it.
    pub(super) payload_sum: u32,
}

impl RecordHeader {
    pub(super) fn to_bytes(self, segment: SegmentId) -> [u8; RECORD_HEADER] {
        let mut out = [0; RECORD_HEADER];
        out[0..4].copy_from_slice(&MAGIC);
        out[8..16].copy_from_slice(&self.bytes.to_le_bytes());
        out[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        out[24..32].copy_from_slice(&self.generation.to_le_bytes());
        out[32..40].copy_from_slice(&self.committed_at_ms.to_le_bytes());
        out[40..44].copy_from_slice(&self.payload_sum.to_le_bytes());
        let sum = header_sum(segment, &out);
        out[4..8].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// The header that these bytes are in this segment (L1), if they are one.
    pub(super) fn parse(bytes: &[u8], segment: SegmentId) -> Option<Self> {
        let bytes: &[u8; RECORD_HEADER] = bytes.first_chunk()?;
        if bytes[0..4] != MAGIC || u32_at(bytes, 4) != header_sum(segment, bytes) {
            return None;
        }
        let header = Self {
            bytes: u64_at(bytes, 8),
            sequence: u64_at(bytes, 16),
            generation: u64_at(bytes, 24),
            committed_at_ms: u64_at(bytes, 32).cast_signed(),
            payload_sum: u32_at(bytes, 40),
        };
        let whole = header.bytes >= RECORD_ALIGN && header.bytes.is_multiple_of(RECORD_ALIGN);
        (whole && bytes[44..48] == [0; 4]).then_some(header)
    }
}

fn header_sum(segment: SegmentId, header: &[u8; RECORD_HEADER]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&segment.0), &header[8..])
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map_or(0, |field| u32::from_le_bytes(*field))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map_or(0, |field| u64::from_le_bytes(*field))
}

pub(super) fn id_at(bytes: &[u8], at: usize) -> [u8; 16] {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.copied().unwrap_or_default()
}
