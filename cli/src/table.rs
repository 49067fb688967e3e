//! Aligned columns for people: widths from the values, no value cut, no colour.

use std::io::{self, Write};

/// A column's heading and on which side its values stand.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// In capitals, so that it is told from values.
    pub heading: &'static str,
    /// Numbers stand on the right.
    pub right: bool,
}

/// A column of text.
pub const fn left(heading: &'static str) -> Column {
    Column {
        heading,
        right: false,
    }
}

/// A column of numbers.
pub const fn right(heading: &'static str) -> Column {
    Column {
        heading,
        right: true,
    }
}

/// Collects the widths; rows are made twice and never held all at once.
#[derive(Debug)]
pub struct Layout<const N: usize> {
    columns: [Column; N],
    widths: [usize; N],
}

impl<const N: usize> Layout<N> {
    /// As wide as the headings.
    pub fn new(columns: [Column; N]) -> Self {
        let widths = columns.map(|column| column.heading.len());
        Self { columns, widths }
    }

    /// Makes room for a row.
    pub fn fit(&mut self, row: &[String; N]) {
        for (width, cell) in self.widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }

    /// Writes the headings.
    pub fn write_headings(&self, out: &mut impl Write) -> io::Result<()> {
        self.write(out, &self.columns.map(|column| column.heading.to_owned()))
    }

    /// Writes a row that was fitted before.
    pub fn write(&self, out: &mut impl Write, row: &[String; N]) -> io::Result<()> {
        let mut pending = 0;
        for (place, cell) in row.iter().enumerate() {
            let room = self.widths[place].saturating_sub(cell.chars().count());
            let (before, after) = if self.columns[place].right {
                (room, 0)
            } else {
                (0, room)
            };
            write!(out, "{:1$}{cell}", "", pending + before)?;
            // Nothing is padded at the end of a line.
            pending = after + 2;
        }
        writeln!(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_value_and_lines_end_with_one() {
        let rows = [["a", "7", "x"], ["größer", "1000", "y"]].map(|row| row.map(str::to_owned));
        let mut layout = Layout::new([left("ID"), right("CPUS"), left("NOTE")]);
        rows.iter().for_each(|row| layout.fit(row));
        let mut out = Vec::new();
        layout.write_headings(&mut out).expect("to memory");
        for row in &rows {
            layout.write(&mut out, row).expect("to memory");
        }
        let text = String::from_utf8(out).expect("UTF-8");
        assert_eq!(
            text,
            "ID      CPUS  NOTE\na          7  x\ngrößer  1000  y\n"
        );
    }
}
