//! Where the daemon listens: `<cluster_id>.sock`, beside the snapshot `<cluster_id>.arrow`.
//!
//! A state directory leads to its socket only over a snapshot that stands for that very directory: a copy of it
//! names the same snapshot, and a write to the copy must not reach the original.

use std::env;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::error::WriteError;
use crate::locate::{ClusterId, StateDir, Surroundings};
use crate::{OpenError, ReadError, Reader};

/// What a writer connects to. Resolved anew for every connection, so that a daemon may come back elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Address {
    /// This socket.
    Socket(PathBuf),
    /// The socket beside this snapshot file.
    Snapshot(PathBuf),
    /// The daemon that serves this state directory.
    StateDir(PathBuf),
    /// The daemon that serves this cluster, in one of the usual run directories: `$SHERWOOD_RUN_DIR`,
    /// `$XDG_RUNTIME_DIR/sherwood`, `/run/sherwood`, `/dev/shm/sherwood`.
    Cluster(ClusterId),
}

impl Address {
    /// Tells what `target` is: a socket, a snapshot (`.arrow`), a state directory, any other file of a state
    /// directory, or else the id of a cluster. `~` is expanded.
    ///
    /// # Errors
    ///
    /// [`WriteError::Target`] if it is nothing of these.
    pub fn of(target: &Path) -> Result<Self, WriteError> {
        let path = Surroundings::of_process().expand(target);
        let extension = path.extension().and_then(|extension| extension.to_str());
        match path.metadata() {
            Ok(found) if found.file_type().is_socket() => Ok(Self::Socket(path)),
            Ok(found) if found.is_dir() => Ok(Self::StateDir(path)),
            _ if extension == Some("sock") => Ok(Self::Socket(path)),
            _ if extension == Some("arrow") => Ok(Self::Snapshot(path)),
            Ok(_) => {
                let parent = path.parent().filter(|parent| *parent != Path::new(""));
                Ok(Self::StateDir(parent.unwrap_or(Path::new(".")).to_owned()))
            }
            Err(_) => ClusterId::new(&target.to_string_lossy())
                .map(Self::Cluster)
                .map_err(|source| WriteError::Target {
                    target: target.to_owned(),
                    source,
                }),
        }
    }

    /// The socket's path. Whether somebody listens there shows when it is connected to.
    ///
    /// # Errors
    ///
    /// Where the state directory cannot be read, or no daemon's snapshot stands for it.
    pub fn socket(&self) -> Result<PathBuf, WriteError> {
        match self {
            Self::Socket(path) => Ok(path.clone()),
            Self::Snapshot(path) => Ok(beside(path)),
            Self::StateDir(path) => of_state_dir(path),
            Self::Cluster(id) => of_cluster(id),
        }
    }
}

fn beside(snapshot: &Path) -> PathBuf {
    snapshot.with_extension("sock")
}

fn run_dirs() -> Vec<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    let around = Surroundings::of_process();
    let own = set("SHERWOOD_RUN_DIR").map(|dir| around.expand(Path::new(&dir)));
    let user = set("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("sherwood"));
    let system = ["/run/sherwood", "/dev/shm/sherwood"].map(PathBuf::from);
    own.into_iter().chain(user).chain(system).collect()
}

fn of_cluster(id: &ClusterId) -> Result<PathBuf, WriteError> {
    let name = format!("{id}.sock");
    let mut places = run_dirs().into_iter().map(|dir| dir.join(&name));
    places
        .find(|path| path.exists())
        .ok_or_else(|| WriteError::NotServed {
            target: id.as_str().into(),
            why: format!("there is no {name} in any of the usual run directories"),
        })
}

fn of_state_dir(path: &Path) -> Result<PathBuf, WriteError> {
    let dir = StateDir::open(path)?;
    let named = dir.snapshot_path()?;
    let cluster = match dir.metadata()? {
        Some(metadata) => metadata.cluster_id()?,
        None => None,
    };
    let cluster = cluster.or_else(|| dir.state_file(None).ok()?.cluster_in_name);
    let usual = run_dirs().into_iter().filter_map(|dir| {
        let name = cluster.as_ref()?.snapshot_file_name();
        Some(dir.join(name))
    });
    let mut why = "no snapshot is known of it".to_owned();
    for snapshot in named.into_iter().chain(usual) {
        match Reader::open(&snapshot).and_then(|reader| reader.snapshot()) {
            Ok(found) if found.stands_for(dir.path()) => return Ok(beside(&snapshot)),
            Ok(_) => why = format!("{snapshot:?} stands for another directory"),
            Err(ReadError::Open(OpenError::Missing { .. })) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(WriteError::NotServed {
        target: path.to_owned(),
        why,
    })
}
