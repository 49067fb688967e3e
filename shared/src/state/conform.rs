//! Columns as others write them, made into columns of the schema's types.
//!
//! Whole columns at a time, and without a copy where the type already fits. What is accepted for what:
//!
//! | the schema's type | is made from |
//! |---|---|
//! | utf8 | utf8, large utf8, utf8 view, dictionaries of those |
//! | int32, int64 | any signed or unsigned integer whose values fit; float64 whose values are whole and fit (pandas has no other way to write an integer column with gaps) |
//! | float32 | float16, float64 and integers, rounded to the nearest float32 |
//! | bool | bool |
//! | timestamp(ms), UTC | any unit and zone (a time without a zone is taken as UTC; what is below a millisecond is dropped, towards the past), and float64 seconds since the epoch |
//! | list of utf8 | list, large list, fixed-size list and list view of any of the strings above |
//! | struct | struct: fields go by name, missing ones become null, unknown ones are carried through |
//! | any | null (a column without values, as inferred by writers that had none) |
//!
//! Dictionaries are decoded first, whatever they hold. A value that does not fit is an error, never a null.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int64Type, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use arrow_array::{
    Array, ArrayRef, BooleanArray, ListArray, PrimitiveArray, StructArray, new_null_array,
};
use arrow_buffer::NullBuffer;
use arrow_cast::display::array_value_to_string;
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field, FieldRef, Fields, TimeUnit};
use arrow_select::nullif::nullif;

use super::error::StateError;
use crate::schema::TIMESTAMP;

/// Why a column does not fit: an error that may yet have to learn which row it is about.
#[derive(Debug)]
pub(crate) enum Misfit {
    /// Nothing to add.
    Whole(StateError),
    /// One value, by its index in the column.
    Value {
        column: String,
        index: usize,
        value: String,
        expected: String,
    },
}

impl From<StateError> for Misfit {
    fn from(error: StateError) -> Self {
        Misfit::Whole(error)
    }
}

/// Makes `array` into an array of type `to`. `column` names it in errors.
///
/// The result's type is `to`, but for structs: those keep unknown fields after the known ones.
pub(crate) fn conform(array: &ArrayRef, to: &DataType, column: &str) -> Result<ArrayRef, Misfit> {
    let from = array.data_type();
    if let DataType::Null = from {
        return Ok(new_null_array(to, array.len()));
    }
    if let DataType::Dictionary(_, value_type) = from {
        return conform(&recast(array, value_type, column)?, to, column);
    }
    match to {
        DataType::Struct(fields) => conform_struct(array, fields, column),
        _ if from == to => Ok(Arc::clone(array)),
        DataType::Utf8 if is_string(from) => Ok(recast(array, to, column)?),
        DataType::Int32 | DataType::Int64 if from.is_integer() => {
            let options = CastOptions {
                safe: true,
                ..Default::default()
            };
            let ints =
                cast_with_options(array, to, &options).map_err(|_| wrong_type(column, from, to))?;
            no_new_null(array, ints, column, to)
        }
        DataType::Int32 | DataType::Int64 if *from == DataType::Float64 => {
            let whole = whole_numbers(array.as_primitive());
            conform(
                &no_new_null(array, Arc::new(whole), column, to)?,
                to,
                column,
            )
        }
        DataType::Float32 if from.is_numeric() && !is_decimal(from) => {
            let floats = recast(array, to, column)?;
            no_new_infinity(array, floats, column, to)
        }
        &TIMESTAMP => conform_timestamp(array, column),
        DataType::List(item) => conform_list(array, item, column),
        _ => Err(wrong_type(column, from, to).into()),
    }
}

/// The columns of a table or the fields of a struct: the known ones in order, then all others in theirs.
pub(crate) fn conform_fields(
    known: &Fields,
    fields: &Fields,
    columns: &[ArrayRef],
    len: usize,
    path: &str,
) -> Result<(Vec<FieldRef>, Vec<ArrayRef>), Misfit> {
    let mut names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(StateError::TwoColumns {
            column: join(path, pair[0]),
        }
        .into());
    }
    let mut out_fields = Vec::with_capacity(known.len());
    let mut out_columns = Vec::with_capacity(known.len());
    for field in known {
        let array = match fields.find(field.name()) {
            Some((index, _)) => conform(
                &columns[index],
                field.data_type(),
                &join(path, field.name()),
            )?,
            None => new_null_array(field.data_type(), len),
        };
        out_fields.push(if array.data_type() == field.data_type() {
            Arc::clone(field)
        } else {
            Arc::new(
                field
                    .as_ref()
                    .clone()
                    .with_data_type(array.data_type().clone()),
            )
        });
        out_columns.push(array);
    }
    for (field, array) in fields.iter().zip(columns) {
        if known.find(field.name()).is_none() {
            let column = join(path, field.name());
            let plain = plain_field(field, &column)?;
            out_columns.push(if array.data_type() == plain.data_type() {
                Arc::clone(array)
            } else {
                recast(array, plain.data_type(), &column)?
            });
            out_fields.push(Arc::new(plain.with_nullable(true)));
        }
    }
    Ok((out_fields, out_columns))
}

/// `path.name`, or `name` at the top.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// The error for a column of a type that nothing can be made of.
pub(crate) fn wrong_type(column: &str, found: &DataType, expected: &DataType) -> StateError {
    let expected = match expected {
        DataType::Utf8 => "a string".to_owned(),
        DataType::Int32 => "an integer that fits int32".to_owned(),
        DataType::Int64 => "an integer that fits int64".to_owned(),
        DataType::Float32 => "a number (float32)".to_owned(),
        DataType::Boolean => "a bool".to_owned(),
        &TIMESTAMP => "a timestamp".to_owned(),
        DataType::List(item) if *item.data_type() == DataType::Utf8 => {
            "a list of strings".to_owned()
        }
        DataType::List(_) => "a list of structs".to_owned(),
        DataType::Struct(_) => "a struct".to_owned(),
        other => other.to_string(),
    };
    StateError::WrongType {
        column: column.to_owned(),
        found: found.to_string(),
        expected,
    }
}

fn is_string(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    )
}

fn is_decimal(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Decimal32(..)
            | DataType::Decimal64(..)
            | DataType::Decimal128(..)
            | DataType::Decimal256(..)
    )
}

/// A cast that keeps every value: what can fail in it is only the room that 32-bit offsets give.
fn recast(array: &ArrayRef, to: &DataType, column: &str) -> Result<ArrayRef, StateError> {
    let from = array.data_type();
    if !arrow_cast::can_cast_types(from, to) {
        return Err(StateError::Unsupported {
            column: column.to_owned(),
            found: from.to_string(),
        });
    }
    let options = CastOptions {
        safe: false,
        ..Default::default()
    };
    cast_with_options(array, to, &options).map_err(|_| StateError::TooLarge {
        column: column.to_owned(),
    })
}

fn value_misfit(source: &ArrayRef, index: usize, column: &str, to: &DataType) -> Misfit {
    Misfit::Value {
        column: column.to_owned(),
        index,
        value: array_value_to_string(source, index).unwrap_or_else(|_| "a value".to_owned()),
        expected: to.to_string(),
    }
}

/// A conversion that turned a value into null met one that does not fit.
fn no_new_null(
    source: &ArrayRef,
    made: ArrayRef,
    column: &str,
    to: &DataType,
) -> Result<ArrayRef, Misfit> {
    if made.null_count() == source.null_count() {
        return Ok(made);
    }
    match (0..made.len()).find(|&i| made.is_null(i) && source.is_valid(i)) {
        Some(index) => Err(value_misfit(source, index, column, to)),
        None => Ok(made),
    }
}

/// Null where a float is no integer, or one beyond those that doubles count without gaps.
fn whole_numbers(floats: &PrimitiveArray<Float64Type>) -> PrimitiveArray<Int64Type> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    floats.unary_opt(|value| {
        let whole = value.fract() == 0.0 && value.abs() <= EXACT;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "whole and in range, checked above"
        )]
        whole.then_some(value as i64)
    })
}

fn no_new_infinity(
    source: &ArrayRef,
    made: ArrayRef,
    column: &str,
    to: &DataType,
) -> Result<ArrayRef, Misfit> {
    let floats = made.as_primitive::<Float32Type>();
    let was_infinite = |i: usize| {
        source
            .as_primitive_opt::<Float64Type>()
            .is_some_and(|wide| wide.value(i).is_infinite())
            || *source.data_type() == DataType::Float16
    };
    let overflow =
        |i: usize| floats.value(i).is_infinite() && floats.is_valid(i) && !was_infinite(i);
    match (0..floats.len()).find(|&i| overflow(i)) {
        Some(index) => Err(value_misfit(source, index, column, to)),
        None => Ok(made),
    }
}

fn conform_timestamp(array: &ArrayRef, column: &str) -> Result<ArrayRef, Misfit> {
    type Millis = PrimitiveArray<TimestampMillisecondType>;
    let made: Millis = match array.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => array
            .as_primitive::<TimestampSecondType>()
            .unary_opt(|seconds| seconds.checked_mul(1_000)),
        DataType::Timestamp(TimeUnit::Millisecond, _) => array
            .as_primitive::<TimestampMillisecondType>()
            .clone()
            .with_timezone_opt(None::<Arc<str>>),
        DataType::Timestamp(TimeUnit::Microsecond, _) => array
            .as_primitive::<TimestampMicrosecondType>()
            .unary(|micros| micros.div_euclid(1_000)),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => array
            .as_primitive::<TimestampNanosecondType>()
            .unary(|nanos| nanos.div_euclid(1_000_000)),
        DataType::Float64 => array.as_primitive::<Float64Type>().unary_opt(|seconds| {
            // The nearest, not the one below: 1.7e9 + 0.123 is a little less than that in binary.
            let millis = (seconds * 1_000.0).round();
            // 2^62: far beyond any date, and exact as a float.
            let fits = millis.abs() <= 4_611_686_018_427_387_904.0;
            #[expect(
                clippy::cast_possible_truncation,
                reason = "whole and in range, checked above"
            )]
            fits.then_some(millis as i64)
        }),
        other => return Err(wrong_type(column, other, &TIMESTAMP).into()),
    };
    no_new_null(array, Arc::new(made), column, &TIMESTAMP)
}

fn conform_list(array: &ArrayRef, item: &FieldRef, column: &str) -> Result<ArrayRef, Misfit> {
    let from = array.data_type();
    let child = match from {
        DataType::List(child)
        | DataType::LargeList(child)
        | DataType::FixedSizeList(child, _)
        | DataType::ListView(child)
        | DataType::LargeListView(child) => child,
        _ => return Err(wrong_type(column, from, &DataType::List(Arc::clone(item))).into()),
    };
    let list = recast(array, &DataType::List(Arc::clone(child)), column)?;
    let (_, offsets, values, nulls) = list.as_list::<i32>().clone().into_parts();
    let values = conform(&values, item.data_type(), column).map_err(|misfit| match misfit {
        // "list<int> where a list of strings is needed" says more than "int where a string is needed".
        Misfit::Whole(StateError::WrongType { .. }) => {
            wrong_type(column, from, &DataType::List(Arc::clone(item))).into()
        }
        other => other,
    })?;
    let list = ListArray::try_new(Arc::clone(item), offsets, values, nulls)
        .map_err(|_| wrong_type(column, from, &DataType::List(Arc::clone(item))))?;
    Ok(Arc::new(list))
}

fn conform_struct(array: &ArrayRef, known: &Fields, column: &str) -> Result<ArrayRef, Misfit> {
    let Some(source) = array.as_struct_opt() else {
        let expected = DataType::Struct(known.clone());
        return Err(wrong_type(column, array.data_type(), &expected).into());
    };
    let mut children: Vec<ArrayRef> = source.columns().to_vec();
    if let Some(nulls) = source.nulls().filter(|nulls| nulls.null_count() > 0) {
        for child in &mut children {
            *child = under_nulls(child, nulls, column)?;
        }
    }
    let (fields, columns) =
        conform_fields(known, source.fields(), &children, source.len(), column)?;
    let made =
        StructArray::try_new(fields.into(), columns, source.nulls().cloned()).map_err(|_| {
            StateError::TooLarge {
                column: column.to_owned(),
            }
        })?;
    Ok(Arc::new(made))
}

/// A child of a struct, null wherever the struct is: what lies below a null struct is nobody's value, and must
/// not be checked, compared or shown as one.
fn under_nulls(
    child: &ArrayRef,
    parent: &NullBuffer,
    column: &str,
) -> Result<ArrayRef, StateError> {
    let hidden = NullBuffer::union(Some(parent), child.logical_nulls().as_ref());
    let hidden = hidden.map_or(0, |nulls| nulls.null_count());
    if hidden == child.logical_null_count() {
        return Ok(Arc::clone(child));
    }
    let mask = BooleanArray::new(!parent.inner(), None);
    nullif(child, &mask).map_err(|_| StateError::Unsupported {
        column: column.to_owned(),
        found: child.data_type().to_string(),
    })
}

/// The field as it is carried through: plain types all the way down, and no Parquet bookkeeping.
fn plain_field(field: &Field, column: &str) -> Result<Field, StateError> {
    let mut metadata = field.metadata().clone();
    metadata.retain(|name, _| !name.starts_with("PARQUET:"));
    let plain = plain_type(field.data_type(), column)?;
    Ok(Field::new(field.name(), plain, field.is_nullable()).with_metadata(metadata))
}

fn plain_type(data_type: &DataType, column: &str) -> Result<DataType, StateError> {
    let plain = |field: &FieldRef| plain_field(field, &join(column, field.name())).map(Arc::new);
    Ok(match data_type {
        DataType::Dictionary(_, values) => plain_type(values, column)?,
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(item) | DataType::ListView(item) => DataType::List(plain(item)?),
        DataType::LargeList(item) | DataType::LargeListView(item) => {
            DataType::LargeList(plain(item)?)
        }
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(plain(item)?, *size),
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(plain).collect::<Result<Fields, _>>()?)
        }
        DataType::Map(entries, sorted) => DataType::Map(plain(entries)?, *sorted),
        DataType::Union(..) | DataType::RunEndEncoded(..) => {
            return Err(StateError::Unsupported {
                column: column.to_owned(),
                found: data_type.to_string(),
            });
        }
        other => other.clone(),
    })
}

#[cfg(test)]
#[path = "conform_tests.rs"]
mod tests;
