//! The checkers of writes find what is planted, and nothing where nothing is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use sherwood_tests::writes::history::{self, Event, What};
use sherwood_tests::writes::ledger::{self, Book, Entry};
use sherwood_tests::writes::load::{self, Writer};
use sherwood_tests::writes::model::{Fault, Model};
use sherwood_tests::writes::transaction::{Answer, If, Op, Rows, Transaction};
use sherwood_tests::writes::watcher::Rebuilt;
use sherwood_tests::writes::way::Way;

/// A model in which one thing goes wrong, the first time from `after` on that it makes a difference.
struct Planted {
    model: Model,
    fault: Option<Fault>,
    after: usize,
    asked: usize,
    happened: bool,
}

impl Planted {
    fn new(rows: Rows, fault: Option<Fault>, after: usize) -> Self {
        Self {
            model: Model::new(rows),
            fault,
            after,
            asked: 0,
            happened: false,
        }
    }

    fn submit(&mut self, transaction: &Transaction) -> Answer {
        self.asked += 1;
        if let Some(fault) = self.fault
            && !self.happened
            && self.asked > self.after
            && leaves_a_trace(fault, transaction)
        {
            let mut right = self.model.clone();
            let mut wrong = self.model.clone();
            let due = right.submit(transaction, None);
            let answer = wrong.submit(transaction, Some(fault));
            // Refused for another reason is refused.
            if !answer.same(&due) || wrong.rows() != right.rows() {
                self.happened = true;
                self.model = wrong;
                return answer;
            }
        }
        self.model.submit(transaction, None)
    }
}

/// Not if the writer itself soon writes over all of it: then nobody can tell, and nothing is lost.
fn leaves_a_trace(fault: Fault, transaction: &Transaction) -> bool {
    let is_pair = transaction.conditions.is_empty() && transaction.ops.len() == 2;
    !(is_pair && matches!(fault, Fault::LosesIt | Fault::AppliesHalf))
}

struct ModelWay(Arc<Mutex<Planted>>);

impl Way for ModelWay {
    fn ask(&mut self, transaction: &Transaction) -> Answer {
        self.0.lock().expect("no panic").submit(transaction)
    }

    fn look(&mut self, key: &str) -> Result<Option<i64>, String> {
        Ok(self
            .0
            .lock()
            .expect("no panic")
            .model
            .rows()
            .get(key)
            .copied())
    }
}

/// Three writers in turn on one model; what the ledger says in the end, and whether the fault came about.
fn kept_books(fault: Option<Fault>, seed: u64) -> (Result<Vec<String>, String>, bool) {
    let books = tempfile::tempdir().expect("a directory");
    let rows = load::beginning(4);
    let after = 20 + usize::try_from(seed % 40).expect("small");
    let planted = Arc::new(Mutex::new(Planted::new(rows.clone(), fault, after)));
    let mut writers: Vec<Writer> = (0..3)
        .map(|number| Writer::new(books.path(), number, 4, seed).expect("a book"))
        .collect();
    let way = || ModelWay(Arc::clone(&planted));
    for turn in 0..9 {
        let until = planted.lock().expect("no panic").asked + 12;
        let stop = || planted.lock().expect("no panic").asked >= until;
        writers[turn % 3].write(&mut way(), &stop).expect("writes");
    }
    let settled = writers
        .iter_mut()
        .try_for_each(|writer| writer.settle(&mut way()).map(|_| ()));
    let wrong = settled.map(|()| {
        let found = planted.lock().expect("no panic").model.rows().clone();
        ledger::found_wrong(&rows, writers.iter().map(Writer::entries), &found)
    });
    let happened = planted.lock().expect("no panic").happened;
    (wrong, happened)
}

#[test]
fn the_ledger_is_content_with_a_store_that_is_right() {
    for seed in 0..50 {
        assert_eq!(kept_books(None, seed).0, Ok(Vec::new()), "seed {seed}");
    }
}

#[test]
fn the_ledger_finds_every_planted_fault() {
    for fault in Fault::ALL {
        let (mut came_about, mut found) = (0, 0);
        for seed in 0..50 {
            let (wrong, happened) = kept_books(Some(fault), seed);
            if happened {
                came_about += 1;
                found += u32::from(wrong != Ok(Vec::new()));
            }
            // Of conditions and generations the ledger sees only what shows in the rows and within one book: the
            // histories find the rest.
            let may_hide = matches!(fault, Fault::JudgesOldState | Fault::TurnsBack);
            assert!(
                may_hide || found == came_about,
                "{fault:?} was not found, seed {seed}"
            );
        }
        assert!(came_about > 10, "{fault:?} came about {came_about} times");
        // Judged too early, a transfer is refused here: nothing shows.
        let shows = fault != Fault::JudgesOldState;
        assert!(!shows || found > 5, "{fault:?} was found {found} times");
    }
}

#[test]
fn a_book_is_read_as_it_was_written_but_for_a_line_cut_off() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut book = Book::open(directory.path(), "w0").expect("a book");
    let transaction = |id: &str| Transaction {
        id: id.to_owned(),
        conditions: vec![If::Is("a".into(), 1), If::Exists("b".into(), false)],
        ops: vec![
            Op::Put("b".into(), 2),
            Op::Patch("a".into(), 0),
            Op::Delete("c".into()),
        ],
    };
    let answers = [
        Some(Answer::Done(7)),
        Some(Answer::Refused(7, "no".into())),
        Some(Answer::Unknown("cut".into())),
        None,
    ];
    let mut expected = Vec::new();
    for (number, answer) in answers.into_iter().enumerate() {
        let transaction = transaction(&format!("t{number}"));
        book.wants(&transaction).expect("writes");
        if let Some(answer) = &answer {
            book.told(&transaction.id, answer).expect("writes");
        }
        expected.push(Entry {
            transaction,
            answer,
        });
    }
    let path = directory.path().join("w0.book");
    let whole = std::fs::read(&path).expect("reads");
    let read = || ledger::read(directory.path()).expect("reads").remove(&path);
    assert_eq!(read(), Some(expected.clone()));
    std::fs::write(&path, &whole[..whole.len() - 5]).expect("cuts");
    expected.pop();
    assert_eq!(read(), Some(expected));
}

/// Processes that compare and set two registers out of three, each time to numbers never used before: so whatever is lost,
/// torn or applied by mistake is in the way of somebody later, or of the last read.
struct Histories {
    rng: SmallRng,
    planted: Planted,
    fresh: i64,
}

const REGISTERS: [&str; 3] = ["x", "y", "z"];

impl Histories {
    fn new(fault: Option<Fault>, seed: u64) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            planted: Planted::new(registers(), fault, 15),
            fresh: 100,
        }
    }

    fn transaction(&mut self) -> Transaction {
        let first = self.rng.random_range(0..3);
        let second = (first + self.rng.random_range(1..3)) % 3;
        let stale = self.rng.random_range(0..4) == 0;
        let mut transaction = Transaction {
            id: format!("t{}", self.fresh),
            conditions: Vec::new(),
            ops: Vec::new(),
        };
        for register in [first, second] {
            let key = REGISTERS[register].to_owned();
            let mut seen = self.planted.model.rows()[&key];
            if stale && register == second {
                seen -= 1;
            }
            transaction.conditions.push(If::Is(key.clone(), seen));
            self.fresh += 2; // never one less than a number in use
            transaction.ops.push(Op::Patch(key, self.fresh));
        }
        transaction
    }

    /// `groups` transactions share a generation; `overlap` is how far before and after its moment one is under way.
    fn events(&mut self, count: u64, groups: u64, overlap: u64, unknown: bool) -> Vec<Event> {
        let mut events = Vec::new();
        let mut free = [0_u64; 5];
        let mut read = 0;
        for number in 1..=count {
            let moment = number * 10;
            let Some(process) = (0..5).find(|process| free[*process] <= moment) else {
                continue;
            };
            let transaction = self.transaction();
            let answer = match self.planted.submit(&transaction) {
                _ if unknown && self.rng.random_range(0..20) == 0 => Answer::Unknown("cut".into()),
                Answer::Done(generation) => Answer::Done(generation / groups),
                Answer::Refused(generation, why) => Answer::Refused(generation / groups, why),
                Answer::Unknown(why) => Answer::Unknown(why),
            };
            let before = self.rng.random_range(0..=overlap);
            let after = self.rng.random_range(0..=overlap);
            events.push(Event {
                began: moment.saturating_sub(before).max(free[process]),
                ended: moment + after,
                what: What::Asked(transaction, answer),
            });
            free[process] = moment + after + 1;
            let generation = self.planted.model.generation();
            let last = generation % groups == groups - 1 || number == count;
            if last && generation > read {
                read = generation;
                events.push(Event {
                    began: moment + 1,
                    ended: moment + 2,
                    what: What::Read(generation / groups, self.planted.model.rows().clone()),
                });
            }
        }
        events
    }
}

fn registers() -> Rows {
    REGISTERS.map(|key| (key.to_owned(), 0)).into()
}

#[test]
fn a_history_of_a_store_that_is_right_has_an_order() {
    for seed in 0..200 {
        for (groups, overlap) in [(1, 0), (1, 35), (3, 35)] {
            let events = Histories::new(None, seed).events(200, groups, overlap, true);
            for generations in [true, false] {
                let checked = history::check(&registers(), &events, generations);
                assert_eq!(
                    checked,
                    Ok(()),
                    "seed {seed}, {groups}, {overlap}, {generations}"
                );
            }
        }
    }
}

#[test]
fn a_history_with_a_planted_fault_has_no_order() {
    for fault in Fault::ALL {
        if fault == Fault::ForgetsOutcome {
            continue; // nobody asks twice here: the ledger's business
        }
        let (mut came_about, mut without) = (0, 0);
        for seed in 0..100 {
            for (groups, overlap) in [(1, 0), (1, 35), (3, 35)] {
                if matches!(fault, Fault::TurnsBack | Fault::JudgesOldState) && overlap > 0 {
                    continue; // what overlaps may be judged, and get its generation, in any order
                }
                let mut histories = Histories::new(Some(fault), seed);
                let events = histories.events(80, groups, overlap, false);
                if !histories.planted.happened {
                    continue;
                }
                came_about += 1;
                let checked = history::check(&registers(), &events, true);
                assert!(
                    checked.is_err(),
                    "{fault:?}, seed {seed}, {groups}, {overlap}"
                );
                without += u32::from(history::check(&registers(), &events, false).is_err());
            }
        }
        assert!(came_about > 50, "{fault:?} came about {came_about} times");
        assert!(
            fault == Fault::TurnsBack || without == came_about,
            "{fault:?}: {without} of {came_about}"
        );
    }
}

/// All histories of four events are too many; these are random ones, and every order of each is tried.
#[test]
fn the_search_says_what_trying_every_order_says() {
    let (mut good, mut bad) = (0, 0);
    for seed in 0..20_000 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut events = Vec::new();
        for number in 0..rng.random_range(2..6) {
            let began = rng.random_range(0..20);
            let key = REGISTERS[rng.random_range(0..2)].to_owned();
            let transaction = Transaction {
                id: number.to_string(),
                conditions: vec![If::Is(key.clone(), rng.random_range(0..3))],
                ops: vec![Op::Patch(key, rng.random_range(0..3))],
            };
            let generation = rng.random_range(1..4);
            let answer = match rng.random_range(0..5) {
                0 => Answer::Unknown(String::new()),
                1 => Answer::Refused(generation, String::new()),
                _ => Answer::Done(generation),
            };
            events.push(Event {
                began,
                ended: began + rng.random_range(0..20),
                what: What::Asked(transaction, answer),
            });
        }
        let expected = any_order(&events, &registers(), &mut Vec::new());
        let found = history::check(&registers(), &events, false).is_ok();
        assert_eq!(found, expected, "seed {seed}: {events:#?}");
        good += u32::from(expected);
        bad += u32::from(!expected);
    }
    assert!(good > 500 && bad > 500, "{good} good, {bad} bad");
}

/// Is there an order that goes on from these events? By the definition, and nothing else.
fn any_order(events: &[Event], rows: &Rows, taken: &mut Vec<usize>) -> bool {
    let rest: Vec<usize> = (0..events.len())
        .filter(|event| !taken.contains(event))
        .collect();
    let unknown = |event: usize| matches!(&events[event].what, What::Asked(_, Answer::Unknown(_)));
    if rest.iter().all(|event| unknown(*event)) {
        return true;
    }
    for &event in &rest {
        let late = rest.iter().any(|&other| {
            !unknown(other) && other != event && events[other].ended < events[event].began
        });
        let What::Asked(transaction, answer) = &events[event].what else {
            continue;
        };
        let mut next = rows.clone();
        let applied = transaction.apply(&mut next).is_ok();
        if late || applied == matches!(answer, Answer::Refused(..)) {
            continue;
        }
        taken.push(event);
        let found = any_order(events, &next, taken);
        taken.pop();
        if found {
            return true;
        }
    }
    false
}

/// What a watcher is told of a model at work, and the rows after each line.
fn watched(seed: u64) -> (Vec<Value>, BTreeMap<u64, Rows>) {
    let mut histories = Histories::new(None, seed);
    let (mut lines, mut rows) = (Vec::new(), BTreeMap::new());
    for _ in 0..30 {
        let mut transaction = histories.transaction();
        let number = histories.fresh;
        transaction.ops.push(match number % 3 {
            0 => Op::Put("extra".into(), number),
            _ => Op::Put(format!("row-{number}"), number),
        });
        if let Answer::Done(generation) = histories.planted.submit(&transaction) {
            let ops = transaction.ops.iter().map(|op| match op {
                Op::Put(key, number) | Op::Patch(key, number) => {
                    json!({"put": "content", "row": {"cid": key, "size": number}})
                }
                Op::Delete(key) => json!({"delete": "content", "key": key}),
            });
            let ops: Vec<_> = ops.collect();
            lines.push(json!({"generation": generation, "at": 0, "ops": ops}));
            rows.insert(generation, histories.planted.model.rows().clone());
        }
    }
    (lines, rows)
}

#[test]
fn a_watcher_that_misses_repeats_swaps_or_changes_a_line_is_found() {
    for seed in 0..50 {
        let (lines, rows) = watched(seed);
        let acknowledged: Vec<u64> = rows.keys().copied().collect();
        let last = rows.last_key_value().expect("some are done").1;
        let judge = |lines: &[Value]| -> Result<(), String> {
            let mut rebuilt = Rebuilt::new(registers(), 1);
            for line in lines {
                rebuilt.take(line)?;
            }
            let mut wrong = rebuilt.differs(last);
            let missing = rebuilt.missing(acknowledged.iter().copied());
            wrong.extend(
                missing
                    .into_iter()
                    .map(|generation| format!("V3: {generation}")),
            );
            if wrong.is_empty() {
                Ok(())
            } else {
                Err(wrong.join("; "))
            }
        };
        assert_eq!(judge(&lines), Ok(()), "seed {seed}");
        for at in 0..lines.len() {
            let mut missing = lines.clone();
            missing.remove(at);
            assert!(judge(&missing).is_err(), "seed {seed}: line {at} missing");
            let mut twice = lines.clone();
            twice.insert(at, lines[at].clone());
            assert!(judge(&twice).is_err(), "seed {seed}: line {at} twice");
            if at > 0 {
                let mut swapped = lines.clone();
                swapped.swap(at - 1, at);
                assert!(judge(&swapped).is_err(), "seed {seed}: line {at} too early");
            }
        }
        let mut changed = lines.clone();
        let end = changed.len() - 1;
        changed[end]["ops"][0]["row"]["size"] = json!(-1);
        assert!(judge(&changed).is_err(), "seed {seed}: a changed number");
    }
}
