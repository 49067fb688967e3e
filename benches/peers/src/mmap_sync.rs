//! mmap-sync: a value archived by rkyv in one of two files, and a state file
//! in which readers count themselves in and out.
//!
//! The value is one small row (about 130 bytes). A read is
//! `Synchronizer::read` without byte checks, one field used, the guard
//! dropped. The writer's grace is long: a reader that holds its guard makes
//! the writer wait, one that outlives the grace reads what is overwritten.

use std::hint::black_box;
use std::time::Duration;

use bytecheck::CheckBytes;
use mmap_sync::synchronizer::{Synchronizer, SynchronizerError};
use rkyv::{Archive, Deserialize, Serialize};

use crate::measure::{batched, in_turn};
use crate::row::{Outcome, Row};
use crate::{Failure, Setting};

/// The column "who".
pub const WHO: (&str, &str) = ("mmap-sync", "2.0.4");

/// For what is timed in batches.
const BUDGET: Duration = Duration::from_millis(800);
/// How long the writer waits for readers.
const GRACE: Duration = Duration::from_secs(1);

/// One small row.
#[derive(Archive, Deserialize, Serialize)]
#[archive_attr(derive(CheckBytes))]
struct Value {
    version: u64,
    id: String,
    text: String,
}

impl Value {
    fn of(version: u64) -> Self {
        Self {
            version,
            id: "task-0000123456".into(),
            text: "x".repeat(88),
        }
    }
}

/// Reads the version of the current value.
fn read(synchronizer: &mut Synchronizer) -> Result<u64, SynchronizerError> {
    // SAFETY: the guard is dropped within this call, far inside the writer's
    // grace; the only writer of these files writes `Value`s.
    let value = unsafe { synchronizer.read::<Value>(false)? };
    Ok(value.version)
}

/// Reads, and fails if it is not what was just written.
fn expect(synchronizer: &mut Synchronizer, version: u64) -> Result<(), Failure> {
    let found = read(synchronizer)?;
    if found == version {
        Ok(())
    } else {
        Err(format!("read version {found}, not {version}").into())
    }
}

/// Reads, refreshes, writes.
pub fn run(setting: &Setting<'_>, print: &mut dyn FnMut(Row)) -> Result<(), Failure> {
    let prefix = setting.dir.join("value");
    let mut writer = Synchronizer::new(prefix.as_os_str());
    let mut reader = Synchronizer::new(prefix.as_os_str());
    writer.write(&Value::of(0), GRACE)?;

    let figure = batched(BUDGET, || read(&mut reader).map(black_box).is_ok());
    print(
        Row::new("acquire", "read unchanged", WHO, Outcome::Time(figure))
            .over("load", 1.0)
            .detail("130 bytes; the reader writes the state file twice"),
    );

    let figure = batched(BUDGET, || reader.version().is_ok());
    print(Row::new("acquire", "version() unchanged", WHO, Outcome::Time(figure)).over("load", 1.0));

    let (mut version, mut reads) = (0, 0);
    let (writes, reads) = in_turn(
        BUDGET,
        200_000,
        || {
            version += 1;
            writer.write(&Value::of(version), GRACE)?;
            Ok(())
        },
        || {
            reads += 1;
            expect(&mut reader, reads)
        },
    )?;
    print(
        Row::new("refresh", "read after a write", WHO, Outcome::Time(reads))
            .over("hop", 1.0)
            .detail("130 bytes, written on the other core"),
    );
    print(
        Row::new(
            "publish-all",
            "write, 130 bytes",
            WHO,
            Outcome::Time(writes),
        )
        .detail("it knows no parts: a change writes the whole value"),
    );

    whole(&prefix.with_extension("large"), print)
}

/// The same with one megabyte in the value: every change writes it all.
fn whole(prefix: &std::path::Path, print: &mut dyn FnMut(Row)) -> Result<(), Failure> {
    let mut writer = Synchronizer::new(prefix.as_os_str());
    let mut reader = Synchronizer::new(prefix.as_os_str());
    let mut value = Value::of(0);
    value.text = "x".repeat(1 << 20);
    writer.write(&value, GRACE)?;
    let mut reads = 0;
    let (writes, reads) = in_turn(
        BUDGET,
        2_000,
        || {
            value.version += 1;
            writer.write(&value, GRACE)?;
            Ok(())
        },
        || {
            reads += 1;
            expect(&mut reader, reads)
        },
    )?;
    print(
        Row::new(
            "refresh",
            "read after a write of 1 MiB",
            WHO,
            Outcome::Time(reads),
        )
        .over("hop", 1.0)
        .detail("touches one field"),
    );
    print(
        Row::new("publish-all", "write, 1 MiB", WHO, Outcome::Time(writes))
            .over("memcpy 1 MiB", 1.0),
    );
    Ok(())
}
