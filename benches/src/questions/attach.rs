//! What a new reader pays before its first row.

use super::{BUDGET, Published, Say, time};
use crate::goal::Line;
use crate::keys::{grouped, task};
use crate::measure::{each, timed};
use crate::sample::Sample;
use crate::{Failure, Setting};

/// Opens, takes the latest snapshot, and looks up one row, each time anew.
pub fn ask(setting: &Setting, say: Say<'_>) -> Result<(), Failure> {
    for rows in [10_000, 1_000_000] {
        let sample = Sample::tasks(rows)?;
        let published = Published::new(setting, sample.state())?;
        let (table, key) = (sample.table(), task(rows / 2));
        let open = each(BUDGET, 5_000, || {
            let (took, snapshot) =
                timed(|| published.reader().and_then(|reader| Ok(reader.snapshot()?)));
            snapshot.map(|_| took)
        })?;
        let size = grouped(rows);
        let row = time(
            "attach",
            format!("open + first snapshot, {size} rows"),
            open,
        )
        .over("map", 1.0);
        say(Line::from(row.detail("letting it go is not part of it")));
        let first = each(BUDGET, 5_000, || {
            let (took, found) = timed(|| -> Result<_, Failure> {
                let snapshot = published.reader()?.snapshot()?;
                let found = snapshot.table(table).find(&key)?;
                Ok((snapshot, found))
            });
            found?.1.ok_or("the row is not there")?;
            Ok::<_, Failure>(took)
        })?;
        let row = time(
            "attach",
            format!("open + first row by key, {size} rows"),
            first,
        )
        .over("map", 1.0);
        say(Line::from(row.detail("letting it go is not part of it")));
    }
    Ok(())
}
