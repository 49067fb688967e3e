//! Filters against an interpreter that looks at one row after the other, and every way of being wrong.

use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Float32Array, Int32Array, RecordBatch, StringArray, StructArray,
    TimestampMillisecondArray,
};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use proptest::prelude::*;
use sherwood_shared::schema::{TableId, table_schema};

use super::keys::KeyRanges;
use super::like::{Pattern, Piece, matches};
use super::{Filter, FilterError, FilterErrorKind, MAX_BYTES, MAX_DEPTH};
use crate::table::Table;

/// A row as the interpreter has it.
#[derive(Clone, Debug)]
struct Row {
    key: String,
    word: Option<String>,
    count: Option<i32>,
    load: Option<f32>,
    flag: Option<bool>,
    /// Milliseconds.
    time: Option<i64>,
    tags: Option<Vec<Option<String>>>,
    /// Whether the struct is there, and its field, which may have a value below a null.
    inner: (bool, Option<i32>),
}

fn schema() -> SchemaRef {
    let item = Arc::new(Field::new_list_field(DataType::Utf8, true));
    let inner = Fields::from(vec![Field::new("count", DataType::Int32, true)]);
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("word", DataType::Utf8, true),
        Field::new("count", DataType::Int32, true),
        Field::new("load", DataType::Float32, true),
        Field::new("flag", DataType::Boolean, true),
        Field::new(
            "time",
            DataType::Timestamp(arrow_schema::TimeUnit::Millisecond, None),
            true,
        ),
        Field::new("tags", DataType::List(item), true),
        Field::new("inner", DataType::Struct(inner), true),
    ]))
}

fn batch(rows: &[Row]) -> RecordBatch {
    let mut tags = ListBuilder::new(StringBuilder::new());
    for row in rows {
        for tag in row.tags.iter().flatten() {
            tags.values().append_option(tag.as_deref());
        }
        // Below a null list there may be items too.
        if row.tags.is_none() {
            tags.values().append_value("a");
        }
        tags.append(row.tags.is_some());
    }
    let inner = StructArray::new(
        Fields::from(vec![Field::new("count", DataType::Int32, true)]),
        vec![Arc::new(Int32Array::from_iter(
            rows.iter().map(|row| row.inner.1),
        ))],
        Some(NullBuffer::from_iter(rows.iter().map(|row| row.inner.0))),
    );
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(
            rows.iter().map(|row| &row.key),
        )),
        Arc::new(StringArray::from_iter(
            rows.iter().map(|row| row.word.as_ref()),
        )),
        Arc::new(Int32Array::from_iter(rows.iter().map(|row| row.count))),
        Arc::new(Float32Array::from_iter(rows.iter().map(|row| row.load))),
        Arc::new(BooleanArray::from_iter(rows.iter().map(|row| row.flag))),
        Arc::new(TimestampMillisecondArray::from_iter(
            rows.iter().map(|row| row.time),
        )),
        Arc::new(tags.finish()),
        Arc::new(inner),
    ];
    RecordBatch::try_new(schema(), columns).expect("columns of the schema")
}

/// A condition as the interpreter has it.
#[derive(Clone, Debug)]
enum Ask {
    And(Vec<Ask>),
    Or(Vec<Ask>),
    Not(Box<Ask>),
    Constant(Option<bool>),
    Flag,
    IsNull(&'static str, bool),
    /// Tenths, so that numbers are exact.
    Number(&'static str, &'static str, i128),
    NumberIn(&'static str, bool, Vec<Option<i128>>),
    Text(&'static str, &'static str, String),
    TextIn(&'static str, bool, Vec<Option<String>>),
    Like(&'static str, bool, String),
    Substring(&'static str, bool, String),
    Tag(bool, Option<String>),
    /// Microseconds.
    Time(&'static str, i64),
    /// With null on the right.
    Null(&'static str, &'static str),
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn tenths(value: i128) -> String {
    let sign = if value < 0 { "-" } else { "" };
    let (whole, tenth) = (value.unsigned_abs() / 10, value.unsigned_abs() % 10);
    if tenth == 0 {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{tenth}")
    }
}

fn not_if(negated: bool) -> &'static str {
    if negated { "not " } else { "" }
}

impl Ask {
    /// As a user writes it.
    fn text(&self) -> String {
        let all = |items: &[Ask], word: &str| {
            let items: Vec<String> = items
                .iter()
                .map(|item| format!("({})", item.text()))
                .collect();
            items.join(word)
        };
        let list = |items: Vec<String>| format!("({})", items.join(", "));
        match self {
            Self::And(items) => all(items, " AND "),
            Self::Or(items) => all(items, " or "),
            Self::Not(inner) => format!("not ({})", inner.text()),
            Self::Constant(None) => "null".to_owned(),
            Self::Constant(Some(value)) => value.to_string(),
            Self::Flag => "flag".to_owned(),
            Self::IsNull(column, negated) => format!("{column} is {}null", not_if(*negated)),
            Self::Number(column, op, value) => format!("{column} {op} {}", tenths(*value)),
            Self::NumberIn(column, negated, values) => {
                let values = values
                    .iter()
                    .map(|value| value.map_or("null".to_owned(), tenths));
                format!("{column} {}in {}", not_if(*negated), list(values.collect()))
            }
            Self::Text(column, op, value) => format!("{column}{op}{}", quote(value)),
            Self::TextIn(column, negated, values) => {
                let values = values.iter();
                let values = values.map(|value| value.as_deref().map_or("null".to_owned(), quote));
                format!(
                    "\"{column}\" {}in{}",
                    not_if(*negated),
                    list(values.collect())
                )
            }
            Self::Like(column, negated, pattern) => {
                format!("{column} {}like {}", not_if(*negated), quote(pattern))
            }
            Self::Substring(column, negated, text) => {
                format!("{column} {}contains {}", not_if(*negated), quote(text))
            }
            Self::Tag(negated, tag) => {
                let tag = tag.as_deref().map_or("null".to_owned(), quote);
                format!("tags {}contains {tag}", not_if(*negated))
            }
            Self::Time(op, micros) => {
                let time = chrono::DateTime::from_timestamp_micros(*micros).expect("in range");
                let time = time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
                format!("time {op} '{time}'")
            }
            Self::Null(column, op) => format!("{column} {op} null"),
        }
    }

    /// For one row, by the words of docs/filter.md.
    fn holds(&self, row: &Row) -> Option<bool> {
        let number = |column: &str| match column {
            "count" => row.count.map(f64::from),
            "load" => row.load.map(f64::from),
            _ => row.inner.1.filter(|_| row.inner.0).map(f64::from),
        };
        let literal = |column: &str, value: i128| match column {
            "load" => f64::from(tenths(value).parse::<f32>().expect("a number")),
            // Tenths of a few digits: comparing doubles is exact enough to tell them from integers.
            _ => tenths(value).parse().expect("a number"),
        };
        let text = |column: &str| match column {
            "id" => Some(row.key.clone()),
            _ => row.word.clone(),
        };
        let flip = |answer: Option<bool>, negated: bool| answer.map(|answer| answer != negated);
        match self {
            Self::And(items) => {
                let answers: Vec<_> = items.iter().map(|item| item.holds(row)).collect();
                if answers.contains(&Some(false)) {
                    Some(false)
                } else if answers.contains(&None) {
                    None
                } else {
                    Some(true)
                }
            }
            Self::Or(items) => {
                let answers: Vec<_> = items.iter().map(|item| item.holds(row)).collect();
                if answers.contains(&Some(true)) {
                    Some(true)
                } else if answers.contains(&None) {
                    None
                } else {
                    Some(false)
                }
            }
            Self::Not(inner) => flip(inner.holds(row), true),
            Self::Constant(value) => *value,
            Self::Flag => row.flag,
            Self::IsNull(column, negated) => {
                let is_null = match *column {
                    "word" => row.word.is_none(),
                    "count" => row.count.is_none(),
                    "load" => row.load.is_none(),
                    "flag" => row.flag.is_none(),
                    "time" => row.time.is_none(),
                    "tags" => row.tags.is_none(),
                    "inner" => !row.inner.0,
                    "inner.count" => !row.inner.0 || row.inner.1.is_none(),
                    _ => false,
                };
                Some(is_null != *negated)
            }
            Self::Number(column, op, value) => {
                number(column).map(|x| compared(&x, op, &literal(column, *value)))
            }
            Self::NumberIn(column, negated, values) => {
                let found = number(column)?;
                let any = values
                    .iter()
                    .flatten()
                    .any(|value| found == literal(column, *value));
                let answer = if any {
                    Some(true)
                } else {
                    values.iter().all(Option::is_some).then_some(false)
                };
                flip(answer, *negated)
            }
            Self::Text(column, op, value) => {
                text(column).map(|x| compared(&x.as_bytes(), op, &value.as_bytes()))
            }
            Self::TextIn(column, negated, values) => {
                let found = text(column)?;
                let any = values.iter().flatten().any(|value| *value == found);
                let answer = if any {
                    Some(true)
                } else {
                    values.iter().all(Option::is_some).then_some(false)
                };
                flip(answer, *negated)
            }
            Self::Like(column, negated, pattern) => {
                let found: Vec<char> = text(column)?.chars().collect();
                let pattern: Vec<char> = pattern.chars().collect();
                flip(Some(naive_like(&pattern, &found)), *negated)
            }
            Self::Substring(column, negated, part) => {
                flip(Some(text(column)?.contains(part.as_str())), *negated)
            }
            Self::Tag(negated, tag) => {
                let tag = tag.clone()?;
                let tags = row.tags.as_ref()?;
                flip(Some(tags.contains(&Some(tag))), *negated)
            }
            Self::Time(op, micros) => row
                .time
                .map(|millis| compared(&(millis * 1000), op, micros)),
            Self::Null(..) => None,
        }
    }
}

fn compared<T: PartialOrd>(x: &T, op: &str, y: &T) -> bool {
    match op {
        "=" => x == y,
        "!=" | "<>" => x != y,
        "<" => x < y,
        "<=" => x <= y,
        ">" => x > y,
        ">=" => x >= y,
        other => panic!("{other}"),
    }
}

fn naive_like(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['%', rest @ ..] => (0..=text.len()).any(|skip| naive_like(rest, &text[skip..])),
        ['_', rest @ ..] => !text.is_empty() && naive_like(rest, &text[1..]),
        ['\\', c, rest @ ..] | [c, rest @ ..] => {
            text.first() == Some(c) && naive_like(rest, &text[1..])
        }
    }
}

const OPS: [&str; 7] = ["=", "!=", "<>", "<", "<=", ">", ">="];

fn word() -> impl Strategy<Value = String> {
    // Few letters, so that things meet; and those that mean something.
    proptest::collection::vec(
        prop_oneof![4 => "[ab]", 1 => "[%_'\\\\é\"\n\u{10FFFF}]"],
        0..4,
    )
    .prop_map(|parts| parts.concat())
}

/// Escaped as it has to be.
fn pattern() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[ab]",
        "[%_]",
        Just("\\%".to_owned()),
        Just("\\\\".to_owned()),
        Just("é".to_owned())
    ];
    proptest::collection::vec(part, 0..5).prop_map(|parts| parts.concat())
}

fn number() -> impl Strategy<Value = i128> {
    prop_oneof![
        4 => -30..30_i128,
        1 => prop_oneof![Just(i128::from(i32::MAX) * 10), Just(i128::from(i32::MIN) * 10 - 1), Just(i128::MAX / 1000)],
    ]
}

fn row() -> impl Strategy<Value = Row> {
    let maybe = proptest::option::of::<BoxedStrategy<String>>;
    (
        word(),
        maybe(word().boxed()),
        proptest::option::of(prop_oneof![-3..3, Just(i32::MAX), Just(i32::MIN)]),
        proptest::option::of(prop_oneof![
            Just(0.0_f32),
            Just(-0.0),
            Just(0.3),
            Just(-1.5),
            Just(f32::NAN),
            Just(-f32::NAN),
            Just(f32::INFINITY)
        ]),
        proptest::option::of(any::<bool>()),
        proptest::option::of(-3_i64..3),
        proptest::option::of(proptest::collection::vec(maybe(word().boxed()), 0..4)),
        (any::<bool>(), proptest::option::of(-3..3)),
    )
        .prop_map(|(key, word, count, load, flag, time, tags, inner)| Row {
            key,
            word,
            count,
            load,
            flag,
            time,
            tags,
            inner,
        })
}

fn ask() -> impl Strategy<Value = Ask> {
    let op = || proptest::sample::select(&OPS[..]);
    let numeric = || proptest::sample::select(&["count", "load", "inner.count"][..]);
    let textual = || proptest::sample::select(&["id", "word"][..]);
    let columns = &[
        "id",
        "word",
        "count",
        "load",
        "flag",
        "time",
        "tags",
        "inner",
        "inner.count",
    ][..];
    let leaf = prop_oneof![
        proptest::option::of(any::<bool>()).prop_map(Ask::Constant),
        Just(Ask::Flag),
        (proptest::sample::select(columns), any::<bool>()).prop_map(|(c, n)| Ask::IsNull(c, n)),
        (numeric(), op(), number()).prop_map(|(c, o, v)| Ask::Number(c, o, v)),
        (
            numeric(),
            any::<bool>(),
            proptest::collection::vec(proptest::option::weighted(0.8, number()), 1..4)
        )
            .prop_map(|(c, n, v)| Ask::NumberIn(c, n, v)),
        (textual(), op(), word()).prop_map(|(c, o, v)| Ask::Text(c, o, v)),
        (
            textual(),
            any::<bool>(),
            proptest::collection::vec(proptest::option::weighted(0.8, word()), 1..4)
        )
            .prop_map(|(c, n, v)| Ask::TextIn(c, n, v)),
        (textual(), any::<bool>(), pattern()).prop_map(|(c, n, p)| Ask::Like(c, n, p)),
        (textual(), any::<bool>(), word()).prop_map(|(c, n, p)| Ask::Substring(c, n, p)),
        (any::<bool>(), proptest::option::weighted(0.8, word())).prop_map(|(n, t)| Ask::Tag(n, t)),
        (
            op(),
            prop_oneof![-4000_i64..4000, (-3_i64..3).prop_map(|ms| ms * 1000)]
        )
            .prop_map(|(o, t)| Ask::Time(o, t)),
        (
            proptest::sample::select(&["id", "count", "load", "flag", "time"][..]),
            proptest::sample::select(&["=", "!="][..])
        )
            .prop_map(|(c, o)| Ask::Null(c, o)),
    ];
    leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 2..4).prop_map(Ask::And),
            proptest::collection::vec(inner.clone(), 2..4).prop_map(Ask::Or),
            inner.prop_map(|inner| Ask::Not(Box::new(inner))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn a_mask_says_of_each_row_what_an_interpreter_says(
        rows in proptest::collection::vec(row(), 0..12),
        ask in ask(),
        cut in 0_usize..3,
    ) {
        let text = ask.text();
        let filter = Filter::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let filter = filter.bind(&schema()).unwrap_or_else(|error| panic!("{text}: {error}"));
        // A slice has offsets that do not begin at 0.
        let cut = cut.min(rows.len());
        let batch = batch(&rows).slice(cut, rows.len() - cut);
        let mask = filter.mask(&batch).expect("a mask");
        let expected: Vec<_> = rows[cut..].iter().map(|row| ask.holds(row)).collect();
        let found: Vec<_> = mask.iter().collect();
        prop_assert_eq!(&found, &expected, "{}", &text);

        // Q3: no key that is accepted lies outside the ranges.
        let ranges = KeyRanges::of(&filter.node, "id");
        for (row, answer) in rows[cut..].iter().zip(found) {
            let key = row.key.as_bytes();
            let inside = ranges.as_slice().iter().any(|range| {
                range.from.as_bytes() <= key && range.to.as_ref().is_none_or(|to| key < to.as_slice())
            });
            prop_assert!(inside || answer != Some(true), "{}: {:?} not in {:?}", &text, &row.key, &ranges);
        }
        for pair in ranges.as_slice().windows(2) {
            prop_assert!(pair[0].to.as_ref().is_some_and(|to| to.as_slice() < pair[1].from.as_bytes()), "{:?}", &ranges);
        }
    }

    #[test]
    fn a_filtered_table_has_the_rows_that_its_masks_accept(
        keys in proptest::collection::btree_set("[a-c]{1,3}", 0..60),
        ask in prop_oneof![
            (proptest::sample::select(&OPS[..]), "[a-c]{0,3}").prop_map(|(op, key)| Ask::Text("id", op, key)),
            proptest::collection::vec("[a-c]{1,3}".prop_map(Some), 1..5).prop_map(|keys| Ask::TextIn("id", false, keys)),
            "[a-c]{0,2}%?[a-c_]?".prop_map(|pattern| Ask::Like("id", false, pattern)),
        ],
        other in proptest::option::of("[a-c]{1,2}"),
        rows_per_chunk in 1_usize..9,
    ) {
        let ask = match other {
            Some(from) => Ask::And(vec![ask, Ask::Text("id", ">=", from)]),
            None => ask,
        };
        let keys: Vec<String> = keys.into_iter().collect();
        let table = nodes(&keys, rows_per_chunk);
        let text = ask.text();
        let filter = Filter::parse(&text).and_then(|filter| filter.bind(&table.schema().expect("a schema")));
        let filter = filter.unwrap_or_else(|error| panic!("{text}: {error}"));
        let mut found = Vec::new();
        for batch in table.filter(&filter) {
            let batch = batch.expect("a batch");
            prop_assert!(batch.num_rows() > 0);
            let keys: &StringArray = batch.column(0).as_any().downcast_ref().expect("text");
            found.extend(keys.iter().flatten().map(str::to_owned));
        }
        let wanted = |key: &String| {
            let row = Row { key: key.clone(), ..a_row() };
            ask.holds(&row) == Some(true)
        };
        let expected: Vec<String> = keys.into_iter().filter(wanted).collect();
        prop_assert_eq!(found, expected, "{} by {}", text, rows_per_chunk);
    }

    #[test]
    fn any_text_is_a_filter_or_an_error(text in "\\PC{0,40}") {
        any_text(&text);
    }

    #[test]
    fn any_words_are_a_filter_or_an_error(words in proptest::collection::vec(proptest::sample::select(&[
        "and", "or", "not", "in", "like", "contains", "is", "null", "true", "(", ")", ",", ".", "-", "=", "<>", ">=",
        "'a'", "'%\\'", "''", "'2026-01-02'", "1", "1.5", "id", "word", "count", "\"time\"", "tags", "inner", "inner.count", "load", "flag", "!", "'", "\"",
    ][..]), 0..14)) {
        any_text(&words.join(" "));
        any_text(&words.concat());
    }

    #[test]
    fn a_pattern_matches_as_a_plain_recursion_does(pattern in pattern(), text in word()) {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        let parsed = Pattern::new(&pattern).expect("well escaped");
        let expected = naive_like(&chars(&pattern), &chars(&text));
        prop_assert!(!expected || text.starts_with(&parsed.prefix()), "{pattern:?} {text:?}");
        if let Pattern::Pieces(pieces) = parsed {
            prop_assert_eq!(matches(&pieces, &text), expected, "{} {}", pattern, text);
        }
    }
}

/// Whatever it is, it comes to an end, and an error has a place in the text.
fn any_text(text: &str) {
    let place = |error: FilterError| {
        assert!(error.at <= error.text.len(), "{text:?}: {error:?}");
        let _shown = (error.to_string(), error.pointer());
    };
    match Filter::parse(text) {
        Err(error) => place(error),
        Ok(filter) => match filter.bind(&schema()) {
            Err(error) => place(error),
            Ok(bound) => {
                let mask = bound.mask(&batch(&[])).expect("a mask");
                assert_eq!(mask.len(), 0, "{text:?}");
            }
        },
    }
}

fn nodes(keys: &[String], rows_per_chunk: usize) -> Table {
    let schema = table_schema(TableId::Nodes);
    let mut columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from_iter_values(keys))];
    for field in schema.fields().iter().skip(1) {
        columns.push(arrow_array::new_null_array(field.data_type(), keys.len()));
    }
    let batch = RecordBatch::try_new(schema, columns).expect("the schema's columns");
    Table::on_heap(TableId::Nodes, &batch, rows_per_chunk).expect("a table")
}

#[test]
fn chunks_between_the_keys_that_are_asked_for_are_skipped() {
    let keys: Vec<String> = (0..1000).map(|i| format!("n{i:04}")).collect();
    let table = nodes(&keys, 10);
    let looked_at = |text: &str| {
        let filter = Filter::parse(text).expect("parses");
        let filter = filter
            .bind(&table.schema().expect("a schema"))
            .expect("binds");
        let mut filtered = table.filter(&filter);
        let mut chunks = 0;
        while filtered.next_chunk().expect("reads").is_some() {
            chunks += 1;
        }
        chunks
    };
    for (text, chunks) in [
        ("id = 'n0500'", 1),
        ("id in ('n0000', 'n0001', 'n0999', 'x')", 2),
        ("id like 'n05%'", 10),
        ("id >= 'n0990' and status = 'online'", 1),
        ("id < 'n0010' or id > 'n0989'", 2),
        ("id = 'n0001' and id = 'n0002'", 0),
        ("status = 'online'", 100),
        ("not id = 'n0500'", 100),
        ("id = 'n0500' or status = 'online'", 100),
        ("id = null", 0),
        ("false", 0),
    ] {
        // A chunk more where a range ends exactly before it.
        let found = looked_at(text);
        assert!(
            (chunks..=chunks + 1).contains(&found),
            "{text}: {found} chunks, not {chunks}"
        );
    }
}

#[test]
fn each_mistake_is_named_with_its_place() {
    let cases: &[(&str, usize, &str)] = &[
        ("", 0, "expected the name of a column"),
        ("   ", 3, "its end"),
        ("status", 6, "is a condition by itself"),
        ("status =", 8, "expected a value"),
        ("status = pending", 9, "text stands in single quotes"),
        ("status == 'x'", 8, "expected a value"),
        ("status = 'x", 9, "not closed with '"),
        ("\"status = 'x'", 0, "not closed with \""),
        ("statsu = 'x'", 0, "is it status"),
        ("Status = 'x'", 0, "is it status"),
        ("qqqq = 1", 0, "there are id, type, status"),
        ("resources.gpus = 1", 10, "is it gpu_cores?"),
        ("status.x = 1", 7, "has no field"),
        ("resources = 1", 10, "only its fields"),
        (
            "priority = 'high'",
            11,
            "priority is a whole number (int32), and cannot be compared with text",
        ),
        (
            "status = 5",
            9,
            "status is text, and cannot be compared with a number",
        ),
        ("status = true", 9, "with a truth value"),
        (
            "progress in (1, 'x')",
            16,
            "progress is a number (float32), and cannot be compared with text",
        ),
        ("created_at > '2026-13-01'", 13, "write one as"),
        ("created_at > 5", 13, "write it as"),
        ("input_cids = 'a'", 11, "contains"),
        ("input_cids contains 5", 20, "an item of input_cids is text"),
        ("priority contains 5", 9, "only lists and text"),
        ("priority like '5%'", 9, "only text has patterns"),
        ("status like 'a\\b'", 12, "backslash"),
        ("status like 'a\\'", 12, "backslash"),
        (
            "status not = 'x'",
            11,
            "expected \"in\", \"like\" or \"contains\"",
        ),
        ("status is 'x'", 10, "\"null\" or \"not null\""),
        ("status in 'x'", 10, "expected \"(\""),
        ("status in ()", 11, "expected a value"),
        ("status in ('x'", 14, "\",\" or \")\""),
        ("(status = 'x'", 13, "or \")\""),
        ("status = 'x')", 12, "the end of the filter"),
        ("status = 'x' status = 'y'", 13, "the end of the filter"),
        ("status = 'x' && true", 13, "write \"and\""),
        ("!status", 0, "unequal is !="),
        ("'x' = status", 0, "on the right of an operator"),
        ("in = 'x'", 0, "is a keyword"),
        ("priority = 5x", 12, "a space after the number"),
        ("priority = - 'x'", 13, "behind the minus"),
        ("größe = 1 and ?", 16, "means nothing here"),
    ];
    for (text, at, says) in cases {
        let error = Filter::parse(text)
            .and_then(|filter| filter.bind(&table_schema(TableId::Tasks)))
            .expect_err(text);
        assert_eq!(error.at, *at, "{text}: {error}");
        assert!(error.to_string().contains(says), "{text}: {error}");
        let pointer = error.pointer();
        let caret = pointer.lines().nth(1).unwrap_or_default();
        assert_eq!(
            caret.chars().count(),
            error.character(),
            "{text}: {pointer}"
        );
    }
}

#[test]
fn too_long_and_too_deep_are_refused_and_just_not_so_are_not() {
    let deep = |depth: usize| format!("{}true{}", "(".repeat(depth), ")".repeat(depth));
    let nots = |depth: usize| format!("{}true", "not ".repeat(depth));
    for make in [&deep as &dyn Fn(usize) -> String, &nots] {
        assert!(Filter::parse(&make(MAX_DEPTH)).is_ok());
        for depth in [MAX_DEPTH + 1, MAX_BYTES / 5] {
            let error = Filter::parse(&make(depth)).expect_err("too deep");
            assert_eq!(*error.kind, FilterErrorKind::TooDeep, "{depth}");
        }
    }
    let long = |bytes: usize| "true".to_owned() + &" ".repeat(bytes - 4);
    assert!(Filter::parse(&long(MAX_BYTES)).is_ok());
    let error = Filter::parse(&long(MAX_BYTES + 1)).expect_err("too long");
    assert_eq!(
        *error.kind,
        FilterErrorKind::TooLong {
            bytes: MAX_BYTES + 1
        }
    );
    // Wide is not deep.
    let wide = vec!["flag"; 8000].join(" or ");
    let filter = Filter::parse(&wide)
        .expect("parses")
        .bind(&schema())
        .expect("binds");
    assert_eq!(filter.mask(&batch(&[])).expect("a mask").len(), 0);
}

fn a_row() -> Row {
    Row {
        key: "k".to_owned(),
        word: None,
        count: None,
        load: None,
        flag: Some(true),
        time: Some(1_767_323_045_678),
        tags: None,
        inner: (false, None),
    }
}

#[test]
fn not_binds_before_and_and_before_or() {
    let row = batch(&[a_row()]);
    for (text, expected) in [
        ("true or true and false", Some(true)),
        ("(true or true) and false", Some(false)),
        ("not false or true", Some(true)),
        ("not (false or true)", Some(false)),
        ("not true and false", Some(false)),
        ("NOT flag = false And id LIKE 'K%' oR \"flag\"", Some(true)),
        ("time = '2026-01-02T03:04:05.678Z'", Some(true)),
        ("time = '2026-01-02T04:04:05.678+01:00'", Some(true)),
        ("time > '2026-01-02' and time < '2026-01-03'", Some(true)),
        ("null or true", Some(true)),
        ("null and true", None),
        ("not null", None),
    ] {
        let filter = Filter::parse(text)
            .expect(text)
            .bind(&schema())
            .expect(text);
        let mask = filter.mask(&row).expect("a mask");
        assert_eq!(mask.iter().next(), Some(expected), "{text}");
    }
}

#[test]
fn a_batch_of_another_schema_is_refused() {
    let filter = Filter::parse("inner.count = 1 or word = 'a'").expect("parses");
    let filter = filter.bind(&schema()).expect("binds");
    let rows = batch(&[a_row()]);
    let others = [
        rows.project(&[0, 1]).expect("projects"),
        rows.project(&[0, 2, 1, 3, 4, 5, 6, 7]).expect("projects"),
    ];
    for other in others {
        let error = filter.mask(&other).expect_err("refused").to_string();
        assert!(error.contains("another schema"), "{error}");
    }
}

#[test]
fn many_wildcards_cost_no_more_than_the_product_of_the_lengths() {
    let pieces: Vec<Piece> = std::iter::repeat_n([Piece::Any, Piece::Exactly('a')], 200)
        .flatten()
        .chain([Piece::Exactly('b')])
        .collect();
    // Exponential for a matcher that goes back to every wildcard.
    assert!(!matches(&pieces, &"a".repeat(2000)));
}
