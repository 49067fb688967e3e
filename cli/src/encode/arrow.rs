//! Rows as Arrow IPC: a stream, or a file.

use std::io::Write;
use std::sync::Arc;

use arrow_ipc::writer::{FileWriter, StreamWriter};
use arrow_schema::{Schema, SchemaRef};

use super::{Batches, not_encoded};
use crate::error::CliError;
use sherwood_client::find::{Found, Origin};

const FORMAT: &str = "Arrow";

/// The schema with metadata that says of which cluster and generation its rows are (`sherwood.cluster_id`,
/// `sherwood.generation`).
pub fn described(schema: &SchemaRef, found: &Found) -> Result<SchemaRef, CliError> {
    let snapshot = &found.snapshot;
    let mut metadata = vec![("sherwood.cluster_id".to_owned(), snapshot.cluster_id()?)];
    if matches!(found.origin, Origin::Shared { .. }) {
        let generation = snapshot.generation().to_string();
        metadata.push(("sherwood.generation".to_owned(), generation));
    }
    let schema = Schema::new_with_metadata(schema.fields().clone(), metadata.into_iter().collect());
    Ok(Arc::new(schema))
}

/// Writes them as a stream, which can be read while it comes.
pub fn stream(
    out: &mut dyn Write,
    schema: &SchemaRef,
    batches: &mut Batches<'_>,
) -> Result<(), CliError> {
    let mut writer = StreamWriter::try_new(out, schema).map_err(not_encoded(FORMAT))?;
    for batch in batches {
        writer.write(&batch?).map_err(not_encoded(FORMAT))?;
    }
    writer.finish().map_err(not_encoded(FORMAT))
}

/// Writes them as a file, whose batches can be read in any order.
pub fn write_file(
    out: &mut dyn Write,
    schema: &SchemaRef,
    batches: &mut Batches<'_>,
) -> Result<(), CliError> {
    let mut writer = FileWriter::try_new(out, schema).map_err(not_encoded(FORMAT))?;
    for batch in batches {
        writer.write(&batch?).map_err(not_encoded(FORMAT))?;
    }
    writer.finish().map_err(not_encoded(FORMAT))
}
