//! What people want to see of each table.

use std::collections::HashMap;
use std::fmt::Display;
use std::io::Write;

use sherwood_client::rows::{RowRef, Rows};
use sherwood_client::{ContentRef, NodeRef, ReadError, Snapshot, TableId, TaskRef};

use crate::error::CliError;
use crate::select::Selection;
use crate::table::{Column, Layout, left, right};
use crate::text::{self, NULL};

/// Writes rows of a table with its headings.
pub fn write<'s>(
    out: &mut impl Write,
    snapshot: &'s Snapshot,
    table: TableId,
    selection: &'s Selection<'_>,
) -> Result<(), CliError> {
    match table {
        TableId::Nodes => {
            let active = active_tasks(snapshot)?;
            print(out, snapshot.nodes(), selection, NODE_COLUMNS, |row| {
                node(row, &active)
            })
        }
        TableId::Tasks => print(out, snapshot.tasks(), selection, TASK_COLUMNS, task),
        TableId::Content => print(out, snapshot.content(), selection, CONTENT_COLUMNS, content),
    }
}

/// Two passes, so that widths are known before the first line.
fn print<'s, R: RowRef<'s> + Copy + 's, const N: usize>(
    out: &mut impl Write,
    rows: Rows<'s, R>,
    selection: &'s Selection<'_>,
    columns: [Column; N],
    cells: impl Fn(&R) -> [String; N],
) -> Result<(), CliError> {
    let mut layout = Layout::new(columns);
    selection.each(&rows, |row| {
        layout.fit(&cells(row));
        Ok(())
    })?;
    layout.write_headings(out)?;
    selection.each(&rows, |row| Ok(layout.write(out, &cells(row))?))
}

const NODE_COLUMNS: [Column; 11] = [
    left("ID"),
    left("ROLE"),
    left("STATUS"),
    right("CPUS"),
    right("LOAD"),
    right("GPUS"),
    right("MEM"),
    right("MEM-FREE"),
    right("DISK"),
    right("DISK-FREE"),
    right("TASKS"),
];

fn node(row: &NodeRef<'_>, active: &HashMap<&str, u64>) -> [String; 11] {
    let resources = row.resources();
    let of = resources.as_ref();
    let gpus = of.and_then(|of| of.gpu_count()).map(|count| {
        let unusable = count > 0 && of.and_then(|of| of.gpu_available()) == Some(false);
        format!("{}{count}", if unusable { "0 of " } else { "" })
    });
    [
        text::printable(row.id()),
        word(row.role()),
        word(row.status()),
        shown(of.and_then(|of| of.cpu_count())),
        shown(
            of.and_then(|of| of.cpu_load())
                .map(|load| format!("{load:.1}%")),
        ),
        shown(gpus),
        bytes(of.and_then(|of| of.memory_total())),
        bytes(of.and_then(|of| of.memory_available())),
        bytes(of.and_then(|of| of.disk_total())),
        bytes(of.and_then(|of| of.disk_available())),
        active.get(row.id()).copied().unwrap_or(0).to_string(),
    ]
}

/// Assigned and running tasks by node.
fn active_tasks(snapshot: &Snapshot) -> Result<HashMap<&str, u64>, ReadError> {
    let mut active = HashMap::new();
    for task in snapshot.tasks() {
        let task = task?;
        if let (Some("assigned" | "running"), Some(node)) = (task.status(), task.assigned_to()) {
            *active.entry(node).or_insert(0) += 1;
        }
    }
    Ok(active)
}

const TASK_COLUMNS: [Column; 9] = [
    left("ID"),
    left("TYPE"),
    left("STATUS"),
    left("NODE"),
    right("CPUS"),
    right("GPUS"),
    right("MEM"),
    left("CREATED"),
    left("UPDATED"),
];

fn task(row: &TaskRef<'_>) -> [String; 9] {
    let resources = row.resources();
    let of = resources.as_ref();
    let memory = of.and_then(|of| of.memory_mb());
    [
        text::printable(row.id()),
        word(row.r#type()),
        word(row.status()),
        word(row.assigned_to()),
        shown(of.and_then(|of| of.cpu_cores())),
        shown(of.and_then(|of| of.gpu_cores())),
        bytes(memory.map(|mib| i64::from(mib) << 20)),
        time(row.created_at()),
        time(row.updated_at()),
    ]
}

const CONTENT_COLUMNS: [Column; 6] = [
    left("CID"),
    right("SIZE"),
    left("PINNED"),
    right("REPLICATION"),
    right("PROVIDERS"),
    left("CREATED"),
];

fn content(row: &ContentRef<'_>) -> [String; 6] {
    [
        text::printable(row.cid()),
        bytes(row.size()),
        shown(row.pinned().map(|pinned| if pinned { "yes" } else { "no" })),
        shown(row.replication()),
        shown(row.providers().map(|providers| providers.len())),
        time(row.created_at()),
    ]
}

fn shown(value: Option<impl Display>) -> String {
    value.map_or(NULL.to_owned(), |value| value.to_string())
}

fn word(value: Option<&str>) -> String {
    value.map_or(NULL.to_owned(), text::printable)
}

fn bytes(value: Option<i64>) -> String {
    value.map_or(NULL.to_owned(), text::size)
}

fn time(millis: Option<i64>) -> String {
    millis.map_or(NULL.to_owned(), |millis| {
        text::timestamp(millis).unwrap_or_else(|| format!("{millis}ms"))
    })
}
