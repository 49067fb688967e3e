//! Many rows at once: the whole stream is one transaction.
//!
//! - **FU1** Nothing is submitted before the stream has ended well. A stream that breaks off, by the client, a limit or a
//!   deadline, changes nothing.
//! - **FU2** What cannot fit is refused as soon as it is seen: the command and the schema with the first message, rows and
//!   bytes with the message that goes too far.
//! - **FU3** Rows reach the engine as they were sent, so that it can say which row does not fit. What they will take more
//!   in the table's types is charged here before: a column of nulls is sent without a byte for each.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
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
use super::limits::{BULK_FACTOR, Limits, REQUEST_OVERHEAD};
use super::quota::Held;
use super::read;
use super::service::{FlightService, check_short, cut};
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
    let form: Form = serde_json::from_slice(bytes).map_err(|error| {
        format!(
            "the descriptor's command is not as it should be: {}",
            cut(&error.to_string())
        )
    })?;
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
        format!(
            "there is no table {:?}; rows go to nodes, tasks or content",
            cut(&table)
        )
    })?;
    Ok(Command {
        id: form.id,
        table,
        mode,
    })
}

/// The rows' columns as they come, and the table's types for them.
struct Columns {
    table: &'static str,
    sent: SchemaRef,
    wanted: Vec<DataType>,
}

/// FU2. `known`: the table's columns now.
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
            return Err(format!("the column {:?} is there twice", cut(column)));
        }
        if command.mode == BulkMode::Delete && column != key {
            return Err(format!(
                "a delete has the column {key:?} alone, not {:?}",
                cut(column)
            ));
        }
        let Ok(there) = known.field_with_name(column) else {
            return Err(format!("{name} have no column {:?}", cut(column)));
        };
        let data_type = as_wanted(field.data_type(), there.data_type()).ok_or_else(|| {
            format!(
                "{name}.{column} is {}, and {} was sent",
                there.data_type(),
                cut(&field.data_type().to_string())
            )
        })?;
        wanted.push(data_type);
    }
    if !sent.fields().iter().any(|field| field.name() == key) {
        return Err(format!(
            "the rows have no column {key:?}, the key of {name}"
        ));
    }
    Ok(Columns {
        table: name,
        sent: Arc::new(sent),
        wanted,
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

/// Bytes that a batch takes more in the table's types (FU3).
fn growth(batch: &RecordBatch, columns: &Columns) -> usize {
    let columns = batch.columns().iter().zip(&columns.wanted);
    columns.fold(0, |sum, (column, wanted)| {
        sum.saturating_add(grown(column, wanted))
    })
}

fn grown(array: &ArrayRef, wanted: &DataType) -> usize {
    match (array.data_type(), wanted) {
        (sent, wanted) if sent == wanted => 0,
        (DataType::List(_), DataType::List(item)) => {
            grown(array.as_list::<i32>().values(), item.data_type())
        }
        (DataType::LargeList(_), DataType::List(item)) => {
            let values = array.as_list::<i64>().values();
            grown(values, item.data_type()).saturating_add(array.len().saturating_mul(4))
        }
        (DataType::Struct(sent), DataType::Struct(wanted)) => {
            let fields = sent.iter().zip(array.as_struct().columns());
            fields.fold(0, |sum, (field, column)| {
                let there = wanted
                    .find(field.name())
                    .map(|(_, there)| there.data_type());
                sum.saturating_add(there.map_or(0, |there| grown(column, there)))
            })
        }
        (_, wanted) => array.len().saturating_mul(width(wanted)),
    }
}

/// Bytes of one value, or of one place for texts and lists.
fn width(data_type: &DataType) -> usize {
    match data_type {
        DataType::Struct(fields) => {
            1 + fields
                .iter()
                .map(|field| width(field.data_type()))
                .sum::<usize>()
        }
        other => other.primitive_width().unwrap_or(4) + 1,
    }
}

fn invalid(what: impl Into<String>) -> Status {
    Status::invalid_argument(what)
}

/// Takes the whole stream in and asks the engine (FU1).
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
    check_short("the descriptor's command", &descriptor.cmd)?;
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
    let (mut batches, bytes, mut held) = collect(service, input, &columns).await?;
    let rows = match (batches.pop(), batches.is_empty()) {
        (None, _) => RecordBatch::new_empty(Arc::clone(&columns.sent)),
        (Some(only), true) => only,
        (Some(last), false) => {
            if !held.grow(bytes) {
                return Err(busy(bytes));
            }
            batches.push(last);
            concat_batches(&columns.sent, &batches).map_err(|error| invalid(error.to_string()))?
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
) -> Result<(Vec<RecordBatch>, usize, Held), Status> {
    let limits = &service.shared.limits;
    let quota = &service.shared.bytes;
    let held = quota.take(service.peer.uid, REQUEST_OVERHEAD);
    let mut held = held.ok_or_else(|| busy(REQUEST_OVERHEAD))?;
    let (mut batches, mut rows, mut bytes) = (Vec::new(), 0_usize, 0_usize);
    let mut more = 0_usize;
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
            let growth = growth(&batch, columns);
            more = more.saturating_add(growth);
            let needed = bytes.saturating_mul(BULK_FACTOR).saturating_add(more);
            if more > 0 && needed > quota.share() {
                return Err(invalid(format!(
                    "the rows take {needed} bytes in the types of {}, and a user gets {} (two thirds of limits.request_bytes); nothing was done: leave columns of nulls out, or send the rows in several",
                    columns.table,
                    quota.share()
                )));
            }
            if !held.grow(growth) {
                return Err(busy(growth));
            }
            batches.push(batch);
        }
    }
    Ok((batches, bytes, held))
}

fn too_much(what: &str, most: usize, limits: &Limits) -> Status {
    Status::invalid_argument(format!(
        "one bulk transaction has at most {most} {what} (and {} rows, {} bytes); nothing was done: send the rows in several, or let the daemon's administrator raise the limit",
        limits.bulk_rows, limits.bulk_bytes
    ))
}
