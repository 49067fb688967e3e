//! How large each column of a table is in the document's form, kept from publish to publish (W10).
//!
//! There a table is one list in one row, and each of its columns one page, whose bytes are counted with 31 bits: values, their lengths, and
//! the levels that say which of them are null and where lists begin. A state that outgrew that could be published and never be written to
//! a checkpoint again.

use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, OffsetSizeTrait, RecordBatch};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, Fields};
use sherwood_store::Gathering;

/// What a column may come to in a checkpoint: there it is one page, whose length, compressed or not, is an `i32`. The rest is for what
/// cannot be compressed and becomes a little longer by trying.
pub(super) const LIMIT: u64 = i32::MAX as u64 - (16 << 20);
/// For the length of a text in a page.
const LENGTH: u64 = 4;
/// For the levels of a value in a page: how deep in lists and nulls it stands. A byte holds those of any column of the document; two hold
/// those of whatever others add.
const LEVELS: u64 = 2;

/// The bytes in a page of each column that has values, the items of each list column, in the order of the columns, nested
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
        self.more(0);
    }

    pub(super) fn take(&mut self, rows: &RecordBatch) {
        self.rows = self.rows.saturating_sub(rows.num_rows() as u64);
        self.measure(rows);
        self.less(0);
    }

    /// What changes when a chunk is gathered anew: measures the rows that come and go, and not those that stay.
    pub(super) fn change(&mut self, rows: &Gathering) {
        let (mut first, mut old_rows) = (0, 0);
        for column in rows.columns() {
            let Some(old) = column.sources.first() else {
                continue;
            };
            old_rows = old.len() as u64;
            let end = first + leaves(column.data_type);
            // Columns are only ever appended (A4).
            if self.columns.len() < end {
                self.columns.resize(end, 0);
            }
            let mut stays = 0;
            for run in column.runs {
                match run.source() {
                    Some(0) => {
                        self.subtract(first, old, stays..run.start());
                        stays = run.start() + run.rows();
                    }
                    Some(source) => {
                        let rows = run.start()..run.start() + run.rows();
                        self.measure_rows(&column.sources[source], rows);
                        self.more(first);
                    }
                    None => {
                        self.scratch.clear();
                        measure_nulls(column.data_type, run.rows() as u64, &mut self.scratch);
                        self.more(first);
                    }
                }
            }
            self.subtract(first, old, stays..old.len());
            first = end;
        }
        self.rows = (self.rows + rows.rows() as u64).saturating_sub(old_rows);
    }

    fn subtract(&mut self, first: usize, old: &ArrayRef, rows: Range<usize>) {
        self.measure_rows(old, rows);
        self.less(first);
    }

    fn measure_rows(&mut self, column: &ArrayRef, rows: Range<usize>) {
        self.scratch.clear();
        if !rows.is_empty() {
            let levels = rows.len() as u64;
            measure(
                column.as_ref(),
                std::slice::from_ref(&rows),
                levels,
                &mut self.scratch,
            );
        }
    }

    /// Adds what was measured to the columns from `first` on.
    fn more(&mut self, first: usize) {
        let totals = self.columns.iter_mut().skip(first);
        for (total, more) in totals.zip(&self.scratch) {
            *total = total.saturating_add(*more);
        }
    }

    fn less(&mut self, first: usize) {
        let totals = self.columns.iter_mut().skip(first);
        for (total, less) in totals.zip(&self.scratch) {
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

    /// For tests: the total of a column by its path.
    #[cfg(test)]
    pub(super) fn of(&self, fields: &Fields, column: &str) -> Option<u64> {
        let mut names = Vec::new();
        for field in fields {
            name(field.name(), field.data_type(), &mut names);
        }
        let at = names.iter().position(|name| name == column)?;
        self.columns.get(at).copied()
    }

    fn measure(&mut self, rows: &RecordBatch) {
        self.scratch.clear();
        for column in rows.columns() {
            let levels = column.len() as u64;
            measure(
                column.as_ref(),
                std::slice::from_ref(&(0..column.len())),
                levels,
                &mut self.scratch,
            );
        }
        // Columns are only ever appended (A4).
        if self.columns.len() < self.scratch.len() {
            self.columns.resize(self.scratch.len(), 0);
        }
    }
}

/// The sizes of the rows in `ranges`: one number for each name of [`name`]. What lies hidden under a null does not count:
/// some encoders keep it and some do not, and a sum of what comes and goes must not drift. `levels`: as many as there are at most, one
/// for each value, null and empty list.
fn measure(array: &dyn Array, ranges: &[Range<usize>], levels: u64, out: &mut Vec<u64>) {
    let valid;
    let ranges = match array.nulls().filter(|nulls| nulls.null_count() > 0) {
        Some(nulls) => {
            valid = without_nulls(nulls, ranges);
            valid.as_slice()
        }
        None => ranges,
    };
    let texts = |bytes: u64| bytes + LENGTH * total(ranges) + LEVELS * levels;
    match array.data_type() {
        DataType::Utf8 => out.push(texts(total(&spans(
            array.as_string::<i32>().value_offsets(),
            ranges,
        )))),
        DataType::Binary => out.push(texts(total(&spans(
            array.as_binary::<i32>().value_offsets(),
            ranges,
        )))),
        DataType::LargeUtf8 => out.push(texts(total(&spans(
            array.as_string::<i64>().value_offsets(),
            ranges,
        )))),
        DataType::LargeBinary => out.push(texts(total(&spans(
            array.as_binary::<i64>().value_offsets(),
            ranges,
        )))),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let items = spans(list.value_offsets(), ranges);
            out.push(total(&items));
            let levels = levels + total(&items);
            measure(list.values().as_ref(), &items, levels, out);
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let items = spans(map.value_offsets(), ranges);
            out.push(total(&items));
            measure(map.entries(), &items, levels + total(&items), out);
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            let items = spans(list.value_offsets(), ranges);
            out.push(total(&items));
            let levels = levels + total(&items);
            measure(list.values().as_ref(), &items, levels, out);
        }
        DataType::FixedSizeList(_, size) => {
            let size = usize::try_from(*size).unwrap_or(0);
            let items: Vec<_> = ranges
                .iter()
                .map(|rows| rows.start * size..rows.end * size)
                .collect();
            out.push(total(&items));
            let levels = levels + total(&items);
            let values = array.as_fixed_size_list().values();
            measure(values.as_ref(), &items, levels, out);
        }
        DataType::Struct(_) => {
            for column in array.as_struct().columns() {
                measure(column.as_ref(), ranges, levels, out);
            }
        }
        other => out.push(width(other) * total(ranges) + LEVELS * levels),
    }
}

/// How many numbers [`measure`] makes of a column.
fn leaves(data_type: &DataType) -> usize {
    match data_type {
        DataType::List(item)
        | DataType::Map(item, _)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _) => 1 + leaves(item.data_type()),
        DataType::Struct(fields) => fields.iter().map(|field| leaves(field.data_type())).sum(),
        _ => 1,
    }
}

/// What [`measure`] makes of nulls.
fn measure_nulls(data_type: &DataType, rows: u64, out: &mut Vec<u64>) {
    match data_type {
        DataType::List(item)
        | DataType::Map(item, _)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _) => {
            out.push(0);
            measure_nulls(item.data_type(), rows, out);
        }
        DataType::Struct(fields) => {
            for field in fields {
                measure_nulls(field.data_type(), rows, out);
            }
        }
        _ => out.push(LEVELS * rows),
    }
}

/// Bytes of a value of fixed width in a page; more for the few that are packed.
fn width(data_type: &DataType) -> u64 {
    match data_type {
        DataType::FixedSizeBinary(width) => u64::try_from(*width).unwrap_or(0),
        // Parquet has no integers below 32 bits.
        other => other.primitive_width().unwrap_or(1).max(4) as u64,
    }
}

/// The parts of `ranges` that are not null.
fn without_nulls(nulls: &NullBuffer, ranges: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut valid = Vec::new();
    if nulls.null_count() == nulls.len() {
        return valid;
    }
    if let [all] = ranges
        && *all == (0..nulls.len())
    {
        valid.extend(nulls.valid_slices().map(|(start, end)| start..end));
        return valid;
    }
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
        DataType::List(item)
        | DataType::Map(item, _)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _) => {
            out.push(path.to_owned());
            name(&format!("{path}.{}", item.name()), item.data_type(), out);
        }
        DataType::Struct(fields) => {
            for field in fields {
                name(&format!("{path}.{}", field.name()), field.data_type(), out);
            }
        }
        _ => out.push(path.to_owned()),
    }
}
