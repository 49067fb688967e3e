//! Finding a cluster's state: which directory, which Parquet file in it, which snapshot.
//!
//! A *state directory* holds `state_<cluster_id>.parquet` and `state_metadata.json`, which
//! names the Parquet file and, when a daemon serves the directory, the snapshot file. The
//! daemon and every reader without one resolve the same names by the same rules, which live
//! here and nowhere else:
//!
//! - **L1** The file that the metadata names is the state; without such a name, the only
//!   `state_*.parquet` is. Several are never guessed between: [`LocateError::Several`].
//! - **L2** A state file lies directly in its directory. A name with `..`, a symbolic link
//!   that leads out and an absolute path to elsewhere are refused, never followed.
//! - **L3** A copied or moved directory keeps working and reads its own file: of an absolute
//!   path to elsewhere only the file name counts, if this directory has a file of that name.
//! - **L4** Metadata that cannot be read is an error, not an absence.
//!
//! A snapshot path is where a snapshot was, not proof that it is this directory's. **A
//! snapshot stands for a state directory only if its root names that directory**: the caller
//! compares the snapshot's `state_dir()` with [`StateDir::identity`] and reads the Parquet
//! file where they differ. Otherwise a copied directory would show the original's live state.
//!
//! Not promised: that what was found is still there when it is opened. Directories change
//! under us; the opener's error is then the truth.

mod cluster_id;
mod metadata;
mod state_dir;

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

pub use cluster_id::{BadClusterId, ClusterId, MAX_CLUSTER_ID_BYTES};
pub use metadata::{MAX_METADATA_BYTES, METADATA_FILE, Metadata};
pub use state_dir::{StateDir, StateFile};

/// Why a state could not be found. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocateError {
    /// The state directory cannot be entered or listed.
    #[error(
        "cannot open the state directory {path:?}; check that it exists and that this user may read it"
    )]
    Directory {
        /// As it was given.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// What should be a state directory is something else.
    #[error("{path:?} is not a directory; give the directory that holds {METADATA_FILE}")]
    NotADirectory {
        /// As it was given.
        path: PathBuf,
    },
    /// A file in the state directory cannot be looked at.
    #[error("cannot look at {path:?}")]
    Inspect {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The metadata file is there but cannot be read.
    #[error("cannot read the metadata file {path:?}")]
    MetadataRead {
        /// The metadata file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The metadata file is a symbolic link, a folder, or larger than any metadata.
    #[error("the metadata file {path:?} is {what}; replace it by an ordinary file or remove it")]
    MetadataFile {
        /// The metadata file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The metadata file is not JSON. While a writer rewrites it in place this is normal for
    /// a moment.
    #[error(
        "the metadata file {path:?} is not JSON (line {line}, column {column}); repair it, or remove it to go by the state file's name"
    )]
    MetadataJson {
        /// The metadata file.
        path: PathBuf,
        /// Counted from 1; 0 for an empty file.
        line: usize,
        /// Counted from 1; 0 at the start of a line.
        column: usize,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// The metadata is JSON, but not what it should be.
    #[error("the metadata file {path:?}: {place} is {found}, but must be {wanted}")]
    MetadataShape {
        /// The metadata file.
        path: PathBuf,
        /// Which value: a key, or the whole document.
        place: String,
        /// Its JSON type.
        found: &'static str,
        /// The JSON type it must have.
        wanted: &'static str,
    },
    /// The metadata names a state file outside its directory (rule L2).
    #[error(
        "the metadata file {metadata:?} names the state file {named:?}, which {why}; a state file lies in its own state directory: correct `parquet_path`"
    )]
    Outside {
        /// The metadata file.
        metadata: PathBuf,
        /// `parquet_path`, as written.
        named: PathBuf,
        /// What is wrong with it, as the end of a sentence.
        why: &'static str,
    },
    /// A state file of the right name leads out of its directory (rule L2).
    #[error(
        "the state file {path:?} is a symbolic link to {target:?}, outside its directory; put the file itself there"
    )]
    LinkOut {
        /// The link.
        path: PathBuf,
        /// Where it ends.
        target: PathBuf,
    },
    /// The metadata names a state file that is not there.
    #[error(
        "the metadata file {metadata:?} names the state file {path:?}, which does not exist; restore the file, or correct `parquet_path`"
    )]
    Missing {
        /// The metadata file.
        metadata: PathBuf,
        /// The file that should be there.
        path: PathBuf,
    },
    /// A state file's name belongs to a folder, a pipe or the like.
    #[error("the state file {path:?} is not a regular file")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Several state files and nothing that chooses (rule L1).
    #[error(
        "{dir:?} holds several state files: {}; name one by its cluster id",
        list(candidates)
    )]
    Several {
        /// The state directory.
        dir: PathBuf,
        /// File names, sorted.
        candidates: Vec<PathBuf>,
    },
    /// There are state files, but not this cluster's.
    #[error(
        "{dir:?} holds no state of the cluster {wanted}: {}; correct the cluster id or the directory",
        present(named.as_deref(), candidates)
    )]
    NotThisCluster {
        /// The state directory.
        dir: PathBuf,
        /// The cluster that was asked for.
        wanted: ClusterId,
        /// The cluster that the metadata names.
        named: Option<String>,
        /// State files there are, sorted.
        candidates: Vec<PathBuf>,
    },
    /// Neither metadata that names a state file nor any `state_*.parquet`.
    #[error("{dir:?} holds no cluster state (no state_*.parquet)")]
    Nothing {
        /// The state directory.
        dir: PathBuf,
    },
    /// A name that cannot be a cluster's.
    #[error("{place}: not a cluster id")]
    ClusterId {
        /// Where the name stands.
        place: String,
        /// What is wrong with it.
        #[source]
        source: BadClusterId,
    },
}

fn list(candidates: &[PathBuf]) -> String {
    let names: Vec<String> = candidates
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    names.join(", ")
}

fn present(named: Option<&str>, candidates: &[PathBuf]) -> String {
    match (named, candidates.is_empty()) {
        (Some(named), true) => format!("its metadata names the cluster {named:?}"),
        (Some(named), false) => {
            format!(
                "its metadata names the cluster {named:?}, and there is {}",
                list(candidates)
            )
        }
        (None, true) => "it is empty".to_owned(),
        (None, false) => format!("there is {}", list(candidates)),
    }
}

/// What of the surroundings takes part in finding a state directory.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `$SHERWOOD_STATE_DIR`, when set and not empty.
    pub state_dir: Option<PathBuf>,
    /// The home directory.
    pub home: Option<PathBuf>,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_process() -> Self {
        let path = |value: Option<OsString>| value.filter(|v| !v.is_empty()).map(PathBuf::from);
        Self {
            state_dir: path(env::var_os("SHERWOOD_STATE_DIR")),
            home: path(env::var_os("HOME")),
        }
    }

    /// `path` with a leading `~` replaced by the home directory.
    pub fn expand(&self, path: &Path) -> PathBuf {
        match (path.strip_prefix("~"), &self.home) {
            (Ok(rest), Some(home)) if rest.as_os_str().is_empty() => home.clone(),
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path.to_path_buf(),
        }
    }

    /// The directories that are looked at, in order. With a `base_dir`, only it and its two
    /// usual children: a base that was given and misses never falls through to the home.
    pub fn places(&self, base_dir: Option<&Path>) -> Vec<PathBuf> {
        if let Some(base) = base_dir {
            let base = self.expand(base);
            let children = [".ipfs_cluster_state", "cluster_state"].map(|name| base.join(name));
            return std::iter::once(base).chain(children).collect();
        }
        let home = |child: &str| self.home.as_ref().map(|home| home.join(child));
        self.state_dir
            .as_deref()
            .map(|dir| self.expand(dir))
            .into_iter()
            .chain(home(".ipfs/cluster_state"))
            .chain(home(".ipfs_cluster_state"))
            .chain(["/var/lib/ipfs/cluster_state", "/var/lib/sherwood"].map(PathBuf::from))
            .collect()
    }

    /// See [`find_state`].
    pub fn find_state(&self, base_dir: Option<&Path>) -> Option<PathBuf> {
        self.places(base_dir)
            .into_iter()
            .find(|dir| dir.join(METADATA_FILE).is_file())
    }
}

/// The first of the usual places that holds a `state_metadata.json`, or `None`.
///
/// With `base_dir` (a leading `~` is the home directory): it, its `.ipfs_cluster_state`, its
/// `cluster_state`. Without: `$SHERWOOD_STATE_DIR`, `~/.ipfs/cluster_state`,
/// `~/.ipfs_cluster_state`, `/var/lib/ipfs/cluster_state`, `/var/lib/sherwood`. A place that
/// cannot be looked into counts as one without metadata.
pub fn find_state(base_dir: Option<&Path>) -> Option<PathBuf> {
    Surroundings::of_process().find_state(base_dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_that_misses_never_falls_through_to_the_home() {
        let tmp = tempfile::tempdir().unwrap();
        let home = tmp.path().join("home");
        let base = tmp.path().join("base");
        std::fs::create_dir_all(home.join(".ipfs_cluster_state")).unwrap();
        std::fs::create_dir_all(base.join("cluster_state")).unwrap();
        std::fs::write(home.join(".ipfs_cluster_state").join(METADATA_FILE), "{}").unwrap();
        let around = Surroundings {
            state_dir: None,
            home: Some(home.clone()),
        };
        assert_eq!(around.find_state(Some(&base)), None);
        assert_eq!(
            around.find_state(None),
            Some(home.join(".ipfs_cluster_state"))
        );
        assert_eq!(
            around.find_state(Some(Path::new("~"))),
            Some(home.join(".ipfs_cluster_state"))
        );
        std::fs::write(base.join("cluster_state").join(METADATA_FILE), "{}").unwrap();
        assert_eq!(
            around.find_state(Some(&base)),
            Some(base.join("cluster_state"))
        );
    }

    #[test]
    fn the_environment_comes_before_the_home_and_the_home_before_the_system() {
        let around = Surroundings {
            state_dir: Some("~/s".into()),
            home: Some("/h".into()),
        };
        let places = around.places(None);
        let expected = [
            "/h/s",
            "/h/.ipfs/cluster_state",
            "/h/.ipfs_cluster_state",
            "/var/lib/ipfs/cluster_state",
            "/var/lib/sherwood",
        ];
        assert_eq!(places, expected.map(PathBuf::from));
    }
}
