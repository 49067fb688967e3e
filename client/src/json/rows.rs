//! Rows of Arrow tables as JSON, one at a time.
//!
//! Every column, in schema order. Structs are objects, lists arrays, maps arrays of their
//! entries, nulls `null`. Timestamps are text in UTC with the digits that their unit has
//! (`2026-01-02T03:04:05.678Z` for milliseconds; the bare number where no calendar reaches).
//! Floats have the fewest digits that read back as the same float of their own width; NaN
//! and the infinities, which JSON does not have, are `null`. Integers are numbers, 64 bits
//! wide if need be. Binary is lower-case hexadecimal text. Decimals are text, exactly; what
//! else there is, is text as Arrow prints it.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, RecordBatch};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{ArrowError, DataType, Fields, TimeUnit};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value;

use super::JsonError;

/// Writes rows of one batch.
pub struct Rows<'a> {
    cells: Object<'a>,
}

/// Writes the values of one column.
pub struct Cells<'a>(Cell<'a>);

impl<'a> Cells<'a> {
    /// Fails for a column of a kind that cannot be printed.
    pub fn new(name: &str, column: &'a dyn Array) -> Result<Self, JsonError> {
        let cells = cell(column).map_err(|source| JsonError {
            column: name.to_owned(),
            source,
        })?;
        Ok(Self(cells))
    }

    /// Appends the value of one row to `out`.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) {
        (self.0)(row, out);
    }
}

/// Appends one value of a column.
type Cell<'a> = Box<dyn Fn(usize, &mut Vec<u8>) + 'a>;
/// Names, as they stand in front of their values, and the values.
type Object<'a> = Vec<(Vec<u8>, Cell<'a>)>;

impl<'a> Rows<'a> {
    /// Fails for a column of a kind that cannot be printed.
    pub fn new(batch: &'a RecordBatch) -> Result<Self, JsonError> {
        let schema = batch.schema_ref();
        let cells = object(schema.fields(), batch.columns())
            .map_err(|(column, source)| JsonError { column, source })?;
        Ok(Self { cells })
    }

    /// Appends the object of one row to `out`.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) {
        write_object(&self.cells, row, out);
    }

    /// The object of one row.
    #[must_use]
    pub fn value(&self, row: usize) -> Value {
        let mut text = Vec::with_capacity(512);
        self.write(row, &mut text);
        // What is written is JSON.
        serde_json::from_slice(&text).unwrap_or_default()
    }
}

/// Appends `text` as a JSON string.
pub fn string(text: &str, out: &mut Vec<u8>) {
    // A Vec takes every byte and a str is always a JSON string: this does not fail.
    let _ = serde_json::to_writer(out, text);
}

fn object<'a>(
    fields: &Fields,
    columns: &'a [ArrayRef],
) -> Result<Object<'a>, (String, ArrowError)> {
    let cells = fields.iter().zip(columns).map(|(field, column)| {
        let mut name = Vec::with_capacity(field.name().len() + 3);
        string(field.name(), &mut name);
        name.push(b':');
        let cell = cell(column).map_err(|error| (field.name().clone(), error))?;
        Ok((name, cell))
    });
    cells.collect()
}

fn write_object(cells: &Object<'_>, row: usize, out: &mut Vec<u8>) {
    out.push(b'{');
    for (place, (name, cell)) in cells.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(name);
        cell(row, out);
    }
    out.push(b'}');
}

/// A column, nulls included.
fn cell(array: &dyn Array) -> Result<Cell<'_>, ArrowError> {
    let value = value(array)?;
    Ok(Box::new(move |row, out| {
        if array.is_null(row) {
            out.extend_from_slice(b"null");
        } else {
            value(row, out);
        }
    }))
}

/// The values of a column where it is not null.
fn value(array: &dyn Array) -> Result<Cell<'_>, ArrowError> {
    Ok(match array.data_type() {
        DataType::Null => Box::new(|_, out| out.extend_from_slice(b"null")),
        DataType::Boolean => {
            let array = array.as_boolean();
            Box::new(move |row, out| {
                let text: &[u8] = if array.value(row) { b"true" } else { b"false" };
                out.extend_from_slice(text);
            })
        }
        DataType::Int8 => number::<Int8Type>(array),
        DataType::Int16 => number::<Int16Type>(array),
        DataType::Int32 => number::<Int32Type>(array),
        DataType::Int64 => number::<Int64Type>(array),
        DataType::UInt8 => number::<UInt8Type>(array),
        DataType::UInt16 => number::<UInt16Type>(array),
        DataType::UInt32 => number::<UInt32Type>(array),
        DataType::UInt64 => number::<UInt64Type>(array),
        DataType::Float16 => {
            let array = array.as_primitive::<Float16Type>();
            Box::new(move |row, out| float(&array.value(row).to_f32(), out))
        }
        DataType::Float32 => {
            let array = array.as_primitive::<Float32Type>();
            Box::new(move |row, out| float(&array.value(row), out))
        }
        DataType::Float64 => {
            let array = array.as_primitive::<Float64Type>();
            Box::new(move |row, out| {
                let _ = serde_json::to_writer(out, &array.value(row));
            })
        }
        DataType::Utf8 => {
            let array = array.as_string::<i32>();
            Box::new(move |row, out| string(array.value(row), out))
        }
        DataType::LargeUtf8 => {
            let array = array.as_string::<i64>();
            Box::new(move |row, out| string(array.value(row), out))
        }
        DataType::Binary => {
            let array = array.as_binary::<i32>();
            Box::new(move |row, out| hex(array.value(row), out))
        }
        DataType::LargeBinary => {
            let array = array.as_binary::<i64>();
            Box::new(move |row, out| hex(array.value(row), out))
        }
        DataType::FixedSizeBinary(_) => {
            let array = array.as_fixed_size_binary();
            Box::new(move |row, out| hex(array.value(row), out))
        }
        DataType::Timestamp(TimeUnit::Second, _) => timestamp::<TimestampSecondType>(
            array,
            |value| DateTime::from_timestamp(value, 0),
            SecondsFormat::Secs,
        ),
        DataType::Timestamp(TimeUnit::Millisecond, _) => timestamp::<TimestampMillisecondType>(
            array,
            DateTime::from_timestamp_millis,
            SecondsFormat::Millis,
        ),
        DataType::Timestamp(TimeUnit::Microsecond, _) => timestamp::<TimestampMicrosecondType>(
            array,
            DateTime::from_timestamp_micros,
            SecondsFormat::Micros,
        ),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => timestamp::<TimestampNanosecondType>(
            array,
            |value| Some(DateTime::from_timestamp_nanos(value)),
            SecondsFormat::Nanos,
        ),
        DataType::Struct(fields) => {
            let cells = object(fields, array.as_struct().columns()).map_err(|(_, error)| error)?;
            Box::new(move |row, out| write_object(&cells, row, out))
        }
        DataType::List(_) => {
            let array = array.as_list::<i32>();
            let offsets = array.value_offsets();
            items(array.values(), move |row| {
                usize::try_from(offsets[row]).unwrap_or(0)
                    ..usize::try_from(offsets[row + 1]).unwrap_or(0)
            })?
        }
        DataType::LargeList(_) => {
            let array = array.as_list::<i64>();
            let offsets = array.value_offsets();
            items(array.values(), move |row| {
                usize::try_from(offsets[row]).unwrap_or(0)
                    ..usize::try_from(offsets[row + 1]).unwrap_or(0)
            })?
        }
        DataType::FixedSizeList(_, size) => {
            let array = array.as_fixed_size_list();
            let size = usize::try_from(*size).unwrap_or(0);
            items(array.values(), move |row| row * size..(row + 1) * size)?
        }
        DataType::Map(_, _) => {
            let array = array.as_map();
            let offsets = array.value_offsets();
            items(array.entries(), move |row| {
                usize::try_from(offsets[row]).unwrap_or(0)
                    ..usize::try_from(offsets[row + 1]).unwrap_or(0)
            })?
        }
        _ => {
            let options = FormatOptions::new().with_display_error(true);
            let format = ArrayFormatter::try_new(array, &options)?;
            Box::new(move |row, out| string(&format.value(row).to_string(), out))
        }
    })
}

fn number<T>(array: &dyn Array) -> Cell<'_>
where
    T: ArrowPrimitiveType,
    T::Native: std::fmt::Display,
{
    use std::io::Write as _;
    let array = array.as_primitive::<T>();
    Box::new(move |row, out| {
        // A Vec takes every byte.
        let _ = write!(out, "{}", array.value(row));
    })
}

/// As `f32`, not by way of `f64`: 0.3 and not 0.30000001192092896.
fn float(value: &f32, out: &mut Vec<u8>) {
    let _ = serde_json::to_writer(out, value);
}

fn timestamp<T: ArrowPrimitiveType<Native = i64>>(
    array: &dyn Array,
    time: impl Fn(i64) -> Option<DateTime<Utc>> + 'static,
    digits: SecondsFormat,
) -> Cell<'_> {
    use std::io::Write as _;
    let array = array.as_primitive::<T>();
    Box::new(move |row, out| {
        let value = array.value(row);
        match time(value) {
            Some(time) => string(&time.to_rfc3339_opts(digits, true), out),
            None => {
                let _ = write!(out, "{value}");
            }
        }
    })
}

fn items<'a>(
    values: &'a dyn Array,
    range: impl Fn(usize) -> std::ops::Range<usize> + 'a,
) -> Result<Cell<'a>, ArrowError> {
    let cell = cell(values)?;
    Ok(Box::new(move |row, out| {
        out.push(b'[');
        for (place, item) in range(row).enumerate() {
            if place > 0 {
                out.push(b',');
            }
            cell(item, out);
        }
        out.push(b']');
    }))
}

fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests;
