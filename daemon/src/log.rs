//! The log: one line per event on stderr, its facts as fields, as text or as JSON.
//!
//! Only what the Sherwood crates say goes by the configured level; of others, warnings and
//! worse. A closed stderr loses lines and nothing else.

use std::error::Error;
use std::io::IsTerminal;

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry, reload};

use crate::config::LogFormat;

/// Changes the level of a log that runs.
pub struct LevelHandle(Box<dyn Fn(Level) + Send>);

impl LevelHandle {
    /// Logs at `level` from now on.
    pub fn set(&self, level: Level) {
        (self.0)(level);
    }
}

/// Sends this process's events to stderr. A log that the process has already stays in place,
/// and the handle then changes nothing.
pub fn init(format: LogFormat, level: Level) -> LevelHandle {
    let (filter, handle) = reload::Layer::new(targets(level));
    // A lost line is lost; by default its loss would be printed, and printing to a closed
    // stderr panics.
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let lines = match format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .boxed(),
    };
    let _one_is_set_already = registry().with(lines.with_filter(filter)).try_init();
    LevelHandle(Box::new(move |level| {
        let _log_is_gone = handle.reload(targets(level));
    }))
}

fn targets(level: Level) -> Targets {
    Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("sherwood", level)
}

/// An error and its causes, one after the other.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let said = next.to_string();
        // Some errors of others print their cause themselves.
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = next.source();
    }
    text
}

/// Remembers the last trouble of one kind, so that it is told once and not each second.
#[derive(Debug, Default)]
pub struct Trouble {
    last: Option<String>,
}

impl Trouble {
    /// Is this another trouble than the last one?
    pub fn is_new(&mut self, text: &str) -> bool {
        let new = self.last.as_deref() != Some(text);
        if new {
            self.last = Some(text.to_owned());
        }
        new
    }

    /// The trouble, while there is one.
    #[must_use]
    pub fn current(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// The trouble is over. Was there any?
    pub fn is_over(&mut self) -> bool {
        self.last.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_told_once_until_it_changes_or_is_over() {
        let mut trouble = Trouble::default();
        let told: Vec<bool> = ["a", "a", "b", "b", "a"]
            .into_iter()
            .map(|text| trouble.is_new(text))
            .collect();
        assert_eq!(told, [true, false, true, false, true]);
        assert!(trouble.is_over());
        assert!(!trouble.is_over());
        assert!(trouble.is_new("a"));
    }

    #[test]
    fn a_cause_is_printed_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::io::Error);
        let inner = std::io::Error::other("inner");
        assert_eq!(chain(&Outer(inner)), "outer: inner");
        #[derive(Debug, thiserror::Error)]
        #[error("outer: {0}")]
        struct Doubled(#[source] std::io::Error);
        let inner = std::io::Error::other("inner");
        assert_eq!(chain(&Doubled(inner)), "outer: inner");
    }
}
