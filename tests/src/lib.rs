//! What the whole-process tests share: states made of rows that carry their own checksum,
//! rows as JSON for tests in other languages, and processes that publish and read states
//! under duress.

#![forbid(unsafe_code)]

pub mod json;
pub mod rows;
pub mod torture;

/// Says that a test could not run here: it is counted and named by `make test`, and a
/// failure where `SHERWOOD_REQUIRE_ALL=1`, as in CI.
///
/// # Panics
///
/// If every test is required to run.
pub fn not_run(name: &str, why: &str) {
    use std::io::Write;
    // Not `eprintln!`: of a test that passes the harness keeps that to itself.
    let _ = writeln!(std::io::stderr(), "NOT RUN: {name}: {why}");
    let required = std::env::var("SHERWOOD_REQUIRE_ALL").is_ok_and(|value| value == "1");
    assert!(!required, "{name} must run here: {why}");
}
