//! A [`State`] into a Parquet file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use sherwood_shared::document::to_oldest_document;
use sherwood_shared::schema::TableId;
use sherwood_shared::state::State;

use super::error::WriteError;
use super::{VERSION_KEY, seal};

/// Columns of tables whose values are mostly one of a kind. A dictionary of them would be a second copy, and a table to look them up
/// in, for who writes and who reads.
const MOSTLY_UNIQUE: [&str; 10] = [
    "id",
    "cid",
    "created_at",
    "updated_at",
    "started_at",
    "completed_at",
    "input_cid",
    "output_cid",
    "input_cids.list.element",
    "output_cids.list.element",
];

/// The state as the bytes of a Parquet file. Equal states give equal bytes.
///
/// # Errors
///
/// [`WriteError::State`] and [`WriteError::Encode`].
pub fn to_parquet_bytes(state: &State) -> Result<Vec<u8>, WriteError> {
    let (document, version) = to_oldest_document(state).map_err(WriteError::State)?;
    let properties = properties(version, &[]);
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, document.schema(), Some(properties))
        .map_err(WriteError::Encode)?;
    writer.write(&document).map_err(WriteError::Encode)?;
    writer.close().map_err(WriteError::Encode)?;
    // A file without a place for the seal would be read as one of another writer: valid, only less protected.
    let sealed = seal::seal(&mut bytes);
    debug_assert!(sealed, "the footer is not encoded as expected");
    Ok(bytes)
}

/// How Sherwood writes a state's file: with `more` in its metadata, between the version and a seal yet to be closed
/// ([`seal`]).
#[must_use]
pub fn properties(version: u32, more: &[(&str, String)]) -> WriterProperties {
    let pair = |key: &str, value: String| KeyValue::new(key.to_owned(), value);
    let mut keys = vec![pair(VERSION_KEY, version.to_string())];
    keys.extend(more.iter().map(|(key, value)| pair(key, value.clone())));
    keys.push(pair(seal::KEY, seal::UNSEALED.to_owned()));
    let mut properties = WriterProperties::builder();
    for table in TableId::ALL {
        for path in MOSTLY_UNIQUE {
            let path = ["list", "element"].into_iter().chain(path.split('.'));
            let path: Vec<String> = [table.name()]
                .into_iter()
                .chain(path)
                .map(str::to_owned)
                .collect();
            properties = properties.set_column_dictionary_enabled(path.into(), false);
        }
    }
    properties
        .set_created_by(format!("{}{}", seal::CREATED_BY, env!("CARGO_PKG_VERSION")))
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        // The names for list items that the format prescribes.
        .set_coerce_types(true)
        // One row: there is nothing to skip, so nothing to help skipping.
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .set_key_value_metadata(Some(keys))
        .build()
}

/// Writes the state into `path`, replacing what is there, in place.
///
/// Not atomic and not durable: who reads meanwhile may see part of it, and a crash may leave part of it. For that
/// use [`write_parquet_atomic`].
///
/// # Errors
///
/// [`WriteError`]; on [`WriteError::Io`] the file may hold part of the state.
pub fn write_parquet(state: &State, path: &Path) -> Result<(), WriteError> {
    let bytes = to_parquet_bytes(state)?;
    fs::write(path, bytes).map_err(failed("write", path))
}

/// Replaces `path` by the state: readers see the old file or the new one, whole.
///
/// **Durable** when this returns `Ok`: file and directory entry were synced. The new file is made beside the old one,
/// as `.NAME.PID.N.tmp`, with the permissions that the process's umask gives.
///
/// # Errors
///
/// [`WriteError`]. After any error but a failed sync of the directory the old file is still there, and the
/// temporary one is removed (if that fails too, it stays: nothing reads it). After a failed sync of the
/// directory the new file is in place, and a power cut may yet bring back the old one.
pub fn write_parquet_atomic(state: &State, path: &Path) -> Result<(), WriteError> {
    let bytes = to_parquet_bytes(state)?;
    let Some(name) = path.file_name() else {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "the path names no file");
        return Err(failed("write", path)(source));
    };
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    static COUNT: AtomicU64 = AtomicU64::new(0);
    // ORDER count: unique is all it has to be.
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(format!(".{}.{count}.tmp", process::id()));
    let temporary = directory.join(temporary_name);

    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&temporary)
        .map_err(failed("create", &temporary))?;
    let done = write_synced(file, &bytes, &temporary)
        .and_then(|()| fs::rename(&temporary, path).map_err(failed("replace", path)));
    if let Err(error) = done {
        // The error that matters is the one above.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    File::open(&directory)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("sync directory", &directory))
}

fn write_synced(mut file: File, bytes: &[u8], path: &Path) -> Result<(), WriteError> {
    file.write_all(bytes).map_err(failed("write", path))?;
    file.sync_all().map_err(failed("sync", path))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> WriteError {
    let path = path.to_owned();
    move |source| WriteError::Io {
        action,
        path,
        source,
    }
}
