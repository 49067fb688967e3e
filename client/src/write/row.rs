//! Rows to put, typed or as JSON. What is `None` is left out, which makes the column null.

use serde_json::{Map, Value};
use sherwood_shared::schema::TableId;

/// A row of a table, its key among its columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Of which table.
    pub table: TableId,
    /// Columns and values. Timestamps are whole milliseconds since the epoch, or RFC 3339 text.
    pub columns: Map<String, Value>,
}

impl Row {
    /// A row of these columns, for those that the typed rows do not have.
    pub fn new(table: TableId, columns: Map<String, Value>) -> Self {
        Self { table, columns }
    }

    /// With one more column.
    #[must_use]
    pub fn with(mut self, column: impl Into<String>, value: impl Into<Value>) -> Self {
        self.columns.insert(column.into(), value.into());
        self
    }
}

/// A struct of optional columns, and how it becomes JSON.
macro_rules! columns {
    ($(#[$doc:meta])* $name:ident { $($(#[$column:meta])* $field:ident $json:literal: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name {
            $($(#[$column])* pub $field: $type,)*
        }

        impl From<$name> for Value {
            fn from(columns: $name) -> Self {
                let mut object = Map::new();
                $(
                    let value = Value::from(columns.$field);
                    if !value.is_null() {
                        object.insert($json.to_owned(), value);
                    }
                )*
                Self::Object(object)
            }
        }
    };
}

columns! {
    /// A host.
    Node {
        /// Its key.
        id "id": String,
        /// `master`, `worker` or `leecher`.
        role "role": Option<String>,
        /// `online` or `offline`.
        status "status": Option<String>,
        /// Ids of nodes it knows.
        peers "peers": Option<Vec<String>>,
        /// What it can do.
        capabilities "capabilities": Option<Vec<String>>,
        /// What it has.
        resources "resources": Option<NodeResources>,
        /// Where to reach it.
        address "address": Option<String>,
        /// Milliseconds since the epoch.
        last_seen "last_seen": Option<i64>,
    }
}

columns! {
    /// What a host has.
    NodeResources {
        /// Cores.
        cpu_count "cpu_count": Option<i32>,
        /// 0 to 1.
        cpu_load "cpu_load": Option<f32>,
        /// GPUs.
        gpu_count "gpu_count": Option<i32>,
        /// May they be used?
        gpu_available "gpu_available": Option<bool>,
        /// Bytes.
        memory_total "memory_total": Option<i64>,
        /// Bytes.
        memory_available "memory_available": Option<i64>,
        /// Bytes.
        disk_total "disk_total": Option<i64>,
        /// Bytes.
        disk_available "disk_available": Option<i64>,
    }
}

columns! {
    /// A piece of work.
    Task {
        /// Its key.
        id "id": String,
        /// What kind.
        kind "type": Option<String>,
        /// `pending`, `assigned`, `running`, `completed`, `failed` or `cancelled`.
        status "status": Option<String>,
        /// Milliseconds since the epoch; the daemon's time if it is left out of a new task.
        created_at "created_at": Option<i64>,
        /// The node that has it.
        assigned_to "assigned_to": Option<String>,
        /// What it needs.
        resources "resources": Option<TaskResources>,
        /// What it reads.
        input_cid "input_cid": Option<String>,
        /// What it made.
        output_cid "output_cid": Option<String>,
        /// All that it reads.
        input_cids "input_cids": Option<Vec<String>>,
        /// All that it made.
        output_cids "output_cids": Option<Vec<String>>,
        /// Milliseconds since the epoch.
        started_at "started_at": Option<i64>,
        /// Milliseconds since the epoch.
        completed_at "completed_at": Option<i64>,
        /// Why it failed.
        error "error": Option<String>,
        /// The highest goes first.
        priority "priority": Option<i32>,
        /// 0 to 1.
        progress "progress": Option<f32>,
    }
}

columns! {
    /// What a piece of work needs.
    TaskResources {
        /// Cores.
        cpu_cores "cpu_cores": Option<i32>,
        /// GPUs.
        gpu_cores "gpu_cores": Option<i32>,
        /// Mebibytes.
        memory_mb "memory_mb": Option<i32>,
    }
}

columns! {
    /// A content item.
    Content {
        /// Its key.
        cid "cid": String,
        /// Bytes.
        size "size": Option<i64>,
        /// Milliseconds since the epoch; the daemon's time if it is left out of a new item.
        created_at "created_at": Option<i64>,
        /// Ids of nodes that have it.
        providers "providers": Option<Vec<String>>,
        /// Is it to be kept?
        pinned "pinned": Option<bool>,
        /// How many copies there should be.
        replication "replication": Option<i32>,
    }
}

/// The columns of a typed row.
pub(super) fn columns(row: impl Into<Value>) -> Map<String, Value> {
    match row.into() {
        Value::Object(columns) => columns,
        _ => Map::new(),
    }
}

impl From<Node> for Row {
    fn from(node: Node) -> Self {
        Self::new(TableId::Nodes, columns(node))
    }
}

impl From<Task> for Row {
    fn from(task: Task) -> Self {
        Self::new(TableId::Tasks, columns(task))
    }
}

impl From<Content> for Row {
    fn from(content: Content) -> Self {
        Self::new(TableId::Content, columns(content))
    }
}

impl From<Node> for Map<String, Value> {
    fn from(node: Node) -> Self {
        columns(node)
    }
}

impl From<Content> for Map<String, Value> {
    fn from(content: Content) -> Self {
        columns(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sherwood_shared::schema::table_schema;

    #[test]
    fn typed_rows_have_every_column_of_the_schema_and_no_other() {
        let all = [
            (
                TableId::Nodes,
                columns(Node {
                    id: "n".into(),
                    role: Some("r".into()),
                    status: Some("s".into()),
                    peers: Some(vec![]),
                    capabilities: Some(vec![]),
                    resources: Some(NodeResources::default()),
                    address: Some("a".into()),
                    last_seen: Some(1),
                }),
                vec![],
            ),
            (
                TableId::Tasks,
                columns(Task {
                    id: "t".into(),
                    kind: Some("k".into()),
                    status: Some("s".into()),
                    created_at: Some(1),
                    assigned_to: Some("n".into()),
                    resources: Some(TaskResources::default()),
                    input_cid: Some("c".into()),
                    output_cid: Some("c".into()),
                    input_cids: Some(vec![]),
                    output_cids: Some(vec![]),
                    started_at: Some(1),
                    completed_at: Some(1),
                    error: Some("e".into()),
                    priority: Some(1),
                    progress: Some(0.5),
                }),
                // The daemon keeps it.
                vec!["updated_at"],
            ),
            (
                TableId::Content,
                columns(Content {
                    cid: "c".into(),
                    size: Some(1),
                    created_at: Some(1),
                    providers: Some(vec![]),
                    pinned: Some(true),
                    replication: Some(1),
                }),
                vec![],
            ),
        ];
        for (table, mut columns, left_out) in all {
            for field in table_schema(table).fields() {
                let is_there = columns.shift_remove(field.name()).is_some();
                let expected = !left_out.contains(&field.name().as_str());
                assert_eq!(is_there, expected, "{}.{}", table.name(), field.name());
            }
            assert!(columns.is_empty(), "{}: {columns:?}", table.name());
        }
    }
}
