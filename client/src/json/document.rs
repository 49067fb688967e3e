//! The whole state as one object, which is the document with its lists as arrays of objects.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::RecordBatch;
use serde_json::Value;
use sherwood_shared::schema::TableId;

use super::{JsonError, Rows};
use crate::error::ReadError;
use crate::snapshot::Snapshot;

/// Why a state was not written as JSON. At the path is what was there before.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The snapshot is damaged.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A column of a kind that JSON has no form for.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The bytes could not be written.
    #[error("cannot write {path:?}")]
    Write {
        /// The file, or its directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Who takes the bytes would not.
    #[error("cannot write the state")]
    Output(#[from] io::Error),
}

/// Writes the state as one object, a row a line: the cluster's columns, then `nodes`, `tasks` and `content` as arrays in key
/// order. `wrote` is told of rows as they are written.
pub fn write_document(
    snapshot: &Snapshot,
    out: &mut (impl Write + ?Sized),
    mut wrote: impl FnMut(u64),
) -> Result<(), ExportError> {
    let cluster = snapshot.cluster()?;
    let mut text = Vec::new();
    Rows::new(&cluster)?.write(0, &mut text);
    // Its closing brace comes behind the tables.
    text.pop();
    out.write_all(&text)?;
    for id in TableId::ALL {
        write!(out, ",\n\"{}\":[", id.name())?;
        let mut is_first = true;
        for batch in snapshot.table(id).batches() {
            let batch = batch?;
            let rows = Rows::new(&batch)?;
            for row in 0..batch.num_rows() {
                text.clear();
                if !is_first {
                    text.extend_from_slice(b",\n");
                }
                is_first = false;
                rows.write(row, &mut text);
                out.write_all(&text)?;
            }
            wrote(batch.num_rows() as u64);
        }
        out.write_all(b"]")?;
    }
    out.write_all(b"}\n")?;
    Ok(())
}

/// One row as a value. All its columns, in schema order.
pub fn row(batch: &RecordBatch, row: usize) -> Result<Value, JsonError> {
    Ok(Rows::new(batch)?.value(row))
}

impl Snapshot {
    /// The document as one value: the cluster's columns, then `nodes`, `tasks` and `content` as arrays. Copies everything.
    pub fn get_cluster_state_as_dict(&self) -> Result<Value, ExportError> {
        let mut state = row(&self.cluster()?, 0)?;
        for id in TableId::ALL {
            let mut rows = Vec::new();
            for batch in self.table(id).batches() {
                let batch = batch?;
                let values = Rows::new(&batch)?;
                rows.extend((0..batch.num_rows()).map(|row| values.value(row)));
            }
            state[id.name()] = Value::Array(rows);
        }
        Ok(state)
    }

    /// Writes the state as one JSON object ([`write_document`]) in place of the file at `path`: who reads there sees the old
    /// file or the new one, whole. **Durable** when this returns `Ok`.
    pub fn export_state_to_json(&self, path: impl AsRef<Path>) -> Result<(), ExportError> {
        let path = path.as_ref();
        let directory = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        static COUNT: AtomicU64 = AtomicU64::new(0);
        // ORDER count: unique is all it has to be.
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let aside = directory.join(format!(".sherwood-{}.{count}.tmp", process::id()));
        let done = self.write_aside(&aside).and_then(|()| {
            fs::rename(&aside, path).map_err(failed(path))?;
            let directory_file = File::open(directory).map_err(failed(directory))?;
            directory_file.sync_all().map_err(failed(directory))
        });
        if done.is_err() {
            // The error that matters is the one above; after the rename there is nothing to remove.
            let _ = fs::remove_file(&aside);
        }
        done
    }

    fn write_aside(&self, aside: &Path) -> Result<(), ExportError> {
        let file = File::create_new(aside).map_err(failed(aside))?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        write_document(self, &mut out, |_| {}).map_err(|error| match error {
            ExportError::Output(source) => failed(aside)(source),
            error => error,
        })?;
        let file = out.into_inner();
        let file = file.map_err(|error| failed(aside)(error.into_error()))?;
        file.sync_all().map_err(failed(aside))
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> ExportError {
    let path = path.to_owned();
    move |source| ExportError::Write { path, source }
}
