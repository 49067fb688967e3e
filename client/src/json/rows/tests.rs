use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::{
    BinaryArray, BooleanArray, Decimal128Array, Float32Array, Float64Array, Int32Array, Int64Array,
    NullArray, StringArray, StructArray, TimestampMicrosecondArray, TimestampMillisecondArray,
    TimestampSecondArray, UInt64Array,
};
use arrow_schema::Field;

use super::*;

/// Every row of one column, as JSON text.
fn column(array: impl Array + 'static) -> Vec<String> {
    let array: ArrayRef = Arc::new(array);
    let rows = array.len();
    let batch = RecordBatch::try_from_iter_with_nullable([("c", array, true)]).expect("a column");
    let json = Rows::new(&batch).expect("can be printed");
    let mut lines = Vec::new();
    for row in 0..rows {
        let mut line = Vec::new();
        json.write(row, &mut line);
        let line = String::from_utf8(line).expect("UTF-8");
        serde_json::from_str::<Value>(&line).unwrap_or_else(|e| panic!("{line}: {e}"));
        let value = line
            .strip_prefix("{\"c\":")
            .and_then(|v| v.strip_suffix('}'));
        lines.push(value.unwrap_or_else(|| panic!("{line}")).to_owned());
    }
    lines
}

#[test]
fn floats_have_the_fewest_digits_that_read_back_as_the_same_float() {
    let values = [
        0.3_f32,
        0.1,
        1.0,
        -0.0,
        16_777_217.0,
        3.4e38,
        1e-45,
        f32::NAN,
        f32::INFINITY,
    ];
    let lines = column(Float32Array::from(values.to_vec()));
    assert_eq!(lines[..4], ["0.3", "0.1", "1.0", "-0.0"]);
    for (line, value) in lines.iter().zip(values) {
        if value.is_finite() {
            assert_eq!(
                line.parse::<f32>().map(f32::to_bits),
                Ok(value.to_bits()),
                "{line}"
            );
        } else {
            assert_eq!(line, "null");
        }
    }
    let lines = column(Float64Array::from(vec![
        0.1,
        0.1_f32.into(),
        f64::NEG_INFINITY,
    ]));
    assert_eq!(lines, ["0.1", "0.10000000149011612", "null"]);
}

#[test]
fn integers_keep_all_their_digits() {
    let lines = column(Int64Array::from(vec![Some(i64::MIN), None, Some(i64::MAX)]));
    assert_eq!(
        lines,
        ["-9223372036854775808", "null", "9223372036854775807"]
    );
    assert_eq!(
        column(UInt64Array::from(vec![u64::MAX])),
        ["18446744073709551615"]
    );
}

#[test]
fn timestamps_are_text_in_utc_with_the_digits_of_their_unit() {
    let lines = column(TimestampMillisecondArray::from(vec![
        1_767_323_045_678,
        0,
        i64::MAX,
    ]));
    assert_eq!(
        lines,
        [
            "\"2026-01-02T03:04:05.678Z\"",
            "\"1970-01-01T00:00:00.000Z\"",
            "9223372036854775807"
        ]
    );
    let lines = column(TimestampMicrosecondArray::from(vec![1]).with_timezone("+05:00"));
    assert_eq!(lines, ["\"1970-01-01T00:00:00.000001Z\""]);
    assert_eq!(
        column(TimestampSecondArray::from(vec![1])),
        ["\"1970-01-01T00:00:01Z\""]
    );
}

#[test]
fn structs_lists_and_text_nest_and_escape() {
    let mut names = ListBuilder::new(StringBuilder::new());
    names.append_value([Some("a\"\n\u{1}é"), None]);
    names.append_value(Vec::<Option<&str>>::new());
    names.append_null();
    let names = names.finish();
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None, Some(3)]));
    let list_type = names.data_type().clone();
    let structure = StructArray::from(vec![
        (
            Arc::new(Field::new("names", list_type, true)),
            Arc::new(names) as ArrayRef,
        ),
        (Arc::new(Field::new("n", DataType::Int32, true)), numbers),
    ]);
    assert_eq!(
        column(structure),
        [
            r#"{"names":["a\"\n\u0001é",null],"n":1}"#,
            r#"{"names":[],"n":null}"#,
            r#"{"names":null,"n":3}"#,
        ]
    );
}

/// A slice has offsets that do not begin at zero.
#[test]
fn a_slice_of_a_list_shows_its_own_items() {
    let mut names = ListBuilder::new(StringBuilder::new());
    for name in ["a", "b", "c"] {
        names.append_value([Some(name)]);
    }
    assert_eq!(column(names.finish().slice(1, 2)), [r#"["b"]"#, r#"["c"]"#]);
}

#[test]
fn other_kinds_have_a_form_too() {
    assert_eq!(
        column(BooleanArray::from(vec![Some(true), Some(false), None])),
        ["true", "false", "null"]
    );
    assert_eq!(
        column(BinaryArray::from(vec![&[0_u8, 0xab][..], b""])),
        ["\"00ab\"", "\"\""]
    );
    assert_eq!(column(NullArray::new(1)), ["null"]);
    assert_eq!(column(StringArray::from(vec![""])), ["\"\""]);
    let decimal = Decimal128Array::from(vec![12345])
        .with_precision_and_scale(10, 2)
        .expect("fits");
    assert_eq!(column(decimal), ["\"123.45\""]);
}

#[test]
fn every_column_comes_in_the_order_of_the_schema() {
    let one: ArrayRef = Arc::new(Int32Array::from(vec![1]));
    let batch = RecordBatch::try_from_iter([("z", Arc::clone(&one)), ("a", one)]).expect("columns");
    let mut line = Vec::new();
    Rows::new(&batch)
        .expect("can be printed")
        .write(0, &mut line);
    assert_eq!(line, br#"{"z":1,"a":1}"#);
}
