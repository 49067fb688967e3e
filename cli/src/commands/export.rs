//! `sherwood export`: the whole state, or rows of one table, as a file for other tools.
//!
//! Written as it is read, chunk by chunk. A file is written aside, synced and renamed: at its path stands what was there
//! before or the whole export.

use std::cell::Cell;
use std::fs::Permissions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use sherwood_client::{Snapshot, TableId};

use crate::args::{ExportArgs, ExportFormat};
use crate::encode::{self, Batches, Frame};
use crate::error::CliError;
use crate::find::find;
use crate::freshness;
use crate::output;
use crate::select::Wanted;
use sherwood_client::find::{Found, Places};
use sherwood_client::json::write_document;

/// Runs it.
pub fn run(places: &Places, args: &ExportArgs) -> Result<(), CliError> {
    let format = format(args)?;
    let is_stdout = args.file == Path::new("-");
    if is_stdout && matches!(format, ExportFormat::Parquet | ExportFormat::Arrow) {
        output::refuse_terminal("a Parquet or Arrow file")?;
    }
    let found = find(places)?;
    freshness::check(&found, args.age.max_age)?;
    let daemon = found.daemon()?;
    if let Some(warning) = freshness::warning(&found, daemon) {
        output::say("warning", &warning);
    }
    let export = Export {
        found: &found,
        table: args.table.map(TableId::from),
        condition: args.r#where.as_deref(),
        format,
        bar: bar(),
        rows: Cell::new(0),
    };
    if is_stdout {
        // Not its lock: Parquet's writer asks for what could go to another thread.
        let mut out = BufWriter::with_capacity(1 << 16, io::stdout());
        export.write(&mut out)?;
        out.flush()?;
        export.bar.finish_and_clear();
        return Ok(());
    }
    let done = to_file(&args.file, |out| export.write(out));
    export.bar.finish_and_clear();
    done?;
    let rows = export.rows.get();
    output::say("written", &format!("{} ({rows} rows)", args.file.display()));
    Ok(())
}

/// What `--output` says, or the file's name.
fn format(args: &ExportArgs) -> Result<ExportFormat, CliError> {
    let format = match args.output {
        Some(format) => format,
        None => {
            let extension = args.file.extension().and_then(|name| name.to_str());
            let known = match extension.map(str::to_ascii_lowercase).as_deref() {
                Some("parquet") => Some(ExportFormat::Parquet),
                Some("arrow" | "ipc" | "feather") => Some(ExportFormat::Arrow),
                Some("json") => Some(ExportFormat::Json),
                Some("jsonl" | "ndjson") => Some(ExportFormat::Jsonl),
                _ => None,
            };
            let why = format!(
                "the name {:?} does not say a format: add -o parquet, arrow, json or jsonl",
                args.file.display()
            );
            known.ok_or(CliError::NoFormat { why })?
        }
    };
    if format == ExportFormat::Arrow && args.table.is_none() {
        let why = "an Arrow file holds one table: say which with --table, or write all of them into a directory with \
                   sherwood snapshot DIR, which sherwood import takes";
        let why = why.to_owned();
        return Err(CliError::NoFormat { why });
    }
    Ok(format)
}

/// On a terminal; elsewhere nothing.
fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{wide_bar} {percent}% {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

struct Export<'a> {
    found: &'a Found,
    /// `None`: the whole state.
    table: Option<TableId>,
    condition: Option<&'a str>,
    format: ExportFormat,
    bar: ProgressBar,
    /// Written so far.
    rows: Cell<u64>,
}

impl Export<'_> {
    fn write(&self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        match self.table {
            Some(table) => self.write_table(out, table),
            None => self.write_state(out),
        }
    }

    fn write_table(&self, out: &mut (dyn Write + Send), id: TableId) -> Result<(), CliError> {
        let table = self.found.snapshot.table(id);
        self.bar.set_length(table.len());
        let wanted = Wanted::new(&self.found.snapshot, id, &[], self.condition)?;
        let batches = &mut *self.counted(wanted.selection.batches(table));
        match self.format {
            ExportFormat::Json => encode::objects(out, batches, &encode::ARRAY),
            ExportFormat::Jsonl => encode::objects(out, batches, &encode::LINES),
            ExportFormat::Arrow => {
                let schema = encode::described(&table.schema()?, self.found)?;
                encode::arrow_file(out, &schema, batches)
            }
            ExportFormat::Parquet => encode::parquet_table(out, &table.schema()?, batches),
        }
    }

    fn write_state(&self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        let snapshot = &self.found.snapshot;
        let rows: u64 = TableId::ALL.map(|id| snapshot.table(id).len()).iter().sum();
        self.bar.set_length(rows);
        match self.format {
            ExportFormat::Json => Ok(write_document(snapshot, out, |rows| self.count(rows))?),
            ExportFormat::Jsonl => self.write_transactions(out, snapshot),
            // Arrow holds one table, and was refused.
            ExportFormat::Parquet | ExportFormat::Arrow => {
                let mut steps = 0;
                for id in TableId::ALL {
                    let table = snapshot.table(id);
                    steps += table.len() * encode::parquet_leaves(table.schema()?.fields()) as u64;
                }
                self.bar.set_length(steps);
                let bar = &self.bar;
                encode::parquet_document(out, snapshot, &|rows| bar.inc(rows))?;
                self.rows.set(rows);
                Ok(())
            }
        }
    }

    /// For the cluster a line that is a transaction, which sets its master and which another cluster refuses; and for each
    /// row one that puts it.
    fn write_transactions(
        &self,
        out: &mut (dyn Write + Send),
        snapshot: &Snapshot,
    ) -> Result<(), CliError> {
        let cluster = serde_json::json!({"ops": [{
            "patch": "cluster", "key": snapshot.cluster_id()?, "set": {"master_id": snapshot.master_id()?},
        }]});
        writeln!(out, "{cluster}")?;
        for id in TableId::ALL {
            let open = format!("{{\"ops\":[{{\"put\":\"{}\",\"row\":", id.name());
            let frame = Frame {
                open: &open,
                close: "}]}",
                ..encode::LINES
            };
            let table = snapshot.table(id);
            let batches = table.batches().map(|batch| Ok(batch?));
            encode::objects(out, &mut *self.counted(Box::new(batches)), &frame)?;
        }
        Ok(())
    }

    fn counted<'s>(&'s self, batches: Box<Batches<'s>>) -> Box<Batches<'s>> {
        Box::new(batches.inspect(|batch| {
            if let Ok(batch) = batch {
                self.count(batch.num_rows() as u64);
            }
        }))
    }

    fn count(&self, rows: u64) {
        self.rows.set(self.rows.get() + rows);
        self.bar.inc(rows);
    }
}

/// Written aside, synced, renamed. What goes wrong leaves the file as it was.
fn to_file(
    path: &Path,
    write: impl FnOnce(&mut (dyn Write + Send)) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let failed = |source| CliError::Write {
        path: path.to_owned(),
        source,
    };
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let file = tempfile::Builder::new()
        .prefix(".sherwood-")
        .permissions(Permissions::from_mode(0o666)) // less the umask
        .tempfile_in(directory)
        .map_err(failed)?;
    let mut buffered = BufWriter::with_capacity(1 << 20, file);
    write(&mut buffered).map_err(|error| match error {
        CliError::Output(source) => failed(source),
        error => error,
    })?;
    let file = buffered
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
