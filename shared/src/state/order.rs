//! Rows by key: in order, each once.

use std::cmp::Ordering;

use arrow_array::{Array, StringArray, UInt32Array};

use super::error::StateError;
use crate::schema::TableId;

/// How to bring rows into the order of their keys.
#[derive(Debug)]
pub(crate) enum Order {
    /// They already are.
    Sorted,
    /// Take the rows in this order.
    Take(UInt32Array),
}

/// Checks that `keys` holds no null and none twice, and finds their bytewise order.
///
/// One pass over keys that are in order. At most `u32::MAX` keys (a state holds fewer, see [`super::State::new`]).
pub(crate) fn order(table: TableId, keys: &StringArray) -> Result<Order, StateError> {
    if let Some(nulls) = keys.nulls().filter(|nulls| nulls.null_count() > 0) {
        let position = (0..keys.len()).find(|&row| nulls.is_null(row)).unwrap_or(0);
        return Err(StateError::NullKey { table, position });
    }
    let bytes = |row: usize| keys.value(row).as_bytes();
    if (1..keys.len()).all(|row| bytes(row - 1) < bytes(row)) {
        return Ok(Order::Sorted);
    }

    // Sort on the eight bytes that follow what all keys have in common (CIDs share their first seven): a
    // comparison then seldom has to look at the text.
    let common = common_prefix(keys);
    let mut rows: Vec<(u64, u32)> = (0..keys.len())
        .map(|row| {
            (
                eight_bytes(&bytes(row)[common..]),
                u32::try_from(row).unwrap_or(u32::MAX),
            )
        })
        .collect();
    let compare = |a: &(u64, u32), b: &(u64, u32)| -> Ordering {
        a.0.cmp(&b.0)
            .then_with(|| bytes(a.1 as usize).cmp(bytes(b.1 as usize)))
    };
    rows.sort_unstable_by(|a, b| compare(a, b).then(a.1.cmp(&b.1)));
    for pair in rows.windows(2) {
        if compare(&pair[0], &pair[1]) == Ordering::Equal {
            let (first, second) = (pair[0].1 as usize, pair[1].1 as usize);
            let key = keys.value(first).to_owned();
            return Err(StateError::DuplicateKey {
                table,
                key,
                first,
                second,
            });
        }
    }
    Ok(Order::Take(
        rows.into_iter()
            .map(|(_, row)| row)
            .collect::<Vec<u32>>()
            .into(),
    ))
}

fn common_prefix(keys: &StringArray) -> usize {
    let first = if keys.is_empty() {
        &[][..]
    } else {
        keys.value(0).as_bytes()
    };
    (1..keys.len()).fold(first.len(), |common, row| {
        let key = keys.value(row).as_bytes();
        let common = common.min(key.len());
        (0..common).find(|&i| key[i] != first[i]).unwrap_or(common)
    })
}

/// The first eight bytes as a number that sorts as they do; what is missing counts as zero bytes.
fn eight_bytes(bytes: &[u8]) -> u64 {
    let mut eight = [0; 8];
    let len = bytes.len().min(8);
    eight[..len].copy_from_slice(&bytes[..len]);
    u64::from_be_bytes(eight)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(keys: &[&str]) -> Vec<String> {
        let array = StringArray::from(keys.to_vec());
        match order(TableId::Tasks, &array).unwrap_or_else(|error| panic!("{keys:?}: {error}")) {
            Order::Sorted => keys.iter().map(|key| key.to_string()).collect(),
            Order::Take(rows) => rows
                .values()
                .iter()
                .map(|&row| keys[row as usize].to_owned())
                .collect(),
        }
    }

    /// Short alphabets make prefixes, equal first bytes and zero bytes likely.
    #[test]
    fn any_distinct_keys_come_out_in_the_order_of_their_bytes() {
        let mut pool = vec![String::new()];
        for length in 1..=3 {
            for number in 0..4_u32.pow(length) {
                pool.push(
                    (0..length)
                        .map(|i| ['\0', 'a', 'b', 'é'][(number >> (2 * i)) as usize & 3])
                        .collect(),
                );
            }
        }
        pool.push("a".repeat(20));
        pool.push(format!("{}b", "a".repeat(19)));
        let mut state = 1_u64;
        for round in 0..500 {
            let mut keys: Vec<&str> = Vec::new();
            for key in &pool {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                if (state >> 60) as usize % 4 == round % 4 {
                    let at = (state >> 32) as usize % (keys.len() + 1);
                    keys.insert(at, key);
                }
            }
            let mut expected: Vec<String> = keys.iter().map(|key| key.to_string()).collect();
            expected.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
            assert_eq!(sorted(&keys), expected, "keys {keys:?}");
        }
    }

    #[test]
    fn a_key_that_is_there_twice_is_named_with_both_positions() {
        for keys in [
            vec!["b", "x", "a", "b"],
            vec!["b", "c", "c"],
            vec!["", "a", ""],
        ] {
            let array = StringArray::from(keys.clone());
            let error = order(TableId::Content, &array).expect_err("a duplicate");
            let StateError::DuplicateKey {
                key, first, second, ..
            } = error
            else {
                panic!("{keys:?}: {error}");
            };
            assert!(
                first < second && keys[first] == key && keys[second] == key,
                "{keys:?}: {first}, {second}"
            );
        }
    }

    #[test]
    fn a_null_key_is_named_with_its_position() {
        let keys = StringArray::from(vec![Some("a"), None, Some("b")]);
        let error = order(TableId::Nodes, &keys).expect_err("a null");
        assert_eq!(
            error,
            StateError::NullKey {
                table: TableId::Nodes,
                position: 1
            }
        );
        assert_eq!(
            error.to_string(),
            "the entry of nodes at position 1 has no id: give it one or leave the entry out"
        );
    }
}
