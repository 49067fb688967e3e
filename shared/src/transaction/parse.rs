//! JSON bytes to values, strictly: what is not exactly the documented form is refused, by name.
//!
//! serde_json keeps the last of two equal keys; a transaction that names a column twice is a mistake that must not
//! be settled by chance, so objects are read here with a visitor that refuses it.
//!
//! A field that may be left out may be null instead, everywhere: many programs write one for the other.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{MAX_ID_BYTES, MAX_KEY_BYTES, Target};
use crate::schema::TableId;

/// A request that is not of the documented form. Nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormError {
    /// Not JSON, or an object with a key twice, or nested too deeply.
    #[error("not a JSON object: {what}")]
    Json {
        /// What the parser said, with line and column.
        what: String,
    },
    /// A field that must be there is not.
    #[error("{place} has no {field:?}; {expected}")]
    Missing {
        /// Of the request, such as `ops[2]`.
        place: String,
        /// The field.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A field that does not belong there.
    #[error("{place} has a field {field:?} that does not belong there; it can have {allowed}")]
    Unexpected {
        /// Of the request.
        place: String,
        /// The field.
        field: String,
        /// What may be there.
        allowed: &'static str,
    },
    /// A field of the wrong type, or a value that cannot be.
    #[error("{place}.{field} is {found}; {expected}")]
    Value {
        /// Of the request.
        place: String,
        /// The field.
        field: &'static str,
        /// What is there, cut short.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// No action of that name.
    #[error("there is no action {action:?}")]
    Action {
        /// The name.
        action: String,
    },
}

/// Reads one JSON object, without keys that stand twice.
pub fn object(bytes: &[u8]) -> Result<Map<String, Value>, FormError> {
    let json = |error: serde_json::Error| FormError::Json {
        what: error.to_string(),
    };
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict.deserialize(&mut deserializer).map_err(json)?;
    deserializer.end().map_err(json)?;
    match value {
        Value::Object(fields) => Ok(fields),
        other => Err(FormError::Json {
            what: format!("it is {}", shown(&other)),
        }),
    }
}

/// The fields of one object of a request, taken one by one; what is left over is an error.
pub(super) struct Fields {
    place: String,
    fields: Map<String, Value>,
}

impl Fields {
    pub(super) fn new(place: impl Into<String>, fields: Map<String, Value>) -> Self {
        Self {
            place: place.into(),
            fields,
        }
    }

    pub(super) fn of(place: impl Into<String>, value: Value) -> Result<Self, FormError> {
        let place = place.into();
        match value {
            Value::Object(fields) => Ok(Self::new(place, fields)),
            other => Err(FormError::Value {
                place,
                field: "object",
                found: shown(&other),
                expected: "it has to be an object",
            }),
        }
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// A value, null included.
    pub(super) fn take(&mut self, field: &str) -> Option<Value> {
        // The order of what is left over does not matter, and this way is quick.
        self.fields.swap_remove(field)
    }

    /// A value; `None` if it is null or not there.
    pub(super) fn take_some(&mut self, field: &str) -> Option<Value> {
        self.take(field).filter(|value| !value.is_null())
    }

    /// Is it there, and not null?
    pub(super) fn has(&self, field: &str) -> bool {
        self.fields.get(field).is_some_and(|value| !value.is_null())
    }

    /// Drops those of `fields` that are null: they might have been left out.
    pub(super) fn drop_nulls(&mut self, fields: &[&str]) {
        for field in fields {
            if !self.has(field) {
                self.take(field);
            }
        }
    }

    pub(super) fn missing(&self, field: &'static str, expected: &'static str) -> FormError {
        FormError::Missing {
            place: self.place.clone(),
            field,
            expected,
        }
    }

    pub(super) fn wrong(
        &self,
        field: &'static str,
        found: &Value,
        expected: &'static str,
    ) -> FormError {
        FormError::Value {
            place: self.place.clone(),
            field,
            found: shown(found),
            expected,
        }
    }

    /// A text; `None` if the field is null or not there.
    pub(super) fn optional_text(
        &mut self,
        field: &'static str,
    ) -> Result<Option<String>, FormError> {
        match self.take_some(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(field, &other, "it has to be a text")),
        }
    }

    pub(super) fn text(&mut self, field: &'static str) -> Result<String, FormError> {
        self.optional_text(field)?
            .ok_or_else(|| self.missing(field, "it has to be a text"))
    }

    /// The key of a row.
    pub(super) fn key(&mut self, field: &'static str) -> Result<String, FormError> {
        let key = self.text(field)?;
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            return Err(self.wrong(field, &Value::String(key), "a key has 1 to 1024 bytes"));
        }
        Ok(key)
    }

    /// The id of a transaction.
    pub(super) fn id(&mut self) -> Result<Option<String>, FormError> {
        match self.take_some("id") {
            None => Ok(None),
            Some(Value::String(id)) if !id.is_empty() && id.len() <= MAX_ID_BYTES => Ok(Some(id)),
            Some(other) => Err(self.wrong("id", &other, "an id is a text of 1 to 256 bytes")),
        }
    }

    pub(super) fn object(&mut self, field: &'static str) -> Result<Map<String, Value>, FormError> {
        const EXPECTED: &str = "it has to be an object of columns and values";
        match self.take_some(field) {
            None => Err(self.missing(field, EXPECTED)),
            Some(Value::Object(fields)) => Ok(fields),
            Some(other) => Err(self.wrong(field, &other, EXPECTED)),
        }
    }

    pub(super) fn optional_list(&mut self, field: &'static str) -> Result<Vec<Value>, FormError> {
        match self.take_some(field) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => Ok(items),
            Some(other) => Err(self.wrong(field, &other, "it has to be a list")),
        }
    }

    /// A list of texts; empty if the field is not there.
    pub(super) fn texts(&mut self, field: &'static str) -> Result<Vec<String>, FormError> {
        let items = self.optional_list(field)?.into_iter();
        items
            .map(|item| match item {
                Value::String(text) => Ok(text),
                other => Err(self.wrong(field, &other, "it has to be a list of texts")),
            })
            .collect()
    }

    /// A table, or `cluster`.
    pub(super) fn target(&mut self, field: &'static str) -> Result<Target, FormError> {
        let name = self.text(field)?;
        if name == "cluster" {
            return Ok(Target::Cluster);
        }
        TableId::from_name(&name).map(Target::Table).ok_or_else(|| {
            let found = Value::String(name);
            self.wrong(
                field,
                &found,
                "it has to be nodes, tasks, content or cluster",
            )
        })
    }

    /// A table, and not `cluster`, which always has its one row.
    pub(super) fn table(&mut self, field: &'static str) -> Result<TableId, FormError> {
        match self.target(field)? {
            Target::Table(table) => Ok(table),
            Target::Cluster => {
                let found = Value::String("cluster".to_owned());
                Err(self.wrong(field, &found, "the cluster's row can only be patched"))
            }
        }
    }

    /// The key of a row of `target`; the cluster's may be left out.
    pub(super) fn key_of(&mut self, target: Target) -> Result<String, FormError> {
        if target == Target::Cluster && !self.has("key") {
            self.take("key");
            return Ok(String::new());
        }
        self.key("key")
    }

    /// Nothing is left over.
    pub(super) fn end(self, allowed: &'static str) -> Result<(), FormError> {
        match self.fields.into_iter().next() {
            None => Ok(()),
            Some((field, _)) => Err(FormError::Unexpected {
                place: self.place,
                field,
                allowed,
            }),
        }
    }
}

/// A value for a message: whole if short.
fn shown(value: &Value) -> String {
    const MOST: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// As serde_json reads a [`Value`], but a key that stands twice is an error.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        // JSON has no others; serde_json refuses numbers that overflow.
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number that is not finite"))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Strict)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if fields.contains_key(&key) {
                return Err(de::Error::custom(format!("the key {key:?} stands twice")));
            }
            let value = entries.next_value_seed(Strict)?;
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    }
}
