//! SQLite: one file, a write-ahead log, one writer at a time.
//!
//! `journal_mode=WAL` and `synchronous=FULL`: each commit is synced before it is acknowledged. A transaction is
//! one upsert of one row, by a prepared statement. Connections wait for each other with SQLite's own busy
//! handler, so more of them do not mean more: all counts are shown, and the best one counts.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, params};

use crate::durable::{QUESTION, Rate, rate, row};
use crate::keys::{Draw, grouped, task};
use crate::row::{Outcome, Row};
use crate::{Failure, Setting};

/// The column "who".
pub const WHO: (&str, &str) = ("SQLite", "WAL, FULL (rusqlite 0.41)");

/// Connections, each on a thread of its own.
const CONNECTIONS: [usize; 4] = [1, 4, 16, 64];

/// Both sizes.
pub fn run(setting: &Setting<'_>, print: &mut dyn FnMut(Row)) -> Result<(), Failure> {
    for rows in [10_000, 1_000_000] {
        let path = setting.disk.join(format!("{rows}.sqlite"));
        fill(&path, rows)?;
        let mut best: Option<(f64, usize)> = None;
        for connections in CONNECTIONS {
            let rate = upserts(&path, rows, connections)?;
            let name = format!("upsert, {} rows, {connections} connections", grouped(rows));
            rate.print(QUESTION, &name, WHO, "", print);
            if best.is_none_or(|(most, _)| rate.per_second > most) {
                best = Some((rate.per_second, connections));
            }
        }
        let (most, connections) = best.ok_or("no count of connections was tried")?;
        let name = format!("upsert, {} rows, at its best", grouped(rows));
        let best = Outcome::Number(most, "tx/s".into());
        print(Row::new(QUESTION, name, WHO, best).detail(format!("{connections} connections")));
    }
    Ok(())
}

fn open(path: &Path) -> Result<Connection, Failure> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(60))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

fn fill(path: &Path, rows: u64) -> Result<(), Failure> {
    let mut connection = open(path)?;
    connection.execute_batch("CREATE TABLE tasks (id TEXT PRIMARY KEY, row BLOB) WITHOUT ROWID")?;
    let all = connection.transaction()?;
    {
        let mut insert = all.prepare("INSERT INTO tasks VALUES (?1, ?2)")?;
        for number in 0..rows {
            insert.execute(params![task(number), row(number)])?;
        }
    }
    all.commit()?;
    connection.pragma_update(None, "wal_checkpoint", "TRUNCATE")?;
    Ok(())
}

fn upserts(path: &Path, rows: u64, connections: usize) -> Result<Rate, Failure> {
    rate(connections, |thread| {
        let connection = open(path)?;
        let mut draw = Draw::new(thread as u64);
        Ok(move || {
            let mut upsert = connection.prepare_cached(
                "INSERT INTO tasks VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET row = excluded.row",
            )?;
            let changed = upsert.execute(params![task(draw.below(rows)), row(draw.next())])?;
            if changed == 1 {
                Ok(())
            } else {
                Err(format!("an upsert changed {changed} rows").into())
            }
        })
    })
}
