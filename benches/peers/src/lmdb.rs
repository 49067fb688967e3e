//! LMDB through heed: rows under their keys in a B+ tree, a mapping that
//! readers read in place, and a table of readers that they write.
//!
//! Rows are about 130 bytes under keys of the shape `task-0000123456`.
//!
//! The terms of the writes are ours: on a tmpfs, seen by every reader when
//! committed, no sync of any kind (`MDB_NOSYNC`), and once more with
//! `MDB_WRITEMAP`, where LMDB writes its pages in place and a stray pointer of
//! the writing process could damage them. Durability is the log's business, in
//! both systems, and is not in these figures.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use heed::types::{Bytes, Str};
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, PutFlags, RoTxn};

use crate::keys::{Draw, Questions, grouped, task};
use crate::measure::{batched, each, in_turn, timed};
use crate::row::{Outcome, Row};
use crate::{Failure, Setting};

/// The column "who".
pub const WHO: (&str, &str) = ("LMDB", "0.9.70 (heed 0.23.1)");

/// For what is timed in batches.
const BUDGET: Duration = Duration::from_millis(1_000);
/// Bytes of a row with its key.
const ROW: u64 = 130;
/// Questions asked before they repeat.
const QUESTIONS: usize = 1 << 16;

type Rows<'env> = Database<'env, Str, Bytes>;

/// All sizes.
pub fn run(setting: &Setting<'_>, print: &mut dyn FnMut(Row)) -> Result<(), Failure> {
    small(&setting.dir.join("small"), print)?;
    let sizes: &[u64] = if setting.large {
        &[10_000, 1_000_000, 10_000_000]
    } else {
        &[10_000, 1_000_000]
    };
    for &rows in sizes {
        for (flags, how) in [
            (EnvFlags::NO_SYNC, "NOSYNC"),
            (EnvFlags::NO_SYNC | EnvFlags::WRITE_MAP, "NOSYNC|WRITEMAP"),
        ] {
            let path = setting.dir.join(format!("{rows}-{}", flags.bits()));
            sized(&path, rows, flags, how, print)?;
            std::fs::remove_dir_all(&path)?;
        }
    }
    Ok(())
}

/// An environment in `path` for about `rows` rows.
fn open(path: &Path, rows: u64, flags: EnvFlags) -> Result<Env, Failure> {
    std::fs::create_dir_all(path)?;
    let size = usize::try_from(rows * 512 + (64 << 20))?.next_multiple_of(4096);
    let mut options = EnvOpenOptions::new();
    options.map_size(size);
    // SAFETY: without syncs a power cut would leave a torn file; it lies on a
    // tmpfs, and nobody reads it after this process.
    unsafe { options.flags(flags) };
    // SAFETY: nobody else opens, truncates or writes this directory.
    Ok(unsafe { options.open(path)? })
}

fn table(env: &Env) -> Result<Rows<'_>, Failure> {
    let txn = env.write_txn()?;
    let made = env.create_databases_and_commit(txn, |opener, txn| -> heed::Result<_> {
        Ok(CommitOrAbort::<_, ()>::Commit(
            opener.create_database::<Str, Bytes>(txn, None)?,
        ))
    })?;
    made.commit().ok_or_else(|| "the table was not made".into())
}

/// A row of about 130 bytes with its key; it holds `number`.
fn value(number: u64) -> [u8; 115] {
    let mut value = [b'x'; 115];
    value[..8].copy_from_slice(&number.to_le_bytes());
    value
}

/// The number in the row under `key`, so that the look-up reaches the row.
fn get(rows: Rows<'_>, txn: &RoTxn<'_>, key: &str) -> Option<u64> {
    let found = rows.get(txn, key).ok()??;
    Some(u64::from_le_bytes(found.get(..8)?.try_into().ok()?))
}

/// One value: what comes nearest to acquiring the latest.
fn small(path: &Path, print: &mut dyn FnMut(Row)) -> Result<(), Failure> {
    let env = open(path, 1, EnvFlags::NO_SYNC)?;
    let rows = table(&env)?;
    let put = |number: u64| -> heed::Result<()> {
        let mut txn = env.write_txn()?;
        rows.put(&mut txn, "latest", &value(number))?;
        txn.commit()
    };
    put(0)?;
    let (mut written, mut seen) = (0, 0);
    let figure = batched(BUDGET, || {
        env.read_txn()
            .map(|txn| black_box(get(rows, &txn, "latest")))
            .is_ok()
    });
    print(
        Row::new(
            "acquire",
            "read transaction + get",
            WHO,
            Outcome::Time(figure),
        )
        .over("load", 1.0)
        .detail("one row of 130 bytes; the reader writes the lock file"),
    );
    let (_, reads) = in_turn(
        BUDGET,
        200_000,
        || -> Result<(), Failure> {
            written += 1;
            Ok(put(written)?)
        },
        || {
            seen += 1;
            let txn = env.read_txn()?;
            let found = get(rows, &txn, "latest");
            if found == Some(seen) {
                Ok(())
            } else {
                Err(format!("read {found:?}, not {seen}").into())
            }
        },
    )?;
    print(
        Row::new(
            "refresh",
            "read transaction + get after a commit",
            WHO,
            Outcome::Time(reads),
        )
        .over("hop", 1.0)
        .detail("one row of 130 bytes, written on the other core"),
    );
    Ok(())
}

/// Look-up, refresh and write of one row among `count`.
fn sized(
    path: &Path,
    count: u64,
    flags: EnvFlags,
    how: &str,
    print: &mut dyn FnMut(Row),
) -> Result<(), Failure> {
    let env = open(path, count, flags)?;
    let rows = table(&env)?;
    let mut draw = Draw::new(count);
    let mut txn = env.write_txn()?;
    for row in 0..count {
        rows.put_with_flags(&mut txn, PutFlags::APPEND, &task(row), &value(draw.next()))?;
    }
    txn.commit()?;
    let size = grouped(count);

    if !flags.contains(EnvFlags::WRITE_MAP) {
        let floor = if count <= 10_000 {
            "random load, 10,000 rows"
        } else {
            "random load, 1,000,000 rows"
        };
        let mut questions = Questions::uniform(count, QUESTIONS, 7);
        let txn = env.read_txn()?;
        let mut found = 0_usize;
        for _ in 0..QUESTIONS {
            found += usize::from(rows.get(&txn, questions.ask())?.is_some());
        }
        if found != QUESTIONS {
            return Err(format!("{} of {QUESTIONS} keys were not found", QUESTIONS - found).into());
        }
        let figure = batched(BUDGET, || get(rows, &txn, questions.ask()));
        print(
            Row::new(
                "lookup",
                format!("get, {size} rows"),
                WHO,
                Outcome::Time(figure),
            )
            .over(floor, 1.0)
            .detail("one read transaction held throughout"),
        );
        drop(txn);
        let figure = batched(BUDGET, || {
            env.read_txn().map(|txn| get(rows, &txn, questions.ask()))
        });
        print(
            Row::new(
                "lookup",
                format!("read transaction + get, {size} rows"),
                WHO,
                Outcome::Time(figure),
            )
            .over(floor, 1.0)
            .detail("a read transaction for each get"),
        );
    }

    let mut questions = Questions::uniform(count, QUESTIONS, 8);
    let figure = each(BUDGET, 20_000, || {
        let (key, value) = (questions.ask().to_owned(), value(draw.next()));
        let (took, done) = timed(|| {
            let mut txn = env.write_txn()?;
            rows.put(&mut txn, &key, &value)?;
            txn.commit()
        });
        done.map(|()| took)
    })?;
    print(
        Row::new(
            "publish",
            format!("write one row, {size} rows, {how}"),
            WHO,
            Outcome::Time(figure),
        )
        .over("memcpy 128 KiB", 1.0)
        .detail("one write transaction on a tmpfs: seen by readers, not durable"),
    );
    // With `MDB_WRITEMAP` the file is as long as the map, and says nothing.
    if !flags.contains(EnvFlags::WRITE_MAP) {
        let over = env.real_disk_size()? as f64 / (count * ROW) as f64;
        print(
        Row::new(
            "memory",
            format!("file over rows, {size} rows, {how}"),
            WHO,
            Outcome::Number(over, "x".into()),
        )
        .detail(
            "after the random updates of this run, each of one row; no reader held an old state",
        ),
    );
    }
    Ok(())
}
