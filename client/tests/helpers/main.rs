//! Every helper against a slow reference over plain rows, on random states with nulls everywhere.

mod model;
mod reference;

use std::collections::{BTreeMap, BTreeSet};

use model::Model;
use sherwood_client::helpers::{Connection, Counts};
use sherwood_client::{ContentRef, NodeRef, ReadError, Snapshot, TaskRef};

/// Many small states, and some that take several chunks a table.
fn on_random_states(check: impl Fn(&Model, &Snapshot, &str)) {
    let small = (0..300).map(|seed| (seed, [12, 30, 10]));
    let large = (300..302).map(|seed| (seed, [40, 30_000, 9]));
    for (seed, most) in small.chain(large) {
        let model = Model::random(seed, most);
        check(
            &model,
            &model.snapshot(),
            &format!("seed {seed}, at most {most:?} rows"),
        );
    }
}

fn nodes<'s>(found: impl Iterator<Item = Result<NodeRef<'s>, ReadError>>) -> Vec<String> {
    found
        .map(|row| row.expect("reads").id().to_owned())
        .collect()
}

fn tasks<'s>(found: impl Iterator<Item = Result<TaskRef<'s>, ReadError>>) -> Vec<String> {
    found
        .map(|row| row.expect("reads").id().to_owned())
        .collect()
}

fn items<'s>(found: impl Iterator<Item = Result<ContentRef<'s>, ReadError>>) -> Vec<String> {
    found
        .map(|row| row.expect("reads").cid().to_owned())
        .collect()
}

fn counted(counts: &Counts<'_>) -> BTreeMap<String, u64> {
    counts
        .iter()
        .map(|(text, count)| (text.to_owned(), count))
        .collect()
}

#[track_caller]
fn assert_near(found: f64, expected: f64, case: &str) {
    let tolerance = 1e-6 * expected.abs().max(1.0);
    assert!(
        (found - expected).abs() <= tolerance,
        "{found}, not {expected}: {case}"
    );
}

#[test]
fn nodes_are_found_by_what_they_are() {
    on_random_states(|model, snapshot, case| {
        assert_eq!(
            nodes(snapshot.get_all_nodes().iter()),
            reference::ids(&model.nodes),
            "{case}"
        );
        for role in ["worker", "Worker", "master", ""] {
            let found = nodes(snapshot.find_nodes_by_role(role));
            assert_eq!(
                found,
                reference::equal(&model.nodes, "role", role),
                "{role:?}, {case}"
            );
        }
        for what in ["gpu", "GPU", "none", ""] {
            let found = nodes(snapshot.find_nodes_by_capability(what));
            let expected = reference::listing(&model.nodes, "capabilities", what);
            assert_eq!(found, expected, "{what:?}, {case}");
        }
        let found = nodes(snapshot.find_nodes_with_gpu());
        assert_eq!(found, reference::nodes_with_gpu(model), "{case}");
        for id in ["n0", "n7", "nobody"] {
            let found = snapshot.get_node_by_id(id).expect("reads");
            let is_there = model.nodes.iter().any(|row| row["id"] == id);
            assert_eq!(found.map(|row| row.id()), is_there.then_some(id), "{case}");
        }
    });
}

#[test]
fn a_nodes_utilization_is_that_of_its_figures_and_tasks() {
    on_random_states(|model, snapshot, case| {
        for id in ["n0", "n1", "n2", "n3", "n9", "nobody"] {
            let found = snapshot.get_node_resource_utilization(id).expect("reads");
            let expected = reference::utilization(model, id);
            assert_eq!(found.is_some(), expected.is_some(), "{id}, {case}");
            let Some((found, (parts, counts))) = found.zip(expected) else {
                continue;
            };
            let case = format!("{id}, {case}");
            let figures = [
                Some(found.cpu_utilization),
                Some(found.memory_utilization),
                Some(found.disk_utilization),
                found.gpu_utilization,
                Some(found.success_rate),
            ];
            for (found, expected) in figures.into_iter().zip(parts) {
                assert_eq!(found.is_some(), expected.is_some(), "{case}");
                assert_near(found.unwrap_or(0.0), expected.unwrap_or(0.0), &case);
            }
            let [cpu, memory, disk, ..] = parts.map(Option::unwrap_or_default);
            assert_near(
                found.load_index,
                0.4 * cpu + 0.4 * memory + 0.2 * disk,
                &case,
            );
            let tasks = [
                found.active_tasks,
                found.completed_tasks,
                found.failed_tasks,
            ];
            assert_eq!(tasks, counts, "{case}");
        }
    });
}

#[test]
fn tasks_are_found_by_what_they_are() {
    on_random_states(|model, snapshot, case| {
        assert_eq!(
            tasks(snapshot.get_all_tasks().iter()),
            reference::ids(&model.tasks),
            "{case}"
        );
        for text in [
            "pending",
            "completed",
            "Pending",
            "train",
            "n1",
            "nobody",
            "",
        ] {
            let found = [
                tasks(snapshot.find_tasks_by_status(text)),
                tasks(snapshot.find_tasks_by_type(text)),
                tasks(snapshot.find_tasks_by_node(text)),
            ];
            let expected = ["status", "type", "assigned_to"]
                .map(|column| reference::equal(&model.tasks, column, text));
            assert_eq!(found, expected, "{text:?}, {case}");
        }
        for id in ["t0", "t29", "nobody"] {
            let found = snapshot.get_task_by_id(id).expect("reads");
            let is_there = model.tasks.iter().any(|row| row["id"] == id);
            assert_eq!(found.map(|row| row.id()), is_there.then_some(id), "{case}");
        }
        for minima in [
            [None, None, None],
            [Some(0), None, None],
            [Some(2), Some(1), None],
            [None, Some(1), Some(300)],
            [Some(i64::MAX), None, None],
            [None, None, Some(i64::MIN)],
        ] {
            let [cpu, gpu, memory] = minima;
            let found = snapshot.find_tasks_by_resource_requirements(cpu, gpu, memory);
            assert_eq!(
                tasks(found),
                reference::needing(model, minima),
                "{minima:?}, {case}"
            );
        }
    });
}

#[test]
fn a_pending_task_gets_the_idlest_node_that_fits() {
    on_random_states(|model, snapshot, case| {
        let ids = reference::ids(model.tasks.iter().take(100));
        for id in ids.iter().map(String::as_str).chain(["nobody"]) {
            let found = snapshot.find_available_node_for_task(id).expect("reads");
            let found = found.map(|node| node.id().to_owned());
            assert_eq!(found, reference::available_node(model, id), "{id}, {case}");
        }
    });
}

#[test]
fn tasks_are_counted_and_their_times_averaged() {
    on_random_states(|model, snapshot, case| {
        let found = snapshot.get_task_execution_metrics().expect("reads");
        let states = reference::counts(&model.tasks, "status", &[]);
        let of = |status: &str| states.get(status).copied().unwrap_or(0);
        assert_eq!(found.total_tasks, model.tasks.len() as u64, "{case}");
        assert_eq!(found.completed_tasks, of("completed"), "{case}");
        assert_eq!(found.failed_tasks, of("failed"), "{case}");
        assert_eq!(found.pending_tasks, of("pending"), "{case}");
        assert_eq!(
            found.running_tasks,
            of("assigned") + of("running"),
            "{case}"
        );
        #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
        let rate = match of("completed") + of("failed") {
            0 => 0.0,
            ended => of("completed") as f64 / ended as f64,
        };
        assert_near(found.completion_rate, rate, case);
        let average = reference::average_execution_time(model);
        assert_near(found.average_execution_time, average, case);
        assert_eq!(
            counted(&found.task_types),
            reference::counts(&model.tasks, "type", &[]),
            "{case}"
        );
    });
}

#[test]
fn the_time_that_a_task_still_takes_is_learnt_from_its_like() {
    on_random_states(|model, snapshot, case| {
        let ids = reference::ids(model.tasks.iter().take(50));
        for id in ids.iter().map(String::as_str).chain(["nobody"]) {
            for now in [0, 1_900_000, 100_000_000] {
                let found = snapshot.time_to_completion(id, now).expect("reads");
                let expected = reference::time_to_completion(model, id, now);
                assert_eq!(found.is_some(), expected.is_some(), "{id} at {now}, {case}");
                assert_near(found.unwrap_or(0.0), expected.unwrap_or(0.0), case);
            }
            // By now everything that runs has run longer than anything took.
            let late = snapshot.time_to_completion(id, i64::MAX).expect("reads");
            assert_eq!(
                snapshot.estimate_time_to_completion(id).expect("reads"),
                late,
                "{case}"
            );
        }
    });
}

#[test]
fn content_is_found_by_what_it_is_and_orphans_by_who_wants_them() {
    on_random_states(|model, snapshot, case| {
        let all = reference::ids(&model.content);
        assert_eq!(items(snapshot.get_all_content().iter()), all, "{case}");
        for provider in ["n0", "nobody", ""] {
            let found = items(snapshot.find_content_by_provider(provider));
            let expected = reference::listing(&model.content, "providers", provider);
            assert_eq!(found, expected, "{provider:?}, {case}");
        }
        let found = snapshot.find_orphaned_content().expect("reads");
        assert_eq!(items(found), reference::orphans(model), "{case}");
        for cid in ["c0", "c9", "nothing"] {
            let found = snapshot.find_content_by_cid(cid).expect("reads");
            let is_there = model.content.iter().any(|row| row["cid"] == cid);
            assert_eq!(
                found.map(|row| row.cid()),
                is_there.then_some(cid),
                "{case}"
            );
        }
        let found: Vec<_> = snapshot
            .get_content_availability_map()
            .map(|entry| {
                let (cid, providers) = entry.expect("reads");
                let providers: Option<Vec<Option<&str>>> = providers.map(Iterator::collect);
                serde_json::json!({"cid": cid, "providers": providers})
            })
            .collect();
        let expected: Vec<_> = model
            .content
            .iter()
            .map(|row| serde_json::json!({"cid": row["cid"], "providers": row["providers"]}))
            .collect();
        assert_eq!(found, expected, "{case}");
    });
}

#[test]
fn a_summary_counts_everything_once() {
    on_random_states(|model, snapshot, case| {
        let found = snapshot.get_cluster_status_summary().expect("reads");
        assert_eq!(found.cluster_id, "c");
        assert_eq!((found.master_id, found.updated_at), (None, Some(1_234)));
        assert_eq!(found.nodes.total, model.nodes.len() as u64, "{case}");
        let online = reference::equal(&model.nodes, "status", "online").len();
        assert_eq!(found.nodes.active, online as u64, "{case}");
        let roles = reference::counts(&model.nodes, "role", &["master", "worker", "leecher"]);
        assert_eq!(counted(&found.nodes.by_role), roles, "{case}");
        let has = found.resources;
        let sums = [
            has.cpu_cores,
            has.gpu_cores.total,
            has.gpu_cores.available,
            has.memory.total,
            has.memory.available,
        ];
        assert_eq!(sums, reference::resources(model), "{case}");
        assert_eq!(found.tasks.total, model.tasks.len() as u64, "{case}");
        let named = ["pending", "assigned", "running", "completed", "failed"];
        let states = reference::counts(&model.tasks, "status", &named);
        assert_eq!(counted(&found.tasks.by_status), states, "{case}");
        assert_eq!(found.content.total, model.content.len() as u64, "{case}");
        let sizes = model.content.iter().filter_map(|row| row["size"].as_i64());
        assert_eq!(found.content.total_size, sizes.sum::<i64>(), "{case}");
        let metadata = snapshot.get_cluster_metadata().expect("reads");
        assert_eq!(
            (
                metadata.node_count,
                metadata.task_count,
                metadata.content_count
            ),
            (found.nodes.total, found.tasks.total, found.content.total)
        );
    });
}

#[test]
fn every_connection_is_told_once_whoever_names_it() {
    on_random_states(|model, snapshot, case| {
        let found = snapshot.get_network_topology().expect("reads");
        assert_eq!(
            nodes(found.nodes.iter()),
            reference::ids(&model.nodes),
            "{case}"
        );
        for (found, expected) in [found.connections, found.unknown_peers]
            .into_iter()
            .zip(reference::edges(model))
        {
            let pair = |edge: &Connection<'_>| (edge.source.to_owned(), edge.target.to_owned());
            let pairs: Vec<_> = found.iter().map(pair).collect();
            let once: BTreeSet<_> = pairs.iter().cloned().collect();
            assert_eq!(pairs.len(), once.len(), "{case}");
            assert_eq!(once, expected, "{case}");
        }
    });
}
