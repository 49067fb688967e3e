//! What a reader pays for the next snapshot, and for touching what changed.
//!
//! A writer on another core changes some rows, far apart, and publishes. Timed
//! is the reader alone: `latest`, then for each changed row a look-up of its
//! key and a read of the changed value, which must be the one just written.

use std::hint::black_box;

use super::{BUDGET, Published, Say, ratio, time};
use crate::goal::{self, Line};
use crate::keys::task;
use crate::measure::{Figure, in_turn};
use crate::sample::Sample;
use crate::{Failure, Setting};

/// The sizes, and how many chunks are touched in each.
pub fn ask(setting: &Setting, say: Say<'_>) -> Result<(), Failure> {
    let sizes = [
        ("1 MB", 1_000_000),
        ("100 MB", 100_000_000),
        ("1 GB", 1_000_000_000),
    ];
    let mut small: Option<Figure> = None;
    for (size, bytes) in if setting.large {
        &sizes[..]
    } else {
        &sizes[..2]
    } {
        let mut sample = Sample::tasks(bytes / 130)?;
        let mut published = Published::new(setting, sample.state())?;
        for touched in [0, 1, 8] {
            let figure = refresh(&mut sample, &mut published, touched)?;
            let row = time(
                "refresh",
                format!("latest, touch {touched} changed chunks, {size}"),
                figure.clone(),
            );
            let detail = format!("{touched} look-ups by key included; written on the other core");
            say(Line::at_most(
                row.over("hop", 1.0).detail(detail),
                goal::refresh(touched),
            ));
            if touched != 1 {
                continue;
            }
            match &small {
                None => small = Some(figure),
                Some(small) => {
                    let row = ratio(
                        "refresh",
                        format!("1 changed chunk, {size} over 1 MB"),
                        &figure,
                        small,
                    );
                    say(Line::at_most(row, goal::REFRESH_GROWTH));
                }
            }
        }
    }
    Ok(())
}

/// Times `latest` and the touching of `touched` rows, a chunk or more apart.
fn refresh(
    sample: &mut Sample,
    published: &mut Published,
    touched: u32,
) -> Result<Figure, Failure> {
    let rows = sample.rows();
    // Without a row to touch, one still changes.
    let changes: Vec<u64> = (0..u64::from(touched.max(1)))
        .map(|part| part * rows / u64::from(touched.max(1)))
        .collect();
    let keys: Vec<String> = changes
        .iter()
        .take(touched as usize)
        .map(|&row| task(row))
        .collect();
    let reader = published.reader()?;
    let mut handle = reader.handle()?;
    // Enough of the sample to read a value, while the writer has the whole.
    let values = Sample::tasks(0)?;
    let mut writes = 0;
    let mut reads = 0;
    let (_, figure) = in_turn(
        BUDGET,
        20_000,
        || {
            writes += 1;
            let rows = sample.patch(changes.iter().copied(), writes)?;
            published
                .publisher
                .publish_effects(&rows)?
                .ok_or("the publisher saw no change")?;
            published.publisher.housekeep()?;
            Ok::<_, Failure>(())
        },
        || {
            reads += 1;
            let snapshot = handle.latest();
            for key in &keys {
                let task = snapshot.task(key)?.ok_or("a row is gone")?;
                let (batch, row) = task.batch();
                let value = values.changed(batch, row);
                if value != Some(reads) {
                    return Err(
                        format!("{key} holds {value:?} and not what was written, {reads}").into(),
                    );
                }
            }
            black_box(snapshot.generation());
            Ok(())
        },
    )?;
    Ok(figure)
}
