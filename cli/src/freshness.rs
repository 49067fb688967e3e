//! How old a state is, and whether somebody keeps it up to date.
//!
//! *Age* counts from the last publish, or from the Parquet file's modification: a quiet
//! cluster grows old. *Stale* is a state that a daemon served which is dead, or shows no sign
//! of life while we look: nobody would tell if it had changed.

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use sherwood_client::Liveness;

use crate::error::CliError;
use crate::find::{Found, Origin};
use crate::text;

/// A live daemon beats each second: this long without a beat, it hangs.
const PATIENCE: Duration = Liveness::PATIENCE;

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
    pub fn is_stale(self) -> bool {
        matches!(self, Self::Dead | Self::Silent { .. })
    }

    /// Its pid, if it still has one.
    pub fn pid(self) -> Option<u32> {
        match self {
            Self::Alive { pid } | Self::Silent { pid } => Some(pid),
            Self::None | Self::Dead => None,
        }
    }

    /// As the end of a sentence.
    pub fn describe(self) -> String {
        match self {
            Self::None => "no daemon serves it".to_owned(),
            Self::Dead => "its daemon is not running".to_owned(),
            Self::Silent { pid } => format!("its daemon (pid {pid}) shows no sign of life"),
            Self::Alive { pid } => format!("its daemon (pid {pid}) is running"),
        }
    }
}

/// The daemon's lock, without waiting for a sign of life.
pub fn glance(found: &Found) -> Result<Daemon, CliError> {
    match &found.origin {
        Origin::Parquet { orphaned: None, .. } => Ok(Daemon::None),
        Origin::Parquet { .. } => Ok(Daemon::Dead),
        Origin::Shared { reader } => {
            let liveness = reader.liveness()?;
            let pid = liveness.pid;
            Ok(if !liveness.alive {
                Daemon::Dead
            } else if liveness.silent_for >= PATIENCE {
                Daemon::Silent { pid }
            } else {
                Daemon::Alive { pid }
            })
        }
    }
}

/// The same, waiting for a sign of life: a beat, or a publish a moment ago. Returns with the
/// first one, for a healthy daemon within a second.
pub fn look(found: &Found) -> Result<Daemon, CliError> {
    let Origin::Shared { reader } = &found.origin else {
        return glance(found);
    };
    let published_now = age(found).is_some_and(|age| age < PATIENCE);
    let started = Instant::now();
    loop {
        let daemon = glance(found)?;
        // `silent_for` starts anew with each beat.
        let has_beaten = reader.liveness()?.silent_for
            < started.elapsed().saturating_sub(Duration::from_millis(30));
        if published_now || has_beaten || !matches!(daemon, Daemon::Alive { .. }) {
            return Ok(daemon);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Since the last publish, or since the file was written; zero if a clock says it is to come.
pub fn age(found: &Found) -> Option<Duration> {
    let since = match &found.origin {
        Origin::Shared { .. } => found.snapshot.published_at(),
        Origin::Parquet { modified, .. } => *modified,
    };
    Some(SystemTime::now().duration_since(since?).unwrap_or_default())
}

/// `--max-age`: an error if the state may be older than `allowed`.
pub fn check(found: &Found, allowed: Option<Duration>) -> Result<(), CliError> {
    let Some(allowed) = allowed else {
        return Ok(());
    };
    let age = age(found);
    if age.is_some_and(|age| age <= allowed) {
        return Ok(());
    }
    let daemon = look(found)?;
    if matches!(daemon, Daemon::Alive { .. }) {
        return Ok(());
    }
    let why = daemon.describe();
    Err(CliError::Stale { age, allowed, why })
}

/// One sentence about a state that may not be the newest; `None`: all is well.
pub fn warning(found: &Found, daemon: Daemon) -> Option<String> {
    if !daemon.is_stale() {
        return None;
    }
    let what = match &found.origin {
        Origin::Shared { .. } => "the daemon's last snapshot",
        Origin::Parquet { .. } => "the Parquet file",
    };
    let age = age(found).map_or(String::new(), |age| {
        format!(", {} old", text::duration(age))
    });
    Some(format!("this is {what}{age}: {}", daemon.describe()))
}
