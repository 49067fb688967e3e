//! What a reader pays to have the latest snapshot when nothing changed.

use super::{BUDGET, Published, Say, time};
use crate::goal::{self, Line};
use crate::measure::batched;
use crate::sample::Sample;
use crate::{Failure, Setting};

/// A handle's `latest`, and an owned snapshot.
pub fn ask(setting: &Setting, say: Say<'_>) -> Result<(), Failure> {
    let published = Published::new(setting, Sample::tasks(10_000)?.state())?;
    let reader = published.reader()?;
    let mut handle = reader.handle()?;
    let wanted = published.publisher.generation();
    if handle.refresh()?.generation() != wanted {
        return Err(format!("the reader does not see generation {wanted}").into());
    }

    let figure = batched(BUDGET, || std::ptr::from_ref(handle.latest()).addr());
    say(Line::at_most(
        time("acquire", "Handle::latest, &Snapshot", figure)
            .over("load", 1.0)
            .detail("a load, a compare, a reference"),
        goal::ACQUIRE,
    ));
    let figure = batched(BUDGET, || handle.latest().generation());
    say(Line::from(
        time("acquire", "Handle::latest, its generation", figure).over("load", 1.0),
    ));
    let figure = batched(BUDGET, || reader.snapshot().is_ok());
    say(Line::from(
        time("acquire", "Reader::snapshot, owned", figure)
            .over("load", 1.0)
            .detail("may be kept as long as one likes"),
    ));
    Ok(())
}
