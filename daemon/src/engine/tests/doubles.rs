//! Ends that live in memory, and fail when they are told to.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch, StringArray};
use arrow_select::interleave::interleave;
use serde_json::{Value, json};
use sherwood_client::{ReadError, Snapshot};
use sherwood_shared::schema::TableId;
use sherwood_shared::state::State;
use sherwood_shared::transaction::{Answer, Transaction};
use sherwood_store::{Effects, Entry, Outcome};

use super::super::*;

/// A publisher of a state on the heap.
#[derive(Debug)]
pub(super) struct Heap {
    pub(super) state: State,
    pub(super) snapshot: Snapshot,
    pub(super) generation: u64,
    /// Fails for the effects that it says yes to.
    pub(super) fails: fn(&Effects) -> bool,
    /// What the failure is.
    pub(super) with: fn(BoxError) -> StageError,
    /// Another has its place.
    pub(super) is_lost: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("this cannot be staged")]
pub(super) struct NotStaged;

impl Stage for Heap {
    type Staged = State;

    fn stage(&mut self, effects: &Effects) -> Result<Option<State>, StageError> {
        self.may_log()?;
        if (self.fails)(effects) {
            return Err((self.with)(NotStaged.into()));
        }
        let next = apply(&self.state, effects);
        let mut stored = self.state.clone();
        sherwood_store::apply(effects, &mut stored).expect("effects that fit");
        assert_eq!(stored, next, "the store applies {effects:?} otherwise");
        Ok(Some(next))
    }
    fn may_log(&mut self) -> Result<(), StageError> {
        match self.is_lost {
            true => Err(StageError::Lost("another is here".into())),
            false => Ok(()),
        }
    }
    fn staged_generation(&self, _: &State) -> u64 {
        self.generation + 1
    }
    fn commit(&mut self, staged: State) {
        self.snapshot = Snapshot::from_state(&staged).expect("a state");
        self.state = staged;
        self.generation += 1;
    }
    fn abandon(&mut self, _: State) {}
    fn snapshot(&mut self) -> Result<Snapshot, ReadError> {
        Ok(self.snapshot.clone())
    }
    fn generation(&self) -> u64 {
        self.generation
    }
}

/// What effects mean, row by row.
pub(super) fn apply(state: &State, effects: &Effects) -> State {
    let mut next = state.clone();
    if let Some(cluster) = &effects.cluster {
        assert_eq!(cluster.schema(), state.cluster.schema());
        next.cluster = cluster.clone();
    }
    for table in TableId::ALL {
        let old = &state.tables[table as usize];
        let changes = &effects.tables[table as usize];
        let mut seen: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for (number, batch) in changes.upserts.iter().enumerate() {
            assert_eq!(batch.schema().field(0).name(), table.key());
            let keys: Vec<&str> = batch
                .column(0)
                .as_string::<i32>()
                .iter()
                .map(|key| key.expect("a key"))
                .collect();
            assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
            for (row, key) in keys.into_iter().enumerate() {
                assert!(
                    seen.insert(key.to_owned(), (number + 1, row)).is_none(),
                    "{key} twice"
                );
            }
        }
        assert!(
            changes.delete.is_sorted_by(|a, b| a < b),
            "{:?}",
            changes.delete
        );
        assert!(changes.delete.iter().all(|key| !seen.contains_key(key)));
        let keys = old
            .column_by_name(table.key())
            .expect("a key")
            .as_string::<i32>();
        let old_rows: HashMap<&str, usize> = keys
            .iter()
            .enumerate()
            .map(|(row, key)| (key.expect("a key"), row))
            .collect();
        let mut all: Vec<String> = old_rows
            .keys()
            .map(|key| (*key).to_owned())
            .chain(seen.keys().cloned())
            .collect();
        all.sort();
        all.dedup();
        all.retain(|key| !changes.delete.contains(key));
        let schema = old.schema();
        let columns = schema
            .fields()
            .iter()
            .zip(old.columns())
            .map(|(field, column)| {
                let null = arrow_array::new_null_array(field.data_type(), 1);
                let mut arrays: Vec<&dyn Array> = vec![null.as_ref(), column.as_ref()];
                let mut at: Vec<Option<usize>> = Vec::new();
                for batch in &changes.upserts {
                    at.push(batch.column_by_name(field.name()).map(|column| {
                        assert_eq!(column.data_type(), field.data_type());
                        arrays.push(column.as_ref());
                        arrays.len() - 1
                    }));
                }
                let places: Vec<(usize, usize)> = all
                    .iter()
                    .map(|key| {
                        let new = seen
                            .get(key)
                            .and_then(|&(number, row)| Some((at[number - 1]?, row)));
                        new.or_else(|| Some((1, *old_rows.get(key.as_str())?)))
                            .unwrap_or((0, 0))
                    })
                    .collect();
                match places.is_empty() {
                    true => arrow_array::new_empty_array(field.data_type()),
                    false => interleave(&arrays, &places).expect("one type"),
                }
            });
        next.tables[table as usize] =
            RecordBatch::try_new(old.schema(), columns.collect()).expect("the table");
    }
    let made = State::new(next.cluster.clone(), next.tables.clone()).expect("a state");
    assert_eq!(made, next);
    made
}

/// A log in memory.
#[derive(Debug)]
pub(super) struct Pages {
    pub(super) entries: Vec<Entry>,
    /// Does not take the entries that it says yes to.
    pub(super) refuses: fn(&Entry) -> bool,
    pub(super) fail: Option<fn() -> JournalError>,
}

impl Journal for Pages {
    fn append(&mut self, entry: &Entry) -> Result<(), JournalError> {
        assert_eq!(entry.sequence, self.next_sequence());
        if let Some(fail) = self.fail {
            return Err(fail());
        }
        if (self.refuses)(entry) {
            return Err(JournalError::Refused("too large".into()));
        }
        self.entries.push(entry.clone());
        Ok(())
    }
    fn next_sequence(&self) -> u64 {
        self.entries.len() as u64 + 1
    }
}

/// Every id, for ever.
#[derive(Debug, Default)]
pub(super) struct Ids(HashMap<Arc<str>, Outcome>);

impl Remember for Ids {
    fn find(&self, id: &str) -> Option<Outcome> {
        self.0.get(id).cloned()
    }
    fn remember(&mut self, entry: &Entry) {
        for outcome in &entry.outcomes {
            let before = self.0.insert(Arc::clone(&outcome.id), outcome.clone());
            assert!(before.is_none(), "{} was judged twice", outcome.id);
        }
    }
}

pub(super) type TestEngine = Engine<Heap, Pages, Ids>;

/// The time at which the first group is committed; the others follow by a millisecond each.
pub(super) const START_MS: i64 = 1_000_000;

pub(super) fn engine(state: State) -> TestEngine {
    let heap = Heap {
        snapshot: Snapshot::from_state(&state).expect("a state"),
        state,
        generation: 1,
        fails: |_| false,
        with: StageError::Effects,
        is_lost: false,
    };
    let pages = Pages {
        entries: Vec::new(),
        refuses: |_| false,
        fail: None,
    };
    let now = Mutex::new(START_MS);
    let clock = move || {
        let mut now = now.lock().expect("no panic");
        *now += 1;
        *now - 1
    };
    Engine::new(heap, pages, Ids::default(), Arc::new(clock))
}

/// An engine whose clock stands.
pub(super) fn engine_at(state: State, now_ms: i64) -> TestEngine {
    let mut engine = engine(state);
    engine.clock = Arc::new(move || now_ms);
    engine
}

/// A state whose tasks have a column and a field of a struct that others brought.
pub(super) fn with_strange_columns() -> State {
    use arrow_schema::{DataType, Field, Fields, Schema};
    let mut state = State::empty("c");
    let tasks = state.tables[TableId::Tasks as usize].schema();
    let mut fields: Vec<Field> = tasks
        .fields()
        .iter()
        .map(|field| field.as_ref().clone())
        .collect();
    let resources = fields
        .iter_mut()
        .find(|field| field.name() == "resources")
        .expect("resources");
    if let DataType::Struct(old) = resources.data_type().clone() {
        let strange = Arc::new(Field::new("x_quota", DataType::Int64, true));
        let all: Fields = old.iter().cloned().chain([strange]).collect();
        resources.set_data_type(DataType::Struct(all));
    }
    fields.push(Field::new("x_note", DataType::Utf8, true));
    state.tables[TableId::Tasks as usize] = RecordBatch::new_empty(Arc::new(Schema::new(fields)));
    state
}

pub(super) fn transaction(text: &Value) -> Request {
    Request::Transaction(
        Transaction::from_json(text.to_string().as_bytes()).expect("a transaction"),
    )
}

pub(super) fn domain(action: &str, body: &Value) -> Request {
    let (id, op) =
        sherwood_shared::transaction::DomainOp::from_json(action, body.to_string().as_bytes())
            .expect("a domain operation");
    Request::Domain { id, op }
}

/// Submits a group and waits for its answers.
pub(super) fn submit<P: Stage, J: Journal, R: Remember>(
    engine: &mut Engine<P, J, R>,
    group: Vec<Request>,
) -> Result<Vec<Answer>, (Fatal, Vec<Answer>)> {
    let answers: Arc<Mutex<Vec<Option<Answer>>>> = Arc::new(Mutex::new(vec![None; group.len()]));
    let group = group.into_iter().enumerate().map(|(place, request)| {
        let answers = Arc::clone(&answers);
        let reply = move |answer| {
            let before = answers.lock().expect("no panic")[place].replace(answer);
            assert_eq!(before, None, "answered twice");
        };
        Submission {
            request,
            reply: Box::new(reply),
        }
    });
    let done = engine.commit(group.collect());
    let answers = answers.lock().expect("no panic").clone();
    let answers: Vec<Answer> = answers
        .into_iter()
        .map(|answer| answer.expect("an answer to each"))
        .collect();
    match done {
        Ok(_) => Ok(answers),
        Err(fatal) => Err((fatal, answers)),
    }
}

pub(super) fn one(engine: &mut TestEngine, request: Request) -> Answer {
    submit(engine, vec![request]).expect("not fatal").remove(0)
}

/// The rows of a table as JSON, by key. Nulls are left out.
pub(super) fn rows(engine: &TestEngine, table: TableId) -> BTreeMap<String, Value> {
    rows_of(&engine.publisher.state, table)
}

/// The same of a state.
pub(super) fn rows_of(state: &State, table: TableId) -> BTreeMap<String, Value> {
    let batch = state.table(table);
    let keys: &StringArray = batch.column_by_name(table.key()).expect("keys").as_string();
    (0..batch.num_rows())
        .map(|row| (keys.value(row).to_owned(), json_row(batch, row)))
        .collect()
}

pub(super) fn cluster(engine: &TestEngine) -> Value {
    json_row(&engine.publisher.state.cluster, 0)
}

fn json_row(batch: &RecordBatch, row: usize) -> Value {
    let fields = batch.schema();
    let columns = fields.fields().iter().zip(batch.columns());
    let values = columns.map(|(field, column)| (field.name().clone(), json_value(column, row)));
    Value::Object(values.filter(|(_, value)| !value.is_null()).collect())
}

fn json_value(array: &arrow_array::ArrayRef, row: usize) -> Value {
    use arrow_array::types::*;
    use arrow_schema::DataType;
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Utf8 => json!(array.as_string::<i32>().value(row)),
        DataType::Int32 => json!(array.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => json!(array.as_primitive::<Int64Type>().value(row)),
        DataType::Float32 => number(array.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => number(array.as_primitive::<Float64Type>().value(row)),
        DataType::Boolean => json!(array.as_boolean().value(row)),
        DataType::Timestamp(..) => {
            json!(array.as_primitive::<TimestampMillisecondType>().value(row))
        }
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            (0..items.len())
                .map(|item| json_value(&items, item))
                .collect()
        }
        DataType::Struct(fields) => {
            let columns = fields.iter().zip(array.as_struct().columns());
            let values =
                columns.map(|(field, column)| (field.name().clone(), json_value(column, row)));
            Value::Object(values.filter(|(_, value)| !value.is_null()).collect())
        }
        other => json!(format!("{other}")),
    }
}

/// Whole numbers as integers: JSON writes them so.
fn number(float: f64) -> Value {
    let whole = format!("{float:.0}").parse::<i64>().ok();
    match whole.filter(|_| float.fract() == 0.0) {
        Some(whole) => json!(whole),
        None => json!(float),
    }
}
