//! The state's schema: the document's, field for field, and what later versions added.
//!
//! A state has two forms. In Parquet it is the **document**: one row, whose columns `nodes`, `tasks` and
//! `content` are lists of structs ([`document_schema`]). In memory it is four **flat tables**: `cluster` (always
//! one row, [`cluster_schema`]) and one table for each of the lists, one row per entity ([`table_schema`]). The
//! module [`crate::document`] converts between the two.
//!
//! Versions, each a superset of the one before ([`SCHEMA_VERSION`] is the newest):
//!
//! - **1** is the document's schema, exactly.
//! - **2** adds fields of nodes and tasks ([`added_fields`]). All are nullable, and a column without a single
//!   value is the same thing as no column.
//!
//! A writer stamps a file with the lowest version that describes it, so an older Sherwood refuses only what it
//! cannot understand. Columns that no version knows are not a matter of versions: they are carried through.
//!
//! Types in memory are the document's: `utf8`, `int32`, `int64`, `float32`, `bool`, `timestamp(ms)` without a
//! zone (always UTC), `list<item: utf8>`, and structs of those. Everything is nullable but the keys.

use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};

/// The newest schema version this code knows: what it can read, and the highest it writes.
pub const SCHEMA_VERSION: u32 = 2;

/// One of the three keyed tables of a state. `cluster`, the fourth, is always one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TableId {
    /// Keyed by `id`.
    Nodes = 0,
    /// Keyed by `id`.
    Tasks = 1,
    /// Keyed by `cid`.
    Content = 2,
}

impl TableId {
    /// In the order of the document.
    pub const ALL: [TableId; 3] = [TableId::Nodes, TableId::Tasks, TableId::Content];

    /// `nodes`, `tasks`, `content`: the table's name, and the document's list column.
    pub fn name(self) -> &'static str {
        ["nodes", "tasks", "content"][self as usize]
    }

    /// The column that rows are sorted by and looked up with.
    pub fn key(self) -> &'static str {
        ["id", "id", "cid"][self as usize]
    }

    /// The table with this [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<TableId> {
        Self::ALL.into_iter().find(|table| table.name() == name)
    }
}

/// A state written by a newer Sherwood, which this one must not interpret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it has schema version {found}, and this Sherwood understands versions up to {SCHEMA_VERSION}: \
     upgrade Sherwood on this host"
)]
pub struct NewerSchema {
    /// The version the state was written with.
    pub found: u32,
}

/// Refuses a version that this code does not know.
///
/// # Errors
///
/// [`NewerSchema`] if `version` is above [`SCHEMA_VERSION`].
pub fn check_version(version: u32) -> Result<(), NewerSchema> {
    if version > SCHEMA_VERSION {
        Err(NewerSchema { found: version })
    } else {
        Ok(())
    }
}

/// Version 1 of the document: what `state_<cluster_id>.parquet` has always looked like.
///
/// Equal, names of list items included, to the schema as `pyarrow` builds it from the document's text.
pub fn document_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let mut fields = cluster_fields(true);
        for table in TableId::ALL {
            fields.push(document_field(table, document_fields(table).into()));
        }
        Arc::new(Schema::new(fields))
    });
    Arc::clone(&SCHEMA)
}

/// The `cluster` table: `cluster_id` (never null), `master_id`, `updated_at`.
pub fn cluster_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> =
        LazyLock::new(|| Arc::new(Schema::new(cluster_fields(false))));
    Arc::clone(&SCHEMA)
}

/// A table in the current version: the document's fields in its order, then the added ones. The key comes first
/// and is the only column that is never null.
pub fn table_schema(table: TableId) -> SchemaRef {
    static SCHEMAS: LazyLock<[SchemaRef; 3]> = LazyLock::new(|| {
        TableId::ALL.map(|table| {
            let mut fields = document_fields(table);
            fields[0] = fields[0].clone().with_nullable(false);
            fields.extend(added_fields(table));
            Arc::new(Schema::new(fields))
        })
    });
    Arc::clone(&SCHEMAS[table as usize])
}

/// What version 2 added to a table, in order. Nothing needs them, and each answers a question that the document's
/// own helpers or dashboards ask and version 1 cannot answer:
///
/// | table | field | type | why |
/// |---|---|---|---|
/// | nodes | `address` | utf8 | where to reach the node (a multiaddr or `host:port`) |
/// | nodes | `last_seen` | timestamp(ms) | whether `online` is still true |
/// | tasks | `started_at` | timestamp(ms) | how long it has run, and how long such tasks take |
/// | tasks | `completed_at` | timestamp(ms) | the same; set for failed tasks too |
/// | tasks | `error` | utf8 | why it failed |
/// | tasks | `priority` | int32 | which pending task goes first: the highest; null counts as 0 |
/// | tasks | `progress` | float32 | the part done, 0 to 1, as its worker reports it |
pub fn added_fields(table: TableId) -> Vec<Field> {
    match table {
        TableId::Nodes => vec![utf8("address"), timestamp("last_seen")],
        TableId::Tasks => vec![
            timestamp("started_at"),
            timestamp("completed_at"),
            utf8("error"),
            int32("priority"),
            Field::new("progress", DataType::Float32, true),
        ],
        TableId::Content => vec![],
    }
}

/// The document's column for a table: a nullable list of nullable structs.
pub(crate) fn document_field(table: TableId, fields: Fields) -> Field {
    Field::new(table.name(), DataType::List(document_item(fields)), true)
}

/// The item of that list.
pub(crate) fn document_item(fields: Fields) -> FieldRef {
    Arc::new(Field::new_list_field(DataType::Struct(fields), true))
}

/// A timestamp, as everywhere in a state: milliseconds since the epoch, UTC, without a zone in the type.
pub(crate) const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

fn cluster_fields(id_nullable: bool) -> Vec<Field> {
    vec![
        utf8("cluster_id").with_nullable(id_nullable),
        utf8("master_id"),
        timestamp("updated_at"),
    ]
}

/// Version 1's fields of a table, all nullable as in the document.
fn document_fields(table: TableId) -> Vec<Field> {
    match table {
        TableId::Nodes => vec![
            utf8("id"),
            utf8("role"),
            utf8("status"),
            utf8_list("peers"),
            utf8_list("capabilities"),
            structure(
                "resources",
                vec![
                    int32("cpu_count"),
                    Field::new("cpu_load", DataType::Float32, true),
                    int32("gpu_count"),
                    boolean("gpu_available"),
                    int64("memory_total"),
                    int64("memory_available"),
                    int64("disk_total"),
                    int64("disk_available"),
                ],
            ),
        ],
        TableId::Tasks => vec![
            utf8("id"),
            utf8("type"),
            utf8("status"),
            timestamp("created_at"),
            timestamp("updated_at"),
            utf8("assigned_to"),
            structure(
                "resources",
                vec![int32("cpu_cores"), int32("gpu_cores"), int32("memory_mb")],
            ),
            utf8("input_cid"),
            utf8("output_cid"),
            utf8_list("input_cids"),
            utf8_list("output_cids"),
        ],
        TableId::Content => vec![
            utf8("cid"),
            int64("size"),
            timestamp("created_at"),
            utf8_list("providers"),
            boolean("pinned"),
            int32("replication"),
        ],
    }
}

fn utf8(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

fn int32(name: &str) -> Field {
    Field::new(name, DataType::Int32, true)
}

fn int64(name: &str) -> Field {
    Field::new(name, DataType::Int64, true)
}

fn boolean(name: &str) -> Field {
    Field::new(name, DataType::Boolean, true)
}

fn timestamp(name: &str) -> Field {
    Field::new(name, TIMESTAMP, true)
}

fn utf8_list(name: &str) -> Field {
    Field::new(
        name,
        DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
        true,
    )
}

fn structure(name: &str, fields: Vec<Field>) -> Field {
    Field::new(name, DataType::Struct(fields.into()), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The document's text, flattened by hand: a second copy on purpose, so that no edit of the one above goes
    /// unnoticed by the programs that depend on it.
    const DOCUMENT: &str = "\
cluster_id utf8
master_id utf8
updated_at timestamp[ms]
nodes list
nodes.item struct
nodes.item.id utf8
nodes.item.role utf8
nodes.item.status utf8
nodes.item.peers list
nodes.item.peers.item utf8
nodes.item.capabilities list
nodes.item.capabilities.item utf8
nodes.item.resources struct
nodes.item.resources.cpu_count int32
nodes.item.resources.cpu_load float32
nodes.item.resources.gpu_count int32
nodes.item.resources.gpu_available bool
nodes.item.resources.memory_total int64
nodes.item.resources.memory_available int64
nodes.item.resources.disk_total int64
nodes.item.resources.disk_available int64
tasks list
tasks.item struct
tasks.item.id utf8
tasks.item.type utf8
tasks.item.status utf8
tasks.item.created_at timestamp[ms]
tasks.item.updated_at timestamp[ms]
tasks.item.assigned_to utf8
tasks.item.resources struct
tasks.item.resources.cpu_cores int32
tasks.item.resources.gpu_cores int32
tasks.item.resources.memory_mb int32
tasks.item.input_cid utf8
tasks.item.output_cid utf8
tasks.item.input_cids list
tasks.item.input_cids.item utf8
tasks.item.output_cids list
tasks.item.output_cids.item utf8
content list
content.item struct
content.item.cid utf8
content.item.size int64
content.item.created_at timestamp[ms]
content.item.providers list
content.item.providers.item utf8
content.item.pinned bool
content.item.replication int32
";

    fn flatten(field: &Field, prefix: &str, out: &mut String) {
        assert!(
            field.is_nullable(),
            "{prefix}{} is nullable in the document",
            field.name()
        );
        let path = format!("{prefix}{}", field.name());
        let name = match field.data_type() {
            DataType::Utf8 => "utf8",
            DataType::Int32 => "int32",
            DataType::Int64 => "int64",
            DataType::Float32 => "float32",
            DataType::Boolean => "bool",
            DataType::Timestamp(TimeUnit::Millisecond, None) => "timestamp[ms]",
            DataType::List(_) => "list",
            DataType::Struct(_) => "struct",
            other => panic!("{path} has a type the document does not: {other}"),
        };
        out.push_str(&format!("{path} {name}\n"));
        match field.data_type() {
            DataType::List(item) => flatten(item, &format!("{path}."), out),
            DataType::Struct(fields) => {
                for field in fields {
                    flatten(field, &format!("{path}."), out);
                }
            }
            _ => {}
        }
    }

    #[test]
    fn version_one_is_the_document_field_for_field() {
        let mut text = String::new();
        for field in document_schema().fields() {
            flatten(field, "", &mut text);
        }
        assert_eq!(text, DOCUMENT);
    }

    #[test]
    fn tables_hold_the_documents_fields_then_the_added_ones_and_only_the_key_is_never_null() {
        for table in TableId::ALL {
            let schema = table_schema(table);
            let mut expected: Vec<String> = document_fields(table)
                .iter()
                .map(|f| f.name().clone())
                .collect();
            expected.extend(added_fields(table).iter().map(|f| f.name().clone()));
            let names: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).collect();
            assert_eq!(names, expected, "{}", table.name());
            for field in schema.fields() {
                assert_eq!(
                    field.is_nullable(),
                    field.name() != table.key(),
                    "{}.{}",
                    table.name(),
                    field.name()
                );
            }
            assert_eq!(TableId::from_name(table.name()), Some(table));
        }
        assert!(!cluster_schema().field(0).is_nullable());
    }

    #[test]
    fn a_newer_version_is_refused_by_number_and_older_ones_are_not() {
        for version in 0..=SCHEMA_VERSION {
            assert_eq!(check_version(version), Ok(()));
        }
        let error = check_version(SCHEMA_VERSION + 1).unwrap_err();
        assert_eq!(error.found, 3);
        assert!(
            error.to_string().contains("version 3") && error.to_string().contains("upgrade"),
            "{error}"
        );
    }
}
