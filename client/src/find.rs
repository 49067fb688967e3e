//! From what a user names, and this process's environment, to the state that is read.
//!
//! What is named wins over what the environment says: with a run directory alone,
//! `$SHERWOOD_STATE_DIR` is not looked at. A run directory that only the environment names and
//! that has no snapshot does not keep us from the usual places: its daemon may be gone. A socket that is named is written
//! through, and what is read is the snapshot beside it. Within a state directory the rules are those of
//! [`locate`](crate::locate); on top of them:
//!
//! - a live daemon's snapshot that stands for the directory is read;
//! - a dead daemon's is read if the Parquet file is not newer, or not readable: it is what
//!   the daemon last knew;
//! - else the Parquet file is read.
//!
//! This finds a state once. [`Source`](crate::Source) follows it from then on.

mod error;
mod standing;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

pub use self::error::{FindError, FindErrorKind};
pub use self::standing::Daemon;

use crate::error::ReadError;
use crate::import;
use crate::locate::{ClusterId, LocateError, METADATA_FILE, StateDir, StateFile, Surroundings};
use crate::reader::Reader;
use crate::snapshot::Snapshot;
use sherwood_shared::file::OpenError;

/// What a user names; all of it may be left out. Of the files, one at a time.
#[derive(Clone, Debug, Default)]
pub struct Named {
    /// A cluster's id.
    pub cluster_id: Option<String>,
    /// A state directory.
    pub state_dir: Option<PathBuf>,
    /// A run directory.
    pub run_dir: Option<PathBuf>,
    /// A snapshot file, read whatever it stands for.
    pub snapshot: Option<PathBuf>,
    /// A Parquet file, read whether or not a daemon serves it.
    pub parquet: Option<PathBuf>,
    /// A daemon's socket.
    pub socket: Option<PathBuf>,
}

/// Where to look.
#[derive(Clone, Debug)]
pub struct Places {
    cluster: Option<ClusterId>,
    snapshot: Option<PathBuf>,
    parquet: Option<PathBuf>,
    socket: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
    /// By the user, and not only by the environment.
    insists_on_run_dir: bool,
    /// Of several state files that nothing chooses between.
    takes_newest: bool,
    around: Surroundings,
    usual_run_dirs: Vec<PathBuf>,
}

/// A state that was found, as it was at that moment.
#[derive(Clone, Debug)]
pub struct Found {
    /// The state.
    pub snapshot: Snapshot,
    /// Where it came from.
    pub origin: Origin,
    /// The state directory, where known; the file itself where a Parquet file was named.
    pub state_path: Option<PathBuf>,
    /// What else was there and could not be read, or had to be chosen between.
    pub warnings: Arc<[FindError]>,
}

/// Where a state came from.
#[derive(Clone, Debug)]
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
    /// What is named, and for the rest what this process's environment says: `$SHERWOOD_CLUSTER_ID`,
    /// `$SHERWOOD_STATE_DIR`, `$SHERWOOD_RUN_DIR`, `$SHERWOOD_SOCKET`. A leading `~` is the home directory.
    pub fn new(named: &Named) -> Result<Self, FindError> {
        let set = |name| env::var_os(name).filter(|value: &OsString| !value.is_empty());
        let (cluster, place) = match &named.cluster_id {
            Some(id) => (Some(id.clone()), "the cluster's id"),
            None => (
                set("SHERWOOD_CLUSTER_ID").map(|id| id.to_string_lossy().into_owned()),
                "$SHERWOOD_CLUSTER_ID",
            ),
        };
        let cluster = cluster
            .map(|id| ClusterId::new(&id))
            .transpose()
            .map_err(|source| FindError::ClusterId { place, source })?;
        let around = Surroundings::of_process();
        let path = |name| set(name).map(PathBuf::from);
        let says_nothing = named.state_dir.is_none()
            && named.run_dir.is_none()
            && named.snapshot.is_none()
            && named.parquet.is_none();
        let socket = named
            .socket
            .clone()
            .or_else(|| says_nothing.then(|| path("SHERWOOD_SOCKET")).flatten());
        // The environment's directories count only where the user names none that
        // they could contradict.
        let state_dir = named.state_dir.clone().or_else(|| {
            let alone = named.run_dir.is_none();
            alone.then(|| path("SHERWOOD_STATE_DIR")).flatten()
        });
        let run_dir = named.run_dir.clone().or_else(|| path("SHERWOOD_RUN_DIR"));
        let usual_run_dirs = path("XDG_RUNTIME_DIR")
            .map(|dir| dir.join("sherwood"))
            .into_iter()
            .chain(["/run/sherwood", "/dev/shm/sherwood"].map(PathBuf::from))
            .collect();
        let expanded = |path: Option<PathBuf>| path.map(|path| around.expand(&path));
        Ok(Self {
            cluster,
            snapshot: expanded(named.snapshot.clone()),
            parquet: expanded(named.parquet.clone()),
            socket: expanded(socket),
            state_dir: expanded(state_dir),
            run_dir: expanded(run_dir),
            insists_on_run_dir: named.run_dir.is_some(),
            takes_newest: false,
            around,
            usual_run_dirs,
        })
    }

    /// The usual places, and what the environment says of them.
    pub fn from_environment() -> Result<Self, FindError> {
        Self::new(&Named::default())
    }

    /// One path: a snapshot file (`.arrow`), a Parquet file (`.parquet`, or any other file), a daemon's socket (`.sock`),
    /// or a state directory. What is not there is told apart by its name alone.
    pub fn at(path: impl AsRef<Path>) -> Result<Self, FindError> {
        let path = path.as_ref().to_owned();
        let extension = path.extension().and_then(|extension| extension.to_str());
        let mut named = Named::default();
        let place = match extension {
            Some("arrow") => &mut named.snapshot,
            Some("parquet") => &mut named.parquet,
            Some("sock") => &mut named.socket,
            _ if path.is_file() => &mut named.parquet,
            _ => &mut named.state_dir,
        };
        *place = Some(path);
        Self::new(&named)
    }

    /// What a user gave who may name a path or a cluster: a path if it has a `/` or a `~`, or if it is there, else a cluster's id.
    pub fn path_or_cluster(text: &str) -> Result<Self, FindError> {
        let is_path = text.contains(['/', '~']) || Path::new(text).exists();
        if is_path || ClusterId::new(text).is_err() {
            return Self::at(text);
        }
        Self::new(&Named {
            cluster_id: Some(text.to_owned()),
            ..Named::default()
        })
    }

    /// Of several state files that nothing chooses between the newest is taken, with a warning, as the document's
    /// helpers do. Otherwise that is an error.
    #[must_use]
    pub fn or_newest(mut self) -> Self {
        self.takes_newest = true;
        self
    }

    /// The socket, if it was named.
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// Only what `found` came from.
    pub(crate) fn narrowed_to(mut self, found: &Found) -> Self {
        match (&found.state_path, &found.origin) {
            (Some(_), _) if self.parquet.is_some() => {}
            (Some(dir), _) => self.state_dir = Some(dir.clone()),
            (None, Origin::Shared { reader }) => self.snapshot = Some(reader.path().to_owned()),
            (None, Origin::Parquet { .. }) => {}
        }
        self
    }

    /// What decides which state is found, besides a daemon's being alive: when none of these files changes, neither does
    /// what [`find`](Self::find) finds. `None`: not known beforehand.
    pub(crate) fn deciding(&self) -> Option<Vec<PathBuf>> {
        if self.snapshot.is_some() || self.socket.is_some() {
            return None;
        }
        if let Some(file) = &self.parquet {
            return Some(vec![file.clone()]);
        }
        let dir = StateDir::open(self.state_dir.as_ref()?).ok()?;
        let mut warnings = Vec::new();
        let file = self.state_file(&dir, &mut warnings).ok();
        let named = dir.snapshot_path().ok()?;
        let mut paths = self
            .candidates(&dir, file.as_ref(), named.as_deref())
            .ok()?;
        paths.push(dir.path().to_owned());
        paths.push(dir.path().join(METADATA_FILE));
        paths.extend(file.map(|file| file.path));
        Some(paths)
    }

    /// Finds the state and reads it.
    pub fn find(&self) -> Result<Found, FindError> {
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
                    return Err(FindError::NoSnapshot { dir: dir.clone() });
                }
                None => {}
            }
        }
        self.in_usual_places()
    }

    /// The state directory, for work that needs no readable state in it.
    pub fn state_dir(&self) -> Result<StateDir, FindError> {
        let usual = || self.around.find_state(None);
        match self.state_dir.clone().or_else(usual) {
            Some(dir) => Ok(StateDir::open(dir)?),
            None => Err(FindError::Nowhere {
                cluster: self.cluster.as_ref().map(ClusterId::to_string),
                looked: self.around.places(None),
            }),
        }
    }

    fn in_usual_places(&self) -> Result<Found, FindError> {
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
        Err(FindError::Nowhere {
            cluster: self.cluster.as_ref().map(ToString::to_string),
            looked,
        })
    }

    /// The only snapshot in these run directories, or this cluster's. `None`: there is none.
    fn in_run_dirs(&self, dirs: &[PathBuf], must_exist: bool) -> Result<Option<Found>, FindError> {
        let mut candidates = Vec::new();
        for dir in dirs {
            candidates.extend(self.snapshots_in(dir, must_exist)?);
        }
        match candidates.as_slice() {
            [] => Ok(None),
            [only] => self.shared(only).map(Some),
            _ if self.cluster.is_some() => self.shared(&candidates[0]).map(Some),
            _ => Err(FindError::SeveralSnapshots { candidates }),
        }
    }

    fn snapshots_in(&self, dir: &Path, must_exist: bool) -> Result<Vec<PathBuf>, FindError> {
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
                return Err(FindError::RunDir { dir, source });
            }
        };
        paths.retain(|path| cluster_of(path).is_some());
        paths.sort();
        Ok(paths)
    }

    /// The snapshot file at `path`, whatever it stands for.
    fn shared(&self, path: &Path) -> Result<Found, FindError> {
        let reader = Reader::open(path)?;
        let snapshot = reader.snapshot()?;
        if let Some(wanted) = &self.cluster {
            let found = snapshot.cluster_id()?;
            if found != wanted.as_str() {
                return Err(FindError::WrongCluster {
                    path: path.to_owned(),
                    found,
                    wanted: wanted.to_string(),
                });
            }
        }
        Ok(Found {
            snapshot,
            origin: Origin::Shared { reader },
            state_path: None,
            warnings: Arc::default(),
        })
    }

    fn in_state_dir(&self, dir: &StateDir) -> Result<Found, FindError> {
        let mut warnings = Vec::new();
        let file = self.state_file(dir, &mut warnings);
        let named = dir.snapshot_path()?;
        let mut dead: Option<Found> = None;
        let mut gone = None;
        for path in self.candidates(dir, file.as_ref().ok(), named.as_deref())? {
            match self.stands_for(&path, dir) {
                Ok(Some(found)) => match &found.origin {
                    Origin::Shared { reader } if reader.liveness()?.alive => {
                        return Ok(found.with(warnings));
                    }
                    _ => dead = dead.or(Some(found)),
                },
                Ok(None) => {}
                Err(FindError::Read(ReadError::Open(OpenError::Missing { path }))) => {
                    if Some(&path) == named.as_ref() {
                        gone = Some(path);
                    }
                }
                Err(error) => warnings.push(error),
            }
        }
        let expected = |file: &StateFile| {
            let expected = file.expected_cluster.as_ref();
            expected.map(|id| id.as_str().to_owned())
        };
        let orphaned = dead.as_ref().and_then(shared_path).or(gone);
        let state_path = Some(dir.path());
        let read = |file: &StateFile| {
            parquet(
                &file.path,
                expected(file).as_deref(),
                state_path,
                orphaned.clone(),
            )
        };
        let found = match (dead, file) {
            (Some(dead), Ok(file)) => {
                if modified(&file.path) <= dead.snapshot.published_at() {
                    return Ok(dead.with(warnings));
                }
                match read(&file) {
                    Ok(found) => found,
                    Err(error) => {
                        warnings.push(error);
                        dead
                    }
                }
            }
            (Some(dead), Err(_)) => dead,
            (None, Ok(file)) => read(&file)?,
            (None, Err(error)) => return Err(error.into()),
        };
        Ok(found.with(warnings))
    }

    /// The directory's state file.
    fn state_file(
        &self,
        dir: &StateDir,
        warnings: &mut Vec<FindError>,
    ) -> Result<StateFile, LocateError> {
        let several = match dir.state_file(self.cluster.as_ref()) {
            Err(error @ LocateError::Several { .. }) if self.takes_newest => error,
            other => return other,
        };
        let (file, _) = dir.newest_state_file()?;
        warnings.push(several.into());
        Ok(file)
    }

    /// Where this directory's snapshot may be, likeliest first.
    fn candidates(
        &self,
        dir: &StateDir,
        file: Option<&StateFile>,
        named: Option<&Path>,
    ) -> Result<Vec<PathBuf>, FindError> {
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
    fn stands_for(&self, path: &Path, dir: &StateDir) -> Result<Option<Found>, FindError> {
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
            warnings: Arc::default(),
        }))
    }
}

impl Found {
    fn with(mut self, warnings: Vec<FindError>) -> Self {
        if !warnings.is_empty() {
            self.warnings = warnings.into();
        }
        self
    }
}

fn parquet(
    path: &Path,
    expected: Option<&str>,
    state_path: Option<&Path>,
    orphaned: Option<PathBuf>,
) -> Result<Found, FindError> {
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
        warnings: Arc::default(),
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
