//! A [`Filter`] made to fit a schema: columns found, types checked, literals in the columns' types (Q2).

use std::collections::HashSet;
use std::sync::Arc;

use arrow_array::types::{
    ArrowPrimitiveType, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{ArrayRef, BooleanArray, LargeStringArray, PrimitiveArray, Scalar, StringArray};
use arrow_schema::{DataType, Field, Fields, Schema, TimeUnit};

use super::ast::{Column, Comparison, Expr, Filter, Literal, Op, Test, Value};
use super::error::{FilterError, FilterErrorKind};
use super::like::Pattern;
use super::literal::{Floor, Settled, in_units, nanoseconds, settle_float};

/// A filter that fits one schema. [`BoundFilter::mask`] says which rows of a batch it accepts.
#[derive(Clone, Debug)]
pub struct BoundFilter {
    pub(super) node: Node,
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    Constant(Option<bool>),
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    Leaf(Leaf),
}

/// A question about one column or field.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub(super) path: Vec<usize>,
    /// With dots.
    pub(super) name: String,
    pub(super) names: Vec<String>,
    pub(super) data_type: DataType,
    pub(super) check: Check,
    /// The opposite where it is known at all.
    pub(super) negated: bool,
}

/// What is asked of each value. Null where the value is null, `IsNull` aside.
#[derive(Clone, Debug)]
pub(super) enum Check {
    IsNull,
    /// The same for each value; `None` is null.
    Constant(Option<bool>),
    /// Of one row, and the column's own type.
    Compare(Comparison, Scalar<ArrayRef>),
    Float(Comparison, f64),
    In {
        any: Members,
        has_null: bool,
    },
    Like(Pattern),
    Substring(String),
    /// Some item answers yes. Null items do not.
    Item(Box<Check>),
}

/// What a list of literals holds, null aside.
#[derive(Clone, Debug)]
pub(super) enum Members {
    Text(HashSet<String>),
    /// Sorted. Timestamps are the numbers of their unit.
    Integers(Vec<i128>),
    Floats(Vec<f64>),
    Booleans(Vec<bool>),
}

impl Filter {
    /// Finds the filter's columns in `schema` and checks that each is asked what its type can answer.
    ///
    /// # Errors
    ///
    /// Unknown columns (with near names), and comparisons of a column with a value of another kind, each with its
    /// place in the text.
    pub fn bind(&self, schema: &Schema) -> Result<BoundFilter, FilterError> {
        let binder = Binder {
            text: &self.text,
            fields: schema.fields(),
        };
        let node = binder.expr(&self.expr)?;
        Ok(BoundFilter { node })
    }
}

struct Binder<'a> {
    text: &'a str,
    fields: &'a Fields,
}

impl Binder<'_> {
    fn error(&self, kind: FilterErrorKind, at: usize) -> FilterError {
        FilterError::new(kind, self.text, at)
    }

    fn expr(&self, expr: &Expr) -> Result<Node, FilterError> {
        let all = |items: &[Expr]| {
            items
                .iter()
                .map(|item| self.expr(item))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(match expr {
            Expr::And(items) => Node::And(all(items)?),
            Expr::Or(items) => Node::Or(all(items)?),
            Expr::Not(inner) => Node::Not(Box::new(self.expr(inner)?)),
            Expr::Constant(value) => Node::Constant(*value),
            Expr::Test(test) => Node::Leaf(self.test(test)?),
        })
    }

    fn test(&self, test: &Test) -> Result<Leaf, FilterError> {
        let (path, field) = self.find(&test.column)?;
        let name = test.column.dotted();
        let asked = Asked {
            binder: self,
            name: &name,
            data_type: field.data_type(),
            at: test.at,
        };
        let (check, negated) = match &test.op {
            Op::IsNull { negated } => (Check::IsNull, *negated),
            // A column without a type has no values: each answer is null.
            _ if field.data_type() == &DataType::Null => (Check::Constant(None), false),
            Op::IsTrue => (asked.is_true()?, false),
            Op::Compare(comparison, literal) => (asked.compare(*comparison, literal)?, false),
            Op::In { negated, list } => (asked.is_in(list)?, *negated),
            Op::Like { negated, pattern } => (asked.like(pattern)?, *negated),
            Op::Contains { negated, value } => (asked.contains(value)?, *negated),
        };
        Ok(Leaf {
            path,
            names: test
                .column
                .names
                .iter()
                .map(|(name, _)| name.clone())
                .collect(),
            name,
            data_type: field.data_type().clone(),
            check,
            negated,
        })
    }

    fn find(&self, column: &Column) -> Result<(Vec<usize>, &Field), FilterError> {
        let mut fields = self.fields;
        let mut path = Vec::with_capacity(column.names.len());
        let mut found: Option<&Field> = None;
        for (depth, (name, at)) in column.names.iter().enumerate() {
            if let Some(parent) = found {
                let DataType::Struct(inner) = parent.data_type() else {
                    let kind = FilterErrorKind::Type {
                        column: parent.name().clone(),
                        column_type: words(parent.data_type()),
                        other: format!("has no field {name:?}"),
                    };
                    return Err(self.error(kind, *at));
                };
                fields = inner;
            }
            let Some((place, field)) = fields.find(name) else {
                let what = match depth {
                    0 => "column".to_owned(),
                    _ => format!("field of {}", found.map_or("", |field| field.name())),
                };
                let near = near(name, fields);
                let all = fields.iter().take(40).map(|field| field.name().clone());
                let all = if near.is_empty() {
                    all.collect()
                } else {
                    Vec::new()
                };
                let name = name.clone();
                let kind = FilterErrorKind::UnknownColumn {
                    what,
                    name,
                    near,
                    all,
                };
                return Err(self.error(kind, *at));
            };
            path.push(place);
            found = Some(field);
        }
        match found {
            Some(field) => Ok((path, field)),
            None => {
                let expected = "a column".to_owned();
                Err(self.error(FilterErrorKind::Expected { expected }, 0))
            }
        }
    }
}

/// Names that are spelled nearly so, best first.
fn near(name: &str, fields: &Fields) -> Vec<String> {
    let lower = name.to_lowercase();
    // Of a name of any length, so that no long one is compared with all.
    if lower.len() > 200 {
        return Vec::new();
    }
    let start: String = lower.chars().take(3).collect();
    let is_near = |alike: f64, field: &str| {
        alike > 0.75 || start.len() >= 3 && field.to_lowercase().starts_with(&start)
    };
    let mut near: Vec<(f64, &str)> = fields
        .iter()
        .map(|field| field.name().as_str())
        .filter(|field| field.len() <= 200)
        .map(|field| (strsim::jaro_winkler(&lower, &field.to_lowercase()), field))
        .filter(|(alike, field)| is_near(*alike, field))
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    near.truncate(3);
    near.into_iter().map(|(_, name)| name.to_owned()).collect()
}

/// A column and where it is asked something.
struct Asked<'a> {
    binder: &'a Binder<'a>,
    name: &'a str,
    data_type: &'a DataType,
    at: usize,
}

impl Asked<'_> {
    fn cannot(&self, other: String, at: usize) -> FilterError {
        let kind = FilterErrorKind::Type {
            column: self.name.to_owned(),
            column_type: words(self.data_type),
            other,
        };
        self.binder.error(kind, at)
    }

    fn is_true(&self) -> Result<Check, FilterError> {
        if self.data_type == &DataType::Boolean {
            return Ok(Check::Compare(Comparison::Equal, boolean(true)));
        }
        let other = "only a truth value is a condition by itself: compare it with something";
        Err(self.cannot(other.to_owned(), self.at))
    }

    fn compare(&self, comparison: Comparison, literal: &Literal) -> Result<Check, FilterError> {
        use Comparison::{Equal, NotEqual};
        let is_ordered = !matches!(comparison, Equal | NotEqual);
        if self.data_type == &DataType::Boolean && is_ordered {
            let other = "truth values have no order: ask with = or !=".to_owned();
            return Err(self.cannot(other, self.at));
        }
        let settled = match self.value(literal)? {
            None => return Ok(Check::Constant(None)),
            Some(Typed::Text(text)) => {
                let text: ArrayRef = match self.data_type {
                    DataType::LargeUtf8 => Arc::new(LargeStringArray::from(vec![text])),
                    _ => Arc::new(StringArray::from(vec![text])),
                };
                return Ok(Check::Compare(comparison, Scalar::new(text)));
            }
            Some(Typed::Boolean(value)) => {
                return Ok(Check::Compare(comparison, boolean(value)));
            }
            Some(Typed::Float(value)) => match settle_float(comparison, value) {
                Settled::Compare(comparison, value) => {
                    return Ok(Check::Float(comparison, value));
                }
                Settled::Always => Some(true),
                Settled::Never => Some(false),
            },
            Some(Typed::Integer(floor)) => match floor.settle(comparison, limits(self.data_type)) {
                Settled::Compare(comparison, value) => {
                    let scalar = integer(self.data_type, value).ok_or_else(|| {
                        self.cannot(format!("{value} is out of its range"), literal.at)
                    })?;
                    return Ok(Check::Compare(comparison, scalar));
                }
                Settled::Always => Some(true),
                Settled::Never => Some(false),
            },
        };
        Ok(Check::Constant(settled))
    }

    fn is_in(&self, list: &[Literal]) -> Result<Check, FilterError> {
        let mut has_null = false;
        let (mut texts, mut integers) = (HashSet::new(), Vec::new());
        let (mut floats, mut booleans) = (Vec::new(), Vec::new());
        for literal in list {
            match self.value(literal)? {
                None => has_null = true,
                Some(Typed::Text(text)) => {
                    texts.insert(text.to_owned());
                }
                Some(Typed::Boolean(value)) => booleans.push(value),
                Some(Typed::Float(value)) => {
                    if let Settled::Compare(_, value) = settle_float(Comparison::Equal, value) {
                        floats.push(value);
                    }
                }
                Some(Typed::Integer(floor)) => {
                    let settled = floor.settle(Comparison::Equal, limits(self.data_type));
                    if let Settled::Compare(_, value) = settled {
                        integers.push(value);
                    }
                }
            }
        }
        integers.sort_unstable();
        let any = match self.data_type {
            DataType::Utf8 | DataType::LargeUtf8 => Members::Text(texts),
            DataType::Boolean => Members::Booleans(booleans),
            data_type if data_type.is_floating() => Members::Floats(floats),
            _ => Members::Integers(integers),
        };
        Ok(Check::In { any, has_null })
    }

    fn is_text(&self) -> bool {
        matches!(self.data_type, DataType::Utf8 | DataType::LargeUtf8)
    }

    fn like(&self, pattern: &Literal) -> Result<Check, FilterError> {
        if !self.is_text() {
            return Err(self.cannot("only text has patterns".to_owned(), self.at));
        }
        match &pattern.value {
            Value::Null => Ok(Check::Constant(None)),
            Value::Text(text) => match Pattern::new(text) {
                Some(pattern) => Ok(Check::Like(pattern)),
                None => Err(self.binder.error(FilterErrorKind::Escape, pattern.at)),
            },
            other => Err(self.cannot(format!("{} is no pattern", other.kind()), pattern.at)),
        }
    }

    fn contains(&self, literal: &Literal) -> Result<Check, FilterError> {
        if let Some(item) = item_type(self.data_type) {
            let name = format!("an item of {}", self.name);
            let item = Asked {
                name: &name,
                data_type: item,
                ..*self
            };
            let check = item.compare(Comparison::Equal, literal)?;
            return Ok(match check {
                // Unknown for each list, empty ones too: what is asked for is not known.
                Check::Constant(None) => check,
                check => Check::Item(Box::new(check)),
            });
        }
        if !self.is_text() {
            let other = "only lists and text contain something".to_owned();
            return Err(self.cannot(other, self.at));
        }
        match &literal.value {
            Value::Null => Ok(Check::Constant(None)),
            Value::Text(text) => Ok(Check::Substring(text.clone())),
            other => Err(self.cannot(format!("cannot contain {}", other.kind()), literal.at)),
        }
    }

    /// The literal as a value of the column's kind; `None` for null.
    fn value<'l>(&self, literal: &'l Literal) -> Result<Option<Typed<'l>>, FilterError> {
        let is_integer = self.data_type.is_integer();
        Ok(Some(match (self.data_type, &literal.value) {
            (DataType::Struct(_), _) => {
                let other = "only its fields can be compared".to_owned();
                return Err(self.cannot(other, self.at));
            }
            (data_type, _) if item_type(data_type).is_some() => {
                let other = "is asked with \"contains\"".to_owned();
                return Err(self.cannot(other, self.at));
            }
            (data_type, _) if !is_comparable(data_type) => {
                let other = "can only be asked \"is null\"".to_owned();
                return Err(self.cannot(other, self.at));
            }
            (_, Value::Null) => return Ok(None),
            (DataType::Utf8 | DataType::LargeUtf8, Value::Text(text)) => Typed::Text(text),
            (DataType::Boolean, Value::Boolean(value)) => Typed::Boolean(*value),
            (DataType::Float64, Value::Number(number)) => Typed::Float(number.double()),
            (DataType::Float16 | DataType::Float32, Value::Number(number)) => {
                Typed::Float(number.single().into())
            }
            (_, Value::Number(number)) if is_integer => Typed::Integer(number.floor()),
            (DataType::Timestamp(unit, _), Value::Text(text)) => {
                let Some(moment) = nanoseconds(text) else {
                    let (column, text) = (self.name.to_owned(), text.clone());
                    let kind = FilterErrorKind::Timestamp { column, text };
                    return Err(self.binder.error(kind, literal.at));
                };
                Typed::Integer(in_units(moment, nanoseconds_in(*unit)))
            }
            (_, other) => {
                let mut why = format!("cannot be compared with {}", other.kind());
                if matches!(self.data_type, DataType::Timestamp(..)) {
                    why.push_str(": write it as '2026-01-02T03:04:05Z'");
                }
                return Err(self.cannot(why, literal.at));
            }
        }))
    }
}

/// A literal of the column's kind.
enum Typed<'a> {
    Text(&'a str),
    Boolean(bool),
    Float(f64),
    Integer(Floor),
}

/// The type of a list's items.
fn item_type(data_type: &DataType) -> Option<&DataType> {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            Some(item.data_type())
        }
        _ => None,
    }
}

fn is_comparable(data_type: &DataType) -> bool {
    data_type.is_integer()
        || data_type.is_floating()
        || matches!(
            data_type,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Boolean | DataType::Timestamp(..)
        )
}

/// A type as errors say it.
pub(super) fn words(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 => "text".to_owned(),
        DataType::Boolean => "a truth value".to_owned(),
        DataType::Timestamp(..) => "a timestamp".to_owned(),
        DataType::Struct(_) => "a struct".to_owned(),
        data_type if data_type.is_integer() => {
            format!("a whole number ({})", data_type.to_string().to_lowercase())
        }
        data_type if data_type.is_floating() => {
            format!("a number ({})", data_type.to_string().to_lowercase())
        }
        data_type => match item_type(data_type) {
            Some(_) => "a list".to_owned(),
            None => format!("of type {data_type}"),
        },
    }
}

fn nanoseconds_in(unit: TimeUnit) -> i128 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

/// The least and the greatest value.
fn limits(data_type: &DataType) -> (i128, i128) {
    fn of<T: Into<i128>>(least: T, most: T) -> (i128, i128) {
        (least.into(), most.into())
    }
    match data_type {
        DataType::Int8 => of(i8::MIN, i8::MAX),
        DataType::Int16 => of(i16::MIN, i16::MAX),
        DataType::Int32 => of(i32::MIN, i32::MAX),
        DataType::UInt8 => of(u8::MIN, u8::MAX),
        DataType::UInt16 => of(u16::MIN, u16::MAX),
        DataType::UInt32 => of(u32::MIN, u32::MAX),
        DataType::UInt64 => of(u64::MIN, u64::MAX),
        _ => of(i64::MIN, i64::MAX),
    }
}

fn boolean(value: bool) -> Scalar<ArrayRef> {
    Scalar::new(Arc::new(BooleanArray::from(vec![value])))
}

/// A value within the [`limits`] of an integer or timestamp type.
fn integer(data_type: &DataType, value: i128) -> Option<Scalar<ArrayRef>> {
    fn of<T>(data_type: &DataType, value: i128) -> Option<Scalar<ArrayRef>>
    where
        T: ArrowPrimitiveType,
        T::Native: TryFrom<i128>,
    {
        let value = T::Native::try_from(value).ok()?;
        let array = PrimitiveArray::<T>::from_value(value, 1).with_data_type(data_type.clone());
        Some(Scalar::new(Arc::new(array)))
    }
    match data_type {
        DataType::Int8 => of::<Int8Type>(data_type, value),
        DataType::Int16 => of::<Int16Type>(data_type, value),
        DataType::Int32 => of::<Int32Type>(data_type, value),
        DataType::Int64 => of::<Int64Type>(data_type, value),
        DataType::UInt8 => of::<UInt8Type>(data_type, value),
        DataType::UInt16 => of::<UInt16Type>(data_type, value),
        DataType::UInt32 => of::<UInt32Type>(data_type, value),
        DataType::UInt64 => of::<UInt64Type>(data_type, value),
        DataType::Timestamp(TimeUnit::Second, _) => of::<TimestampSecondType>(data_type, value),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            of::<TimestampMillisecondType>(data_type, value)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            of::<TimestampMicrosecondType>(data_type, value)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            of::<TimestampNanosecondType>(data_type, value)
        }
        _ => None,
    }
}
