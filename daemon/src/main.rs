//! `sherwoodd`: the process edge. Exit codes: see [`sherwood_daemon::run`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// Gives back what a start, a checkpoint or a merge has used (`.cargo/config.toml`, docs/decisions/0010).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    sherwood_daemon::run(std::env::args_os())
}
