#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    reason = "drawn numbers: any will do"
)]

use arrow_array::types::{Int32Type, TimestampMillisecondType};
use arrow_array::{
    BooleanArray, Float32Array, Int32Array, Int64Array, LargeListArray, NullArray, PrimitiveArray,
    RecordBatchOptions, TimestampMicrosecondArray, UInt32Array, new_null_array,
};
use arrow_buffer::NullBuffer;
use arrow_schema::TimeUnit;
use arrow_select::take::take;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;

/// Rows of a table with every type in it, extra columns included, from one seed each.
fn rows(table: TableId, keys: &[String], seed: u64, extra: bool) -> RecordBatch {
    let schema = schema::table_schema(table);
    let mut draw = Draw(seed);
    let mut fields = schema.fields().to_vec();
    if extra {
        fields.push(Arc::new(Field::new("extra", DataType::Int64, true)));
    }
    let columns = fields
        .iter()
        .map(|field| match field.name().as_str() {
            name if name == table.key() => Arc::new(StringArray::from(keys.to_vec())) as ArrayRef,
            _ => draw.column(field.data_type(), keys.len()),
        })
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(keys.len()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).unwrap()
}

struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn maybe<T>(&mut self, value: impl FnOnce(u64) -> T) -> Option<T> {
        let drawn = self.next();
        (!drawn.is_multiple_of(4)).then(|| value(drawn / 4))
    }

    fn column(&mut self, data_type: &DataType, len: usize) -> ArrayRef {
        match data_type {
            DataType::Utf8 => Arc::new(
                (0..len)
                    .map(|_| self.maybe(|n| "é".repeat(n as usize % 5)))
                    .collect::<StringArray>(),
            ),
            DataType::Int32 => Arc::new(
                (0..len)
                    .map(|_| self.maybe(|n| n as i32))
                    .collect::<Int32Array>(),
            ),
            DataType::Int64 => Arc::new(
                (0..len)
                    .map(|_| self.maybe(|n| -(n as i64)))
                    .collect::<Int64Array>(),
            ),
            DataType::Float32 => Arc::new(
                (0..len)
                    .map(|_| self.maybe(|n| n as f32 / 7.0))
                    .collect::<Float32Array>(),
            ),
            DataType::Boolean => Arc::new(
                (0..len)
                    .map(|_| self.maybe(|n| n % 2 == 0))
                    .collect::<BooleanArray>(),
            ),
            DataType::Timestamp(TimeUnit::Millisecond, None) => Arc::new(
                (0..len)
                    .map(|_| self.maybe(|n| n as i64 * 1_003))
                    .collect::<PrimitiveArray<TimestampMillisecondType>>(),
            ),
            DataType::List(item) => {
                let lengths: Vec<usize> = (0..len).map(|_| self.next() as usize % 3).collect();
                let values = self.column(item.data_type(), lengths.iter().sum());
                let nulls: NullBuffer = (0..len)
                    .map(|_| !self.next().is_multiple_of(4))
                    .collect::<Vec<_>>()
                    .into();
                Arc::new(ListArray::new(
                    Arc::clone(item),
                    OffsetBuffer::from_lengths(lengths),
                    values,
                    Some(nulls),
                ))
            }
            DataType::Struct(fields) => {
                let nulls: NullBuffer = (0..len)
                    .map(|_| !self.next().is_multiple_of(4))
                    .collect::<Vec<_>>()
                    .into();
                let columns = fields
                    .iter()
                    .map(|field| self.column(field.data_type(), len))
                    .collect();
                Arc::new(StructArray::new(fields.clone(), columns, Some(nulls)))
            }
            other => panic!("the schema has no {other}"),
        }
    }
}

fn any_state() -> impl Strategy<Value = State> {
    let keys = || {
        btree_set("[a-c]{0,3}|k[0-9]{1,8}|é.?", 0..20)
            .prop_map(|keys| keys.into_iter().collect::<Vec<_>>())
    };
    (vec(keys(), 3), any::<u64>(), any::<[bool; 4]>()).prop_map(|(keys, seed, extra)| {
        let mut draw = Draw(seed);
        let cluster = RecordBatch::try_from_iter_with_nullable([
            (
                "cluster_id",
                Arc::new(StringArray::from(vec!["c"])) as ArrayRef,
                true,
            ),
            ("master_id", draw.column(&DataType::Utf8, 1), true),
            ("updated_at", draw.column(&schema::TIMESTAMP, 1), true),
        ]);
        let mut cluster = cluster.unwrap();
        if extra[3] {
            let mut fields = cluster.schema().fields().to_vec();
            let mut columns = cluster.columns().to_vec();
            fields.push(Arc::new(Field::new("region", DataType::Int32, true)));
            columns.push(Arc::new(Int32Array::from(vec![Some(5)])));
            cluster = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        }
        let tables =
            TableId::ALL.map(|t| rows(t, &keys[t as usize], seed ^ t as u64, extra[t as usize]));
        State::new(cluster, tables).unwrap()
    })
}

/// One table's list, with its rows in another order and every column in a looser type.
fn loosened(document: &RecordBatch, table: TableId, seed: u64) -> ArrayRef {
    let list = document
        .column_by_name(table.name())
        .unwrap()
        .as_list::<i32>();
    let structs = list.value(0);
    let structs = structs.as_struct();
    let mut draw = Draw(seed);
    let mut order: Vec<u32> = (0..u32::try_from(structs.len()).unwrap()).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, draw.next() as usize % (i + 1));
    }
    let order = UInt32Array::from(order);
    let mut columns: Vec<(FieldRef, ArrayRef)> = structs
        .fields()
        .iter()
        .zip(structs.columns())
        .map(|(field, column)| {
            let column = take(column, &order, None).unwrap();
            let column = loose_column(&column, &mut draw);
            (
                Arc::new(Field::new(field.name(), column.data_type().clone(), true)),
                column,
            )
        })
        .collect();
    columns.reverse();
    let (fields, columns): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let structs = StructArray::new(fields.into(), columns, None);
    let item = Arc::new(Field::new("element", structs.data_type().clone(), true));
    Arc::new(LargeListArray::new(
        item,
        OffsetBuffer::from_lengths([structs.len()]),
        Arc::new(structs),
        None,
    ))
}

fn loose_column(column: &ArrayRef, draw: &mut Draw) -> ArrayRef {
    let n = draw.next();
    let to = match column.data_type() {
        DataType::Utf8 => match n % 3 {
            0 => DataType::LargeUtf8,
            1 => DataType::Utf8View,
            _ => DataType::Dictionary(Box::new(DataType::Int16), Box::new(DataType::Utf8)),
        },
        DataType::Int32 => DataType::Int64,
        DataType::Float32 => DataType::Float64,
        DataType::Timestamp(..) if n.is_multiple_of(2) => {
            DataType::Timestamp(TimeUnit::Microsecond, None)
        }
        DataType::Timestamp(..) => DataType::Timestamp(TimeUnit::Nanosecond, None),
        DataType::List(_) => {
            DataType::LargeList(Arc::new(Field::new("element", DataType::LargeUtf8, true)))
        }
        other => other.clone(),
    };
    if column.null_count() == column.len() {
        return Arc::new(NullArray::new(column.len()));
    }
    arrow_cast::cast(column, &to).unwrap()
}

proptest! {
    // A failure prints its input; a file beside the sources would be one more copy of it.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_state_survives_the_document_and_back(state in any_state()) {
        let document = to_document(&state).unwrap();
        prop_assert_eq!(from_document(&document, None), Ok(state.clone()));
        let (oldest, _) = to_oldest_document(&state).unwrap();
        prop_assert_eq!(from_document(&oldest, Some("c")), Ok(state));
    }

    #[test]
    fn a_loose_and_shuffled_document_gives_the_same_state(state in any_state(), seed in any::<u64>()) {
        // Extra columns keep the types they come in, so only the known ones can be compared.
        let known = |state: &State| TableId::ALL.map(|t| {
            let count = schema::table_schema(t).fields().len();
            state.table(t).project(&(0..count).collect::<Vec<_>>()).unwrap()
        });
        let document = to_document(&state).unwrap();
        let mut fields = document.schema().fields().to_vec();
        let mut columns = document.columns().to_vec();
        for table in TableId::ALL {
            let index = document.schema().index_of(table.name()).unwrap();
            columns[index] = loosened(&document, table, seed ^ table as u64);
            fields[index] = Arc::new(Field::new(table.name(), columns[index].data_type().clone(), true));
        }
        let loose = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        let read = from_document(&loose, None).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(known(&read), known(&state));
        prop_assert_eq!(read.cluster, state.cluster);
    }
}

fn string(value: &str) -> ArrayRef {
    Arc::new(StringArray::from(vec![value]))
}

fn list_of_structs(columns: Vec<(&str, ArrayRef)>, nulls: Option<Vec<bool>>) -> ArrayRef {
    let len = columns[0].1.len();
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, c)| Field::new(*name, c.data_type().clone(), true))
        .collect();
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    let structs = StructArray::new(fields.into(), columns, nulls.map(NullBuffer::from));
    let item = Arc::new(Field::new_list_field(structs.data_type().clone(), true));
    Arc::new(ListArray::new(
        item,
        OffsetBuffer::from_lengths([len]),
        Arc::new(structs),
        None,
    ))
}

fn of(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))
        .unwrap()
}

#[test]
fn a_state_without_later_fields_is_written_exactly_in_the_documents_schema() {
    let tasks = of(vec![("id", string("t1"))]);
    let mut parts = State::empty("c");
    parts.tables[TableId::Tasks as usize] = tasks;
    let state = State::new(parts.cluster.clone(), parts.tables.clone()).unwrap();
    let (document, version) = to_oldest_document(&state).unwrap();
    assert_eq!((document.schema(), version), (schema::document_schema(), 1));

    let tasks = of(vec![
        ("id", string("t1")),
        (
            "started_at",
            Arc::new(TimestampMicrosecondArray::from(vec![5_000_000])) as ArrayRef,
        ),
    ]);
    parts.tables[TableId::Tasks as usize] = tasks;
    let state = State::new(parts.cluster, parts.tables).unwrap();
    let (document, version) = to_oldest_document(&state).unwrap();
    assert_eq!(version, 2);
    let tasks = document
        .column_by_name("tasks")
        .unwrap()
        .as_list::<i32>()
        .value(0);
    let names = tasks.as_struct().column_names();
    assert!(
        names.contains(&"started_at") && !names.contains(&"completed_at"),
        "{names:?}"
    );
    assert_eq!(to_document(&state).unwrap().num_columns(), 6);
}

#[test]
fn making_a_document_copies_no_column() {
    let ids: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let mut parts = State::empty("c");
    parts.tables[0] = of(vec![("id", Arc::clone(&ids))]);
    let state = State::new(parts.cluster, parts.tables).unwrap();
    assert!(
        state.tables[0].column(0).to_data().ptr_eq(&ids.to_data()),
        "sorted columns were copied"
    );
    let document = to_document(&state).unwrap();
    let nodes = document
        .column_by_name("nodes")
        .unwrap()
        .as_list::<i32>()
        .value(0);
    assert!(nodes.as_struct().column(0).to_data().ptr_eq(&ids.to_data()));
}

#[test]
fn absent_and_null_lists_are_tables_without_rows() {
    let id = || ("cluster_id", string("c"));
    let node = list_of_structs(vec![("id", string("n"))], None);
    let null_list = schema::document_field(TableId::Tasks, Fields::empty());
    let document = of(vec![
        id(),
        ("nodes", node),
        ("tasks", new_null_array(null_list.data_type(), 1)),
    ]);
    let state = from_document(&document, Some("c")).unwrap();
    assert_eq!(TableId::ALL.map(|t| state.table(t).num_rows()), [1, 0, 0]);

    let nulls = of(vec![
        id(),
        ("nodes", Arc::new(NullArray::new(1)) as ArrayRef),
    ]);
    assert_eq!(from_document(&nulls, None), Ok(State::empty("c")));
    let empty = ListArray::new(
        Arc::new(Field::new_list_field(DataType::Null, true)),
        OffsetBuffer::from_lengths([0]),
        Arc::new(NullArray::new(0)),
        None,
    );
    let empty = of(vec![id(), ("content", Arc::new(empty) as ArrayRef)]);
    assert_eq!(from_document(&empty, None), Ok(State::empty("c")));
}

#[test]
fn a_cluster_id_that_is_null_or_absent_is_the_expected_one_or_an_error() {
    let tasks = || ("tasks", Arc::new(NullArray::new(1)) as ArrayRef);
    for document in [
        of(vec![tasks()]),
        of(vec![
            ("cluster_id", new_null_array(&DataType::Utf8, 1)),
            tasks(),
        ]),
        of(vec![
            ("cluster_id", Arc::new(NullArray::new(1)) as ArrayRef),
            tasks(),
        ]),
    ] {
        assert_eq!(from_document(&document, None), Err(StateError::NoClusterId));
        assert_eq!(
            from_document(&document, Some("mine")),
            Ok(State::empty("mine"))
        );
    }
    let other = of(vec![("cluster_id", string("theirs")), tasks()]);
    let error = from_document(&other, Some("mine")).unwrap_err();
    let expected = StateError::WrongCluster {
        expected: "mine".into(),
        found: "theirs".into(),
    };
    assert_eq!(error, expected);
}

/// Every way a document can be wrong that its tables alone cannot, with what its error must say.
#[test]
fn what_is_wrong_with_a_document_is_named_with_its_place() {
    let id = || ("cluster_id", string("c"));
    let ids: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
    let null_entry = list_of_structs(vec![("id", ids)], Some(vec![true, false, true]));
    let ints = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1)])]);
    let twice = Schema::new(vec![
        Field::new("tasks", DataType::Null, true),
        Field::new("tasks", DataType::Null, true),
    ]);
    let nulls: ArrayRef = Arc::new(NullArray::new(1));
    let cases: Vec<(RecordBatch, &[&str])> = vec![
        (
            of(vec![("a", string("x")), ("b", string("y"))]),
            &["not a cluster state", "a, b"],
        ),
        (
            of(vec![id(), ("nodes", string("x"))]),
            &["nodes", "Utf8", "a list of structs"],
        ),
        (
            of(vec![id(), ("nodes", new_null_array(&DataType::Utf8, 1))]),
            &["nodes", "Utf8"],
        ),
        (
            of(vec![id(), ("tasks", Arc::new(ints) as ArrayRef)]),
            &["tasks", "List(Int32)", "a list of structs"],
        ),
        (
            of(vec![id(), ("content", null_entry)]),
            &["content", "position 1", "null"],
        ),
        (
            RecordBatch::try_new(Arc::new(twice), vec![nulls.clone(), nulls]).unwrap(),
            &["column tasks", "twice"],
        ),
        (
            of(vec![
                id(),
                ("tasks", Arc::new(NullArray::new(1)) as ArrayRef),
            ])
            .slice(0, 0),
            &["0 rows"],
        ),
    ];
    for (document, words) in cases {
        let error = from_document(&document, None)
            .expect_err(words[0])
            .to_string();
        for word in words {
            assert!(error.contains(word), "{word:?} is missing in: {error}");
        }
    }
}
