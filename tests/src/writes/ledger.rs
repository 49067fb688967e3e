//! What each writer wanted and was told, and what the state has to be for it.
//!
//! A [`Book`] is one writer's file, on a file system that no test breaks. A writer enters what it wants before it
//! asks, and what it was told before it goes on; it has one transaction open at a time. So whatever happens to the
//! daemon, the books tell which transactions
//!
//! - **L1** are done: every effect of them is there, unless a later one of the books replaced it;
//! - **L2** are refused: none of their effects is there;
//! - **L3** are not known: they are settled by asking again with the same id, and are then L1 or L2;
//! - **L4** were answered: asking again gets the same outcome;
//! - **L5** are done in generations that grow along each book, over restarts too.
//!
//! Keys are of two kinds. A key that is ever changed under the condition that it has a certain number is **shared**:
//! its number has to be what it was at the beginning plus what the done ones added ([`found_wrong`] needs no order
//! for that). Every other key belongs to the writer of the book that it stands in, and the last done one decides.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::transaction::{Answer, If, Op, Rows, Transaction};

/// One writer's file.
#[derive(Debug)]
pub struct Book {
    file: File,
}

/// A transaction in a book.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What the writer wanted.
    pub transaction: Transaction,
    /// What it was told last, if anything.
    pub answer: Option<Answer>,
}

/// All that one writer entered, in its order.
pub type Entries = Vec<Entry>;

impl Book {
    /// Opens a writer's book, to go on where it ends.
    ///
    /// # Errors
    ///
    /// The file system refuses.
    pub fn open(directory: &Path, writer: &str) -> io::Result<Self> {
        let path = directory.join(format!("{writer}.book"));
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { file })
    }

    /// Enters what is wanted; before it is asked for.
    ///
    /// # Errors
    ///
    /// The file system refuses.
    pub fn wants(&mut self, transaction: &Transaction) -> io::Result<()> {
        self.enter(&json!({"wants": transaction.to_json()}))
    }

    /// Enters what the writer was told.
    ///
    /// # Errors
    ///
    /// The file system refuses.
    pub fn told(&mut self, id: &str, answer: &Answer) -> io::Result<()> {
        self.enter(&json!({"told": answer.to_json(id)}))
    }

    /// One line in one write: a writer that is killed leaves a part of the last line at most.
    fn enter(&mut self, line: &Value) -> io::Result<()> {
        self.file.write_all(format!("{line}\n").as_bytes())
    }
}

/// Reads all books of a directory, by their names.
///
/// # Errors
///
/// One cannot be read, or says what no writer enters.
pub fn read(directory: &Path) -> Result<BTreeMap<PathBuf, Entries>, String> {
    let text = |error: io::Error| format!("{directory:?}: {error}");
    let mut books = BTreeMap::new();
    for found in fs::read_dir(directory).map_err(text)? {
        let path = found.map_err(text)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "book")
        {
            books.insert(path.clone(), read_one(&path)?);
        }
    }
    Ok(books)
}

fn read_one(path: &Path) -> Result<Entries, String> {
    let file = File::open(path).map_err(|error| format!("{path:?}: {error}"))?;
    let mut entries = Entries::new();
    for line in BufReader::new(file).lines() {
        let line = line.map_err(|error| format!("{path:?}: {error}"))?;
        let wrong = || format!("{path:?}: {line}");
        let Ok(value) = serde_json::from_str::<Value>(&line) else {
            continue; // its writer was killed while it wrote the line, and had not asked yet
        };
        if value["wants"].is_object() {
            entries.push(Entry {
                transaction: Transaction::from_json(&value["wants"]).ok_or_else(wrong)?,
                answer: None,
            });
        } else {
            let told = &value["told"];
            let last = entries
                .iter_mut()
                .rfind(|entry| told["id"] == *entry.transaction.id);
            last.ok_or_else(wrong)?.answer = Some(Answer::from_json(told));
        }
    }
    Ok(entries)
}

/// Asks again for all that is not known (L3), and once more for the last `again` that were answered (L4).
///
/// # Errors
///
/// What was answered in another way than before, or is still not known.
pub fn settle(
    entries: &mut Entries,
    again: usize,
    mut ask: impl FnMut(&Transaction) -> Answer,
) -> Result<(), String> {
    let from = entries.len().saturating_sub(again);
    for (at, entry) in entries.iter_mut().enumerate() {
        let before = match &entry.answer {
            Some(Answer::Unknown(_)) | None => None,
            Some(answer) if at < from => {
                let _not_asked_again = answer;
                continue;
            }
            Some(answer) => Some(answer.clone()),
        };
        let answer = ask(&entry.transaction);
        if let Answer::Unknown(reason) = &answer {
            let id = &entry.transaction.id;
            return Err(format!("L3: {id} is still not known: {reason}"));
        }
        if let Some(before) = before {
            if !before.same(&answer) {
                let id = &entry.transaction.id;
                return Err(format!("L4: {id} was {before:?} and is now {answer:?}"));
            }
            continue;
        }
        entry.answer = Some(answer);
    }
    Ok(())
}

/// Everything that is wrong with `rows`, for these settled books and what was there at the `beginning`.
/// Rows whose keys no book names have to be as at the beginning.
#[must_use]
pub fn found_wrong<'a>(
    beginning: &Rows,
    books: impl IntoIterator<Item = &'a Entries>,
    rows: &Rows,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut expected = beginning.clone();
    let mut shared = BTreeMap::<&str, i64>::new();
    let mut named = BTreeMap::<&str, Vec<&str>>::new();
    for entries in books {
        let mut last = 0;
        for entry in entries {
            let id = &entry.transaction.id;
            for key in entry.transaction.keys() {
                named.entry(key).or_default().push(id);
            }
            let deltas = deltas(&entry.transaction);
            for key in deltas.keys() {
                shared.entry(key).or_insert(0);
            }
            let generation = match &entry.answer {
                Some(Answer::Done(generation)) => *generation,
                Some(Answer::Refused(..)) => continue,
                other => {
                    wrong.push(format!("L3: {id} was not settled: {other:?}"));
                    continue;
                }
            };
            if generation <= last {
                wrong.push(format!(
                    "L5: {id} is done in generation {generation}, its writer's one before in {last}"
                ));
            }
            last = generation;
            for (key, delta) in &deltas {
                *shared.entry(key).or_insert(0) += delta;
            }
            for op in &entry.transaction.ops {
                match op {
                    Op::Put(key, _) | Op::Patch(key, _) if deltas.contains_key(key.as_str()) => {}
                    Op::Put(key, number) | Op::Patch(key, number) => {
                        expected.insert(key.clone(), *number);
                    }
                    Op::Delete(key) => {
                        expected.remove(key);
                    }
                }
            }
        }
    }
    for (key, delta) in shared {
        *expected.entry(key.to_owned()).or_insert(0) += delta;
    }
    let keys: BTreeSet<_> = expected.keys().chain(rows.keys()).collect();
    for key in keys {
        let (wanted, found) = (expected.get(key), rows.get(key));
        if wanted != found {
            let by = named
                .get(key.as_str())
                .map(|by| &by[by.len().saturating_sub(8)..]);
            wrong.push(format!(
                "L1, L2: {key} is {found:?}, and has to be {wanted:?}; named last by {by:?}"
            ));
        }
    }
    wrong
}

/// What a transaction adds to each key that it changes under the condition of its number.
fn deltas(transaction: &Transaction) -> BTreeMap<&str, i64> {
    let number = |wanted: &str| {
        transaction
            .conditions
            .iter()
            .find_map(|condition| match condition {
                If::Is(key, number) if key == wanted => Some(*number),
                _ => None,
            })
    };
    let changes = transaction.ops.iter().filter_map(|op| match op {
        Op::Put(key, new) | Op::Patch(key, new) => Some((key.as_str(), new - number(key)?)),
        Op::Delete(_) => None,
    });
    changes.collect()
}
