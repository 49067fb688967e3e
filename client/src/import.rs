//! States in Parquet files, read and written without a daemon.
//!
//! The file is the document: one row, tables as lists of structs ([`sherwood_shared::document`]). Reading is
//! liberal in types, strict in content: what is accepted is a whole state, and everything else is an
//! [`ImportError`] that tells a missing file from a damaged one, from one that is no state, and from one that a
//! newer Sherwood wrote. The file is read whole before any of it is looked at; it is never mapped, since older
//! writers change it in place.
//!
//! Written files are zstd-compressed, name list items `element` as the format asks, and carry two keys in the
//! file's metadata:
//!
//! - `sherwood.schema_version`: the lowest version of the schema that holds the state;
//! - `sherwood.crc32c`: a checksum of the whole file (module `seal`). Damage to a file that Sherwood wrote is found, wherever it
//!   is; in files of others as far as they carry page checksums.
//!
//! Not promised: that damage in other writers' files is noticed. It may show as other values, never as a panic,
//! a hang or memory unsafety. Nor a bound on memory for files made to exhaust it: a footer's claims are checked
//! against the file's length, but a page may still ask for up to 2 GiB of address space.

mod columns;
mod error;
mod read;
pub mod seal;
mod write;

pub use self::error::{ImportError, WriteError};
pub use self::read::{FileColumns, read_parquet, read_parquet_bytes, read_parquet_columns};
pub use self::write::{properties, to_parquet_bytes, write_parquet, write_parquet_atomic};

/// The file metadata key that says which version of the schema a file is written in (a decimal number). Files
/// without it are version 1.
pub const VERSION_KEY: &str = "sherwood.schema_version";
