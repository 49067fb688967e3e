//! Transactions on rows of one number each, and what became of them.
//!
//! A row here is an item of `content`: its key is the `cid`, its number the `size`. That is all that the
//! checkers need, and what it becomes on the wire is the one form that transactions have everywhere (JSON).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// The rows of a state: keys and numbers.
pub type Rows = BTreeMap<String, i64>;

/// What has to hold before the first operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum If {
    /// The row is there with this number.
    Is(String, i64),
    /// The row is there, or is not.
    Exists(String, bool),
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Makes or replaces a row.
    Put(String, i64),
    /// Changes a row that has to be there.
    Patch(String, i64),
    /// Deletes a row that has to be there.
    Delete(String),
}

/// Operations that apply together, if the conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Made by the client.
    pub id: String,
    /// All have to hold.
    pub conditions: Vec<If>,
    /// In order.
    pub ops: Vec<Op>,
}

/// What a writer was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Applied, in this generation.
    Done(u64),
    /// Not applied, judged against this generation.
    Refused(u64, String),
    /// Nobody knows, for this reason.
    Unknown(String),
}

impl Transaction {
    /// On the wire.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let conditions = self.conditions.iter().map(|condition| match condition {
            If::Is(key, number) => {
                json!({"table": "content", "key": key, "column": "size", "equals": number})
            }
            If::Exists(key, exists) => {
                json!({"table": "content", "key": key, "exists": exists})
            }
        });
        let ops = self.ops.iter().map(|op| match op {
            Op::Put(key, number) => json!({"put": "content", "row": {"cid": key, "size": number}}),
            Op::Patch(key, number) => {
                json!({"patch": "content", "key": key, "set": {"size": number}})
            }
            Op::Delete(key) => json!({"delete": "content", "key": key}),
        });
        json!({
            "id": self.id,
            "if": conditions.collect::<Vec<_>>(),
            "ops": ops.collect::<Vec<_>>(),
        })
    }

    /// From its form on the wire; `None` if it is none of ours.
    #[must_use]
    pub fn from_json(value: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let mut conditions = Vec::new();
        for condition in value["if"].as_array().into_iter().flatten() {
            let key = text(&condition["key"])?;
            conditions.push(match condition["exists"].as_bool() {
                Some(exists) => If::Exists(key, exists),
                None => If::Is(key, condition["equals"].as_i64()?),
            });
        }
        let mut ops = Vec::new();
        for op in value["ops"].as_array()? {
            ops.push(if op["put"].is_string() {
                Op::Put(text(&op["row"]["cid"])?, op["row"]["size"].as_i64()?)
            } else if op["patch"].is_string() {
                Op::Patch(text(&op["key"])?, op["set"]["size"].as_i64()?)
            } else {
                Op::Delete(text(&op["key"])?)
            });
        }
        Some(Self {
            id: text(&value["id"])?,
            conditions,
            ops,
        })
    }

    /// The keys it reads or writes.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let read = self.conditions.iter().map(|condition| match condition {
            If::Is(key, _) | If::Exists(key, _) => key.as_str(),
        });
        let written = self.ops.iter().map(|op| match op {
            Op::Put(key, _) | Op::Patch(key, _) | Op::Delete(key) => key.as_str(),
        });
        read.chain(written)
    }

    /// What it does to `rows`, by the rules: all of it, or nothing and why.
    ///
    /// # Errors
    ///
    /// The condition that does not hold, or the row that is not there.
    pub fn apply(&self, rows: &mut Rows) -> Result<(), String> {
        for condition in &self.conditions {
            let holds = match condition {
                If::Is(key, number) => rows.get(key) == Some(number),
                If::Exists(key, exists) => rows.contains_key(key) == *exists,
            };
            if !holds {
                return Err(format!("{condition:?} does not hold"));
            }
        }
        // Most have one or two operations: undoing them is cheaper than a copy of all rows.
        let mut before: Vec<(&String, Option<i64>)> = Vec::new();
        for op in &self.ops {
            let (key, number) = match op {
                Op::Put(key, number) | Op::Patch(key, number) => (key, Some(*number)),
                Op::Delete(key) => (key, None),
            };
            if !matches!(op, Op::Put(..)) && !rows.contains_key(key) {
                for (key, number) in before.into_iter().rev() {
                    set(rows, key, number);
                }
                return Err(format!("no row {key}"));
            }
            before.push((key, rows.get(key).copied()));
            set(rows, key, number);
        }
        Ok(())
    }
}

fn set(rows: &mut Rows, key: &String, number: Option<i64>) {
    match number {
        Some(number) => rows.insert(key.clone(), number),
        None => rows.remove(key),
    };
}

impl Answer {
    /// On the wire.
    #[must_use]
    pub fn to_json(&self, id: &str) -> Value {
        match self {
            Self::Done(generation) => {
                json!({"id": id, "outcome": "done", "generation": generation})
            }
            Self::Refused(generation, reason) => {
                json!({"id": id, "outcome": "refused", "generation": generation, "reason": reason})
            }
            Self::Unknown(reason) => json!({"id": id, "outcome": "unknown", "reason": reason}),
        }
    }

    /// From its form on the wire. What cannot be read is not known.
    #[must_use]
    pub fn from_json(value: &Value) -> Self {
        let reason = value["reason"].as_str().unwrap_or_default().to_owned();
        match (value["outcome"].as_str(), value["generation"].as_u64()) {
            (Some("done"), Some(generation)) => Self::Done(generation),
            (Some("refused"), generation) => Self::Refused(generation.unwrap_or(0), reason),
            (Some("unknown"), _) => Self::Unknown(reason),
            _ => Self::Unknown(format!("no answer: {value}")),
        }
    }

    /// The same outcome, as a retry has to get it? A refusal's reason counts, words that are added do not.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Done(mine), Self::Done(theirs)) => mine == theirs,
            (Self::Refused(..), Self::Refused(..)) => true,
            _ => false,
        }
    }
}

/// Fields of a row of `content` as the checkers see it: key and number.
#[must_use]
pub fn row_of(row: &Map<String, Value>) -> Option<(String, i64)> {
    Some((
        row.get("cid")?.as_str()?.to_owned(),
        row.get("size")?.as_i64()?,
    ))
}
