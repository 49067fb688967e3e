//! See `sherwood_tests::fuzzing::chunk`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sherwood_tests::fuzzing::chunk(bytes));
