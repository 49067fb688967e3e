//! Typed rows: one entity of a snapshot, its fields borrowed from the mapped memory.
//!
//! Every field but the key may be null, and is an `Option`. A column that the state
//! does not have reads as null. Timestamps are milliseconds since the Unix epoch, UTC.

use std::marker::PhantomData;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int32Type, Int64Type, TimestampMillisecondType};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, RecordBatch, StringArray, StructArray};
use sherwood_shared::schema::TableId;

use crate::chunk::Chunk;
use crate::error::ReadError;
use crate::table::Table;

/// A row of one of the three tables.
pub trait RowRef<'s>: Sized + sealed::Sealed {
    /// Which table it is a row of.
    const TABLE: TableId;
    #[doc(hidden)]
    fn of(row: Row<'s>) -> Self;
    /// The record batch it lies in, and its place there: all of its columns, those of others too.
    fn batch(&self) -> (&'s RecordBatch, usize);
}

mod sealed {
    pub trait Sealed {}
}

/// A table as typed rows.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'s, R> {
    table: &'s Table,
    row: PhantomData<R>,
}

impl<'s, R: RowRef<'s>> Rows<'s, R> {
    pub(crate) fn new(table: &'s Table) -> Self {
        Self {
            table,
            row: PhantomData,
        }
    }

    pub(crate) fn table(&self) -> &'s Table {
        self.table
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.table.len()
    }

    /// No rows at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The row with this key.
    pub fn get(&self, key: &str) -> Result<Option<R>, ReadError> {
        let found = self.table.find_chunk(key)?;
        Ok(found.map(|(chunk, row)| R::of(Row { chunk, row })))
    }

    /// All rows, in key order.
    pub fn iter(&self) -> impl Iterator<Item = Result<R, ReadError>> + use<'s, R> {
        self.select(|_| |_: usize| true)
    }

    /// The rows that are wanted, in key order. `of_chunk` finds the columns that the answer needs, once a chunk; what
    /// it returns is asked for each row.
    pub(crate) fn select<W, F>(
        &self,
        mut of_chunk: F,
    ) -> impl Iterator<Item = Result<R, ReadError>> + use<'s, R, W, F>
    where
        F: FnMut(&'s Chunk) -> W,
        W: Fn(usize) -> bool,
    {
        self.table.chunks().flat_map(move |chunk| {
            let (chunk, error) = match chunk {
                Ok(chunk) => (Some((chunk, of_chunk(chunk))), None),
                Err(error) => (None, Some(Err(error))),
            };
            let rows = chunk.into_iter().flat_map(|(chunk, is_wanted)| {
                let rows = (0..chunk.keys.len()).filter(move |&row| is_wanted(row));
                rows.map(move |row| Ok(R::of(Row { chunk, row })))
            });
            rows.chain(error)
        })
    }
}

impl<'s, R: RowRef<'s> + 's> IntoIterator for Rows<'s, R> {
    type Item = Result<R, ReadError>;
    type IntoIter = Box<dyn Iterator<Item = Self::Item> + 's>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}

/// A row of any table, by column number of the schema.
#[derive(Clone, Copy, Debug)]
pub struct Row<'s> {
    chunk: &'s Chunk,
    row: usize,
}

impl<'s> Row<'s> {
    pub(crate) fn new(chunk: &'s Chunk, row: usize) -> Self {
        Self { chunk, row }
    }

    fn column(&self, known: usize) -> Option<&'s ArrayRef> {
        let at = (*self.chunk.schema.known.get(known)?)?;
        let column = self.chunk.batch.columns().get(at)?;
        column.is_valid(self.row).then_some(column)
    }

    fn key(&self) -> &'s str {
        self.chunk.keys.value(self.row)
    }

    fn text(&self, known: usize) -> Option<&'s str> {
        Some(self.column(known)?.as_string_opt::<i32>()?.value(self.row))
    }

    fn number<T: ArrowPrimitiveType>(&self, known: usize) -> Option<T::Native> {
        Some(self.column(known)?.as_primitive_opt::<T>()?.value(self.row))
    }

    fn boolean(&self, known: usize) -> Option<bool> {
        Some(self.column(known)?.as_boolean_opt()?.value(self.row))
    }

    fn texts(&self, known: usize) -> Option<Texts<'s>> {
        let list = self.column(known)?.as_list_opt::<i32>()?;
        let values = list.values().as_string_opt::<i32>()?;
        let offsets = list.value_offsets();
        let start = usize::try_from(offsets[self.row]).ok()?;
        let end = usize::try_from(offsets[self.row + 1]).ok()?;
        Some(Texts {
            values,
            at: start,
            end,
        })
    }

    fn structure(&self, known: usize) -> Option<Struct<'s>> {
        let array = self.column(known)?.as_struct_opt()?;
        Some(Struct {
            array,
            row: self.row,
        })
    }

    fn batch(&self) -> (&'s RecordBatch, usize) {
        (&self.chunk.batch, self.row)
    }
}

/// The strings of one list, in order.
#[derive(Clone, Debug)]
pub struct Texts<'s> {
    values: &'s StringArray,
    at: usize,
    end: usize,
}

impl<'s> Texts<'s> {
    /// Is `text` among them?
    #[must_use]
    pub fn contains(&self, text: &str) -> bool {
        self.clone().any(|found| found == Some(text))
    }
}

impl<'s> Iterator for Texts<'s> {
    type Item = Option<&'s str>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        if at >= self.end || at >= self.values.len() {
            return None;
        }
        self.at += 1;
        Some(self.values.is_valid(at).then(|| self.values.value(at)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.end.min(self.values.len()).saturating_sub(self.at);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Texts<'_> {}

#[derive(Clone, Copy, Debug)]
struct Struct<'s> {
    array: &'s StructArray,
    row: usize,
}

impl<'s> Struct<'s> {
    fn number<T: ArrowPrimitiveType>(&self, field: &str) -> Option<T::Native> {
        let column = self.array.column_by_name(field)?.as_primitive_opt::<T>()?;
        column.is_valid(self.row).then(|| column.value(self.row))
    }

    fn boolean(&self, field: &str) -> Option<bool> {
        let column = self.array.column_by_name(field)?.as_boolean_opt()?;
        column.is_valid(self.row).then(|| column.value(self.row))
    }
}

/// What a node has.
#[derive(Clone, Copy, Debug)]
pub struct NodeResources<'s>(Struct<'s>);

/// What a task needs.
#[derive(Clone, Copy, Debug)]
pub struct TaskResources<'s>(Struct<'s>);

macro_rules! fields {
    ($(#[$doc:meta] $name:ident: $type:ty = $get:expr;)*) => {
        $(#[$doc] #[must_use] pub fn $name(&self) -> Option<$type> { ($get)(&self.0) })*
    };
}

impl NodeResources<'_> {
    fields! {
        /// Cores.
        cpu_count: i32 = |s: &Struct<'_>| s.number::<Int32Type>("cpu_count");
        /// Load, in percent.
        cpu_load: f32 = |s: &Struct<'_>| s.number::<Float32Type>("cpu_load");
        /// GPUs.
        gpu_count: i32 = |s: &Struct<'_>| s.number::<Int32Type>("gpu_count");
        /// Are the GPUs usable?
        gpu_available: bool = |s: &Struct<'_>| s.boolean("gpu_available");
        /// Memory, in bytes.
        memory_total: i64 = |s: &Struct<'_>| s.number::<Int64Type>("memory_total");
        /// Free memory, in bytes.
        memory_available: i64 = |s: &Struct<'_>| s.number::<Int64Type>("memory_available");
        /// Disk, in bytes.
        disk_total: i64 = |s: &Struct<'_>| s.number::<Int64Type>("disk_total");
        /// Free disk, in bytes.
        disk_available: i64 = |s: &Struct<'_>| s.number::<Int64Type>("disk_available");
    }
}

impl TaskResources<'_> {
    fields! {
        /// Cores.
        cpu_cores: i32 = |s: &Struct<'_>| s.number::<Int32Type>("cpu_cores");
        /// GPUs.
        gpu_cores: i32 = |s: &Struct<'_>| s.number::<Int32Type>("gpu_cores");
        /// Memory, in MiB.
        memory_mb: i32 = |s: &Struct<'_>| s.number::<Int32Type>("memory_mb");
    }
}

macro_rules! row_ref {
    ($(#[$doc:meta])* $name:ident, $table:expr, $key:ident, $key_doc:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name<'s>(Row<'s>);

        impl sealed::Sealed for $name<'_> {}

        impl<'s> RowRef<'s> for $name<'s> {
            const TABLE: TableId = $table;
            fn of(row: Row<'s>) -> Self {
                Self(row)
            }
            fn batch(&self) -> (&'s RecordBatch, usize) {
                self.0.batch()
            }
        }

        impl<'s> $name<'s> {
            #[doc = $key_doc]
            #[must_use]
            pub fn $key(&self) -> &'s str {
                self.0.key()
            }

            /// The chunk it stands in and its row there, for columns without a method.
            #[must_use]
            pub fn batch(&self) -> (&'s RecordBatch, usize) {
                self.0.batch()
            }
        }
    };
}

macro_rules! columns {
    ($row:ident: $($(#[$doc:meta])* $number:literal $name:ident: $type:ty = $get:expr;)*) => {
        impl<'s> $row<'s> {
            $($(#[$doc])* #[must_use] pub fn $name(&self) -> Option<$type> { ($get)(&self.0, $number) })*
        }

        #[cfg(test)]
        impl $row<'_> {
            /// The columns by number, to hold against the schema.
            const NUMBERS: &'static [(usize, &'static str)] = &[$(($number, stringify!($name))),*];
        }
    };
}

row_ref!(
    /// A node of the cluster.
    NodeRef, TableId::Nodes, id, "Its id."
);
row_ref!(
    /// A task.
    TaskRef, TableId::Tasks, id, "Its id."
);
row_ref!(
    /// A content item.
    ContentRef, TableId::Content, cid, "Its content identifier."
);

columns! { NodeRef:
    /// `master`, `worker`, `leecher`, or what else the cluster uses.
    1 role: &'s str = Row::text;
    /// `online`, `offline`, ...
    2 status: &'s str = Row::text;
    /// Ids of the nodes it is connected to.
    3 peers: Texts<'s> = Row::texts;
    /// What it can do.
    4 capabilities: Texts<'s> = Row::texts;
    /// What it has.
    5 resources: NodeResources<'s> = |row: &Row<'s>, column| row.structure(column).map(NodeResources);
    /// Where it can be reached.
    6 address: &'s str = Row::text;
    /// When it was last heard from, in milliseconds since the epoch.
    7 last_seen: i64 = Row::number::<TimestampMillisecondType>;
}

columns! { TaskRef:
    /// What kind of work. The column `type`.
    1 r#type: &'s str = Row::text;
    /// `pending`, `assigned`, `running`, `completed`, `failed`.
    2 status: &'s str = Row::text;
    /// In milliseconds since the epoch.
    3 created_at: i64 = Row::number::<TimestampMillisecondType>;
    /// In milliseconds since the epoch.
    4 updated_at: i64 = Row::number::<TimestampMillisecondType>;
    /// Id of the node it is assigned to.
    5 assigned_to: &'s str = Row::text;
    /// What it needs.
    6 resources: TaskResources<'s> = |row: &Row<'s>, column| row.structure(column).map(TaskResources);
    /// Its input.
    7 input_cid: &'s str = Row::text;
    /// Its output.
    8 output_cid: &'s str = Row::text;
    /// Its inputs.
    9 input_cids: Texts<'s> = Row::texts;
    /// Its outputs.
    10 output_cids: Texts<'s> = Row::texts;
    /// When a node began with it, in milliseconds since the epoch.
    11 started_at: i64 = Row::number::<TimestampMillisecondType>;
    /// When it ended, in milliseconds since the epoch.
    12 completed_at: i64 = Row::number::<TimestampMillisecondType>;
    /// Why it failed.
    13 error: &'s str = Row::text;
    /// Which pending task goes first: the highest.
    14 priority: i32 = Row::number::<Int32Type>;
    /// The part done, 0 to 1.
    15 progress: f32 = Row::number::<Float32Type>;
}

columns! { ContentRef:
    /// In bytes.
    1 size: i64 = Row::number::<Int64Type>;
    /// In milliseconds since the epoch.
    2 created_at: i64 = Row::number::<TimestampMillisecondType>;
    /// Ids of the nodes that have it.
    3 providers: Texts<'s> = Row::texts;
    /// Must it be kept?
    4 pinned: bool = Row::boolean;
    /// How many nodes should have it.
    5 replication: i32 = Row::number::<Int32Type>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use sherwood_shared::schema::table_schema;

    #[test]
    fn every_column_of_the_schema_has_its_method_at_its_number() {
        let methods = [NodeRef::NUMBERS, TaskRef::NUMBERS, ContentRef::NUMBERS];
        for (table, methods) in TableId::ALL.into_iter().zip(methods) {
            let schema = table_schema(table);
            let columns: Vec<_> = schema
                .fields()
                .iter()
                .map(|field| field.name().as_str())
                .collect();
            let named: Vec<_> = methods
                .iter()
                .map(|(_, name)| name.trim_start_matches("r#"))
                .collect();
            assert_eq!(columns[0], table.key());
            assert_eq!(&columns[1..], named, "table {}", table.name());
            for (place, (number, name)) in methods.iter().enumerate() {
                assert_eq!(*number, place + 1, "{name}");
            }
        }
    }
}
