//! Foreign files that are no state: out of the way, with the reason beside them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use super::REJECTED;
use super::error::{CheckpointError, failed};
use super::files::{Checkpoints, sync_directory};
use crate::durable::OUR_PREFIX;

/// A foreign file that was moved aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Where it is now.
    pub path: PathBuf,
    /// The text that says why.
    pub reason: PathBuf,
}

impl Checkpoints {
    /// Moves a foreign file that is no state out of the way, and says why beside it. Its writer, if it still has it open, goes on
    /// writing there.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`]; the file is at one of the two places.
    pub fn reject(&self, path: &Path, reason: &str) -> Result<Rejected, CheckpointError> {
        reject(&self.state_dir, path, reason)
    }
}

fn reject(state_dir: &Path, path: &Path, reason: &str) -> Result<Rejected, CheckpointError> {
    let dir = state_dir.join(REJECTED);
    match fs::create_dir(&dir) {
        Ok(()) => sync_directory(state_dir)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed("make the directory", &dir)(error)),
    }
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    // A displaced file is known by the name that it had.
    let name = match name.strip_prefix(OUR_PREFIX) {
        Some(own) => own
            .trim_end_matches(".new")
            .trim_end_matches(".old")
            .to_owned(),
        None => name,
    };
    let stamp = stamp();
    let mut target = dir.join(format!("{stamp}-{name}"));
    let mut count = 1;
    while fs::symlink_metadata(&target).is_ok() {
        count += 1;
        target = dir.join(format!("{stamp}-{count}-{name}"));
    }
    fs::rename(path, &target).map_err(failed("move", path))?;
    let reason_name = format!(
        "{}.reason.txt",
        target.file_name().unwrap_or_default().to_string_lossy()
    );
    let reason_path = dir.join(&reason_name);
    fs::write(&reason_path, format!("{reason}\n")).map_err(failed("write", &reason_path))?;
    sync_directory(&dir)?;
    sync_directory(state_dir)?;
    Ok(Rejected {
        path: target,
        reason: reason_path,
    })
}

/// A time as part of a file's name.
pub(crate) fn stamp() -> String {
    let now: DateTime<Utc> = Utc::now();
    now.format("%Y%m%dT%H%M%S%.3fZ").to_string()
}
