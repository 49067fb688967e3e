//! `sherwoodd`: the process edge. Exit codes: see [`sherwood_daemon::run`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    sherwood_daemon::run(std::env::args_os())
}
