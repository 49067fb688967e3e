//! A cluster's id, known to be safe as part of a file name.

use std::fmt;
use std::str::FromStr;

use sherwood_shared::layout::CLUSTER_ID_MAX_BYTES;

/// The longest id, in bytes: what a snapshot's header has room for. With `state_`, `.parquet` and
/// what temporary files add it also stays within the 255 bytes that file systems allow a name.
pub const MAX_CLUSTER_ID_BYTES: usize = CLUSTER_ID_MAX_BYTES;

/// A cluster id that may become `state_<id>.parquet` and `<id>.arrow`: not empty, at most
/// [`MAX_CLUSTER_ID_BYTES`], no `/`, no control character, no leading dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterId(String);

/// Why a string is not a cluster id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadClusterId {
    /// Nothing at all.
    #[error("a cluster id cannot be empty")]
    Empty,
    /// Too long for a file name.
    #[error("a cluster id has at most {MAX_CLUSTER_ID_BYTES} bytes, this one has {bytes}")]
    Long {
        /// Its length.
        bytes: usize,
    },
    /// `.`, `..`, or the name of a hidden file.
    #[error("the cluster id {id:?} begins with a dot")]
    LeadingDot {
        /// The id.
        id: String,
    },
    /// A slash, a NUL or another control character.
    #[error("the cluster id {id:?} contains {found:?}, which cannot be part of a file name")]
    Character {
        /// The id.
        id: String,
        /// The first such character.
        found: char,
    },
}

impl ClusterId {
    /// Checks `id`.
    pub fn new(id: &str) -> Result<Self, BadClusterId> {
        if id.is_empty() {
            return Err(BadClusterId::Empty);
        }
        if id.len() > MAX_CLUSTER_ID_BYTES {
            return Err(BadClusterId::Long { bytes: id.len() });
        }
        if id.starts_with('.') {
            return Err(BadClusterId::LeadingDot { id: id.to_owned() });
        }
        if let Some(found) = id.chars().find(|&c| c == '/' || c.is_control()) {
            return Err(BadClusterId::Character {
                id: id.to_owned(),
                found,
            });
        }
        Ok(Self(id.to_owned()))
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `state_<id>.parquet`.
    pub fn state_file_name(&self) -> String {
        format!("state_{}.parquet", self.0)
    }

    /// `<id>.arrow`.
    pub fn snapshot_file_name(&self) -> String {
        format!("{}.arrow", self.0)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ClusterId {
    type Err = BadClusterId;
    fn from_str(id: &str) -> Result<Self, BadClusterId> {
        Self::new(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ascii_character_but_slash_dot_and_controls_may_begin_an_id() {
        for byte in 0..=127_u8 {
            let id = format!("{}x", char::from(byte));
            let good = !(byte == b'/' || byte == b'.' || byte < 32 || byte == 127);
            assert_eq!(ClusterId::new(&id).is_ok(), good, "id {id:?}");
            let inside = format!("x{}x", char::from(byte));
            let good = good || byte == b'.';
            assert_eq!(ClusterId::new(&inside).is_ok(), good, "id {inside:?}");
        }
    }

    #[test]
    fn names_that_leave_their_directory_are_refused() {
        for id in ["", ".", "..", "../x", "a/b", "/a", "a\0b", ".hidden"] {
            assert!(ClusterId::new(id).is_err(), "id {id:?}");
        }
        assert!(ClusterId::new(&"x".repeat(MAX_CLUSTER_ID_BYTES)).is_ok());
        assert!(ClusterId::new(&"x".repeat(MAX_CLUSTER_ID_BYTES + 1)).is_err());
        assert!(ClusterId::new("wächter-1..2").is_ok());
    }
}
