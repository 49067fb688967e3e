//! [`Transaction`] and [`Answer`] from and to JSON.

use serde_json::{Map, Value, json};

use super::parse::{Fields, FormError, object};
use super::{Answer, Condition, Op, OutcomeKind, Target, Transaction};

impl Target {
    /// `nodes`, `tasks`, `content` or `cluster`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Target::Cluster => "cluster",
            Target::Table(table) => table.name(),
        }
    }
}

impl Transaction {
    /// Reads the one JSON object that `bytes` are.
    ///
    /// # Errors
    ///
    /// The first thing that is not of the documented form, and where. Whether tables have the columns that are named,
    /// and of which type, is for the engine to say.
    pub fn from_json(bytes: &[u8]) -> Result<Self, FormError> {
        Self::from_object(object(bytes)?)
    }

    /// The same, of an object that was read already.
    pub fn from_object(fields: Map<String, Value>) -> Result<Self, FormError> {
        let mut fields = Fields::new("the transaction", fields);
        let id = fields.id()?;
        let conditions = fields.optional_list("if")?.into_iter().enumerate();
        let conditions = conditions
            .map(|(number, value)| condition(Fields::of(format!("if[{number}]"), value)?))
            .collect::<Result<_, _>>()?;
        if !fields.has("ops") {
            return Err(fields.missing("ops", "it has to be a list of operations"));
        }
        let ops = fields.optional_list("ops")?.into_iter().enumerate();
        let ops = ops
            .map(|(number, value)| op(Fields::of(format!("ops[{number}]"), value)?))
            .collect::<Result<_, _>>()?;
        fields.end("id, if and ops")?;
        Ok(Self {
            id,
            conditions,
            ops,
        })
    }

    /// As one line of JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut fields = Map::new();
        if let Some(id) = &self.id {
            fields.insert("id".to_owned(), json!(id));
        }
        if !self.conditions.is_empty() {
            let conditions: Vec<Value> = self.conditions.iter().map(condition_to_json).collect();
            fields.insert("if".to_owned(), Value::Array(conditions));
        }
        let ops: Vec<Value> = self.ops.iter().map(op_to_json).collect();
        fields.insert("ops".to_owned(), Value::Array(ops));
        Value::Object(fields).to_string()
    }
}

fn condition(mut fields: Fields) -> Result<Condition, FormError> {
    const ALLOWED: &str =
        "generation alone, or table and key with exists, or table, key, column and equals";
    // What `equals` is compared with may well be null; a condition of another kind has none.
    fields.drop_nulls(&["generation", "table", "key", "exists", "column"]);
    if ["generation", "exists"].iter().any(|kind| fields.has(kind)) {
        fields.drop_nulls(&["equals"]);
    }
    if let Some(generation) = fields.take("generation") {
        let number = generation.as_u64().ok_or_else(|| {
            fields.wrong("generation", &generation, "a generation is a whole number")
        })?;
        fields.end(ALLOWED)?;
        return Ok(Condition::Generation(number));
    }
    let table = fields.target("table")?;
    let key = fields.key_of(table)?;
    let condition = if let Some(exists) = fields.take("exists") {
        let exists = exists
            .as_bool()
            .ok_or_else(|| fields.wrong("exists", &exists, "it has to be true or false"))?;
        Condition::Exists { table, key, exists }
    } else {
        let column = fields.text("column")?;
        let equals = fields.take("equals").ok_or_else(|| {
            fields.missing("equals", "it has to be the column's value, null for none")
        })?;
        Condition::Equals {
            table,
            key,
            column,
            equals,
        }
    };
    fields.end(ALLOWED)?;
    Ok(condition)
}

fn op(mut fields: Fields) -> Result<Op, FormError> {
    fields.drop_nulls(&["put", "patch", "delete", "key", "row", "set"]);
    if fields.has("put") {
        let table = fields.table("put")?;
        let row = fields.object("row")?;
        fields.end("put and row")?;
        Ok(Op::Put { table, row })
    } else if fields.has("patch") {
        let table = fields.target("patch")?;
        let key = fields.key_of(table)?;
        let set = fields.object("set")?;
        fields.end("patch, key and set")?;
        Ok(Op::Patch { table, key, set })
    } else if fields.has("delete") {
        let table = fields.table("delete")?;
        let key = fields.key("key")?;
        fields.end("delete and key")?;
        Ok(Op::Delete { table, key })
    } else {
        Err(FormError::Missing {
            place: fields.place().to_owned(),
            field: "put",
            expected: "an operation has put, patch or delete, with the name of a table",
        })
    }
}

fn condition_to_json(condition: &Condition) -> Value {
    let row = |table: &Target, key: &str| {
        let mut fields = Map::new();
        fields.insert("table".to_owned(), json!(table.name()));
        if !key.is_empty() {
            fields.insert("key".to_owned(), json!(key));
        }
        fields
    };
    Value::Object(match condition {
        Condition::Generation(number) => Map::from_iter([("generation".to_owned(), json!(number))]),
        Condition::Exists { table, key, exists } => {
            let mut fields = row(table, key);
            fields.insert("exists".to_owned(), json!(exists));
            fields
        }
        Condition::Equals {
            table,
            key,
            column,
            equals,
        } => {
            let mut fields = row(table, key);
            fields.insert("column".to_owned(), json!(column));
            fields.insert("equals".to_owned(), equals.clone());
            fields
        }
    })
}

fn op_to_json(op: &Op) -> Value {
    match op {
        Op::Put { table, row } => json!({"put": table.name(), "row": row}),
        Op::Patch { table, key, set } if key.is_empty() => {
            json!({"patch": table.name(), "set": set})
        }
        Op::Patch { table, key, set } => json!({"patch": table.name(), "key": key, "set": set}),
        Op::Delete { table, key } => json!({"delete": table.name(), "key": key}),
    }
}

impl OutcomeKind {
    /// `done`, `refused` or `unknown`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

impl Answer {
    /// Done, as of `generation`.
    #[must_use]
    pub fn done(id: Option<String>, generation: u64) -> Self {
        Self {
            id,
            outcome: OutcomeKind::Done,
            generation: Some(generation),
            reason: None,
            task: None,
        }
    }

    /// Refused, against the state of `generation` if it came so far.
    #[must_use]
    pub fn refused(id: Option<String>, generation: Option<u64>, reason: impl Into<String>) -> Self {
        Self {
            id,
            outcome: OutcomeKind::Refused,
            generation,
            reason: Some(reason.into()),
            task: None,
        }
    }

    /// Not known; `reason` says why.
    #[must_use]
    pub fn unknown(id: Option<String>, reason: impl Into<String>) -> Self {
        Self {
            id,
            outcome: OutcomeKind::Unknown,
            generation: None,
            reason: Some(reason.into()),
            task: None,
        }
    }

    /// As one line of JSON. Fields that say nothing are left out.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut fields = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                fields.insert(name.to_owned(), value);
            }
        };
        set("id", self.id.as_ref().map(|id| json!(id)));
        set("outcome", Some(json!(self.outcome.name())));
        set("generation", self.generation.map(|number| json!(number)));
        set("reason", self.reason.as_ref().map(|reason| json!(reason)));
        set("task", self.task.as_ref().map(|task| json!(task)));
        Value::Object(fields).to_string()
    }

    /// Reads what [`to_json`](Self::to_json) writes. Fields that a later version may add are skipped.
    pub fn from_json(bytes: &[u8]) -> Result<Self, FormError> {
        let mut fields = Fields::new("the answer", object(bytes)?);
        let outcome = fields.text("outcome")?;
        let outcome = [
            OutcomeKind::Done,
            OutcomeKind::Refused,
            OutcomeKind::Unknown,
        ]
        .into_iter()
        .find(|kind| kind.name() == outcome)
        .ok_or_else(|| {
            let found = Value::String(outcome.clone());
            fields.wrong("outcome", &found, "it has to be done, refused or unknown")
        })?;
        let generation = match fields.take_some("generation") {
            None => None,
            Some(value) => Some(value.as_u64().ok_or_else(|| {
                fields.wrong("generation", &value, "a generation is a whole number")
            })?),
        };
        Ok(Self {
            id: fields.optional_text("id")?,
            outcome,
            generation,
            reason: fields.optional_text("reason")?,
            task: fields.optional_text("task")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::TableId;

    const WHOLE: &str = r#"{"id":"x","if":[{"table":"tasks","key":"t1","column":"status","equals":"pending"},{"table":"nodes","key":"n1","exists":true},{"generation":17},{"table":"cluster","column":"master_id","equals":null}],"ops":[{"put":"tasks","row":{"id":"t2","resources":{"cpu_cores":2}}},{"patch":"tasks","key":"t1","set":{"status":"assigned"}},{"patch":"cluster","set":{"master_id":"n1"}},{"delete":"content","key":"c1"}]}"#;

    #[test]
    fn a_transaction_comes_back_as_it_was_written() {
        let read = Transaction::from_json(WHOLE.as_bytes()).unwrap();
        assert_eq!(read.to_json(), WHOLE);
        assert_eq!(read.id.as_deref(), Some("x"));
        assert_eq!(read.conditions.len(), 4);
        let Op::Delete { table, key } = &read.ops[3] else {
            panic!("{:?}", read.ops[3]);
        };
        assert_eq!((*table, key.as_str()), (TableId::Content, "c1"));
    }

    #[test]
    fn what_is_not_of_the_form_is_refused_by_name() {
        let long = format!(r#"{{"id":"{}","ops":[]}}"#, "x".repeat(257));
        for (text, told) in [
            ("", "EOF"),
            ("[]", "it is []"),
            ("{} {}", "trailing"),
            ("{}", "\"ops\""),
            (r#"{"ops":{}}"#, "list"),
            (r#"{"ops":[1]}"#, "ops[0]"),
            (r#"{"ops":[{}]}"#, "put, patch or delete"),
            (r#"{"ops":[],"op":[]}"#, "\"op\""),
            (r#"{"ops":[],"id":7}"#, "id"),
            (r#"{"ops":[],"id":""}"#, "1 to 256"),
            (&long, "1 to 256"),
            (r#"{"ops":[],"ops":[]}"#, "stands twice"),
            (
                r#"{"ops":[{"put":"tasks","row":{"a":1,"a":2}}]}"#,
                "\"a\" stands twice",
            ),
            (r#"{"ops":[{"put":"cluster","row":{}}]}"#, "only be patched"),
            (r#"{"ops":[{"put":"task","row":{}}]}"#, "nodes, tasks"),
            (r#"{"ops":[{"put":"tasks"}]}"#, "\"row\""),
            (r#"{"ops":[{"put":"tasks","row":{},"key":"k"}]}"#, "\"key\""),
            (r#"{"ops":[{"patch":"tasks","set":{}}]}"#, "\"key\""),
            (
                r#"{"ops":[{"patch":"tasks","key":"","set":{}}]}"#,
                "1 to 1024",
            ),
            (r#"{"ops":[{"delete":"tasks","key":null}]}"#, "text"),
            (r#"{"ops":[],"if":[{"generation":-1}]}"#, "whole number"),
            (r#"{"ops":[],"if":[{"generation":1,"key":"k"}]}"#, "\"key\""),
            (
                r#"{"ops":[],"if":[{"table":"tasks","key":"k"}]}"#,
                "\"column\"",
            ),
            (
                r#"{"ops":[],"if":[{"table":"tasks","key":"k","exists":1}]}"#,
                "true or false",
            ),
            (
                r#"{"ops":[],"if":[{"table":"tasks","key":"k","column":"c"}]}"#,
                "\"equals\"",
            ),
            (r#"{"ops":[1e999]}"#, "out of range"),
        ] {
            let error = Transaction::from_json(text.as_bytes()).expect_err(text);
            assert!(error.to_string().contains(told), "{text}: {error}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(Transaction::from_json(deep.as_bytes()).is_err());
    }

    #[test]
    fn null_says_as_much_as_a_field_that_is_left_out() {
        for (with, without) in [
            (r#"{"id":null,"if":null,"ops":[]}"#, r#"{"ops":[]}"#),
            (
                r#"{"ops":[{"put":"tasks","row":{"a":null},"patch":null,"delete":null,"key":null,"set":null}]}"#,
                r#"{"ops":[{"put":"tasks","row":{"a":null}}]}"#,
            ),
            (
                r#"{"ops":[{"put":null,"patch":"cluster","key":null,"set":{},"row":null}]}"#,
                r#"{"ops":[{"patch":"cluster","set":{}}]}"#,
            ),
            (
                r#"{"ops":[{"put":null,"patch":null,"delete":"tasks","key":"k","row":null}]}"#,
                r#"{"ops":[{"delete":"tasks","key":"k"}]}"#,
            ),
            (
                r#"{"if":[{"generation":1,"table":null,"key":null,"exists":null,"column":null,"equals":null}],"ops":[]}"#,
                r#"{"if":[{"generation":1}],"ops":[]}"#,
            ),
            (
                r#"{"if":[{"generation":null,"table":"cluster","key":null,"exists":true,"column":null,"equals":null}],"ops":[]}"#,
                r#"{"if":[{"table":"cluster","exists":true}],"ops":[]}"#,
            ),
            (
                r#"{"if":[{"generation":null,"table":"tasks","key":"k","exists":null,"column":"c","equals":null}],"ops":[]}"#,
                r#"{"if":[{"table":"tasks","key":"k","column":"c","equals":null}],"ops":[]}"#,
            ),
        ] {
            let read = Transaction::from_json(with.as_bytes()).expect(with);
            assert_eq!(
                read,
                Transaction::from_json(without.as_bytes()).expect(without),
                "{with}"
            );
        }
        // What has to be there has to be more than null, and no field is made up.
        for text in [
            r#"{"ops":null}"#,
            r#"{"ops":[{"put":null,"row":{}}]}"#,
            r#"{"ops":[{"put":"tasks","row":null}]}"#,
            r#"{"ops":[{"patch":"tasks","key":null,"set":{}}]}"#,
            r#"{"ops":[{"delete":"tasks","key":"k","colour":null}]}"#,
            r#"{"if":[{"table":"tasks","key":"k","column":"c"}],"ops":[]}"#,
            r#"{"if":[{"table":"tasks","key":"k","column":null,"equals":1}],"ops":[]}"#,
        ] {
            assert!(Transaction::from_json(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn answers_come_back_as_they_were_written() {
        for answer in [
            Answer::done(Some("x".into()), 18),
            Answer::refused(None, Some(3), "no such row"),
            Answer::unknown(Some("x".into()), "the daemon stopped"),
            Answer {
                task: Some("t".into()),
                ..Answer::done(None, 1)
            },
        ] {
            let text = answer.to_json();
            assert_eq!(
                Answer::from_json(text.as_bytes()).unwrap(),
                answer,
                "{text}"
            );
        }
        assert_eq!(
            Answer::done(Some("x".into()), 18).to_json(),
            r#"{"id":"x","outcome":"done","generation":18}"#
        );
        assert!(Answer::from_json(br#"{"outcome":"maybe"}"#).is_err());
    }
}
