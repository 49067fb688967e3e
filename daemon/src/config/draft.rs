//! A value on its way into a setting: each is checked where it is given, all together at the end.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use sherwood_client::locate::ClusterId;

use super::{CHUNKS_PER_REGION, Config, ConfigError, KEYS, LogFormat, Writers};
use crate::flight::{BULK_FACTOR, JSON_FACTOR, Limits};

/// Settings so far; a later [`Draft::set`] wins.
#[derive(Default)]
pub(super) struct Draft {
    state_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
    cluster_id: Option<ClusterId>,
    log_format: Option<LogFormat>,
    log_level: Option<tracing::Level>,
    poll_interval: Option<Duration>,
    snapshot_mode: Option<u32>,
    region_bytes: Option<u64>,
    chunk_bytes: Option<usize>,
    log_segment_bytes: Option<u64>,
    access: Writers,
    limits: Limits,
}

/// A value before its setting has looked at it.
#[derive(Clone, Copy)]
pub(super) enum Raw<'a> {
    Text(&'a OsStr),
    Toml(&'a toml::Value),
}

impl<'a> Raw<'a> {
    fn path(self) -> Option<PathBuf> {
        let path = match self {
            Raw::Text(text) => PathBuf::from(text),
            Raw::Toml(value) => PathBuf::from(value.as_str()?),
        };
        (!path.as_os_str().is_empty()).then_some(path)
    }
    fn text(self) -> Option<&'a str> {
        match self {
            Raw::Text(text) => text.to_str(),
            Raw::Toml(value) => value.as_str(),
        }
    }
    /// Names or numbers.
    fn names(self) -> Option<Vec<String>> {
        let names: Option<Vec<String>> = match self {
            Raw::Text(text) => text
                .to_str()
                .map(|text| text.split(',').map(|name| name.trim().to_owned()).collect()),
            Raw::Toml(value) => {
                let name = |value: &toml::Value| match value {
                    toml::Value::String(name) => Some(name.clone()),
                    toml::Value::Integer(id) => u32::try_from(*id).ok().map(|id| id.to_string()),
                    _ => None,
                };
                value.as_array()?.iter().map(name).collect()
            }
        };
        names.filter(|names| names.iter().all(|name| !name.is_empty()))
    }
    fn within(self, least: usize, most: usize) -> Option<usize> {
        let number = usize::try_from(self.number()?).ok()?;
        (least..=most).contains(&number).then_some(number)
    }
    fn number(self) -> Option<u64> {
        match self {
            Raw::Text(text) => text.to_str()?.parse().ok(),
            Raw::Toml(value) => value.as_integer()?.try_into().ok(),
        }
    }
}

impl std::fmt::Display for Raw<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Raw::Text(text) => write!(f, "{text:?}"),
            Raw::Toml(value) => write!(f, "{value} ({})", value.type_str()),
        }
    }
}

impl Draft {
    /// Takes the value of `key`, if it can have it. `place` says where it was found.
    pub(super) fn set(
        &mut self,
        key: &'static str,
        raw: Raw<'_>,
        place: impl FnOnce() -> String,
    ) -> Result<(), ConfigError> {
        let accepted = match key {
            "state_dir" => put(&mut self.state_dir, raw.path()),
            "run_dir" => put(&mut self.run_dir, raw.path()),
            "cluster_id" => put(
                &mut self.cluster_id,
                raw.text().and_then(|id| ClusterId::new(id).ok()),
            ),
            "log_format" => put(&mut self.log_format, raw.text().and_then(log_format)),
            "log_level" => put(&mut self.log_level, raw.text().and_then(log_level)),
            "poll_interval_ms" => put(&mut self.poll_interval, raw.number().and_then(interval)),
            "snapshot_mode" => put(&mut self.snapshot_mode, raw.text().and_then(mode)),
            "region_bytes" => put(
                &mut self.region_bytes,
                raw.number().filter(|n| *n >= 4096 && n.is_power_of_two()),
            ),
            "chunk_bytes" => put(
                &mut self.chunk_bytes,
                raw.number()
                    .filter(|&n| n > 0)
                    .and_then(|n| n.try_into().ok()),
            ),
            "log_segment_bytes" => put(
                &mut self.log_segment_bytes,
                raw.number()
                    .filter(|n| (1 << 16..=1 << 30).contains(n) && n.is_multiple_of(4096)),
            ),
            "access.write_users" => set(&mut self.access.users, raw.names()),
            "access.write_groups" => set(&mut self.access.groups, raw.names()),
            "limits.connections" => set(&mut self.limits.connections, count(raw)),
            "limits.pipelined" => set(&mut self.limits.pipelined, count(raw)),
            "limits.request_bytes" => set(&mut self.limits.request_bytes, bytes(raw)),
            "limits.json_bytes" => set(&mut self.limits.json_bytes, bytes(raw)),
            "limits.transaction_ops" => set(&mut self.limits.transaction_ops, count(raw)),
            "limits.bulk_rows" => set(&mut self.limits.bulk_rows, count(raw)),
            "limits.bulk_bytes" => set(&mut self.limits.bulk_bytes, bytes(raw)),
            _ => set(&mut self.limits.watches, count(raw)),
        };
        if accepted {
            return Ok(());
        }
        let wanted = KEYS.iter().find(|(known, _)| *known == key);
        Err(ConfigError::Value {
            place: place(),
            key,
            found: raw.to_string(),
            wanted: wanted.map_or("", |(_, wanted)| *wanted),
        })
    }

    /// What was set, and defaults for the rest.
    pub(super) fn finish(self) -> Result<Config, ConfigError> {
        let missing = |key| ConfigError::Missing { key };
        if let (Some(region_bytes), Some(chunk_bytes)) = (self.region_bytes, self.chunk_bytes)
            && chunk_bytes as u64 > region_bytes / CHUNKS_PER_REGION
        {
            return Err(ConfigError::ChunkTooLarge {
                chunk_bytes,
                region_bytes,
            });
        }
        let request_bytes = self.limits.request_bytes;
        for (key, bytes, factor) in [
            ("limits.json_bytes", self.limits.json_bytes, JSON_FACTOR),
            ("limits.bulk_bytes", self.limits.bulk_bytes, BULK_FACTOR),
        ] {
            if bytes.saturating_mul(factor).saturating_mul(3) > request_bytes.saturating_mul(2) {
                return Err(ConfigError::RequestTooLarge {
                    key,
                    bytes,
                    factor,
                    request_bytes,
                });
            }
        }
        Ok(Config {
            state_dir: self.state_dir.ok_or_else(|| missing("state_dir"))?,
            run_dir: self.run_dir.ok_or_else(|| missing("run_dir"))?,
            cluster_id: self.cluster_id,
            log_format: self.log_format.unwrap_or(LogFormat::Text),
            log_level: self.log_level.unwrap_or(tracing::Level::INFO),
            poll_interval: self.poll_interval.unwrap_or(Duration::from_secs(1)),
            snapshot_mode: self.snapshot_mode.unwrap_or(0o644),
            region_bytes: self.region_bytes,
            chunk_bytes: self.chunk_bytes,
            log_segment_bytes: self.log_segment_bytes.unwrap_or(16 << 20),
            access: self.access,
            limits: self.limits,
        })
    }
}

/// Takes an accepted value instead of the default. `false`: there was none.
fn set<T>(slot: &mut T, value: Option<T>) -> bool {
    let accepted = value.is_some();
    if let Some(value) = value {
        *slot = value;
    }
    accepted
}

fn count(raw: Raw<'_>) -> Option<usize> {
    raw.within(1, 1_000_000_000)
}

fn bytes(raw: Raw<'_>) -> Option<usize> {
    raw.within(1024, 2_000_000_000)
}

/// Stores an accepted value. `false`: there was none.
fn put<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
    let accepted = value.is_some();
    if accepted {
        *slot = value;
    }
    accepted
}

fn log_format(text: &str) -> Option<LogFormat> {
    match text {
        "text" => Some(LogFormat::Text),
        "json" => Some(LogFormat::Json),
        _ => None,
    }
}

fn log_level(text: &str) -> Option<tracing::Level> {
    // Only the names: the parser behind `FromStr` takes numbers too.
    ["error", "warn", "info", "debug", "trace"]
        .contains(&text)
        .then(|| text.parse().ok())?
}

fn interval(ms: u64) -> Option<Duration> {
    (10..=3_600_000)
        .contains(&ms)
        .then(|| Duration::from_millis(ms))
}

/// F11: readers refuse to use a file in place that anyone but its owner can write.
fn mode(text: &str) -> Option<u32> {
    let mode = u32::from_str_radix(text, 8).ok()?;
    (text.bytes().all(|b| b.is_ascii_digit()) && mode <= 0o777 && mode & 0o622 == 0o600)
        .then_some(mode)
}
