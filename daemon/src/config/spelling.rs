//! What a misspelt key was probably meant to be.

use super::KEYS;

/// The keys that `key` is probably a misspelling of.
pub(super) fn near_misses(key: &str) -> Vec<&'static str> {
    let key = key.to_lowercase().replace('-', "_");
    let known = KEYS.iter().map(|(known, _)| *known);
    known
        .filter(|known| {
            edit_distance(known, &key) <= 2 || (key.len() >= 4 && known.starts_with(&key))
        })
        .collect()
}

/// Levenshtein's distance, over bytes: keys are ASCII.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
