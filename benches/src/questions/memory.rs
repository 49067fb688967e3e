//! How much larger the file is than what lives in it, under random updates.
//!
//! One uniform random row changes with each publish, until three times the
//! live bytes were written: by then what is cleaned balances what is written.
//! Then the pages of the file are counted, as the tmpfs counts them.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use super::{Published, Say, WHO};
use crate::goal::Line;
use crate::keys::{Draw, grouped};
use crate::row::{Outcome, Row};
use crate::sample::Sample;
use crate::{Failure, Setting};

/// Time at most, for one size; the note says how much was written by then.
const MOST: Duration = Duration::from_secs(20);

/// Both sizes, with one reader that keeps up.
pub fn ask(setting: &Setting, say: Say<'_>) -> Result<(), Failure> {
    for rows in [10_000, 1_000_000] {
        let mut sample = Sample::tasks(rows)?;
        let live = sample.bytes();
        let mut published = Published::new(setting, sample.state())?;
        let reader = published.reader()?;
        let mut handle = reader.handle()?;
        let start = Instant::now();
        let (mut draw, mut written, mut publishes, mut peak) = (Draw::new(rows), 0, 0, 0);
        while written < 3 * live && start.elapsed() < MOST {
            publishes += 1;
            let rows = sample.patch([draw.below(rows)], i64::try_from(publishes)?)?;
            written += published
                .publisher
                .publish_effects(&rows)?
                .ok_or("the publisher saw no change")?
                .bytes_written;
            handle.refresh()?;
            published.publisher.housekeep()?;
            peak = peak.max(published.publisher.path().metadata()?.blocks() * 512);
        }
        let pages = published.publisher.path().metadata()?.blocks() * 512;
        let size = grouped(rows);
        let detail = format!(
            "{} live bytes of columns, {} publishes of one row that wrote {} bytes",
            grouped(live),
            grouped(publishes),
            grouped(written)
        );
        for (name, bytes) in [("at the end", pages), ("at its peak", peak)] {
            let over = Outcome::Number(bytes as f64 / live as f64, "x".into());
            let row = Row::new(
                "memory",
                format!("file over live bytes {name}, {size} rows"),
                WHO,
                over,
            );
            say(Line::from(row.detail(detail.clone())));
        }
    }
    Ok(())
}
