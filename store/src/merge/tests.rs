//! The merge against a model of maps, and the cases that have names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Fields, Schema};
use sherwood_client::Snapshot;
use sherwood_client::import::{FileColumns, read_parquet_columns, to_parquet_bytes};
use sherwood_shared::schema::{TableId, table_schema};
use sherwood_shared::state::State;

use super::*;
use crate::apply::apply;

/// A row: its columns that are not null.
type Row = BTreeMap<&'static str, String>;
type Rows = BTreeMap<String, Row>;

/// Known columns and some of others.
const COLUMNS: [&str; 5] = ["role", "status", "address", "rack", "zone"];

#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    rows: Rows,
    cluster: Row,
}

/// A generator that says what it made when a test fails.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
    fn value(&mut self) -> Option<String> {
        let value = self.below(4);
        (value > 0).then(|| value.to_string())
    }
    fn edit(&mut self, model: &mut Model) {
        for _ in 0..self.below(8) {
            let key = format!("k{}", self.below(6));
            match self.below(4) {
                0 => drop(model.rows.remove(&key)),
                1 => drop(model.rows.entry(key).or_default()),
                _ => {
                    let column =
                        COLUMNS[usize::try_from(self.below(COLUMNS.len() as u64)).unwrap()];
                    let value = self.value();
                    if let Some(row) = model.rows.get_mut(&key) {
                        set(row, column, value);
                    }
                }
            }
        }
        if self.below(3) == 0 {
            let column = ["master_id", "region"][usize::try_from(self.below(2)).unwrap()];
            let value = self.value();
            set(&mut model.cluster, column, value);
        }
    }
}

fn set(row: &mut Row, column: &'static str, value: Option<String>) {
    match value {
        Some(value) => drop(row.insert(column, value)),
        None => drop(row.remove(column)),
    }
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))
        .unwrap()
}

fn text<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

/// The state of a model, with the columns that it needs and those of `more`.
fn state(model: &Model, more: &[&'static str]) -> State {
    let mut cluster = vec![("cluster_id", text([Some("c")].into_iter()))];
    for column in ["master_id", "region"] {
        let value = model.cluster.get(column).map(String::as_str);
        if value.is_some() || more.contains(&column) {
            cluster.push((column, text([value].into_iter())));
        }
    }
    let mut nodes = vec![("id", text(model.rows.keys().map(|key| Some(key.as_str()))))];
    for column in COLUMNS {
        let values = || {
            model
                .rows
                .values()
                .map(|row| row.get(column).map(String::as_str))
        };
        if values().any(|value| value.is_some()) || more.contains(&column) {
            nodes.push((column, text(values())));
        }
    }
    let empty = |id| RecordBatch::new_empty(table_schema(id));
    let tables = [batch(nodes), empty(TableId::Tasks), empty(TableId::Content)];
    State::new(batch(cluster), tables).unwrap()
}

/// A model of a state, whatever columns it has.
fn model(state: &State) -> Model {
    let row_of = |batch: &RecordBatch, at: usize| {
        let mut row = Row::new();
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()).skip(1) {
            let name = COLUMNS
                .iter()
                .chain(&["master_id", "region"])
                .find(|name| *name == field.name());
            if let (Some(name), Some(values)) =
                (name, column.as_any().downcast_ref::<StringArray>())
                && values.is_valid(at)
            {
                row.insert(*name, values.value(at).to_owned());
            }
        }
        row
    };
    let nodes = state.table(TableId::Nodes);
    let keys = nodes
        .column(0)
        .as_any()
        .downcast_ref::<StringArray>()
        .unwrap();
    Model {
        rows: (0..keys.len())
            .map(|at| (keys.value(at).to_owned(), row_of(nodes, at)))
            .collect(),
        cluster: row_of(&state.cluster, 0),
    }
}

/// M1 to M5, on maps.
fn expected(
    base: &Model,
    theirs: &Model,
    ours: &Model,
    has: &BTreeSet<&str>,
    has_table: bool,
) -> Model {
    let mut merged = ours.clone();
    let three = |base: &Row, theirs: &Row, ours: &mut Row| {
        for column in COLUMNS.iter().chain(&["master_id", "region"]) {
            if has.contains(column)
                && base.get(column) != theirs.get(column)
                && base.get(column) == ours.get(column)
            {
                set(ours, column, theirs.get(column).cloned());
            }
        }
    };
    three(&base.cluster, &theirs.cluster, &mut merged.cluster);
    if !has_table {
        return merged;
    }
    let keys: BTreeSet<&String> = base.rows.keys().chain(theirs.rows.keys()).collect();
    for key in keys {
        match (
            base.rows.get(key),
            theirs.rows.get(key),
            merged.rows.get_mut(key),
        ) {
            (Some(base), Some(theirs), Some(ours)) => three(base, theirs, ours),
            (None, Some(theirs), None) => {
                let row = theirs.iter().filter(|(column, _)| has.contains(*column));
                let row = row
                    .map(|(column, value)| (*column, value.clone()))
                    .collect();
                merged.rows.insert(key.clone(), row);
            }
            (Some(base), None, Some(ours)) if base == ours => drop(merged.rows.remove(key)),
            _ => {}
        }
    }
    merged
}

fn columns(has: &BTreeSet<&str>, has_table: bool) -> FileColumns {
    let field = |name: &str| Field::new(name, DataType::Utf8, true);
    let of = |names: &[&str]| -> Fields {
        names
            .iter()
            .filter(|name| has.contains(**name))
            .map(|name| field(name))
            .collect()
    };
    let mut nodes = vec![field("id")];
    nodes.extend(of(&COLUMNS).iter().map(|field| field.as_ref().clone()));
    FileColumns {
        cluster: of(&["master_id", "region"]),
        tables: [has_table.then(|| nodes.into()), None, None],
    }
}

#[test]
fn a_merge_is_what_the_model_of_maps_says_and_merging_again_changes_nothing() {
    let (mut changed, mut deleted, mut kept) = (0, 0, 0);
    for seed in 0..6_000 {
        let mut random = Random(seed);
        let mut base = Model::default();
        for _ in 0..3 {
            random.edit(&mut base);
        }
        let (mut theirs, mut ours) = (base.clone(), base.clone());
        random.edit(&mut theirs);
        random.edit(&mut ours);
        let mut has: BTreeSet<&'static str> = COLUMNS
            .iter()
            .chain(&["master_id", "region"])
            .copied()
            .collect();
        has.retain(|_| random.below(6) > 0);
        let has_table = random.below(8) > 0;
        // What their file lacks reads as null.
        let mut read = theirs.clone();
        read.cluster.retain(|column, _| has.contains(column));
        read.rows
            .values_mut()
            .for_each(|row| row.retain(|column, _| has.contains(column)));
        if !has_table {
            read.rows.clear();
        }
        let more: Vec<&'static str> = COLUMNS
            .iter()
            .copied()
            .filter(|_| random.below(2) == 0)
            .collect();
        let theirs = Theirs {
            state: state(&read, &has.iter().copied().collect::<Vec<_>>()),
            columns: columns(&has, has_table),
        };
        let base_state = state(&base, &more);
        let mut current = state(&ours, &[]);
        let before = model(&current);
        let diff = diff(&base_state, &theirs).unwrap();
        let effects = resolve(&diff, &Snapshot::from_state(&current).unwrap()).unwrap();
        apply(&effects, &mut current).unwrap();
        let wanted = expected(&base, &read, &ours, &has, has_table);
        assert_eq!(
            model(&current),
            wanted,
            "seed {seed}: base {base:?}, theirs {read:?} with {has:?} (table: {has_table}), ours {ours:?}"
        );
        let again = resolve(&diff, &Snapshot::from_state(&current).unwrap()).unwrap();
        let mut twice = current.clone();
        apply(&again, &mut twice).unwrap();
        assert_eq!(model(&twice), wanted, "seed {seed}, merged again");
        changed += usize::from(wanted != before);
        deleted += usize::from(wanted.rows.len() < before.rows.len());
        kept += usize::from(wanted != read);
    }
    assert!(
        changed > 2_000 && deleted > 200 && kept > 1_000,
        "{changed}, {deleted}, {kept}: too few cases of a kind"
    );
}

fn merged(base: &State, theirs: &Theirs, ours: &State) -> Result<State, MergeError> {
    let effects = resolve(&diff(base, theirs)?, &Snapshot::from_state(ours).unwrap())?;
    let mut ours = ours.clone();
    apply(&effects, &mut ours).unwrap();
    Ok(ours)
}

fn nodes(columns: Vec<(&str, ArrayRef)>) -> State {
    let empty = |id| RecordBatch::new_empty(table_schema(id));
    let tables = [
        batch(columns),
        empty(TableId::Tasks),
        empty(TableId::Content),
    ];
    State::new(State::empty("c").cluster, tables).unwrap()
}

fn all_of(state: &State) -> Theirs {
    let (state, columns) =
        read_parquet_columns(to_parquet_bytes(state).unwrap(), Path::new("f"), None).unwrap();
    Theirs { state, columns }
}

#[test]
fn what_was_read_from_our_own_file_is_no_change() {
    let state = crate::checkpoint::tests::state(5);
    let diff = diff(&state, &all_of(&state)).unwrap();
    assert!(diff.is_empty(), "{diff:?}");
}

#[test]
fn a_field_of_a_struct_that_their_file_lacks_keeps_its_values() {
    let resources = |fields: Vec<(&str, ArrayRef)>| -> ArrayRef {
        let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = fields
            .into_iter()
            .map(|(n, a)| (Field::new(n, a.data_type().clone(), true), a))
            .unzip();
        Arc::new(arrow_array::StructArray::new(fields.into(), arrays, None))
    };
    let ints = |value: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![value])) };
    let id = || text([Some("n")].into_iter());
    let base = nodes(vec![
        ("id", id()),
        (
            "resources",
            resources(vec![("memory_total", ints(5)), ("disk_total", ints(6))]),
        ),
    ]);
    let theirs = nodes(vec![
        ("id", id()),
        ("resources", resources(vec![("memory_total", ints(7))])),
    ]);
    let schema = Schema::new(vec![Field::new("memory_total", DataType::Int64, true)]);
    let own = Field::new("resources", DataType::Struct(schema.fields().clone()), true);
    let theirs = Theirs {
        state: theirs,
        columns: FileColumns {
            cluster: Fields::empty(),
            tables: [Some(vec![own].into()), None, None],
        },
    };
    let wanted = nodes(vec![
        ("id", id()),
        (
            "resources",
            resources(vec![("memory_total", ints(7)), ("disk_total", ints(6))]),
        ),
    ]);
    assert_eq!(merged(&base, &theirs, &base).unwrap(), wanted);
}

#[test]
fn a_column_of_another_type_is_converted_if_no_value_changes_and_else_refused_by_name() {
    let id = || text([Some("a"), Some("b")].into_iter());
    let base = nodes(vec![
        ("id", id()),
        ("rank", Arc::new(Int32Array::from(vec![1, 2]))),
    ]);
    let theirs = |rank: ArrayRef| all_of(&nodes(vec![("id", id()), ("rank", rank)]));
    let wide = theirs(Arc::new(Int64Array::from(vec![1, 3])));
    let wanted = nodes(vec![
        ("id", id()),
        ("rank", Arc::new(Int32Array::from(vec![1, 3]))),
    ]);
    assert_eq!(merged(&base, &wide, &base).unwrap(), wanted);
    for bad in [
        Arc::new(Int64Array::from(vec![1, 1 << 40])) as ArrayRef,
        text([Some("1"), Some("two")].into_iter()),
    ] {
        let error = merged(&base, &theirs(bad), &base).expect_err("a value that does not fit");
        assert!(
            matches!(error, MergeError::Type { table: "nodes", .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains("rank"), "{error}");
    }
}
