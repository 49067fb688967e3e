//! The configuration file, and where in it something stands.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::draft::{Draft, Raw};
use super::spelling::near_misses;
use super::{ConfigError, KEYS};

/// Sets what the file `path` says.
pub(super) fn read(path: &Path, draft: &mut Draft) -> Result<(), ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    let table: Table = toml::from_str(&text).map_err(|error| {
        let (line, column) = position(&text, error.span().map_or(0, |span| span.start));
        ConfigError::Syntax {
            path: path.to_path_buf(),
            line,
            column,
            message: error.message().to_owned(),
        }
    })?;
    let sections: Sections = toml::from_str(&text).map_err(|error| {
        let (line, column) = position(&text, error.span().map_or(0, |span| span.start));
        ConfigError::Syntax {
            path: path.to_path_buf(),
            line,
            column,
            message: error.message().to_owned(),
        }
    })?;
    let named = |section: &str, key: &Spanned<String>| {
        (format!("{section}{}", key.get_ref()), key.span().start)
    };
    let top = table
        .iter()
        .filter(|(key, _)| !SECTIONS.contains(&key.get_ref().as_str()))
        .map(|(key, value)| (named("", key), value));
    let access = sections
        .access
        .iter()
        .map(|(key, value)| (named("access.", key), value));
    let limits = sections
        .limits
        .iter()
        .map(|(key, value)| (named("limits.", key), value));
    for ((key, at), value) in top.chain(access).chain(limits) {
        let Some((known, _)) = KEYS.iter().find(|(known, _)| *known == key) else {
            return Err(ConfigError::UnknownKey {
                path: path.to_path_buf(),
                line: position(&text, at).0,
                near: near_misses(&key),
                key,
            });
        };
        draft.set(known, Raw::Toml(value.get_ref()), || {
            let (line, column) = position(&text, value.span().start);
            format!("{}:{line}:{column}", path.display())
        })?;
    }
    Ok(())
}

type Table = BTreeMap<Spanned<String>, Spanned<toml::Value>>;

/// Read by themselves, so that each of their keys and values has its place in the text.
#[derive(Deserialize)]
struct Sections {
    #[serde(default)]
    access: Table,
    #[serde(default)]
    limits: Table,
}

const SECTIONS: [&str; 2] = ["access", "limits"];

/// Line and column (in characters) of a byte offset, counted from 1.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}
