//! A process that makes a history: it compares and sets a few registers, reads now and then, and says what it saw.
//!
//! `SOCKET SNAPSHOT SEED COUNT NAME`; one event a line on stdout. All such processes share the monotonic clock.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::history::{Event, What};
use super::sherwood::SherwoodWay;
use super::transaction::{Answer, If, Op, Rows, Transaction};
use super::way::Way;

/// The registers. The state has no other rows.
pub const REGISTERS: [&str; 3] = ["x", "y", "z"];

/// What they are at the beginning.
#[must_use]
pub fn registers() -> Rows {
    REGISTERS.map(|key| (key.to_owned(), 0)).into()
}

/// The process's side.
///
/// # Errors
///
/// The arguments are no good, or the daemon is not there.
pub fn run(words: &[String]) -> Result<(), String> {
    let [socket, snapshot, seed, count, name] = words else {
        return Err("SOCKET SNAPSHOT SEED COUNT NAME".to_owned());
    };
    let number = |word: &String| word.parse::<u64>().map_err(|_| format!("{word:?}"));
    let (seed, count, me) = (number(seed)?, number(count)?, number(name)?);
    let mut rng = SmallRng::seed_from_u64(seed ^ (me << 32));
    let patience = Duration::from_secs(20);
    let (socket, snapshot) = (Path::new(socket), Path::new(snapshot));
    // It may be restarting just now.
    let begun = Instant::now();
    let mut way = loop {
        match SherwoodWay::open(socket, snapshot, patience) {
            Err(_) if begun.elapsed() < patience => thread::sleep(Duration::from_millis(10)),
            way => break way?,
        }
    };
    for turn in 0..count {
        let began = now()?;
        let what = if rng.random_range(0..5) == 0 {
            let (generation, rows) = way.read()?;
            What::Read(generation, rows)
        } else {
            let fresh = i64::try_from((me * count + turn + 1) * 8).map_err(|_| "too many")?;
            let transaction = transaction(&mut way, &mut rng, fresh, &format!("{name}-{turn}"))?;
            let answer = way.ask(&transaction);
            What::Asked(transaction, answer)
        };
        let ended = now()?;
        println!("{}", Event { began, ended, what }.to_json());
    }
    Ok(())
}

/// Compares two registers with what was just seen, or with what never was, and sets them to what was never used.
fn transaction(
    way: &mut SherwoodWay,
    rng: &mut SmallRng,
    fresh: i64,
    id: &str,
) -> Result<Transaction, String> {
    let first = rng.random_range(0..REGISTERS.len());
    let second = (first + rng.random_range(1..REGISTERS.len())) % REGISTERS.len();
    let never = rng.random_range(0..8) == 0;
    let (mut conditions, mut ops) = (Vec::new(), Vec::new());
    for (part, register) in (0..).zip([first, second]) {
        let key = REGISTERS[register].to_owned();
        let seen = way.look(&key)?.unwrap_or(0);
        conditions.push(If::Is(key.clone(), if never { seen - 1 } else { seen }));
        ops.push(Op::Patch(key, fresh + 2 * part));
    }
    Ok(Transaction {
        id: id.to_owned(),
        conditions,
        ops,
    })
}

fn now() -> Result<u64, String> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(|errno| errno.to_string())?;
    u64::try_from(Duration::from(now).as_nanos()).map_err(|_| "a clock of centuries".to_owned())
}

impl Event {
    /// As one line.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut line = json!({"began": self.began, "ended": self.ended});
        match &self.what {
            What::Asked(transaction, answer) => {
                line["asked"] = transaction.to_json();
                line["told"] = answer.to_json(&transaction.id);
            }
            What::Read(generation, rows) => {
                line["read"] = json!({"generation": generation, "rows": rows});
            }
        }
        line
    }

    /// From its line; `None` if it is none.
    #[must_use]
    pub fn from_json(line: &Value) -> Option<Self> {
        let read = &line["read"];
        let what = match read["generation"].as_u64() {
            Some(generation) => What::Read(
                generation,
                serde_json::from_value(read["rows"].clone()).ok()?,
            ),
            None => What::Asked(
                Transaction::from_json(&line["asked"])?,
                Answer::from_json(&line["told"]),
            ),
        };
        Some(Self {
            began: line["began"].as_u64()?,
            ended: line["ended"].as_u64()?,
            what,
        })
    }
}
