//! The columns that a table has: those of its snapshot, and those of the schema that it lacks.

use std::sync::Arc;

use arrow_schema::{DataType, FieldRef, Fields, Schema, SchemaRef};
use sherwood_client::{ReadError, Snapshot};
use sherwood_shared::schema::{TableId, added_fields, cluster_schema, table_schema};

/// What the engine has to know of a table's columns. A column's number is its place here, which is its place in
/// every batch of the snapshot, if the snapshot has it.
#[derive(Debug)]
pub(super) struct Layout {
    /// The table's name, or `cluster`.
    pub(super) name: &'static str,
    /// As the snapshot has it; equal pointers, equal layouts.
    schema: SchemaRef,
    pub(super) columns: Vec<Column>,
    /// The number of the key column.
    pub(super) key: usize,
    /// Kept by the engine.
    pub(super) updated_at: Option<usize>,
    /// Set by the engine in a new row, if it is null.
    pub(super) created_at: Option<usize>,
}

/// A column, or a field of a struct.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) field: FieldRef,
    /// Does version 1 of the document have it? A put without it makes it null, otherwise keeps it.
    pub(super) in_document: bool,
    /// A struct's fields.
    pub(super) fields: Vec<Column>,
}

impl Column {
    fn new(field: &FieldRef, known: Option<&FieldRef>, in_document: bool) -> Self {
        let mut fields = Vec::new();
        if let DataType::Struct(children) = field.data_type() {
            let known = match known.map(|known| known.data_type()) {
                Some(DataType::Struct(known)) => known.clone(),
                _ => Fields::empty(),
            };
            for child in children {
                let known = known.find(child.name()).map(|(_, known)| known);
                fields.push(Column::new(child, known, in_document && known.is_some()));
            }
        }
        Self {
            field: Arc::clone(field),
            in_document,
            fields,
        }
    }

    pub(super) fn name(&self) -> &str {
        self.field.name()
    }
}

impl Layout {
    /// Of a table of a snapshot; `old`, if it is the same still.
    pub(super) fn of_table(
        snapshot: &Snapshot,
        table: TableId,
        old: Option<&Arc<Layout>>,
    ) -> Result<Arc<Layout>, ReadError> {
        let schema = snapshot.table(table).schema()?;
        if let Some(old) = old.filter(|old| Arc::ptr_eq(&old.schema, &schema)) {
            return Ok(Arc::clone(old));
        }
        let known = table_schema(table);
        let added = added_fields(table);
        let in_document = |name: &str| {
            known.fields().find(name).is_some() && added.iter().all(|field| field.name() != name)
        };
        let mut layout = Self::new(table.name(), schema, &known, in_document);
        layout.key = layout.find(table.key()).unwrap_or(0);
        if table == TableId::Tasks {
            layout.updated_at = layout.find("updated_at");
        }
        if table != TableId::Nodes {
            layout.created_at = layout.find("created_at");
        }
        Ok(Arc::new(layout))
    }

    /// Of the cluster's row.
    pub(super) fn of_cluster(schema: SchemaRef) -> Layout {
        let known = cluster_schema();
        let in_document = |name: &str| known.fields().find(name).is_some();
        let mut layout = Self::new("cluster", schema, &known, in_document);
        layout.key = layout.find("cluster_id").unwrap_or(0);
        layout.updated_at = layout.find("updated_at");
        layout
    }

    fn new(
        name: &'static str,
        schema: SchemaRef,
        known: &Schema,
        in_document: impl Fn(&str) -> bool,
    ) -> Self {
        let missing = known
            .fields()
            .iter()
            .filter(|field| schema.fields().find(field.name()).is_none());
        let fields = schema.fields().iter().chain(missing);
        let columns = fields.map(|field| {
            let known = known.fields().find(field.name()).map(|(_, known)| known);
            Column::new(field, known, in_document(field.name()))
        });
        let columns = columns.collect();
        Self {
            name,
            schema,
            columns,
            key: 0,
            updated_at: None,
            created_at: None,
        }
    }

    /// The schema it was made of.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The number of a column.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name() == name)
    }
}
