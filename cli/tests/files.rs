//! Rows and whole states from files: what `put` and `import` send, and what they say of a file that is wrong.

mod common;
mod served;
#[path = "../../client/tests/stub/mod.rs"]
mod stub;

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};
use served::Served;
use stub::Act;

#[test]
fn rows_are_put_from_every_kind_of_file_and_an_export_of_tables_is_imported_whole() {
    let served = Served::new();
    let rows = |name: &str| served.host.path(name);
    std::fs::write(
        rows("t.jsonl"),
        "{\"id\":\"t1\"}\n{\"id\":\"t2\",\"status\":\"pending\"}\n",
    )
    .expect("writes");
    std::fs::write(rows("t.csv"), "id,status\nt1,\nt2,pending\n").expect("writes");
    let ran = served
        .run(&["put", "tasks", "-f", "t.jsonl", "--id", "x"])
        .ended(0);
    assert_eq!(ran.stdout, "2 rows done in generation 1\n");
    let put = |row: Value| json!({"put": "tasks", "row": row});
    let pending = put(json!({"id": "t2", "status": "pending"}));
    let expected =
        json!({"do": "transaction", "id": "x", "ops": [put(json!({"id": "t1"})), pending]});
    assert_eq!(served.request(), expected);
    served.run(&["put", "tasks", "-f", "t.csv"]).ended(0);
    let without = put(json!({"id": "t1", "status": null}));
    assert_eq!(served.request()["ops"], json!([without, pending]));
    // Arrow: what `sherwood snapshot` writes.
    served.run(&["snapshot", "out"]).ended(0);
    served
        .run(&["put", "tasks", "-f", "out/tasks.arrow", "--id", "y"])
        .ended(0);
    assert_eq!(served.request(), json!({"put": "tasks", "id": "y"}));
    assert_eq!(served.stub.seen().rows["y"], 40);
    let ran = served
        .run(&["import", "out", "--id", "z", "-o", "json"])
        .ended(0);
    assert_eq!(ran.json()["rows"], json!(65));
    let requests = std::mem::take(&mut served.stub.seen().requests);
    let tables: Vec<_> = requests.iter().map(|request| &request["put"]).collect();
    assert_eq!(tables[..3], ["nodes", "tasks", "content"]);
    let set = json!([{"patch": "cluster", "set": {"master_id": "node-00000"}}]);
    assert_eq!(requests[3]["ops"], set);
    served
        .run(&["import", "state/state_sample.parquet", "--id", "w"])
        .ended(0);
    let requests = std::mem::take(&mut served.stub.seen().requests);
    let ids: Vec<_> = requests.iter().map(|request| &request["id"]).collect();
    assert_eq!(ids[..3], ["w", "w-2", "w-3"]);
    assert_eq!(served.stub.seen().rows["w-2"], 40);
    // What is not imported is named.
    let text =
        r#"{"cluster": {"cluster_id": "sample", "region": "eu", "owner": "me"}, "tasks": []}"#;
    std::fs::write(rows("whole.json"), text).expect("writes");
    let ran = served.run(&["import", "whole.json"]).ended(0);
    for told in ["warning: these columns of the cluster", "region", "owner"] {
        assert!(ran.stderr.contains(told), "{told}: {ran:?}");
    }
    assert!(!ran.stderr.contains("cluster_id"), "{ran:?}");
    // Another cluster's state is not taken by accident.
    served.host.sample_of("other", "other", 3);
    let ran = served
        .run(&["import", "other/state_other.parquet"])
        .ended(1);
    assert!(ran.stderr.contains("--any-cluster"), "{ran:?}");
}

/// Whatever it is in, a row that its table cannot hold is refused, by its number in the file and by what is wrong with it.
#[test]
fn a_row_that_its_table_cannot_hold_is_refused_by_its_number_and_nothing_is_sent() {
    let served = Served::new();
    std::fs::create_dir(served.host.path("tables")).expect("a directory");
    let ids: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("b"), None]));
    let priorities: ArrayRef = Arc::new(Int64Array::from(vec![1, 1 << 40, 1]));
    let columns = [("id", ids), ("priority", priorities)];
    let batch = RecordBatch::try_from_iter(columns).expect("a batch");
    let write = |name: &str, batch: &RecordBatch| {
        let file = std::fs::File::create(served.host.path(name)).expect("a file");
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
        writer.write(batch).expect("writes");
        writer.close().expect("writes");
    };
    write("large.parquet", &batch);
    write("tables/tasks.parquet", &batch);
    write("keyless.parquet", &batch.project(&[0]).expect("a column"));
    let text =
        |name: &str, text: &str| std::fs::write(served.host.path(name), text).expect("writes");
    text("keyless.jsonl", "{\"id\":\"a\"}\n\n{\"type\":\"t\"}\n");
    text("null.json", "[{\"id\":\"a\"},{\"id\":null}]");
    text("keyless.csv", "id,type\na,t\n,t\n");
    let large = "row 2: tasks \"b\", column priority: 1099511627776 does not fit int32";
    let null = "\"id\" is the key of tasks, and has to be text: it is null";
    for (args, told) in [
        (
            &["put", "tasks", "-f", "large.parquet"][..],
            large.to_owned(),
        ),
        (&["import", "tables"], large.to_owned()),
        (
            &["put", "tasks", "-f", "keyless.parquet"],
            "row 3: a row of tasks needs \"id\", its key, and here it is null".to_owned(),
        ),
        (
            &["put", "tasks", "-f", "keyless.jsonl"],
            "row 2: a row of tasks needs \"id\", its key".to_owned(),
        ),
        (
            &["put", "tasks", "-f", "null.json"],
            format!("row 2: {null}"),
        ),
        (
            &["put", "tasks", "-f", "keyless.csv"],
            format!("row 2: {null}"),
        ),
    ] {
        let ran = served.run(args).ended(5);
        assert!(
            ran.stderr.starts_with("error: refused: \""),
            "{args:?}: {ran:?}"
        );
        assert!(
            ran.stderr.ends_with(&format!(", {told}\n")),
            "{args:?}: {ran:?}"
        );
    }
    assert!(served.stub.seen().requests.is_empty());
}

#[test]
fn a_file_that_was_taken_for_what_it_is_not_says_so() {
    let served = Served::new();
    let text =
        |name: &str, text: &str| std::fs::write(served.host.path(name), text).expect("writes");
    text("users", "root:x:0\ndaemon:x:1\n");
    text("rows.csv", "id,type\na\n");
    text("rows.jsonl", "{\"id\":\"a\"}\n{\"id\":\"b\"}\n");
    let put = |file: &str, more: &[&str]| {
        let args = [&["put", "tasks", "-f", file], more].concat();
        served.run(&args).ended(1).stderr
    };
    let told = put("users", &[]);
    assert!(
        told.starts_with("error: \"users\" was taken for CSV, since its first bytes are of nothing else; say --format"),
        "{told}"
    );
    assert!(
        told.contains("the header has no column \"id\", the key of tasks"),
        "{told}"
    );
    let told = put("rows.csv", &[]);
    assert!(
        told.starts_with("error: \"rows.csv\" was taken for CSV, by its name; say"),
        "{told}"
    );
    let told = put("users", &["--format", "csv"]);
    assert!(!told.contains("was taken for"), "{told}");
    for (file, told) in [
        (
            "users",
            "CSV, since its first bytes are of nothing else: rows of one table",
        ),
        ("rows.csv", "CSV, by its name: rows"),
        ("rows.jsonl", "JSON without nodes, tasks and content: rows"),
    ] {
        let ran = served.run(&["import", file]).ended(2);
        let told = format!("error: {file:?} is no whole state, but {told}");
        assert!(ran.stderr.starts_with(&told), "{ran:?}");
    }
    assert!(served.stub.seen().requests.is_empty());
}

#[test]
fn an_import_takes_transactions_that_put_rows_and_no_others() {
    let served = Served::new();
    let lines = "{\"ops\":[{\"patch\":\"cluster\",\"key\":\"sample\",\"set\":{\"master_id\":\"n\"}}]}\n\
                 {\"ops\":[{\"put\":\"tasks\",\"row\":{\"id\":\"t\"}},{\"put\":\"nodes\",\"row\":{\"id\":\"n\"}}]}\n\
                 {\"ops\":[{\"put\":\"nodes\",\"row\":{\"id\":\"m\"}}]}\n";
    let file = served.host.path("all.jsonl");
    std::fs::write(&file, lines).expect("writes");
    let ran = served.run(&["import", "all.jsonl", "--id", "x"]).ended(0);
    assert_eq!(
        ran.stdout,
        "3 rows done in 3 transactions, the last in generation 3\n"
    );
    let requests = std::mem::take(&mut served.stub.seen().requests);
    let ops: Vec<_> = requests.iter().map(|request| &request["ops"]).collect();
    let put = |table: &str, id: &str| json!({"put": table, "row": {"id": id}});
    let expected = [
        json!([put("tasks", "t")]),
        json!([put("nodes", "n"), put("nodes", "m")]),
        json!([{"patch": "cluster", "set": {"master_id": "n"}}]),
    ];
    assert_eq!(ops, expected.iter().collect::<Vec<_>>());
    for (third, told) in [
        (
            "{\"ops\":[{\"delete\":\"nodes\",\"key\":\"m\"}]}",
            "transaction 4: it does more",
        ),
        (
            "{\"if\":[{\"generation\":1}],\"ops\":[]}",
            "transaction 4: it does more",
        ),
        (
            "{\"do\":\"start\",\"task\":\"t\"}",
            "transaction 4: the transaction has no",
        ),
        ("7", "transaction 4: 7 is no object"),
    ] {
        std::fs::write(&file, format!("{lines}{third}\n")).expect("writes");
        let ran = served.run(&["import", "all.jsonl"]).ended(1);
        assert!(ran.stderr.contains(told), "{third}: {ran:?}");
    }
}

#[test]
fn a_file_that_breaks_off_says_where_and_how_much_of_it_is_in() {
    let served = Served::new();
    let rows: String = (0..5_001)
        .map(|row| format!("{{\"id\":\"t{row}\"}}\n"))
        .collect();
    let torn = format!("{rows}{{\"id\":oops}}\n");
    std::fs::write(served.host.path("t.jsonl"), torn).expect("writes");
    let ran = served.run(&["put", "tasks", "-f", "t.jsonl"]).ended(1);
    assert!(
        ran.stderr.contains("5000 rows before this piece are in"),
        "{ran:?}"
    );
    assert!(
        ran.stderr.contains("line 5002, column 7: expected value\n"),
        "{ran:?}"
    );
    let sent = std::mem::take(&mut served.stub.seen().requests);
    assert_eq!(
        sent.len(),
        1,
        "of the piece that breaks off nothing is sent"
    );
    std::fs::write(served.host.path("t.jsonl"), rows).expect("writes");
    served.stub.will(&[Act::Serve, Act::Refuse]);
    let ran = served.run(&["put", "tasks", "-f", "t.jsonl"]).ended(5);
    assert!(
        ran.stderr.contains("5000 rows before this piece are in"),
        "{ran:?}"
    );
}
