//! How large each column of a table is in the document's form, kept from publish to publish (W10).
//!
//! There a table is one list, and its columns count their bytes and items with 32 bits. A state that outgrew
//! that could be published and never be written to a checkpoint again.

use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::{Array, OffsetSizeTrait, RecordBatch};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, Fields};

/// What 32-bit offsets can count.
pub(super) const LIMIT: u64 = i32::MAX as u64;

/// Bytes of each text column and items of each list column, in the order of the columns, nested
/// ones behind what they are nested in; and rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    rows: u64,
    columns: Vec<u64>,
    scratch: Vec<u64>,
}

impl Totals {
    pub(super) fn add(&mut self, rows: &RecordBatch) {
        self.rows += rows.num_rows() as u64;
        self.measure(rows);
        for (total, more) in self.columns.iter_mut().zip(&self.scratch) {
            *total = total.saturating_add(*more);
        }
    }

    pub(super) fn take(&mut self, rows: &RecordBatch) {
        self.rows = self.rows.saturating_sub(rows.num_rows() as u64);
        self.measure(rows);
        for (total, less) in self.columns.iter_mut().zip(&self.scratch) {
            *total = total.saturating_sub(*less);
        }
    }

    /// The first column above `limit`; the table's own name stands for its rows.
    pub(super) fn beyond(
        &self,
        table: &'static str,
        fields: &Fields,
        limit: u64,
    ) -> Option<String> {
        if self.rows > limit {
            return Some(table.to_owned());
        }
        let column = self.columns.iter().position(|&total| total > limit)?;
        let mut names = Vec::new();
        for field in fields {
            name(field.name(), field.data_type(), &mut names);
        }
        Some(names.into_iter().nth(column).unwrap_or_default())
    }

    /// For tests: rows, then the columns' sizes.
    #[cfg(test)]
    pub(super) fn numbers(&self) -> (u64, &[u64]) {
        (self.rows, &self.columns)
    }

    fn measure(&mut self, rows: &RecordBatch) {
        self.scratch.clear();
        for column in rows.columns() {
            measure(column.as_ref(), &[0..column.len()], &mut self.scratch);
        }
        // Columns are only ever appended (A4).
        if self.columns.len() < self.scratch.len() {
            self.columns.resize(self.scratch.len(), 0);
        }
    }
}

/// The sizes of the rows in `ranges`: one number for each name of [`name`]. What lies hidden under a null does not count:
/// some encoders keep it and some do not, and a sum of what comes and goes must not drift.
fn measure(array: &dyn Array, ranges: &[Range<usize>], out: &mut Vec<u64>) {
    let valid;
    let ranges = match array.nulls().filter(|nulls| nulls.null_count() > 0) {
        Some(nulls) => {
            valid = without_nulls(nulls, ranges);
            valid.as_slice()
        }
        None => ranges,
    };
    match array.data_type() {
        DataType::Utf8 => out.push(total(&spans(
            array.as_string::<i32>().value_offsets(),
            ranges,
        ))),
        DataType::Binary => out.push(total(&spans(
            array.as_binary::<i32>().value_offsets(),
            ranges,
        ))),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let items = spans(list.value_offsets(), ranges);
            out.push(total(&items));
            measure(list.values().as_ref(), &items, out);
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let items = spans(map.value_offsets(), ranges);
            out.push(total(&items));
            measure(map.entries(), &items, out);
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            let items = spans(list.value_offsets(), ranges);
            measure(list.values().as_ref(), &items, out);
        }
        DataType::FixedSizeList(_, size) => {
            let size = usize::try_from(*size).unwrap_or(0);
            let items: Vec<_> = ranges
                .iter()
                .map(|rows| rows.start * size..rows.end * size)
                .collect();
            measure(array.as_fixed_size_list().values().as_ref(), &items, out);
        }
        DataType::Struct(_) => {
            for column in array.as_struct().columns() {
                measure(column.as_ref(), ranges, out);
            }
        }
        _ => {}
    }
}

/// The parts of `ranges` that are not null.
fn without_nulls(nulls: &NullBuffer, ranges: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut valid = Vec::new();
    for rows in ranges {
        let within = nulls.slice(rows.start, rows.len());
        let runs = within.valid_slices();
        valid.extend(runs.map(|(start, end)| rows.start + start..rows.start + end));
    }
    valid
}

/// What `ranges` of rows span by their offsets, neighbours joined.
fn spans<O: OffsetSizeTrait>(offsets: &[O], ranges: &[Range<usize>]) -> Vec<Range<usize>> {
    let at = |row: usize| offsets.get(row).map_or(0, |at| at.as_usize());
    let mut spans: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for rows in ranges {
        let (start, end) = (at(rows.start), at(rows.end));
        match spans.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => spans.push(start..end),
        }
    }
    spans
}

fn total(spans: &[Range<usize>]) -> u64 {
    spans.iter().map(|span| span.len() as u64).sum()
}

/// What [`measure`] measures, by name.
fn name(path: &str, data_type: &DataType, out: &mut Vec<String>) {
    match data_type {
        DataType::Utf8 | DataType::Binary => out.push(path.to_owned()),
        DataType::List(item) | DataType::Map(item, _) => {
            out.push(path.to_owned());
            name(&format!("{path}.{}", item.name()), item.data_type(), out);
        }
        DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            name(&format!("{path}.{}", item.name()), item.data_type(), out);
        }
        DataType::Struct(fields) => {
            for field in fields {
                name(&format!("{path}.{}", field.name()), field.data_type(), out);
            }
        }
        _ => {}
    }
}
