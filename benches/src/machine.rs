//! What a figure is worthless without: machine, commit and command.

use std::fs;
use std::process::Command;

/// The machine and the run.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Name and value, in the order shown.
    pub facts: Vec<(&'static str, String)>,
}

impl Machine {
    /// Looks at the machine as it is before the first measurement.
    pub fn look() -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let mut command = vec!["bench".to_owned()];
        command.extend(std::env::args().skip(1));
        let facts = vec![
            (
                "machine",
                format!("{}, {cores} cores", cpu().unwrap_or_else(unknown)),
            ),
            (
                "kernel",
                line_of("/proc/sys/kernel/osrelease").unwrap_or_else(unknown),
            ),
            (
                "load before",
                line_of("/proc/loadavg").unwrap_or_else(unknown),
            ),
            (
                "build",
                if cfg!(debug_assertions) {
                    "debug: no figure here counts"
                } else {
                    "release"
                }
                .to_owned(),
            ),
            ("commit", commit().unwrap_or_else(unknown)),
            ("command", command.join(" ")),
        ];
        Self { facts }
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

fn line_of(path: &str) -> Option<String> {
    Some(
        fs::read_to_string(path)
            .ok()?
            .lines()
            .next()?
            .trim()
            .to_owned(),
    )
}

fn cpu() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The commit of the working directory, and whether it holds changes.
fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let clean = git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Some(if clean {
        commit
    } else {
        format!("{commit}, with changes")
    })
}
