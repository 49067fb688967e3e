//! The configuration file, and where in it something stands.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

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
    let table: BTreeMap<Spanned<String>, Spanned<toml::Value>> =
        toml::from_str(&text).map_err(|error| {
            let (line, column) = position(&text, error.span().map_or(0, |span| span.start));
            ConfigError::Syntax {
                path: path.to_path_buf(),
                line,
                column,
                message: error.message().to_owned(),
            }
        })?;
    for (key, value) in &table {
        let Some((known, _)) = KEYS.iter().find(|(known, _)| known == key.get_ref()) else {
            return Err(ConfigError::UnknownKey {
                path: path.to_path_buf(),
                line: position(&text, key.span().start).0,
                key: key.get_ref().clone(),
                near: near_misses(key.get_ref()),
            });
        };
        draft.set(known, Raw::Toml(value.get_ref()), || {
            let (line, column) = position(&text, value.span().start);
            format!("{}:{line}:{column}", path.display())
        })?;
    }
    Ok(())
}

/// Line and column (in characters) of a byte offset, counted from 1.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}
