//! `sherwood status`: which state there is, and whether somebody keeps it up to date.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use sherwood_client::TableId;

use crate::args::{StatusArgs, StatusFormat};
use crate::error::CliError;
use crate::find::{Found, Origin, Places};
use crate::freshness::{self, Daemon};
use crate::output;
use crate::text;

/// Runs it.
pub fn run(places: &Places, args: &StatusArgs) -> Result<(), CliError> {
    let found = places.find()?;
    let daemon = freshness::look(&found)?;
    let mut out = output::stdout();
    match args.output {
        StatusFormat::Text => write_text(&mut out, &found, daemon)?,
        StatusFormat::Json => {
            serde_json::to_writer(&mut out, &as_json(&found, daemon)?)
                .map_err(std::io::Error::from)?;
            writeln!(out)?;
        }
    }
    out.flush()?;
    freshness::check(&found, args.age.max_age)
}

fn snapshot_path(found: &Found) -> Option<&Path> {
    match &found.origin {
        Origin::Shared { reader } => Some(reader.path()),
        Origin::Parquet { orphaned, .. } => orphaned.as_deref(),
    }
}

/// 0 is what a snapshot on the heap says of itself: it is not part of any history.
fn generation(found: &Found) -> Option<u64> {
    matches!(found.origin, Origin::Shared { .. }).then(|| found.snapshot.generation())
}

fn as_json(found: &Found, daemon: Daemon) -> Result<Value, CliError> {
    let rows = |table| found.snapshot.table(table).len();
    let path = |path: Option<&Path>| path.map(|path| path.to_string_lossy().into_owned());
    Ok(json!({
        "cluster_id": found.snapshot.cluster_id()?,
        "generation": generation(found),
        "age_seconds": freshness::age(found).map(|age| age.as_secs_f64()),
        "stale": daemon.is_stale(),
        "nodes": rows(TableId::Nodes),
        "tasks": rows(TableId::Tasks),
        "content": rows(TableId::Content),
        "state_path": path(found.state_path.as_deref()),
        "snapshot_path": path(snapshot_path(found)),
        "daemon_pid": daemon.pid(),
    }))
}

fn write_text(out: &mut impl Write, found: &Found, daemon: Daemon) -> Result<(), CliError> {
    let snapshot = &found.snapshot;
    let mut line = |name: &str, value: String| writeln!(out, "{name:<11} {value}");
    line("cluster", text::printable(&snapshot.cluster_id()?))?;
    if let Some(master) = snapshot.master_id()? {
        line("master", text::printable(&master))?;
    }
    if let Some(generation) = generation(found) {
        line("generation", generation.to_string())?;
    }
    if let Some(age) = freshness::age(found) {
        line("age", text::duration(age))?;
    }
    if let Some(updated) = snapshot.updated_at_ms()?.and_then(text::timestamp) {
        line("updated", updated)?;
    }
    for table in TableId::ALL {
        line(table.name(), snapshot.table(table).len().to_string())?;
    }
    if let Some(path) = &found.state_path {
        line("state", path.display().to_string())?;
    }
    match &found.origin {
        Origin::Parquet { path, .. } => line("read from", path.display().to_string())?,
        Origin::Shared { reader } => line("snapshot", reader.path().display().to_string())?,
    }
    let daemon = match daemon {
        Daemon::None => "none: read from the Parquet file".to_owned(),
        Daemon::Dead => "not running: this state may not be the newest".to_owned(),
        Daemon::Silent { pid } => {
            format!("pid {pid} shows no sign of life: this state may not be the newest")
        }
        Daemon::Alive { pid } => format!("running, pid {pid}"),
    };
    line("daemon", daemon)?;
    Ok(())
}
