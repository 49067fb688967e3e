use arrow_array::types::Int32Type;
use arrow_array::{
    BooleanArray, DictionaryArray, Int32Array, Int64Array, StructArray, new_null_array,
};
use arrow_schema::Field;

use super::*;

fn string(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn of(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))
        .unwrap()
}

fn cluster() -> RecordBatch {
    of(vec![("cluster_id", string(&["c"]))])
}

fn none(table: TableId) -> RecordBatch {
    RecordBatch::new_empty(table_schema(table))
}

fn with(table: TableId, rows: RecordBatch) -> Result<State, StateError> {
    let mut tables = TableId::ALL.map(none);
    tables[table as usize] = rows;
    State::new(cluster(), tables)
}

fn names(batch: &RecordBatch) -> Vec<String> {
    batch
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect()
}

#[test]
fn rows_are_sorted_with_all_their_columns() {
    let mut tags =
        arrow_array::builder::ListBuilder::new(arrow_array::builder::StringBuilder::new());
    tags.append_value([Some("of b")]);
    tags.append_null();
    tags.append_value([Some("of a"), None]);
    let state = with(
        TableId::Tasks,
        of(vec![
            ("status", string(&["sb", "sc", "sa"])),
            ("id", string(&["b", "c", "a"])),
            ("tags", Arc::new(tags.finish())),
        ]),
    )
    .unwrap();
    let tasks = state.table(TableId::Tasks);
    assert_eq!(tasks.column(0), &string(&["a", "b", "c"]));
    assert_eq!(tasks.column(2), &string(&["sa", "sb", "sc"]));
    let tags = tasks.column_by_name("tags").unwrap().as_list::<i32>();
    assert_eq!(tags.value(0).as_string::<i32>().value(0), "of a");
    assert_eq!(tags.value(1).as_string::<i32>().value(0), "of b");
    assert!(tags.is_null(2));
}

#[test]
fn known_columns_come_first_in_schema_order_and_others_follow_as_they_came() {
    let resources: ArrayRef = Arc::new(StructArray::from(vec![
        (
            Arc::new(Field::new("tpu", DataType::Boolean, false)),
            Arc::new(BooleanArray::from(vec![true])) as ArrayRef,
        ),
        (
            Arc::new(Field::new("memory_mb", DataType::Int64, true)),
            Arc::new(Int64Array::from(vec![9])),
        ),
    ]));
    let state = with(
        TableId::Tasks,
        of(vec![
            ("zeta", string(&["z"])),
            ("resources", resources),
            ("alpha", string(&["a"])),
            ("id", string(&["t"])),
        ]),
    )
    .unwrap();
    let tasks = state.table(TableId::Tasks);
    let mut expected = names(&none(TableId::Tasks));
    expected.extend(["zeta".to_owned(), "alpha".to_owned()]);
    assert_eq!(names(tasks), expected);
    let resources = tasks.column_by_name("resources").unwrap().as_struct();
    assert_eq!(
        resources.column_names(),
        ["cpu_cores", "gpu_cores", "memory_mb", "tpu"]
    );
    assert_eq!(resources.column(2).as_primitive::<Int32Type>().value(0), 9);
    assert!(
        resources.fields()[3].is_nullable(),
        "another writer's field may miss anywhere"
    );
    let schema = tasks.schema();
    for (index, field) in schema.fields().iter().enumerate() {
        assert_eq!(field.is_nullable(), index != 0, "{}", field.name());
    }
}

#[test]
fn an_empty_state_is_what_its_parts_make() {
    let empty = State::empty("c");
    assert_eq!(
        State::new(empty.cluster.clone(), empty.tables.clone()),
        Ok(empty.clone())
    );
    assert_eq!(
        (
            empty.cluster_id(),
            empty.master_id(),
            empty.updated_at_millis()
        ),
        ("c", None, None)
    );
    // No columns at all will do for a table without rows.
    let bare = RecordBatch::new_empty(Arc::new(Schema::empty()));
    assert_eq!(
        State::new(cluster(), [bare.clone(), bare.clone(), bare]),
        Ok(empty)
    );
}

#[test]
fn carried_columns_lose_dictionaries_and_views_and_nothing_else() {
    let dictionary: DictionaryArray<Int32Type> = vec!["x", "y", "x"].into_iter().collect();
    let lists = {
        let mut lists =
            arrow_array::builder::ListBuilder::new(arrow_array::builder::StringViewBuilder::new());
        for text in ["a value too long to be inlined", "b", "c"] {
            lists.append_value([Some(text)]);
        }
        lists.finish()
    };
    let metadata = [("PARQUET:field_id", "7"), ("ARROW:extension:name", "mine")];
    let metadata = metadata.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let field = Field::new("kind", dictionary.data_type().clone(), false).with_metadata(metadata);
    let schema = Schema::new(vec![
        Field::new("cid", DataType::Utf8, true),
        field,
        Field::new("lists", lists.data_type().clone(), true),
    ]);
    let columns: Vec<ArrayRef> = vec![
        string(&["a", "b", "c"]),
        Arc::new(dictionary),
        Arc::new(lists),
    ];
    let state = with(
        TableId::Content,
        RecordBatch::try_new(Arc::new(schema), columns).unwrap(),
    )
    .unwrap();
    let content = state.table(TableId::Content);
    assert_eq!(
        content.column_by_name("kind").unwrap(),
        &string(&["x", "y", "x"])
    );
    let schema = content.schema();
    let kind = schema.field_with_name("kind").unwrap();
    assert_eq!(
        kind.metadata().keys().collect::<Vec<_>>(),
        ["ARROW:extension:name"]
    );
    let DataType::List(item) = schema.field_with_name("lists").unwrap().data_type() else {
        panic!()
    };
    assert_eq!(item.data_type(), &DataType::Utf8);
}

#[test]
fn a_slice_of_something_large_does_not_keep_it() {
    let ids: Vec<String> = (0..50_000).map(|i| format!("task-{i:08}")).collect();
    let large = of(vec![("id", Arc::new(StringArray::from(ids)) as ArrayRef)]);
    let state = with(TableId::Tasks, large.slice(100, 10)).unwrap();
    let tasks = state.table(TableId::Tasks);
    assert_eq!(tasks.column(0).as_string::<i32>().value(0), "task-00000100");
    assert!(
        tasks.column(0).get_buffer_memory_size() < 8192,
        "{}",
        tasks.column(0).get_buffer_memory_size()
    );
}

/// Every way a table can be wrong, with what its error must say.
#[test]
fn what_is_wrong_with_a_table_is_named_with_table_column_and_row() {
    use TableId::{Content, Nodes, Tasks};
    let ints: ArrayRef = Arc::new(Int32Array::from(vec![1]));
    let union_type = DataType::RunEndEncoded(
        Arc::new(Field::new("run_ends", DataType::Int32, false)),
        Arc::new(Field::new("values", DataType::Utf8, true)),
    );
    let resources: ArrayRef = Arc::new(StructArray::from(vec![(
        Arc::new(Field::new("cpu_cores", DataType::Int64, true)),
        Arc::new(Int64Array::from(vec![1, 1 << 40])) as ArrayRef,
    )]));
    let cases: Vec<(TableId, RecordBatch, &[&str])> = vec![
        (
            Nodes,
            of(vec![("id", ints.clone())]),
            &["nodes.id", "Int32", "a string"],
        ),
        (
            Nodes,
            of(vec![("role", string(&["r"]))]),
            &["nodes", "no column id"],
        ),
        (
            Content,
            of(vec![("id", string(&["r"]))]),
            &["content", "no column cid"],
        ),
        (
            Nodes,
            of(vec![("id", string(&["x", "a", "x"]))]),
            &["nodes", "\"x\"", "positions 0 and 2"],
        ),
        (
            Content,
            of(vec![(
                "cid",
                Arc::new(StringArray::from(vec![Some("a"), None])) as ArrayRef,
            )]),
            &["content", "position 1", "no cid"],
        ),
        (
            Tasks,
            of(vec![("id", string(&["b", "a"])), ("resources", resources)]),
            &[
                "tasks.resources.cpu_cores",
                "1099511627776",
                "\"a\"",
                "position 1",
                "Int32",
            ],
        ),
        (
            Tasks,
            of(vec![
                ("id", string(&["a"])),
                ("runs", new_null_array(&union_type, 1)),
            ]),
            &["tasks.runs", "RunEndEncoded", "cannot carry"],
        ),
        (
            Tasks,
            RecordBatch::try_new(
                Arc::new(Schema::new(vec![
                    Field::new("id", DataType::Utf8, true),
                    Field::new("x", DataType::Utf8, true),
                    Field::new("x", DataType::Utf8, true),
                ])),
                vec![string(&["a"]), string(&["a"]), string(&["a"])],
            )
            .unwrap(),
            &["tasks.x", "twice"],
        ),
    ];
    for (table, rows, words) in cases {
        let error = with(table, rows).expect_err(words[0]).to_string();
        for word in words {
            assert!(error.contains(word), "{word:?} is missing in: {error}");
        }
    }
}

#[test]
fn what_is_wrong_with_the_cluster_is_named() {
    let null_id = of(vec![("cluster_id", new_null_array(&DataType::Utf8, 1))]);
    let two = of(vec![("cluster_id", string(&["a", "b"]))]);
    let reserved = of(vec![
        ("cluster_id", string(&["a"])),
        ("tasks", string(&["x"])),
    ]);
    let wrong = of(vec![
        ("cluster_id", string(&["a"])),
        ("updated_at", string(&["now"])),
    ]);
    let check = |cluster: RecordBatch| State::new(cluster, TableId::ALL.map(none)).unwrap_err();
    assert_eq!(check(null_id), StateError::NoClusterId);
    assert_eq!(check(two), StateError::NotOneRow { rows: 2 });
    assert_eq!(
        check(reserved),
        StateError::Reserved {
            column: "tasks".to_owned()
        }
    );
    assert_eq!(
        check(wrong).to_string(),
        "column updated_at is Utf8, but a state needs a timestamp there"
    );
}
