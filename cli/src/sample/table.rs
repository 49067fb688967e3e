//! One table, built column by column, filled row by row.

use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, Float32Builder, Int32Builder, Int64Builder, ListBuilder, StringBuilder,
    TimestampMillisecondBuilder,
};
use arrow_array::{ArrayRef, RecordBatch, StructArray};
use arrow_schema::{DataType, Fields, SchemaRef};
use sherwood_shared::schema::{TableId, table_schema};
use sherwood_shared::state::StateError;

/// The builders of a table's columns. Values are given in the order of the schema, row after row.
pub(super) struct Table {
    id: TableId,
    schema: SchemaRef,
    row: Row,
}

impl Table {
    pub(super) fn new(id: TableId) -> Self {
        let schema = table_schema(id);
        let row = Row::new(schema.fields());
        Table { id, schema, row }
    }

    /// Where the next value goes. The name is there for the reader of the generator, and checked in tests.
    pub(super) fn next(&mut self, name: &str) -> &mut Column {
        debug_assert_eq!(self.schema.field(self.row.at).name(), name);
        self.row.next()
    }

    pub(super) fn finish(mut self) -> Result<RecordBatch, StateError> {
        let columns = self.row.columns.iter_mut().map(Column::finish).collect();
        RecordBatch::try_new(self.schema, columns).map_err(|_| StateError::TooLarge {
            column: self.id.name().to_owned(),
        })
    }
}

/// Columns side by side, and which comes next.
pub(super) struct Row {
    columns: Vec<Column>,
    at: usize,
}

impl Row {
    fn new(fields: &Fields) -> Self {
        Row {
            columns: fields
                .iter()
                .map(|field| Column::new(field.data_type()))
                .collect(),
            at: 0,
        }
    }

    pub(super) fn next(&mut self) -> &mut Column {
        let at = self.at;
        self.at = (at + 1) % self.columns.len();
        &mut self.columns[at]
    }
}

/// A builder of one of the types the schema has.
pub(super) enum Column {
    Text(StringBuilder),
    Texts(ListBuilder<StringBuilder>),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Boolean(BooleanBuilder),
    Time(TimestampMillisecondBuilder),
    Struct(Fields, Row),
}

impl Column {
    fn new(data_type: &DataType) -> Self {
        match data_type {
            DataType::Utf8 => Column::Text(StringBuilder::new()),
            DataType::List(_) => Column::Texts(ListBuilder::new(StringBuilder::new())),
            DataType::Int32 => Column::Int32(Int32Builder::new()),
            DataType::Int64 => Column::Int64(Int64Builder::new()),
            DataType::Float32 => Column::Float32(Float32Builder::new()),
            DataType::Boolean => Column::Boolean(BooleanBuilder::new()),
            DataType::Timestamp(..) => Column::Time(TimestampMillisecondBuilder::new()),
            DataType::Struct(fields) => Column::Struct(fields.clone(), Row::new(fields)),
            other => unreachable!("the schema has no {other}"),
        }
    }

    pub(super) fn text(&mut self, value: Option<&str>) {
        let Column::Text(builder) = self else {
            unreachable!("not a column of text")
        };
        builder.append_option(value);
    }

    pub(super) fn texts(&mut self, values: impl IntoIterator<Item = impl AsRef<str>>) {
        let Column::Texts(builder) = self else {
            unreachable!("not a column of lists")
        };
        for value in values {
            builder.values().append_value(value);
        }
        builder.append(true);
    }

    pub(super) fn int32(&mut self, value: Option<i32>) {
        let Column::Int32(builder) = self else {
            unreachable!("not a column of int32")
        };
        builder.append_option(value);
    }

    pub(super) fn int64(&mut self, value: i64) {
        let Column::Int64(builder) = self else {
            unreachable!("not a column of int64")
        };
        builder.append_value(value);
    }

    pub(super) fn float32(&mut self, value: Option<f32>) {
        let Column::Float32(builder) = self else {
            unreachable!("not a column of float32")
        };
        builder.append_option(value);
    }

    pub(super) fn boolean(&mut self, value: bool) {
        let Column::Boolean(builder) = self else {
            unreachable!("not a column of bools")
        };
        builder.append_value(value);
    }

    pub(super) fn time(&mut self, millis: Option<i64>) {
        let Column::Time(builder) = self else {
            unreachable!("not a column of times")
        };
        builder.append_option(millis);
    }

    pub(super) fn fields(&mut self) -> &mut Row {
        let Column::Struct(_, row) = self else {
            unreachable!("not a column of structs")
        };
        row
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Column::Text(builder) => Arc::new(builder.finish()),
            Column::Texts(builder) => Arc::new(builder.finish()),
            Column::Int32(builder) => Arc::new(builder.finish()),
            Column::Int64(builder) => Arc::new(builder.finish()),
            Column::Float32(builder) => Arc::new(builder.finish()),
            Column::Boolean(builder) => Arc::new(builder.finish()),
            Column::Time(builder) => Arc::new(builder.finish()),
            Column::Struct(fields, row) => {
                let columns = row.columns.iter_mut().map(Column::finish).collect();
                Arc::new(StructArray::new(fields.clone(), columns, None))
            }
        }
    }
}
