//! Many rows at once: the whole stream is one transaction.
//!
//! - **U1** Nothing is submitted before the stream has ended well. A stream that breaks off, by the client, a limit or a
//!   deadline, changes nothing.
//! - **U2** What cannot fit is refused as soon as it is seen: the command and the schema with the first message, rows and
//!   bytes with the message that goes too far.
//! - **U3** Columns reach the engine in the table's types. Other widths of the same kind are cast, checked: `large_utf8`
//!   becomes `utf8`, a number that is out of range is refused.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_cast::{CastOptions, cast_with_options};
use arrow_flight::{FlightData, PutResult};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use arrow_select::concat::concat_batches;
use futures::StreamExt;
use serde::Deserialize;
use sherwood_shared::received;
use sherwood_shared::schema::{TableId, table_schema};
use sherwood_shared::transaction::{Answer, MAX_ID_BYTES, OutcomeKind};
use tonic::{Status, Streaming};

use super::body::busy;
use super::limits::{Limits, REQUEST_OVERHEAD};
use super::read;
use super::service::FlightService;
use crate::engine::{Bulk, BulkMode, Request};

/// What the first message's descriptor says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The client's id for the transaction.
    pub id: Option<String>,
    /// Whose rows follow.
    pub table: TableId,
    /// What happens with them.
    pub mode: BulkMode,
}

/// Reads `{"put"|"patch"|"delete": table, "id": ..}`. The error says what is wrong with it.
pub fn parse_command(bytes: &[u8]) -> Result<Command, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Form {
        id: Option<String>,
        put: Option<String>,
        patch: Option<String>,
        delete: Option<String>,
    }
    let form: Form = serde_json::from_slice(bytes)
        .map_err(|error| format!("the descriptor's command is not as it should be: {error}"))?;
    let (mode, table) = match (form.put, form.patch, form.delete) {
        (Some(table), None, None) => (BulkMode::Put, table),
        (None, Some(table), None) => (BulkMode::Patch, table),
        (None, None, Some(table)) => (BulkMode::Delete, table),
        _ => {
            return Err(
                "the descriptor's command needs one of put, patch and delete, with a table's name"
                    .to_owned(),
            );
        }
    };
    if form
        .id
        .as_ref()
        .is_some_and(|id| id.is_empty() || id.len() > MAX_ID_BYTES)
    {
        return Err(format!("an id has 1 to {MAX_ID_BYTES} bytes"));
    }
    let table = TableId::from_name(&table).ok_or_else(|| {
        format!("there is no table {table:?}; rows go to nodes, tasks or content")
    })?;
    Ok(Command {
        id: form.id,
        table,
        mode,
    })
}

/// The rows' columns as they come, and as the engine gets them (U3).
struct Columns {
    sent: SchemaRef,
    wanted: SchemaRef,
}

/// U2. `known`: the table's columns now.
fn columns(sent: Schema, command: &Command, known: &Schema) -> Result<Columns, String> {
    let name = command.table.name();
    let key = command.table.key();
    let mut wanted = Vec::with_capacity(sent.fields().len());
    for (at, field) in sent.fields().iter().enumerate() {
        let column = field.name();
        if sent
            .fields()
            .iter()
            .take(at)
            .any(|other| other.name() == column)
        {
            return Err(format!("the column {column:?} is there twice"));
        }
        if command.mode == BulkMode::Delete && column != key {
            return Err(format!(
                "a delete has the column {key:?} alone, not {column:?}"
            ));
        }
        let Ok(there) = known.field_with_name(column) else {
            return Err(format!("{name} have no column {column:?}"));
        };
        let data_type = as_wanted(field.data_type(), there.data_type()).ok_or_else(|| {
            format!(
                "{name}.{column} is {}, and {} was sent",
                there.data_type(),
                field.data_type()
            )
        })?;
        // Null keys are the engine's to refuse, by row.
        wanted.push(Field::new(column, data_type, true));
    }
    if !sent.fields().iter().any(|field| field.name() == key) {
        return Err(format!(
            "the rows have no column {key:?}, the key of {name}"
        ));
    }
    Ok(Columns {
        sent: Arc::new(sent),
        wanted: Arc::new(Schema::new(wanted)),
    })
}

/// The type that a column of type `sent` gets where `wanted` is the table's: a struct keeps its own choice of fields.
fn as_wanted(sent: &DataType, wanted: &DataType) -> Option<DataType> {
    use DataType::{
        Float16, Float32, Float64, LargeList, LargeUtf8, List, Null, Struct, Timestamp, Utf8,
    };
    match (sent, wanted) {
        (sent, wanted) if sent == wanted => Some(wanted.clone()),
        (Null, wanted) => Some(wanted.clone()),
        (LargeUtf8, Utf8) | (Float16 | Float32 | Float64, Float16 | Float32 | Float64) => {
            Some(wanted.clone())
        }
        (sent, wanted) if sent.is_integer() && wanted.is_integer() => Some(wanted.clone()),
        (Timestamp(_, zone), Timestamp(_, None)) => {
            let is_utc = |zone: &str| ["UTC", "+00:00", "Etc/UTC", "Z"].contains(&zone);
            zone.as_deref().is_none_or(is_utc).then(|| wanted.clone())
        }
        (List(sent) | LargeList(sent), List(item)) => {
            let inner = as_wanted(sent.data_type(), item.data_type())?;
            let item = item.as_ref().clone().with_data_type(inner);
            Some(List(Arc::new(item)))
        }
        (Struct(sent), Struct(wanted)) => {
            let fields = sent.iter().map(|field| {
                let (_, there) = wanted.find(field.name())?;
                let inner = as_wanted(field.data_type(), there.data_type())?;
                Some(Field::new(field.name(), inner, true))
            });
            Some(Struct(fields.collect::<Option<Vec<_>>>()?.into()))
        }
        _ => None,
    }
}

/// U3.
fn cast(batch: &RecordBatch, columns: &Columns) -> Result<RecordBatch, String> {
    let checked = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let cast = batch
        .columns()
        .iter()
        .zip(columns.wanted.fields())
        .map(|(column, field)| {
            if column.data_type() == field.data_type() {
                return Ok(Arc::clone(column));
            }
            cast_with_options(column, field.data_type(), &checked)
                .map_err(|error| format!("the column {:?} does not fit: {error}", field.name()))
        });
    let cast = cast.collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(Arc::clone(&columns.wanted), cast).map_err(|error| error.to_string())
}

fn invalid(what: impl Into<String>) -> Status {
    Status::invalid_argument(what)
}

/// Takes the whole stream in and asks the engine (U1).
pub(super) async fn put(
    service: &FlightService,
    mut input: Streaming<FlightData>,
) -> Result<Vec<Result<PutResult, Status>>, Status> {
    service.check_write()?;
    let first = input.next().await;
    let first = first.unwrap_or_else(|| Err(invalid("the stream is empty")))?;
    let descriptor = first.flight_descriptor.as_ref();
    let descriptor = descriptor.ok_or_else(|| {
        invalid("the first message needs a descriptor with a command, such as {\"put\":\"tasks\"}")
    })?;
    let command = parse_command(&descriptor.cmd).map_err(invalid)?;
    let known = known_columns(service, command.table).await;
    let sent = received::schema(&first.data_header).map_err(|error| {
        invalid(format!(
            "the stream does not begin with a schema: {}",
            crate::log::chain(&error)
        ))
    })?;
    let columns = columns(sent, &command, &known).map_err(invalid)?;
    drop(first);
    let (batches, mut held) = collect(service, input, &columns).await?;
    let bytes: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
    let rows = match batches.len() {
        0 => RecordBatch::new_empty(Arc::clone(&columns.wanted)),
        1 => batches
            .into_iter()
            .next()
            .unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(&columns.wanted))),
        _ => {
            if !held.grow(bytes) {
                return Err(busy(bytes));
            }
            concat_batches(&columns.wanted, &batches).map_err(|error| invalid(error.to_string()))?
        }
    };
    // Whoever was a writer when he began may not be one any more.
    service.check_write()?;
    let Command { id, table, mode } = command;
    let request = Request::Bulk(Bulk {
        id,
        table,
        mode,
        rows,
    });
    let answer = service
        .submit(request, held)
        .within(service.shared.limits.answer)
        .await;
    Ok(result(&answer))
}

/// The answer; and, so that a client who looks at no answer notices, an error after it if it is not done.
fn result(answer: &Answer) -> Vec<Result<PutResult, Status>> {
    let reason = || answer.reason.clone().unwrap_or_default();
    let ending = match answer.outcome {
        OutcomeKind::Done => None,
        OutcomeKind::Refused => Some(Status::failed_precondition(format!(
            "refused: {}",
            reason()
        ))),
        OutcomeKind::Unknown => Some(Status::unavailable(format!("unknown: {}", reason()))),
    };
    let answer = Ok(PutResult {
        app_metadata: answer.to_json().into(),
    });
    std::iter::once(answer).chain(ending.map(Err)).collect()
}

/// The table's columns, carried-through ones too where the snapshot can be read.
async fn known_columns(service: &FlightService, table: TableId) -> SchemaRef {
    let snapshot = read::snapshot(&service.shared.snapshot).await;
    let schema = snapshot
        .ok()
        .and_then(|snapshot| snapshot.table(table).schema().ok());
    schema.unwrap_or_else(|| table_schema(table))
}

async fn collect(
    service: &FlightService,
    mut input: Streaming<FlightData>,
    columns: &Columns,
) -> Result<(Vec<RecordBatch>, super::quota::Held), Status> {
    let limits = &service.shared.limits;
    let quota = &service.shared.bytes;
    let held = quota.take(service.peer.uid, REQUEST_OVERHEAD);
    let mut held = held.ok_or_else(|| busy(REQUEST_OVERHEAD))?;
    let (mut batches, mut rows, mut bytes) = (Vec::new(), 0_usize, 0_usize);
    while let Some(message) = input.next().await {
        let FlightData {
            data_header,
            data_body,
            ..
        } = message?;
        if data_header.is_empty() {
            continue;
        }
        let size = data_header.len() + data_body.len();
        bytes = bytes.saturating_add(size);
        if bytes > limits.bulk_bytes {
            return Err(too_much("bytes", limits.bulk_bytes, limits));
        }
        if !held.grow(size) {
            return Err(busy(size));
        }
        let batch =
            received::batch(&columns.sent, &data_header, data_body.into()).map_err(|error| {
                invalid(format!(
                    "a batch is not as its schema says: {}",
                    crate::log::chain(&error)
                ))
            })?;
        rows = rows.saturating_add(batch.num_rows());
        if rows > limits.bulk_rows {
            return Err(too_much("rows", limits.bulk_rows, limits));
        }
        if batch.num_rows() > 0 {
            batches.push(cast(&batch, columns).map_err(invalid)?);
        }
    }
    Ok((batches, held))
}

fn too_much(what: &str, most: usize, limits: &Limits) -> Status {
    Status::invalid_argument(format!(
        "one bulk transaction has at most {most} {what} (and {} rows, {} bytes); nothing was done: send the rows in several, or let the daemon's administrator raise the limit",
        limits.bulk_rows, limits.bulk_bytes
    ))
}
