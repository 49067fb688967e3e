//! Judging conditions and doing put, patch and delete: docs/transactions.md, sections 2 and 3.

use std::borrow::Cow;

use serde_json::{Map, Value};
use sherwood_shared::schema::TableId;
use sherwood_shared::transaction::{Condition, Op, Target, Transaction};

use super::cell::{Cell, Misfit, What, shown};
use super::layout::{Column, Layout};
use super::overlay::{Draft, Overlay};
use super::refusal::{MOST_KEY_BYTES, Refusal, shorten};

/// Judges and does a whole transaction. On a refusal the caller rolls back (O1).
pub(super) fn transact<'a>(
    overlay: &mut Overlay<'a>,
    generation: u64,
    transaction: &'a Transaction,
) -> Result<(), Refusal> {
    for condition in &transaction.conditions {
        judge(overlay, generation, condition)?;
    }
    for op in &transaction.ops {
        match op {
            Op::Put { table, row } => put(overlay, *table, row)?,
            Op::Patch { table, key, set } => match table {
                Target::Table(table) => patch(overlay, *table, key, set)?,
                Target::Cluster => patch_cluster(overlay, key, set)?,
            },
            Op::Delete { table, key } => delete(overlay, *table, key)?,
        }
    }
    Ok(())
}

/// The conditions come first in a transaction, so all are judged against what was there before it.
fn judge(overlay: &Overlay<'_>, generation: u64, condition: &Condition) -> Result<(), Refusal> {
    match condition {
        Condition::Generation(expected) if *expected == generation => Ok(()),
        Condition::Generation(expected) => Err(Refusal::Generation {
            found: generation,
            expected: *expected,
        }),
        Condition::Exists { table, key, exists } => {
            let is_there = match table {
                Target::Table(table) => overlay.row(*table, key)?.is_there(),
                Target::Cluster => {
                    check_cluster(overlay, key)?;
                    true
                }
            };
            match is_there == *exists {
                true => Ok(()),
                false => Err(Refusal::Exists {
                    table: name_of(*table),
                    key: key.clone(),
                    exists: *exists,
                }),
            }
        }
        Condition::Equals {
            table,
            key,
            column,
            equals,
        } => {
            let (layout, row) = match table {
                Target::Table(table) => (overlay.layout(*table), overlay.row(*table, key)?),
                Target::Cluster => {
                    let id = check_cluster(overlay, key)?;
                    let (layout, row) = (overlay.layouts.cluster.as_ref(), overlay.cluster());
                    return equal(layout, row, &id, column, equals);
                }
            };
            equal(layout, &row, key, column, equals)
        }
    }
}

fn equal(
    layout: &Layout,
    row: &Draft<'_>,
    key: &str,
    path: &str,
    equals: &Value,
) -> Result<(), Refusal> {
    let no_column = || Refusal::NoColumn {
        table: layout.name,
        key: key.to_owned(),
        column: path.to_owned(),
    };
    // A column's own name may hold a dot, if others brought it.
    let (number, below) = match layout.find(path) {
        Some(number) => (number, None),
        None => {
            let (head, below) = path.split_once('.').ok_or_else(no_column)?;
            (layout.find(head).ok_or_else(no_column)?, Some(below))
        }
    };
    let mut column: &Column = layout.columns.get(number).ok_or_else(no_column)?;
    let mut steps = Vec::new();
    for step in below.iter().flat_map(|below| below.split('.')) {
        let at = column
            .fields
            .iter()
            .position(|field| field.name() == step)
            .ok_or_else(no_column)?;
        steps.push(at);
        column = column.fields.get(at).ok_or_else(no_column)?;
    }
    // Null is a question that every column can be asked.
    let expected = match equals {
        Value::Null => Cell::Null,
        value => Cell::from_json(value, column).map_err(|misfit| {
            let misfit = refused(layout, key, path, misfit);
            match misfit {
                Refusal::Value { expected, .. } if expected.contains("Arrow") => Refusal::Value {
                    table: layout.name,
                    key: key.to_owned(),
                    column: path.to_owned(),
                    value: shorten(value),
                    expected: "null: a condition cannot compare values of this type".to_owned(),
                },
                other => other,
            }
        })?,
    };
    if !row.is_there() {
        return Err(Refusal::NoRow {
            table: layout.name,
            key: key.to_owned(),
        });
    }
    let found = match (layout.key == number, steps.is_empty()) {
        (true, true) if layout.name != "cluster" => Cell::Text(Cow::Borrowed(key)),
        _ => steps
            .iter()
            .fold(row.get(number), |cell, &step| cell.field(step)),
    };
    if found == expected {
        return Ok(());
    }
    Err(Refusal::Differs {
        table: layout.name,
        key: key.to_owned(),
        column: path.to_owned(),
        found: shown(&found),
        expected: shown(&expected),
    })
}

fn name_of(target: Target) -> &'static str {
    match target {
        Target::Cluster => "cluster",
        Target::Table(table) => table.name(),
    }
}

/// The cluster's id, if `key` is it or is left out.
fn check_cluster(overlay: &Overlay<'_>, key: &str) -> Result<String, Refusal> {
    let cluster = overlay.cluster().get(overlay.layouts.cluster.key);
    let cluster = cluster.text().unwrap_or_default();
    match key.is_empty() || cluster == key {
        true => Ok(cluster.to_owned()),
        false => Err(Refusal::OtherCluster {
            cluster: cluster.to_owned(),
            key: shorten(key),
        }),
    }
}

/// Is it a key that a new row may have?
pub(super) fn check_key(table: TableId, key: &str) -> Result<(), Refusal> {
    match (1..=MOST_KEY_BYTES).contains(&key.len()) {
        true => Ok(()),
        false => Err(Refusal::Key {
            table: table.name(),
            bytes: key.len(),
        }),
    }
}

/// The key in a row.
pub(super) fn key_in(table: TableId, row: &Map<String, Value>) -> Result<&str, Refusal> {
    let key = row.get(table.key()).and_then(Value::as_str);
    let key = key.ok_or(Refusal::NoKey {
        table: table.name(),
        column: table.key(),
    })?;
    check_key(table, key)?;
    Ok(key)
}

/// Makes a row or replaces it.
pub(super) fn put<'a>(
    overlay: &mut Overlay<'a>,
    table: TableId,
    row: &'a Map<String, Value>,
) -> Result<(), Refusal> {
    let key = key_in(table, row)?;
    let layout = overlay.layout(table);
    let now = Cell::Int(overlay.now_ms.into());
    overlay.edit(table, Cow::Borrowed(key), |draft| {
        let is_new = !draft.is_there();
        let mut found = 1; // the key
        let mut set = Vec::with_capacity(layout.columns.len());
        for (number, column) in layout.columns.iter().enumerate() {
            if number == layout.key {
                continue;
            }
            let given = row.get(column.name());
            found += usize::from(given.is_some());
            let cell = match given {
                Some(value) => put_value(value, column, draft, number)
                    .map_err(|misfit| refused(layout, key, column.name(), misfit))?,
                None if !column.in_document => {
                    continue;
                }
                None => kept_fields(column, draft, number),
            };
            let engine_sets = layout.updated_at == Some(number)
                || (is_new && layout.created_at == Some(number) && cell == Cell::Null);
            set.push((number, if engine_sets { now.clone() } else { cell }));
        }
        if found < row.len() {
            return Err(unknown(layout, key, row));
        }
        draft.put(set);
        Ok(())
    })
}

/// A value of a put. Of a struct, fields beyond the document that are left out keep their values.
fn put_value<'a>(
    value: &'a Value,
    column: &Column,
    draft: &Draft<'a>,
    number: usize,
) -> Result<Cell<'a>, Misfit> {
    let Value::Object(fields) = value else {
        return Cell::from_json(value, column);
    };
    if column.fields.is_empty() {
        return Cell::from_json(value, column);
    }
    let is_whole = column.fields.iter().all(|field| field.in_document);
    let old = if is_whole {
        Cell::Null
    } else {
        draft.get(number)
    };
    Cell::object(fields, column, |field| {
        let is_kept = column
            .fields
            .get(field)
            .is_some_and(|field| !field.in_document);
        Ok(if is_kept {
            old.field(field)
        } else {
            Cell::Null
        })
    })
}

/// What a put makes of a column of the document that it leaves out: null, but for fields of a struct that the
/// document does not have.
fn kept_fields<'a>(column: &Column, draft: &Draft<'a>, number: usize) -> Cell<'a> {
    if column.fields.iter().all(|field| field.in_document) {
        return Cell::Null;
    }
    let Cell::Struct(mut cells) = draft.get(number) else {
        return Cell::Null;
    };
    for (cell, field) in cells.iter_mut().zip(&column.fields) {
        if field.in_document {
            *cell = Cell::Null;
        }
    }
    match cells.iter().all(|cell| *cell == Cell::Null) {
        true => Cell::Null,
        false => Cell::Struct(cells),
    }
}

/// Sets columns of a row that is there.
pub(super) fn patch<'a>(
    overlay: &mut Overlay<'a>,
    table: TableId,
    key: &'a str,
    set: &'a Map<String, Value>,
) -> Result<(), Refusal> {
    let layout = overlay.layout(table);
    if set.is_empty() {
        return Err(Refusal::SetsNothing {
            table: layout.name,
            key: key.to_owned(),
        });
    }
    let now = Cell::Int(overlay.now_ms.into());
    overlay.edit(table, Cow::Borrowed(key), |draft| {
        if !draft.is_there() {
            return Err(Refusal::NoRow {
                table: layout.name,
                key: shorten(key),
            });
        }
        let cells = patched(layout, draft, key, set)?;
        for (number, cell) in cells {
            draft.set(number, cell);
        }
        if let Some(updated_at) = layout.updated_at {
            draft.set(updated_at, now);
        }
        Ok(())
    })
}

/// The cells that a patch sets. A struct is merged field by field.
pub(super) fn patched<'a>(
    layout: &Layout,
    draft: &Draft<'a>,
    key: &str,
    set: &'a Map<String, Value>,
) -> Result<Vec<(usize, Cell<'a>)>, Refusal> {
    let mut cells = Vec::with_capacity(set.len());
    for (name, value) in set {
        let column = layout
            .find(name)
            .and_then(|number| Some((number, layout.columns.get(number)?)));
        let (number, column) = column.ok_or_else(|| Refusal::NoColumn {
            table: layout.name,
            key: shorten(key),
            column: shorten(name),
        })?;
        if number == layout.key {
            let old = draft.get(number);
            let old = if layout.name == "cluster" {
                old.text()
            } else {
                Some(key)
            };
            if value.as_str().is_some_and(|new| Some(new) == old) {
                continue;
            }
            return Err(Refusal::KeyChange {
                table: layout.name,
                key: shorten(key),
                column: name.clone(),
            });
        }
        let cell = match value {
            Value::Object(fields) if !column.fields.is_empty() => {
                let old = draft.get(number);
                Cell::object(fields, column, |field| Ok(old.field(field)))
            }
            _ => Cell::from_json(value, column),
        };
        let cell = cell.map_err(|misfit| refused(layout, key, name, misfit))?;
        if layout.updated_at != Some(number) {
            cells.push((number, cell));
        }
    }
    Ok(cells)
}

fn patch_cluster<'a>(
    overlay: &mut Overlay<'a>,
    key: &str,
    set: &'a Map<String, Value>,
) -> Result<(), Refusal> {
    let id = check_cluster(overlay, key)?;
    if set.is_empty() {
        return Err(Refusal::SetsNothing {
            table: "cluster",
            key: id,
        });
    }
    let layout = overlay.layouts.cluster.as_ref();
    let cells = patched(layout, overlay.cluster(), &id, set)?;
    let now = Cell::Int(overlay.now_ms.into());
    let draft = overlay.edit_cluster();
    for (number, cell) in cells {
        draft.set(number, cell);
    }
    if let Some(updated_at) = layout.updated_at {
        draft.set(updated_at, now);
    }
    Ok(())
}

/// Deletes a row that is there.
pub(super) fn delete<'a>(
    overlay: &mut Overlay<'a>,
    table: TableId,
    key: &'a str,
) -> Result<(), Refusal> {
    overlay.edit(table, Cow::Borrowed(key), |draft| {
        if !draft.is_there() {
            return Err(Refusal::NoRow {
                table: table.name(),
                key: shorten(key),
            });
        }
        draft.delete();
        Ok(())
    })
}

/// Names the first column that is in the row and not in the table.
fn unknown(layout: &Layout, key: &str, row: &Map<String, Value>) -> Refusal {
    let column = row.keys().find(|name| layout.find(name).is_none());
    Refusal::NoColumn {
        table: layout.name,
        key: shorten(key),
        column: column.map_or_else(String::new, shorten),
    }
}

/// A misfit, with its row and column.
fn refused(layout: &Layout, key: &str, column: &str, misfit: Misfit) -> Refusal {
    let (table, key) = (layout.name, shorten(key));
    let column = shorten(format_args!("{column}{}", misfit.path));
    match misfit.what {
        What::NoField => Refusal::NoColumn { table, key, column },
        What::Value { value, expected } => Refusal::Value {
            table,
            key,
            column,
            value,
            expected,
        },
    }
}
