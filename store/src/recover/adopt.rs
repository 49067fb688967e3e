//! B4: a directory without checkpoints of ours.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use sherwood_client::import::{ImportError, read_parquet};
use sherwood_client::locate::{ClusterId, LocateError, StateDir};
use sherwood_shared::state::{State, StateError};

use super::{Adopted, RecoverError, Recovered};
use crate::checkpoint::Position;

/// How often a file is read again that changed under its reading.
const ATTEMPTS: u32 = 50;
/// Before each time.
const QUIET: Duration = Duration::from_millis(50);

/// The state that other programs left, or that of an empty cluster.
pub(super) fn adopt(dir: &StateDir, wanted: Option<&ClusterId>) -> Result<Recovered, RecoverError> {
    for _ in 0..ATTEMPTS {
        let file = match (dir.state_file(wanted), wanted) {
            (Ok(file), _) => file,
            (Err(LocateError::Nothing { .. }), Some(cluster)) => return empty(dir, cluster),
            (Err(LocateError::Nothing { dir }), None) => {
                return Err(RecoverError::NoCluster { dir });
            }
            (Err(error), _) => return Err(error.into()),
        };
        let path = file.path;
        let (seen, at) = (look(&path)?, SystemTime::now());
        let expected = file.expected_cluster.as_ref();
        let read = read_parquet(&path, expected.map(ClusterId::as_str));
        if identity(&look(&path)?) != identity(&seen) {
            // A writer at work: the next turn finds what it left. Not endlessly many.
            thread::sleep(QUIET);
            continue;
        }
        // A file that does not say whose it is may say so in its name.
        let read = match (read, &file.cluster_in_name) {
            (Err(ImportError::State { source, .. }), Some(cluster))
                if matches!(*source, StateError::NoClusterId) =>
            {
                read_parquet(&path, Some(cluster.as_str()))
            }
            (read, _) => read,
        };
        let state = read.map_err(|source| RecoverError::Load {
            path: path.clone(),
            source,
        })?;
        let named = wanted.cloned().or(file.expected_cluster);
        let cluster = match named {
            Some(cluster) => cluster,
            None => {
                ClusterId::new(state.cluster_id()).map_err(|source| RecoverError::ClusterId {
                    path: path.clone(),
                    source,
                })?
            }
        };
        let public = dir.path().join(cluster.state_file_name());
        return Ok(Recovered {
            public_is_stale: public != path,
            state,
            cluster,
            position: Position::default(),
            checkpoint: None,
            adopted: Some(Adopted { path, seen, at }),
            foreign: None,
            torn: None,
            warnings: Vec::new(),
            damaged: Vec::new(),
        });
    }
    let path = dir.state_file(wanted)?.path;
    Err(RecoverError::Changing { path })
}

fn empty(dir: &StateDir, cluster: &ClusterId) -> Result<Recovered, RecoverError> {
    let found = dir.leftovers()?;
    if !found.is_empty() {
        return Err(RecoverError::NotEmpty {
            dir: dir.path().to_path_buf(),
            cluster: cluster.clone(),
            found,
        });
    }
    Ok(Recovered {
        state: State::empty(cluster.as_str()),
        cluster: cluster.clone(),
        position: Position::default(),
        checkpoint: None,
        adopted: None,
        foreign: None,
        public_is_stale: true,
        torn: None,
        warnings: Vec::new(),
        damaged: Vec::new(),
    })
}

fn look(path: &Path) -> Result<fs::Metadata, RecoverError> {
    fs::metadata(path).map_err(|source: io::Error| RecoverError::Read {
        path: path.to_owned(),
        source,
    })
}

/// What changes with a file's content, as far as its inode tells.
fn identity(found: &fs::Metadata) -> [i64; 7] {
    [
        found.dev().cast_signed(),
        found.ino().cast_signed(),
        found.size().cast_signed(),
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
    ]
}
