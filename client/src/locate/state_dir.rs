//! A state directory and the rules by which its state file is found (L1 to L3).

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use super::{ClusterId, LocateError, METADATA_FILE, Metadata};

/// An existing state directory, by its real path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// The state file of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateFile {
    /// Directly in the directory, no symbolic link (one that leads to a neighbour is resolved).
    pub path: PathBuf,
    /// The cluster that was asked for, or that the metadata names: what the file must say.
    /// `None`: whatever the file says.
    pub expected_cluster: Option<ClusterId>,
    /// The id in the file's name, where it is `state_<id>.parquet`: only a hint.
    pub cluster_in_name: Option<ClusterId>,
}

impl StateDir {
    /// Opens the directory `path`. Nothing in it is read yet.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LocateError> {
        let given = path.as_ref();
        let unopened = |source| LocateError::Directory {
            path: given.to_path_buf(),
            source,
        };
        let path = given.canonicalize().map_err(unopened)?;
        let found = path.metadata().map_err(unopened)?;
        if !found.is_dir() {
            return Err(LocateError::NotADirectory {
                path: given.to_path_buf(),
            });
        }
        Ok(Self {
            path,
            device: found.dev(),
            inode: found.ino(),
        })
    }

    /// The directory, absolute and without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Device and inode: what a snapshot's root must name to stand for this directory.
    pub fn identity(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// The metadata. `None`: the directory has none.
    pub fn metadata(&self) -> Result<Option<Metadata>, LocateError> {
        Metadata::read(&self.path)
    }

    /// The snapshot file that the metadata names. It stands for this directory only if its
    /// root names [`identity`](Self::identity): the caller checks, or reads another's state.
    pub fn snapshot_path(&self) -> Result<Option<PathBuf>, LocateError> {
        match self.metadata()? {
            Some(metadata) => metadata.snapshot_path(),
            None => Ok(None),
        }
    }

    /// The names of all `state_*.parquet`, sorted.
    pub fn candidates(&self) -> Result<Vec<PathBuf>, LocateError> {
        let mut names = self.names()?;
        names.retain(|name| id_part(name.as_os_str()).is_some());
        Ok(names)
    }

    /// What speaks against taking this directory for one that never held a state: any
    /// `state_*` but the metadata, and any name with `.parquet` in it.
    pub fn leftovers(&self) -> Result<Vec<PathBuf>, LocateError> {
        let mut names = self.names()?;
        names.retain(|name| {
            let bytes = name.as_os_str().as_bytes();
            name.as_os_str() != METADATA_FILE
                && (bytes.starts_with(b"state_")
                    || bytes.windows(8).any(|part| part == b".parquet"))
        });
        Ok(names)
    }

    /// The state file (rules L1 to L3), of the cluster `wanted` where one is named.
    ///
    /// Fails with [`LocateError::Nothing`] only where there is neither a state file nor
    /// metadata that names one.
    pub fn state_file(&self, wanted: Option<&ClusterId>) -> Result<StateFile, LocateError> {
        let metadata = self.metadata()?;
        let named = match &metadata {
            Some(metadata) => metadata.cluster_id()?,
            None => None,
        };
        // Metadata that speaks of another cluster says nothing about this one's file.
        let speaks_of_wanted = match (wanted, &named) {
            (Some(wanted), Some(named)) => wanted == named,
            _ => true,
        };
        let expected = wanted.or(named.as_ref());
        if let Some(metadata) = metadata.as_ref().filter(|_| speaks_of_wanted)
            && let Some(path) = metadata.parquet_path()?
        {
            return self.named_file(metadata, path, expected);
        }
        let candidates = self.candidates()?;
        let by_id = expected
            .map(ClusterId::state_file_name)
            .filter(|name| candidates.iter().any(|c| c.as_os_str() == name.as_str()));
        if let Some(name) = by_id {
            return self.file(OsStr::new(&name), expected);
        }
        match (wanted, candidates.as_slice()) {
            (None, [only]) => self.file(only.as_os_str(), expected),
            (None, []) => Err(self.nothing()),
            (None, _) => Err(LocateError::Several {
                dir: self.path.clone(),
                candidates,
            }),
            (Some(_), []) if speaks_of_wanted => Err(self.nothing()),
            (Some(wanted), _) => Err(LocateError::NotThisCluster {
                dir: self.path.clone(),
                wanted: wanted.clone(),
                named: named.map(|id| id.to_string()),
                candidates,
            }),
        }
    }

    /// Like [`state_file`](Self::state_file), but takes the newest of several candidates, as
    /// the older helpers do. The second value counts the candidates that were there to choose from: warn
    /// when it is above 1.
    pub fn newest_state_file(&self) -> Result<(StateFile, usize), LocateError> {
        match self.state_file(None) {
            Err(LocateError::Several { dir, candidates }) => {
                let mut newest: Option<(SystemTime, &PathBuf)> = None;
                for name in &candidates {
                    let path = dir.join(name);
                    let modified = fs::metadata(&path)
                        .and_then(|found| found.modified())
                        .map_err(|source| LocateError::Inspect { path, source })?;
                    if newest.is_none_or(|(time, _)| time <= modified) {
                        newest = Some((modified, name));
                    }
                }
                let (_, name) = newest.ok_or_else(|| self.nothing())?;
                Ok((self.file(name.as_os_str(), None)?, candidates.len()))
            }
            other => other.map(|file| (file, 1)),
        }
    }

    /// The file that `metadata` names as `named`.
    fn named_file(
        &self,
        metadata: &Metadata,
        named: &Path,
        expected: Option<&ClusterId>,
    ) -> Result<StateFile, LocateError> {
        let outside = |why| LocateError::Outside {
            metadata: metadata.path().to_path_buf(),
            named: named.to_path_buf(),
            why,
        };
        if named.components().any(|part| part == Component::ParentDir) {
            return Err(outside("contains `..`"));
        }
        let Some(name) = named.file_name() else {
            return Err(outside("names no file"));
        };
        let parent = self.path.join(named.parent().unwrap_or(Path::new("")));
        let is_here =
            fs::metadata(&parent).is_ok_and(|found| (found.dev(), found.ino()) == self.identity());
        // L3: the directory was copied or moved, or the writer's path was relative to where
        // it ran. The name counts, the rest never does.
        let is_known_here = || self.path.join(name).symlink_metadata().is_ok();
        if !is_here && !is_known_here() {
            return Err(outside("lies elsewhere"));
        }
        match self.file(name, expected) {
            Err(LocateError::Inspect { path, source })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Err(LocateError::Missing {
                    metadata: metadata.path().to_path_buf(),
                    path,
                })
            }
            other => other,
        }
    }

    /// The regular file `name` of this directory (rule L2).
    fn file(&self, name: &OsStr, expected: Option<&ClusterId>) -> Result<StateFile, LocateError> {
        let path = self.path.join(name);
        let unseen = |source| LocateError::Inspect {
            path: path.clone(),
            source,
        };
        let real = path.canonicalize().map_err(unseen)?;
        let lies_here = real
            .parent()
            .and_then(|parent| fs::metadata(parent).ok())
            .is_some_and(|found| (found.dev(), found.ino()) == self.identity());
        if !lies_here {
            return Err(LocateError::LinkOut { path, target: real });
        }
        if !fs::metadata(&real).map_err(unseen)?.is_file() {
            return Err(LocateError::NotAFile { path });
        }
        Ok(StateFile {
            path: real,
            expected_cluster: expected.cloned(),
            cluster_in_name: id_part(name).and_then(|id| ClusterId::new(id.to_str()?).ok()),
        })
    }

    fn names(&self) -> Result<Vec<PathBuf>, LocateError> {
        let list = || -> io::Result<Vec<PathBuf>> {
            fs::read_dir(&self.path)?
                .map(|entry| entry.map(|entry| PathBuf::from(entry.file_name())))
                .collect()
        };
        let mut names = list().map_err(|source| LocateError::Directory {
            path: self.path.clone(),
            source,
        })?;
        names.sort();
        Ok(names)
    }

    fn nothing(&self) -> LocateError {
        LocateError::Nothing {
            dir: self.path.clone(),
        }
    }
}

/// The `<id>` of `state_<id>.parquet`.
fn id_part(name: &OsStr) -> Option<&OsStr> {
    let bytes = name
        .as_bytes()
        .strip_prefix(b"state_")?
        .strip_suffix(b".parquet")?;
    (!bytes.is_empty()).then(|| OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Case {
        tmp: tempfile::TempDir,
    }

    impl Case {
        /// `here` with these (empty) files, beside `elsewhere/state_far.parquet`.
        fn with(files: &[&str]) -> Self {
            let case = Self {
                tmp: tempfile::tempdir().unwrap(),
            };
            fs::create_dir(case.here()).unwrap();
            fs::create_dir(case.elsewhere()).unwrap();
            fs::write(case.elsewhere().join("state_far.parquet"), "").unwrap();
            for name in files {
                fs::write(case.here().join(name), "").unwrap();
            }
            case
        }
        fn here(&self) -> PathBuf {
            self.tmp.path().join("here")
        }
        fn elsewhere(&self) -> PathBuf {
            self.tmp.path().join("elsewhere")
        }
        fn metadata(self, keys: serde_json::Value) -> Self {
            fs::write(self.here().join(METADATA_FILE), keys.to_string()).unwrap();
            self
        }
        /// The name of the state file found, or the error's variant and text.
        fn find(&self, wanted: Option<&str>) -> Result<String, LocateError> {
            let wanted = wanted.map(|id| ClusterId::new(id).unwrap());
            let dir = StateDir::open(self.here()).unwrap();
            let file = dir.state_file(wanted.as_ref())?;
            assert_eq!(file.path.parent(), Some(dir.path()), "rule L2");
            Ok(file
                .path
                .file_name()
                .unwrap()
                .to_string_lossy()
                .into_owned())
        }
    }

    macro_rules! assert_error {
        ($result:expr, $variant:ident) => {
            match $result {
                Err(LocateError::$variant { .. }) => {}
                other => panic!("wanted {}, got {other:?}", stringify!($variant)),
            }
        };
    }

    #[test]
    fn without_metadata_the_only_state_file_is_the_state_and_several_are_listed() {
        assert_error!(Case::with(&[]).find(None), Nothing);
        assert_error!(
            Case::with(&["state_.parquet", "x.parquet"]).find(None),
            Nothing
        );
        let one = Case::with(&["state_a.parquet", "state_a.parquet.tmp"]);
        assert_eq!(one.find(None).unwrap(), "state_a.parquet");
        assert_eq!(one.find(Some("a")).unwrap(), "state_a.parquet");
        assert_error!(one.find(Some("b")), NotThisCluster);
        let two = Case::with(&["state_b.parquet", "state_a.parquet"]);
        let error = two.find(None).unwrap_err().to_string();
        assert!(
            error.contains("state_a.parquet, state_b.parquet"),
            "{error}"
        );
        assert_eq!(two.find(Some("b")).unwrap(), "state_b.parquet");
    }

    #[test]
    fn the_metadata_chooses_between_several() {
        let files = ["state_a.parquet", "state_b.parquet", "odd.parquet"];
        for (keys, expected) in [
            (
                serde_json::json!({"parquet_path": "odd.parquet"}),
                "odd.parquet",
            ),
            (
                serde_json::json!({"parquet_path": "./state_b.parquet"}),
                "state_b.parquet",
            ),
            (serde_json::json!({"cluster_id": "b"}), "state_b.parquet"),
        ] {
            let case = Case::with(&files).metadata(keys.clone());
            assert_eq!(case.find(None).unwrap(), expected, "{keys}");
        }
        // It speaks of another cluster than the one asked for.
        let keys = serde_json::json!({"cluster_id": "b", "parquet_path": "state_b.parquet"});
        let case = Case::with(&files).metadata(keys.clone());
        assert_eq!(case.find(Some("a")).unwrap(), "state_a.parquet");
        assert_error!(case.find(Some("c")), NotThisCluster);
        assert_error!(
            Case::with(&[]).metadata(keys).find(Some("c")),
            NotThisCluster
        );
    }

    #[test]
    fn a_parquet_path_that_leads_outside_is_refused() {
        let far = |case: &Case| case.elsewhere().join("state_far.parquet");
        let absolute = Case::with(&["state_a.parquet"]);
        let keys = serde_json::json!({"parquet_path": far(&absolute)});
        assert_error!(absolute.metadata(keys).find(None), Outside);
        for path in [
            "../elsewhere/state_far.parquet",
            "../here/state_a.parquet",
            "/proc/../etc/passwd",
            "..",
            "/",
            "",
            "sub/state_far.parquet",
        ] {
            let case = Case::with(&["state_a.parquet"])
                .metadata(serde_json::json!({"parquet_path": path}));
            match case.find(None) {
                Err(LocateError::Outside { named, .. }) => assert_eq!(named, Path::new(path)),
                other => panic!("{path}: {other:?}"),
            }
        }
        let case = Case::with(&[]);
        symlink(
            "../elsewhere/state_far.parquet",
            case.here().join("state_l.parquet"),
        )
        .unwrap();
        assert_error!(case.find(None), LinkOut);
        assert_error!(case.find(Some("l")), LinkOut);
        let keys = serde_json::json!({"parquet_path": "state_l.parquet"});
        assert_error!(case.metadata(keys).find(None), LinkOut);
    }

    #[test]
    fn a_link_to_a_neighbour_is_resolved() {
        let case = Case::with(&["v1.parquet"]);
        symlink("v1.parquet", case.here().join("state_a.parquet")).unwrap();
        assert_eq!(case.find(None).unwrap(), "v1.parquet");
    }

    /// Rule L3. The original still exists and must not be read.
    #[test]
    fn a_copied_directory_reads_its_own_file() {
        let case = Case::with(&["state_far.parquet"]);
        let keys = serde_json::json!({"parquet_path": case.elsewhere().join("state_far.parquet")});
        assert_eq!(case.metadata(keys).find(None).unwrap(), "state_far.parquet");
        let case = Case::with(&["state_a.parquet"])
            .metadata(serde_json::json!({"parquet_path": "/gone/long/ago/state_a.parquet"}));
        assert_eq!(case.find(None).unwrap(), "state_a.parquet");
    }

    #[test]
    fn a_named_file_that_is_missing_or_no_file_is_told_from_an_empty_directory() {
        let case = Case::with(&["state_b.parquet"])
            .metadata(serde_json::json!({"parquet_path": "state_a.parquet"}));
        assert_error!(case.find(None), Missing);
        fs::create_dir(case.here().join("state_a.parquet")).unwrap();
        assert_error!(case.find(None), NotAFile);
        let broken = Case::with(&["state_a.parquet"]);
        fs::write(broken.here().join(METADATA_FILE), "{").unwrap();
        assert_error!(broken.find(None), MetadataJson);
    }

    #[test]
    fn a_directory_is_vacant_only_without_anything_that_looks_like_a_state() {
        let dir = |case: &Case| StateDir::open(case.here()).unwrap().leftovers().unwrap();
        assert!(dir(&Case::with(&["sherwood.lock", METADATA_FILE, "README"])).is_empty());
        for name in [
            "state_a",
            "state_a.parquet.tmp",
            "old.parquet.bak",
            "x.parquet",
        ] {
            assert_eq!(dir(&Case::with(&[name])), [PathBuf::from(name)]);
        }
    }

    #[test]
    fn the_newest_of_several_is_taken_where_a_guess_is_allowed() {
        let case = Case::with(&["state_a.parquet", "state_b.parquet", "state_c.parquet"]);
        let newest = fs::File::options()
            .write(true)
            .open(case.here().join("state_b.parquet"))
            .unwrap();
        newest
            .set_modified(SystemTime::now() + std::time::Duration::from_secs(60))
            .unwrap();
        let (file, of) = StateDir::open(case.here())
            .unwrap()
            .newest_state_file()
            .unwrap();
        assert_eq!(
            (file.path.file_name().unwrap().to_str(), of),
            (Some("state_b.parquet"), 3)
        );
    }

    #[test]
    fn a_missing_directory_and_a_file_in_its_place_are_named() {
        let case = Case::with(&["f"]);
        assert_error!(StateDir::open(case.here().join("gone")), Directory);
        assert_error!(StateDir::open(case.here().join("f")), NotADirectory);
    }
}
