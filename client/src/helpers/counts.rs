//! How often each text occurs in a column.

use std::collections::BTreeMap;

/// Texts that are looked for one after the other; a column of states or roles has fewer.
const FEW: usize = 16;

/// How often each text occurs, in the order of the texts. Nulls are not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts<'s> {
    counts: BTreeMap<&'s str, u64>,
}

impl<'s> Counts<'s> {
    /// How often `text` occurs.
    #[must_use]
    pub fn get(&self, text: &str) -> u64 {
        self.counts.get(text).copied().unwrap_or(0)
    }

    /// Each text that was seen or expected, and how often it was seen.
    pub fn iter(&self) -> impl Iterator<Item = (&'s str, u64)> + '_ {
        self.counts.iter().map(|(text, count)| (*text, *count))
    }

    /// All of them together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Names texts that stand in it even if they are never seen.
    pub(super) fn always_name(&mut self, texts: &[&'s str]) {
        for text in texts {
            self.counts.entry(text).or_default();
        }
    }
}

/// Counts while a column is passed over.
#[derive(Debug, Default)]
pub(super) struct Counter<'s> {
    few: Vec<(&'s str, u64)>,
    more: BTreeMap<&'s str, u64>,
}

impl<'s> Counter<'s> {
    #[inline]
    pub(super) fn add(&mut self, text: Option<&'s str>) {
        let Some(text) = text else { return };
        if let Some((_, count)) = self.few.iter_mut().find(|(known, _)| *known == text) {
            *count += 1;
        } else if self.few.len() < FEW {
            self.few.push((text, 1));
        } else {
            *self.more.entry(text).or_default() += 1;
        }
    }

    pub(super) fn counts(self) -> Counts<'s> {
        let mut counts = self.more;
        counts.extend(self.few);
        Counts { counts }
    }
}
