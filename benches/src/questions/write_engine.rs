//! Durable transactions of one row without a socket: the engine with its log and its snapshot, and threads that ask it.

use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use sherwood_daemon::engine::{Engine, Request, Submission, wall_clock};
use sherwood_shared::transaction::{Answer, OutcomeKind, Transaction};
use sherwood_store::log::{Log, Options};

use super::write::{MANY, ONE_SYNC_RATE, QUESTION, put, rate_of};
use super::{Published, Say, WHO};
use crate::goal::Line;
use crate::keys::Draw;
use crate::row::{Outcome, Row};
use crate::sample::Sample;
use crate::{Failure, Setting};

/// Tasks that are there.
const ROWS: u64 = 10_000;
/// What the daemon takes into one group at most.
const GROUP: usize = 512;
/// Not counted, counted.
const TIMES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(4));

/// As many threads as the question of the socket has writers.
pub fn ask(setting: &Setting, say: Say<'_>) -> Result<(), Failure> {
    let dir = tempfile::Builder::new()
        .prefix("sherwood-bench-")
        .tempdir_in(&setting.disk)?;
    let sample = Sample::tasks(ROWS)?;
    let published = Published::new(setting, sample.state())?;
    let Published { publisher, _dir } = published;
    let (log, opened) = Log::open_real(&dir.path().join("log"), Options::default())?;
    let keeper = log.keeper();
    let mut engine = Engine::new(publisher, log, opened.outcomes, wall_clock());
    let (done, syncs) = thread::scope(|scope| {
        let (asking, asked) = mpsc::sync_channel::<Submission>(GROUP);
        let (owe, owed) = mpsc::channel::<()>();
        scope.spawn(move || owed.iter().for_each(|()| drop(keeper.prepare())));
        let begun = Instant::now();
        let threads: Vec<_> = (1..=MANY as u64)
            .map(|number| {
                let asking = asking.clone();
                scope.spawn(move || transactions(number, &asking, begun))
            })
            .collect();
        drop(asking);
        let mut syncs = 0;
        owe.send(())?;
        while let Some(mut group) = next(&asked) {
            while !group.is_empty() {
                engine.commit_until(&mut group, None)?;
                syncs += u64::from(counts(begun));
            }
            engine.publisher().housekeep()?;
            if engine.journal().needs_segment() {
                owe.send(())?;
            }
        }
        let mut done = 0;
        for thread in threads {
            done += thread.join().map_err(|_| "a thread panicked")??;
        }
        Ok::<_, Failure>((done, syncs))
    })?;
    let rate = done as f64 / TIMES.1.as_secs_f64();
    let detail = format!(
        "{:.1} transactions for each sync of the log",
        done as f64 / syncs.max(1) as f64
    );
    let name = format!("put, 10,000 rows, the engine alone, {MANY} threads");
    let row = Row::new(QUESTION, name, WHO, Outcome::Number(rate, "tx/s".into()));
    say(Line::from(row.over(ONE_SYNC_RATE, 1.0).detail(detail)));
    let name = "the engine alone over one fdatasync for each transaction";
    say(match rate_of(setting, "floor", "machine", ONE_SYNC_RATE) {
        Some(floor) => {
            let over = Outcome::Number(rate / floor, "x".into());
            Line::at_least(Row::new(QUESTION, name, WHO, over), 5.0)
        }
        None => Row::not_run(QUESTION, name, WHO, "no floor in this run").into(),
    });
    Ok(())
}

/// All that wait, at least one; `None` when nobody will ask any more.
fn next(asked: &Receiver<Submission>) -> Option<VecDeque<Submission>> {
    let mut group = VecDeque::from([asked.recv().ok()?]);
    while group.len() < GROUP
        && let Ok(more) = asked.try_recv()
    {
        group.push_back(more);
    }
    Some(group)
}

fn counts(begun: Instant) -> bool {
    let (warm, counted) = TIMES;
    (warm..warm + counted).contains(&begun.elapsed())
}

/// One thread's, one after the other; how many were done in the time that counts.
fn transactions(
    number: u64,
    asking: &SyncSender<Submission>,
    begun: Instant,
) -> Result<u64, Failure> {
    let (tell, told) = mpsc::channel::<Answer>();
    let mut draw = Draw::new(number);
    let mut done = 0;
    while begun.elapsed() < TIMES.0 + TIMES.1 {
        let put = put(draw.below(ROWS), draw.next()).to_json();
        let request = Request::Transaction(Transaction::from_json(put.as_bytes())?);
        let tell = tell.clone();
        let reply = Box::new(move |answer| drop(tell.send(answer)));
        let sent = asking.send(Submission { request, reply });
        sent.map_err(|_| "the engine has ended")?;
        let answer = told.recv()?;
        if answer.outcome != OutcomeKind::Done {
            return Err(format!("not done: {answer:?}").into());
        }
        done += u64::from(counts(begun));
    }
    Ok(done)
}
