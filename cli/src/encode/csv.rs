//! Rows as comma-separated values: a line of names, then a line for each row.
//!
//! Fields of structs are columns with dotted names; lists are JSON; all else is as in the JSON form, without its
//! quotes. Nulls are empty, and so is empty text.

use std::io::Write;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, make_array};
use arrow_buffer::NullBuffer;
use arrow_csv::WriterBuilder;
use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};

use super::{Batches, not_encoded};
use crate::error::CliError;
use sherwood_client::json;

const FORMAT: &str = "CSV";

/// Writes them. `schema`: theirs, so that the names are there without any row.
pub fn write(
    out: &mut dyn Write,
    schema: &SchemaRef,
    batches: &mut Batches<'_>,
) -> Result<(), CliError> {
    let mut lines = lines(&RecordBatch::new_empty(Arc::clone(schema)), true)?;
    out.write_all(&lines)?;
    for batch in batches {
        lines = self::lines(&batch?, false)?;
        out.write_all(&lines)?;
    }
    Ok(())
}

fn lines(batch: &RecordBatch, header: bool) -> Result<Vec<u8>, CliError> {
    let mut flat = Flat::default();
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        flat.add(field.name().clone(), field, column, None)?;
    }
    let schema = Arc::new(Schema::new(flat.fields));
    let flat = RecordBatch::try_new(schema, flat.columns).map_err(not_encoded(FORMAT))?;
    let mut lines = Vec::new();
    let mut writer = WriterBuilder::new().with_header(header).build(&mut lines);
    writer.write(&flat).map_err(not_encoded(FORMAT))?;
    drop(writer);
    Ok(lines)
}

#[derive(Default)]
struct Flat {
    fields: Vec<FieldRef>,
    columns: Vec<ArrayRef>,
}

impl Flat {
    /// A column, or of a struct each of its fields. `parents`: where the structs around it are there.
    fn add(
        &mut self,
        name: String,
        field: &Field,
        column: &ArrayRef,
        parents: Option<&NullBuffer>,
    ) -> Result<(), CliError> {
        if let Some(inner) = column.as_struct_opt() {
            let nulls = NullBuffer::union(parents, inner.nulls());
            for (field, column) in inner.fields().iter().zip(inner.columns()) {
                let name = format!("{name}.{}", field.name());
                self.add(name, field, column, nulls.as_ref())?;
            }
            return Ok(());
        }
        let column = match parents {
            None => Arc::clone(column),
            Some(parents) => {
                let nulls = NullBuffer::union(Some(parents), column.nulls());
                let data = column.to_data().into_builder().nulls(nulls).build();
                make_array(data.map_err(not_encoded(FORMAT))?)
            }
        };
        let column = if is_plain(column.data_type()) {
            column
        } else {
            text(field, &column)?
        };
        let field = Field::new(name, column.data_type().clone(), true);
        self.fields.push(Arc::new(field));
        self.columns.push(column);
        Ok(())
    }
}

/// Looks the same in JSON and in the CSV writer's own form.
fn is_plain(data_type: &DataType) -> bool {
    data_type.is_integer()
        || matches!(
            data_type,
            DataType::Utf8
                | DataType::LargeUtf8
                | DataType::Boolean
                | DataType::Float32
                | DataType::Float64
        )
}

/// The JSON form; of what is text there, the text.
fn text(field: &Field, column: &ArrayRef) -> Result<ArrayRef, CliError> {
    let cells = json::Cells::new(field.name(), column)?;
    let mut cell = Vec::new();
    let texts: StringArray = (0..column.len())
        .map(|row| {
            cell.clear();
            cells.write(row, &mut cell);
            if cell == b"null" {
                return None;
            }
            let text = match cell.first() {
                Some(b'"') => serde_json::from_slice(&cell).unwrap_or_default(),
                _ => String::from_utf8_lossy(&cell).into_owned(),
            };
            Some(text)
        })
        .collect();
    Ok(Arc::new(texts))
}
