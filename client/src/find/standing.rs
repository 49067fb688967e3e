//! How old a state is, and whether somebody keeps it up to date.
//!
//! *Age* counts from the last publish, or from the Parquet file's modification: a quiet
//! cluster grows old. *Stale* is a state that a daemon served which is dead, or shows no sign
//! of life while we look: nobody would tell if it had changed.

use std::time::{Duration, SystemTime};

use super::{Found, Origin};
use crate::error::ReadError;
use crate::reader::Liveness;

/// What is with the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// None serves this state, as far as anyone knows: the Parquet file is all there is.
    None,
    /// One did, and is gone.
    Dead,
    /// One is there and shows no sign of life.
    Silent {
        /// Its process.
        pid: u32,
    },
    /// One keeps the state up to date.
    Alive {
        /// Its process.
        pid: u32,
    },
}

impl Daemon {
    /// Could the state have changed without our knowing?
    #[must_use]
    pub fn is_stale(self) -> bool {
        matches!(self, Self::Dead | Self::Silent { .. })
    }

    /// Its pid, if it still has one.
    #[must_use]
    pub fn pid(self) -> Option<u32> {
        match self {
            Self::Alive { pid } | Self::Silent { pid } => Some(pid),
            Self::None | Self::Dead => None,
        }
    }

    /// As the end of a sentence.
    #[must_use]
    pub fn describe(self) -> String {
        match self {
            Self::None => "no daemon serves it".to_owned(),
            Self::Dead => "its daemon is not running".to_owned(),
            Self::Silent { pid } => format!("its daemon (pid {pid}) shows no sign of life"),
            Self::Alive { pid } => format!("its daemon (pid {pid}) is running"),
        }
    }
}

impl Found {
    /// What is with its daemon, by the daemon's lock, without waiting for a sign of life. Costs a few syscalls.
    pub fn daemon(&self) -> Result<Daemon, ReadError> {
        let reader = match &self.origin {
            Origin::Parquet { orphaned: None, .. } => return Ok(Daemon::None),
            Origin::Parquet { .. } => return Ok(Daemon::Dead),
            Origin::Shared { reader } => reader,
        };
        let liveness = reader.liveness()?;
        let pid = liveness.pid;
        Ok(if !liveness.alive {
            Daemon::Dead
        } else if liveness.silent_for >= Liveness::PATIENCE {
            Daemon::Silent { pid }
        } else {
            Daemon::Alive { pid }
        })
    }

    /// Since the last publish, or since the file was written; zero if a clock says it is to come. `None`: not known.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        let since = match &self.origin {
            Origin::Shared { .. } => self.snapshot.published_at(),
            Origin::Parquet { modified, .. } => *modified,
        };
        Some(SystemTime::now().duration_since(since?).unwrap_or_default())
    }
}
