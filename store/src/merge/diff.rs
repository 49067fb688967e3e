//! What a foreign state changed against the base.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{
    Array, ArrayRef, RecordBatch, RecordBatchOptions, StringArray, StructArray, UInt32Array,
    new_null_array,
};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field, FieldRef, Fields, Schema};
use arrow_select::take::take;
use sherwood_shared::schema::TableId;
use sherwood_shared::state::State;

use super::equal::equal;
use super::{MergeError, Theirs};

/// What a foreign state changed: enough to decide, row by row and column by column, against any later state.
#[derive(Debug)]
pub struct Diff {
    pub(super) cluster: Vec<ClusterChange>,
    pub(super) tables: [TableDiff; 3],
}

/// One column of the cluster's row.
#[derive(Debug)]
pub(super) struct ClusterChange {
    pub(super) field: FieldRef,
    pub(super) base: Option<ArrayRef>,
    pub(super) theirs: ArrayRef,
}

/// One table's changes.
#[derive(Debug)]
pub(super) struct TableDiff {
    /// The rows that they changed or made, sorted by key, with the columns that their file has; the key first.
    pub(super) theirs: RecordBatch,
    /// The same rows of the base, in its columns; those that it lacks are null, key and all.
    pub(super) base: RecordBatch,
    /// By row: which columns of `theirs` they changed.
    pub(super) changed: Vec<Mask>,
    /// The base's rows that they deleted.
    pub(super) deleted: RecordBatch,
}

/// A set of columns, by position.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mask(Box<[u64]>);

impl Mask {
    pub(super) fn none(columns: usize) -> Self {
        Self(vec![0; columns.div_ceil(64)].into())
    }
    pub(super) fn set(&mut self, column: usize) {
        if let Some(word) = self.0.get_mut(column / 64) {
            *word |= 1 << (column % 64);
        }
    }
    pub(super) fn has(&self, column: usize) -> bool {
        let word = self.0.get(column / 64).copied().unwrap_or(0);
        word >> (column % 64) & 1 == 1
    }
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
}

impl Diff {
    /// Did they change anything?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cluster.is_empty()
            && self
                .tables
                .iter()
                .all(|table| table.theirs.num_rows() + table.deleted.num_rows() == 0)
    }

    /// Rows of nodes, tasks and content that they changed or made, and that they deleted.
    #[must_use]
    pub fn rows(&self) -> [(usize, usize); 3] {
        let of = |table: &TableDiff| (table.theirs.num_rows(), table.deleted.num_rows());
        [
            of(&self.tables[0]),
            of(&self.tables[1]),
            of(&self.tables[2]),
        ]
    }
}

/// What `theirs` changed against `base`.
///
/// # Errors
///
/// [`MergeError::Type`] (M6) and [`MergeError::Column`].
pub fn diff(base: &State, theirs: &Theirs) -> Result<Diff, MergeError> {
    let table = |id| diff_table(id, base, theirs);
    Ok(Diff {
        cluster: diff_cluster(base, theirs)?,
        tables: [
            table(TableId::Nodes)?,
            table(TableId::Tasks)?,
            table(TableId::Content)?,
        ],
    })
}

fn diff_cluster(base: &State, theirs: &Theirs) -> Result<Vec<ClusterChange>, MergeError> {
    let mut changes = Vec::new();
    let schema = theirs.state.cluster.schema();
    for (field, column) in schema.fields().iter().zip(theirs.state.cluster.columns()) {
        // The id is the same, or the file would be another cluster's.
        let Some((_, own)) = theirs.columns.cluster.find(field.name()) else {
            continue;
        };
        if field.name() == "cluster_id" {
            continue;
        }
        let old = base.cluster.column_by_name(field.name());
        let same_row = UInt32Array::from(vec![0]);
        let column = align(column, own, old, &same_row, "cluster", field.name())?;
        if !equal(Some(&column), old)(0, 0) {
            let field = Field::new(field.name(), column.data_type().clone(), true)
                .with_metadata(field.metadata().clone());
            changes.push(ClusterChange {
                field: Arc::new(field),
                base: old.cloned(),
                theirs: column,
            });
        }
    }
    Ok(changes)
}

fn diff_table(id: TableId, base: &State, theirs: &Theirs) -> Result<TableDiff, MergeError> {
    let old = base.table(id);
    let Some(own) = &theirs.columns.tables[id as usize] else {
        // M1.
        let key = Schema::new(vec![Field::new(id.key(), DataType::Utf8, false)]);
        return Ok(TableDiff {
            theirs: RecordBatch::new_empty(Arc::new(key)),
            base: RecordBatch::new_empty(old.schema()),
            changed: Vec::new(),
            deleted: RecordBatch::new_empty(old.schema()),
        });
    };
    let new = theirs.state.table(id);
    let (base_of, deleted) = join(keys(new), keys(old));

    let schema = new.schema();
    let mut fields: Vec<FieldRef> = vec![Arc::new(Field::new(id.key(), DataType::Utf8, false))];
    let mut columns: Vec<ArrayRef> = Vec::new();
    columns.extend(new.columns().first().cloned());
    for (field, column) in schema.fields().iter().zip(new.columns()).skip(1) {
        let Some((_, own)) = own.find(field.name()) else {
            continue;
        };
        let old = old.column_by_name(field.name());
        // M5: a column that nobody has a value in is none.
        if old.is_none() && column.logical_null_count() == column.len() {
            continue;
        }
        let column = align(column, own, old, &base_of, id.name(), field.name())?;
        let field = Field::new(field.name(), column.data_type().clone(), true)
            .with_metadata(field.metadata().clone());
        fields.push(Arc::new(field));
        columns.push(column);
    }

    let rows = new.num_rows();
    let mut masks = vec![Mask::none(columns.len()); rows];
    for (at, (field, column)) in fields.iter().zip(&columns).enumerate().skip(1) {
        let before = old.column_by_name(field.name());
        // What was not touched at all costs one comparison of buffers.
        if before.is_some_and(|before| {
            deleted.is_empty() && base_of.null_count() == 0 && before == column
        }) {
            continue;
        }
        let same = equal(Some(column), before);
        for (row, mask) in masks.iter_mut().enumerate() {
            if base_of.is_valid(row) && !same(row, base_of.value(row) as usize) {
                mask.set(at);
            }
        }
    }

    let position = |row: usize| u32::try_from(row).unwrap_or(u32::MAX);
    let picked: UInt32Array = (0..rows)
        .filter(|&row| base_of.is_null(row) || !masks[row].is_empty())
        .map(position)
        .collect::<Vec<u32>>()
        .into();
    let changed = picked
        .values()
        .iter()
        .map(|&row| masks[row as usize].clone())
        .collect();
    drop(masks);
    let theirs = batch(id, &fields, &columns, &picked)?;
    let base_rows = take(&base_of, &picked, None).map_err(column_error(id.name(), id.key()))?;
    let nullable: Vec<FieldRef> = old
        .schema()
        .fields()
        .iter()
        .map(|field| Arc::new(field.as_ref().clone().with_nullable(true)))
        .collect();
    let base = batch(id, &nullable, old.columns(), base_rows.as_primitive())?;
    let deleted = batch(id, old.schema().fields(), old.columns(), &deleted.into())?;
    Ok(TableDiff {
        theirs,
        base,
        changed,
        deleted,
    })
}

/// The key column of a table of a state.
pub(super) fn keys(rows: &RecordBatch) -> &StringArray {
    rows.column(0).as_string::<i32>()
}

/// For each key of `new` its row in `old`, and the rows of `old` that `new` lacks. Both are sorted.
fn join(new: &StringArray, old: &StringArray) -> (UInt32Array, Vec<u32>) {
    let mut found: Vec<Option<u32>> = Vec::with_capacity(new.len());
    let mut gone = Vec::new();
    let mut at = 0;
    let position = |row: usize| u32::try_from(row).unwrap_or(u32::MAX);
    for row in 0..new.len() {
        let key = new.value(row).as_bytes();
        let mut same = None;
        while at < old.len() {
            match old.value(at).as_bytes().cmp(key) {
                Ordering::Less => gone.push(position(at)),
                Ordering::Equal => same = Some(position(at)),
                Ordering::Greater => break,
            }
            at += 1;
            if same.is_some() {
                break;
            }
        }
        found.push(same);
    }
    gone.extend((at..old.len()).map(position));
    (found.into(), gone)
}

fn batch(
    id: TableId,
    fields: &[FieldRef],
    columns: &[ArrayRef],
    rows: &UInt32Array,
) -> Result<RecordBatch, MergeError> {
    let mut taken = Vec::with_capacity(columns.len());
    for (field, column) in fields.iter().zip(columns) {
        taken.push(take(column, rows, None).map_err(column_error(id.name(), field.name()))?);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    let schema = Arc::new(Schema::new(Fields::from_iter(fields.iter().cloned())));
    RecordBatch::try_new_with_options(schema, taken, &options)
        .map_err(column_error(id.name(), id.key()))
}

pub(super) fn column_error(
    table: &'static str,
    column: &str,
) -> impl FnOnce(arrow_schema::ArrowError) -> MergeError {
    let column = column.to_owned();
    move |source| MergeError::Column {
        table,
        column,
        source,
    }
}

/// Their column in our type (M6), with the fields that their file lacks as the base has them (M1).
///
/// `own` is the column as their file has it; `base_of` the base's row for each of theirs.
fn align(
    column: &ArrayRef,
    own: &Field,
    base: Option<&ArrayRef>,
    base_of: &UInt32Array,
    table: &'static str,
    name: &str,
) -> Result<ArrayRef, MergeError> {
    let Some(base) = base else {
        return Ok(Arc::clone(column));
    };
    let refused = || MergeError::Type {
        table,
        column: name.to_owned(),
        ours: base.data_type().clone(),
        theirs: own.data_type().clone(),
    };
    match (base.data_type(), column.data_type(), own.data_type()) {
        (DataType::Struct(fields), DataType::Struct(found), own_type) => {
            let (before, now) = (base.as_struct(), column.as_struct());
            let no_fields = Fields::empty();
            // A struct that was inferred without values has no fields, and no values either.
            let own_fields = match own_type {
                DataType::Struct(own) => own,
                _ => &no_fields,
            };
            // A field that we lack has no place in the column's type.
            let strange = found.iter().zip(now.columns()).find(|(field, values)| {
                fields.find(field.name()).is_none() && values.logical_null_count() < values.len()
            });
            if strange.is_some() {
                return Err(refused());
            }
            let mut children = Vec::with_capacity(fields.len());
            for (field, old) in fields.iter().zip(before.columns()) {
                let path = format!("{name}.{}", field.name());
                let theirs = now.column_by_name(field.name());
                let own = own_fields.find(field.name());
                children.push(match (theirs, own) {
                    (Some(theirs), Some((_, own))) => {
                        align(theirs, own, Some(old), base_of, table, &path)?
                    }
                    _ => take(old, base_of, None).map_err(column_error(table, &path))?,
                });
            }
            let made = StructArray::try_new(fields.clone(), children, now.nulls().cloned())
                .map_err(column_error(table, name))?;
            Ok(Arc::new(made))
        }
        (ours, theirs, _) if ours == theirs => Ok(Arc::clone(column)),
        (ours, _, _) if column.logical_null_count() == column.len() => {
            Ok(new_null_array(ours, column.len()))
        }
        (ours, theirs, _) => {
            let options = CastOptions {
                safe: true,
                ..Default::default()
            };
            let cast = |array: &ArrayRef, to: &DataType| cast_with_options(array, to, &options);
            let made = cast(column, ours).map_err(|_| refused())?;
            let back = cast(&made, theirs).map_err(|_| refused())?;
            if &back == column {
                Ok(made)
            } else {
                Err(refused())
            }
        }
    }
}
