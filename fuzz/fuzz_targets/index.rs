//! See `sherwood_tests::fuzzing::part_index`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sherwood_tests::fuzzing::part_index(bytes));
