//! The real daemon, under a name that only tests use: Cargo tells a test the paths of its own package's binaries alone.
//! It dies where a test wants it to.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    sherwood_tests::writes::failpoints::hook();
    sherwood_daemon::run(std::env::args_os())
}
