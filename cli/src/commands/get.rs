//! `sherwood get`: rows, for people and for programs.
//!
//! Rows are written as they are read: what is printed never stands in memory as a whole.

mod columns;

use std::collections::HashSet;
use std::io::Write;

use sherwood_client::{Snapshot, TableId};

use crate::args::{GetArgs, RowFormat};
use crate::error::CliError;
use crate::find::Places;
use crate::freshness;
use crate::json;
use crate::output;

/// Runs it.
pub fn run(places: &Places, args: &GetArgs) -> Result<(), CliError> {
    let found = places.find()?;
    freshness::check(&found, args.age.max_age)?;
    let daemon = freshness::glance(&found)?;
    if let Some(warning) = freshness::warning(&found, daemon) {
        output::say("warning", &warning);
    }
    let table = TableId::from(args.table);
    let wanted = (!args.ids.is_empty()).then(|| Wanted::new(&found.snapshot, table, &args.ids));
    let wanted = wanted.transpose()?;
    let mut out = output::stdout();
    let ids = wanted.as_ref().map(|wanted| wanted.found.as_slice());
    match args.output {
        RowFormat::Table if ids.is_some_and(<[_]>::is_empty) => {}
        RowFormat::Table => columns::write(&mut out, &found.snapshot, table, ids)?,
        RowFormat::Json => write_json(&mut out, &found.snapshot, table, ids, &ARRAY)?,
        RowFormat::Jsonl => write_json(&mut out, &found.snapshot, table, ids, &LINES)?,
    }
    out.flush()?;
    match wanted {
        Some(wanted) if !wanted.missing.is_empty() => Err(CliError::NotFound {
            table,
            ids: wanted.missing,
        }),
        _ => Ok(()),
    }
}

/// The ids asked for, each once, in the order asked.
struct Wanted<'a> {
    found: Vec<&'a str>,
    missing: Vec<String>,
}

impl<'a> Wanted<'a> {
    fn new(snapshot: &Snapshot, table: TableId, ids: &'a [String]) -> Result<Self, CliError> {
        let mut seen = HashSet::new();
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for id in ids {
            if !seen.insert(id) {
                continue;
            }
            match snapshot.table(table).find(id)? {
                Some(_) => found.push(id.as_str()),
                None => missing.push(id.clone()),
            }
        }
        Ok(Self { found, missing })
    }
}

/// What stands around objects.
struct Frame {
    before: &'static str,
    between: &'static str,
    after: &'static str,
    /// After the last of at least one.
    end: &'static str,
}

const ARRAY: Frame = Frame {
    before: "[",
    between: ",\n",
    after: "]\n",
    end: "",
};
const LINES: Frame = Frame {
    before: "",
    between: "\n",
    after: "",
    end: "\n",
};

fn write_json(
    out: &mut impl Write,
    snapshot: &Snapshot,
    table: TableId,
    ids: Option<&[&str]>,
    frame: &Frame,
) -> Result<(), CliError> {
    let mut line = Vec::with_capacity(1024);
    let mut any = false;
    out.write_all(frame.before.as_bytes())?;
    let mut write = |rows: &json::Rows<'_>, row: usize| -> Result<(), CliError> {
        line.clear();
        if any {
            line.extend_from_slice(frame.between.as_bytes());
        }
        any = true;
        rows.write(row, &mut line);
        Ok(out.write_all(&line)?)
    };
    match ids {
        Some(ids) => {
            for id in ids {
                if let Some((batch, row)) = snapshot.table(table).find(id)? {
                    write(&json::Rows::new(&batch)?, row)?;
                }
            }
        }
        None => {
            for batch in snapshot.table(table).batches() {
                let batch = batch?;
                let rows = json::Rows::new(&batch)?;
                for row in 0..batch.num_rows() {
                    write(&rows, row)?;
                }
            }
        }
    }
    if any {
        out.write_all(frame.end.as_bytes())?;
    }
    out.write_all(frame.after.as_bytes())?;
    Ok(())
}
