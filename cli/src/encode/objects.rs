//! Rows as JSON objects.

use std::io::Write;

use super::Batches;
use crate::error::CliError;
use sherwood_client::json;

/// What stands around objects.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Before the first, if there is one or not.
    pub before: &'a str,
    /// Directly before each.
    pub open: &'a str,
    /// Directly behind each.
    pub close: &'a str,
    /// From one to the next.
    pub between: &'a str,
    /// After the last of at least one.
    pub end: &'a str,
    /// At the end, if there was one or not.
    pub after: &'a str,
}

/// One array.
pub const ARRAY: Frame<'_> = Frame {
    before: "[",
    open: "",
    close: "",
    between: ",\n",
    end: "",
    after: "]\n",
};

/// One object a line.
pub const LINES: Frame<'_> = Frame {
    before: "",
    open: "",
    close: "",
    between: "\n",
    end: "\n",
    after: "",
};

/// Writes them.
pub fn write(
    out: &mut dyn Write,
    batches: &mut Batches<'_>,
    frame: &Frame<'_>,
) -> Result<(), CliError> {
    let mut line = Vec::with_capacity(1024);
    let mut any = false;
    out.write_all(frame.before.as_bytes())?;
    for batch in batches {
        let batch = batch?;
        let rows = json::Rows::new(&batch)?;
        for row in 0..batch.num_rows() {
            line.clear();
            if any {
                line.extend_from_slice(frame.between.as_bytes());
            }
            any = true;
            line.extend_from_slice(frame.open.as_bytes());
            rows.write(row, &mut line);
            line.extend_from_slice(frame.close.as_bytes());
            out.write_all(&line)?;
        }
    }
    if any {
        out.write_all(frame.end.as_bytes())?;
    }
    out.write_all(frame.after.as_bytes())?;
    Ok(())
}
