//! What a reader of the log does with bytes that nobody wrote, without the files around them and with the checksums mended: for fuzzing.

use super::manifest::Manifest;
use super::payload::{Decoder, Encoder, check};
use super::record::{RECORD_HEADER, RecordHeader};
use super::segment::{SEGMENT_HEADER, SegmentHeader, SegmentId};
use crate::entry::Entry;

/// Reads bytes as each thing that a log is made of, and as a segment's payloads: each two bytes of length, and that many.
///
/// # Panics
///
/// If an entry that was read cannot be written, or is another when it is read again.
pub fn read(bytes: &[u8]) {
    if let Some(header) = bytes.first_chunk::<SEGMENT_HEADER>() {
        let mut mended = *header;
        mended[12..16].fill(0);
        let sum = crc32c::crc32c(&mended);
        mended[12..16].copy_from_slice(&sum.to_le_bytes());
        if let Ok(header) = SegmentHeader::parse(&mended) {
            assert_eq!(SegmentHeader::parse(&header.to_bytes()), Ok(header));
        }
    }
    let _refused_by_their_checksums = (
        Manifest::parse(bytes),
        RecordHeader::parse(bytes, SegmentId::default()),
    );
    let mut left = bytes;
    let (mut decoder, mut outcomes, mut schemas) = <(Decoder, Decoder, Decoder)>::default();
    let mut encoder = Encoder::default();
    let mut again = Decoder::default();
    while let Some((&length, rest)) = left.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes(length)).min(rest.len());
        let (payload, rest) = rest.split_at(length);
        left = rest;
        let found = decoder.entry(&header(0), payload);
        let _fewer_checks = (outcomes.outcomes(payload), schemas.skip(payload));
        let Ok(entry) = found else { return };
        check(&entry).expect("read, so it can be written");
        let mut written = Vec::new();
        encoder.encode(&entry, &mut written);
        encoder.keep();
        assert_eq!(again.entry(&header(0), &written), Ok(entry));
    }
}

/// What [`read`] takes, of entries.
#[must_use]
pub fn written(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::default();
    for entry in entries {
        let mut payload = Vec::new();
        encoder.encode(entry, &mut payload);
        encoder.keep();
        let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&payload);
    }
    bytes
}

/// A header and a record's header, as files begin with them.
#[must_use]
pub fn headers() -> Vec<u8> {
    let segment = SegmentHeader {
        id: SegmentId([1; 16]),
        previous: SegmentId([2; 16]),
        history: [3; 16],
        first_sequence: 4,
        base_generation: 5,
        bytes: 4096,
        created_at_ms: 1_767_225_600_000,
    };
    let record: [u8; RECORD_HEADER] = header(128).to_bytes(segment.id);
    [&segment.to_bytes()[..], &record].concat()
}

fn header(bytes: u64) -> RecordHeader {
    RecordHeader {
        bytes,
        sequence: 0,
        generation: 0,
        committed_at_ms: 0,
        payload_sum: 0,
    }
}
