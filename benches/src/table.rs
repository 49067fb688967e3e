//! The table: on stdout, as Markdown, and as JSON.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::goal::{Goal, Line};
use crate::machine::Machine;
use crate::row::Outcome;

/// The questions, in the order of the table.
pub const QUESTIONS: [(&str, &str); 14] = [
    ("floor", "Floors of this run"),
    ("acquire", "Acquire the latest value, unchanged"),
    ("refresh", "Refresh after a publish"),
    ("lookup", "Look-up by key, uniform random keys"),
    ("publish", "Publish one changed row"),
    ("publish-all", "Publish the whole"),
    ("wake", "Wake a waiting reader in another process"),
    ("attach", "Attach: open, and the first snapshot"),
    ("memory", "Memory over live bytes"),
    ("transact", "Durable transactions of one row"),
    ("bulk", "Bulk writes through the socket, durable"),
    ("checkpoint", "Writes while a checkpoint is written"),
    (
        "write-memory",
        "Memory of the daemon besides the snapshot file",
    ),
    ("start", "A start after a crash"),
];

const HEAD: [&str; 8] = [
    "who", "what", "min", "median", "p99", "floor", "to reach", "reached",
];

/// All of a run, ready to be shown.
pub struct Table<'a> {
    machine: &'a Machine,
    lines: &'a [Line],
}

impl<'a> Table<'a> {
    /// Of a machine and what was measured on it.
    pub fn new(machine: &'a Machine, lines: &'a [Line]) -> Self {
        Self { machine, lines }
    }

    /// The floor a line stands beside: its name, its size, and how many times
    /// it the line took.
    fn floor(&self, line: &Line) -> Option<(String, f64, f64)> {
        let (name, times) = line.row.floor.as_ref()?;
        let found = self
            .lines
            .iter()
            .find(|floor| floor.row.question == "floor" && &floor.row.name == name)?;
        match (&found.row.outcome, &line.row.outcome) {
            (Outcome::Time(floor), Outcome::Time(mine)) => {
                let floor = floor.median * times;
                Some((name.clone(), floor, mine.median / floor))
            }
            // Rates: the floor's is what the disk gives without any other work.
            (Outcome::Number(floor, unit), Outcome::Number(mine, same)) if unit == same => {
                let floor = floor * times;
                Some((name.clone(), floor, mine / floor))
            }
            _ => None,
        }
    }

    /// The cells of a line.
    fn cells(&self, line: &Line) -> [String; 8] {
        let row = &line.row;
        let who = if row.version == "-" {
            row.peer.clone()
        } else {
            format!("{} {}", row.peer, row.version)
        };
        let [min, median, p99] = match &row.outcome {
            Outcome::Time(figure) => [figure.min, figure.median, figure.p99].map(time),
            Outcome::Number(value, unit) => {
                [String::new(), format!("{value:.2} {unit}"), String::new()]
            }
            Outcome::NotRun(why) => [String::new(), format!("not run: {why}"), String::new()],
        };
        let floor = self
            .floor(line)
            .map(|(name, floor, ratio)| match &row.outcome {
                Outcome::Number(_, unit) => {
                    format!("{} {unit} {name}, x{}", short(floor), short(ratio))
                }
                _ => format!("{} {name}, x{}", time(floor), short(ratio)),
            });
        let goal = line.goal.map(|goal| match goal {
            Goal::Median(most) => time(most),
            Goal::Number(most) => format!("{most}"),
            Goal::AtLeast(least) => format!("at least {least}"),
        });
        let reached = line
            .reached()
            .map(|reached| if reached { "yes" } else { "NO" }.to_owned());
        [
            who,
            row.name.clone(),
            min,
            median,
            p99,
            floor.unwrap_or_default(),
            goal.unwrap_or_default(),
            reached.unwrap_or_default(),
        ]
    }

    /// The lines of each question that has some.
    fn groups(&self) -> impl Iterator<Item = (&'static str, Vec<&'a Line>)> + '_ {
        QUESTIONS.into_iter().filter_map(|(question, title)| {
            let lines: Vec<_> = self
                .lines
                .iter()
                .filter(|line| line.row.question == question)
                .collect();
            (!lines.is_empty()).then_some((title, lines))
        })
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for (name, fact) in &self.machine.facts {
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(out, "{name}: {fact}");
        }
        for (title, lines) in self.groups() {
            let mut rows = vec![HEAD.map(str::to_owned)];
            rows.extend(lines.iter().map(|line| self.cells(line)));
            // A reason for not running is long, and pushes nothing aside.
            let fits = |cell: &&String| !cell.starts_with("not run");
            let width = |column: usize| {
                rows.iter()
                    .map(|row| &row[column])
                    .filter(fits)
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            };
            let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
            let _ = writeln!(out, "\n{title}");
            for row in &rows {
                let mut text = String::from(" ");
                for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                    let _ = match column {
                        2..=4 if fits(&cell) => write!(text, " {cell:>width$} "),
                        _ => write!(text, " {cell:<width$} "),
                    };
                }
                let _ = writeln!(out, "{}", text.trim_end());
            }
        }
        out
    }

    /// For a report: the same, with the details as notes below each group.
    pub fn markdown(&self) -> String {
        let mut out = String::from("# Benchmarks\n\n");
        for (name, fact) in &self.machine.facts {
            let _ = writeln!(out, "- {name}: {fact}");
        }
        for (title, lines) in self.groups() {
            let _ = writeln!(out, "\n## {title}\n\n| {} | note |", HEAD.join(" | "));
            let _ = writeln!(out, "|---|---|--:|--:|--:|---|---|---|---|");
            for line in lines {
                let cells = self.cells(line).map(|cell| cell.replace('|', "\\|"));
                let _ = writeln!(
                    out,
                    "| {} | {} |",
                    cells.join(" | "),
                    line.row.detail.replace('|', "\\|")
                );
            }
        }
        out
    }

    /// For a program: the facts, and every line with what it stands beside.
    pub fn json(&self) -> String {
        let facts: Map<String, Value> = self
            .machine
            .facts
            .iter()
            .map(|(name, fact)| (name.replace(' ', "_"), json!(fact)))
            .collect();
        let lines: Vec<Value> = self.lines.iter().map(|line| self.line_json(line)).collect();
        format!("{:#}\n", json!({ "run": facts, "lines": lines }))
    }

    fn line_json(&self, line: &Line) -> Value {
        let mut value = line.row.to_json();
        if let Some((_, floor, ratio)) = self.floor(line) {
            let unit = match line.row.outcome {
                Outcome::Number(..) => "value",
                _ => "ns",
            };
            value["floor"][unit] = json!(floor);
            value["floor"]["ratio"] = json!(ratio);
        }
        if let Some(goal) = line.goal {
            value["to_reach"] = match goal {
                Goal::Median(most) => json!({ "median_ns": most }),
                Goal::Number(most) => json!({ "value": most }),
                Goal::AtLeast(least) => json!({ "at_least": least }),
            };
            value["reached"] = json!(line.reached());
        }
        value
    }
}

/// A time in the unit that suits it.
fn time(nanos: f64) -> String {
    match nanos {
        n if n.is_nan() => "?".to_owned(),
        n if n.abs() < 1e3 => format!("{} ns", short(n)),
        n if n.abs() < 1e6 => format!("{} us", short(n / 1e3)),
        n if n.abs() < 1e9 => format!("{} ms", short(n / 1e6)),
        n => format!("{} s", short(n / 1e9)),
    }
}

/// Three digits that count.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 99.95 => format!("{value:.0}"),
        v if v >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Figure;
    use crate::row::Row;

    fn line(question: &str, name: &str, median: f64) -> Row {
        let figure = Figure {
            min: median,
            median,
            p99: median,
            samples: 1,
            batch: 1,
        };
        Row::new(question, name, ("ours", "1"), Outcome::Time(figure))
    }

    #[test]
    fn a_line_stands_beside_its_floor_and_its_goal() {
        let machine = Machine {
            facts: vec![("machine", "one".into())],
        };
        let lines = [
            Line::from(line("floor", "load", 0.5)),
            Line::at_most(
                line("acquire", "latest", 2.0).over("load", 2.0),
                Goal::Median(3.0),
            ),
            Line::at_most(
                line("acquire", "slow", 4.0).over("load", 1.0),
                Goal::Median(3.0),
            ),
            Line::from(Row::not_run("acquire", "peer", ("them", "-"), "absent")),
        ];
        let table = Table::new(&machine, &lines);
        let cells = |index: usize| table.cells(&lines[index])[5..].join("; ");
        assert_eq!(cells(1), "1.00 ns load, x2.00; 3.00 ns; yes");
        assert_eq!(cells(2), "0.50 ns load, x8.00; 3.00 ns; NO");
        assert_eq!(cells(3), "; ; ");
        assert!(table.text().contains("not run: absent"), "{}", table.text());
    }

    #[test]
    fn a_rate_stands_beside_the_rate_of_its_floor_and_is_to_be_at_least_its_goal() {
        let machine = Machine {
            facts: vec![("machine", "one".into())],
        };
        let rate = |question: &str, name: &str, value: f64| {
            let outcome = Outcome::Number(value, "tx/s".into());
            Row::new(question, name, ("ours", "1"), outcome)
        };
        let lines = [
            Line::from(rate("floor", "sync", 500.0)),
            Line::at_least(rate("transact", "fast", 1000.0).over("sync", 1.0), 750.0),
            Line::at_least(rate("transact", "slow", 250.0).over("sync", 1.0), 750.0),
        ];
        let table = Table::new(&machine, &lines);
        let cells = |index: usize| table.cells(&lines[index])[5..].join("; ");
        assert_eq!(cells(1), "500 tx/s sync, x2.00; at least 750; yes");
        assert_eq!(cells(2), "500 tx/s sync, x0.50; at least 750; NO");
    }

    #[test]
    fn times_are_shown_in_the_unit_that_suits_them() {
        for (nanos, shown) in [
            (0.25, "0.25 ns"),
            (999.0, "999 ns"),
            (1_500.0, "1.50 us"),
            (-12_340.0, "-12.3 us"),
            (42_788_249.0, "42.8 ms"),
            (2e9, "2.00 s"),
        ] {
            assert_eq!(time(nanos), shown, "{nanos}");
        }
    }
}
