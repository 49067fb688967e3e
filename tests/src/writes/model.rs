//! A store of rows in memory that does what a daemon has to do, or errs on purpose.
//!
//! It is the second opinion of the checkers' own tests: without a [`Fault`] they have to be content with it, and each
//! fault they have to find.

use std::collections::HashMap;

use super::transaction::{Answer, Rows, Transaction};

/// What goes wrong, each time that [`Model::submit`] is called with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Says done, and applies nothing.
    LosesIt,
    /// Says done, and applies the first operation only.
    AppliesHalf,
    /// Says refused, and applies it without looking at the conditions.
    AppliesRefused,
    /// Judges the conditions against the state before the last transaction.
    JudgesOldState,
    /// Does not know the id again.
    ForgetsOutcome,
    /// Says done, and gives an older generation.
    TurnsBack,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::LosesIt,
        Self::AppliesHalf,
        Self::AppliesRefused,
        Self::JudgesOldState,
        Self::ForgetsOutcome,
        Self::TurnsBack,
    ];
}

/// The store.
#[derive(Clone, Debug, Default)]
pub struct Model {
    rows: Rows,
    before: Rows,
    generation: u64,
    outcomes: HashMap<String, Answer>,
}

impl Model {
    /// With these rows, as generation 1.
    #[must_use]
    pub fn new(rows: Rows) -> Self {
        Self {
            before: rows.clone(),
            rows,
            generation: 1,
            outcomes: HashMap::new(),
        }
    }

    /// What is there.
    #[must_use]
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Of what is there.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Judges, applies and remembers one transaction.
    pub fn submit(&mut self, transaction: &Transaction, fault: Option<Fault>) -> Answer {
        if let Some(answer) = self.outcomes.get(&transaction.id)
            && fault != Some(Fault::ForgetsOutcome)
        {
            return answer.clone();
        }
        let before = self.rows.clone();
        let applied = match fault {
            Some(Fault::LosesIt) => transaction.apply(&mut before.clone()),
            Some(Fault::JudgesOldState) => {
                let judged = transaction.apply(&mut self.before.clone());
                let blind = Transaction {
                    conditions: Vec::new(),
                    ..transaction.clone()
                };
                judged.and_then(|()| blind.apply(&mut self.rows))
            }
            Some(Fault::AppliesHalf) => {
                let mut half = transaction.clone();
                half.ops.truncate(1);
                half.apply(&mut self.rows)
            }
            Some(Fault::AppliesRefused) => {
                let judged = transaction.apply(&mut self.rows);
                if judged.is_err() {
                    let mut blind = transaction.clone();
                    blind.conditions.clear();
                    let _ = blind.apply(&mut self.rows);
                }
                judged
            }
            _ => transaction.apply(&mut self.rows),
        };
        let answer = match applied {
            Ok(()) => {
                self.generation += 1;
                self.before = before;
                Answer::Done(match fault {
                    Some(Fault::TurnsBack) => self.generation.saturating_sub(3).max(1),
                    _ => self.generation,
                })
            }
            Err(reason) => Answer::Refused(self.generation, reason),
        };
        self.outcomes.insert(transaction.id.clone(), answer.clone());
        answer
    }
}
