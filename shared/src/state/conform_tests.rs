use arrow_array::types::{Int8Type, Int32Type};
use arrow_array::{
    DictionaryArray, FixedSizeListArray, Float32Array, Float64Array, Int8Array, Int32Array,
    Int64Array, LargeListArray, LargeStringArray, NullArray, StringArray, StringViewArray,
    TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
    TimestampSecondArray, UInt8Array, UInt64Array,
};
use arrow_buffer::{OffsetBuffer, ScalarBuffer};

use super::*;

fn array(array: impl Array + 'static) -> ArrayRef {
    Arc::new(array)
}

/// Each column beside what it must become.
fn check(to: &DataType, expected: ArrayRef, sources: Vec<ArrayRef>) {
    for source in sources {
        let name = format!("{} for {to}", source.data_type());
        let made = conform(&source, to, "c").unwrap_or_else(|misfit| panic!("{name}: {misfit:?}"));
        assert_eq!(made.data_type(), to, "{name}");
        assert_eq!(&made, &expected, "{name}");
    }
}

#[test]
fn every_integer_type_whose_values_fit_becomes_the_schemas() {
    let values = [Some(0_i8), Some(7), None, Some(127)];
    let small = array(Int8Array::from(values.to_vec()));
    let wide = |to: &DataType| arrow_cast::cast(&small, to).unwrap();
    use DataType::*;
    let all = || {
        [Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64]
            .map(|t| wide(&t))
            .to_vec()
    };
    check(
        &Int32,
        array(Int32Array::from(vec![Some(0), Some(7), None, Some(127)])),
        all(),
    );
    check(
        &Int64,
        array(Int64Array::from(vec![Some(0), Some(7), None, Some(127)])),
        all(),
    );
}

#[test]
fn whole_floats_become_integers_and_others_do_not_fit() {
    let floats = vec![Some(0.0), None, Some(-3.0), Some(2_147_483_647.0)];
    let ints = vec![Some(0), None, Some(-3), Some(i32::MAX)];
    check(
        &DataType::Int32,
        array(Int32Array::from(ints)),
        vec![array(Float64Array::from(floats))],
    );
    for value in [0.5, f64::NAN, f64::INFINITY, 1e300, 2_147_483_648.0] {
        let source = array(Float64Array::from(vec![1.0, value]));
        match conform(&source, &DataType::Int32, "t.c") {
            Err(Misfit::Value { index: 1, .. }) => {}
            other => panic!("{value}: {other:?}"),
        }
    }
}

#[test]
fn every_kind_of_string_becomes_utf8() {
    let values = vec![
        Some("a"),
        None,
        Some(""),
        Some("a longer one, not inlined in a view"),
    ];
    let plain = StringArray::from(values.clone());
    let dictionary: DictionaryArray<Int8Type> = values.iter().copied().collect();
    let large_dictionary = DictionaryArray::<Int32Type>::new(
        Int32Array::from(vec![Some(1), None, Some(2), Some(0)]),
        array(LargeStringArray::from(vec![
            values[3], values[0], values[2],
        ])),
    );
    check(
        &DataType::Utf8,
        array(plain.clone()),
        vec![
            array(plain),
            array(LargeStringArray::from(values.clone())),
            array(StringViewArray::from(values)),
            array(dictionary),
            array(large_dictionary),
        ],
    );
}

/// 1,999 milliseconds before 1970 is more than one second before it: what is dropped is dropped towards the past.
#[test]
fn times_in_every_unit_and_zone_become_utc_milliseconds() {
    let scaled = |factor: i64| vec![Some(1_700_000_000 * factor), None, Some(-2 * factor)];
    for zone in [None, Some("UTC"), Some("-05:00"), Some("Europe/Vienna")] {
        let sources = vec![
            array(TimestampSecondArray::from(scaled(1)).with_timezone_opt(zone)),
            array(TimestampMillisecondArray::from(scaled(1_000)).with_timezone_opt(zone)),
            array(TimestampMicrosecondArray::from(scaled(1_000_000)).with_timezone_opt(zone)),
            array(TimestampNanosecondArray::from(scaled(1_000_000_000)).with_timezone_opt(zone)),
        ];
        check(
            &TIMESTAMP,
            array(TimestampMillisecondArray::from(scaled(1_000))),
            sources,
        );
    }
    let below = array(TimestampMillisecondArray::from(vec![1, -2]));
    let micros = array(TimestampMicrosecondArray::from(vec![1_999, -1_001]));
    let nanos = array(TimestampNanosecondArray::from(vec![1_999_999, -1_000_001]));
    let floats = array(Float64Array::from(vec![0.001, -0.002]));
    check(&TIMESTAMP, below, vec![micros, nanos, floats]);
    // 1.009 is a little less than that in binary, and yet not a millisecond less.
    let nearest = array(TimestampMillisecondArray::from(vec![
        1_700_000_000_123,
        1009,
    ]));
    let floats = array(Float64Array::from(vec![1_700_000_000.123, 1.009]));
    check(&TIMESTAMP, nearest, vec![floats]);
}

#[test]
fn numbers_become_the_nearest_float32() {
    let expected = array(Float32Array::from(vec![
        Some(0.0),
        None,
        Some(0.1),
        Some(f32::INFINITY),
    ]));
    let doubles = Float64Array::from(vec![Some(0.0), None, Some(0.1), Some(f64::INFINITY)]);
    check(&DataType::Float32, expected, vec![array(doubles)]);
    let expected = array(Float32Array::from(vec![Some(3.0), None]));
    check(
        &DataType::Float32,
        expected,
        vec![array(Int64Array::from(vec![Some(3), None]))],
    );
}

#[test]
fn every_kind_of_list_of_every_kind_of_string_becomes_a_list_of_utf8() {
    let item = Arc::new(Field::new_list_field(DataType::Utf8, true));
    let to = DataType::List(Arc::clone(&item));
    let strings = array(StringArray::from(vec![
        Some("a"),
        None,
        Some("b"),
        Some("c"),
    ]));
    let nulls = NullBuffer::from(vec![true, false]);
    let offsets = OffsetBuffer::new(ScalarBuffer::from(vec![0, 2, 4]));
    let expected = ListArray::new(
        item,
        offsets.clone(),
        Arc::clone(&strings),
        Some(nulls.clone()),
    );
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let mut sources = Vec::new();
    for child_type in [
        DataType::Utf8,
        DataType::LargeUtf8,
        DataType::Utf8View,
        dictionary,
    ] {
        for (name, nullable) in [("item", true), ("element", true), ("array", true)] {
            let child = Arc::new(Field::new(name, child_type.clone(), nullable));
            let values = arrow_cast::cast(&strings, &child_type).unwrap();
            let nulls = Some(nulls.clone());
            let list = ListArray::new(
                Arc::clone(&child),
                offsets.clone(),
                Arc::clone(&values),
                nulls.clone(),
            );
            let large: Vec<i64> = vec![0, 2, 4];
            let large = OffsetBuffer::new(ScalarBuffer::from(large));
            sources.push(array(list));
            sources.push(array(LargeListArray::new(
                Arc::clone(&child),
                large,
                Arc::clone(&values),
                nulls.clone(),
            )));
            sources.push(array(FixedSizeListArray::new(child, 2, values, nulls)));
        }
    }
    check(&to, array(expected), sources);
    let empty = ListArray::new(
        Arc::new(Field::new_list_field(DataType::Null, true)),
        OffsetBuffer::from_lengths([0, 0]),
        array(NullArray::new(0)),
        None,
    );
    let made = conform(&array(empty), &to, "c").unwrap();
    assert_eq!(made.data_type(), &to);
    assert_eq!(made.as_list::<i32>().value_length(1), 0);
}

#[test]
fn a_column_without_values_becomes_nulls_of_any_type() {
    let item = Arc::new(Field::new_list_field(DataType::Utf8, true));
    let struct_type = DataType::Struct(vec![Field::new("a", DataType::Int32, true)].into());
    for to in [
        DataType::Utf8,
        DataType::Int32,
        DataType::Boolean,
        TIMESTAMP,
        DataType::List(item),
        struct_type,
    ] {
        let made = conform(&array(NullArray::new(3)), &to, "c").unwrap();
        assert_eq!((made.data_type(), made.logical_null_count()), (&to, 3));
    }
}

#[test]
fn a_value_that_does_not_fit_is_named_by_its_index_and_never_becomes_null() {
    let too_large = u64::MAX;
    let cases: Vec<(ArrayRef, DataType, usize, &str)> = vec![
        (
            array(Int64Array::from(vec![Some(1), None, Some(1 << 31)])),
            DataType::Int32,
            2,
            "2147483648",
        ),
        (
            array(Int64Array::from(vec![-(1_i64 << 31) - 1])),
            DataType::Int32,
            0,
            "-2147483649",
        ),
        (
            array(UInt64Array::from(vec![5, too_large])),
            DataType::Int64,
            1,
            "18446744073709551615",
        ),
        (
            array(Float64Array::from(vec![Some(0.5), None, Some(1e39)])),
            DataType::Float32,
            2,
            "1e39",
        ),
        (
            array(TimestampSecondArray::from(vec![0, i64::MAX])),
            TIMESTAMP,
            1,
            "",
        ),
        (
            array(Float64Array::from(vec![1.0, f64::NAN])),
            TIMESTAMP,
            1,
            "NaN",
        ),
        (
            array(Float64Array::from(vec![1e300])),
            TIMESTAMP,
            0,
            "1e300",
        ),
    ];
    for (source, to, at, text) in cases {
        match conform(&source, &to, "t.c") {
            Err(Misfit::Value {
                column,
                index,
                value,
                ..
            }) => {
                assert_eq!((column.as_str(), index), ("t.c", at), "{source:?}");
                assert!(text.is_empty() || value == text, "{value} for {text}");
            }
            other => panic!("{source:?} as {to}: {other:?}"),
        }
    }
}

#[test]
fn a_wrong_type_is_named_with_what_it_is_and_what_is_needed() {
    let list_of_ints = ListArray::new(
        Arc::new(Field::new_list_field(DataType::UInt8, true)),
        OffsetBuffer::from_lengths([1]),
        array(UInt8Array::from(vec![1])),
        None,
    );
    let strings = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
    let cases: Vec<(ArrayRef, DataType, &str, &str)> = vec![
        (
            array(Int32Array::from(vec![1])),
            DataType::Utf8,
            "Int32",
            "a string",
        ),
        (
            array(StringArray::from(vec!["1"])),
            DataType::Int32,
            "Utf8",
            "an integer that fits int32",
        ),
        (
            array(Int32Array::from(vec![1])),
            TIMESTAMP,
            "Int32",
            "a timestamp",
        ),
        (
            array(Int32Array::from(vec![1])),
            DataType::Boolean,
            "Int32",
            "a bool",
        ),
        (
            array(StringArray::from(vec!["a"])),
            strings.clone(),
            "Utf8",
            "a list of strings",
        ),
        (
            array(list_of_ints),
            strings,
            "List(UInt8)",
            "a list of strings",
        ),
    ];
    for (source, to, is, needed) in cases {
        let Err(Misfit::Whole(error)) = conform(&source, &to, "t.c") else {
            panic!("{} was taken for {to}", source.data_type());
        };
        assert!(matches!(error, StateError::WrongType { .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains("t.c") && text.contains(is) && text.contains(needed),
            "{text}"
        );
    }
}

#[test]
fn below_a_null_struct_everything_becomes_null() {
    let fields: Fields = vec![Field::new("a", DataType::Int64, true)].into();
    let hidden = array(Int64Array::from(vec![Some(1), Some(i64::MAX), Some(3)]));
    let nulls = NullBuffer::from(vec![true, false, true]);
    let source = StructArray::new(fields, vec![hidden], Some(nulls));
    let to = DataType::Struct(vec![Field::new("a", DataType::Int32, true)].into());
    let made = conform(&array(source), &to, "s").expect("what is hidden need not fit");
    let values = made.as_struct().column(0).as_primitive::<Int32Type>();
    assert_eq!(values.iter().collect::<Vec<_>>(), [Some(1), None, Some(3)]);
}
