//! Effects against a model: rows in a map, each column's value named by a number.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, FixedSizeBinaryBuilder, Int32Builder, ListBuilder, StringBuilder, StructBuilder,
};
use arrow_array::cast::AsArray;
use arrow_array::{
    ArrayRef, BooleanArray, Decimal128Array, Float32Array, Int32Array, Int64Array,
    LargeStringArray, RecordBatch, StringArray, StructArray, TimestampMillisecondArray,
    new_null_array,
};
use arrow_buffer::{Buffer, NullBuffer};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use arrow_select::concat::concat_batches;
use proptest::prelude::*;
use sherwood_shared::batch::{BatchDecoder, BatchEncoder};
use sherwood_shared::gathered::Frame;
use sherwood_shared::schema::{TableId, table_schema};
use sherwood_shared::state::State;

use super::*;
use crate::entry::TableEffects;

/// Columns that the table has from the beginning; the others come by effects.
const FIRST: usize = 8;
const COLUMNS: usize = 13;

/// A value is named by a number; some numbers, and no number, name null.
type Value = Option<u64>;
type Rows = BTreeMap<String, [Value; COLUMNS]>;

fn column(number: usize, values: &[Value]) -> ArrayRef {
    let values: Vec<Value> = values
        .iter()
        .map(|value| value.filter(|value| value % 7 != 0))
        .collect();
    let int = |value: u64| i32::try_from(value % 1000).expect("small");
    let long = |value: u64| i64::try_from(value % 100_000).expect("small");
    let text =
        |value: u64| "ä".repeat(usize::try_from(value % 5).expect("small")) + &value.to_string();
    let values = values.iter().copied();
    match number {
        0 => Arc::new(StringArray::from_iter(values.map(|value| value.map(text)))),
        1 => Arc::new(Int32Array::from_iter(values.map(|value| value.map(int)))),
        2 => Arc::new(Int64Array::from_iter(values.map(|value| value.map(long)))),
        3 => Arc::new(Float32Array::from_iter(
            values.map(|value| value.map(|value| int(value) as f32 / 8.0)),
        )),
        4 => Arc::new(BooleanArray::from_iter(
            values.map(|value| value.map(|value| value % 2 == 0)),
        )),
        5 => Arc::new(TimestampMillisecondArray::from_iter(
            values.map(|value| value.map(long)),
        )),
        6 => {
            let mut lists = ListBuilder::new(StringBuilder::new());
            for value in values {
                let items =
                    value.map(|value| (0..value % 4).map(move |item| Some(text(value + item))));
                lists.append_option(items);
            }
            Arc::new(lists.finish())
        }
        7 => {
            let values: Vec<Value> = values.collect();
            let valid = NullBuffer::from_iter(values.iter().map(Option::is_some));
            let inner = values.iter().map(|value| value.map(|value| value / 3));
            let inner: Vec<Value> = inner.collect();
            let fields: Vec<Field> = ["text", "int", "long", "list"]
                .iter()
                .zip([0, 1, 2, 6])
                .map(|(name, of)| Field::new(*name, column(of, &[]).data_type().clone(), true))
                .collect();
            let columns = [0, 1, 2, 6].map(|of| column(of, &inner)).to_vec();
            let nulls = (valid.null_count() > 0).then_some(valid);
            Arc::new(StructArray::new(Fields::from(fields), columns, nulls))
        }
        8 => {
            let mut bytes = BinaryBuilder::new();
            values.for_each(|value| bytes.append_option(value.map(u64::to_le_bytes)));
            Arc::new(bytes.finish())
        }
        9 => {
            let mut bytes = FixedSizeBinaryBuilder::new(8);
            for value in values {
                match value {
                    Some(value) => bytes.append_value(value.to_le_bytes()).expect("eight"),
                    None => bytes.append_null(),
                }
            }
            Arc::new(bytes.finish())
        }
        10 => {
            let numbers = values.map(|value| value.map(i128::from));
            let numbers = Decimal128Array::from_iter(numbers);
            Arc::new(numbers.with_precision_and_scale(20, 3).expect("fits"))
        }
        11 => {
            let fields: Fields = vec![Field::new("n", DataType::Int32, true)].into();
            let item = StructBuilder::new(fields, vec![Box::new(Int32Builder::new())]);
            let mut lists = ListBuilder::new(item);
            for value in values {
                for item in 0..value.map_or(0, |value| value % 3) {
                    let number = lists.values().field_builder::<Int32Builder>(0);
                    number
                        .expect("an int")
                        .append_value(int(value.unwrap_or(0) + item));
                    lists.values().append(true);
                }
                lists.append(value.is_some());
            }
            Arc::new(lists.finish())
        }
        _ => Arc::new(LargeStringArray::from_iter(
            values.map(|value| value.map(text)),
        )),
    }
}

fn schema(columns: &[usize]) -> SchemaRef {
    let mut fields = vec![Field::new("id", DataType::Utf8, false)];
    for &number in columns {
        let data_type = column(number, &[]).data_type().clone();
        fields.push(Field::new(format!("c{number}"), data_type, true));
    }
    Arc::new(Schema::new(fields))
}

fn batch(rows: &[(&String, [Value; COLUMNS])], columns: &[usize]) -> RecordBatch {
    let keys: StringArray = rows.iter().map(|(key, _)| Some(key.as_str())).collect();
    let mut arrays: Vec<ArrayRef> = vec![Arc::new(keys)];
    for &number in columns {
        let values: Vec<Value> = rows.iter().map(|(_, values)| values[number]).collect();
        arrays.push(column(number, &values));
    }
    RecordBatch::try_new(schema(columns), arrays).expect("fits")
}

fn batch_of(rows: &Rows, columns: &[usize]) -> RecordBatch {
    let rows: Vec<_> = rows.iter().map(|(key, values)| (key, *values)).collect();
    batch(&rows, columns)
}

/// What one commit does to a key: nothing said means a deletion.
#[derive(Clone, Debug)]
enum Op {
    Upsert { columns: u16, value: u32 },
    Delete,
}

type Commit = BTreeMap<u16, Op>;

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        // Few column sets, so that batches hold more than one row.
        4 => (0_u16..4, any::<u32>()).prop_map(|(set, value)| Op::Upsert {
            columns: [0b0_0000_0000_0010, 0b0_0000_1111_1111, 0b1_0101_0000_0001, 0b0_1010_1100_0000][usize::from(set)],
            value,
        }),
        1 => (any::<u16>(), any::<u32>()).prop_map(|(columns, value)| Op::Upsert { columns, value }),
        2 => Just(Op::Delete),
    ]
}

fn commits() -> impl Strategy<Value = Vec<Commit>> {
    proptest::collection::vec(
        proptest::collection::btree_map(0_u16..60, op(), 0..20),
        1..8,
    )
}

fn key(number: u16) -> String {
    format!("k{}{}", "é".repeat(usize::from(number % 3)), number)
}

/// The commit as effects, and made to the model.
fn take(commit: &Commit, rows: &mut Rows, known: &mut Vec<usize>) -> TableEffects {
    let mut effects = TableEffects::default();
    let mut sets: BTreeMap<u16, Vec<(String, [Value; COLUMNS])>> = BTreeMap::new();
    for (number, op) in commit {
        let key = key(*number);
        match op {
            Op::Delete => {
                rows.remove(&key);
                effects.delete.push(key);
            }
            Op::Upsert { columns, value } => {
                let mut values = [None; COLUMNS];
                let row = rows.entry(key.clone()).or_insert([None; COLUMNS]);
                for at in (0..COLUMNS).filter(|at| columns & (1 << at) != 0) {
                    values[at] = Some(u64::from(*value) + at as u64);
                    row[at] = values[at];
                }
                sets.entry(columns & ((1 << COLUMNS) - 1))
                    .or_default()
                    .push((key, values));
            }
        }
    }
    effects.delete.sort();
    for (columns, mut set) in sets {
        set.sort_by(|a, b| a.0.cmp(&b.0));
        let columns: Vec<usize> = (0..COLUMNS).filter(|at| columns & (1 << at) != 0).collect();
        for &at in &columns {
            if !known.contains(&at) {
                known.push(at);
            }
        }
        let set: Vec<_> = set.iter().map(|(key, values)| (key, *values)).collect();
        effects.upserts.push(batch(&set, &columns));
    }
    effects
}

/// Column by column, decoded by the Arrow crate; some are of types that are never gathered where they are to stand.
fn check_gathered(gathered: &Gathering, merged: &RecordBatch) {
    assert_eq!(gathered.rows(), merged.num_rows());
    if merged.num_rows() > 0 {
        let first = merged.column(0).as_string::<i32>().value(0);
        assert_eq!(gathered.first_key(), Some(first));
    }
    for (at, column) in gathered.columns().enumerate() {
        let expected = merged.project(&[at]).expect("a column");
        let Some(frame) = Frame::of(gathered.rows(), std::iter::once(column)) else {
            assert!((8..13).any(|of| expected.schema().field(0).name() == &format!("c{of}")));
            continue;
        };
        let mut encoder = BatchEncoder::default();
        let sealed = encoder.seal(&frame).expect("small");
        // Bytes of what stood there before.
        let mut bytes = vec![0xa5; usize::try_from(sealed.bytes()).expect("small")];
        sealed.write(std::iter::once(column), &mut bytes);
        let block = Buffer::from(bytes);
        let decoded = BatchDecoder::new(expected.schema())
            .decode_checked(&block, sealed.at(0).meta_bytes)
            .expect("decodes");
        assert_eq!(decoded, expected, "column {at}");
        let encoded = encoder.encode(&expected).expect("encodes");
        let whole: Vec<u8> = encoded
            .pieces()
            .flat_map(|(_, piece)| piece)
            .copied()
            .collect();
        assert!(
            whole == *block,
            "column {at} is encoded otherwise by itself"
        );
    }
}

fn state_of(tasks: RecordBatch) -> State {
    let mut state = State::empty("c");
    state.tables[1] = tasks;
    state
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn merged_and_folded_rows_are_those_of_a_map(
        first in proptest::collection::btree_map(0_u16..60, any::<u32>(), 0..40),
        commits in commits(),
        cut in 0_usize..40,
    ) {
        let mut known: Vec<usize> = (0..FIRST).collect();
        let mut rows: Rows = first
            .iter()
            .map(|(&number, &value)| (key(number), [Some(u64::from(value)); COLUMNS]))
            .map(|(key, mut values)| {
                values[FIRST..].fill(None);
                (key, values)
            })
            .collect();
        let begin = batch_of(&rows, &known);
        let (mut merged, mut fold) = (begin.clone(), Fold::new());
        let mut applied = state_of(begin.clone());
        for commit in &commits {
            let effects = take(commit, &mut rows, &mut known);
            let expected = batch_of(&rows, &known);
            // In two halves, as chunks are; the keys from the second's first on are its own.
            let changes = Changes::new(TableId::Tasks, &merged.schema(), &effects.upserts, &effects.delete);
            let changes = changes.expect("fits");
            let cut = cut.min(merged.num_rows());
            let halves = [merged.slice(0, cut), merged.slice(cut, merged.num_rows() - cut)];
            let first = (cut < merged.num_rows()).then(|| halves[1].column(0).clone());
            let first = first.map(|keys| keys.as_any().downcast_ref::<StringArray>().expect("text").value(0).to_owned());
            let below = (0..changes.len())
                .take_while(|&number| first.as_deref().is_none_or(|first| changes.key(number) < Some(first)))
                .count();
            let parts = [changes.merge(&halves[0], 0..below), changes.merge(&halves[1], below..changes.len())];
            for (half, numbers) in [(0, 0..below), (1, below..changes.len())] {
                let gathered = changes.gather(&halves[half], numbers).expect("gathers");
                if let (Some(gathered), Ok(Some(merged))) = (gathered, &parts[half]) {
                    check_gathered(&gathered, merged);
                }
            }
            let parts: Vec<RecordBatch> = parts
                .into_iter()
                .zip(halves)
                .map(|(part, half)| part.expect("merges").unwrap_or(half))
                .collect();
            prop_assert_eq!(&concat_batches(&changes.schema(), &parts).expect("fits"), &expected, "by halves");

            merged = merge_rows(TableId::Tasks, &merged, &effects.upserts, &effects.delete).expect("merges");
            prop_assert_eq!(&merged, &expected);
            let mut effects_of_all = Effects::default();
            effects_of_all.tables[1] = effects;
            fold.add(&effects_of_all).expect("folds");
            apply(&effects_of_all, &mut applied).expect("applies");
        }
        prop_assert_eq!(&applied.tables[1], &merged);
        let folded = fold.finish(state_of(begin)).expect("finishes");
        prop_assert_eq!(&folded.tables[1], &merged, "folded");
    }
}

#[test]
fn many_single_rows_are_put_together_and_the_last_value_of_each_column_wins() {
    let columns: Vec<usize> = (0..FIRST).collect();
    let numbers: Vec<u16> = (0..2000).collect();
    let mut rows: Rows = numbers
        .iter()
        .map(|&n| (key(n), [Some(1); COLUMNS]))
        .collect();
    let begin = batch_of(&rows, &columns);
    let mut fold = Fold::new();
    for entry in 0..10_000_u64 {
        let (n, set) = (
            u16::try_from(entry * 7919 % 2500).expect("small"),
            entry % 3,
        );
        let op = match set {
            0 => Op::Upsert {
                columns: 0b0110,
                value: u32::try_from(entry).expect("small"),
            },
            1 => Op::Upsert {
                columns: 0b1111_1111,
                value: u32::try_from(entry).expect("small"),
            },
            _ if entry % 11 == 0 => Op::Delete,
            _ => Op::Upsert {
                columns: 0b0011,
                value: u32::try_from(entry).expect("small"),
            },
        };
        let mut effects = Effects::default();
        effects.tables[1] = take(&Commit::from([(n, op)]), &mut rows, &mut columns.clone());
        fold.add(&effects).expect("folds");
    }
    let folded = fold.finish(state_of(begin)).expect("finishes");
    assert_eq!(folded.tables[1], batch_of(&rows, &columns));
}

#[test]
fn what_does_not_fit_is_named() {
    let old = RecordBatch::new_empty(table_schema(TableId::Content));
    let one = |name: &str, array: ArrayRef| {
        let keys: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
        RecordBatch::try_from_iter([("cid", keys), (name, array)]).expect("fits")
    };
    let refused = |upserts: &[RecordBatch], delete: &[String]| {
        let refused = merge_rows(TableId::Content, &old, upserts, delete);
        refused.expect_err("does not fit").to_string()
    };
    let wrong = one("size", Arc::new(Int32Array::from(vec![1])));
    for part in ["column size", "table content", "Int64", "Int32"] {
        let error = refused(std::slice::from_ref(&wrong), &[]);
        assert!(error.contains(part), "no {part:?} in {error}");
    }
    let right = one("size", Arc::new(Int64Array::from(vec![1])));
    let twice = refused(&[right.clone(), right.clone()], &[]);
    assert!(
        twice.contains("\"a\"") && twice.contains("content"),
        "{twice}"
    );
    let both = refused(&[right], &["a".to_owned()]);
    assert!(both.contains("\"a\""), "{both}");
    let id: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    let no_key = refused(
        &[RecordBatch::try_from_iter([("id", id)]).expect("fits")],
        &[],
    );
    assert!(no_key.contains("cid"), "{no_key}");
    let null = new_null_array(&DataType::Utf8, 1);
    let null_key = refused(
        &[RecordBatch::try_from_iter([("cid", null)]).expect("fits")],
        &[],
    );
    assert!(null_key.contains("cid"), "{null_key}");
    let mut state = State::empty("c");
    let two =
        concat_batches(&state.cluster.schema(), [&state.cluster, &state.cluster]).expect("fits");
    let effects = Effects {
        cluster: Some(two),
        ..Effects::default()
    };
    assert!(apply(&effects, &mut state).is_err());
}

#[test]
fn columns_that_nothing_touches_are_shared_and_not_copied() {
    let columns: Vec<usize> = (0..FIRST).collect();
    let rows: Rows = (0..100_u16)
        .map(|n| (key(n), [Some(u64::from(n)); COLUMNS]))
        .collect();
    let begin = batch_of(&rows, &columns);
    let mut changed = rows.clone();
    let commit = Commit::from([(
        3,
        Op::Upsert {
            columns: 0b0010,
            value: 9,
        },
    )]);
    let effects = take(&commit, &mut changed, &mut columns.clone());
    let merged = merge_rows(TableId::Tasks, &begin, &effects.upserts, &[]).expect("merges");
    for (at, (before, after)) in begin.columns().iter().zip(merged.columns()).enumerate() {
        assert_eq!(
            before.to_data().ptr_eq(&after.to_data()),
            at != 2,
            "column {at}"
        );
    }
}

#[test]
fn a_row_that_was_deleted_and_came_again_keeps_nothing_of_the_old_one() {
    let columns: Vec<usize> = (0..FIRST).collect();
    let mut rows: Rows = (0..5_u16).map(|n| (key(n), [Some(1); COLUMNS])).collect();
    let begin = batch_of(&rows, &columns);
    let mut fold = Fold::new();
    let again = Op::Upsert {
        columns: 0b0010,
        value: 9,
    };
    for op in [Op::Delete, again] {
        let mut effects = Effects::default();
        let commit = Commit::from([(3, op)]);
        effects.tables[1] = take(&commit, &mut rows, &mut columns.clone());
        fold.add(&effects).expect("folds");
    }
    let folded = fold.finish(state_of(begin)).expect("finishes");
    assert_eq!(folded.tables[1], batch_of(&rows, &columns));
}
