//! `state_metadata.json`, as anyone may have written it.
//!
//! Older writers know `cluster_id`, `version`, `schema`, `updated_at`, `state_path` and
//! `parquet_path`; the daemon adds `snapshot_path` and others. Keys are looked at one by one
//! and only when asked for, so that a file with keys unknown to us stays readable.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use serde_json::{Map, Value};

use super::{ClusterId, LocateError};

/// The metadata file's name in a state directory.
pub const METADATA_FILE: &str = "state_metadata.json";

/// More than any metadata needs. A larger file is refused unread.
pub const MAX_METADATA_BYTES: u64 = 16 << 20;

/// A metadata file's content, its keys in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Metadata {
    path: PathBuf,
    keys: Map<String, Value>,
}

impl Metadata {
    /// Reads the metadata file of the directory `dir`. `None`: there is none.
    pub fn read(dir: &Path) -> Result<Option<Self>, LocateError> {
        let path = dir.join(METADATA_FILE);
        match read_small_file(&path) {
            Ok(Some(bytes)) => Self::parse(path, &bytes).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes `bytes` for the content of the metadata file `path`.
    pub fn parse(path: PathBuf, bytes: &[u8]) -> Result<Self, LocateError> {
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(keys)) => Ok(Self { path, keys }),
            Ok(other) => Err(LocateError::MetadataShape {
                path,
                place: "the document".to_owned(),
                found: json_type(&other),
                wanted: "an object",
            }),
            Err(source) => Err(LocateError::MetadataJson {
                path,
                line: source.line(),
                column: source.column(),
                source,
            }),
        }
    }

    /// The file this was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every key, in the file's order.
    pub fn keys(&self) -> &Map<String, Value> {
        &self.keys
    }

    /// The cluster that the metadata names; null counts as no name.
    pub fn cluster_id(&self) -> Result<Option<ClusterId>, LocateError> {
        let Some(id) = self.string("cluster_id")? else {
            return Ok(None);
        };
        let id = ClusterId::new(id).map_err(|source| LocateError::ClusterId {
            place: format!("{:?}, key `cluster_id`", self.path),
            source,
        })?;
        Ok(Some(id))
    }

    /// The state file, as written: nobody has checked yet where it leads.
    pub fn parquet_path(&self) -> Result<Option<&Path>, LocateError> {
        Ok(self.string("parquet_path")?.map(Path::new))
    }

    /// The snapshot file, absolute (a relative path is taken from the metadata's directory).
    ///
    /// The snapshot stands for this directory only if its root says so: see the module
    /// [`locate`](crate::locate).
    pub fn snapshot_path(&self) -> Result<Option<PathBuf>, LocateError> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        Ok(self.string("snapshot_path")?.map(|named| dir.join(named)))
    }

    fn string(&self, key: &str) -> Result<Option<&str>, LocateError> {
        match self.keys.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(LocateError::MetadataShape {
                path: self.path.clone(),
                place: format!("the value of `{key}`"),
                found: json_type(other),
                wanted: "a string",
            }),
        }
    }
}

/// The content of a regular file that is no symbolic link. `None`: not there.
///
/// Opened without waiting, so that a pipe of that name cannot hold the caller up.
fn read_small_file(path: &Path) -> Result<Option<Vec<u8>>, LocateError> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let unreadable = |source| LocateError::MetadataRead {
        path: path.to_path_buf(),
        source,
    };
    let unfit = |what| LocateError::MetadataFile {
        path: path.to_path_buf(),
        what,
    };
    let opened = File::options()
        .read(true)
        .custom_flags(flags.bits())
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::ELOOP as i32) => {
            return Err(unfit("a symbolic link"));
        }
        Err(error) => return Err(unreadable(error)),
    };
    let found = file.metadata().map_err(unreadable)?;
    if !found.is_file() {
        return Err(unfit("not a regular file"));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that grows meanwhile.
    file.take(MAX_METADATA_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_METADATA_BYTES {
        return Err(unfit("larger than 16 MiB"));
    }
    Ok(Some(bytes))
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"cluster_id": "c", "parquet_path": "state_c.parquet", "n": [1]}"#;

    fn parse(text: &[u8]) -> Result<Metadata, LocateError> {
        Metadata::parse("/s/state_metadata.json".into(), text)
    }

    #[test]
    fn every_cut_of_a_metadata_file_is_an_error_that_names_file_and_place() {
        for cut in 0..GOOD.len() {
            let error = parse(&GOOD.as_bytes()[..cut]).expect_err(&GOOD[..cut]);
            let text = error.to_string();
            assert!(
                matches!(error, LocateError::MetadataJson { .. }),
                "cut at {cut}: {text}"
            );
            assert!(
                text.contains("/s/state_metadata.json") && text.contains("line"),
                "cut at {cut}: {text}"
            );
        }
        assert_eq!(
            parse(GOOD.as_bytes()).unwrap().parquet_path().unwrap(),
            Some(Path::new("state_c.parquet"))
        );
    }

    #[test]
    fn a_value_of_the_wrong_type_names_its_key() {
        for (text, key) in [
            (r#"{"cluster_id": 7}"#, "cluster_id"),
            (r#"{"parquet_path": []}"#, "parquet_path"),
            (r#"{"snapshot_path": true}"#, "snapshot_path"),
            (r#"{"cluster_id": "../x"}"#, "cluster_id"),
        ] {
            let metadata = parse(text.as_bytes()).unwrap();
            let errors: Vec<LocateError> = [
                metadata.cluster_id().err(),
                metadata.parquet_path().err(),
                metadata.snapshot_path().err(),
            ]
            .into_iter()
            .flatten()
            .collect();
            assert_eq!(errors.len(), 1, "{text}");
            assert!(errors[0].to_string().contains(key), "{text}: {}", errors[0]);
        }
        assert!(matches!(
            parse(b"[1]"),
            Err(LocateError::MetadataShape { .. })
        ));
        assert_eq!(
            parse(br#"{"cluster_id": null}"#)
                .unwrap()
                .cluster_id()
                .unwrap(),
            None
        );
    }

    #[test]
    fn a_metadata_file_that_is_a_link_a_pipe_or_a_folder_is_refused_without_waiting() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = |name: &str| {
            let dir = tmp.path().join(name);
            std::fs::create_dir(&dir).unwrap();
            dir
        };
        std::fs::write(tmp.path().join("elsewhere.json"), GOOD).unwrap();
        let link = dir("link");
        std::os::unix::fs::symlink("../elsewhere.json", link.join(METADATA_FILE)).unwrap();
        let pipe = dir("pipe");
        nix::unistd::mkfifo(&pipe.join(METADATA_FILE), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let folder = dir("folder");
        std::fs::create_dir(folder.join(METADATA_FILE)).unwrap();
        for dir in [link, pipe, folder] {
            assert!(
                matches!(Metadata::read(&dir), Err(LocateError::MetadataFile { .. })),
                "{dir:?}"
            );
        }
        assert_eq!(Metadata::read(&dir("none")).unwrap(), None);
    }
}
