//! See `sherwood_tests::fuzzing::log`.
#![no_main]

// Panics of the decoders below us are caught and told as errors (`guarded`, `schema_of`, `take_schema`); libFuzzer's own hook would end
// the process at each of them. One that is not caught still does.
libfuzzer_sys::fuzz_target!(
    init: { std::panic::set_hook(Box::new(|_| {})) },
    |bytes: &[u8]| sherwood_tests::fuzzing::log(bytes)
);
