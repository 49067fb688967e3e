//! Look-up by key with uniform random keys: the same keys, in the same order,
//! that the peers are asked for.

use arrow_array::cast::AsArray;

use super::{BUDGET, Published, Say, time};
use crate::goal::{self, Line};
use crate::keys::{Questions, grouped};
use crate::measure::batched;
use crate::sample::Sample;
use crate::{Failure, Setting};

/// Questions asked before they repeat.
const QUESTIONS: usize = 1 << 16;

/// Both sizes, of a snapshot that is held and of the latest.
pub fn ask(setting: &Setting, say: Say<'_>) -> Result<(), Failure> {
    let sizes: &[u64] = if setting.large {
        &[10_000, 1_000_000, 10_000_000]
    } else {
        &[10_000, 1_000_000]
    };
    for &rows in sizes {
        let sample = Sample::tasks(rows)?;
        let published = Published::new(setting, sample.state())?;
        let (size, table) = (grouped(rows), sample.table());
        drop(sample);
        let reader = published.reader()?;
        let held = reader.snapshot()?;
        let held = held.table(table);
        let mut questions = Questions::uniform(rows, QUESTIONS, 7);
        for _ in 0..QUESTIONS {
            let key = questions.ask();
            let (batch, row) = held
                .find(key)?
                .ok_or_else(|| format!("{key} was not found"))?;
            let found = batch.column(0).as_string::<i32>().value(row);
            if found != key {
                return Err(format!("{key} was asked for and {found} was found").into());
            }
        }
        let floor = if rows <= 10_000 {
            "random load, 10,000 rows"
        } else {
            "random load, 1,000,000 rows"
        };
        let figure = batched(BUDGET, || held.find(questions.ask()).is_ok());
        let row = time("lookup", format!("find, {size} rows"), figure)
            .over(floor, 1.0)
            .detail("one snapshot held throughout");
        say(if rows == 1_000_000 {
            Line::at_most(row, goal::LOOKUP)
        } else {
            Line::from(row)
        });
        let mut handle = reader.handle();
        let figure = batched(BUDGET, || {
            handle.latest().table(table).find(questions.ask()).is_ok()
        });
        let row = time("lookup", format!("latest + find, {size} rows"), figure)
            .over(floor, 1.0)
            .detail("the latest snapshot for each look-up");
        say(Line::from(row));
    }
    Ok(())
}
