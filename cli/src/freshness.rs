//! What to say and do about a state that may not be the newest.

use std::thread;
use std::time::{Duration, Instant};

use sherwood_client::Liveness;

use crate::error::CliError;
use crate::text;
use sherwood_client::find::{Daemon, Found, Origin};

/// What is with the daemon, waiting for a sign of life: a beat, or a publish a moment ago. Returns with the
/// first one, for a healthy daemon within a second.
pub fn look(found: &Found) -> Result<Daemon, CliError> {
    let Origin::Shared { reader } = &found.origin else {
        return Ok(found.daemon()?);
    };
    let published_now = found.age().is_some_and(|age| age < Liveness::PATIENCE);
    let started = Instant::now();
    loop {
        let daemon = found.daemon()?;
        // `silent_for` starts anew with each beat.
        let has_beaten = reader.liveness()?.silent_for
            < started.elapsed().saturating_sub(Duration::from_millis(30));
        if published_now || has_beaten || !matches!(daemon, Daemon::Alive { .. }) {
            return Ok(daemon);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// `--max-age`: an error if the state may be older than `allowed`.
pub fn check(found: &Found, allowed: Option<Duration>) -> Result<(), CliError> {
    let Some(allowed) = allowed else {
        return Ok(());
    };
    let age = found.age();
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
    let age = found.age().map_or(String::new(), |age| {
        format!(", {} old", text::duration(age))
    });
    Some(format!("this is {what}{age}: {}", daemon.describe()))
}
