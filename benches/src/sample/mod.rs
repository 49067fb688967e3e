//! A state of a wanted size, and the same state with some rows changed.
//!
//! Rows are about 130 bytes, as the peers' are. Only columns of the document
//! are filled. A change sets the 64-bit column that its table's constructor names;
//! all other columns stay the very same arrays, so that making a new state is
//! cheap and is never part of a figure.

use std::sync::Arc;

use arrow_array::types::{Int64Type, TimestampMillisecondType};
use arrow_array::{
    Array, ArrayRef, Int64Array, PrimitiveArray, RecordBatch, TimestampMillisecondArray,
};
use arrow_schema::DataType;
use arrow_select::concat::concat_batches;
use sherwood_shared::schema::TableId;
use sherwood_shared::state::State;
use sherwood_store::Effects;

use crate::Failure;

mod columns;

use columns::{cluster, content, nodes, tasks};

/// Milliseconds since the epoch that the samples start at.
const BEGIN: i64 = 1_767_000_000_000;

/// A state that changes row by row.
pub struct Sample {
    state: State,
    table: TableId,
    column: usize,
    values: Vec<i64>,
}

impl Sample {
    /// `rows` tasks with the keys of [`crate::keys::task`], and nothing else; `updated_at` changes.
    ///
    /// # Errors
    ///
    /// What Arrow says of the columns.
    pub fn tasks(rows: u64) -> Result<Self, Failure> {
        Self::of(TableId::Tasks, "updated_at", tasks(rows)?, rows)
    }

    /// `rows` items of content with keys of the same shape, and nothing else; `size` changes.
    ///
    /// # Errors
    ///
    /// What Arrow says of the columns.
    pub fn content(rows: u64) -> Result<Self, Failure> {
        Self::of(TableId::Content, "size", content(rows)?, rows)
    }

    fn of(table: TableId, column: &str, batch: RecordBatch, rows: u64) -> Result<Self, Failure> {
        let column = batch.schema_ref().index_of(column)?;
        let mut tables = [nodes()?, tasks(0)?, content(0)?];
        tables[table as usize] = batch;
        let mut sample = Self {
            state: State {
                cluster: cluster()?,
                tables,
            },
            table,
            column,
            values: vec![BEGIN; usize::try_from(rows)?],
        };
        sample.change([], 0)?;
        Ok(sample)
    }

    /// The table that changes.
    pub fn table(&self) -> TableId {
        self.table
    }

    /// How many rows it has.
    pub fn rows(&self) -> u64 {
        self.values.len() as u64
    }

    /// The state as it is.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Bytes of its columns, without their padding.
    pub fn bytes(&self) -> u64 {
        let sizes = self.state.tables[self.table as usize].columns().iter();
        sizes
            .map(|column| column.to_data().get_slice_memory_size().unwrap_or(0) as u64)
            .sum()
    }

    /// Writes `value` to some rows and returns the state that this makes.
    ///
    /// # Errors
    ///
    /// What Arrow says of the new column.
    pub fn change(
        &mut self,
        rows: impl IntoIterator<Item = u64>,
        value: i64,
    ) -> Result<&State, Failure> {
        for row in rows {
            self.values[usize::try_from(row)?] = BEGIN + value;
        }
        let batch = &self.state.tables[self.table as usize];
        let mut columns = batch.columns().to_vec();
        columns[self.column] = self.column_of(self.values.iter().copied());
        let batch = RecordBatch::try_new(batch.schema(), columns)?;
        self.state.tables[self.table as usize] = batch;
        Ok(&self.state)
    }

    /// Writes `value` to some rows, ascending, and returns those rows alone: what a
    /// writer that knows what it changed hands to the publisher.
    ///
    /// # Errors
    ///
    /// What Arrow says of the new rows.
    pub fn patch(
        &mut self,
        rows: impl IntoIterator<Item = u64>,
        value: i64,
    ) -> Result<Effects, Failure> {
        let batch = &self.state.tables[self.table as usize];
        let mut patched = Vec::new();
        for row in rows {
            let row = usize::try_from(row)?;
            self.values[row] = BEGIN + value;
            let mut columns = batch.slice(row, 1).columns().to_vec();
            columns[self.column] = self.column_of([BEGIN + value]);
            patched.push(RecordBatch::try_new(batch.schema(), columns)?);
        }
        let mut effects = Effects::default();
        let rows = concat_batches(batch.schema_ref(), &patched)?;
        effects.tables[self.table as usize].upserts = vec![rows];
        Ok(effects)
    }

    /// Values as an array of the type of the column that changes.
    fn column_of(&self, values: impl IntoIterator<Item = i64>) -> ArrayRef {
        let batch = &self.state.tables[self.table as usize];
        match batch.schema_ref().field(self.column).data_type() {
            DataType::Int64 => Arc::new(PrimitiveArray::<Int64Type>::from_iter_values(values)),
            _ => Arc::new(PrimitiveArray::<TimestampMillisecondType>::from_iter_values(values)),
        }
    }

    /// The number that [`change`](Self::change) wrote to a row of a snapshot's
    /// batch; `None` if the batch has no such column or row.
    pub fn changed(&self, batch: &RecordBatch, row: usize) -> Option<i64> {
        let column = batch.columns().get(self.column)?.as_any();
        let value = if let Some(column) = column.downcast_ref::<Int64Array>() {
            column.values().get(row).copied()
        } else {
            column
                .downcast_ref::<TimestampMillisecondArray>()?
                .values()
                .get(row)
                .copied()
        };
        Some(value? - BEGIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_take_about_the_bytes_of_the_peers_rows() -> Result<(), Failure> {
        for sample in [Sample::tasks(1_000)?, Sample::content(1_000)?] {
            let each = sample.bytes() / sample.rows();
            assert!(
                (115..=145).contains(&each),
                "{:?}: {each} bytes a row",
                sample.table()
            );
        }
        Ok(())
    }

    #[test]
    fn a_change_shows_in_its_rows_and_nowhere_else() -> Result<(), Failure> {
        for mut sample in [Sample::tasks(100)?, Sample::content(100)?] {
            let before = sample.state().clone();
            sample.change([3, 50], 9)?;
            let (table, column) = (sample.table(), sample.column);
            let after = sample.state().table(table);
            for row in 0..100 {
                let expected = if row == 3 || row == 50 { 9 } else { 0 };
                assert_eq!(
                    sample.changed(after, row),
                    Some(expected),
                    "{table:?} row {row}"
                );
            }
            for index in (0..after.num_columns()).filter(|&index| index != column) {
                assert_eq!(
                    after.column(index),
                    before.table(table).column(index),
                    "{table:?} column {index}"
                );
            }
            assert_eq!(sample.changed(after, 100), None);
        }
        Ok(())
    }
}
