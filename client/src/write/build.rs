//! Builders of transactions. They say what JSON says; whether a table has a column, and of which type, is for the
//! daemon to say.

use serde_json::{Map, Value, json};
use sherwood_shared::schema::TableId;
use sherwood_shared::transaction::{self as form, FormError, Op, Target};

use super::row::Row;

/// Operations that apply together, if the conditions hold.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use = "a transaction does nothing before it is applied"]
pub struct Transaction {
    form: form::Transaction,
}

impl Transaction {
    /// Without conditions and operations yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Under this id instead of one made when it is applied. The daemon applies an id once: send the same
    /// transaction with the same id again to learn what became of it.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.form.id = Some(id.into());
        self
    }

    /// Applies only if this holds before the first operation.
    pub fn require(mut self, condition: Condition) -> Self {
        self.form.conditions.push(condition.0);
        self
    }

    /// Makes a row, or replaces it: columns of the document that are left out become null.
    pub fn put(mut self, row: impl Into<Row>) -> Self {
        let Row { table, columns } = row.into();
        self.form.ops.push(Op::Put {
            table,
            row: columns,
        });
        self
    }

    /// Sets some columns of a row that is there.
    pub fn patch(mut self, patch: Patch) -> Self {
        let Patch { table, key, set } = patch;
        self.form.ops.push(Op::Patch { table, key, set });
        self
    }

    /// Deletes a row that is there.
    pub fn delete(mut self, row: Key) -> Self {
        let Key { table, key } = row;
        self.form.ops.push(Op::Delete { table, key });
        self
    }

    /// Reads one JSON object, as docs/transactions.md describes it.
    ///
    /// # Errors
    ///
    /// What is not of that form.
    pub fn from_json(text: &str) -> Result<Self, FormError> {
        form::Transaction::from_json(text.as_bytes()).map(Self::from)
    }

    /// As one line of JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        self.form.to_json()
    }

    /// The same, in the form that all of Sherwood shares.
    #[must_use]
    pub fn form(&self) -> &form::Transaction {
        &self.form
    }

    /// Gives it an id, if it has none, and returns it.
    pub(super) fn identify(&mut self) -> String {
        self.form.id.get_or_insert_with(new_id).clone()
    }
}

impl From<form::Transaction> for Transaction {
    fn from(form: form::Transaction) -> Self {
        Self { form }
    }
}

/// An id that no other client makes.
pub(super) fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// A row of the nodes, by its id.
pub fn nodes(id: impl Into<String>) -> Key {
    Key::of(TableId::Nodes, id)
}

/// A row of the tasks, by its id.
pub fn tasks(id: impl Into<String>) -> Key {
    Key::of(TableId::Tasks, id)
}

/// A row of the content, by its CID.
pub fn content(cid: impl Into<String>) -> Key {
    Key::of(TableId::Content, cid)
}

/// The cluster's one row, which is always there.
pub fn cluster() -> Cluster {
    Cluster
}

/// The state is still of this generation.
pub fn generation(generation: u64) -> Condition {
    Condition(form::Condition::Generation(generation))
}

/// Which row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    table: TableId,
    key: String,
}

impl Key {
    /// The row of `table` with this key.
    pub fn of(table: TableId, key: impl Into<String>) -> Self {
        Self {
            table,
            key: key.into(),
        }
    }

    /// The row is there.
    pub fn exists(self) -> Condition {
        self.existence(true)
    }

    /// The row is not there.
    pub fn is_missing(self) -> Condition {
        self.existence(false)
    }

    fn existence(self, exists: bool) -> Condition {
        let table = Target::Table(self.table);
        let key = self.key;
        Condition(form::Condition::Exists { table, key, exists })
    }

    /// A column of the row; with dots a field of a struct (`resources.cpu_load`).
    pub fn column(self, column: impl Into<String>) -> Column {
        Column {
            table: Target::Table(self.table),
            key: self.key,
            column: column.into(),
        }
    }

    /// A patch of the row that sets this column, and others with [`Patch::set`].
    pub fn set(self, column: impl AsRef<str>, value: impl Into<Value>) -> Patch {
        self.patch().set(column, value)
    }

    /// A patch of the row that sets nothing yet.
    pub fn patch(self) -> Patch {
        Patch {
            table: Target::Table(self.table),
            key: self.key,
            set: Map::new(),
        }
    }
}

/// The cluster's one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cluster;

impl Cluster {
    /// A column of it.
    pub fn column(self, column: impl Into<String>) -> Column {
        Column {
            table: Target::Cluster,
            key: String::new(),
            column: column.into(),
        }
    }

    /// A patch that sets this column, and others with [`Patch::set`].
    pub fn set(self, column: impl AsRef<str>, value: impl Into<Value>) -> Patch {
        self.patch().set(column, value)
    }

    /// A patch that sets nothing yet.
    pub fn patch(self) -> Patch {
        Patch {
            table: Target::Cluster,
            key: String::new(),
            set: Map::new(),
        }
    }
}

/// A column of a row, to be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    table: Target,
    key: String,
    column: String,
}

impl Column {
    /// It has this value. A row that is not there has none, not even null.
    pub fn equals(self, value: impl Into<Value>) -> Condition {
        Condition(form::Condition::Equals {
            table: self.table,
            key: self.key,
            column: self.column,
            equals: value.into(),
        })
    }

    /// The row is there, and the column has no value.
    pub fn is_null(self) -> Condition {
        self.equals(Value::Null)
    }
}

/// What has to hold for a transaction to apply.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a condition does nothing before a transaction requires it"]
pub struct Condition(form::Condition);

/// Columns to set in a row that is there.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a patch does nothing before a transaction has it"]
pub struct Patch {
    table: Target,
    key: String,
    set: Map<String, Value>,
}

impl Patch {
    /// Sets this column too; with dots a field of a struct, whose other fields stay as they are. Of two values
    /// for one column the later counts.
    pub fn set(mut self, column: impl AsRef<str>, value: impl Into<Value>) -> Self {
        set_path(&mut self.set, column.as_ref(), value.into());
        self
    }
}

/// Sets `a.b.c` in nested objects.
pub(super) fn set_path(columns: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            columns.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = columns.entry(first).or_insert_with(|| json!({}));
            if !inner.is_object() {
                *inner = json!({});
            }
            if let Value::Object(inner) = inner {
                set_path(inner, rest, value);
            }
        }
    }
}

/// A transaction or a domain operation, with its id.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Operations that apply together.
    Transaction(Transaction),
    /// What workers, masters and agents do, as one call each.
    Domain {
        /// The request's id; made when it is submitted if there is none.
        id: Option<String>,
        /// The operation.
        op: form::DomainOp,
    },
}

impl Operation {
    /// Its id, made now if need be, and the object that is sent: `{"do": ..., ...body}`.
    pub(super) fn message(self) -> (String, String) {
        match self {
            Self::Transaction(mut transaction) => {
                let id = transaction.identify();
                let body = transaction.to_json();
                // An object is never empty: it has the id at least.
                let rest = body.strip_prefix('{').unwrap_or(&body);
                (id, format!("{{\"do\":\"transaction\",{rest}"))
            }
            Self::Domain { id, op } => {
                let id = id.unwrap_or_else(new_id);
                let mut message = Map::from_iter([("do".to_owned(), json!(op.action()))]);
                message.extend(op.body(Some(&id)));
                (id, Value::Object(message).to_string())
            }
        }
    }
}

impl From<Transaction> for Operation {
    fn from(transaction: Transaction) -> Self {
        Self::Transaction(transaction)
    }
}

impl From<form::DomainOp> for Operation {
    fn from(op: form::DomainOp) -> Self {
        Self::Domain { id: None, op }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write::row::{Task, TaskResources};

    #[test]
    fn a_built_transaction_is_the_documented_json() {
        let built = Transaction::new()
            .id("i")
            .require(tasks("t1").column("status").equals("pending"))
            .require(nodes("n1").exists())
            .require(tasks("t2").is_missing())
            .require(generation(17))
            .put(Task {
                id: "t2".into(),
                status: Some("pending".into()),
                resources: Some(TaskResources {
                    cpu_cores: Some(2),
                    ..TaskResources::default()
                }),
                ..Task::default()
            })
            .patch(
                tasks("t1")
                    .set("status", "assigned")
                    .set("resources.gpu_cores", 1)
                    .set("resources.memory_mb", 2),
            )
            .patch(cluster().set("master_id", "n1"))
            .delete(content("c1"));
        let expected = json!({
            "id": "i",
            "if": [
                {"table": "tasks", "key": "t1", "column": "status", "equals": "pending"},
                {"table": "nodes", "key": "n1", "exists": true},
                {"table": "tasks", "key": "t2", "exists": false},
                {"generation": 17},
            ],
            "ops": [
                {"put": "tasks", "row": {"id": "t2", "status": "pending", "resources": {"cpu_cores": 2}}},
                {"patch": "tasks", "key": "t1",
                 "set": {"status": "assigned", "resources": {"gpu_cores": 1, "memory_mb": 2}}},
                {"patch": "cluster", "set": {"master_id": "n1"}},
                {"delete": "content", "key": "c1"},
            ],
        });
        let found: Value = serde_json::from_str(&built.to_json()).expect("JSON");
        assert_eq!(found, expected);
        assert_eq!(Transaction::from_json(&built.to_json()), Ok(built));
    }

    #[test]
    fn every_message_names_what_to_do_and_has_an_id() {
        let (id, message) = Operation::from(Transaction::new().delete(tasks("t"))).message();
        let message: Value = serde_json::from_str(&message).expect(&message);
        assert_eq!(message["do"], "transaction");
        assert_eq!(message["id"], json!(id));
        assert_eq!(message["ops"], json!([{"delete": "tasks", "key": "t"}]));
        let op = form::DomainOp::Start { task: "t".into() };
        let (id, message) = Operation::Domain {
            id: Some("mine".into()),
            op,
        }
        .message();
        assert_eq!(id, "mine");
        assert_eq!(message, r#"{"do":"start","id":"mine","task":"t"}"#);
    }

    #[test]
    fn a_field_of_what_was_no_struct_replaces_it_and_the_later_value_counts() {
        let mut columns = Map::new();
        set_path(&mut columns, "a", json!(1));
        set_path(&mut columns, "a.b.c", json!(2));
        set_path(&mut columns, "a.b.d", json!(3));
        set_path(&mut columns, "a.b.c", json!(4));
        assert_eq!(
            Value::Object(columns),
            json!({"a": {"b": {"c": 4, "d": 3}}})
        );
    }
}
