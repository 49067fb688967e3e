//! What a publish costs the daemon: of one changed row, and of the whole.
//!
//! A publish is timed from the rows on the heap to the new head being stored. Of one
//! changed row that is the row itself, as a writer hands it over; building its chunk
//! anew is part of the time, making the row is not. Of a whole state, as a foreign
//! writer's Parquet file becomes one, finding what differs is part of it.

use super::{BUDGET, Published, Say, WHO, ratio, time};
use crate::goal::{self, Line};
use crate::keys::{Draw, grouped};
use crate::measure::{Figure, each, timed};
use crate::row::{Outcome, Row};
use crate::sample::Sample;
use crate::{Failure, Setting};

/// All sizes.
pub fn ask(setting: &Setting, say: Say<'_>) -> Result<(), Failure> {
    let sizes: &[u64] = if setting.large {
        &[10_000, 1_000_000, 10_000_000]
    } else {
        &[10_000, 1_000_000]
    };
    let mut million: Option<Figure> = None;
    for &rows in sizes {
        let size = grouped(rows);
        let mut sample = Sample::content(rows)?;
        let megabytes = sample.bytes() as f64 / f64::from(1 << 20);

        let whole = each(BUDGET, 20, || {
            let (took, published) = timed(|| Published::new(setting, sample.state()));
            // Unmapping and deleting the file is not part of it.
            published.map(|_| took)
        })?;
        say(Line::from(
            time("publish-all", format!("a new file, {size} rows"), whole)
                .over("memcpy 1 MiB", megabytes)
                .detail(format!("{megabytes:.1} MiB of columns, to fresh pages")),
        ));

        let mut published = Published::new(setting, sample.state())?;
        let (mut draw, mut writes, mut last) = (Draw::new(rows), 0, None);
        let mut one_row = |published: &mut Published| {
            each(BUDGET, 5_000, || {
                writes += 1;
                let rows = sample.patch([draw.below(rows)], writes)?;
                let (took, done) = timed(|| published.publisher.publish_effects(&rows));
                published.publisher.housekeep()?;
                last = done?;
                last.ok_or("the publisher saw no change")?;
                Ok::<_, Failure>(took)
            })
        };
        let figure = one_row(&mut published)?;
        if rows == 1_000_000 {
            // What a stopped reader is to the writer: leases that do not go away.
            let held = published.reader()?.snapshot()?;
            let still = one_row(&mut published)?;
            drop(held);
            let again = one_row(&mut published)?;
            let row = Row::new(
                "publish",
                "p99 with a reader that stands still, over p99 without",
                WHO,
                Outcome::Number(still.p99 / again.p99, "x".into()),
            );
            say(Line::at_most(
                row.detail("an old snapshot is held for the whole of it"),
                goal::STILL_READER,
            ));
        }
        let detail = last.map_or_else(String::new, |last| {
            format!(
                "last publish: {} chunks written, {} shared, {} bytes",
                last.chunks_written,
                last.chunks_shared,
                grouped(last.bytes_written)
            )
        });
        let row = time(
            "publish",
            format!("one row of content, {size} rows"),
            figure.clone(),
        )
        .over("memcpy 128 KiB", 1.0)
        .detail(detail);
        match (rows, &million) {
            (1_000_000, _) => {
                say(Line::at_most(row, goal::PUBLISH));
                million = Some(figure);
            }
            (10_000_000, Some(million)) => {
                say(Line::from(row));
                let row = ratio(
                    "publish",
                    "10,000,000 rows over 1,000,000",
                    &figure,
                    million,
                );
                say(Line::at_most(row, goal::PUBLISH_GROWTH));
            }
            _ => say(Line::from(row)),
        }

        let mut writes = 0;
        let compared = each(BUDGET, 20, || {
            writes += 1;
            let next = sample.change([draw.below(rows)], -writes)?;
            let (took, done) = timed(|| published.publisher.publish(next));
            done?.ok_or("the publisher saw no change")?;
            Ok::<_, Failure>(took)
        })?;
        let name = format!("one row changed, found among {size} rows");
        let detail = "as a foreign writer's file: every row is compared";
        let row = time("publish-all", name, compared);
        say(Line::from(
            row.over("memcpy 1 MiB", megabytes).detail(detail),
        ));

        let mut writes = 0;
        let all = each(BUDGET, 20, || {
            writes += 1;
            let next = sample.change(0..rows, writes)?;
            let (took, done) = timed(|| published.publisher.publish(next));
            done?.ok_or("the publisher saw no change")?;
            Ok::<_, Failure>(took)
        })?;
        say(Line::from(
            time(
                "publish-all",
                format!("every row changed, {size} rows"),
                all,
            )
            .over("memcpy 1 MiB", megabytes)
            .detail(format!(
                "{megabytes:.1} MiB of columns, into the file there is"
            )),
        ));
    }
    Ok(())
}
