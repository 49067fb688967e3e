//! `sherwood import`: a whole state into the daemon.

use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use serde_json::{Map, Value};
use sherwood_client::write::{Mode, Transaction, Writer, cluster};
use sherwood_client::{TableId, import};
use sherwood_shared::schema::cluster_schema;

use crate::args::{FileArgs, ImportArgs, InputFormat};
use crate::commands::put::Sender;
use crate::connect;
use crate::error::CliError;
use crate::find::Places;
use crate::input::{self, Pieces, arrow, json};
use crate::output;

/// Runs it.
pub fn run(places: &Places, args: &ImportArgs) -> Result<(), CliError> {
    let writer = connect::writer(places, args.write.timeout)?;
    let state = Imported::read(&args.file)?;
    if let Some(found) = &state.cluster_id
        && !args.any_cluster
        && let Some(wanted) = connect::cluster_of(&writer)?
        && *found != wanted
    {
        return Err(CliError::WrongCluster {
            path: args.file.clone(),
            found: found.clone(),
            wanted: format!("{wanted} (--any-cluster takes it all the same)"),
        });
    }
    if !state.left_out.is_empty() {
        let text = format!(
            "these columns of the cluster are not imported, since no transaction sets them: {}",
            state.left_out.join(", ")
        );
        output::say("warning", &text);
    }
    let mut sender = Sender::new(&writer, &args.write);
    state.send(&writer, &mut sender)?;
    sender.end()
}

/// What a file or directory holds.
struct Imported {
    cluster_id: Option<String>,
    master_id: Option<String>,
    /// The cluster's columns that stay behind: those that the document does not have.
    left_out: Vec<String>,
    tables: Vec<(TableId, Pieces)>,
}

impl Imported {
    fn read(path: &Path) -> Result<Self, CliError> {
        if path.is_dir() {
            return Self::of_directory(path);
        }
        let input = FileArgs {
            file: path.to_owned(),
            format: None,
        };
        let opened = input::open(&input)?;
        match opened.format {
            InputFormat::Parquet => Self::of_parquet(path),
            InputFormat::Json => Self::of_object(path, &opened.text()?),
            InputFormat::Arrow | InputFormat::Csv => Err(CliError::Usage(format!(
                "{path:?} is one table and not a whole state: say of which with sherwood put TABLE -f"
            ))),
        }
    }

    fn of_parquet(path: &Path) -> Result<Self, CliError> {
        let state = import::read_parquet(path, None)?;
        let master_id = text(&state.cluster, "master_id");
        let cluster_id = state.cluster_id().to_owned();
        let fields = state.cluster.schema_ref().fields().iter();
        let left_out = beyond_the_document(fields.map(|field| field.name()));
        let at = path.to_owned();
        let tables = TableId::ALL
            .into_iter()
            .zip(state.tables)
            .map(|(table, rows)| {
                let batches = Box::new(std::iter::once(Ok(rows)));
                (table, arrow::pieces(batches, at.clone(), table))
            });
        Ok(Self {
            cluster_id: Some(cluster_id),
            master_id,
            left_out,
            tables: tables.collect(),
        })
    }

    fn of_object(path: &Path, bytes: &[u8]) -> Result<Self, CliError> {
        let wrong = |why: String| CliError::InputAt {
            path: path.to_owned(),
            place: "the state".to_owned(),
            why,
        };
        let mut state: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        let mut tables = Vec::new();
        for table in TableId::ALL {
            match state.remove(table.name()) {
                None | Some(Value::Null) => {}
                Some(Value::Array(rows)) => {
                    let at = path.to_owned();
                    let rows = (1_u64..).zip(rows).map(move |(number, row)| match row {
                        Value::Object(row) => Ok(row),
                        other => Err(CliError::InputAt {
                            path: at.clone(),
                            place: format!("{} row {number}", table.name()),
                            why: format!("{other} is no object"),
                        }),
                    });
                    tables.push((table, json::cut(rows)));
                }
                Some(_) => return Err(wrong(format!("{:?} is no list", table.name()))),
            }
        }
        // The cluster's columns stand in an object of their own, or beside the tables as in the Parquet file.
        let columns = match state.remove("cluster") {
            Some(Value::Object(columns)) => columns,
            _ => state,
        };
        if tables.is_empty() {
            return Err(wrong("it has none of nodes, tasks and content".to_owned()));
        }
        let column = |name: &str| columns.get(name).and_then(Value::as_str).map(str::to_owned);
        Ok(Self {
            cluster_id: column("cluster_id"),
            master_id: column("master_id"),
            left_out: beyond_the_document(columns.keys()),
            tables,
        })
    }

    fn of_directory(dir: &Path) -> Result<Self, CliError> {
        let mut tables = Vec::new();
        for table in TableId::ALL {
            if let Some(file) = table_file(dir, table.name()) {
                let input = FileArgs { file, format: None };
                tables.push((table, input::open(&input)?.pieces(table)?));
            }
        }
        if tables.is_empty() {
            return Err(CliError::Usage(format!(
                "{dir:?} has no nodes, tasks or content as .arrow, .parquet, .jsonl, .json or .csv; a state \
                 directory is imported by its state_<cluster>.parquet"
            )));
        }
        Ok(Self {
            cluster_id: None,
            master_id: None,
            left_out: Vec::new(),
            tables,
        })
    }

    fn send(self, writer: &Writer, sender: &mut Sender<'_>) -> Result<(), CliError> {
        for (table, pieces) in self.tables {
            sender.send(table, Mode::Put, pieces)?;
        }
        // Last, so that a master is there when it is named.
        if let Some(master_id) = self.master_id {
            let mut transaction = Transaction::new().patch(cluster().set("master_id", master_id));
            if let Some(id) = sender.next_id() {
                transaction = transaction.id(id);
            }
            sender.count(0, writer.apply(transaction)?)?;
        }
        Ok(())
    }
}

fn table_file(dir: &Path, name: &str) -> Option<PathBuf> {
    ["arrow", "parquet", "jsonl", "json", "csv"]
        .into_iter()
        .map(|extension| dir.join(name).with_extension(extension))
        .find(|path| path.is_file())
}

/// Of these columns of a cluster, those that no transaction sets.
fn beyond_the_document<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let known = cluster_schema();
    names
        .filter(|name| known.field_with_name(name).is_err())
        .cloned()
        .collect()
}

/// A column of a batch's first row.
fn text(batch: &RecordBatch, column: &str) -> Option<String> {
    let column = batch.column_by_name(column)?.as_string_opt::<i32>()?;
    (!column.is_empty() && column.is_valid(0)).then(|| column.value(0).to_owned())
}
