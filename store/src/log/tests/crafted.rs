//! Payloads whose checksum would be right, and which nobody wrote: an entry or an error, never a panic.

use super::samples::*;
use crate::log::payload::{Decoder, Encoder, check};
use crate::log::record::RecordHeader;

#[test]
fn every_flipped_bit_and_every_cut_of_a_payload_is_an_entry_or_an_error() {
    for number in 1..=5 {
        let entry = sample(number);
        let mut good = Vec::new();
        Encoder::default().encode(&entry, &mut good);
        let header = RecordHeader {
            bytes: 0,
            sequence: entry.sequence,
            generation: entry.generation,
            committed_at_ms: entry.committed_at_ms,
            payload_sum: 0,
        };
        assert_eq!(Decoder::default().entry(&header, &good), Ok(entry));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = Decoder::default().entry(&header, &bad) {
                check(&other).unwrap_or_else(|error| panic!("sample {number}, bit {bit}: {error}"));
            }
        }
        for cut in 0..good.len() {
            let _either = Decoder::default().entry(&header, &good[..cut]);
        }
    }
}
