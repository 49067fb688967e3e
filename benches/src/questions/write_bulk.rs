//! Many rows in one transaction: new ones, and one column of those that are there.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use sherwood_client::TableId;
use sherwood_client::write::Mode;

use super::write::{Served, done};
use super::{Published, Say, WHO, time};
use crate::goal::{Goal, Line};
use crate::keys::{Draw, task};
use crate::measure::{each, timed};
use crate::row::{Outcome, Row};
use crate::sample::Sample;
use crate::{Failure, Setting};

/// Tasks that are there before.
const ROWS: u64 = 1_000_000;
/// Rows of one put or patch.
const MANY: u64 = 100_000;
/// Times that each is done.
const TIMES: usize = 5;
/// For what is done so often.
const BUDGET: Duration = Duration::from_secs(60);

/// Puts and patches.
pub fn ask(setting: &Setting, say: Say<'_>) -> Result<(), Failure> {
    let sample = Sample::tasks(ROWS)?;
    let whole = each(BUDGET, TIMES, || {
        let (took, published) = timed(|| Published::new(setting, sample.state()));
        published.map(|_| took)
    })?;
    let name = "a full publish, 1,000,000 rows";
    say(time("bulk", name, whole.clone()).into());

    let served = Served::new(setting, ROWS)?;
    let writer = served.writer()?;
    let mut draw = Draw::new(7);
    let mut turn = 0;
    let mut patch = |contiguous: bool| {
        each(BUDGET, TIMES, || {
            turn += 1;
            let mut rows: Vec<u64> = if contiguous {
                let first = draw.below(ROWS - MANY);
                (first..first + MANY).collect()
            } else {
                some(&mut draw, ROWS)
            };
            rows.sort_unstable();
            let keys = rows.iter().map(|row| task(*row));
            let values = rows.iter().map(|row| format!("bafy{turn:04}{row:020}"));
            let batch = batch(vec![("id", strings(keys)), ("output_cid", strings(values))])?;
            let (took, outcome) =
                timed(|| writer.bulk(TableId::Tasks, Mode::Patch, &[batch], None));
            done(outcome?)?;
            Ok::<_, Failure>(took)
        })
    };
    let contiguous = patch(true)?;
    let random = patch(false)?;
    let detail = "one column of 100,000 tasks among 1,000,000, in one transaction";
    let row = time("bulk", "patch 100,000 rows, contiguous keys", contiguous);
    say(Line::at_most(row.detail(detail), Goal::Median(40e6)));
    let over = random.median / whole.median;
    let row = time("bulk", "patch 100,000 rows, random keys", random);
    say(Line::at_most(row.detail(detail), Goal::Median(300e6)));
    let row = Row::new(
        "bulk",
        "patch with random keys over a full publish",
        WHO,
        Outcome::Number(over, "x".into()),
    );
    say(Line::at_most(row, Goal::Number(3.0)));

    let sample = Sample::tasks(MANY)?;
    let whole = &sample.state().tables[TableId::Tasks as usize];
    let put = each(BUDGET, TIMES, || {
        // New ones: no key of the sample is so large.
        let mut rows = some(&mut draw, u64::MAX / 2);
        rows.sort_unstable();
        let mut columns = whole.columns().to_vec();
        columns[0] = strings(rows.into_iter().map(|row| task(row | 1 << 62)));
        let batch = RecordBatch::try_new(whole.schema(), columns)?;
        let (took, outcome) = timed(|| writer.bulk(TableId::Tasks, Mode::Put, &[batch], None));
        done(outcome?)?;
        Ok::<_, Failure>(took)
    })?;
    let rate = MANY as f64 / (put.median / 1e9);
    say(Line::from(
        time("bulk", "put 100,000 rows, random new keys", put).detail(detail),
    ));
    let row = Row::new(
        "bulk",
        "rows put in puts of 100,000",
        WHO,
        Outcome::Number(rate, "rows/s".into()),
    );
    say(Line::at_least(row, 300_000.0));
    Ok(())
}

/// [`MANY`] different numbers below `below`.
fn some(draw: &mut Draw, below: u64) -> Vec<u64> {
    let mut found = std::collections::HashSet::new();
    while (found.len() as u64) < MANY {
        found.insert(draw.below(below));
    }
    found.into_iter().collect()
}

fn strings(values: impl Iterator<Item = String>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch, Failure> {
    Ok(RecordBatch::try_from_iter(columns)?)
}
