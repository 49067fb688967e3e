//! `make bench`: ours beside the peers, and all of it beside the floors of the
//! same run.
//!
//! `bench [--peers PROGRAM] [--large] [--only QUESTION]... [--dir DIR] [--disk DIR] [--out DIR]`
//!
//! - `--peers`: the program built from `benches/peers`, which measures the
//!   peers and the floors. Without it their rows say that they were not run,
//!   and nothing stands beside a floor.
//! - `--large`: also what takes gigabytes and minutes.
//! - `--only`: only these questions (`acquire`, `refresh`, `lookup`, `publish`,
//!   `publish-all`, `wake`, `attach`, `memory`, `transact`, `bulk`, `checkpoint`,
//!   `write-memory`, `start`), of ours and the peers' rows.
//! - `--dir`: where snapshots go: a tmpfs, `/dev/shm` unless given.
//! - `--disk`: where states and logs go, ours and the peers': not a tmpfs, `target` unless given.
//! - `--out`: where `bench.json` and `bench.md` go, `target` unless given.
//!
//! The table goes to stdout, progress to stderr. What cannot be measured is a
//! row that says why; no figure makes the program fail.

#![forbid(unsafe_code)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

mod cores;
mod goal;
mod keys;
mod machine;
mod measure;
mod peers;
mod questions;
mod row;
mod sample;
mod table;

use goal::Line;

/// Why a measurement has no figure.
type Failure = Box<dyn Error + Send + Sync>;

/// What the arguments ask for.
struct Setting {
    /// The peers' program.
    peers: Option<PathBuf>,
    /// Also what takes gigabytes and minutes.
    large: bool,
    /// The questions asked; all of them if empty.
    only: Vec<String>,
    /// Where snapshots go.
    dir: PathBuf,
    /// Where states and logs go.
    disk: PathBuf,
    /// Where the results go.
    out: PathBuf,
    /// What the peers and the floors took, for questions that compare themselves with them.
    measured: Vec<row::Row>,
}

impl Setting {
    /// Is this question asked?
    fn asks(&self, question: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == question)
    }
}

fn main() -> ExitCode {
    match edge() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Reads the arguments, measures, and writes the three results.
fn edge() -> Result<(), Failure> {
    let mut setting = Setting {
        peers: None,
        large: false,
        only: Vec::new(),
        dir: "/dev/shm".into(),
        disk: "target".into(),
        out: "target".into(),
        measured: Vec::new(),
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            // Hidden: the waiting half of the question `wake`.
            questions::wake::CHILD => return questions::wake::child(Path::new(&value()?)),
            "--peers" => setting.peers = Some(value()?.into()),
            "--large" => setting.large = true,
            "--only" => setting.only.push(value()?),
            "--dir" => setting.dir = value()?.into(),
            "--disk" => setting.disk = value()?.into(),
            "--out" => setting.out = value()?.into(),
            other => {
                return Err(format!(
                    "unknown argument {other:?}: see the top of benches/src/main.rs"
                )
                .into());
            }
        }
    }
    if let Some(unknown) = setting
        .only
        .iter()
        .find(|only| !table::QUESTIONS.iter().any(|(name, _)| name == only))
    {
        return Err(
            format!("{unknown:?} is no question: see the top of benches/src/main.rs").into(),
        );
    }
    let machine = machine::Machine::look();
    setting.measured = peers::run(&setting);
    let rows = setting.measured.iter().cloned();
    let mut lines: Vec<Line> = rows.map(Line::from).collect();
    lines.extend(questions::ask(&setting));
    lines.retain(|line| line.row.question == "floor" || setting.asks(&line.row.question));

    let table = table::Table::new(&machine, &lines);
    print!("{}", table.text());
    std::fs::create_dir_all(&setting.out)?;
    std::fs::write(setting.out.join("bench.md"), table.markdown())?;
    std::fs::write(setting.out.join("bench.json"), table.json())?;
    Ok(())
}
