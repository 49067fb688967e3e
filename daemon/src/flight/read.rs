//! Tables, as Flight sees them: `cluster`, `nodes`, `tasks`, `content`, of the newest snapshot.
//!
//! For programs that speak Flight and nothing else: whoever can map the snapshot file reads it there, without a copy.
//!
//! - **FZ1** A stream gives one generation from its first row to its last; the schema's metadata says which
//!   (`sherwood.generation`).
//! - **FZ2** The snapshot is opened for the call and held until its stream ends: in between the server holds none, so
//!   that no region is kept from the publisher for nobody.
//! - **FZ3** Chunks are read and encoded as the client takes them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::{
    FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, SchemaAsIpc, SchemaResult, Ticket,
};
use arrow_ipc::writer::IpcWriteOptions;
use arrow_schema::{Schema, SchemaRef};
use futures::{Stream, StreamExt, stream};
use serde::Deserialize;
use serde_json::json;
use sherwood_client::{ReadError, Reader, Snapshot};
use sherwood_shared::schema::TableId;
use sherwood_shared::transaction::Target;
use tonic::Status;

use super::service::{cut, from_json};

/// The schema's metadata key that names the generation.
const GENERATION: &str = "sherwood.generation";

/// All tables.
const TABLES: [Target; 4] = [
    Target::Cluster,
    Target::Table(TableId::Nodes),
    Target::Table(TableId::Tasks),
    Target::Table(TableId::Content),
];

/// FZ2: the newest snapshot.
pub(super) async fn snapshot(path: &Path) -> Result<Snapshot, Status> {
    let path = path.to_path_buf();
    let opened = tokio::task::spawn_blocking(move || Reader::open(path)?.snapshot()).await;
    let opened = opened.map_err(|error| Status::internal(error.to_string()))?;
    opened.map_err(|error| unreadable(&error))
}

fn unreadable(error: &ReadError) -> Status {
    Status::unavailable(format!(
        "the snapshot cannot be read: {}",
        crate::log::chain(error)
    ))
}

fn table_of(name: &str) -> Result<Target, Status> {
    let found = TABLES.into_iter().find(|table| table.name() == name);
    found.ok_or_else(|| {
        Status::not_found(format!(
            "there is no table {:?}; there are cluster, nodes, tasks and content",
            cut(name)
        ))
    })
}

/// The table that a descriptor means: its path is the table's name.
pub(super) fn table_of_descriptor(descriptor: &FlightDescriptor) -> Result<Target, Status> {
    match &descriptor.path[..] {
        [name] => table_of(name),
        _ => Err(Status::invalid_argument(
            "the descriptor's path has to be a table's name",
        )),
    }
}

/// The table that a ticket means: `{"table": name}`.
pub(super) fn table_of_ticket(ticket: &Ticket) -> Result<Target, Status> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Form {
        table: String,
    }
    let Form { table } = from_json(&ticket.ticket)?;
    table_of(&table)
}

/// FZ1.
fn schema_of(snapshot: &Snapshot, table: Target) -> Result<SchemaRef, ReadError> {
    let schema = match table {
        Target::Cluster => snapshot.cluster()?.schema(),
        Target::Table(table) => snapshot.table(table).schema()?,
    };
    let generation = snapshot.generation().to_string();
    let metadata = HashMap::from([(GENERATION.to_owned(), generation)]);
    Ok(Arc::new(Schema::clone(&schema).with_metadata(metadata)))
}

/// What ListFlights and GetFlightInfo say of a table.
pub(super) fn info(snapshot: &Snapshot, table: Target) -> Result<FlightInfo, Status> {
    let schema = schema_of(snapshot, table).map_err(|error| unreadable(&error))?;
    let rows = match table {
        Target::Cluster => 1,
        Target::Table(table) => snapshot.table(table).len(),
    };
    let name = table.name();
    let ticket = Ticket::new(json!({"table": name}).to_string());
    let info = FlightInfo::new()
        .try_with_schema(&schema)
        .map_err(|error| Status::internal(error.to_string()))?
        .with_descriptor(FlightDescriptor::new_path(vec![name.to_owned()]))
        .with_endpoint(FlightEndpoint::new().with_ticket(ticket))
        .with_total_records(i64::try_from(rows).unwrap_or(i64::MAX))
        .with_ordered(true)
        .with_app_metadata(json!({"generation": snapshot.generation()}).to_string());
    Ok(info)
}

/// All of them.
pub(super) fn infos(snapshot: &Snapshot) -> Vec<Result<FlightInfo, Status>> {
    TABLES
        .into_iter()
        .map(|table| info(snapshot, table))
        .collect()
}

/// What GetSchema says.
pub(super) fn schema(snapshot: &Snapshot, table: Target) -> Result<SchemaResult, Status> {
    let schema = schema_of(snapshot, table).map_err(|error| unreadable(&error))?;
    SchemaAsIpc::new(&schema, &IpcWriteOptions::default())
        .try_into()
        .map_err(|error: arrow_schema::ArrowError| Status::internal(error.to_string()))
}

/// FZ1, FZ3: a table's rows.
pub(super) fn rows(
    snapshot: Snapshot,
    table: Target,
) -> Result<impl Stream<Item = Result<FlightData, Status>>, Status> {
    let schema = schema_of(&snapshot, table).map_err(|error| unreadable(&error))?;
    let chunks = match table {
        Target::Cluster => 1,
        Target::Table(table) => snapshot.table(table).chunk_count(),
    };
    let with_generation = Arc::clone(&schema);
    let batches = (0..chunks).filter_map(move |chunk| {
        let batch = match table {
            Target::Cluster => snapshot.cluster().map(Some),
            Target::Table(table) => snapshot.table(table).batch(chunk),
        };
        match batch {
            Ok(batch) => Some(labelled(&batch?, &with_generation)),
            Err(error) => Some(Err(FlightError::Tonic(Box::new(unreadable(&error))))),
        }
    });
    let encoded = FlightDataEncoderBuilder::new()
        .with_schema(schema)
        .build(stream::iter(batches));
    Ok(encoded.map(|data| data.map_err(Status::from)))
}

fn labelled(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, FlightError> {
    RecordBatch::try_new(Arc::clone(schema), batch.columns().to_vec()).map_err(FlightError::from)
}
