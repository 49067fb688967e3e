//! What became of a request: done, refused or unknown (rule CW2).

use sherwood_shared::transaction::{Answer, OutcomeKind};

use super::error::WriteError;

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a transaction may have been refused"]
pub enum Outcome {
    /// Durable, and visible to every reader of the daemon's host.
    Done {
        /// The generation it is in.
        generation: u64,
        /// The task that a claim took.
        task: Option<String>,
    },
    /// Nothing of it was applied, and nothing will be.
    Refused {
        /// Why, naming table, key and column.
        reason: String,
        /// The generation it was judged against, where the daemon said so.
        generation: Option<u64>,
    },
    /// It may have been applied. Send it again with the same id, or ask for the id's outcome.
    Unknown {
        /// The id to ask with.
        id: String,
        /// Why it is not known.
        reason: String,
    },
}

/// What is known of a transaction that is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The generation it is in.
    pub generation: u64,
    /// The task that a claim took.
    pub task: Option<String>,
}

impl Outcome {
    /// Is it done?
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done { .. })
    }

    /// Done, or an error: for callers who treat a refusal as one.
    ///
    /// # Errors
    ///
    /// [`WriteError::Refused`] and [`WriteError::Unknown`].
    pub fn done(self) -> Result<Done, WriteError> {
        match self {
            Self::Done { generation, task } => Ok(Done { generation, task }),
            Self::Refused { reason, generation } => Err(WriteError::Refused { reason, generation }),
            Self::Unknown { id, reason } => Err(WriteError::Unknown { id, reason }),
        }
    }

    /// As the daemon answers the request `id`: one form for programs and scripts.
    #[must_use]
    pub fn to_answer(&self, id: &str) -> Answer {
        let (outcome, generation, reason, task) = match self {
            Self::Done { generation, task } => {
                (OutcomeKind::Done, Some(*generation), None, task.clone())
            }
            Self::Refused { reason, generation } => (
                OutcomeKind::Refused,
                *generation,
                Some(reason.clone()),
                None,
            ),
            Self::Unknown { reason, .. } => {
                (OutcomeKind::Unknown, None, Some(reason.clone()), None)
            }
        };
        Answer {
            id: Some(id.to_owned()),
            outcome,
            generation,
            reason,
            task,
        }
    }

    /// What the daemon answered to the request `id`.
    pub(super) fn of(answer: Answer, id: &str) -> Self {
        let reason = |fallback: &str| answer.reason.clone().unwrap_or_else(|| fallback.to_owned());
        match (answer.outcome, answer.generation) {
            (OutcomeKind::Done, Some(generation)) => Self::Done {
                generation,
                task: answer.task,
            },
            // An answer to stand on names the generation.
            (OutcomeKind::Done, None) => Self::Unknown {
                id: id.to_owned(),
                reason: "the daemon says done, but not in which generation".to_owned(),
            },
            (OutcomeKind::Refused, generation) => Self::Refused {
                reason: reason("the daemon gave no reason"),
                generation,
            },
            (OutcomeKind::Unknown, _) => Self::Unknown {
                id: id.to_owned(),
                reason: reason("the daemon does not know either"),
            },
        }
    }
}
