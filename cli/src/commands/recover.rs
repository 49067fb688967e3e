//! `sherwood recover`: what a state directory can be recovered from, and doing it.

use std::io::Write;

use indicatif::ProgressBar;
use serde_json::{Value, json};
use sherwood_shared::schema::TableId;
use sherwood_store::recover::tools::{self, CheckpointLine, Listing, LogLine};

use crate::args::{RecoverArgs, RecoverCommand, RecoverLook, StatusFormat};
use crate::error::CliError;
use crate::output;
use crate::text;
use sherwood_client::find::Places;

/// Runs it.
pub fn run(places: &Places, args: &RecoverArgs) -> Result<(), CliError> {
    let dir = places.state_dir()?;
    let mut out = output::stdout();
    match &args.command {
        RecoverCommand::List(look) => {
            let listing = waiting("reading", || Ok(tools::list(&dir)?))?;
            show(&mut out, &listing, look)?;
        }
        RecoverCommand::Verify(look) => {
            let listing = waiting("checking", || Ok(tools::verify(&dir)?))?;
            show(&mut out, &listing, look)?;
            out.flush()?;
            if problems(&listing) > 0 {
                return Err(CliError::Damaged);
            }
        }
        RecoverCommand::Restore { to } => {
            let restored = waiting("restoring", || Ok(tools::restore(&dir, *to)?))?;
            writeln!(
                out,
                "the state is that after entry {} (generation {}): {}",
                restored.position.sequence,
                restored.position.generation,
                rows(&restored.rows)
            )?;
            let aside = restored.set_aside.display();
            writeln!(out, "what was replaced is in {aside}")?;
            for missing in &restored.missing {
                output::say("missing", missing);
            }
        }
        RecoverCommand::Salvage { out: path } => {
            let saved = waiting("saving", || Ok(tools::salvage(&dir, path)?))?;
            let through = saved.through;
            let rows = rows(&saved.rows);
            writeln!(out, "{}: {rows}, through entry {through}", path.display())?;
            match &saved.base {
                Some(base) => writeln!(out, "begun with {}", base.display())?,
                None => writeln!(out, "from the log alone")?,
            }
            for missing in &saved.missing {
                output::say("missing", missing);
            }
        }
    }
    Ok(out.flush()?)
}

/// Shows that something goes on, on stderr, if that is a terminal.
fn waiting<T>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, CliError>,
) -> Result<T, CliError> {
    let progress = ProgressBar::new_spinner().with_message(what);
    progress.enable_steady_tick(std::time::Duration::from_millis(100));
    let done = work();
    progress.finish_and_clear();
    done
}

fn problems(listing: &Listing) -> usize {
    let checkpoints = listing.checkpoints.iter();
    let bad = checkpoints.filter(|line| line.problem.is_some()).count();
    bad + usize::from(listing.log.problem.is_some())
}

fn show(out: &mut impl Write, listing: &Listing, look: &RecoverLook) -> Result<(), CliError> {
    match look.output {
        StatusFormat::Json => writeln!(out, "{}", object(listing))?,
        StatusFormat::Text => {
            if listing.checkpoints.is_empty() {
                writeln!(out, "no checkpoint")?;
            }
            for line in &listing.checkpoints {
                writeln!(out, "{}", checkpoint(line))?;
            }
            for line in log(&listing.log) {
                writeln!(out, "{line}")?;
            }
            writeln!(out, "{}", reach(listing))?;
        }
    }
    Ok(())
}

fn checkpoint(line: &CheckpointLine) -> String {
    let mut said = format!("checkpoint through entry {}", line.sequence);
    if let Some(generation) = line.generation {
        said.push_str(&format!(", generation {generation}"));
    }
    if let Some(modified) = line.modified.and_then(text::moment) {
        said.push_str(&format!(", {modified}"));
    }
    if let Some(counts) = &line.rows {
        said.push_str(&format!(", {}", rows(counts)));
    }
    said.push_str(&format!(", {} bytes: {}", line.bytes, line.path.display()));
    match &line.problem {
        Some(problem) => format!("{said}\n  wrong: {problem}"),
        None => said,
    }
}

fn log(log: &LogLine) -> Vec<String> {
    let mut lines = Vec::new();
    let segments = match log.segments.len() {
        1 => "1 segment".to_owned(),
        segments => format!("{segments} segments"),
    };
    match (log.first, log.last) {
        (Some(first), Some(last)) => lines.push(format!(
            "log of entries {} to {} (generations {} to {}), in {segments}",
            first.sequence, last.sequence, first.generation, last.generation
        )),
        _ => lines.push(format!("log without entries, in {segments}")),
    }
    if let Some(torn) = log.torn {
        lines.push(format!(
            "  entry {torn} was being written when the log stopped"
        ));
    }
    if let Some(problem) = &log.problem {
        lines.push(format!("  wrong: {problem}"));
    }
    lines
}

/// The entries that a restore can go to, as far as the listing tells: ranges in ascending order, both ends included. From
/// a checkpoint those behind it in the log can be reached, if none between is missing.
fn reachable(listing: &Listing) -> Vec<(u64, u64)> {
    let log = listing.log.first.zip(listing.log.last);
    let good = listing.checkpoints.iter();
    let good = good.filter(|line| line.problem.is_none());
    let mut ranges: Vec<(u64, u64)> = good
        .map(|line| {
            let from = line.sequence;
            let end =
                log.filter(|(first, last)| (first.sequence..=last.sequence).contains(&(from + 1)));
            (from, end.map_or(from, |(_, last)| last.sequence))
        })
        .collect();
    ranges.sort_unstable();
    ranges.dedup_by(|next, before| {
        let is_in = next.0 <= before.1.saturating_add(1);
        if is_in {
            before.1 = before.1.max(next.1);
        }
        is_in
    });
    ranges
}

fn reach(listing: &Listing) -> String {
    let ranges: Vec<String> = reachable(listing)
        .into_iter()
        .map(|(from, to)| match from == to {
            true => format!("entry {from}"),
            false => format!("entries {from} to {to}"),
        })
        .collect();
    match ranges.is_empty() {
        true => {
            "restore --to reaches no entry: it begins with a checkpoint, and there is no good one"
                .to_owned()
        }
        false => format!("restore --to reaches {}", ranges.join(", and ")),
    }
}

fn rows(rows: &[usize; 3]) -> String {
    let of = |(table, rows): (TableId, &usize)| format!("{rows} {}", table.name());
    let counts: Vec<_> = TableId::ALL.into_iter().zip(rows).map(of).collect();
    counts.join(", ")
}

fn object(listing: &Listing) -> Value {
    let checkpoints = listing.checkpoints.iter().map(|line| {
        json!({
            "path": line.path, "sequence": line.sequence, "generation": line.generation,
            "bytes": line.bytes, "modified": line.modified.and_then(text::moment),
            "rows": line.rows, "problem": line.problem,
        })
    });
    let log = &listing.log;
    let segments = log.segments.iter().map(|segment| {
        json!({
            "path": segment.path, "first_sequence": segment.first_sequence, "bytes": segment.bytes,
            "modified": segment.modified.and_then(text::moment),
        })
    });
    json!({
        "checkpoints": checkpoints.collect::<Vec<_>>(),
        "log": {
            "segments": segments.collect::<Vec<_>>(),
            "first": log.first.map(|at| at.sequence), "last": log.last.map(|at| at.sequence),
            "last_at_ms": log.last_at_ms, "problem": log.problem, "torn": log.torn,
        },
        "restore_to": reachable(listing),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sherwood_store::checkpoint::Position;

    fn listing(checkpoints: &[(u64, bool)], log: Option<(u64, u64)>) -> Listing {
        let line = |&(sequence, is_good): &(u64, bool)| CheckpointLine {
            path: "c".into(),
            sequence,
            generation: None,
            bytes: 0,
            modified: None,
            rows: None,
            problem: (!is_good).then(|| "bad".to_owned()),
        };
        let at = |sequence| Position {
            sequence,
            generation: sequence,
        };
        Listing {
            checkpoints: checkpoints.iter().map(line).collect(),
            log: LogLine {
                first: log.map(|(first, _)| at(first)),
                last: log.map(|(_, last)| at(last)),
                ..LogLine::default()
            },
        }
    }

    #[test]
    fn a_restore_reaches_good_checkpoints_and_what_the_log_has_behind_them() {
        let told = |checkpoints: &[(u64, bool)], log| reach(&listing(checkpoints, log));
        for (checkpoints, log, expected) in [
            (
                &[(40, true), (20, true)][..],
                Some((1, 57)),
                "entries 20 to 57",
            ),
            (
                &[(40, true), (20, false)],
                Some((1, 57)),
                "entries 40 to 57",
            ),
            // The log begins only behind the newer one, or ends before it.
            (
                &[(40, true), (20, true)],
                Some((41, 57)),
                "entry 20, and entries 40 to 57",
            ),
            (
                &[(40, true), (20, true)],
                Some((1, 30)),
                "entries 20 to 30, and entry 40",
            ),
            (&[(40, true)], Some((42, 57)), "entry 40"),
            (&[(0, true)], None, "entry 0"),
            (&[(40, true), (39, true)], None, "entries 39 to 40"),
        ] {
            let expected = format!("restore --to reaches {expected}");
            assert_eq!(told(checkpoints, log), expected, "{checkpoints:?} {log:?}");
        }
        assert!(told(&[(40, false)], Some((41, 57))).contains("reaches no entry"));
    }
}
