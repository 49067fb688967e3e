//! What is wrong with a filter, and where in its text.

use arrow_schema::ArrowError;
use thiserror::Error;

use crate::error::ReadError;

/// A filter that cannot be used. Shows what is wrong and from where on; [`FilterError::pointer`] shows the place.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{kind} (character {} of the filter{})", self.character(), self.near())]
pub struct FilterError {
    /// What is wrong.
    pub kind: Box<FilterErrorKind>,
    /// The whole text of the filter, cut off where it is too long.
    pub text: String,
    /// The byte of the text at which it is wrong; its length for "at the end".
    pub at: usize,
}

/// What can be wrong with a filter.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FilterErrorKind {
    /// Longer than [`MAX_BYTES`](super::MAX_BYTES).
    #[error("a filter of {bytes} bytes is too long: at most {}", super::MAX_BYTES)]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Deeper than [`MAX_DEPTH`](super::MAX_DEPTH).
    #[error(
        "too deep: parentheses and \"not\" stand at most {} in each other",
        super::MAX_DEPTH
    )]
    TooDeep,
    /// Something else should stand there.
    #[error("expected {expected}")]
    Expected {
        /// What may stand there.
        expected: String,
    },
    /// A character that begins nothing.
    #[error("{found:?} means nothing here{hint}")]
    Character {
        /// The character.
        found: char,
        /// What may have been meant.
        hint: &'static str,
    },
    /// Text or a quoted name that does not end.
    #[error("{what} is not closed with {quote}")]
    Unclosed {
        /// Text, or a name.
        what: &'static str,
        /// What closes it.
        quote: char,
    },
    /// A column or field that the table does not have.
    #[error("there is no {what} {name:?}{}", near_names(near, all))]
    UnknownColumn {
        /// "column", or "field" of the struct before it.
        what: String,
        /// The name.
        name: String,
        /// Those that are spelled nearly so.
        near: Vec<String>,
        /// All there are, where none is near.
        all: Vec<String>,
    },
    /// An operator or a value that does not go with the column's type.
    #[error("{column} is {column_type}, and {other}")]
    Type {
        /// The column, with dots.
        column: String,
        /// Its type, in words.
        column_type: String,
        /// What it cannot be asked.
        other: String,
    },
    /// Text that should be a moment and is not.
    #[error(
        "{column} is a timestamp, and {text:?} is none: write one as '2026-01-02T03:04:05Z' or '2026-01-02'"
    )]
    Timestamp {
        /// The column, with dots.
        column: String,
        /// The text.
        text: String,
    },
    /// A backslash in a pattern that escapes nothing.
    #[error("in a pattern a backslash stands before %, _ or another backslash")]
    Escape,
}

impl FilterError {
    pub(super) fn new(kind: FilterErrorKind, text: &str, at: usize) -> Self {
        Self {
            kind: Box::new(kind),
            text: text.to_owned(),
            at: at.min(text.len()),
        }
    }

    /// The character, counted from 1.
    #[must_use]
    pub fn character(&self) -> usize {
        self.before().chars().count() + 1
    }

    /// The line of the text that is wrong, and under it a `^` at the place. For terminals with letters of one width.
    #[must_use]
    pub fn pointer(&self) -> String {
        let before = self.before();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let rest = self.text.get(line_start..).unwrap_or_default();
        let line = rest.lines().next().unwrap_or_default();
        let column = before.get(line_start..).unwrap_or_default().chars().count();
        // Far to the right, only the surroundings are shown.
        let skipped = column.saturating_sub(60);
        let shown: String = line
            .chars()
            .skip(skipped)
            .take(100)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        format!("{shown}\n{:1$}^", "", column - skipped)
    }

    fn before(&self) -> &str {
        self.text.get(..self.at).unwrap_or(&self.text)
    }

    fn near(&self) -> String {
        let rest = self.text.get(self.at..).unwrap_or_default().trim_start();
        if rest.is_empty() {
            return ", its end".to_owned();
        }
        let shown: String = rest.chars().take(24).collect();
        let more = if shown.len() < rest.len() { "..." } else { "" };
        format!(", at {:?}", format!("{shown}{more}"))
    }
}

fn near_names(near: &[String], all: &[String]) -> String {
    if !near.is_empty() {
        return format!("; is it {}?", near.join(" or "));
    }
    if all.is_empty() {
        return String::new();
    }
    format!("; there are {}", all.join(", "))
}

/// Why a batch could not be compared with a filter.
#[derive(Debug, Error)]
pub enum MaskError {
    /// The filter was bound to another schema: bind it to this one.
    #[error(
        "the batch has no column {column} of type {expected}: the filter was bound to another schema"
    )]
    OtherSchema {
        /// The column, with dots.
        column: String,
        /// Its type when the filter was bound.
        expected: String,
    },
    /// A kernel refused, which types settled before should rule out.
    #[error("cannot compare column {column}")]
    Kernel {
        /// The column, with dots.
        column: String,
        /// What arrow said.
        #[source]
        source: ArrowError,
    },
}

/// Why a filtered table could not be read to its end.
#[derive(Debug, Error)]
pub enum ScanError {
    /// The table itself.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The filter on one of its chunks.
    #[error(transparent)]
    Mask(#[from] MaskError),
}
