//! Durable transactions of one row: 64 writers at once, and one after the other.

use std::time::Duration;

use super::write::{self, MANY, ONE_SYNC_RATE, QUESTION, Served, done, put, rate_of};
use super::{BUDGET, Say, WHO, time};
use crate::goal::{Goal, Line};
use crate::keys::{Draw, grouped};
use crate::measure::{each, timed};
use crate::row::{Outcome, Row};
use crate::{Failure, Setting};

/// What a disk can sync at all, from many files at once: no log can.
const MANY_FILES: &str = "fdatasync of a 512-byte overwrite, 64 threads, a file each";
/// The floor that one writer alone stands beside.
const ONE: &str = "one fdatasync of a 512-byte overwrite";

/// Who has to be outdone, and by how much.
struct Rival {
    question: &'static str,
    peer: &'static str,
    /// Which floor, if it is one.
    floor: &'static str,
    /// At 10,000 tasks.
    small: Option<f64>,
    /// At 1,000,000.
    large: Option<f64>,
}

impl Rival {
    const fn floor(floor: &'static str, small: Option<f64>) -> Self {
        Self {
            question: "floor",
            peer: "machine",
            floor,
            small,
            large: None,
        }
    }

    const fn peer(peer: &'static str, small: f64, large: Option<f64>) -> Self {
        Self {
            question: QUESTION,
            peer,
            floor: "",
            small: Some(small),
            large,
        }
    }
}

const RIVALS: [Rival; 5] = [
    Rival::floor(ONE_SYNC_RATE, Some(1.5)),
    Rival::floor(MANY_FILES, None),
    Rival::peer("etcd", 2.0, Some(1.0)),
    Rival::peer("SQLite", 2.0, None),
    Rival::peer("redb", 4.0, None),
];

/// Both sizes.
pub fn ask(setting: &Setting, say: Say<'_>) -> Result<(), Failure> {
    for rows in [10_000, 1_000_000] {
        let size = grouped(rows);
        let served = Served::new(setting, rows)?;
        let puts = served.puts(MANY, rows, write::long_enough)?;
        let (rate, figure) = puts.rate()?;
        let name = format!("put, {size} rows, {MANY} writers through the socket");
        let detail = format!(
            "{:.1} transactions for each sync of the log; one took {:.0} us in the middle, {:.0} us at p99",
            puts.for_each_sync(),
            figure.median / 1e3,
            figure.p99 / 1e3
        );
        let row = Row::new(QUESTION, name, WHO, Outcome::Number(rate, "tx/s".into()));
        say(Line::from(row.over(ONE_SYNC_RATE, 1.0).detail(detail)));
        for rival in &RIVALS {
            let &Rival {
                question,
                peer,
                floor,
                small,
                large,
            } = rival;
            let rival = if question == "floor" { floor } else { peer };
            let name = format!("{MANY} writers over {rival}, {size} rows");
            let theirs = match question {
                "floor" => rate_of(setting, question, peer, floor),
                // SQLite has a row for each count of connections: the best counts.
                _ => rate_of(setting, question, peer, &format!(", {size} ")),
            };
            let Some(theirs) = theirs else {
                let why = "no rate of theirs in this run";
                say(Row::not_run(QUESTION, name, WHO, why).into());
                continue;
            };
            let row = Row::new(
                QUESTION,
                name,
                WHO,
                Outcome::Number(rate / theirs, "x".into()),
            );
            let least = if rows == 10_000 { small } else { large };
            say(match least {
                Some(least) => Line::at_least(row, least),
                None => Line::from(row),
            });
        }
        alone(setting, say, &served, rows)?;
    }
    Ok(())
}

/// One writer that waits for each answer.
fn alone(setting: &Setting, say: Say<'_>, served: &Served, rows: u64) -> Result<(), Failure> {
    let writer = served.writer()?;
    let mut draw = Draw::new(1);
    let figure = each(4 * BUDGET, 20_000, || {
        let put = put(draw.below(rows), draw.next());
        let (took, outcome) = timed(|| writer.apply(put));
        done(outcome?)?;
        Ok::<Duration, Failure>(took)
    })?;
    let size = grouped(rows);
    let name = format!("put, {size} rows, one writer through the socket");
    let median = figure.median;
    say(time(QUESTION, name, figure).over(ONE, 1.0).into());
    let floor = setting.measured.iter().find(|row| row.name == ONE);
    if let Some(Outcome::Time(floor)) = floor.map(|row| &row.outcome) {
        let more = (median - floor.median) / 1e3;
        let name = format!("one writer, {size} rows: p50 beyond one fdatasync");
        let row = Row::new(QUESTION, name, WHO, Outcome::Number(more, "us".into()));
        say(Line::at_most(row, Goal::Number(300.0)));
    }
    Ok(())
}
