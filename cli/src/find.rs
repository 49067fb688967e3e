//! From options and environment to the state that is read.
//!
//! What the command line names wins over what the environment names: with `--run-dir` alone,
//! `$SHERWOOD_STATE_DIR` is not looked at. A run directory that only the environment names and
//! that has no snapshot does not keep us from the usual places: its daemon may be gone. A socket that is named is written
//! through, and what is read is the snapshot beside it. Within a state directory the rules are those of
//! [`sherwood_client::locate`]; on top of them:
//!
//! - a live daemon's snapshot that stands for the directory is read;
//! - a dead daemon's is read if the Parquet file is not newer, or not readable: it is what
//!   the daemon last knew;
//! - else the Parquet file is read.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sherwood_client::import;
use sherwood_client::locate::{ClusterId, LocateError, StateDir, StateFile, Surroundings};
use sherwood_client::{OpenError, ReadError, Reader, Snapshot};

use crate::args::PlaceArgs;
use crate::error::CliError;
use crate::output;

/// Where to look.
#[derive(Debug)]
pub struct Places {
    cluster: Option<ClusterId>,
    snapshot: Option<PathBuf>,
    parquet: Option<PathBuf>,
    socket: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
    /// By the command line, and not only by the environment.
    insists_on_run_dir: bool,
    around: Surroundings,
    usual_run_dirs: Vec<PathBuf>,
}

/// A state that was found, as it was at that moment.
#[derive(Debug)]
pub struct Found {
    /// The state.
    pub snapshot: Snapshot,
    /// Where it came from.
    pub origin: Origin,
    /// The state directory, where known; the file itself for `--parquet`.
    pub state_path: Option<PathBuf>,
}

/// Where a state came from.
#[derive(Debug)]
pub enum Origin {
    /// A daemon's snapshot file.
    Shared {
        /// Follows it.
        reader: Reader,
    },
    /// A Parquet file.
    Parquet {
        /// The file.
        path: PathBuf,
        /// Last written, where known.
        modified: Option<SystemTime>,
        /// A daemon served this state, and is gone; this is its snapshot's path.
        orphaned: Option<PathBuf>,
    },
}

impl Places {
    /// What the options and this process's environment say.
    pub fn new(args: &PlaceArgs) -> Result<Self, CliError> {
        let set = |name| env::var_os(name).filter(|value: &OsString| !value.is_empty());
        let (cluster, place) = match &args.cluster_id {
            Some(id) => (Some(id.clone()), "--cluster-id"),
            None => (
                set("SHERWOOD_CLUSTER_ID").map(|id| id.to_string_lossy().into_owned()),
                "$SHERWOOD_CLUSTER_ID",
            ),
        };
        let cluster = cluster
            .map(|id| ClusterId::new(&id))
            .transpose()
            .map_err(|source| CliError::ClusterId { place, source })?;
        let around = Surroundings::of_process();
        let path = |name| set(name).map(PathBuf::from);
        let says_nothing = args.state_dir.is_none()
            && args.run_dir.is_none()
            && args.snapshot.is_none()
            && args.parquet.is_none();
        let socket = args
            .socket
            .clone()
            .or_else(|| says_nothing.then(|| path("SHERWOOD_SOCKET")).flatten());
        // The environment's directories count only where the command line names none that
        // they could contradict.
        let state_dir = args.state_dir.clone().or_else(|| {
            let alone = args.run_dir.is_none();
            alone.then(|| path("SHERWOOD_STATE_DIR")).flatten()
        });
        let run_dir = args.run_dir.clone().or_else(|| path("SHERWOOD_RUN_DIR"));
        let usual_run_dirs = path("XDG_RUNTIME_DIR")
            .map(|dir| dir.join("sherwood"))
            .into_iter()
            .chain(["/run/sherwood", "/dev/shm/sherwood"].map(PathBuf::from))
            .collect();
        Ok(Self {
            cluster,
            snapshot: args.snapshot.clone(),
            parquet: args.parquet.clone(),
            socket: socket.map(|path| around.expand(&path)),
            state_dir: state_dir.map(|dir| around.expand(&dir)),
            run_dir: run_dir.map(|dir| around.expand(&dir)),
            insists_on_run_dir: args.run_dir.is_some(),
            around,
            usual_run_dirs,
        })
    }

    /// The socket, if it was named.
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// Finds the state and reads it.
    pub fn find(&self) -> Result<Found, CliError> {
        if let Some(path) = &self.snapshot {
            return self.shared(path);
        }
        if let Some(socket) = &self.socket {
            return self.shared(&socket.with_extension("arrow"));
        }
        if let Some(path) = &self.parquet {
            let expected = self.cluster.as_ref().map(ClusterId::as_str);
            return parquet(path, expected, Some(path), None);
        }
        if let Some(dir) = &self.state_dir {
            return self.in_state_dir(&StateDir::open(dir)?);
        }
        if let Some(dir) = &self.run_dir {
            let dirs = std::slice::from_ref(dir);
            match self.in_run_dirs(dirs, self.insists_on_run_dir)? {
                Some(found) => return Ok(found),
                None if self.insists_on_run_dir => {
                    return Err(CliError::NoSnapshot { dir: dir.clone() });
                }
                None => {}
            }
        }
        self.in_usual_places()
    }

    /// The state directory, for work that needs no readable state in it.
    pub fn state_dir(&self) -> Result<StateDir, CliError> {
        let usual = || self.around.find_state(None);
        match self.state_dir.clone().or_else(usual) {
            Some(dir) => Ok(StateDir::open(dir)?),
            None => Err(CliError::NoState {
                cluster: self.cluster.as_ref().map(ClusterId::to_string),
                looked: self.around.places(None),
            }),
        }
    }

    fn in_usual_places(&self) -> Result<Found, CliError> {
        let mut looked = self.around.places(None);
        for place in &looked {
            let Ok(dir) = StateDir::open(place) else {
                continue;
            };
            let state = dir.state_file(self.cluster.as_ref());
            let is_here = match (&state, &self.cluster) {
                (Ok(_), _) => true,
                (Err(LocateError::Nothing { .. }), None) => dir.snapshot_path()?.is_some(),
                // Anything else that is wrong with a state is for the user to know.
                (Err(_), None) => true,
                (Err(_), Some(_)) => false,
            };
            if is_here {
                return self.in_state_dir(&dir);
            }
        }
        if let Some(found) = self.in_run_dirs(&self.usual_run_dirs, false)? {
            return Ok(found);
        }
        looked.extend_from_slice(&self.usual_run_dirs);
        Err(CliError::NoState {
            cluster: self.cluster.as_ref().map(ToString::to_string),
            looked,
        })
    }

    /// The only snapshot in these run directories, or this cluster's. `None`: there is none.
    fn in_run_dirs(&self, dirs: &[PathBuf], must_exist: bool) -> Result<Option<Found>, CliError> {
        let mut candidates = Vec::new();
        for dir in dirs {
            candidates.extend(self.snapshots_in(dir, must_exist)?);
        }
        match candidates.as_slice() {
            [] => Ok(None),
            [only] => self.shared(only).map(Some),
            _ if self.cluster.is_some() => self.shared(&candidates[0]).map(Some),
            _ => Err(CliError::SeveralSnapshots { candidates }),
        }
    }

    fn snapshots_in(&self, dir: &Path, must_exist: bool) -> Result<Vec<PathBuf>, CliError> {
        if let Some(cluster) = &self.cluster {
            let path = dir.join(format!("{cluster}.arrow"));
            let there = must_exist || path.symlink_metadata().is_ok();
            return Ok(if there { vec![path] } else { Vec::new() });
        }
        let list = || -> io::Result<Vec<PathBuf>> {
            fs::read_dir(dir)?
                .map(|entry| entry.map(|entry| entry.path()))
                .collect()
        };
        let mut paths = match list() {
            Ok(paths) => paths,
            Err(_) if !must_exist => Vec::new(),
            Err(source) => {
                let dir = dir.to_owned();
                return Err(CliError::RunDir { dir, source });
            }
        };
        paths.retain(|path| cluster_of(path).is_some());
        paths.sort();
        Ok(paths)
    }

    /// The snapshot file at `path`, whatever it stands for.
    fn shared(&self, path: &Path) -> Result<Found, CliError> {
        let reader = Reader::open(path)?;
        let snapshot = reader.snapshot()?;
        if let Some(wanted) = &self.cluster {
            let found = snapshot.cluster_id()?;
            if found != wanted.as_str() {
                return Err(CliError::WrongCluster {
                    path: path.to_owned(),
                    found,
                    wanted: wanted.to_string(),
                    advice: "",
                });
            }
        }
        Ok(Found {
            snapshot,
            origin: Origin::Shared { reader },
            state_path: None,
        })
    }

    fn in_state_dir(&self, dir: &StateDir) -> Result<Found, CliError> {
        let file = dir.state_file(self.cluster.as_ref());
        let named = dir.snapshot_path()?;
        let mut dead: Option<Found> = None;
        let mut gone = None;
        for path in self.candidates(dir, file.as_ref().ok(), named.as_deref())? {
            match self.stands_for(&path, dir) {
                Ok(Some(found)) => match &found.origin {
                    Origin::Shared { reader } if reader.liveness()?.alive => return Ok(found),
                    _ => dead = dead.or(Some(found)),
                },
                Ok(None) => {}
                Err(CliError::Read(ReadError::Open(OpenError::Missing { path }))) => {
                    if Some(&path) == named.as_ref() {
                        gone = Some(path);
                    }
                }
                Err(error) => output::complain("warning", &error),
            }
        }
        let expected = |file: &StateFile| {
            file.expected_cluster
                .as_ref()
                .map(|id| id.as_str().to_owned())
        };
        let orphaned = dead.as_ref().and_then(shared_path).or(gone);
        let state_path = Some(dir.path());
        match (dead, file) {
            (Some(dead), Ok(file)) => {
                let modified = modified(&file.path);
                if modified <= dead.snapshot.published_at() {
                    return Ok(dead);
                }
                let read = parquet(&file.path, expected(&file).as_deref(), state_path, orphaned);
                read.or_else(|error| {
                    output::complain("warning", &error);
                    Ok(dead)
                })
            }
            (Some(dead), Err(_)) => Ok(dead),
            (None, Ok(file)) => {
                parquet(&file.path, expected(&file).as_deref(), state_path, orphaned)
            }
            (None, Err(error)) => Err(error.into()),
        }
    }

    /// Where this directory's snapshot may be, likeliest first.
    fn candidates(
        &self,
        dir: &StateDir,
        file: Option<&StateFile>,
        named: Option<&Path>,
    ) -> Result<Vec<PathBuf>, CliError> {
        let metadata = dir.metadata()?;
        let cluster = match (&self.cluster, metadata) {
            (Some(cluster), _) => Some(cluster.clone()),
            (None, Some(metadata)) => metadata.cluster_id()?,
            (None, None) => None,
        };
        let cluster = cluster.or_else(|| file.and_then(|file| file.cluster_in_name.clone()));
        let of_cluster = |run_dir: &PathBuf| {
            let cluster = cluster.as_ref()?;
            Some(run_dir.join(format!("{cluster}.arrow")))
        };
        let mut paths: Vec<PathBuf> = self.run_dir.iter().filter_map(of_cluster).collect();
        paths.extend(named.map(Path::to_owned));
        paths.extend(self.usual_run_dirs.iter().filter_map(of_cluster));
        let mut seen = std::collections::HashSet::new();
        paths.retain(|path| seen.insert(path.clone()));
        Ok(paths)
    }

    /// The snapshot at `path`, if it stands for `dir` and is the cluster's that is wanted.
    fn stands_for(&self, path: &Path, dir: &StateDir) -> Result<Option<Found>, CliError> {
        let reader = Reader::open(path)?;
        let snapshot = reader.snapshot()?;
        let wanted = self.cluster.as_ref().map(ClusterId::as_str);
        let is_wanted = match wanted {
            Some(wanted) => snapshot.cluster_id()? == wanted,
            None => true,
        };
        if !is_wanted || !snapshot.stands_for(dir.path()) {
            return Ok(None);
        }
        Ok(Some(Found {
            snapshot,
            origin: Origin::Shared { reader },
            state_path: Some(dir.path().to_owned()),
        }))
    }
}

fn parquet(
    path: &Path,
    expected: Option<&str>,
    state_path: Option<&Path>,
    orphaned: Option<PathBuf>,
) -> Result<Found, CliError> {
    // Taken before the bytes: a file that changes meanwhile looks older, not newer.
    let modified = modified(path);
    let state = import::read_parquet(path, expected)?;
    Ok(Found {
        snapshot: Snapshot::from_state(&state)?,
        origin: Origin::Parquet {
            path: path.to_owned(),
            modified,
            orphaned,
        },
        state_path: state_path.map(Path::to_owned),
    })
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|found| found.modified()).ok()
}

fn shared_path(found: &Found) -> Option<PathBuf> {
    match &found.origin {
        Origin::Shared { reader } => Some(reader.path().to_owned()),
        Origin::Parquet { .. } => None,
    }
}

/// The cluster whose snapshot a file is, going by its name.
fn cluster_of(path: &Path) -> Option<ClusterId> {
    let name = path.file_name()?.to_str()?;
    ClusterId::new(name.strip_suffix(".arrow")?).ok()
}
