//! The state as the transactions of a group see it: the snapshot, and over it what those before them did.
//!
//! - **O1** A transaction that is refused leaves nothing: [`Overlay::rollback`] undoes every change since
//!   [`Overlay::begin`].
//! - **O2** Nothing of the snapshot is copied but the values that a row is asked for; a cell borrows its text.
//! - **O3** What comes out ([`Overlay::effects`]) is net: a key once (E2), and only the columns that were set.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, TimestampMillisecondType};
use arrow_array::{Array, ArrayRef, Int32Array, RecordBatch, StringArray};
use arrow_schema::{ArrowError, Schema};
use sherwood_client::rows::RowRef;
use sherwood_client::{ReadError, Snapshot};
use sherwood_shared::schema::TableId;
use sherwood_store::{Effects, TableEffects};

use super::cell::{Cell, column};
use super::layout::Layout;
use super::pending::{Builder, Needs, Pending, Waiting};
use super::refusal::Refusal;

/// The columns of the cluster and of each table.
#[derive(Clone, Debug)]
pub(super) struct Layouts {
    pub(super) cluster: Arc<Layout>,
    pub(super) tables: [Arc<Layout>; 3],
}

impl Layouts {
    /// Of a snapshot and its cluster's row; what is as before is shared.
    pub(super) fn of(
        snapshot: &Snapshot,
        cluster: &RecordBatch,
        old: Option<&Layouts>,
    ) -> Result<Self, ReadError> {
        let of = |id| Layout::of_table(snapshot, id, old.map(|old| &old.tables[id as usize]));
        let cluster = cluster.schema();
        Ok(Self {
            cluster: match old.filter(|old| *old.cluster.schema() == cluster) {
                Some(old) => Arc::clone(&old.cluster),
                None => Arc::new(Layout::of_cluster(cluster)),
            },
            tables: [
                of(TableId::Nodes)?,
                of(TableId::Tasks)?,
                of(TableId::Content)?,
            ],
        })
    }
}

/// A row, and what became of it.
#[derive(Clone, Debug)]
pub(super) struct Draft<'a> {
    /// The snapshot's row.
    base: Option<(&'a RecordBatch, usize)>,
    state: DraftState<'a>,
}

#[derive(Clone, Debug)]
enum DraftState<'a> {
    /// There is no such row.
    Gone,
    /// The snapshot's row with these columns set, or, if `is_new`, a row with only these and nulls otherwise.
    /// Ascending by column number.
    Row {
        is_new: bool,
        cells: Vec<(usize, Cell<'a>)>,
    },
}

impl<'a> Draft<'a> {
    fn untouched(base: Option<(&'a RecordBatch, usize)>) -> Self {
        let state = match base {
            None => DraftState::Gone,
            Some(_) => DraftState::Row {
                is_new: false,
                cells: Vec::new(),
            },
        };
        Self { base, state }
    }

    pub(super) fn is_there(&self) -> bool {
        matches!(self.state, DraftState::Row { .. })
    }

    /// The value of a column; null if there is no row.
    pub(super) fn get(&self, number: usize) -> Cell<'a> {
        let DraftState::Row { is_new, cells } = &self.state else {
            return Cell::Null;
        };
        if let Ok(at) = cells.binary_search_by_key(&number, |(number, _)| *number) {
            return cells.get(at).map_or(Cell::Null, |(_, cell)| cell.clone());
        }
        match (is_new, self.base) {
            (false, Some((batch, row))) => match batch.columns().get(number) {
                Some(column) => Cell::from_array(column, row),
                None => Cell::Null,
            },
            _ => Cell::Null,
        }
    }

    /// Sets one column of a row that is there.
    pub(super) fn set(&mut self, number: usize, cell: Cell<'a>) {
        if let DraftState::Row { cells, .. } = &mut self.state {
            match cells.binary_search_by_key(&number, |(number, _)| *number) {
                Ok(at) => cells[at].1 = cell,
                Err(at) => cells.insert(at, (number, cell)),
            }
        }
    }

    /// Makes the row, or sets columns of it. `set` ascends by column number.
    pub(super) fn put(&mut self, set: Vec<(usize, Cell<'a>)>) {
        match &mut self.state {
            DraftState::Gone => {
                self.state = DraftState::Row {
                    is_new: true,
                    cells: set,
                };
            }
            DraftState::Row { cells, .. } if cells.is_empty() => *cells = set,
            DraftState::Row { .. } => {
                for (number, cell) in set {
                    self.set(number, cell);
                }
            }
        }
    }

    pub(super) fn delete(&mut self) {
        self.state = DraftState::Gone;
    }

    /// Is it another row than the snapshot's?
    fn is_new(&self) -> bool {
        matches!(self.state, DraftState::Row { is_new: true, .. })
    }

    fn cells(&self) -> &[(usize, Cell<'a>)] {
        match &self.state {
            DraftState::Row { cells, .. } => cells,
            DraftState::Gone => &[],
        }
    }
}

#[derive(Debug)]
struct Undo<'a> {
    table: TableId,
    key: Cow<'a, str>,
    /// `None`: it was not touched before.
    before: Option<Draft<'a>>,
}

/// The state as the next transaction sees it.
#[derive(Debug)]
pub(super) struct Overlay<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) layouts: &'a Layouts,
    /// When the group is committed, in milliseconds since the epoch.
    pub(super) now_ms: i64,
    cluster_row: &'a RecordBatch,
    cluster: Draft<'a>,
    cluster_before: Option<Draft<'a>>,
    tables: [HashMap<Cow<'a, str>, Draft<'a>>; 3],
    undo: Vec<Undo<'a>>,
    pub(super) pending: &'a mut Option<Pending>,
}

impl<'a> Overlay<'a> {
    /// Nothing done yet. `pending` describes the snapshot (P2); it is `None` if nobody claimed yet.
    pub(super) fn new(
        snapshot: &'a Snapshot,
        cluster_row: &'a RecordBatch,
        layouts: &'a Layouts,
        pending: &'a mut Option<Pending>,
        now_ms: i64,
    ) -> Self {
        Self {
            snapshot,
            layouts,
            now_ms,
            cluster_row,
            cluster: Draft::untouched(Some((cluster_row, 0))),
            cluster_before: None,
            tables: Default::default(),
            undo: Vec::new(),
            pending,
        }
    }

    /// What follows is one transaction (O1).
    pub(super) fn begin(&mut self) {
        self.undo.clear();
        self.cluster_before = None;
    }

    /// Undoes everything since [`begin`](Self::begin) (O1).
    pub(super) fn rollback(&mut self) {
        if let Some(before) = self.cluster_before.take() {
            self.cluster = before;
        }
        while let Some(Undo { table, key, before }) = self.undo.pop() {
            let rows = &mut self.tables[table as usize];
            let Some(now) = rows.get_mut(&key) else {
                continue;
            };
            let base = Draft::untouched(now.base);
            let old = before.as_ref().unwrap_or(&base);
            if table == TableId::Tasks
                && let Some(pending) = self.pending.as_mut()
            {
                let columns = TaskColumns::of(&self.layouts.tables[TableId::Tasks as usize]);
                columns.change(pending, &key, now, old);
            }
            match before {
                Some(before) => *now = before,
                None => {
                    rows.remove(&key);
                }
            }
        }
    }

    pub(super) fn layout(&self, table: TableId) -> &'a Layout {
        &self.layouts.tables[table as usize]
    }

    /// The cluster's row.
    pub(super) fn cluster(&self) -> &Draft<'a> {
        &self.cluster
    }

    /// The cluster's row as the snapshot has it.
    pub(super) fn base_of_cluster(&self) -> &'a RecordBatch {
        self.cluster_row
    }

    /// The cluster's row, to change it.
    pub(super) fn edit_cluster(&mut self) -> &mut Draft<'a> {
        self.cluster_before
            .get_or_insert_with(|| self.cluster.clone());
        &mut self.cluster
    }

    /// A row as it is now.
    pub(super) fn row(&self, table: TableId, key: &str) -> Result<Draft<'a>, Refusal> {
        match self.tables[table as usize].get(key) {
            Some(draft) => Ok(draft.clone()),
            None => Ok(Draft::untouched(find(self.snapshot, table, key)?)),
        }
    }

    /// Changes a row. If `change` refuses, the row is as before.
    pub(super) fn edit<R>(
        &mut self,
        table: TableId,
        key: Cow<'a, str>,
        change: impl FnOnce(&mut Draft<'a>) -> Result<R, Refusal>,
    ) -> Result<R, Refusal> {
        let rows = &mut self.tables[table as usize];
        let before = rows.get(&key).cloned();
        let mut draft = match &before {
            Some(before) => before.clone(),
            None => Draft::untouched(find(self.snapshot, table, &key)?),
        };
        let indexed = self.pending.as_mut().filter(|_| table == TableId::Tasks);
        let result = match indexed {
            None => change(&mut draft)?,
            Some(pending) => {
                let old = draft.clone();
                let result = change(&mut draft)?;
                let columns = TaskColumns::of(&self.layouts.tables[TableId::Tasks as usize]);
                columns.change(pending, &key, &old, &draft);
                result
            }
        };
        self.undo.push(Undo {
            table,
            key: key.clone(),
            before,
        });
        rows.insert(key, draft);
        Ok(result)
    }

    /// The rows that were touched.
    pub(super) fn touched(&self, table: TableId) -> impl Iterator<Item = (&str, &Draft<'a>)> {
        self.tables[table as usize]
            .iter()
            .map(|(key, draft)| (key.as_ref(), draft))
    }

    /// Was this row touched?
    pub(super) fn is_touched(&self, table: TableId, key: &str) -> bool {
        self.tables[table as usize].contains_key(key)
    }

    /// Makes the index of pending tasks anew, from the snapshot and what was done since (P2).
    pub(super) fn index_pending(&mut self) -> Result<(), Refusal> {
        let columns = TaskColumns::of(self.layout(TableId::Tasks));
        let batches = self.snapshot.table(TableId::Tasks).batches();
        let batches: Vec<RecordBatch> = batches.collect::<Result<_, _>>()?;
        let mut builder = Builder::default();
        for batch in &batches {
            if !columns.each_waiting(batch, |task| builder.add(task)) {
                break;
            }
        }
        let mut pending = builder.finish();
        for (key, draft) in &self.tables[TableId::Tasks as usize] {
            columns.change(&mut pending, key, &Draft::untouched(draft.base), draft);
        }
        *self.pending = Some(pending);
        Ok(())
    }

    /// Tells the index of pending tasks what columns of effects do to it. If they are many it is made anew with the
    /// next claim, which is quicker.
    pub(super) fn index_effects(&mut self, effects: &TableEffects) -> Result<(), ReadError> {
        let Some(mut pending) = self.pending.take() else {
            return Ok(());
        };
        let upserted: usize = effects.upserts.iter().map(RecordBatch::num_rows).sum();
        let tasks = self.snapshot.table(TableId::Tasks).len();
        let rows = (upserted + effects.delete.len()) as u64;
        if rows > 4096 + tasks / 32 {
            return Ok(());
        }
        let columns = TaskColumns::of(self.layout(TableId::Tasks));
        for key in &effects.delete {
            let before = Draft::untouched(find(self.snapshot, TableId::Tasks, key)?);
            columns.change(&mut pending, key, &before, &Draft::untouched(None));
        }
        for batch in &effects.upserts {
            let Some(given) = columns.given(batch) else {
                // Of another type than the table's, which so changes: then all of it is looked at.
                return Ok(());
            };
            if given.is_empty() {
                continue;
            }
            let Some(keys) = batch.column(0).as_string_opt::<i32>() else {
                return Ok(());
            };
            for (row, key) in keys.iter().enumerate() {
                let key = key.unwrap_or_default();
                let before = Draft::untouched(find(self.snapshot, TableId::Tasks, key)?);
                let mut after = before.clone();
                let cells = given.iter();
                let cells = cells.map(|(number, column)| (*number, Cell::from_array(column, row)));
                after.put(cells.collect());
                columns.change(&mut pending, key, &before, &after);
            }
        }
        *self.pending = Some(pending);
        Ok(())
    }

    /// How many open tasks a node has, and one of them. Looks at every task.
    pub(super) fn open_tasks_of(&self, node: &str) -> Result<(Option<String>, u64), Refusal> {
        let layout = self.layout(TableId::Tasks);
        let (Some(status), Some(assigned_to)) = (layout.find("status"), layout.find("assigned_to"))
        else {
            return Ok((None, 0));
        };
        let is_open = |status: Option<&str>, assigned_to: Option<&str>| {
            assigned_to == Some(node)
                && matches!(status, None | Some("pending" | "assigned" | "running"))
        };
        let mut first = None;
        let mut open = 0;
        for batch in self.snapshot.table(TableId::Tasks).batches() {
            let batch = batch?;
            let at = |number: usize| {
                batch
                    .columns()
                    .get(number)
                    .and_then(|column| column.as_string_opt::<i32>())
            };
            let (Some(keys), Some(statuses), Some(nodes)) =
                (at(layout.key), at(status), at(assigned_to))
            else {
                continue;
            };
            for (row, assigned_to) in nodes.iter().enumerate() {
                let status = || statuses.is_valid(row).then(|| statuses.value(row));
                if assigned_to == Some(node)
                    && is_open(status(), assigned_to)
                    && !self.is_touched(TableId::Tasks, keys.value(row))
                {
                    open += 1;
                    first.get_or_insert_with(|| keys.value(row).to_owned());
                }
            }
        }
        for (key, draft) in self.touched(TableId::Tasks) {
            if draft.is_there() && is_open(draft.get(status).text(), draft.get(assigned_to).text())
            {
                open += 1;
                first.get_or_insert_with(|| key.to_owned());
            }
        }
        Ok((first, open))
    }

    /// What the group changes (O3), and by that the cluster's `updated_at`.
    pub(super) fn effects(&self) -> Result<Effects, ArrowError> {
        let mut effects = Effects::default();
        for table in TableId::ALL {
            effects.tables[table as usize] = self.table_effects(table)?;
        }
        if !effects.is_empty() || !self.cluster.cells().is_empty() {
            let cells = self.cluster.cells();
            effects.cluster = Some(cluster_row(
                self.cluster_row,
                &self.layouts.cluster,
                cells,
                self.now_ms,
            )?);
        }
        Ok(effects)
    }

    fn table_effects(&self, table: TableId) -> Result<TableEffects, ArrowError> {
        let layout = self.layout(table);
        let mut rows: Vec<(&str, &Draft<'a>)> = self.touched(table).collect();
        rows.sort_unstable_by_key(|(key, _)| *key);
        let mut effects = TableEffects::default();
        // By column set. New rows have one for all of them: what one leaves out is null.
        let mut sets: BTreeMap<Vec<usize>, Vec<(&str, &Draft<'a>)>> = BTreeMap::new();
        let mut new_columns = vec![false; layout.columns.len()];
        let mut new_rows = Vec::new();
        for (key, draft) in rows {
            let is_in_snapshot = draft.base.is_some();
            if !draft.is_there() {
                if is_in_snapshot {
                    effects.delete.push(key.to_owned());
                }
            } else if !is_in_snapshot {
                for (number, cell) in draft.cells() {
                    new_columns[*number] |= *cell != Cell::Null;
                }
                new_rows.push((key, draft));
            } else if draft.is_new() {
                let all = (0..layout.columns.len()).filter(|&number| number != layout.key);
                sets.entry(all.collect()).or_default().push((key, draft));
            } else {
                let set = draft.cells().iter().map(|(number, _)| *number);
                let set: Vec<usize> = set.filter(|&number| number != layout.key).collect();
                if !set.is_empty() {
                    sets.entry(set).or_default().push((key, draft));
                }
            }
        }
        if !new_rows.is_empty() {
            let set = (0..layout.columns.len())
                .filter(|&number| new_columns[number] && number != layout.key);
            effects
                .upserts
                .push(batch(layout, &set.collect::<Vec<_>>(), &new_rows)?);
        }
        for (set, rows) in &sets {
            effects.upserts.push(batch(layout, set, rows)?);
        }
        Ok(effects)
    }
}

/// The cluster's row with some columns set, and its time.
pub(super) fn cluster_row(
    row: &RecordBatch,
    layout: &Layout,
    cells: &[(usize, Cell<'_>)],
    now_ms: i64,
) -> Result<RecordBatch, ArrowError> {
    let mut columns: Vec<ArrayRef> = row.columns().to_vec();
    let time = layout
        .updated_at
        .map(|number| (number, Cell::Int(now_ms.into())));
    for (number, cell) in cells.iter().chain(&time) {
        if let (Some(slot), Some(of)) = (columns.get_mut(*number), layout.columns.get(*number)) {
            *slot = column(of.field.data_type(), &[cell])?;
        }
    }
    RecordBatch::try_new(row.schema(), columns)
}

/// Rows with these columns, behind their key.
fn batch(
    layout: &Layout,
    set: &[usize],
    rows: &[(&str, &Draft<'_>)],
) -> Result<RecordBatch, ArrowError> {
    let key = &layout.columns[layout.key];
    let mut fields = vec![Arc::clone(&key.field)];
    let keys = StringArray::from_iter_values(rows.iter().map(|(key, _)| key));
    let mut columns: Vec<ArrayRef> = vec![Arc::new(keys)];
    for &number in set {
        let of = &layout.columns[number];
        let find = |draft: &Draft<'_>| {
            let cells = draft.cells();
            cells
                .binary_search_by_key(&number, |(number, _)| *number)
                .ok()
        };
        let cells: Vec<&Cell<'_>> = rows
            .iter()
            .map(|(_, draft)| match find(draft) {
                Some(at) => &draft.cells()[at].1,
                None => &Cell::Null,
            })
            .collect();
        columns.push(column(of.field.data_type(), &cells)?);
        fields.push(Arc::clone(&of.field));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// A row of the snapshot.
pub(super) fn find<'a>(
    snapshot: &'a Snapshot,
    table: TableId,
    key: &str,
) -> Result<Option<(&'a RecordBatch, usize)>, ReadError> {
    fn of<'a, R: RowRef<'a>>(
        row: Option<R>,
        batch: impl Fn(&R) -> (&'a RecordBatch, usize),
    ) -> Option<(&'a RecordBatch, usize)> {
        row.as_ref().map(batch)
    }
    Ok(match table {
        TableId::Nodes => of(snapshot.node(key)?, |row| row.batch()),
        TableId::Tasks => of(snapshot.task(key)?, |row| row.batch()),
        TableId::Content => of(snapshot.content_item(key)?, |row| row.batch()),
    })
}

/// The columns of a task that decide whether it waits, and for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct TaskColumns<'a> {
    layout: &'a Layout,
    of_type: Option<usize>,
    status: Option<usize>,
    created_at: Option<usize>,
    resources: Option<usize>,
}

impl<'l> TaskColumns<'l> {
    pub(super) fn of(layout: &'l Layout) -> Self {
        Self {
            layout,
            of_type: layout.find("type"),
            status: layout.find("status"),
            created_at: layout.find("created_at"),
            resources: layout.find("resources"),
        }
    }

    /// Tells the index what became of a task.
    fn change(&self, pending: &mut Pending, key: &str, before: &Draft<'_>, after: &Draft<'_>) {
        let (before, after) = (self.parts(before), self.parts(after));
        pending.change(
            before.as_ref().map(|parts| parts.waiting(key)).as_ref(),
            after.as_ref().map(|parts| parts.waiting(key)).as_ref(),
        );
    }

    /// Calls `each` with the task, if it waits.
    pub(super) fn if_waiting(
        &self,
        key: &str,
        draft: &Draft<'_>,
        each: &mut impl FnMut(Waiting<'_>),
    ) {
        if let Some(parts) = self.parts(draft) {
            each(parts.waiting(key));
        }
    }

    fn parts<'c>(&self, draft: &Draft<'c>) -> Option<Parts<'c>> {
        let get = |number: Option<usize>| number.map_or(Cell::Null, |number| draft.get(number));
        let status = get(self.status);
        if !draft.is_there() || !is_pending(status.text()) {
            return None;
        }
        Some(Parts {
            of_type: get(self.of_type),
            needs: self.needs(&get(self.resources)),
            created_at: get(self.created_at).int().unwrap_or(i64::MIN),
        })
    }

    fn needs(&self, resources: &Cell<'_>) -> Needs {
        let fields = self
            .resources
            .and_then(|number| self.layout.columns.get(number));
        let get = |name: &str| {
            let number = fields?
                .fields
                .iter()
                .position(|field| field.name() == name)?;
            resources.field(number).int()
        };
        let default = Needs::default();
        Needs {
            cpu_cores: get("cpu_cores").unwrap_or(default.cpu_cores),
            gpu_cores: get("gpu_cores").unwrap_or(default.gpu_cores),
            memory_mb: get("memory_mb").unwrap_or(default.memory_mb),
        }
    }

    /// Of these columns those that some rows have, by their numbers, ascending. `None`: one has not the table's type.
    fn given<'b>(&self, rows: &'b RecordBatch) -> Option<Vec<(usize, &'b ArrayRef)>> {
        let decide = [self.of_type, self.status, self.created_at, self.resources];
        let mut given = Vec::with_capacity(decide.len());
        for number in decide.into_iter().flatten() {
            let column = self.layout.columns.get(number)?;
            if let Some(rows) = rows.column_by_name(column.name()) {
                if rows.data_type() != column.field.data_type() {
                    return None;
                }
                given.push((number, rows));
            }
        }
        given.sort_unstable_by_key(|(number, _)| *number);
        Some(given)
    }

    /// Calls `each` for the pending tasks of a chunk, until it says no; then that is what comes back.
    pub(super) fn each_waiting<'b>(
        &self,
        batch: &'b RecordBatch,
        mut each: impl FnMut(&Waiting<'b>) -> bool,
    ) -> bool {
        let at = |number: Option<usize>| batch.columns().get(number?);
        let text = |number| at(number).and_then(|column| column.as_string_opt::<i32>());
        let Some(ids) = text(Some(self.layout.key)) else {
            return true;
        };
        let statuses = text(self.status);
        let types = text(self.of_type);
        let created_at = at(self.created_at)
            .and_then(|column| column.as_primitive_opt::<TimestampMillisecondType>());
        let resources = at(self.resources).and_then(|column| column.as_struct_opt());
        let need = |name: &str| {
            let column = resources?.column_by_name(name)?;
            column.as_primitive_opt::<Int32Type>()
        };
        let [cpu_cores, gpu_cores, memory_mb] = ["cpu_cores", "gpu_cores", "memory_mb"].map(need);
        let needs_of = |row: usize| {
            let default = Needs::default();
            if resources.is_none_or(|resources| resources.is_null(row)) {
                return default;
            }
            let get = |column: Option<&Int32Array>| {
                let column = column.filter(|column| column.is_valid(row))?;
                Some(i64::from(column.value(row)))
            };
            Needs {
                cpu_cores: get(cpu_cores).unwrap_or(default.cpu_cores),
                gpu_cores: get(gpu_cores).unwrap_or(default.gpu_cores),
                memory_mb: get(memory_mb).unwrap_or(default.memory_mb),
            }
        };
        let value = |column: Option<&'b StringArray>, row: usize| {
            let column = column.filter(|column| column.is_valid(row))?;
            Some(column.value(row))
        };
        for row in 0..batch.num_rows() {
            if !is_pending(value(statuses, row)) {
                continue;
            }
            let created_at = created_at.filter(|column| column.is_valid(row));
            let task = Waiting {
                id: ids.value(row),
                of_type: value(types, row),
                needs: needs_of(row),
                created_at: created_at.map_or(i64::MIN, |column| column.value(row)),
            };
            if !each(&task) {
                return false;
            }
        }
        true
    }
}

/// A task without a status waits too.
pub(super) fn is_pending(status: Option<&str>) -> bool {
    status.is_none_or(|status| status == "pending")
}

struct Parts<'a> {
    of_type: Cell<'a>,
    needs: Needs,
    created_at: i64,
}

impl Parts<'_> {
    fn waiting<'s>(&'s self, id: &'s str) -> Waiting<'s> {
        Waiting {
            id,
            of_type: self.of_type.text(),
            needs: self.needs,
            created_at: self.created_at,
        }
    }
}
