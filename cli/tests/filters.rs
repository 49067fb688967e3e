//! Rows by a condition, in every format, and the state as a file.

mod common;

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::{DataType, Field, Schema};
use common::{Host, state_in};
use serde_json::{Value, json};
use sherwood_client::import::read_parquet;
use sherwood_client::{Snapshot, TableId};

const WHERE: &str = "status = 'pending' and (resources.cpu_cores >= 2 or priority is null)";

fn objects(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// As [`WHERE`] says.
fn is_wanted(task: &Value) -> bool {
    let cores = task["resources"]["cpu_cores"].as_i64();
    task["status"] == "pending" && (cores >= Some(2) || task["priority"].is_null())
}

#[test]
fn a_condition_selects_the_same_rows_in_every_format() {
    let host = Host::new();
    host.sample_of("state", "sample", 300);
    let get = |more: &[&str]| {
        let args = ["--state-dir", "state", "get", "tasks", "-o"];
        host.run(&[&args[..], more].concat()).ended(0)
    };
    let all = objects(&get(&["jsonl"]).stdout);
    let expected: Vec<&Value> = all.iter().filter(|task| is_wanted(task)).collect();
    assert!((1..299).contains(&expected.len()), "{}", expected.len());

    let jsonl = objects(&get(&["jsonl", "--where", WHERE]).stdout);
    assert_eq!(jsonl.iter().collect::<Vec<_>>(), expected);
    let json = get(&["json", "--where", WHERE]).json();
    assert_eq!(json, json!(expected));
    let yaml = get(&["yaml", "--where", WHERE]).stdout;
    let yaml: Value = serde_saphyr::from_str(&yaml).expect("YAML");
    assert_eq!(yaml, json);
    let table = get(&["table", "--where", WHERE]);
    let ids: Vec<&str> = table.lines()[1..]
        .iter()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(
        json!(ids),
        json!(expected.iter().map(|task| &task["id"]).collect::<Vec<_>>())
    );
    let csv = get(&["csv", "--where", WHERE]).stdout;
    assert_eq!(from_csv(&csv), flat(&expected));
    let arrow = host
        .command(&[
            "--state-dir",
            "state",
            "get",
            "tasks",
            "-o",
            "arrow",
            "--where",
            WHERE,
        ])
        .output()
        .expect("runs");
    assert!(arrow.status.success(), "{arrow:?}");
    let batches = StreamReader::try_new(Cursor::new(arrow.stdout), None).expect("a stream");
    assert_eq!(batches.schema().metadata()["sherwood.cluster_id"], "sample");
    let mut found = Vec::new();
    for batch in batches {
        let batch = batch.expect("a batch");
        found.extend(
            batch
                .column(0)
                .as_string::<i32>()
                .iter()
                .flatten()
                .map(str::to_owned),
        );
    }
    assert_eq!(json!(found), json!(ids));
}

#[test]
fn a_condition_that_nothing_meets_leaves_each_format_well_formed() {
    let host = Host::new();
    host.sample("state");
    let get = |format: &str| {
        let args = [
            "--state-dir",
            "state",
            "get",
            "content",
            "--where",
            "cid = ''",
            "-o",
            format,
        ];
        host.run(&args).ended(0).stdout
    };
    assert_eq!(get("json"), "[]\n");
    assert_eq!(get("jsonl"), "");
    assert_eq!(get("yaml"), "[]\n");
    assert_eq!(
        get("csv"),
        "cid,size,created_at,providers,pinned,replication\n"
    );
    assert_eq!(get("table").lines().count(), 1);
}

#[test]
fn of_ids_those_are_printed_that_meet_the_condition_and_only_missing_ones_are_missed() {
    let host = Host::new();
    host.sample("state");
    let get = |more: &[&str]| host.run(&[&["--state-dir", "state", "get", "nodes"], more].concat());
    let all = get(&["-o", "json"]).ended(0).json();
    let ids: Vec<&str> = all
        .as_array()
        .expect("an array")
        .iter()
        .filter_map(|row| row["id"].as_str())
        .collect();
    let condition = format!("id != '{}'", ids[3]);
    let some = get(&[ids[3], ids[1], "-o", "jsonl", "--where", &condition]).ended(0);
    assert_eq!(objects(&some.stdout), [all[1].clone()]);
    let some = get(&[ids[3], "nobody", "--where", &condition]).ended(3);
    assert!(
        some.stderr.contains("nobody") && !some.stderr.contains(ids[3]),
        "{some:?}"
    );
}

#[test]
fn a_wrong_condition_is_wrong_usage_and_points_at_the_place() {
    let host = Host::new();
    host.sample("state");
    for (condition, said) in [
        ("statsu = 'x'", "is it status"),
        ("status = ", "expected a value"),
        ("priority = 'high'", "cannot be compared with text"),
    ] {
        let args = ["--state-dir", "state", "get", "tasks", "--where", condition];
        let ran = host.run(&args).ended(2);
        assert!(
            ran.stderr.contains(said) && ran.stdout.is_empty(),
            "{condition}: {ran:?}"
        );
        let lines: Vec<&str> = ran.stderr.lines().collect();
        assert_eq!(lines[1].trim(), condition.trim(), "{ran:?}");
        assert_eq!(lines[2].trim(), "^", "{ran:?}");
    }
}

/// A CSV with its names as objects of text.
fn from_csv(text: &str) -> Vec<Value> {
    let header = text.lines().next().unwrap_or_default();
    let fields: Vec<Field> = header
        .split(',')
        .map(|name| Field::new(name, DataType::Utf8, true))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let reader = arrow_csv::ReaderBuilder::new(Arc::clone(&schema)).with_header(true);
    let mut rows = Vec::new();
    for batch in reader.build(Cursor::new(text)).expect("CSV") {
        let batch: RecordBatch = batch.expect("CSV");
        for row in 0..batch.num_rows() {
            let cell = |column: usize| {
                let column = batch.column(column).as_string::<i32>();
                column.iter().nth(row).flatten().unwrap_or("")
            };
            let fields = schema.fields().iter().enumerate();
            rows.push(
                fields
                    .map(|(at, field)| (field.name().clone(), json!(cell(at))))
                    .collect(),
            );
        }
    }
    rows
}

/// Objects as docs and help say that they stand in CSV.
fn flat(rows: &[&Value]) -> Vec<Value> {
    fn add(name: &str, value: &Value, out: &mut serde_json::Map<String, Value>) {
        let text = match value {
            Value::Object(fields) => {
                for (field, value) in fields {
                    add(&format!("{name}.{field}"), value, out);
                }
                return;
            }
            Value::Null if name == "resources" => panic!("the sample has resources everywhere"),
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        out.insert(name.to_owned(), text.into());
    }
    let flat = rows.iter().map(|row| {
        let mut out = serde_json::Map::new();
        for (name, value) in row.as_object().expect("an object") {
            add(name, value, &mut out);
        }
        Value::Object(out)
    });
    flat.collect()
}

#[test]
fn an_exported_state_reads_back_equal_from_parquet() {
    let host = Host::new();
    for (name, tasks) in [("empty", 0), ("small", 40), ("large", 20_000)] {
        let state_dir = host.sample_of(name, "sample", tasks);
        host.run(&["--state-dir", name, "export", "out.parquet"])
            .ended(0);
        let exported = read_parquet(&host.path("out.parquet"), Some("sample")).expect("a state");
        assert!(exported == state_in(&state_dir), "{name}");
    }
    assert_eq!(host.run(&["verify", "out.parquet"]).ended(0).code, 0);
}

#[test]
fn an_export_of_a_shared_snapshot_in_many_chunks_is_the_state() {
    let host = Host::new();
    let state_dir = host.sample_of("state", "sample", 2_000);
    let state = state_in(&state_dir);
    let publisher = common::publisher(&state_dir, &host.run_dir("run"), &state, Some(64 << 10));
    host.run(&["--run-dir", "run", "export", "out.parquet"])
        .ended(0);
    drop(publisher);
    assert!(read_parquet(&host.path("out.parquet"), None).expect("a state") == state);
}

#[test]
fn exports_as_json_hold_what_get_prints() {
    let host = Host::new();
    host.sample("state");
    let run = |args: &[&str]| {
        host.run(&[&["--state-dir", "state"], args].concat())
            .ended(0)
    };
    let document = run(&["export", "-", "-o", "json"]).json();
    assert_eq!(document["cluster_id"], "sample");
    let cluster =
        json!({"patch": "cluster", "key": "sample", "set": {"master_id": document["master_id"]}});
    let mut transactions = vec![json!({ "ops": [cluster] })];
    for table in ["nodes", "tasks", "content"] {
        let rows = run(&["get", table, "-o", "json"]).json();
        assert_eq!(document[table], rows, "{table}");
        let lines = run(&["export", "-", "-o", "jsonl", "--table", table]);
        assert_eq!(json!(objects(&lines.stdout)), rows, "{table}");
        for row in rows.as_array().expect("an array") {
            transactions.push(json!({"ops": [{"put": table, "row": row}]}));
        }
    }
    let lines = run(&["export", "-", "-o", "jsonl"]).stdout;
    assert_eq!(objects(&lines), transactions);
}

#[test]
fn one_table_with_a_condition_is_exported_as_arrow_and_parquet() {
    let host = Host::new();
    host.sample_of("state", "sample", 300);
    let wanted = objects(
        &host
            .run(&["--state-dir", "state", "get", "tasks", "-o", "jsonl"])
            .ended(0)
            .stdout,
    );
    let wanted = wanted.iter().filter(|task| is_wanted(task)).count();
    let export = |file: &str| {
        let args = [
            "--state-dir",
            "state",
            "export",
            file,
            "--table",
            "tasks",
            "--where",
            WHERE,
        ];
        host.run(&args).ended(0)
    };
    export("tasks.arrow");
    let file = std::fs::File::open(host.path("tasks.arrow")).expect("is there");
    let batches = FileReader::try_new(file, None).expect("an Arrow file");
    let rows: usize = batches
        .map(|batch| batch.expect("a batch").num_rows())
        .sum();
    assert_eq!(rows, wanted);
    let said = export("tasks.parquet");
    assert!(
        said.stderr.contains(&format!("({wanted} rows)")),
        "{said:?}"
    );
    let file = std::fs::File::open(host.path("tasks.parquet")).expect("is there");
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file);
    let reader = reader.expect("a Parquet file").build().expect("reads");
    let rows: usize = reader.map(|batch| batch.expect("a batch").num_rows()).sum();
    assert_eq!(rows, wanted);
}

#[test]
fn an_export_that_fails_leaves_the_file_as_it_was_and_nothing_beside_it() {
    let host = Host::new();
    let state_dir = host.sample("state");
    let snapshot = Snapshot::from_state(&state_in(&state_dir)).expect("a state");
    assert!(!snapshot.table(TableId::Tasks).is_empty());
    let out = host.run_dir("out");
    std::fs::write(out.join("x.json"), "before").expect("written");
    let run = |args: &[&str]| host.run(&[&["--state-dir", "state", "export"], args].concat());
    run(&["out/x.json", "--table", "tasks", "--where", "nothing = 1"]).ended(2);
    run(&["out/x"]).ended(2);
    run(&["out/x.arrow"]).ended(2);
    run(&["-"]).ended(2);
    run(&["out/x.json", "--where", "id = 'a'"]).ended(2);
    run(&["nowhere/x.json"]).ended(1);
    let names: Vec<_> = std::fs::read_dir(&out)
        .expect("listed")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(names, ["x.json"]);
    assert_eq!(
        std::fs::read_to_string(out.join("x.json")).expect("text"),
        "before"
    );
    run(&["out/x.json"]).ended(0);
    let after = std::fs::read_to_string(out.join("x.json")).expect("text");
    assert!(after.starts_with("{\"cluster_id\":\"sample\""), "{after}");
    assert!(!Path::new("x.json").exists());
}
