//! A line of the table: a row, and the number that it has to reach.
//!
//! The numbers are those of the design's section "Numbers to beat".

use crate::row::{Outcome, Row};

/// How much is wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// The median is at most this, in nanoseconds.
    Median(f64),
    /// The number is at most this, in its unit.
    Number(f64),
    /// The number is at least this, in its unit.
    AtLeast(f64),
}

/// A row and what it has to reach, if anything.
#[derive(Clone, Debug)]
pub struct Line {
    /// What was measured.
    pub row: Row,
    /// What it has to reach.
    pub goal: Option<Goal>,
}

impl From<Row> for Line {
    fn from(row: Row) -> Self {
        Self { row, goal: None }
    }
}

impl Line {
    /// With a number to reach from below.
    pub fn at_least(row: Row, least: f64) -> Self {
        Self {
            row,
            goal: Some(Goal::AtLeast(least)),
        }
    }

    /// With a number to reach.
    pub fn at_most(row: Row, goal: Goal) -> Self {
        Self {
            row,
            goal: Some(goal),
        }
    }

    /// Was the number reached? `None` without a number, or without a figure.
    pub fn reached(&self) -> Option<bool> {
        match (self.goal?, &self.row.outcome) {
            (Goal::Median(most), Outcome::Time(figure)) => Some(figure.median <= most),
            (Goal::Number(most), Outcome::Number(value, _)) => Some(*value <= most),
            (Goal::AtLeast(least), Outcome::Number(value, _)) => Some(*value >= least),
            _ => None,
        }
    }
}

/// `&Snapshot` on an unchanged head.
pub const ACQUIRE: Goal = Goal::Median(3.0);
/// Look-up by key among 1,000,000 rows.
pub const LOOKUP: Goal = Goal::Median(300.0);
/// Publish of one changed row at 1,000,000 rows.
pub const PUBLISH: Goal = Goal::Median(100_000.0);
/// Publish of one changed row at 10,000,000 rows, against 1,000,000.
pub const PUBLISH_GROWTH: Goal = Goal::Number(2.0);
/// The writer's p99 with a reader that stands still, against its p99 without.
pub const STILL_READER: Goal = Goal::Number(1.1);
/// A refresh of a large state against one of 1 MB.
pub const REFRESH_GROWTH: Goal = Goal::Number(1.2);
/// A waiting reader runs again.
pub const WAKE: Goal = Goal::Median(12_000.0);

/// A refresh that touches `chunks` changed chunks.
pub fn refresh(chunks: u32) -> Goal {
    Goal::Median(2_000.0 + 3_000.0 * f64::from(chunks))
}
