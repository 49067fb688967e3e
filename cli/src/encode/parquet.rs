//! A table as Parquet rows, or the whole state as the document.

use std::io::Write;
use std::sync::Arc;

use arrow_schema::{ArrowError, DataType, FieldRef, Fields, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use sherwood_client::{Snapshot, TableId};
use sherwood_store::checkpoint::{CheckpointError, Halt, Pace, Step, export};

use super::{Batches, not_encoded};
use crate::error::CliError;

const FORMAT: &str = "Parquet";
/// Of encoded rows that stand in memory before they are written as a row group.
const ROW_GROUP_BYTES: usize = 32 << 20;

fn failed(error: ParquetError) -> CliError {
    // What the writer said is an error of its own, somewhere inside.
    let source = match error {
        ParquetError::External(source) => match source.downcast::<std::io::Error>() {
            Ok(source) => return CliError::Output(*source),
            Err(source) => ArrowError::ExternalError(source),
        },
        error => ArrowError::ParquetError(error.to_string()),
    };
    not_encoded(FORMAT)(source)
}

/// Writes rows as rows.
pub fn table(
    out: &mut (dyn Write + Send),
    schema: &SchemaRef,
    batches: &mut Batches<'_>,
) -> Result<(), CliError> {
    let properties = WriterProperties::builder()
        .set_created_by(format!("sherwood version {}", env!("CARGO_PKG_VERSION")))
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        // The names for list items that the format prescribes.
        .set_coerce_types(true)
        .build();
    let mut writer =
        ArrowWriter::try_new(out, Arc::clone(schema), Some(properties)).map_err(failed)?;
    for batch in batches {
        writer.write(&batch?).map_err(failed)?;
        if writer.in_progress_size() > ROW_GROUP_BYTES {
            writer.flush().map_err(failed)?;
        }
    }
    writer.close().map_err(failed)?;
    Ok(())
}

/// Writes the whole state in the document's form, as the daemon does: one row, whose columns `nodes`, `tasks` and `content` are lists of
/// structs. One column of one table stands in memory at a time. `step` is told the rows of each field of them.
pub fn document(
    out: &mut (dyn Write + Send),
    snapshot: &Snapshot,
    step: &(dyn Fn(u64) + Sync),
) -> Result<(), CliError> {
    let mut fields = Vec::new();
    for id in TableId::ALL {
        let table = snapshot.table(id);
        fields.extend(std::iter::repeat_n(
            table.len(),
            leaves(table.schema()?.fields()),
        ));
    }
    let mut told = Told {
        fields: fields.into_iter(),
        step,
    };
    export(snapshot, out, &mut told).map_err(|error| match error {
        CheckpointError::Encode(source) => failed(source),
        CheckpointError::Read(source) => source.into(),
        other => not_encoded(FORMAT)(ArrowError::ExternalError(Box::new(other))),
    })
}

/// How many columns of Parquet there are for these: those of structs each.
pub fn leaves(fields: &Fields) -> usize {
    let of = |field: &FieldRef| match field.data_type() {
        DataType::Struct(fields) => leaves(fields),
        _ => 1,
    };
    fields.iter().map(of).sum()
}

/// Tells of each column, and never waits.
struct Told<'a> {
    fields: std::vec::IntoIter<u64>,
    step: &'a (dyn Fn(u64) + Sync),
}

impl Pace for Told<'_> {
    fn before(&mut self, step: Step) -> Result<(), Halt> {
        if step == Step::Gather {
            self.fields.next().into_iter().for_each(self.step);
        }
        Ok(())
    }
}
