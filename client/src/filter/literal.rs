//! Written values in a column's own type (Q2).

use chrono::{DateTime, NaiveDate, NaiveTime};

use super::ast::Comparison;

/// A decimal number, exactly as it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Number {
    is_negative: bool,
    /// Digits, and a dot with more digits behind it if it has a fraction.
    digits: String,
}

impl Number {
    pub(super) fn new(digits: &str) -> Self {
        Self {
            is_negative: false,
            digits: digits.to_owned(),
        }
    }

    pub(super) fn negative(&self) -> Self {
        Self {
            is_negative: !self.is_negative,
            digits: self.digits.clone(),
        }
    }

    /// The largest whole number that is not above it, and whether it is below the number. Numbers that no integer
    /// type holds stop at the ends of `i128`.
    pub(super) fn floor(&self) -> Floor {
        let (whole, fraction) = self.digits.split_once('.').unwrap_or((&self.digits, ""));
        let is_exact = fraction.bytes().all(|digit| digit == b'0');
        let whole: i128 = whole.parse().unwrap_or(i128::MAX - 1);
        let floor = match (self.is_negative, is_exact) {
            (false, _) => whole,
            (true, true) => -whole,
            (true, false) => -whole - 1,
        };
        Floor { floor, is_exact }
    }

    /// The nearest number of 64 bits; infinite where it is too large for one.
    pub(super) fn double(&self) -> f64 {
        let number: f64 = self.digits.parse().unwrap_or(f64::INFINITY);
        if self.is_negative { -number } else { number }
    }

    /// The nearest number of 32 bits, which is not always the nearest one to [`double`](Self::double).
    pub(super) fn single(&self) -> f32 {
        let number: f32 = self.digits.parse().unwrap_or(f32::INFINITY);
        if self.is_negative { -number } else { number }
    }
}

/// A number among the whole ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Floor {
    pub(super) floor: i128,
    pub(super) is_exact: bool,
}

/// A comparison with a value that the column's type may not have, said with one that it has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Settled<T> {
    /// True for every value.
    Always,
    /// False for every value.
    Never,
    /// As with this value.
    Compare(Comparison, T),
}

impl Floor {
    /// `x comparison self` for whole numbers `x` from `least` to `most`.
    pub(super) fn settle(
        self,
        comparison: Comparison,
        (least, most): (i128, i128),
    ) -> Settled<i128> {
        use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
        let comparison = match (comparison, self.is_exact) {
            (comparison, true) => comparison,
            (Equal, false) => return Settled::Never,
            (NotEqual, false) => return Settled::Always,
            // Nothing lies between the floor and the value.
            (Less | LessOrEqual, false) => LessOrEqual,
            (Greater | GreaterOrEqual, false) => Greater,
        };
        let (is_below, is_above) = (self.floor < least, self.floor > most);
        match comparison {
            _ if !is_below && !is_above => Settled::Compare(comparison, self.floor),
            Equal => Settled::Never,
            NotEqual => Settled::Always,
            Less | LessOrEqual if is_above => Settled::Always,
            Greater | GreaterOrEqual if is_below => Settled::Always,
            Less | LessOrEqual | Greater | GreaterOrEqual => Settled::Never,
        }
    }
}

/// `x comparison value` for floating-point numbers `x`. A value too large for them was rounded to infinity, which
/// is above it (or below, if negative): it is unequal to both.
pub(super) fn settle_float(comparison: Comparison, value: f64) -> Settled<f64> {
    use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    if value.is_finite() {
        return Settled::Compare(comparison, value);
    }
    let is_positive = value > 0.0;
    match comparison {
        Equal => Settled::Never,
        NotEqual => Settled::Always,
        Less | LessOrEqual if is_positive => Settled::Compare(Less, value),
        Less | LessOrEqual => Settled::Compare(LessOrEqual, value),
        Greater | GreaterOrEqual if is_positive => Settled::Compare(GreaterOrEqual, value),
        Greater | GreaterOrEqual => Settled::Compare(Greater, value),
    }
}

/// Nanoseconds since the epoch of a moment in RFC 3339, or of the midnight (UTC) that a date begins with.
pub(super) fn nanoseconds(text: &str) -> Option<i128> {
    let time = match NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        Ok(date) if text.len() == 10 => date.and_time(NaiveTime::MIN).and_utc(),
        _ => DateTime::parse_from_rfc3339(text).ok()?.to_utc(),
    };
    Some(i128::from(time.timestamp()) * 1_000_000_000 + i128::from(time.timestamp_subsec_nanos()))
}

/// A moment in units of so many nanoseconds.
pub(super) fn in_units(nanoseconds: i128, unit: i128) -> Floor {
    Floor {
        floor: nanoseconds.div_euclid(unit),
        is_exact: nanoseconds.rem_euclid(unit) == 0,
    }
}
