//! Writers that know nothing but the Parquet file: they read it whole, change a row, and write it whole.
//!
//! They are careful in one thing: they do not write over a file that is another one than they read, as far as
//! a look just before can tell. What becomes of **their** change then is theirs to lose; what our writers wrote is not.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sherwood_client::{Snapshot, import};

use super::sherwood::{rows_of, state_of};
use super::transaction::Rows;

/// How it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Truncates the file and writes into it.
    InPlace,
    /// Writes another file, and renames it.
    ByRename,
}

/// What stands in the file.
///
/// # Errors
///
/// It cannot be read.
pub fn rows(file: &Path) -> Result<Rows, String> {
    let state = import::read_parquet(file, None).map_err(|error| error.to_string())?;
    let snapshot = Snapshot::from_state(&state).map_err(|error| format!("{error:?}"))?;
    rows_of(&snapshot)
}

/// Sets one row, in the whole file. `Ok(false)` if somebody else was faster.
///
/// # Errors
///
/// The file cannot be written.
pub fn set(file: &Path, manner: Manner, key: &str, number: i64) -> Result<bool, String> {
    let text = |error: std::io::Error| format!("{file:?}: {error}");
    let seen = identity(file);
    // Half a file of the other one, perhaps.
    let Ok(mut rows) = rows(file) else {
        return Ok(false);
    };
    rows.insert(key.to_owned(), number);
    let bytes = import::to_parquet_bytes(&state_of(&rows)).map_err(|error| error.to_string())?;
    if seen.is_none() || identity(file) != seen {
        return Ok(false);
    }
    match manner {
        Manner::InPlace => fs::write(file, bytes).map_err(text)?,
        Manner::ByRename => {
            let aside = file.with_extension("foreign");
            fs::write(&aside, bytes).map_err(text)?;
            fs::rename(aside, file).map_err(text)?;
        }
    }
    Ok(true)
}

/// Which file it is, and as of when.
fn identity(file: &Path) -> Option<(u64, i64, i64, u64)> {
    let found = fs::metadata(file).ok()?;
    Some((found.ino(), found.mtime(), found.mtime_nsec(), found.len()))
}
