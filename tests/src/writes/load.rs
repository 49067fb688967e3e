//! Writers at work: transfers, refusals, deletions and pairs, each entered in a book.
//!
//! They move numbers between shared accounts under conditions, so that half a transaction or a lost one shows in the
//! numbers; and each has rows of its own: a marker for each transfer, of which it deletes the older ones, and a
//! pair that always changes together.

use std::collections::VecDeque;
use std::path::Path;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::ledger::{self, Book, Entry};
use super::transaction::{Answer, If, Op, Rows, Transaction};
use super::way::Way;

/// What each account has at the beginning.
const FORTUNE: i64 = 1000;
/// Markers that a writer keeps.
const MARKERS: usize = 16;
/// Answered transactions of each writer that are asked for again after a crash: the last ones, and the first ones.
const AGAIN: usize = 4;
/// Ids are remembered for 100,000 transactions: the first ones are asked for no longer than that, whoever else writes.
const REMEMBERED: u64 = 5_000;

/// Names of the shared accounts.
#[must_use]
pub fn account(number: usize) -> String {
    format!("account-{number:03}")
}

/// The rows at the beginning.
#[must_use]
pub fn beginning(accounts: usize) -> Rows {
    (0..accounts)
        .map(|number| (account(number), FORTUNE))
        .collect()
}

/// One writer, over all restarts.
#[derive(Debug)]
pub struct Writer {
    name: String,
    book: Book,
    rng: SmallRng,
    accounts: usize,
    asked: u64,
    markers: VecDeque<String>,
    /// What happened since it was last checked.
    entries: Vec<Entry>,
    /// The last ones before that.
    checked: Vec<Entry>,
    /// The very first ones.
    firsts: Vec<Entry>,
    /// The generation of its last done transaction.
    newest: u64,
}

/// How many of each were settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Applied.
    pub done: u64,
    /// Not applied.
    pub refused: u64,
    /// Not known until they were asked for again.
    pub unknown: u64,
}

impl Writer {
    /// A writer whose book is in a directory that no test breaks.
    ///
    /// # Errors
    ///
    /// The book cannot be opened.
    pub fn new(books: &Path, number: usize, accounts: usize, seed: u64) -> Result<Self, String> {
        let name = format!("w{number}");
        let book = Book::open(books, &name).map_err(|error| error.to_string())?;
        Ok(Self {
            rng: SmallRng::seed_from_u64(seed ^ ((number as u64) << 32)),
            name,
            book,
            accounts,
            asked: 0,
            markers: VecDeque::new(),
            entries: Vec::new(),
            checked: Vec::new(),
            firsts: Vec::new(),
            newest: 0,
        })
    }

    /// Writes until the way breaks, or `stop` says so.
    ///
    /// # Errors
    ///
    /// The book cannot be written.
    pub fn write(&mut self, way: &mut dyn Way, stop: &dyn Fn() -> bool) -> Result<(), String> {
        while !stop() {
            let Ok(transaction) = self.next(way) else {
                return Ok(());
            };
            let text = |error: std::io::Error| error.to_string();
            self.book.wants(&transaction).map_err(text)?;
            self.entries.push(Entry {
                transaction: transaction.clone(),
                answer: None,
            });
            let answer = way.ask(&transaction);
            self.book.told(&transaction.id, &answer).map_err(text)?;
            let broken = matches!(answer, Answer::Unknown(_));
            if let Some(entry) = self.entries.last_mut() {
                entry.answer = Some(answer);
            }
            if broken {
                return Ok(());
            }
            self.learn();
        }
        Ok(())
    }

    /// What to ask for next.
    fn next(&mut self, way: &mut dyn Way) -> Result<Transaction, String> {
        self.asked += 1;
        let (name, number) = (&self.name, self.asked);
        let signed = i64::try_from(number).unwrap_or(i64::MAX);
        let (mut conditions, mut ops) = (Vec::new(), Vec::new());
        let marker = format!("{name}-marker-{number:08}");
        match self.rng.random_range(0..10) {
            0 if !self.markers.is_empty() => {
                // Certain to be refused: its marker is there.
                conditions.push(If::Exists(self.markers[0].clone(), false));
                ops.push(Op::Put(format!("{name}-never-{number:08}"), signed));
            }
            1 => ops.push(Op::Delete(format!("{name}-never-there"))),
            2 | 3 if self.markers.len() > MARKERS => {
                for old in self.markers.iter().take(MARKERS / 2) {
                    ops.push(Op::Delete(old.clone()));
                }
                ops.push(Op::Put(marker, signed));
            }
            4 => {
                ops.push(Op::Put(format!("{name}-pair-left"), signed));
                ops.push(Op::Put(format!("{name}-pair-right"), signed));
            }
            _ => {
                let from = account(self.rng.random_range(0..self.accounts));
                let to = account(self.rng.random_range(0..self.accounts));
                let amount = self.rng.random_range(1..10);
                if let (Some(before), Some(there)) = (way.look(&from)?, way.look(&to)?)
                    && from != to
                {
                    conditions.push(If::Is(from.clone(), before));
                    conditions.push(If::Is(to.clone(), there));
                    ops.push(Op::Patch(from, before - amount));
                    ops.push(Op::Patch(to, there + amount));
                }
                ops.push(Op::Put(marker, signed));
            }
        }
        Ok(Transaction {
            id: format!("{name}-{number}"),
            conditions,
            ops,
        })
    }

    /// Which markers the last transaction, if it is done, made and deleted. The same twice is the same once.
    fn learn(&mut self) {
        let Some(Entry {
            transaction,
            answer: Some(Answer::Done(_)),
        }) = self.entries.last()
        else {
            return;
        };
        for op in &transaction.ops {
            match op {
                Op::Delete(key) => self.markers.retain(|marker| marker != key),
                Op::Put(key, _) if key.contains("-marker-") && !self.markers.contains(key) => {
                    self.markers.push_back(key.clone());
                }
                _ => {}
            }
        }
    }

    /// Asks again for what is not known, and once more for some that are.
    ///
    /// # Errors
    ///
    /// L3 or L4 of the [`ledger`].
    pub fn settle(&mut self, way: &mut dyn Way) -> Result<Settled, String> {
        let open = |entry: &&Entry| matches!(entry.answer, None | Some(Answer::Unknown(_)));
        let unknown = self.entries.iter().filter(open).count() as u64;
        let book = &mut self.book;
        let mut trouble = None;
        let mut ask = |transaction: &Transaction| {
            let answer = way.ask(transaction);
            if let Err(error) = book.told(&transaction.id, &answer) {
                trouble = Some(error.to_string());
            }
            answer
        };
        ledger::settle(&mut self.entries, AGAIN, &mut ask)?;
        ledger::settle(&mut self.checked, AGAIN, &mut ask)?;
        if self.asked < REMEMBERED {
            ledger::settle(&mut self.firsts, AGAIN, &mut ask)?;
        }
        if let Some(trouble) = trouble {
            return Err(trouble);
        }
        self.learn();
        let mut settled = Settled {
            unknown,
            ..Settled::default()
        };
        for entry in &self.entries {
            match entry.answer {
                Some(Answer::Done(_)) => settled.done += 1,
                _ => settled.refused += 1,
            }
        }
        Ok(settled)
    }

    /// What happened since the last [`Self::checked`].
    #[must_use]
    pub fn entries(&self) -> &Vec<Entry> {
        &self.entries
    }

    /// Puts what was checked aside, for the generations to grow on from there (L5).
    ///
    /// # Errors
    ///
    /// They did not.
    pub fn checked(&mut self) -> Result<(), String> {
        for entry in &self.entries {
            if let Some(Answer::Done(generation)) = entry.answer {
                if generation <= self.newest {
                    let id = &entry.transaction.id;
                    let newest = self.newest;
                    return Err(format!(
                        "L5: {id} is done in generation {generation}, its writer's one before in {newest}"
                    ));
                }
                self.newest = generation;
            }
        }
        if self.firsts.is_empty() {
            self.firsts = self.entries.iter().take(AGAIN).cloned().collect();
        }
        if !self.entries.is_empty() {
            let from = self.entries.len().saturating_sub(AGAIN);
            self.checked = self.entries.split_off(from);
            self.entries.clear();
        }
        Ok(())
    }

    /// The generation of its last done transaction.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.newest
    }
}
