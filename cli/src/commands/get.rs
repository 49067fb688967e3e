//! `sherwood get`: rows, for people and for programs.
//!
//! Rows are written as they are read: what is printed never stands in memory as a whole.

mod columns;

use std::io::Write;

use sherwood_client::TableId;

use crate::args::{GetArgs, RowFormat};
use crate::encode;
use crate::error::CliError;
use crate::find::find;
use crate::freshness;
use crate::output;
use crate::select::{Selection, Wanted};
use sherwood_client::find::Places;

/// Runs it.
pub fn run(places: &Places, args: &GetArgs) -> Result<(), CliError> {
    let found = find(places)?;
    freshness::check(&found, args.age.max_age)?;
    let daemon = found.daemon()?;
    if let Some(warning) = freshness::warning(&found, daemon) {
        output::say("warning", &warning);
    }
    let table = TableId::from(args.table);
    let wanted = Wanted::new(&found.snapshot, table, &args.ids, args.r#where.as_deref())?;
    let selection = &wanted.selection;
    let rows = found.snapshot.table(table);
    let mut out = output::stdout();
    let batches = &mut *selection.batches(rows);
    match args.output {
        RowFormat::Table if matches!(selection, Selection::Ids(ids) if ids.is_empty()) => {}
        RowFormat::Table => columns::write(&mut out, &found.snapshot, table, selection)?,
        RowFormat::Json => encode::objects(&mut out, batches, &encode::ARRAY)?,
        RowFormat::Jsonl => encode::objects(&mut out, batches, &encode::LINES)?,
        RowFormat::Yaml => encode::yaml(&mut out, batches)?,
        RowFormat::Csv => encode::csv(&mut out, &rows.schema()?, batches)?,
        RowFormat::Arrow => {
            output::refuse_terminal("an Arrow stream")?;
            let schema = encode::described(&rows.schema()?, &found)?;
            encode::stream(&mut out, &schema, batches)?;
        }
    }
    out.flush()?;
    if wanted.missing.is_empty() {
        return Ok(());
    }
    let ids = wanted.missing;
    Err(CliError::NotFound { table, ids })
}
