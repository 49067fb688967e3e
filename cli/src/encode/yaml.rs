//! Rows as one YAML list, with the values of the JSON form.

use std::io::Write;

use serde_json::Value;

use super::Batches;
use crate::error::CliError;
use sherwood_client::json;

/// Writes them, each as a list of one: such lists one after the other are one list.
pub fn write(out: &mut dyn Write, batches: &mut Batches<'_>) -> Result<(), CliError> {
    let mut line = Vec::with_capacity(1024);
    let mut any = false;
    for batch in batches {
        let batch = batch?;
        let rows = json::Rows::new(&batch)?;
        for row in 0..batch.num_rows() {
            line.clear();
            rows.write(row, &mut line);
            let value: Value = serde_json::from_slice(&line).map_err(|error| not_yaml(&error))?;
            let text = serde_saphyr::to_string(&[value]).map_err(|error| not_yaml(&error))?;
            out.write_all(text.as_bytes())?;
            any = true;
        }
    }
    if !any {
        out.write_all(b"[]\n")?;
    }
    Ok(())
}

fn not_yaml(error: &dyn std::error::Error) -> CliError {
    let source = arrow_schema::ArrowError::JsonError(error.to_string());
    CliError::Format {
        format: "YAML",
        source,
    }
}
