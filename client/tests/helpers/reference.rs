//! What each helper has to answer, slowly and over plain rows.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::model::Model;

fn id(row: &Value) -> String {
    let key = row.get("id").or_else(|| row.get("cid"));
    key.and_then(Value::as_str).expect("a key").to_owned()
}

pub fn ids<'a>(rows: impl IntoIterator<Item = &'a Value>) -> Vec<String> {
    rows.into_iter().map(id).collect()
}

/// The rows whose column is exactly this text.
pub fn equal(rows: &[Value], column: &str, text: &str) -> Vec<String> {
    ids(rows.iter().filter(|row| row[column] == text))
}

/// The rows whose list has this text.
pub fn listing(rows: &[Value], column: &str, text: &str) -> Vec<String> {
    let has = |row: &&Value| {
        let list = row[column].as_array();
        list.is_some_and(|list| list.contains(&text.into()))
    };
    ids(rows.iter().filter(has))
}

pub fn nodes_with_gpu(model: &Model) -> Vec<String> {
    let has = |row: &&Value| {
        let resources = &row["resources"];
        resources["gpu_available"] == true && resources["gpu_count"].as_i64().unwrap_or(0) > 0
    };
    ids(model.nodes.iter().filter(has))
}

pub fn needing(model: &Model, minima: [Option<i64>; 3]) -> Vec<String> {
    let needs = |row: &&Value| {
        let fields = ["cpu_cores", "gpu_cores", "memory_mb"];
        row["resources"].is_object()
            && fields.iter().zip(minima).all(|(field, least)| match least {
                None => true,
                Some(least) => row["resources"][field].as_i64().is_some_and(|n| n >= least),
            })
    };
    ids(model.tasks.iter().filter(needs))
}

fn number(row: &Value, field: &str) -> Option<f64> {
    row["resources"][field].as_f64()
}

pub fn available_node(model: &Model, task: &str) -> Option<String> {
    let task = model.tasks.iter().find(|row| row["id"] == task)?;
    if !(task["status"].is_null() || task["status"] == "pending") {
        return None;
    }
    let cores = number(task, "cpu_cores").unwrap_or(1.0);
    let gpus = number(task, "gpu_cores").unwrap_or(0.0);
    let memory = number(task, "memory_mb").unwrap_or(256.0) * 1_048_576.0;
    let mut best: Option<(f64, String)> = None;
    for node in &model.nodes {
        let fits = node["role"] == "worker"
            && node["status"] == "online"
            && number(node, "cpu_count").is_some_and(|count| count >= cores)
            && number(node, "memory_available").is_some_and(|free| free >= memory)
            && (gpus <= 0.0
                || node["resources"]["gpu_available"] == true
                    && number(node, "gpu_count").is_some_and(|count| count >= gpus));
        if !fits {
            continue;
        }
        let total = number(node, "memory_total").unwrap_or(0.0);
        let free = match total > 0.0 {
            true => number(node, "memory_available").unwrap_or(0.0) / total,
            false => 0.0,
        };
        let score = 0.4 * (1.0 - number(node, "cpu_load").unwrap_or(0.0) / 100.0) + 0.6 * free;
        if best.as_ref().is_none_or(|(highest, _)| score > *highest) {
            best = Some((score, id(node)));
        }
    }
    best.map(|(_, id)| id)
}

/// In seconds.
fn duration(task: &Value) -> Option<f64> {
    let between = |end: &str, begin: &str| Some(task[end].as_f64()? - task[begin].as_f64()?);
    let ms =
        between("completed_at", "started_at").or_else(|| between("updated_at", "created_at"))?;
    Some(ms.max(0.0) / 1000.0)
}

fn mean(durations: &[f64]) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    (!durations.is_empty()).then(|| durations.iter().sum::<f64>() / durations.len() as f64)
}

pub fn time_to_completion(model: &Model, task: &str, now_ms: i64) -> Option<f64> {
    let task = model.tasks.iter().find(|row| row["id"] == task)?;
    if ["completed", "failed", "cancelled"].contains(&task["status"].as_str().unwrap_or("")) {
        return Some(0.0);
    }
    let alike = model
        .tasks
        .iter()
        .filter(|other| other["status"] == "completed" && other["type"] == task["type"]);
    let mean = mean(&alike.filter_map(duration).collect::<Vec<_>>())?;
    let begun = task["started_at"].as_i64().or(task["created_at"].as_i64());
    let ran = match (task["status"] == "running", begun) {
        #[expect(clippy::cast_precision_loss, reason = "a few million")]
        (true, Some(begun)) => ((now_ms - begun) as f64 / 1000.0).max(0.0),
        _ => 0.0,
    };
    Some((mean - ran).max(0.0))
}

pub fn counts(rows: &[Value], column: &str, named: &[&str]) -> BTreeMap<String, u64> {
    let mut counts: BTreeMap<_, _> = named.iter().map(|name| ((*name).to_owned(), 0)).collect();
    for text in rows.iter().filter_map(|row| row[column].as_str()) {
        *counts.entry(text.to_owned()).or_default() += 1;
    }
    counts
}

pub fn average_execution_time(model: &Model) -> f64 {
    let completed = model
        .tasks
        .iter()
        .filter(|row| row["status"] == "completed");
    mean(&completed.filter_map(duration).collect::<Vec<_>>()).unwrap_or(0.0)
}

pub fn orphans(model: &Model) -> Vec<String> {
    let mut wanted = BTreeSet::new();
    for task in &model.tasks {
        let mut fields = vec![("input_cid", "input_cids")];
        if task["status"] == "completed" {
            fields.push(("output_cid", "output_cids"));
        }
        for (one, many) in fields {
            wanted.extend(task[one].as_str().map(str::to_owned));
            let list = task[many].as_array().into_iter().flatten();
            wanted.extend(list.filter_map(Value::as_str).map(str::to_owned));
        }
    }
    let is_orphan = |row: &&Value| row["pinned"] != true && !wanted.contains(&id(row));
    ids(model.content.iter().filter(is_orphan))
}

/// Cores, GPUs, available GPUs, memory, available memory.
pub fn resources(model: &Model) -> [i64; 5] {
    let mut sums = [0; 5];
    for node in &model.nodes {
        let of = |field: &str| node["resources"][field].as_i64().unwrap_or(0);
        let is_available = node["resources"]["gpu_available"] == true;
        let gpus = of("gpu_count");
        let figures = [
            of("cpu_count"),
            gpus,
            if is_available { gpus } else { 0 },
            of("memory_total"),
            of("memory_available"),
        ];
        for (sum, figure) in sums.iter_mut().zip(figures) {
            *sum += figure;
        }
    }
    sums
}

/// Connections and unknown peers.
pub fn edges(model: &Model) -> [BTreeSet<(String, String)>; 2] {
    let known: BTreeSet<_> = model.nodes.iter().map(id).collect();
    let [mut edges, mut unknown] = [BTreeSet::new(), BTreeSet::new()];
    for node in &model.nodes {
        let from = id(node);
        for peer in node["peers"].as_array().into_iter().flatten() {
            let Some(peer) = peer.as_str().map(str::to_owned) else {
                continue;
            };
            if peer == from {
                continue;
            }
            if !known.contains(&peer) {
                unknown.insert((from.clone(), peer));
            } else if from < peer {
                edges.insert((from.clone(), peer));
            } else {
                edges.insert((peer, from.clone()));
            }
        }
    }
    [edges, unknown]
}

/// CPU, memory, disk, GPU, success rate; active, completed, failed.
pub fn utilization(model: &Model, node: &str) -> Option<([Option<f64>; 5], [u64; 3])> {
    let row = model.nodes.iter().find(|row| row["id"] == node)?;
    let used = |total: &str, available: &str| match number(row, total).unwrap_or(0.0) {
        0.0 => 1.0,
        total => (total - number(row, available).unwrap_or(0.0)) / total,
    };
    let mut counts = [0_u64; 3];
    let mut gpu_cores = 0.0;
    for task in model
        .tasks
        .iter()
        .filter(|task| task["assigned_to"] == node)
    {
        match task["status"].as_str() {
            Some("assigned" | "running") => {
                counts[0] += 1;
                gpu_cores += number(task, "gpu_cores").unwrap_or(0.0);
            }
            Some("completed") => counts[1] += 1,
            Some("failed") => counts[2] += 1,
            _ => {}
        }
    }
    let gpus = number(row, "gpu_count").filter(|count| *count > 0.0);
    #[expect(clippy::cast_precision_loss, reason = "a few tasks")]
    let success = match counts[1] + counts[2] {
        0 => 1.0,
        ended => counts[1] as f64 / ended as f64,
    };
    let parts = [
        Some(number(row, "cpu_load").unwrap_or(0.0) / 100.0),
        Some(used("memory_total", "memory_available")),
        Some(used("disk_total", "disk_available")),
        gpus.map(|count| (gpu_cores / count).min(1.0)),
        Some(success),
    ];
    Some((parts, counts))
}
