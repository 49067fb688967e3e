//! Rows as JSON, in the form that transactions have: timestamps are milliseconds, floats that are no number are null.

use std::fmt::Write;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMillisecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{DataType, TimeUnit};

/// Appends `text` as a JSON string.
pub(super) fn push_text(out: &mut String, text: &str) {
    match serde_json::to_string(text) {
        Ok(quoted) => out.push_str(&quoted),
        Err(_) => out.push_str("null"),
    }
}

/// Appends a row as an object of all its columns.
pub(super) fn push_row(out: &mut String, batch: &RecordBatch, row: usize) {
    out.push('{');
    for (at, (field, column)) in batch
        .schema_ref()
        .fields()
        .iter()
        .zip(batch.columns())
        .enumerate()
    {
        if at > 0 {
            out.push(',');
        }
        push_text(out, field.name());
        out.push(':');
        push_value(out, column, row);
    }
    out.push('}');
}

/// Appends one value.
fn push_value(out: &mut String, column: &dyn Array, row: usize) {
    if column.is_null(row) {
        out.push_str("null");
        return;
    }
    macro_rules! number {
        ($type:ty) => {
            push_display(out, column.as_primitive::<$type>().value(row))
        };
    }
    match column.data_type() {
        DataType::Utf8 => push_text(out, column.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => push_text(out, column.as_string::<i64>().value(row)),
        DataType::Boolean => push_display(out, column.as_boolean().value(row)),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float32 => push_float(out, column.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => push_float(out, column.as_primitive::<Float64Type>().value(row)),
        DataType::Timestamp(TimeUnit::Millisecond, _) => number!(TimestampMillisecondType),
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            out.push('[');
            for item in 0..items.len() {
                if item > 0 {
                    out.push(',');
                }
                push_value(out, &items, item);
            }
            out.push(']');
        }
        DataType::Struct(fields) => {
            out.push('{');
            for (at, (field, column)) in fields.iter().zip(column.as_struct().columns()).enumerate()
            {
                if at > 0 {
                    out.push(',');
                }
                push_text(out, field.name());
                out.push(':');
                push_value(out, column, row);
            }
            out.push('}');
        }
        // Carried-through columns of types that a transaction cannot set either.
        _ => match ArrayFormatter::try_new(column, &FormatOptions::default()) {
            Ok(shown) => push_text(out, &shown.value(row).to_string()),
            Err(_) => out.push_str("null"),
        },
    }
}

fn push_display(out: &mut String, value: impl std::fmt::Display) {
    let _a_string_takes_all = write!(out, "{value}");
}

/// The shortest text that reads back as the same number.
fn push_float<T: serde::Serialize>(out: &mut String, value: T) {
    match serde_json::to_string(&value) {
        Ok(text) => out.push_str(&text),
        Err(_) => out.push_str("null"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::builder::{ListBuilder, StringBuilder};
    use arrow_array::{
        ArrayRef, BinaryArray, Float32Array, Float64Array, StringArray, StructArray,
        TimestampMillisecondArray,
    };
    use arrow_schema::Field;
    use serde_json::{Value, json};

    use super::*;

    fn shown(batch: &RecordBatch, row: usize) -> Value {
        let mut out = String::new();
        push_row(&mut out, batch, row);
        serde_json::from_str(&out).expect(&out)
    }

    #[test]
    fn every_kind_of_value_is_json_that_a_transaction_takes() {
        let columns: [(&str, ArrayRef); 5] = [
            ("id", Arc::new(StringArray::from(vec!["a\"\u{1}é", "b"]))),
            ("load", Arc::new(Float32Array::from(vec![0.1, f32::NAN]))),
            (
                "wide",
                Arc::new(Float64Array::from(vec![1e300, f64::INFINITY])),
            ),
            (
                "at",
                Arc::new(TimestampMillisecondArray::from(vec![Some(1_500), None])),
            ),
            ("raw", Arc::new(BinaryArray::from(vec![&b"\xff"[..], b""]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let first = json!({"id": "a\"\u{1}é", "load": 0.1, "wide": 1e300, "at": 1500, "raw": "ff"});
        assert_eq!(shown(&batch, 0), first);
        let second = json!({"id": "b", "load": null, "wide": null, "at": null, "raw": ""});
        assert_eq!(shown(&batch, 1), second);
    }

    #[test]
    fn nested_values_of_the_schema_are_shown_whole() {
        let mut peers = ListBuilder::new(StringBuilder::new());
        peers.append_value([Some("p"), None]);
        let fields = [
            (
                Field::new("cpu_load", DataType::Float32, true),
                Float32Array::from(vec![0.5]),
            ),
            (
                Field::new("spare", DataType::Float32, true),
                Float32Array::from(vec![None]),
            ),
        ];
        let fields = fields.map(|(field, values)| (Arc::new(field), Arc::new(values) as ArrayRef));
        let columns: [(&str, ArrayRef); 2] = [
            ("peers", Arc::new(peers.finish())),
            ("resources", Arc::new(StructArray::from(fields.to_vec()))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let expected = json!({"peers": ["p", null], "resources": {"cpu_load": 0.5, "spare": null}});
        assert_eq!(shown(&batch, 0), expected);
    }
}
