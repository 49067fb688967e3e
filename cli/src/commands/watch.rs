//! `sherwood watch`: one line for each new generation.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;
use sherwood_client::{Snapshot, TableId};

use crate::args::{WatchArgs, WatchFormat};
use crate::error::CliError;
use crate::find::find;
use crate::output;
use crate::text;
use sherwood_client::find::Daemon;
use sherwood_client::find::{Origin, Places};

/// How long to wait before looking whether the daemon is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Runs it.
pub fn run(places: &Places, args: &WatchArgs) -> Result<(), CliError> {
    // A time beyond the clock's end never comes.
    let deadline = args
        .timeout
        .and_then(|timeout| Instant::now().checked_add(timeout));
    let found = find(places)?;
    let reader = match &found.origin {
        Origin::Shared { reader } => reader.clone(),
        Origin::Parquet { path, .. } => {
            return Err(CliError::NothingToWatch { path: path.clone() });
        }
    };
    let mut handle = reader.handle()?;
    let mut before = Counts::of(&found.snapshot);
    let place = reader.path().display();
    output::say(
        "watching",
        &format!("{place}, generation {}", found.snapshot.generation()),
    );
    let mut daemon = Daemon::Alive { pid: 0 };
    let mut out = output::stdout();
    let mut seen = 0;
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return match args.count {
                Some(wanted) => Err(CliError::TimeOver { seen, wanted }),
                None => Ok(()),
            };
        }
        let next = handle.wait(left.unwrap_or(LOOK_EVERY).min(LOOK_EVERY))?;
        if let Some(next) = next {
            still_ours(next, &found.state_path, reader.path())?;
            let counts = Counts::of(next);
            let line = match args.output {
                WatchFormat::Text => counts.line(next, before),
                WatchFormat::Jsonl => counts.object(next, before),
            };
            writeln!(out, "{line}")?;
            out.flush()?;
            before = counts;
            seen += 1;
            if args.count.is_some_and(|count| seen >= count) {
                return Ok(());
            }
        }
        let now = found.daemon()?;
        if now.is_stale() && now != daemon {
            output::say("warning", &now.describe());
        }
        daemon = now;
    }
}

/// The path is followed, and whoever may write there may put another state at it.
fn still_ours(
    next: &Snapshot,
    state_dir: &Option<PathBuf>,
    path: &std::path::Path,
) -> Result<(), CliError> {
    match state_dir {
        Some(state_dir) if !next.stands_for(state_dir) => Err(CliError::Usurped {
            path: path.to_owned(),
            state_dir: state_dir.clone(),
        }),
        _ => Ok(()),
    }
}

/// Rows by table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts([u64; 3]);

impl Counts {
    fn of(snapshot: &Snapshot) -> Self {
        Self(TableId::ALL.map(|table| snapshot.table(table).len()))
    }

    fn change(self, before: Self) -> [i128; 3] {
        TableId::ALL.map(|table| {
            let at = table as usize;
            i128::from(self.0[at]) - i128::from(before.0[at])
        })
    }

    fn line(self, snapshot: &Snapshot, before: Self) -> String {
        let time = snapshot.published_at().and_then(text::moment);
        let mut line = format!(
            "generation {}  {}",
            snapshot.generation(),
            time.as_deref().unwrap_or(text::NULL)
        );
        for ((table, rows), change) in TableId::ALL.iter().zip(self.0).zip(self.change(before)) {
            line.push_str(&format!("  {} {rows}", table.name()));
            if change != 0 {
                line.push_str(&format!(" ({change:+})"));
            }
        }
        line
    }

    fn object(self, snapshot: &Snapshot, before: Self) -> String {
        let [nodes, tasks, content] = self.0;
        let change = self
            .change(before)
            .map(|change| i64::try_from(change).unwrap_or(i64::MAX));
        json!({
            "generation": snapshot.generation(),
            "time": snapshot.published_at().and_then(text::moment),
            "nodes": nodes,
            "tasks": tasks,
            "content": content,
            "change": { "nodes": change[0], "tasks": change[1], "content": change[2] },
        })
        .to_string()
    }
}
