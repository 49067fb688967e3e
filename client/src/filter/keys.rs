//! Which keys a filter can accept at all (Q3), so that the chunks between them need not be looked at.
//!
//! Keys are sorted bytewise and never null. A range is half-open; of a set of them none touches another, and they are in
//! order. What is not understood (another column, `not`) accepts every key.

use arrow_array::Array;
use arrow_array::cast::AsArray;

use super::ast::Comparison;
use super::bind::{Check, Leaf, Members, Node};

/// Ranges of keys.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct KeyRanges(Vec<KeyRange>);

/// From a key on, up to bytes that are no longer in it. `None`: to the end of the table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct KeyRange {
    /// A key, or one with a zero byte behind it: valid UTF-8.
    pub(super) from: String,
    /// Not always valid UTF-8.
    pub(super) to: Option<Vec<u8>>,
}

impl KeyRanges {
    /// The keys that `node` can be true for, if `key` is the key column.
    pub(super) fn of(node: &Node, key: &str) -> Self {
        match node {
            Node::Constant(Some(true)) | Node::Not(_) => Self::all(),
            Node::Constant(_) => Self(Vec::new()),
            Node::And(items) => items
                .iter()
                .map(|item| Self::of(item, key))
                .reduce(|a, b| a.intersect(&b))
                .unwrap_or_else(Self::all),
            Node::Or(items) => {
                let ranges = items.iter().flat_map(|item| Self::of(item, key).0);
                Self::union(ranges.collect())
            }
            Node::Leaf(leaf) => Self::of_leaf(leaf, key),
        }
    }

    pub(super) fn as_slice(&self) -> &[KeyRange] {
        &self.0
    }

    fn all() -> Self {
        Self::from(String::new(), None)
    }

    fn from(from: String, to: Option<Vec<u8>>) -> Self {
        Self(vec![KeyRange { from, to }])
    }

    fn of_leaf(leaf: &Leaf, key: &str) -> Self {
        if let Check::Constant(answer) = &leaf.check {
            return match answer {
                Some(answer) if *answer != leaf.negated => Self::all(),
                _ => Self(Vec::new()),
            };
        }
        if leaf.names != [key] || leaf.negated {
            return Self::all();
        }
        match &leaf.check {
            Check::Compare(comparison, value) => {
                let value = value.clone().into_inner();
                match value.as_string_opt::<i32>() {
                    Some(text) if text.len() == 1 => Self::compared(*comparison, text.value(0)),
                    _ => Self::all(),
                }
            }
            Check::In {
                any: Members::Text(texts),
                ..
            } => {
                let one = |text: &String| KeyRange {
                    from: text.clone(),
                    to: Some(after(text).into_bytes()),
                };
                Self::union(texts.iter().map(one).collect())
            }
            Check::Like(pattern) => {
                let prefix = pattern.prefix();
                let to = behind_prefix(&prefix);
                Self::from(prefix, to)
            }
            _ => Self::all(),
        }
    }

    fn compared(comparison: Comparison, value: &str) -> Self {
        let (here, behind) = (value.to_owned(), after(value));
        match comparison {
            Comparison::Equal => Self::from(here, Some(behind.into_bytes())),
            Comparison::NotEqual => Self::all(),
            // Before "" there is nothing.
            Comparison::Less if here.is_empty() => Self(Vec::new()),
            Comparison::Less => Self::from(String::new(), Some(here.into_bytes())),
            Comparison::LessOrEqual => Self::from(String::new(), Some(behind.into_bytes())),
            Comparison::Greater => Self::from(behind, None),
            Comparison::GreaterOrEqual => Self::from(here, None),
        }
    }

    /// Both are in order, and so is the result.
    fn intersect(&self, other: &Self) -> Self {
        let mut both = Vec::new();
        let (mut a, mut b) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(left), Some(right)) = (a.peek(), b.peek()) {
            let from = left.from.as_str().max(right.from.as_str());
            let to = match (&left.to, &right.to) {
                (Some(left), Some(right)) => Some(left.min(right)),
                (one, None) | (None, one) => one.as_ref(),
            };
            if to.is_none_or(|to| from.as_bytes() < to.as_slice()) {
                both.push(KeyRange {
                    from: from.to_owned(),
                    to: to.cloned(),
                });
            }
            // The one that ends first has nothing more to give.
            if is_before(&left.to, &right.to) {
                a.next();
            } else {
                b.next();
            }
        }
        Self(both)
    }

    fn union(mut ranges: Vec<KeyRange>) -> Self {
        ranges.sort_by(|a, b| a.from.cmp(&b.from));
        let mut merged: Vec<KeyRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last)
                    if last
                        .to
                        .as_ref()
                        .is_none_or(|to| range.from.as_bytes() <= to.as_slice()) =>
                {
                    if is_before(&last.to, &range.to) {
                        last.to = range.to;
                    }
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }
}

/// Does a range that ends here end before the other?
fn is_before(one: &Option<Vec<u8>>, other: &Option<Vec<u8>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one < other,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

/// The least text above `text`.
fn after(text: &str) -> String {
    format!("{text}\0")
}

/// The least bytes above everything that begins with `prefix`.
fn behind_prefix(prefix: &str) -> Option<Vec<u8>> {
    let mut bytes = prefix.as_bytes().to_vec();
    // UTF-8 has no byte 0xFF, so the last one can always grow.
    let last = bytes.last_mut()?;
    *last = last.saturating_add(1);
    Some(bytes)
}
