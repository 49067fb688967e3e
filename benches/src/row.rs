//! One measured line: what it says, and its form as JSON.
//!
//! `peers` prints one such object a line, `bench` reads them and writes all of
//! them to `target/bench.json`. Both programs compile this file.
//!
//! An object has `question`, `name`, `peer`, `version`, `detail`, then either
//! `value_ns` (the median) with `min_ns`, `p99_ns`, `samples` and `batch`, or
//! `value` with its `unit`, or `not_run` with the reason. `floor` names the row
//! of question `floor` that it stands beside, and how many times that floor
//! the work must cost at least.

use serde_json::{Map, Value, json};

use crate::measure::Figure;

/// What a line found.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// A time.
    Time(Figure),
    /// Something that is not a time, and its unit.
    Number(f64, String),
    /// Nothing, and why.
    NotRun(String),
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// One of the questions of the table (`floor`, `acquire`, ...).
    pub question: String,
    /// What was done; unique together with `peer`.
    pub name: String,
    /// Who did it.
    pub peer: String,
    /// In which version.
    pub version: String,
    /// What came out.
    pub outcome: Outcome,
    /// The floor's name, and how many of it the work takes at least.
    pub floor: Option<(String, f64)>,
    /// What one has to know to read the figure.
    pub detail: String,
}

impl Row {
    /// A line without floor or detail.
    pub fn new(
        question: &str,
        name: impl Into<String>,
        (peer, version): (&str, &str),
        outcome: Outcome,
    ) -> Self {
        Self {
            question: question.into(),
            name: name.into(),
            peer: peer.into(),
            version: version.into(),
            outcome,
            floor: None,
            detail: String::new(),
        }
    }

    /// A line for what could not be measured.
    pub fn not_run(
        question: &str,
        name: impl Into<String>,
        who: (&str, &str),
        why: impl ToString,
    ) -> Self {
        Self::new(question, name, who, Outcome::NotRun(why.to_string()))
    }

    /// Stands it beside `times` times the floor called `name`.
    pub fn over(mut self, name: impl Into<String>, times: f64) -> Self {
        self.floor = Some((name.into(), times));
        self
    }

    /// Says what one has to know to read the figure.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Its form as JSON.
    pub fn to_json(&self) -> Value {
        let mut line = Map::new();
        for (key, text) in [
            ("question", &self.question),
            ("name", &self.name),
            ("peer", &self.peer),
            ("version", &self.version),
        ] {
            line.insert(key.into(), json!(text));
        }
        match &self.outcome {
            Outcome::Time(figure) => {
                line.insert("value_ns".into(), json!(rounded(figure.median)));
                line.insert("min_ns".into(), json!(rounded(figure.min)));
                line.insert("p99_ns".into(), json!(rounded(figure.p99)));
                line.insert("samples".into(), json!(figure.samples));
                line.insert("batch".into(), json!(figure.batch));
            }
            Outcome::Number(value, unit) => {
                line.insert("value".into(), json!(value));
                line.insert("unit".into(), json!(unit));
            }
            Outcome::NotRun(why) => {
                line.insert("not_run".into(), json!(why));
            }
        }
        if let Some((floor, times)) = &self.floor {
            line.insert("floor".into(), json!({ "name": floor, "times": times }));
        }
        line.insert("detail".into(), json!(self.detail));
        Value::Object(line)
    }
}

/// Thousandths of a nanosecond are noise.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
