//! One value of a row: out of JSON, out of a snapshot, into a column.
//!
//! Strict: a value has its column's type, or the transaction is refused. Text is borrowed from the request or from
//! the snapshot, so that a cell costs no allocation.

use std::borrow::Cow;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{
    Array, ArrayRef, BooleanArray, GenericStringArray, ListArray, PrimitiveArray, StructArray,
    new_null_array,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{ArrowError, DataType, Field, TimeUnit};
use arrow_select::concat::concat;
use chrono::{DateTime, NaiveDate, NaiveTime};
use serde_json::{Map, Value};

use super::layout::Column;
use super::refusal::shorten;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell<'a> {
    /// None.
    Null,
    Bool(bool),
    /// Every integer, and every timestamp in its column's unit.
    Int(i128),
    /// Exactly what the column holds, float32 included.
    Float(f64),
    Text(Cow<'a, str>),
    List(Vec<Cell<'a>>),
    /// By field number; as many as the struct has.
    Struct(Vec<Cell<'a>>),
    /// One value of a type that JSON cannot say, kept as it is.
    Other(ArrayRef),
}

/// A value that does not fit.
#[derive(Debug)]
pub(super) struct Misfit {
    /// Path below the column: fields with dots, `[]` for an item of a list. Empty: the column's own value.
    pub(super) path: String,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    NoField,
    Value { value: String, expected: String },
}

impl Misfit {
    fn new(value: &Value, expected: impl Into<String>) -> Self {
        let what = What::Value {
            value: shorten(value),
            expected: expected.into(),
        };
        Self {
            path: String::new(),
            what,
        }
    }

    fn below(mut self, name: &str) -> Self {
        self.path = format!("{name}{}", self.path);
        self
    }

    fn field(self, name: &str) -> Self {
        self.below(&format!(".{name}"))
    }
}

impl<'a> Cell<'a> {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn int(&self) -> Option<i64> {
        match self {
            Self::Int(int) => i64::try_from(*int).ok(),
            _ => None,
        }
    }

    pub(super) fn is_true(&self) -> bool {
        matches!(self, Self::Bool(true))
    }

    /// A struct's field by number; null of a null struct.
    pub(super) fn field(&self, number: usize) -> Cell<'a> {
        match self {
            Self::Struct(fields) => fields.get(number).cloned().unwrap_or(Self::Null),
            _ => Self::Null,
        }
    }

    /// What JSON says, for a column. A struct that leaves fields out has nulls there.
    pub(super) fn from_json(value: &'a Value, column: &Column) -> Result<Self, Misfit> {
        match value {
            Value::Object(fields) if !column.fields.is_empty() => {
                Self::object(fields, column, |_| Ok(Self::Null))
            }
            _ => Self::of_type(value, &column.field),
        }
    }

    /// A struct of which `fields` are set, and the others are what `otherwise` says by their number.
    pub(super) fn object(
        fields: &'a Map<String, Value>,
        column: &Column,
        otherwise: impl Fn(usize) -> Result<Self, Misfit>,
    ) -> Result<Self, Misfit> {
        let mut found = 0;
        let mut cells = Vec::with_capacity(column.fields.len());
        for (number, field) in column.fields.iter().enumerate() {
            let cell = match fields.get(field.name()) {
                Some(value) => {
                    found += 1;
                    Self::from_json(value, field).map_err(|misfit| misfit.field(field.name()))?
                }
                None => otherwise(number)?,
            };
            if cell == Self::Null && !field.field.is_nullable() {
                return Err(Misfit::new(&Value::Null, expected(&field.field)).field(field.name()));
            }
            cells.push(cell);
        }
        if found < fields.len() {
            let is_field = |name: &str| column.fields.iter().any(|field| field.name() == name);
            let unknown = fields.keys().find(|name| !is_field(name));
            let no_field = Misfit {
                path: String::new(),
                what: What::NoField,
            };
            return Err(no_field.field(unknown.map_or("", String::as_str)));
        }
        Ok(Self::Struct(cells))
    }

    fn of_type(value: &'a Value, field: &Field) -> Result<Self, Misfit> {
        let misfit = || Misfit::new(value, expected(field));
        if value.is_null() {
            return match field.is_nullable() {
                true => Ok(Self::Null),
                false => Err(misfit()),
            };
        }
        let int = |low: i128, high: i128| {
            let int = value.as_i64().map(i128::from);
            let int = int.or_else(|| value.as_u64().map(i128::from));
            int.filter(|int| (low..=high).contains(int))
                .map(Self::Int)
                .ok_or_else(misfit)
        };
        match field.data_type() {
            DataType::Utf8 | DataType::LargeUtf8 => {
                let text = value.as_str().ok_or_else(misfit)?;
                Ok(Self::Text(Cow::Borrowed(text)))
            }
            DataType::Boolean => value.as_bool().map(Self::Bool).ok_or_else(misfit),
            DataType::Int8 => int(i8::MIN.into(), i8::MAX.into()),
            DataType::Int16 => int(i16::MIN.into(), i16::MAX.into()),
            DataType::Int32 => int(i32::MIN.into(), i32::MAX.into()),
            DataType::Int64 => int(i64::MIN.into(), i64::MAX.into()),
            DataType::UInt8 => int(0, u8::MAX.into()),
            DataType::UInt16 => int(0, u16::MAX.into()),
            DataType::UInt32 => int(0, u32::MAX.into()),
            DataType::UInt64 => int(0, u64::MAX.into()),
            DataType::Float64 => {
                let float = value.as_f64().filter(|float| float.is_finite());
                float.map(Self::Float).ok_or_else(misfit)
            }
            DataType::Float32 => {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "to the nearest; infinity is refused below"
                )]
                let float = value.as_f64().map(|float| float as f32);
                let float = float.filter(|float| float.is_finite());
                float
                    .map(|float| Self::Float(float.into()))
                    .ok_or_else(misfit)
            }
            DataType::Timestamp(unit, _) => {
                timestamp(value, *unit).map(Self::Int).ok_or_else(misfit)
            }
            DataType::List(item) if is_plain(item.data_type()) => {
                let items = value.as_array().ok_or_else(misfit)?;
                let items = items
                    .iter()
                    .map(|value| Self::of_type(value, item).map_err(|misfit| misfit.below("[]")));
                Ok(Self::List(items.collect::<Result<_, _>>()?))
            }
            _ => Err(misfit()),
        }
    }

    /// One value of an array.
    pub(super) fn from_array(array: &'a ArrayRef, row: usize) -> Self {
        if row >= array.len() || array.is_null(row) {
            return Self::Null;
        }
        let primitive = int_of(array, row);
        if let Some(int) = primitive {
            return Self::Int(int);
        }
        match array.data_type() {
            DataType::Utf8 => Self::Text(Cow::Borrowed(array.as_string::<i32>().value(row))),
            DataType::LargeUtf8 => Self::Text(Cow::Borrowed(array.as_string::<i64>().value(row))),
            DataType::Boolean => Self::Bool(array.as_boolean().value(row)),
            DataType::Float32 => Self::Float(array.as_primitive::<Float32Type>().value(row).into()),
            DataType::Float64 => Self::Float(array.as_primitive::<Float64Type>().value(row)),
            DataType::List(item) if is_plain(item.data_type()) => {
                let list = array.as_list::<i32>();
                let offsets = list.value_offsets();
                let at = |row: usize| {
                    offsets
                        .get(row)
                        .and_then(|&at| usize::try_from(at).ok())
                        .unwrap_or(0)
                };
                let items = at(row)..at(row + 1);
                Self::List(
                    items
                        .map(|item| Self::from_array(list.values(), item))
                        .collect(),
                )
            }
            DataType::Struct(_) => {
                let columns = array.as_struct().columns().iter();
                Self::Struct(
                    columns
                        .map(|column| Self::from_array(column, row))
                        .collect(),
                )
            }
            _ => Self::Other(array.slice(row, 1)),
        }
    }
}

/// What a message prints: JSON, as far as JSON can say it.
pub(super) fn shown(cell: &Cell<'_>) -> String {
    fn json(cell: &Cell<'_>) -> Value {
        match cell {
            Cell::Null => Value::Null,
            Cell::Bool(bool) => Value::Bool(*bool),
            Cell::Int(int) => {
                i64::try_from(*int).map_or_else(|_| int.to_string().into(), Value::from)
            }
            Cell::Float(float) => Value::from(*float),
            Cell::Text(text) => Value::from(text.as_ref()),
            Cell::List(items) | Cell::Struct(items) => items.iter().map(json).collect(),
            Cell::Other(array) => format!("a value of type {}", array.data_type()).into(),
        }
    }
    shorten(json(cell))
}

/// Types whose values JSON says directly.
fn is_plain(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) => is_plain(item.data_type()),
        DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Boolean
        | DataType::Float32
        | DataType::Float64
        | DataType::Timestamp(..) => true,
        other => other.is_integer(),
    }
}

/// What fits a field, for a message.
fn expected(field: &Field) -> String {
    let what = match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 => "text".to_owned(),
        DataType::Boolean => "true or false".to_owned(),
        DataType::Int32 => "an integer that fits int32".to_owned(),
        DataType::Float32 => "a number that fits float32".to_owned(),
        DataType::Float64 => "a number that fits float64".to_owned(),
        DataType::Timestamp(..) => {
            "a time: milliseconds since the epoch, or text as 2026-01-02T03:04:05.678Z or 2026-01-02"
                .to_owned()
        }
        DataType::List(item) if *item.data_type() == DataType::Utf8 => "a list of texts".to_owned(),
        DataType::List(item) if is_plain(item.data_type()) => "a list".to_owned(),
        DataType::Struct(_) => "an object".to_owned(),
        other if other.is_integer() => {
            format!("an integer that fits {}", other.to_string().to_lowercase())
        }
        other => format!("anything but null (it is {other}: write it with Arrow)"),
    };
    if field.is_nullable() {
        format!("{what}, or null")
    } else {
        what
    }
}

/// Milliseconds, or RFC 3339 text, or the date (UTC) that the time begins, in a column's unit. What is below the unit is
/// dropped, towards the past.
fn timestamp(value: &Value, unit: TimeUnit) -> Option<i128> {
    let micros = match value {
        Value::String(text) => {
            // As filters read them.
            let time = match NaiveDate::parse_from_str(text, "%Y-%m-%d") {
                Ok(date) if text.len() == 10 => date.and_time(NaiveTime::MIN).and_utc(),
                _ => DateTime::parse_from_rfc3339(text).ok()?.to_utc(),
            };
            i128::from(time.timestamp()) * 1_000_000 + i128::from(time.timestamp_subsec_micros())
        }
        _ => i128::from(value.as_i64()?) * 1_000,
    };
    let time = match unit {
        TimeUnit::Second => micros.div_euclid(1_000_000),
        TimeUnit::Millisecond => micros.div_euclid(1_000),
        TimeUnit::Microsecond => micros,
        TimeUnit::Nanosecond => micros * 1_000,
    };
    i64::try_from(time).is_ok().then_some(time)
}

/// Calls a macro with the Arrow type of each integer and timestamp.
macro_rules! integers {
    ($call:ident, $data_type:expr, $otherwise:expr) => {
        match $data_type {
            DataType::Int8 => $call!(Int8Type),
            DataType::Int16 => $call!(Int16Type),
            DataType::Int32 => $call!(Int32Type),
            DataType::Int64 => $call!(Int64Type),
            DataType::UInt8 => $call!(UInt8Type),
            DataType::UInt16 => $call!(UInt16Type),
            DataType::UInt32 => $call!(UInt32Type),
            DataType::UInt64 => $call!(UInt64Type),
            DataType::Timestamp(TimeUnit::Second, _) => $call!(TimestampSecondType),
            DataType::Timestamp(TimeUnit::Millisecond, _) => $call!(TimestampMillisecondType),
            DataType::Timestamp(TimeUnit::Microsecond, _) => $call!(TimestampMicrosecondType),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => $call!(TimestampNanosecondType),
            _ => $otherwise,
        }
    };
}

fn int_of(array: &ArrayRef, row: usize) -> Option<i128> {
    macro_rules! get {
        ($of:ty) => {
            Some(i128::from(array.as_primitive::<$of>().value(row)))
        };
    }
    integers!(get, array.data_type(), None)
}

/// A column of these values.
///
/// # Errors
///
/// Only if a cell is not of the type, which [`Cell::from_json`] and [`Cell::from_array`] do not make.
pub(super) fn column(data_type: &DataType, cells: &[&Cell<'_>]) -> Result<ArrayRef, ArrowError> {
    macro_rules! ints {
        ($of:ty) => {{
            let ints = cells.iter().map(|cell| match cell {
                Cell::Int(int) => (*int).try_into().ok(),
                _ => None,
            });
            let ints: PrimitiveArray<$of> = ints.collect();
            Ok(Arc::new(ints.with_data_type(data_type.clone())))
        }};
    }
    let floats = cells.iter().map(|cell| match cell {
        Cell::Float(float) => Some(*float),
        _ => None,
    });
    match data_type {
        DataType::Utf8 => Ok(Arc::new(
            cells
                .iter()
                .map(|cell| cell.text())
                .collect::<GenericStringArray<i32>>(),
        )),
        DataType::LargeUtf8 => Ok(Arc::new(
            cells
                .iter()
                .map(|cell| cell.text())
                .collect::<GenericStringArray<i64>>(),
        )),
        DataType::Boolean => {
            let bools = cells.iter().map(|cell| match cell {
                Cell::Bool(bool) => Some(*bool),
                _ => None,
            });
            Ok(Arc::new(bools.collect::<BooleanArray>()))
        }
        DataType::Float32 => {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the cell was made of a float32"
            )]
            let floats = floats.map(|float| float.map(|float| float as f32));
            Ok(Arc::new(floats.collect::<PrimitiveArray<Float32Type>>()))
        }
        DataType::Float64 => Ok(Arc::new(floats.collect::<PrimitiveArray<Float64Type>>())),
        DataType::List(item) if is_plain(item.data_type()) => {
            let items = |cell: &&Cell<'_>| match cell {
                Cell::List(items) => items.len(),
                _ => 0,
            };
            let offsets = OffsetBuffer::from_lengths(cells.iter().map(items));
            let values: Vec<&Cell<'_>> = cells
                .iter()
                .filter_map(|cell| match cell {
                    Cell::List(items) => Some(items),
                    _ => None,
                })
                .flatten()
                .collect();
            let values = column(item.data_type(), &values)?;
            Ok(Arc::new(ListArray::try_new(
                Arc::clone(item),
                offsets,
                values,
                valid(cells),
            )?))
        }
        DataType::Struct(fields) => {
            let mut columns = Vec::with_capacity(fields.len());
            for (number, field) in fields.iter().enumerate() {
                let values: Vec<&Cell<'_>> = cells
                    .iter()
                    .map(|cell| match cell {
                        Cell::Struct(fields) => fields.get(number).unwrap_or(&Cell::Null),
                        _ => &Cell::Null,
                    })
                    .collect();
                columns.push(column(field.data_type(), &values)?);
            }
            let made = StructArray::try_new_with_length(
                fields.clone(),
                columns,
                valid(cells),
                cells.len(),
            )?;
            Ok(Arc::new(made))
        }
        _ => integers!(ints, data_type, others(data_type, cells)),
    }
}

/// Which cells are not null; `None` if none is.
fn valid(cells: &[&Cell<'_>]) -> Option<NullBuffer> {
    let nulls: NullBuffer = cells
        .iter()
        .map(|cell| !matches!(cell, Cell::Null))
        .collect();
    (nulls.null_count() > 0).then_some(nulls)
}

fn others(data_type: &DataType, cells: &[&Cell<'_>]) -> Result<ArrayRef, ArrowError> {
    let null = new_null_array(data_type, 1);
    let values: Vec<&dyn Array> = cells
        .iter()
        .map(|cell| match cell {
            Cell::Other(value) => value.as_ref(),
            _ => null.as_ref(),
        })
        .collect();
    match values.is_empty() {
        true => Ok(new_null_array(data_type, 0)),
        false => concat(&values),
    }
}
