//! Runs the peers' program and reads its lines.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::measure::Figure;
use crate::row::{Outcome, Row};
use crate::{Failure, Setting};

/// The rows of the peers and the floors; where they cannot be had, rows that
/// say so.
pub fn run(setting: &Setting) -> Vec<Row> {
    let absent = |why: &str| {
        let names = [
            ("floor", "machine"),
            ("acquire", "mmap-sync"),
            ("acquire", "LMDB"),
            ("acquire", "iceoryx2"),
            ("acquire", "new file, rename, re-map"),
            ("transact", "SQLite"),
            ("transact", "redb"),
            ("transact", "etcd"),
        ];
        names
            .map(|(question, peer)| Row::not_run(question, "all", (peer, "-"), why))
            .into()
    };
    let Some(program) = &setting.peers else {
        return absent("peers not run: no --peers PROGRAM was given");
    };
    match read(program, setting) {
        Ok(rows) => rows,
        Err(error) => absent(&format!("peers not run: {}: {error}", program.display())),
    }
}

fn read(program: &Path, setting: &Setting) -> Result<Vec<Row>, Failure> {
    let mut command = Command::new(program);
    command
        .arg("--dir")
        .arg(&setting.dir)
        .arg("--disk")
        .arg(&setting.disk)
        .stdout(Stdio::piped());
    if setting.large {
        command.arg("--large");
    }
    let mut child = command.spawn()?;
    let mut rows = Vec::new();
    if let Some(lines) = child.stdout.take() {
        for line in BufReader::new(lines).lines() {
            let line = line?;
            let row = row(&serde_json::from_str(&line)?)
                .ok_or_else(|| format!("it printed {line:?}, which is no row"))?;
            eprintln!("{}: {}: {}", row.question, row.peer, row.name);
            rows.push(row);
        }
    }
    let status = child.wait()?;
    if status.success() {
        Ok(rows)
    } else {
        Err(format!("it ended with {status}").into())
    }
}

/// The row that a line describes; `None` if it is none.
fn row(line: &Value) -> Option<Row> {
    let text = |key: &str| line[key].as_str().map(str::to_owned);
    let number = |key: &str| line[key].as_f64();
    let outcome = if let Some(why) = text("not_run") {
        Outcome::NotRun(why)
    } else if let Some(value) = number("value") {
        Outcome::Number(value, text("unit")?)
    } else {
        Outcome::Time(Figure {
            min: number("min_ns")?,
            median: number("value_ns")?,
            p99: number("p99_ns")?,
            samples: usize::try_from(line["samples"].as_u64()?).ok()?,
            batch: u32::try_from(line["batch"].as_u64()?).ok()?,
        })
    };
    let floor = &line["floor"];
    Some(Row {
        question: text("question")?,
        name: text("name")?,
        peer: text("peer")?,
        version: text("version")?,
        outcome,
        floor: floor["name"]
            .as_str()
            .map(str::to_owned)
            .zip(floor["times"].as_f64()),
        detail: text("detail")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let figure = Figure {
            min: 1.0,
            median: 2.5,
            p99: 9.125,
            samples: 40,
            batch: 1024,
        };
        let who = ("LMDB", "0.9");
        vec![
            Row::new("lookup", "get", who, Outcome::Time(figure))
                .over("load", 2.0)
                .detail("warm"),
            Row::new("memory", "file", who, Outcome::Number(1.5, "x".into())),
            Row::not_run("wake", "wait", who, "it cannot"),
        ]
    }

    #[test]
    fn a_row_printed_as_json_is_read_back_the_same() {
        for expected in rows() {
            let line = expected.to_json().to_string();
            let value = serde_json::from_str(&line).expect(&line);
            assert_eq!(row(&value), Some(expected), "{line}");
        }
    }

    #[test]
    fn a_line_that_lacks_a_field_is_no_row() {
        for whole in rows() {
            let line = whole.to_json();
            for key in line
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, _)| key.clone())
            {
                let mut without = line.clone();
                without
                    .as_object_mut()
                    .map(|object| object.shift_remove(&key));
                let optional = key == "floor";
                assert_eq!(
                    row(&without).is_some(),
                    optional,
                    "{key} removed from {line}"
                );
            }
        }
    }
}
