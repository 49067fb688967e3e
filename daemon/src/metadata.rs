//! Keeping `state_metadata.json` true, beside others who write it too.
//!
//! Older programs read and rewrite this file; readers of ours find the snapshot through it.
//! So every key that somebody else wrote stays, the keys that older readers know are kept up
//! to date, and ours are added. The file is replaced atomically and durably, and only when a
//! fact in it differs: our own write is not a reason for another.
//!
//! When a foreign writer rewrites the file without our keys, they are put back, at most once per
//! [`MIN_INTERVAL`]: two programs that both insist do not make a loop. Metadata that is not
//! JSON is somebody's half-written file or somebody's damage; it is left alone.
//!
//! Not promised: that a foreign writer's change between our read and our rename survives. The
//! file is looked at again just before the rename, which leaves microseconds; there is no lock
//! that older programs would respect.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use sherwood_client::locate::{LocateError, METADATA_FILE, Metadata};

use sherwood_store::durable;

/// The least time between two rewrites.
pub const MIN_INTERVAL: Duration = Duration::from_millis(250);

/// What `schema` says where nobody else has said it: the document's columns.
const SCHEMA_TEXT: &str = "cluster_id: string, master_id: string, updated_at: timestamp[ms], \
     nodes: list<struct>, tasks: list<struct>, content: list<struct>";

/// What the metadata should say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The cluster.
    pub cluster_id: String,
    /// The state directory.
    pub state_path: PathBuf,
    /// The state file; `None` for a cluster that has none yet.
    pub parquet_path: Option<PathBuf>,
    /// The snapshot file.
    pub snapshot_path: PathBuf,
    /// Of the published snapshot.
    pub generation: u64,
    /// 32 hexadecimal digits.
    pub history: String,
    /// Of the state's schema.
    pub schema_version: u32,
    /// Rows of nodes, tasks and content.
    pub rows: [usize; 3],
    /// The daemon, as it sees itself.
    pub daemon_pid: u32,
}

/// Why the metadata is not up to date. The old file is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// The file that is there cannot be read; it is left alone.
    #[error("the metadata is not updated")]
    Unreadable(#[source] LocateError),
    /// The new file could not be written.
    #[error(
        "cannot write the metadata file {path:?}; readers that look there do not find the snapshot"
    )]
    Write {
        /// The metadata file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Another program rewrites the file all the time.
    #[error("the metadata file {path:?} changes while it is being rewritten; trying again later")]
    Busy {
        /// The metadata file.
        path: PathBuf,
    },
}

/// Writes the metadata of one state directory.
#[derive(Debug)]
pub struct MetadataKeeper {
    dir: PathBuf,
    last_write: Option<Instant>,
}

impl MetadataKeeper {
    /// Nothing is written yet.
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_path_buf(),
            last_write: None,
        }
    }

    /// Makes the file say `facts`, if it does not yet. `Some`: not now, but at that time.
    pub fn tend(&mut self, facts: &Facts, now: Instant) -> Result<Option<Instant>, MetadataError> {
        for _ in 0..3 {
            let before = self.read()?;
            let Some(keys) = merged(before.as_ref().map(Metadata::keys), facts, unix_seconds())
            else {
                return Ok(None);
            };
            if let Some(due) = self.last_write.map(|at| at + MIN_INTERVAL)
                && now < due
            {
                return Ok(Some(due));
            }
            let failed = |source| MetadataError::Write {
                path: self.dir.join(METADATA_FILE),
                source,
            };
            let mut text = serde_json::to_vec_pretty(&keys)
                .map_err(io::Error::other)
                .map_err(failed)?;
            text.push(b'\n');
            if self.read()? != before {
                continue;
            }
            durable::replace(&self.dir, METADATA_FILE, &text).map_err(failed)?;
            self.last_write = Some(now);
            return Ok(None);
        }
        Err(MetadataError::Busy {
            path: self.dir.join(METADATA_FILE),
        })
    }

    fn read(&self) -> Result<Option<Metadata>, MetadataError> {
        Metadata::read(&self.dir).map_err(MetadataError::Unreadable)
    }
}

/// The keys with `facts` in them; `None` if they say so already.
fn merged(
    before: Option<&Map<String, Value>>,
    facts: &Facts,
    updated_at: f64,
) -> Option<Map<String, Value>> {
    let mut keys = before.cloned().unwrap_or_default();
    let [nodes, tasks, content] = facts.rows;
    let mut set = |key: &str, value: Value| {
        keys.insert(key.to_owned(), value);
    };
    set("cluster_id", json!(facts.cluster_id));
    set("state_path", path(&facts.state_path));
    if let Some(parquet) = &facts.parquet_path {
        set("parquet_path", path(parquet));
    }
    set("node_count", json!(nodes));
    set("task_count", json!(tasks));
    set("content_count", json!(content));
    set("snapshot_path", path(&facts.snapshot_path));
    set("generation", json!(facts.generation));
    set("history", json!(facts.history));
    set("schema_version", json!(facts.schema_version));
    set("daemon_pid", json!(facts.daemon_pid));
    // Whoever wrote these knows what they mean there.
    keys.entry("version").or_insert_with(|| json!(1));
    keys.entry("schema").or_insert_with(|| json!(SCHEMA_TEXT));
    let has_time = keys.get("updated_at").is_some_and(Value::is_number);
    if before == Some(&keys) && has_time {
        return None;
    }
    keys.insert("updated_at".to_owned(), json!(updated_at));
    Some(keys)
}

/// JSON has no other text than UTF-8: a path that is not becomes one that does not resolve.
fn path(path: &Path) -> Value {
    json!(path.to_string_lossy())
}

fn unix_seconds() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |time| time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn facts() -> Facts {
        Facts {
            cluster_id: "c".into(),
            state_path: "/s".into(),
            parquet_path: Some("/s/state_c.parquet".into()),
            snapshot_path: "/r/c.arrow".into(),
            generation: 7,
            history: "00".repeat(16),
            schema_version: 1,
            rows: [1, 2, 3],
            daemon_pid: 42,
        }
    }

    fn read(dir: &Path) -> Map<String, Value> {
        Metadata::read(dir).unwrap().unwrap().keys().clone()
    }

    #[test]
    fn foreign_keys_stay_and_in_their_order_and_ours_are_set() {
        let tmp = tempfile::tempdir().unwrap();
        let foreign = r#"{"zebra": [1, null], "version": "0.3", "schema": "theirs", "updated_at": 5.25, "cluster_id": "old", "alpha": {"b": 1}}"#;
        fs::write(tmp.path().join(METADATA_FILE), foreign).unwrap();
        let mut keeper = MetadataKeeper::new(tmp.path());
        assert_eq!(keeper.tend(&facts(), Instant::now()).unwrap(), None);
        let keys = read(tmp.path());
        let order: Vec<&str> = keys.keys().map(String::as_str).take(6).collect();
        assert_eq!(
            order,
            [
                "zebra",
                "version",
                "schema",
                "updated_at",
                "cluster_id",
                "alpha"
            ]
        );
        assert_eq!(keys["zebra"], json!([1, null]));
        assert_eq!(keys["version"], "0.3");
        assert_eq!(keys["schema"], "theirs");
        assert_eq!(keys["cluster_id"], "c");
        assert_eq!(keys["parquet_path"], "/s/state_c.parquet");
        assert_eq!(keys["snapshot_path"], "/r/c.arrow");
        assert_eq!(
            (&keys["generation"], &keys["task_count"]),
            (&json!(7), &json!(2))
        );
        assert!(keys["updated_at"].as_f64().unwrap() > 1e9);
    }

    #[test]
    fn a_file_that_says_it_all_is_not_written_again() {
        let tmp = tempfile::tempdir().unwrap();
        let mut keeper = MetadataKeeper::new(tmp.path());
        keeper.tend(&facts(), Instant::now()).unwrap();
        let first = fs::read(tmp.path().join(METADATA_FILE)).unwrap();
        let mut another = MetadataKeeper::new(tmp.path());
        another.tend(&facts(), Instant::now()).unwrap();
        assert!(another.last_write.is_none());
        assert_eq!(fs::read(tmp.path().join(METADATA_FILE)).unwrap(), first);
    }

    #[test]
    fn a_writer_that_insists_is_answered_at_most_once_per_interval() {
        let tmp = tempfile::tempdir().unwrap();
        let mut keeper = MetadataKeeper::new(tmp.path());
        let start = Instant::now();
        let mut writes = 0;
        for ms in 0..2000 {
            fs::write(tmp.path().join(METADATA_FILE), "{}").unwrap();
            let now = start + Duration::from_millis(ms);
            match keeper.tend(&facts(), now).unwrap() {
                None => writes += 1,
                Some(due) => assert!(due > now && due <= now + MIN_INTERVAL, "at {ms} ms"),
            }
        }
        assert_eq!(writes, 8);
    }

    #[test]
    fn metadata_that_is_not_json_is_left_alone() {
        let tmp = tempfile::tempdir().unwrap();
        fs::write(tmp.path().join(METADATA_FILE), "{\"half").unwrap();
        let result = MetadataKeeper::new(tmp.path()).tend(&facts(), Instant::now());
        assert!(matches!(result, Err(MetadataError::Unreadable(_))));
        assert_eq!(
            fs::read(tmp.path().join(METADATA_FILE)).unwrap(),
            b"{\"half"
        );
    }

    #[test]
    fn an_empty_cluster_names_no_state_file() {
        let tmp = tempfile::tempdir().unwrap();
        let facts = Facts {
            parquet_path: None,
            ..facts()
        };
        MetadataKeeper::new(tmp.path())
            .tend(&facts, Instant::now())
            .unwrap();
        assert!(!read(tmp.path()).contains_key("parquet_path"));
    }
}
