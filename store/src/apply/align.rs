//! Where changed keys stand among the old ones, and the runs of rows that follow from it.

use std::ops::Range;

use arrow_array::{Array, StringArray};
use sherwood_shared::gathered::Run;

/// Where one changed key stands among the old keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The first old row whose key is not below it.
    at: usize,
    /// Is that its own row?
    found: bool,
    delete: bool,
}

/// The places of all changed keys, in key order.
#[derive(Debug)]
pub(super) struct Alignment {
    places: Vec<Place>,
    old_rows: usize,
    rows: usize,
}

/// Where the value of a changed row comes from, in one column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    /// The old row; null if there is none.
    Keep,
    /// Null, whatever the old row has.
    Null,
    /// A row of a source.
    From(u32, usize),
}

impl Alignment {
    /// `changes`: keys, ascending, and whether each is a deletion.
    pub(super) fn new<'a>(
        old: &StringArray,
        changes: impl ExactSizeIterator<Item = (&'a str, bool)>,
    ) -> Self {
        let mut places = Vec::with_capacity(changes.len());
        let mut from = 0;
        let mut rows = old.len();
        for (key, delete) in changes {
            let at = gallop(old, from, key);
            let found = at < old.len() && old.value(at) == key;
            match (delete, found) {
                (true, true) => rows -= 1,
                (false, false) => rows += 1,
                _ => {}
            }
            places.push(Place { at, found, delete });
            from = at;
        }
        Self {
            places,
            old_rows: old.len(),
            rows,
        }
    }

    /// Rows after the merge.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Does any place change anything?
    pub(super) fn is_nothing(&self) -> bool {
        self.places.iter().all(|place| place.delete && !place.found)
    }

    /// Does no row come or go?
    pub(super) fn is_in_place(&self) -> bool {
        self.places.iter().all(|place| place.found != place.delete)
    }

    /// The runs of a column. `old`: the number of the source that holds the old rows, if the table
    /// had the column. `cell`: what becomes of the change with this number.
    pub(super) fn runs(&self, old: Option<u32>, cell: impl Fn(usize) -> Cell) -> Vec<Run> {
        let mut runs = Vec::with_capacity(self.places.len() * 2 + 1);
        let mut copied = 0;
        let keep = |runs: &mut Vec<Run>, rows: Range<usize>| {
            push(runs, Run::of(old, rows.start, rows.len()));
        };
        for (number, place) in self.places.iter().enumerate() {
            if place.delete {
                if place.found {
                    keep(&mut runs, copied..place.at);
                    copied = place.at + 1;
                }
                continue;
            }
            let cell = cell(number);
            if cell == Cell::Keep && place.found {
                continue;
            }
            keep(&mut runs, copied..place.at);
            push(
                &mut runs,
                match cell {
                    Cell::From(source, row) => Run::of(Some(source), row, 1),
                    Cell::Keep | Cell::Null => Run::of(None, 0, 1),
                },
            );
            copied = place.at + usize::from(place.found);
        }
        keep(&mut runs, copied..self.old_rows);
        runs
    }
}

/// Appends a run, or lengthens the last one by it.
fn push(runs: &mut Vec<Run>, run: Run) {
    if run.rows() == 0 {
        return;
    }
    match runs.last_mut() {
        Some(last) if last.goes_on(&run) => last.lengthen(run.rows()),
        _ => runs.push(run),
    }
}

/// The first row at or behind `from` whose key is not below `key`; looks near `from` first.
fn gallop(keys: &StringArray, from: usize, key: &str) -> usize {
    let (mut low, mut step) = (from, 1);
    let mut high = from;
    while high < keys.len() && keys.value(high) < key {
        low = high + 1;
        high = from.saturating_add(step);
        step *= 2;
    }
    let mut high = high.min(keys.len());
    while low < high {
        let middle = low + (high - low) / 2;
        if keys.value(middle) < key {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
