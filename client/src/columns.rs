//! The columns of a chunk by their types: found once a chunk, then asked by row.
//!
//! What [`rows`](crate::rows) is for one row, this is for a pass over all of them. A column that the state does not have
//! reads as null, and so does a field of a struct that is null.

use arrow_array::cast::AsArray;
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, GenericListArray, PrimitiveArray,
    StringArray, StructArray,
};
use arrow_buffer::NullBuffer;

use crate::chunk::Chunk;

/// Places of the columns of `nodes` in the schema.
pub(crate) mod nodes {
    pub(crate) const ROLE: usize = 1;
    pub(crate) const STATUS: usize = 2;
    pub(crate) const PEERS: usize = 3;
    pub(crate) const CAPABILITIES: usize = 4;
    pub(crate) const RESOURCES: usize = 5;

    /// Places of the fields of `resources`.
    pub(crate) mod resources {
        pub(crate) const CPU_COUNT: usize = 0;
        pub(crate) const CPU_LOAD: usize = 1;
        pub(crate) const GPU_COUNT: usize = 2;
        pub(crate) const GPU_AVAILABLE: usize = 3;
        pub(crate) const MEMORY_TOTAL: usize = 4;
        pub(crate) const MEMORY_AVAILABLE: usize = 5;
    }
}

/// Places of the columns of `tasks` in the schema.
pub(crate) mod tasks {
    pub(crate) const TYPE: usize = 1;
    pub(crate) const STATUS: usize = 2;
    pub(crate) const CREATED_AT: usize = 3;
    pub(crate) const UPDATED_AT: usize = 4;
    pub(crate) const ASSIGNED_TO: usize = 5;
    pub(crate) const RESOURCES: usize = 6;
    pub(crate) const INPUT_CID: usize = 7;
    pub(crate) const OUTPUT_CID: usize = 8;
    pub(crate) const INPUT_CIDS: usize = 9;
    pub(crate) const OUTPUT_CIDS: usize = 10;
    pub(crate) const STARTED_AT: usize = 11;
    pub(crate) const COMPLETED_AT: usize = 12;

    /// Places of the fields of `resources`.
    pub(crate) mod resources {
        pub(crate) const CPU_CORES: usize = 0;
        pub(crate) const GPU_CORES: usize = 1;
        pub(crate) const MEMORY_MB: usize = 2;
    }
}

/// Places of the columns of `content` in the schema.
pub(crate) mod content {
    pub(crate) const SIZE: usize = 1;
    pub(crate) const PROVIDERS: usize = 3;
    pub(crate) const PINNED: usize = 4;
}

fn column(chunk: &Chunk, known: usize) -> Option<&ArrayRef> {
    let at = (*chunk.schema.known.get(known)?)?;
    chunk.batch.columns().get(at)
}

/// Strings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text<'s>(Option<&'s StringArray>);

impl<'s> Text<'s> {
    pub(crate) fn of(chunk: &'s Chunk, known: usize) -> Self {
        Self(column(chunk, known).and_then(|column| column.as_string_opt()))
    }

    pub(crate) fn get(self, row: usize) -> Option<&'s str> {
        let array = self.0?;
        array.is_valid(row).then(|| array.value(row))
    }

    pub(crate) fn is(self, row: usize, text: &str) -> bool {
        self.get(row) == Some(text)
    }
}

/// Lists of strings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TextLists<'s>(Option<(&'s GenericListArray<i32>, &'s StringArray)>);

impl<'s> TextLists<'s> {
    pub(crate) fn of(chunk: &'s Chunk, known: usize) -> Self {
        let lists = column(chunk, known).and_then(|column| column.as_list_opt::<i32>());
        Self(lists.and_then(|lists| Some((lists, lists.values().as_string_opt()?))))
    }

    /// The strings of a row that are not null, in order; none where the list is null.
    pub(crate) fn get(self, row: usize) -> impl Iterator<Item = &'s str> {
        let found = self.0.filter(|(lists, _)| lists.is_valid(row));
        found.into_iter().flat_map(move |(lists, texts)| {
            let bound = |at: usize| usize::try_from(lists.value_offsets()[at]).unwrap_or(0);
            (bound(row)..bound(row + 1))
                .filter(|&at| texts.is_valid(at))
                .map(|at| texts.value(at))
        })
    }

    pub(crate) fn contain(self, row: usize, text: &str) -> bool {
        self.get(row).any(|found| found == text)
    }
}

/// Numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number<'s, T: ArrowPrimitiveType> {
    array: Option<&'s PrimitiveArray<T>>,
    /// Of the struct it is a field of.
    outer: Option<&'s NullBuffer>,
}

impl<'s, T: ArrowPrimitiveType> Number<'s, T> {
    pub(crate) fn of(chunk: &'s Chunk, known: usize) -> Self {
        let array = column(chunk, known).and_then(|column| column.as_primitive_opt());
        Self { array, outer: None }
    }

    #[inline]
    pub(crate) fn get(&self, row: usize) -> Option<T::Native> {
        let array = self.array?;
        let is_there = array.is_valid(row) && self.outer.is_none_or(|outer| outer.is_valid(row));
        is_there.then(|| array.value(row))
    }
}

/// Truths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag<'s> {
    array: Option<&'s BooleanArray>,
    /// Of the struct it is a field of.
    outer: Option<&'s NullBuffer>,
}

impl<'s> Flag<'s> {
    pub(crate) fn of(chunk: &'s Chunk, known: usize) -> Self {
        let array = column(chunk, known).and_then(|column| column.as_boolean_opt());
        Self { array, outer: None }
    }

    pub(crate) fn get(&self, row: usize) -> Option<bool> {
        let array = self.array?;
        let is_there = array.is_valid(row) && self.outer.is_none_or(|outer| outer.is_valid(row));
        is_there.then(|| array.value(row))
    }
}

/// Structs, for their fields: those of the schema stand first in them, in its order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Structs<'s>(Option<&'s StructArray>);

impl<'s> Structs<'s> {
    pub(crate) fn of(chunk: &'s Chunk, known: usize) -> Self {
        Self(column(chunk, known).and_then(|column| column.as_struct_opt()))
    }

    /// Is it there, whatever its fields are?
    pub(crate) fn is_valid(self, row: usize) -> bool {
        self.0.is_some_and(|array| array.is_valid(row))
    }

    pub(crate) fn number<T: ArrowPrimitiveType>(self, field: usize) -> Number<'s, T> {
        Number {
            array: self.field(field).and_then(|array| array.as_primitive_opt()),
            outer: self.0.and_then(|array| array.nulls()),
        }
    }

    pub(crate) fn flag(self, field: usize) -> Flag<'s> {
        Flag {
            array: self.field(field).and_then(|array| array.as_boolean_opt()),
            outer: self.0.and_then(|array| array.nulls()),
        }
    }

    fn field(self, field: usize) -> Option<&'s ArrayRef> {
        self.0?.columns().get(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_schema::DataType;
    use sherwood_shared::schema::{TableId, table_schema};

    #[test]
    fn the_places_are_those_of_the_schema() {
        let places = |table: TableId| -> Vec<(usize, &str)> {
            match table {
                TableId::Nodes => vec![
                    (nodes::ROLE, "role"),
                    (nodes::STATUS, "status"),
                    (nodes::PEERS, "peers"),
                    (nodes::CAPABILITIES, "capabilities"),
                    (nodes::RESOURCES, "resources"),
                ],
                TableId::Tasks => vec![
                    (tasks::TYPE, "type"),
                    (tasks::STATUS, "status"),
                    (tasks::CREATED_AT, "created_at"),
                    (tasks::UPDATED_AT, "updated_at"),
                    (tasks::ASSIGNED_TO, "assigned_to"),
                    (tasks::RESOURCES, "resources"),
                    (tasks::INPUT_CID, "input_cid"),
                    (tasks::OUTPUT_CID, "output_cid"),
                    (tasks::INPUT_CIDS, "input_cids"),
                    (tasks::OUTPUT_CIDS, "output_cids"),
                    (tasks::STARTED_AT, "started_at"),
                    (tasks::COMPLETED_AT, "completed_at"),
                ],
                TableId::Content => vec![
                    (content::SIZE, "size"),
                    (content::PROVIDERS, "providers"),
                    (content::PINNED, "pinned"),
                ],
            }
        };
        for table in TableId::ALL {
            for (place, name) in places(table) {
                assert_eq!(table_schema(table).field(place).name(), name, "{table:?}");
            }
        }
        let fields = |table: TableId, place: usize| -> Vec<String> {
            match table_schema(table).field(place).data_type() {
                DataType::Struct(fields) => {
                    fields.iter().map(|field| field.name().clone()).collect()
                }
                other => panic!("{other}"),
            }
        };
        let node = fields(TableId::Nodes, nodes::RESOURCES);
        for (place, name) in [
            (nodes::resources::CPU_COUNT, "cpu_count"),
            (nodes::resources::CPU_LOAD, "cpu_load"),
            (nodes::resources::GPU_COUNT, "gpu_count"),
            (nodes::resources::GPU_AVAILABLE, "gpu_available"),
            (nodes::resources::MEMORY_TOTAL, "memory_total"),
            (nodes::resources::MEMORY_AVAILABLE, "memory_available"),
        ] {
            assert_eq!(node[place], name);
        }
        let task = fields(TableId::Tasks, tasks::RESOURCES);
        for (place, name) in [
            (tasks::resources::CPU_CORES, "cpu_cores"),
            (tasks::resources::GPU_CORES, "gpu_cores"),
            (tasks::resources::MEMORY_MB, "memory_mb"),
        ] {
            assert_eq!(task[place], name);
        }
    }
}
