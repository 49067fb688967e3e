//! Do the changes that a watcher saw make the state that readers see?
//!
//! A watcher starts from the rows of one generation and gets one line for each later generation that changed
//! something. [`Rebuilt`] applies them. What can go wrong shows in one of three places:
//!
//! - **V1** a line twice, or out of order: generations have to grow from line to line ([`Rebuilt::take`]);
//! - **V2** a line that is missing or says something else: the rows differ from a snapshot's ([`Rebuilt::differs`]);
//! - **V3** a line whose loss a later one hides: each acknowledged generation has to have had its line
//!   ([`Rebuilt::missing`]).

use std::collections::BTreeSet;

use serde_json::Value;

use super::transaction::{Rows, row_of};

/// A state made of the changes that were seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rebuilt {
    rows: Rows,
    first: u64,
    generation: u64,
    seen: BTreeSet<u64>,
}

impl Rebuilt {
    /// From the rows of a generation on.
    #[must_use]
    pub fn new(rows: Rows, generation: u64) -> Self {
        Self {
            rows,
            first: generation,
            generation,
            seen: BTreeSet::new(),
        }
    }

    /// The last generation that a line was seen of: where to go on after a break.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How many lines were seen.
    #[must_use]
    pub fn lines(&self) -> usize {
        self.seen.len()
    }

    /// Applies one line.
    ///
    /// # Errors
    ///
    /// V1, or it is no line of a watch.
    pub fn take(&mut self, line: &Value) -> Result<(), String> {
        let wrong = || format!("no line of a watch: {line}");
        let generation = line["generation"].as_u64().ok_or_else(wrong)?;
        if generation <= self.generation {
            return Err(format!(
                "V1: generation {generation} was seen after {}",
                self.generation
            ));
        }
        for op in line["ops"].as_array().ok_or_else(wrong)? {
            if op["put"] == "content" {
                let row = op["row"].as_object().ok_or_else(wrong)?;
                let (key, number) = row_of(row).ok_or_else(wrong)?;
                self.rows.insert(key, number);
            } else if op["delete"] == "content" {
                self.rows.remove(op["key"].as_str().ok_or_else(wrong)?);
            }
        }
        self.generation = generation;
        self.seen.insert(generation);
        Ok(())
    }

    /// V2: what is different from the rows of a snapshot of the same generation, or a later one without changes.
    #[must_use]
    pub fn differs(&self, rows: &Rows) -> Vec<String> {
        let keys: BTreeSet<_> = self.rows.keys().chain(rows.keys()).collect();
        let differ = keys.into_iter().filter_map(|key| {
            let (seen, there) = (self.rows.get(key), rows.get(key));
            (seen != there).then(|| {
                let generation = self.generation;
                format!("V2: {key} is {there:?}, and {seen:?} by the changes up to {generation}")
            })
        });
        differ.collect()
    }

    /// V3: those of the acknowledged generations that had no line, though later ones had.
    #[must_use]
    pub fn missing(&self, acknowledged: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let span = self.first + 1..=self.generation;
        let wanted = acknowledged
            .into_iter()
            .filter(|generation| span.contains(generation));
        wanted
            .filter(|generation| !self.seen.contains(generation))
            .collect()
    }
}
