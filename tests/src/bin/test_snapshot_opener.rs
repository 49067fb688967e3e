//! Opens the snapshot files that are named on stdin and reads every byte of them, one after the other.
//!
//! A process of its own: a reader that a damaged file brings down with a signal is seen to die. Answers each line
//! with one: `ok GENERATION`, or `error: ` and the error with its causes.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{BufRead, Write};

use sherwood_client::{ReadError, Reader, TableId};
use sherwood_daemon::log;

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        match read_all(&line?) {
            Ok(generation) => writeln!(out, "ok {generation}")?,
            // Some causes are of several lines.
            Err(error) => writeln!(out, "error: {}", log::chain(&error).replace('\n', " "))?,
        }
        out.flush()?;
    }
    Ok(())
}

fn read_all(path: &str) -> Result<u64, ReadError> {
    let snapshot = Reader::open(path)?.snapshot()?;
    snapshot.cluster()?;
    for id in TableId::ALL {
        let table = snapshot.table(id);
        let mut rows = 0;
        for batch in table.batches() {
            rows += batch?.num_rows() as u64;
        }
        assert_eq!(
            rows,
            table.len(),
            "a table that is shorter than it says, without an error"
        );
        table.find("task-0000003")?;
    }
    snapshot.to_state()?;
    Ok(snapshot.generation())
}
