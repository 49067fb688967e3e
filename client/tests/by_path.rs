//! The helpers by path and in the document's shapes: the same answers as the snapshot's methods, through a Parquet file.

#[path = "helpers/model.rs"]
mod model;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use model::Model;
use serde_json::{Value, json};
use sherwood_client::cluster_state_helpers as helpers;
use sherwood_client::find::FindErrorKind;
use sherwood_client::import::write_parquet_atomic;
use sherwood_client::json::row;
use sherwood_client::rows::RowRef;
use sherwood_client::{ReadError, Snapshot};

/// A random state in a directory of its own: the rows it was made of, and the directory.
fn states() -> impl Iterator<Item = (u64, Model, Snapshot, tempfile::TempDir)> {
    (0..20).map(|seed| {
        let model = Model::random(seed, [12, 30, 10]);
        let snapshot = model.snapshot();
        let dir = tempfile::tempdir().expect("a directory");
        let state = snapshot.to_state().expect("reads");
        write_parquet_atomic(&state, &dir.path().join("state_c.parquet")).expect("writes");
        (seed, model, snapshot, dir)
    })
}

fn objects<'s, R: RowRef<'s>>(rows: impl Iterator<Item = Result<R, ReadError>>) -> Vec<Value> {
    let object = |found: Result<R, ReadError>| {
        let (batch, at) = found.expect("reads").batch();
        row(batch, at).expect("prints")
    };
    rows.map(object).collect()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    let object = value.as_object().expect("an object");
    object.keys().map(String::as_str).collect()
}

#[test]
fn each_answers_as_the_snapshots_method_does() {
    let mut found_some = 0;
    for (seed, model, snapshot, dir) in states() {
        let path = dir.path();
        macro_rules! same {
            ($name:ident($($given:expr),*)) => {{
                let by_path = helpers::$name(path $(, $given)*).expect("a state");
                let by_method = objects(snapshot.$name($($given),*));
                assert_eq!(by_path, by_method, "{}, seed {seed}", stringify!($name));
                found_some += usize::from(!by_path.is_empty());
            }};
        }
        macro_rules! same_one {
            ($name:ident($given:expr)) => {{
                let by_path = helpers::$name(path, $given).expect("a state");
                let by_method = objects(snapshot.$name($given).expect("reads").into_iter().map(Ok));
                let by_path: Vec<Value> = by_path.into_iter().collect();
                assert_eq!(by_path, by_method, "{}, seed {seed}", stringify!($name));
                found_some += usize::from(!by_path.is_empty());
            }};
        }
        assert_eq!(
            helpers::get_all_nodes(path).unwrap(),
            objects(snapshot.get_all_nodes().iter())
        );
        assert_eq!(
            helpers::get_all_tasks(path).unwrap(),
            objects(snapshot.get_all_tasks().iter())
        );
        assert_eq!(
            helpers::get_all_content(path).unwrap(),
            objects(snapshot.get_all_content().iter())
        );
        same!(find_nodes_by_role("worker"));
        same!(find_nodes_by_capability("gpu"));
        same!(find_nodes_with_gpu());
        same!(find_tasks_by_status("pending"));
        same!(find_tasks_by_type("train"));
        same!(find_tasks_by_node("n1"));
        same!(find_tasks_by_resource_requirements(Some(2), None, None));
        same!(find_content_by_provider("n1"));
        let orphans = objects(snapshot.find_orphaned_content().unwrap());
        assert_eq!(helpers::find_orphaned_content(path).unwrap(), orphans);
        for id in ["n0", "n3"] {
            same_one!(get_node_by_id(id));
            let busy = helpers::get_node_resource_utilization(path, id).unwrap();
            let by_method = snapshot.get_node_resource_utilization(id).unwrap();
            assert_eq!(
                busy,
                by_method.map(|found| found.to_json()),
                "{id}, seed {seed}"
            );
        }
        for task in &model.tasks {
            let id = task["id"].as_str().expect("a key");
            same_one!(get_task_by_id(id));
            same_one!(find_available_node_for_task(id));
        }
        for item in &model.content {
            same_one!(find_content_by_cid(item["cid"].as_str().expect("a key")));
        }
        let map = helpers::get_content_availability_map(path).unwrap();
        for item in &model.content {
            let cid = item["cid"].as_str().expect("a key");
            assert_eq!(map[cid], item["providers"], "{cid}, seed {seed}");
        }
        assert_eq!(map.as_object().expect("a map").len(), model.content.len());
        let summary = snapshot.get_cluster_status_summary().unwrap().to_json();
        assert_eq!(helpers::get_cluster_status_summary(path).unwrap(), summary);
        let topology = snapshot.get_network_topology().unwrap().to_json().unwrap();
        assert_eq!(helpers::get_network_topology(path).unwrap(), topology);
        let metrics = snapshot.get_task_execution_metrics().unwrap().to_json();
        assert_eq!(helpers::get_task_execution_metrics(path).unwrap(), metrics);
        let whole = helpers::get_cluster_state_as_dict(path).unwrap();
        assert_eq!(whole, snapshot.get_cluster_state_as_dict().unwrap());
        assert_eq!(
            whole["tasks"].as_array().map(Vec::len),
            Some(model.tasks.len())
        );
    }
    assert!(found_some > 300, "only {found_some} answers had rows");
}

#[test]
fn the_shapes_are_the_documents() {
    for (_, _, snapshot, dir) in states().take(3) {
        let path = dir.path();
        let of = |names: &[&'static str]| names.iter().copied().collect::<BTreeSet<_>>();
        let metadata = helpers::get_cluster_metadata(path).unwrap();
        let counts = ["node_count", "task_count", "content_count"];
        let mut expected = of(&["cluster_id", "master_id", "updated_at"]);
        expected.extend(counts);
        assert_eq!(keys(&metadata), expected);
        let summary = helpers::get_cluster_status_summary(path).unwrap();
        let expected = [
            "cluster_id",
            "master_id",
            "updated_at",
            "nodes",
            "resources",
            "tasks",
            "content",
        ];
        assert_eq!(keys(&summary), of(&expected));
        assert_eq!(keys(&summary["nodes"]), of(&["total", "active", "by_role"]));
        assert_eq!(
            keys(&summary["resources"]),
            of(&["cpu_cores", "gpu_cores", "memory_gb"])
        );
        assert_eq!(
            keys(&summary["resources"]["memory_gb"]),
            of(&["total", "available"])
        );
        assert_eq!(keys(&summary["tasks"]), of(&["total", "by_status"]));
        assert_eq!(keys(&summary["content"]), of(&["total", "total_size_gb"]));
        let states = ["pending", "assigned", "running", "completed", "failed"];
        assert!(keys(&summary["tasks"]["by_status"]).is_superset(&of(&states)));
        assert!(
            keys(&summary["nodes"]["by_role"]).is_superset(&of(&["master", "worker", "leecher"]))
        );
        let topology = helpers::get_network_topology(path).unwrap();
        assert_eq!(
            keys(&topology),
            of(&["nodes", "connections", "unknown_peers"])
        );
        let whole = snapshot.get_cluster_state_as_dict().unwrap();
        assert!(keys(&whole).is_superset(&of(&[
            "cluster_id",
            "master_id",
            "updated_at",
            "nodes",
            "tasks",
            "content"
        ])));
    }
}

#[test]
fn an_export_is_the_state_as_json_and_replaces_a_file_whole_or_not_at_all() {
    for (seed, _, snapshot, dir) in states().take(5) {
        let out = dir.path().join("out.json");
        fs::write(&out, "what was there").unwrap();
        helpers::export_state_to_json(dir.path(), &out).unwrap();
        let read: Value = serde_json::from_slice(&fs::read(&out).unwrap()).unwrap();
        assert_eq!(
            read,
            snapshot.get_cluster_state_as_dict().unwrap(),
            "seed {seed}"
        );
        // Into a directory that is not there, and over a directory.
        let failed = helpers::export_state_to_json(dir.path(), dir.path().join("no/out.json"));
        let error = failed.expect_err("no directory").to_string();
        assert!(error.contains("no/"), "{error}");
        let blocked = dir.path().join("blocked");
        fs::create_dir(&blocked).unwrap();
        helpers::export_state_to_json(dir.path(), &blocked).expect_err("a directory is there");
        let left_over = fs::read_dir(dir.path()).unwrap();
        let mut names: Vec<_> = left_over.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["blocked", "out.json", "state_c.parquet"]);
    }
}

#[test]
fn metadata_is_what_the_file_says_and_without_it_where_the_state_is() {
    let (_, _, _, dir) = states().next().expect("a state");
    let found = helpers::connect_to_state_store(dir.path()).unwrap();
    let file = dir.path().join("state_c.parquet");
    assert_eq!(found["parquet_path"], json!(file));
    assert_eq!(keys(&found), ["parquet_path", "state_path"].into());
    fs::write(
        dir.path().join("state_metadata.json"),
        r#"{"parquet_path": "state_c.parquet", "theirs": [1, null]}"#,
    )
    .unwrap();
    let found = helpers::connect_to_state_store(dir.path()).unwrap();
    assert_eq!(
        found,
        json!({"parquet_path": "state_c.parquet", "theirs": [1, null]})
    );
    let base = dir.path().parent().map(Path::to_owned);
    assert_eq!(helpers::get_state_path_from_metadata(base.as_deref()), None);
    let found = helpers::get_state_path_from_metadata(Some(dir.path()));
    assert_eq!(found.as_deref(), Some(dir.path()));
}

#[test]
fn no_state_is_an_error_and_not_an_empty_answer() {
    let dir = tempfile::tempdir().unwrap();
    let kind = |error: helpers::HelperError| match error {
        helpers::HelperError::Find(error) => error.kind(),
        other => panic!("{other}"),
    };
    let error = helpers::get_all_tasks(dir.path()).expect_err("no state");
    assert_eq!(kind(error), FindErrorKind::Missing);
    let error = helpers::connect_to_state_store(dir.path()).expect_err("no state");
    assert_eq!(kind(error), FindErrorKind::Missing);
    fs::write(dir.path().join("state_c.parquet"), "PAR1 but no state").unwrap();
    let error = helpers::find_orphaned_content(dir.path()).expect_err("no state");
    assert_eq!(kind(error), FindErrorKind::Corrupt);
}
