//! Many writers at once: other processes, watchers, and foreign writers of the Parquet file.
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sherwood_client::TableId;
use sherwood_client::write::{Change, ChangeOp};
use sherwood_shared::transaction::Target;
use sherwood_tests::daemon::{LONG, binary};
use sherwood_tests::needs;
use sherwood_tests::writes::foreign::{self, Manner};
use sherwood_tests::writes::historian::registers;
use sherwood_tests::writes::history::{self, Event};
use sherwood_tests::writes::ledger;
use sherwood_tests::writes::load::{self, Writer};
use sherwood_tests::writes::sherwood::Sherwood;
use sherwood_tests::writes::transaction::{Answer, Rows};
use sherwood_tests::writes::watcher::Rebuilt;
use sherwood_tests::writes::way::Store;
use tempfile::TempDir;

struct Place {
    memory: TempDir,
    disk: TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            memory: tempfile::tempdir_in("/dev/shm").expect("a tmpfs"),
            disk: tempfile::tempdir().expect("a directory"),
        }
    }

    fn served(&self, rows: &Rows) -> Sherwood {
        let (state, run) = (
            self.disk.path().join("state"),
            self.memory.path().join("run"),
        );
        let mut store = Sherwood::new(&state, &run, rows).patient(Duration::from_secs(20));
        restarted(&mut store);
        store
    }
}

fn restarted(store: &mut Sherwood) {
    store.start().expect("starts");
    store.ready().unwrap_or_else(|what| panic!("{what}"));
}

/// Four processes; the daemon is killed twice meanwhile in every second history.
#[test]
fn histories_of_several_processes_are_linearizable() {
    let (mut events_of_all, histories) = (0, 20);
    for seed in 0..histories {
        let place = Place::new();
        let mut store = place.served(&registers());
        let processes: Vec<_> = (0..4)
            .map(|name| {
                Command::new(binary("test_historian"))
                    .arg(store.socket())
                    .arg(store.snapshot())
                    .args([seed, 150, name].map(|number: u64| number.to_string()))
                    .stdout(Stdio::piped())
                    .spawn()
                    .expect("starts")
            })
            .collect();
        for _ in 0..(seed % 2) * 2 {
            thread::sleep(Duration::from_millis(20 + seed));
            restarted(&mut store);
        }
        let mut events = Vec::new();
        for process in processes {
            let output = process.wait_with_output().expect("ends");
            assert!(output.status.success(), "seed {seed}: a process failed");
            for line in String::from_utf8_lossy(&output.stdout).lines() {
                let value: Value = serde_json::from_str(line).expect(line);
                events.push(Event::from_json(&value).expect(line));
            }
        }
        assert_eq!(events.len(), 600, "seed {seed}");
        let checked = history::check(&registers(), &events, true);
        assert_eq!(checked, Ok(()), "seed {seed}");
        events_of_all += events.len();
    }
    needs::tell(format_args!(
        "{histories} histories, {events_of_all} events, all linearizable"
    ));
}

/// Writers and what they wrote on one daemon.
struct Load {
    books: TempDir,
    writers: Vec<Writer>,
}

impl Load {
    fn new(writers: usize, accounts: usize, seed: u64) -> Self {
        let books = tempfile::tempdir().expect("a directory");
        let writers = (0..writers)
            .map(|number| Writer::new(books.path(), number, accounts, seed).expect("a book"))
            .collect();
        Self { books, writers }
    }

    /// Everybody writes until `meanwhile` returns.
    fn run(&mut self, store: &Sherwood, meanwhile: impl FnOnce()) {
        let stop = &AtomicBool::new(false);
        thread::scope(|scope| {
            for writer in &mut self.writers {
                let mut way = store.way().expect("serves");
                scope.spawn(move || {
                    let stop = || stop.load(Ordering::Relaxed);
                    writer.write(&mut *way, &stop).expect("writes");
                });
            }
            meanwhile();
            stop.store(true, Ordering::Relaxed);
        });
    }

    fn settle(&mut self, store: &Sherwood) {
        for writer in &mut self.writers {
            let settled = writer.settle(&mut *store.way().expect("serves"));
            settled.unwrap_or_else(|what| panic!("{:?}: {what}", self.books));
        }
    }

    fn found_wrong(&self, beginning: &Rows, rows: &Rows) -> Vec<String> {
        ledger::found_wrong(beginning, self.writers.iter().map(Writer::entries), rows)
    }

    fn acknowledged(&self) -> Vec<u64> {
        let entries = self.writers.iter().flat_map(Writer::entries);
        let done = entries.filter_map(|entry| match entry.answer {
            Some(Answer::Done(generation)) => Some(generation),
            _ => None,
        });
        done.collect()
    }
}

fn line(change: &Change) -> Value {
    let ops = change.ops.iter().map(|op| match op {
        ChangeOp::Put {
            table: Target::Table(table),
            row,
        } => json!({"put": table.name(), "row": row}),
        ChangeOp::Put { row, .. } => json!({"put": "cluster", "row": row}),
        ChangeOp::Delete { table, key } => json!({"delete": table.name(), "key": key}),
    });
    json!({"generation": change.generation, "ops": ops.collect::<Vec<_>>()})
}

#[test]
fn a_watcher_sees_every_change_once_and_in_order_over_restarts() {
    let place = Place::new();
    let beginning = load::beginning(8);
    let mut store = place.served(&beginning);
    let (generation, rows) = store.rows().expect("reads");
    let writer = store.writer().expect("connects");
    let mut changes = writer
        .watch(generation, &[TableId::Content])
        .expect("watches");
    let mut rebuilt = Rebuilt::new(rows, generation);
    let mut load = Load::new(4, 8, 3);
    let done = &AtomicBool::new(false);
    let newest = &std::sync::Mutex::new(0);
    thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut until = None;
            loop {
                let change = changes.wait(Duration::from_millis(100)).expect("watches");
                if let Some(change) = change {
                    rebuilt
                        .take(&line(&change))
                        .unwrap_or_else(|what| panic!("{what}"));
                }
                if done.load(Ordering::Relaxed) {
                    let until = until.get_or_insert_with(Instant::now);
                    let last = *newest.lock().expect("no panic");
                    if rebuilt.generation() >= last {
                        return;
                    }
                    assert!(until.elapsed() < LONG, "{} of {last}", rebuilt.generation());
                }
            }
        });
        for turn in 0..6 {
            load.run(&store, || thread::sleep(Duration::from_millis(150)));
            if turn % 2 == 0 {
                store.kill();
            }
            restarted(&mut store);
        }
        load.settle(&store);
        let last = load.acknowledged().into_iter().max().unwrap_or(0);
        *newest.lock().expect("no panic") = last;
        done.store(true, Ordering::Relaxed);
        watching.join().expect("no panic");
    });
    let (_, rows) = store.rows().expect("reads");
    assert_eq!(rebuilt.differs(&rows), Vec::<String>::new());
    assert_eq!(rebuilt.missing(load.acknowledged()), Vec::<u64>::new());
    assert_eq!(load.found_wrong(&beginning, &rows), Vec::<String>::new());
    needs::tell(format_args!(
        "a watcher saw {} changes, each once",
        rebuilt.lines()
    ));
}

#[test]
fn two_foreign_writers_take_nothing_of_ours() {
    let place = Place::new();
    let beginning = load::beginning(8);
    let store = place.served(&beginning);
    let mut load = Load::new(4, 8, 5);
    let file = store.file();
    let written = |manner: Manner, turns: i64| {
        let mut written = 0;
        for turn in 1..=turns {
            let key = format!("foreign-{manner:?}");
            written += i64::from(foreign::set(&file, manner, &key, turn).expect("writes"));
            thread::sleep(Duration::from_millis(150));
        }
        written
    };
    let mut counts = (0, 0);
    load.run(&store, || {
        counts = thread::scope(|scope| {
            let in_place = scope.spawn(|| written(Manner::InPlace, 20));
            let by_rename = scope.spawn(|| written(Manner::ByRename, 20));
            (
                in_place.join().expect("no panic"),
                by_rename.join().expect("no panic"),
            )
        });
    });
    assert!(counts.0 > 0 && counts.1 > 0, "they wrote {counts:?} times");
    load.settle(&store);
    let ours = |rows: &Rows| -> Rows {
        let ours = rows.iter().filter(|(key, _)| !key.starts_with("foreign-"));
        ours.map(|(key, number)| (key.clone(), *number)).collect()
    };
    let (_, rows) = store.rows().expect("reads");
    assert_eq!(
        load.found_wrong(&beginning, &ours(&rows)),
        Vec::<String>::new()
    );
    // And what each of them writes now, alone, is seen; once it reads what is the state. Over a file in which one of them had undone
    // what was merged of the other, ours would stay (M2).
    for manner in [Manner::InPlace, Manner::ByRename] {
        let key = format!("foreign-{manner:?}");
        let begun = Instant::now();
        while foreign::rows(&file).ok() != Some(store.rows().expect("reads").1) {
            assert!(begun.elapsed() < LONG, "the file never becomes the state");
            thread::sleep(Duration::from_millis(20));
        }
        while !foreign::set(&file, manner, &key, 1000).expect("writes") {
            assert!(begun.elapsed() < LONG, "{manner:?} never comes to write");
            thread::sleep(Duration::from_millis(20));
        }
        while store.rows().expect("reads").1.get(&key) != Some(&1000) {
            assert!(begun.elapsed() < LONG, "{manner:?} is not merged");
            thread::sleep(Duration::from_millis(20));
        }
    }
    let (_, rows) = store.rows().expect("reads");
    assert_eq!(
        load.found_wrong(&beginning, &ours(&rows)),
        Vec::<String>::new()
    );
    needs::tell(format_args!(
        "foreign writers wrote {counts:?} times; nothing of ours was lost"
    ));
}
