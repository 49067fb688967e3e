//! Look-up by key with uniform random keys: the same keys, in the same order,
//! that the peers are asked for.
//!
//! Each look-up reads one column of the row it found.

use sherwood_client::{ReadError, Snapshot};
use sherwood_shared::schema::TableId;

use super::{BUDGET, Published, Say, time};
use crate::goal::{self, Line};
use crate::keys::{Questions, grouped};
use crate::measure::batched;
use crate::sample::Sample;
use crate::{Failure, Setting};

/// Questions asked before they repeat.
const QUESTIONS: usize = 1 << 16;

/// All sizes, of a snapshot that is held and of the latest.
pub fn ask(setting: &Setting, say: Say<'_>) -> Result<(), Failure> {
    let sizes: &[u64] = if setting.large {
        &[10_000, 1_000_000, 10_000_000]
    } else {
        &[10_000, 1_000_000]
    };
    for &rows in sizes {
        let published = Published::new(setting, Sample::tasks(rows)?.state())?;
        let reader = published.reader()?;
        let (held, mut handle) = (reader.snapshot()?, reader.handle()?);
        let mut questions = Questions::uniform(rows, QUESTIONS, 7);
        for _ in 0..QUESTIONS {
            let key = questions.ask();
            let row = held
                .task(key)?
                .ok_or_else(|| format!("{key} was not found"))?;
            if row.id() != key {
                return Err(format!("{key} was asked for and {} was found", row.id()).into());
            }
        }
        let size = grouped(rows);
        let floor = if rows <= 10_000 {
            "random load, 10,000 rows"
        } else {
            "random load, 1,000,000 rows"
        };

        let figure = batched(BUDGET, || status(&held, questions.ask()));
        let row = time("lookup", format!("task, {size} rows"), figure)
            .over(floor, 1.0)
            .detail("one snapshot held throughout");
        say(if rows == 1_000_000 {
            Line::at_most(row, goal::LOOKUP)
        } else {
            Line::from(row)
        });

        let figure = batched(BUDGET, || status(handle.latest(), questions.ask()));
        let row = time("lookup", format!("latest + task, {size} rows"), figure).over(floor, 1.0);
        say(Line::from(
            row.detail("the latest snapshot for each look-up"),
        ));

        let table = held.table(TableId::Tasks);
        let figure = batched(BUDGET, || table.find(questions.ask()).is_ok());
        let row = time("lookup", format!("find, {size} rows"), figure).over(floor, 1.0);
        say(Line::from(
            row.detail("gives a record batch of its own and a row number"),
        ));
    }
    Ok(())
}

/// Bytes of the status of a task.
fn status(snapshot: &Snapshot, key: &str) -> Result<usize, ReadError> {
    let task = snapshot.task(key)?;
    Ok(task.and_then(|task| task.status()).map_or(0, str::len))
}
