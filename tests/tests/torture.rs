//! Whole processes, everything at once: no snapshot is ever torn, mixed or changed under its holder.
//!
//! With `SHERWOOD_TORTURE=1` ten times as long (`make torture`); `SHERWOOD_SEED` chooses another course of events.
//! The summary shows with `--nocapture`.

use std::time::Duration;

use sherwood_tests::torture::chaos::{Goal, run};
use sherwood_tests::torture::processes::Place;
use sherwood_tests::torture::tally::Count;

const READS: u64 = 1_000_000_000;
const CHECKS: u64 = 10_000_000;
/// Twice what it is meant to take at most.
const LIMIT: Duration = Duration::from_secs(360);

#[test]
fn nothing_is_torn_mixed_or_changed_whatever_happens_to_the_processes() {
    let seed = std::env::var("SHERWOOD_SEED").ok();
    let seed = seed.map_or(1, |seed| seed.parse().expect("SHERWOOD_SEED is a number"));
    let times = if std::env::var_os("SHERWOOD_TORTURE").is_some() {
        10
    } else {
        1
    };
    let goal = Goal {
        reads: READS * u64::from(times),
        checks: CHECKS * u64::from(times),
        limit: LIMIT * times,
    };
    let place = Place::new(env!("CARGO_BIN_EXE_torture")).expect("a directory");
    let summary = match run(&place, seed, goal) {
        Ok(summary) => summary,
        Err(what) => panic!("{what}"),
    };
    println!("{summary}");
    assert!(summary.tally.of(Count::Reads) >= goal.reads, "{summary}");
    assert!(summary.tally.of(Count::Checks) >= goal.checks, "{summary}");
    // It was torture: every kind of event came up, and regions were reused all the time.
    let happened = [
        summary.tally.of(Count::HeldChecks),
        summary.tally.of(Count::Sent),
        summary.tally.of(Count::Copied),
        summary.tally.of(Count::Delays),
        summary.tally.of(Count::Forks),
        summary.events.writer_kills,
        summary.events.writer_stops,
        summary.events.reader_kills,
        summary.events.reader_stops,
        summary.events.deletions,
        summary.events.removals,
    ];
    assert!(happened.iter().all(|&times| times >= 5), "{summary}");
    let (publishes, reuses) = (
        summary.tally.of(Count::Publishes),
        summary.tally.of(Count::Reuses),
    );
    assert!(reuses * 10 > publishes, "{summary}");
}
