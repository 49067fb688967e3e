//! `sherwood import`: a whole state into the daemon, in each form that `sherwood export` and `sherwood snapshot` write.

use std::cell::RefCell;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use serde_json::{Map, Value};
use sherwood_client::TableId;
use sherwood_client::import::{self, ImportError};
use sherwood_client::write::{Mode, Transaction, Writer, cluster};
use sherwood_shared::schema::cluster_schema;
use sherwood_shared::state::StateError;
use sherwood_shared::transaction::{self as form, Op, Target};

use crate::args::{FileArgs, ImportArgs, InputFormat};
use crate::commands::put::Sender;
use crate::connect;
use crate::error::CliError;
use crate::input::{self, Pieces, arrow, json};
use crate::output;
use sherwood_client::find::Places;

/// Runs it.
pub fn run(places: &Places, args: &ImportArgs) -> Result<(), CliError> {
    let writer = connect::writer(places, args.write.timeout)?;
    let state = Imported::read(&args.file)?;
    if !args.any_cluster {
        state.cluster.check(&args.file, &writer)?;
    }
    if !state.cluster.left_out.is_empty() {
        let text = format!(
            "these columns of the cluster are not imported, since no transaction sets them: {}",
            state.cluster.left_out.join(", ")
        );
        output::say("warning", &text);
    }
    let mut sender = Sender::new(&writer, &args.write);
    for (table, pieces) in state.tables {
        sender.send(table, Mode::Put, pieces)?;
    }
    // Last, so that a master is there when it is named.
    if let Some(master_id) = state.cluster.master_id {
        let patch = Transaction::new().patch(cluster().set("master_id", master_id));
        sender.apply(patch, 0)?;
    }
    sender.end()
}

/// What a file or directory holds.
struct Imported {
    cluster: Cluster,
    tables: Tables,
}

/// A row, and the table it goes into.
type Put = (TableId, Map<String, Value>);
/// Rows, table by table; each table's are to be taken before the next is asked for.
type Tables = Box<dyn Iterator<Item = (TableId, Pieces)>>;

/// What is known of the cluster.
#[derive(Default)]
struct Cluster {
    cluster_id: Option<String>,
    master_id: Option<String>,
    /// The columns that stay behind: those that the document does not have.
    left_out: Vec<String>,
}

impl Cluster {
    fn of_columns(columns: &Map<String, Value>) -> Self {
        let column = |name: &str| columns.get(name).and_then(Value::as_str).map(str::to_owned);
        Self {
            cluster_id: column("cluster_id"),
            master_id: column("master_id"),
            left_out: beyond_the_document(columns.keys()),
        }
    }

    fn of_batch(batch: &RecordBatch) -> Self {
        let fields = batch.schema_ref().fields().iter();
        Self {
            cluster_id: text(batch, "cluster_id"),
            master_id: text(batch, "master_id"),
            left_out: beyond_the_document(fields.map(|field| field.name())),
        }
    }

    /// Is it the one that the daemon serves, as far as the file says?
    fn check(&self, path: &Path, writer: &Writer) -> Result<(), CliError> {
        let Some(found) = &self.cluster_id else {
            return Ok(());
        };
        match connect::cluster_of(writer)? {
            Some(wanted) if *found != wanted => Err(CliError::WrongCluster {
                path: path.to_owned(),
                found: found.clone(),
                wanted,
                advice: "; --any-cluster takes it all the same",
            }),
            _ => Ok(()),
        }
    }
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
            InputFormat::Parquet => Self::of_parquet(path, opened.lines()),
            InputFormat::Json => Self::of_json(path, opened.lines()),
            format => Err(CliError::OneTable {
                path: path.to_owned(),
                what: format!("{}, {}", format.name(), opened.taken.why(format)),
            }),
        }
    }

    fn of_parquet(path: &Path, reader: impl BufRead) -> Result<Self, CliError> {
        let bytes = input::read_all(reader, path)?;
        let state = import::read_parquet_bytes(bytes, path, None).map_err(|error| match error {
            ImportError::State { path, source } => match *source {
                StateError::NotOneRow { .. } | StateError::NoTables { .. } => CliError::OneTable {
                    path,
                    what: "a Parquet file of rows".to_owned(),
                },
                error => arrow::refused(&path, 0, &error),
            },
            error => error.into(),
        })?;
        let at = path.to_owned();
        let tables = TableId::ALL.into_iter().zip(state.tables);
        let tables = tables.map(move |(table, rows)| {
            let batches = Box::new(std::iter::once(Ok(rows)));
            (table, arrow::pieces(batches, at.clone(), table))
        });
        Ok(Self {
            cluster: Cluster::of_batch(&state.cluster),
            tables: Box::new(tables),
        })
    }

    /// The document as an object, or transactions that put its rows.
    fn of_json(path: &Path, reader: impl BufRead + 'static) -> Result<Self, CliError> {
        let mut values = json::values(reader, path.to_owned());
        let no_state = |what: &str| CliError::OneTable {
            path: path.to_owned(),
            what: what.to_owned(),
        };
        let first = match values.next() {
            Some(Ok(Value::Object(first))) => first,
            Some(Err(error)) => return Err(error),
            Some(Ok(Value::Array(_))) => return Err(no_state("a JSON array")),
            Some(Ok(_)) | None => return Err(no_state("no JSON object")),
        };
        if first.contains_key("ops") {
            return Self::of_transactions(path, first, values);
        }
        if !TableId::ALL
            .iter()
            .any(|table| first.contains_key(table.name()))
        {
            return Err(no_state("JSON without nodes, tasks and content"));
        }
        match values.next() {
            None => Self::of_object(path, first),
            Some(_) => Err(no_state("more than one JSON object")),
        }
    }

    fn of_object(path: &Path, mut state: Map<String, Value>) -> Result<Self, CliError> {
        let mut tables = Vec::new();
        for table in TableId::ALL {
            match state.remove(table.name()) {
                None | Some(Value::Null) => {}
                Some(Value::Array(rows)) => {
                    let place = move |number| format!("row {number} of {}", table.name());
                    let rows = rows.into_iter().map(Ok);
                    let rows = json::rows(rows, path.to_owned(), table, place);
                    tables.push((table, json::cut(rows)));
                }
                Some(_) => {
                    return Err(CliError::InputAt {
                        path: path.to_owned(),
                        place: "the state".to_owned(),
                        why: format!("{:?} is no list", table.name()),
                    });
                }
            }
        }
        // The cluster's columns stand in an object of their own, or beside the tables as in the Parquet file.
        let columns = match state.remove("cluster") {
            Some(Value::Object(columns)) => columns,
            _ => state,
        };
        Ok(Self {
            cluster: Cluster::of_columns(&columns),
            tables: Box::new(tables.into_iter()),
        })
    }

    /// What `sherwood export -o jsonl` writes: the cluster first, then a transaction for each row. Other orders, and
    /// several rows in one, are as good.
    fn of_transactions(
        path: &Path,
        first: Map<String, Value>,
        rest: impl Iterator<Item = Result<Value, CliError>> + 'static,
    ) -> Result<Self, CliError> {
        let mut cluster = Cluster::default();
        let mut number = 1;
        let mut rows = Vec::new();
        match &ops(path, number, first.clone())?[..] {
            [
                Op::Patch {
                    table: Target::Cluster,
                    key,
                    set,
                },
            ] => {
                cluster = Cluster::of_columns(set);
                cluster.cluster_id = (!key.is_empty()).then(|| key.clone());
            }
            _ => rows = puts(path, number, Ok(Value::Object(first))),
        }
        let path = path.to_owned();
        let rest = rest.flat_map(move |value| {
            number += 1;
            puts(&path, number, value)
        });
        let rows = Rc::new(RefCell::new(rows.into_iter().chain(rest).peekable()));
        let tables = std::iter::from_fn(move || {
            // An error is for whoever asks next.
            let table = match rows.borrow_mut().peek()? {
                Ok((table, _)) => *table,
                Err(_) => TableId::Nodes,
            };
            let rows = Rc::clone(&rows);
            let run = std::iter::from_fn(move || {
                let is_of_it = |row: &Result<_, _>| match row {
                    Ok((of, _)) => *of == table,
                    Err(_) => true,
                };
                let row = rows.borrow_mut().next_if(is_of_it)?;
                Some(row.map(|(_, row)| row))
            });
            Some((table, json::cut(run)))
        });
        Ok(Self {
            cluster,
            tables: Box::new(tables),
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
            cluster: cluster_in(dir)?,
            tables: Box::new(tables.into_iter()),
        })
    }
}

/// The operations of a transaction that has no condition.
fn ops(path: &Path, number: u64, transaction: Map<String, Value>) -> Result<Vec<Op>, CliError> {
    let wrong = |why: String| CliError::InputAt {
        path: path.to_owned(),
        place: format!("transaction {number}"),
        why,
    };
    let transaction =
        form::Transaction::from_object(transaction).map_err(|error| wrong(error.to_string()))?;
    match transaction.conditions.is_empty() {
        true => Ok(transaction.ops),
        false => Err(wrong(NOT_PUTS.to_owned())),
    }
}

const NOT_PUTS: &str = "it does more than to put rows: sherwood apply takes such transactions";

/// The rows that a transaction puts, if it does nothing else.
fn puts(path: &Path, number: u64, value: Result<Value, CliError>) -> Vec<Result<Put, CliError>> {
    let place = || format!("transaction {number}");
    let wrong = |why: String| CliError::InputAt {
        path: path.to_owned(),
        place: place(),
        why,
    };
    let all = match value {
        Ok(Value::Object(transaction)) => ops(path, number, transaction),
        Ok(other) => Err(wrong(format!("{other} is no object"))),
        Err(error) => Err(error),
    };
    let put = |op| match op {
        Op::Put { table, row } => Ok((table, input::keyed(table, row, path, place)?)),
        _ => Err(wrong(NOT_PUTS.to_owned())),
    };
    match all {
        Ok(all) => all.into_iter().map(put).collect(),
        Err(error) => vec![Err(error)],
    }
}

/// What `sherwood snapshot` writes beside the tables.
fn cluster_in(dir: &Path) -> Result<Cluster, CliError> {
    let path = dir.join("cluster.arrow");
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| CliError::Input {
        path: path.clone(),
        source,
    };
    let file = match File::open(&path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Cluster::default());
        }
        Err(error) => return Err(failed(error.into())),
    };
    match arrow::batches(file, &path)?.next() {
        None => Ok(Cluster::default()),
        Some(Ok(batch)) => Ok(Cluster::of_batch(&batch)),
        Some(Err(error)) => Err(failed(error.into())),
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
