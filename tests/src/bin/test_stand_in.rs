//! A small store that the crash tests are tried on.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    match sherwood_tests::writes::stand_in::serve(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("test_stand_in: {what}");
            ExitCode::FAILURE
        }
    }
}
