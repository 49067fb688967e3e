//! `sherwood verify`: what is wrong with a file, all of it.

use std::io::Write;
use std::panic;
use std::path::Path;

use sherwood_client::verify::{self, Kind};

use crate::error::CliError;
use crate::output;
use crate::text;

/// Runs it. Findings are the result, so they go to stdout.
pub fn run(file: &Path) -> Result<(), CliError> {
    // Panics of the decoders are findings, and are reported as such.
    let usual = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let report = verify::verify(file);
    panic::set_hook(usual);
    let report = report?;
    let mut out = output::stdout();
    let file = file.display();
    if !report.is_good() {
        for finding in &report.findings {
            writeln!(out, "{file}: {finding}")?;
        }
        let count = report.findings.len();
        let s = if count == 1 { "" } else { "s" };
        writeln!(out, "{file}: damaged, {count} finding{s}")?;
        out.flush()?;
        return Err(CliError::Damaged);
    }
    let what = match report.kind {
        Kind::Snapshot => "snapshot",
        Kind::Parquet => "Parquet state",
        Kind::Unknown => "file",
    };
    let cluster = text::printable(report.cluster_id.as_deref().unwrap_or_default());
    write!(out, "{file}: good {what} of cluster {cluster}")?;
    if let Some(generation) = report.generation {
        write!(out, ", generation {generation}")?;
    }
    let [nodes, tasks, content] = report.rows;
    write!(
        out,
        ", {nodes} nodes, {tasks} tasks, {content} content items"
    )?;
    if report.kind == Kind::Snapshot {
        let size = text::size(i64::try_from(report.live_bytes).unwrap_or(i64::MAX));
        write!(
            out,
            ", {size} in {} chunks and {} regions",
            report.chunks, report.regions
        )?;
    }
    writeln!(out)?;
    out.flush()?;
    Ok(())
}
