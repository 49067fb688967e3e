//! A process that makes a history of transactions.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match sherwood_tests::writes::historian::run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("test_historian: {what}");
            ExitCode::FAILURE
        }
    }
}
