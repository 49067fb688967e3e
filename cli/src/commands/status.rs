//! `sherwood status`: which state there is, whether somebody keeps it up to date, and what is wrong with him.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};
use sherwood_client::TableId;
use sherwood_client::write::{Address, Options, WriteError, Writer};

use crate::args::{StatusArgs, StatusFormat};
use crate::error::CliError;
use crate::find::find;
use crate::freshness;
use crate::output;
use crate::text;
use sherwood_client::find::Daemon;
use sherwood_client::find::{Found, Origin, Places};

/// Runs it.
pub fn run(places: &Places, args: &StatusArgs) -> Result<(), CliError> {
    let found = find(places)?;
    let daemon = freshness::look(&found)?;
    let trouble = trouble(&found, daemon);
    let mut out = output::stdout();
    match args.output {
        StatusFormat::Text => write_text(&mut out, &found, daemon, trouble)?,
        StatusFormat::Json => {
            serde_json::to_writer(&mut out, &as_json(&found, daemon, trouble)?)
                .map_err(std::io::Error::from)?;
            writeln!(out)?;
        }
    }
    out.flush()?;
    freshness::check(&found, args.age.max_age)
}

/// How long the daemon may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the daemon says is wrong, by the part of it that says so. `None`: there is nobody to ask.
fn trouble(found: &Found, daemon: Daemon) -> Option<Result<Map<String, Value>, WriteError>> {
    let Origin::Shared { reader } = &found.origin else {
        return None;
    };
    let socket = reader.path().with_extension("sock");
    if daemon.pid().is_none() || !socket.exists() {
        return None;
    }
    let ask = || {
        Writer::connect_with(
            Address::Socket(socket),
            Options::default().deadline(PATIENCE),
        )?
        .status()
    };
    let told = ask().map(|mut status| match status["trouble"].take() {
        Value::Object(trouble) => trouble,
        _ => Map::new(),
    });
    Some(told)
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

fn as_json(
    found: &Found,
    daemon: Daemon,
    trouble: Option<Result<Map<String, Value>, WriteError>>,
) -> Result<Value, CliError> {
    let rows = |table| found.snapshot.table(table).len();
    let path = |path: Option<&Path>| path.map(|path| path.to_string_lossy().into_owned());
    Ok(json!({
        "cluster_id": found.snapshot.cluster_id()?,
        "generation": generation(found),
        "age_seconds": found.age().map(|age| age.as_secs_f64()),
        "stale": daemon.is_stale(),
        "nodes": rows(TableId::Nodes),
        "tasks": rows(TableId::Tasks),
        "content": rows(TableId::Content),
        "state_path": path(found.state_path.as_deref()),
        "snapshot_path": path(snapshot_path(found)),
        "daemon_pid": daemon.pid(),
        "trouble": trouble.and_then(Result::ok),
    }))
}

fn write_text(
    out: &mut impl Write,
    found: &Found,
    daemon: Daemon,
    trouble: Option<Result<Map<String, Value>, WriteError>>,
) -> Result<(), CliError> {
    let snapshot = &found.snapshot;
    let mut line = |name: &str, value: String| writeln!(out, "{name:<11} {value}");
    line("cluster", text::printable(&snapshot.cluster_id()?))?;
    if let Some(master) = snapshot.master_id()? {
        line("master", text::printable(&master))?;
    }
    if let Some(generation) = generation(found) {
        line("generation", generation.to_string())?;
    }
    if let Some(age) = found.age() {
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
    match trouble {
        None => {}
        Some(Ok(trouble)) => {
            for (what, why) in trouble {
                let why = why.as_str().map_or_else(|| why.to_string(), str::to_owned);
                let told = format!("{what}: {why}");
                line("trouble", text::printable(&told))?;
            }
        }
        Some(Err(error)) => {
            let told = format!("not known: {error}");
            line("trouble", text::printable(&told))?;
        }
    }
    Ok(())
}
