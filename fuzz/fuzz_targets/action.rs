//! See `sherwood_tests::fuzzing::action`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sherwood_tests::fuzzing::action(bytes));
