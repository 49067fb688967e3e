//! Other people's Arrow and Parquet against ours: runs tests/python in an environment of its own.
//!
//! tests/python/setup.sh makes the environment, of exact versions, when it is missing; `SHERWOOD_PYTHON` names the
//! interpreter to make it of. Without Python 3.11, or without the packages, this fails: it is never skipped.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn python_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python")
}

/// The environment's interpreter.
fn interpreter() -> PathBuf {
    let made = Command::new(python_dir().join("setup.sh"))
        .stderr(Stdio::inherit())
        .output()
        .expect("runs tests/python/setup.sh");
    assert!(
        made.status.success(),
        "tests/python/setup.sh failed ({}): it needs Python 3.11 with venv (SHERWOOD_PYTHON names it) \
         and, the first time, its package index",
        made.status
    );
    let path = String::from_utf8(made.stdout).expect("a path in UTF-8");
    PathBuf::from(path.trim_end())
}

#[test]
fn pyarrow_polars_duckdb_and_pandas_read_what_we_write_and_we_what_they_write() {
    let done = Command::new(interpreter())
        .args([
            "-m",
            "pytest",
            "-q",
            "-rA",
            "--tb=short",
            "-p",
            "no:cacheprovider",
        ])
        .arg(python_dir())
        .env(
            "SHERWOOD_MAKE_SNAPSHOT",
            env!("CARGO_BIN_EXE_make_snapshot"),
        )
        .env("SHERWOOD_FLIGHT_STUB", env!("CARGO_BIN_EXE_flight_stub"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("runs pytest");
    let said = String::from_utf8_lossy(&done.stdout);
    println!("{said}");
    eprintln!("{}", String::from_utf8_lossy(&done.stderr));
    let summary = said.lines().last().unwrap_or_default();
    // Past the capture of test output: how many ran is worth seeing when all is well, too.
    writeln!(io::stderr(), "other readers: {summary}").expect("writes to stderr");
    assert!(done.status.success(), "pytest: {}", done.status);
    // A test that is skipped proves nothing.
    assert!(
        summary.contains(" passed") && !summary.contains("skipped"),
        "not every test ran: {summary}"
    );
}
