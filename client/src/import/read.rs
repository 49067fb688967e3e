//! Parquet bytes into a [`State`].

use std::any::Any;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use arrow_array::RecordBatch;
use arrow_schema::{DataType, FieldRef, Fields, Schema};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use sherwood_shared::document::from_document;
use sherwood_shared::schema::{TableId, check_version};
use sherwood_shared::state::{State, StateError};

use super::columns::read_pieces;
use super::error::ImportError;
use super::{VERSION_KEY, seal};

const MAGIC: &[u8] = b"PAR1";

/// What a footer may claim for each byte of file, beyond [`FREE`]: more than compression makes of any real state.
const MOST_PER_BYTE: u64 = 1_000;
/// What any footer may claim, in bytes or values.
const FREE: u64 = 64 << 20;

/// Reads the state in a Parquet file.
///
/// `expected_cluster`: the cluster it has to be the state of; it also stands in for a `cluster_id` that is null.
///
/// # Errors
///
/// [`ImportError`]; the file is untouched. A file that is being written in place gives one too (usually
/// [`ImportError::CutShort`]): try again when it has changed.
pub fn read_parquet(path: &Path, expected_cluster: Option<&str>) -> Result<State, ImportError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ImportError::Missing {
            path: path.to_owned(),
        },
        _ => ImportError::Io {
            path: path.to_owned(),
            source,
        },
    };
    // Before it is opened: opening a pipe would wait for its writer.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(ImportError::NotAFile {
            path: path.to_owned(),
        });
    }
    let bytes = fs::read(path).map_err(failed)?;
    read_parquet_bytes(bytes, path, expected_cluster)
}

/// Reads the state in the bytes of a Parquet file. `path` only names it in errors.
///
/// Any bytes at all may be given: the result is a state or an error, never a panic.
///
/// # Errors
///
/// As [`read_parquet`].
pub fn read_parquet_bytes(
    bytes: impl Into<Bytes>,
    path: &Path,
    expected_cluster: Option<&str>,
) -> Result<State, ImportError> {
    read_parquet_columns(bytes, path, expected_cluster).map(|(state, _)| state)
}

/// What a file itself has, of what its state has: absent columns and tables read as nulls and as no rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileColumns {
    /// The columns beside the tables.
    pub cluster: Fields,
    /// By `TableId`, in the file's types: the fields of the rows, or `None` if the file lacks the table.
    pub tables: [Option<Fields>; 3],
}

impl FileColumns {
    fn of(document: &Schema) -> Self {
        let fields_of = |table: TableId| {
            let (_, column) = document.fields().find(table.name())?;
            Some(match column.data_type() {
                DataType::List(item)
                | DataType::LargeList(item)
                | DataType::FixedSizeList(item, _)
                | DataType::ListView(item)
                | DataType::LargeListView(item) => match item.data_type() {
                    DataType::Struct(fields) => fields.clone(),
                    _ => Fields::empty(),
                },
                _ => Fields::empty(),
            })
        };
        let beside = |field: &&FieldRef| TableId::from_name(field.name()).is_none();
        Self {
            cluster: document.fields().iter().filter(beside).cloned().collect(),
            tables: TableId::ALL.map(fields_of),
        }
    }
}

/// As [`read_parquet_bytes`], and tells what the file itself has.
///
/// # Errors
///
/// As [`read_parquet`].
pub fn read_parquet_columns(
    bytes: impl Into<Bytes>,
    path: &Path,
    expected_cluster: Option<&str>,
) -> Result<(State, FileColumns), ImportError> {
    let bytes = bytes.into();
    let file = File { path, bytes };
    file.check_frame()?;
    let metadata =
        guarded(|| file.metadata()).map_err(|trouble| file.corrupt("the footer", trouble))?;
    file.check_claims(metadata.metadata())?;
    let document = match guarded(|| read_pieces(&metadata, |mask| file.rows(&metadata, mask))) {
        Ok(batch) => batch,
        Err(trouble) => return Err(file.corrupt(&file.bad_column(&metadata), trouble)),
    };
    let document = document.ok_or_else(|| file.state_error(StateError::NotOneRow { rows: 0 }))?;
    let columns = FileColumns::of(&document.schema());
    let state =
        from_document(&document, expected_cluster).map_err(|source| file.state_error(source))?;
    Ok((state, columns))
}

/// What is read, and its name.
struct File<'a> {
    path: &'a Path,
    bytes: Bytes,
}

impl File<'_> {
    /// The magics at both ends, and the checksum if Sherwood wrote the file.
    fn check_frame(&self) -> Result<(), ImportError> {
        let (path, length) = (self.path.to_owned(), self.bytes.len());
        // Zero bytes, or the first few, are what a writer leaves that has just begun.
        if length < MAGIC.len() && MAGIC.starts_with(&self.bytes) {
            return Err(ImportError::CutShort {
                path,
                bytes: length,
            });
        }
        if !self.bytes.starts_with(MAGIC) {
            return Err(ImportError::NotParquet {
                path,
                bytes: length,
            });
        }
        if length < 3 * MAGIC.len() || !self.bytes.ends_with(MAGIC) {
            return Err(ImportError::CutShort {
                path,
                bytes: length,
            });
        }
        seal::check(&self.bytes).map_err(|seal::Broken { expected, found }| ImportError::Checksum {
            path,
            expected,
            found,
        })
    }

    fn metadata(&self) -> Result<ArrowReaderMetadata, ParquetError> {
        ArrowReaderMetadata::load(&self.bytes, ArrowReaderOptions::new())
    }

    /// What the footer says of the whole: version, rows, and sizes that the file can have.
    fn check_claims(&self, metadata: &ParquetMetaData) -> Result<(), ImportError> {
        let keys = metadata.file_metadata().key_value_metadata();
        let version = keys
            .into_iter()
            .flatten()
            .find(|pair| pair.key == VERSION_KEY);
        if let Some(value) = version.and_then(|pair| pair.value.as_deref()) {
            let number = value.parse::<u32>().map_err(|_| ImportError::BadVersion {
                path: self.path.to_owned(),
                value: value.to_owned(),
            })?;
            check_version(number).map_err(|source| ImportError::Newer {
                path: self.path.to_owned(),
                source,
            })?;
        }

        let groups = metadata.row_groups();
        let rows: u64 = groups
            .iter()
            .map(|group| clamp(group.num_rows()))
            .fold(0, u64::saturating_add);
        if rows != 1 {
            let rows = usize::try_from(rows).unwrap_or(usize::MAX);
            return Err(self.state_error(StateError::NotOneRow { rows }));
        }

        let length = self.bytes.len();
        let most = (length as u64)
            .saturating_mul(MOST_PER_BYTE)
            .saturating_add(FREE);
        let sum = |what: fn(&parquet::file::metadata::ColumnChunkMetaData) -> i64| {
            let all = groups.iter().flat_map(|group| group.columns());
            all.map(|column| clamp(what(column)))
                .fold(0, u64::saturating_add)
        };
        for (claimed, unit) in [
            (sum(|c| c.uncompressed_size()), "bytes"),
            (sum(|c| c.num_values()), "values"),
        ] {
            if claimed > most {
                let path = self.path.to_owned();
                return Err(ImportError::Implausible {
                    path,
                    claimed,
                    unit,
                    bytes: length,
                });
            }
        }
        Ok(())
    }

    /// The one row; none if the row groups hold none after all.
    fn rows(
        &self,
        metadata: &ArrowReaderMetadata,
        columns: ProjectionMask,
    ) -> Result<Option<RecordBatch>, ParquetError> {
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(
            self.bytes.clone(),
            metadata.clone(),
        )
        .with_projection(columns)
        .with_batch_size(2)
        .build()?;
        let mut found = None;
        for batch in reader {
            let batch = batch?;
            if batch.num_rows() != 1 || found.is_some() {
                let message = "the row groups hold other rows than the footer counts";
                return Err(ParquetError::General(message.to_owned()));
            }
            found = Some(batch);
        }
        Ok(found)
    }

    /// The first column that cannot be read alone: where to say the damage is. Only after a failure.
    fn bad_column(&self, metadata: &ArrowReaderMetadata) -> String {
        let schema = metadata.parquet_schema();
        let bad = (0..schema.num_columns()).find(|&leaf| {
            guarded(|| self.rows(metadata, ProjectionMask::leaves(schema, [leaf]))).is_err()
        });
        match bad {
            Some(leaf) => format!("column {}", schema.column(leaf).path().string()),
            None => "the way its columns fit together".to_owned(),
        }
    }

    fn corrupt(&self, place: &str, trouble: Trouble) -> ImportError {
        let (path, place) = (self.path.to_owned(), place.to_owned());
        match trouble {
            Trouble::Error(source) => ImportError::Corrupt {
                path,
                place,
                source,
            },
            Trouble::Panic(message) => ImportError::Panicked {
                path,
                place,
                message,
            },
        }
    }

    fn state_error(&self, source: StateError) -> ImportError {
        let path = self.path.to_owned();
        match source {
            StateError::WrongCluster { expected, found } => ImportError::WrongCluster {
                path,
                expected,
                found,
            },
            source => ImportError::State {
                path,
                source: Box::new(source),
            },
        }
    }
}

/// Negative counts are damage that the decoder will meet; here they must only not wrap.
fn clamp(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// How decoding went wrong.
enum Trouble {
    Error(ParquetError),
    Panic(String),
}

/// Decodes, and takes a panic for an error.
///
/// The `parquet` crate checks most of what it reads and indexes out of bounds on the rest: single flipped bits of
/// an otherwise good file reach its `panic!`s. All it touches is owned by the call and dropped with it, so there is no
/// state that a panic could leave half-changed. (A program built with `panic = "abort"` dies instead.)
fn guarded<T>(decode: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, Trouble> {
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(result) => result.map_err(Trouble::Error),
        Err(payload) => Err(Trouble::Panic(panic_message(payload.as_ref()))),
    }
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "the decoder panicked".to_owned())
}
