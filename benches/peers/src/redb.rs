//! redb: a copy-on-write B+ tree in one file, one writer at a time.
//!
//! A commit with its default durability (`Immediate`) is on the disk when it returns. A transaction is one
//! insert over a row that is there.

use redb::{Database, ReadableDatabase, TableDefinition};

use crate::durable::{MANY, QUESTION, rate, row};
use crate::keys::{Draw, grouped, task};
use crate::row::Row;
use crate::{Failure, Setting};

/// The column "who".
pub const WHO: (&str, &str) = ("redb", "4.6, durable commits");

const TASKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tasks");

/// Both sizes.
pub fn run(setting: &Setting<'_>, print: &mut dyn FnMut(Row)) -> Result<(), Failure> {
    for rows in [10_000, 1_000_000] {
        let database = &Database::create(setting.disk.join(format!("{rows}.redb")))?;
        let all = database.begin_write()?;
        {
            let mut table = all.open_table(TASKS)?;
            for number in 0..rows {
                table.insert(&*task(number), &row(number)[..])?;
            }
        }
        all.commit()?;
        let rate = rate(MANY, |thread| {
            let mut draw = Draw::new(thread as u64);
            Ok(move || {
                let one = database.begin_write()?;
                one.open_table(TASKS)?
                    .insert(&*task(draw.below(rows)), &row(draw.next())[..])?;
                Ok(one.commit()?)
            })
        })?;
        let there = database.begin_read()?.open_table(TASKS)?;
        let there = redb::ReadableTableMetadata::len(&there)?;
        if there != rows {
            return Err(format!("{there} rows afterwards, not {rows}").into());
        }
        let name = format!("upsert, {} rows, {MANY} threads", grouped(rows));
        rate.print(QUESTION, &name, WHO, "", print);
    }
    Ok(())
}
