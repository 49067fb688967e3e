//! Domain operations: what a task's life allows, and what a claim takes. docs/transactions.md, section 4.

use std::borrow::Cow;

use sherwood_shared::schema::TableId;
use sherwood_shared::transaction::DomainOp;

use super::cell::Cell;
use super::overlay::{Draft, Overlay, TaskColumns, is_pending};
use super::pending::{Oldest, Pending, Waiting, Wanted};
use super::refusal::{Refusal, shorten};
use super::transact::{delete, patched, put};

/// Does one; the task that a claim took. On a refusal the caller rolls back (O1).
pub(super) fn operate<'a>(
    overlay: &mut Overlay<'a>,
    op: &'a DomainOp,
) -> Result<Option<String>, Refusal> {
    let now = Cell::Int(overlay.now_ms.into());
    match op {
        DomainOp::Assign { task, node } => assign(overlay, Cow::Borrowed(task), node)?,
        DomainOp::Claim { node, types } => return claim(overlay, node, types),
        DomainOp::Start { task } => {
            step(
                overlay,
                task,
                "started",
                "assigned",
                |status| status == "assigned",
                vec![
                    ("status", text("running")),
                    ("started_at", now),
                    ("completed_at", Cell::Null),
                    ("error", Cell::Null),
                ],
            )?;
        }
        DomainOp::Complete { task, outputs } => {
            let mut set = vec![
                ("status", text("completed")),
                ("completed_at", now),
                ("error", Cell::Null),
                ("progress", Cell::Float(1.0)),
            ];
            if let Some(first) = outputs.first() {
                set.push(("output_cid", Cell::Text(Cow::Borrowed(first))));
                let outputs = outputs
                    .iter()
                    .map(|cid| Cell::Text(Cow::Borrowed(cid.as_str())));
                set.push(("output_cids", Cell::List(outputs.collect())));
            }
            step(
                overlay,
                task,
                "completed",
                "assigned or running",
                is_taken,
                set,
            )?;
        }
        DomainOp::Fail { task, reason } => {
            let error = reason
                .as_deref()
                .map_or(Cell::Null, |reason| Cell::Text(Cow::Borrowed(reason)));
            let set = vec![
                ("status", text("failed")),
                ("completed_at", now),
                ("error", error),
            ];
            step(
                overlay,
                task,
                "failed",
                "assigned or running",
                is_taken,
                set,
            )?;
        }
        DomainOp::Release { task } => step(
            overlay,
            task,
            "released",
            "assigned or running",
            is_taken,
            again(),
        )?,
        DomainOp::Retry { task } => {
            step(
                overlay,
                task,
                "retried",
                "failed",
                |status| status == "failed",
                again(),
            )?;
        }
        DomainOp::Cancel { task } => {
            let set = vec![("status", text("cancelled")), ("completed_at", now)];
            let is_open = |status: &str| status == "pending" || is_taken(status);
            step(
                overlay,
                task,
                "cancelled",
                "pending, assigned or running",
                is_open,
                set,
            )?;
        }
        DomainOp::Register { row } => {
            put(overlay, TableId::Nodes, row)?;
            let id = row
                .get("id")
                .and_then(serde_json::Value::as_str)
                .unwrap_or_default();
            // One that registers again is back, unless it says otherwise.
            let mut set = Vec::new();
            if !row.contains_key("status") {
                set.push(("status", text("online")));
            }
            if !row.contains_key("last_seen") {
                set.push(("last_seen", now));
            }
            change(overlay, TableId::Nodes, Cow::Borrowed(id), |_| Ok(set))?;
        }
        DomainOp::Heartbeat { node, set } => {
            let layout = overlay.layout(TableId::Nodes);
            overlay.edit(TableId::Nodes, Cow::Borrowed(node.as_str()), |draft| {
                must_be_there(draft, TableId::Nodes, node)?;
                if let Some(last_seen) = layout.find("last_seen") {
                    draft.set(last_seen, now);
                }
                for (number, cell) in patched(layout, draft, node, set)? {
                    draft.set(number, cell);
                }
                Ok(())
            })?;
        }
        DomainOp::RemoveNode { node } => remove_node(overlay, node)?,
        DomainOp::AddContent { row } => put(overlay, TableId::Content, row)?,
        DomainOp::Pin { cid } | DomainOp::Unpin { cid } => {
            let pinned = Cell::Bool(matches!(op, DomainOp::Pin { .. }));
            change(overlay, TableId::Content, Cow::Borrowed(cid), |_| {
                Ok(vec![("pinned", pinned)])
            })?;
        }
        DomainOp::RemoveContent { cid } => delete(overlay, TableId::Content, cid)?,
        DomainOp::AddProvider { cid, node } => {
            if !overlay.row(TableId::Nodes, node)?.is_there() {
                return Err(no_row(TableId::Nodes, node));
            }
            providers(overlay, cid, |providers| {
                let node = Cell::Text(Cow::Borrowed(node.as_str()));
                if !providers.contains(&node) {
                    providers.push(node);
                }
            })?;
        }
        DomainOp::DropProvider { cid, node } => {
            providers(overlay, cid, |providers| {
                providers.retain(|provider| provider.text() != Some(node));
            })?;
        }
    }
    Ok(None)
}

fn text(text: &'static str) -> Cell<'static> {
    Cell::Text(Cow::Borrowed(text))
}

/// Has a node got it?
fn is_taken(status: &str) -> bool {
    status == "assigned" || status == "running"
}

/// What a task loses that is to be done once more.
fn again<'a>() -> Vec<(&'static str, Cell<'a>)> {
    let lost = [
        "assigned_to",
        "started_at",
        "completed_at",
        "error",
        "progress",
    ];
    let lost = lost.map(|column| (column, Cell::Null));
    std::iter::once(("status", text("pending")))
        .chain(lost)
        .collect()
}

fn no_row(table: TableId, key: &str) -> Refusal {
    Refusal::NoRow {
        table: table.name(),
        key: shorten(key),
    }
}

fn must_be_there(draft: &Draft<'_>, table: TableId, key: &str) -> Result<(), Refusal> {
    match draft.is_there() {
        true => Ok(()),
        false => Err(no_row(table, key)),
    }
}

/// Sets columns, by name, of a row that is there, and its `updated_at`. Columns that the table lacks are left out.
fn change<'a>(
    overlay: &mut Overlay<'a>,
    table: TableId,
    key: Cow<'a, str>,
    set: impl FnOnce(&Draft<'a>) -> Result<Vec<(&'static str, Cell<'a>)>, Refusal>,
) -> Result<(), Refusal> {
    let layout = overlay.layout(table);
    let now = Cell::Int(overlay.now_ms.into());
    let name = key.clone();
    overlay.edit(table, key, |draft| {
        must_be_there(draft, table, &name)?;
        for (name, cell) in set(draft)? {
            if let Some(number) = layout.find(name) {
                draft.set(number, cell);
            }
        }
        if let Some(updated_at) = layout.updated_at {
            draft.set(updated_at, now);
        }
        Ok(())
    })
}

/// One step of a task's life.
fn step<'a>(
    overlay: &mut Overlay<'a>,
    task: &'a str,
    step: &'static str,
    allowed: &'static str,
    is_allowed: impl Fn(&str) -> bool,
    set: Vec<(&'static str, Cell<'a>)>,
) -> Result<(), Refusal> {
    let number = overlay.layout(TableId::Tasks).find("status");
    change(overlay, TableId::Tasks, Cow::Borrowed(task), |draft| {
        let status = number.map_or(Cell::Null, |number| draft.get(number));
        // A task that was never told its status waits.
        let status = status.text().unwrap_or("pending");
        match is_allowed(status) {
            true => Ok(set),
            false => Err(Refusal::Status {
                task: shorten(task),
                status: shorten(status),
                allowed,
                step,
            }),
        }
    })
}

/// Is the node there and online?
fn online<'a>(overlay: &Overlay<'a>, node: &str) -> Result<Draft<'a>, Refusal> {
    let row = overlay.row(TableId::Nodes, node)?;
    must_be_there(&row, TableId::Nodes, node)?;
    let status = overlay.layout(TableId::Nodes).find("status");
    let status = status.map_or(Cell::Null, |number| row.get(number));
    match status.text() {
        Some("online") => Ok(row),
        status => Err(Refusal::NotOnline {
            node: shorten(node),
            status: shorten(status.unwrap_or("of no status")),
        }),
    }
}

fn assign<'a>(overlay: &mut Overlay<'a>, task: Cow<'a, str>, node: &'a str) -> Result<(), Refusal> {
    online(overlay, node)?;
    let number = overlay.layout(TableId::Tasks).find("status");
    let name = task.clone();
    change(overlay, TableId::Tasks, task, |draft| {
        let status = number.map_or(Cell::Null, |number| draft.get(number));
        if !is_pending(status.text()) {
            return Err(Refusal::Status {
                task: shorten(&name),
                status: shorten(status.text().unwrap_or_default()),
                allowed: "pending",
                step: "assigned",
            });
        }
        Ok(vec![
            ("status", text("assigned")),
            ("assigned_to", Cell::Text(Cow::Borrowed(node))),
        ])
    })
}

/// Takes the oldest pending task that fits: by `created_at`, then by id. None fits: done, and no task.
fn claim<'a>(
    overlay: &mut Overlay<'a>,
    node: &'a str,
    types: &'a [String],
) -> Result<Option<String>, Refusal> {
    let row = online(overlay, node)?;
    let layout = overlay.layout(TableId::Nodes);
    let resources = layout.find("resources");
    let of = resources.map_or(Cell::Null, |number| row.get(number));
    let fields = resources.and_then(|number| layout.columns.get(number));
    let get = |name: &str| {
        let number = fields?
            .fields
            .iter()
            .position(|field| field.name() == name)?;
        Some(of.field(number))
    };
    let number = |name: &str| get(name).and_then(|cell| cell.int()).unwrap_or(0);
    let has_gpus = get("gpu_available").is_some_and(|cell| cell.is_true());
    let wanted = Wanted {
        types,
        cpu_count: number("cpu_count"),
        gpu_count: if has_gpus { number("gpu_count") } else { 0 },
        memory_bytes: number("memory_available"),
    };
    let task = oldest(overlay, &wanted)?;
    if let Some(task) = &task {
        assign(overlay, Cow::Owned(task.clone()), node)?;
    }
    Ok(task)
}

fn oldest(overlay: &mut Overlay<'_>, wanted: &Wanted<'_>) -> Result<Option<String>, Refusal> {
    for _ in 0..2 {
        let is_to_be_made = |pending: &mut Pending| pending.is_to_be_tried();
        if overlay.pending.as_mut().is_none_or(is_to_be_made) {
            overlay.index_pending()?;
        }
        let found = overlay
            .pending
            .as_ref()
            .map(|pending| pending.oldest(wanted));
        match found {
            Some(Oldest::Task(task)) => return Ok(Some(task)),
            Some(Oldest::None) => return Ok(None),
            Some(Oldest::Dry) => *overlay.pending = None,
            Some(Oldest::Unknown) | None => break,
        }
    }
    look_at_all(overlay, wanted)
}

/// The same without the index (P3).
fn look_at_all(overlay: &Overlay<'_>, wanted: &Wanted<'_>) -> Result<Option<String>, Refusal> {
    let columns = TaskColumns::of(overlay.layout(TableId::Tasks));
    let mut oldest: Option<(i64, String)> = None;
    let mut look = |task: &Waiting<'_>| {
        let is_older = oldest
            .as_ref()
            .is_none_or(|(created_at, id)| (task.created_at, task.id) < (*created_at, id));
        if is_older && wanted.fits(task.of_type, task.needs) {
            oldest = Some((task.created_at, task.id.to_owned()));
        }
    };
    for batch in overlay.snapshot.table(TableId::Tasks).batches() {
        columns.each_waiting(&batch?, |task| {
            if !overlay.is_touched(TableId::Tasks, task.id) {
                look(task);
            }
            true
        });
    }
    for (key, draft) in overlay.touched(TableId::Tasks) {
        columns.if_waiting(key, draft, &mut |task| look(&task));
    }
    Ok(oldest.map(|(_, id)| id))
}

/// Removes a node that has no open task: its tasks would wait for it for ever.
fn remove_node<'a>(overlay: &mut Overlay<'a>, node: &'a str) -> Result<(), Refusal> {
    must_be_there(&overlay.row(TableId::Nodes, node)?, TableId::Nodes, node)?;
    let (first, open) = overlay.open_tasks_of(node)?;
    if let Some(task) = first {
        return Err(Refusal::Busy {
            node: shorten(node),
            task: shorten(task),
            open,
        });
    }
    delete(overlay, TableId::Nodes, node)
}

fn providers<'a>(
    overlay: &mut Overlay<'a>,
    cid: &'a str,
    edit: impl FnOnce(&mut Vec<Cell<'a>>),
) -> Result<(), Refusal> {
    let number = overlay.layout(TableId::Content).find("providers");
    change(overlay, TableId::Content, Cow::Borrowed(cid), |draft| {
        let mut providers = match number.map_or(Cell::Null, |number| draft.get(number)) {
            Cell::List(providers) => providers,
            _ => Vec::new(),
        };
        edit(&mut providers);
        Ok(vec![("providers", Cell::List(providers))])
    })
}
