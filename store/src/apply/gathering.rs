//! Merged rows, told and not made: where each column has its values.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use sherwood_shared::gathered::{Column, Run};

/// The rows that a merge would make.
#[derive(Clone, Debug)]
pub struct Gathering {
    rows: usize,
    columns: Vec<Gathered>,
    /// Of all columns, one after the other.
    sources: Vec<ArrayRef>,
    /// By which upserts have a column: most columns have theirs in common.
    runs: Vec<(Vec<Option<u32>>, Vec<Run>)>,
}

#[derive(Clone, Copy, Debug)]
struct Gathered {
    /// Where its sources begin; the first of them is the old column.
    first: usize,
    runs: usize,
}

impl Gathering {
    /// Of columns that are still to be added.
    pub(super) fn new(rows: usize, columns: usize) -> Self {
        Self {
            rows,
            columns: Vec::with_capacity(columns),
            sources: Vec::with_capacity(columns * 2),
            runs: Vec::new(),
        }
    }

    /// Adds a column with its old values, and of each upsert those that `values` gives. `runs` are made once for all columns that the same
    /// upserts have.
    pub(super) fn add(
        &mut self,
        old: &ArrayRef,
        values: impl Iterator<Item = Option<ArrayRef>>,
        runs: impl FnOnce(&[Option<u32>]) -> Vec<Run>,
    ) {
        let first = self.sources.len();
        self.sources.push(ArrayRef::clone(old));
        let mut next = 0;
        let of = values.map(|values| {
            self.sources.push(values?);
            next += 1;
            Some(next)
        });
        let of: Vec<Option<u32>> = of.collect();
        let known = self.runs.iter().position(|(known, _)| *known == of);
        let runs = known.unwrap_or_else(|| {
            let runs = runs(&of);
            self.runs.push((of, runs));
            self.runs.len() - 1
        });
        self.columns.push(Gathered { first, runs });
    }

    /// How many rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The columns. The first source of each is the old column.
    pub fn columns(&self) -> impl Iterator<Item = Column<'_>> {
        let ends = self.columns.iter().skip(1).map(|next| next.first);
        let ends = ends.chain(std::iter::once(self.sources.len()));
        self.columns.iter().zip(ends).map(|(column, end)| {
            let sources = &self.sources[column.first..end];
            Column {
                data_type: sources[0].data_type(),
                sources,
                runs: &self.runs[column.runs].1,
            }
        })
    }

    /// The key of the first row; `None` without rows.
    #[must_use]
    pub fn first_key(&self) -> Option<&str> {
        let keys = self.columns().next()?;
        let first = keys.runs.first()?;
        let source = keys.sources.get(first.source()?)?;
        Some(source.as_string_opt::<i32>()?.value(first.start()))
    }
}
