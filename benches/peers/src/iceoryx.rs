//! iceoryx2: the blackboard (the latest value under a key, copied out) and
//! publish-subscribe (samples lent to subscribers).
//!
//! Writer and reader are two ports of one node here; a reader in another
//! process would map the same memory. Readers map it for writing.
//! iceoryx2 leaves a file of 16 bytes in `/dev/shm` for the next node; it is its own.

use std::hint::black_box;
use std::time::Duration;

use iceoryx2::prelude::*;

use crate::measure::{batched, in_turn};
use crate::row::{Outcome, Row};
use crate::{Failure, Setting};

/// The column "who".
pub const WHO: (&str, &str) = ("iceoryx2", "0.10.0");

/// For what is timed in batches.
const BUDGET: Duration = Duration::from_millis(800);
/// Several values of a megabyte are on the stack at once: the API copies.
const STACK: usize = 64 << 20;
const MIB: usize = 1 << 20;

/// One megabyte in one value.
#[derive(Clone, Copy, Debug, ZeroCopySend)]
#[repr(C)]
struct Large([u8; MIB]);

/// The blackboard, then publish-subscribe.
pub fn run(setting: &Setting<'_>, print: &mut dyn FnMut(Row)) -> Result<(), Failure> {
    set_log_level(LogLevel::Fatal);
    let mut config = Config::default();
    let root = setting
        .dir
        .to_str()
        .ok_or("the directory's name is not UTF-8")?;
    config
        .global
        .set_root_path(&Path::new(root.as_bytes()).map_err(|error| format!("{error:?}"))?);
    let measured = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        let run = || -> Result<Vec<Row>, Failure> {
            let node = NodeBuilder::new()
                .config(&config)
                .create::<ipc_threadsafe::Service>()?;
            let mut rows = Vec::new();
            blackboard(&node, &mut rows)?;
            if let Err(error) = pub_sub(&node, &mut rows) {
                rows.push(Row::not_run("refresh", "publish-subscribe", WHO, error));
            }
            Ok(rows)
        };
        match thread.spawn_scoped(scope, run) {
            Ok(running) => running.join().unwrap_or_else(|_| Err("it panicked".into())),
            Err(error) => Err(error.into()),
        }
    });
    measured?.into_iter().for_each(print);
    Ok(())
}

fn blackboard(node: &Node<ipc_threadsafe::Service>, rows: &mut Vec<Row>) -> Result<(), Failure> {
    let service = node
        .service_builder(&"sherwood/bench/blackboard".try_into()?)
        .blackboard_creator::<u64>()
        .add::<u64>(1, 0)
        .add::<Large>(2, Large([0; MIB]))
        .create()?;
    let (writer, reader) = (
        service.writer_builder().create()?,
        service.reader_builder().create()?,
    );
    let (put, get) = (writer.entry::<u64>(&1)?, reader.entry::<u64>(&1)?);
    let (put_large, get_large) = (writer.entry::<Large>(&2)?, reader.entry::<Large>(&2)?);

    let mut row = |question: &str, name: &str, figure, floor: &str, detail: &str| {
        rows.push(
            Row::new(question, name, WHO, Outcome::Time(figure))
                .over(floor, 1.0)
                .detail(detail),
        );
    };
    let held = get.get();
    row(
        "acquire",
        "blackboard: changed?",
        batched(BUDGET, || get.is_up_to_date(&held)),
        "load",
        "",
    );
    row(
        "acquire",
        "blackboard: get u64",
        batched(BUDGET, || *get.get()),
        "load",
        "a copy, and a compare-and-swap",
    );
    let figure = batched(BUDGET, || black_box(get_large.get()).0[0]);
    row(
        "acquire",
        "blackboard: get 1 MiB",
        figure,
        "memcpy 1 MiB",
        "copies, on the stack",
    );

    let (mut count, mut seen) = (0, 0);
    let (writes, reads) = in_turn(
        BUDGET,
        200_000,
        || -> Result<(), Failure> {
            count += 1;
            put.update_with_copy(count);
            Ok(())
        },
        || {
            seen += 1;
            same(*get.get(), seen)
        },
    )?;
    row(
        "refresh",
        "blackboard: get u64 after an update",
        reads,
        "hop",
        "8 bytes, written on the other core",
    );
    row(
        "publish-all",
        "blackboard: update u64",
        writes,
        "load",
        "8 bytes",
    );

    let mut seen = 0_u8;
    let mut large = Box::new(Large([0; MIB]));
    let (writes, reads) = in_turn(
        BUDGET,
        2_000,
        || -> Result<(), Failure> {
            large.0[0] = large.0[0].wrapping_add(1);
            put_large.update_with_copy(*large);
            Ok(())
        },
        || {
            seen = seen.wrapping_add(1);
            same(black_box(get_large.get()).0[0], seen)
        },
    )?;
    row(
        "refresh",
        "blackboard: get 1 MiB after an update",
        reads,
        "memcpy 1 MiB",
        "copies from the other core",
    );
    row(
        "publish-all",
        "blackboard: update 1 MiB",
        writes,
        "memcpy 1 MiB",
        "",
    );
    Ok(())
}

/// Fails if what was read is not what was just written.
fn same<T: PartialEq + std::fmt::Debug>(read: T, written: T) -> Result<(), Failure> {
    if read == written {
        Ok(())
    } else {
        Err(format!("read {read:?}, not {written:?}").into())
    }
}

fn pub_sub(node: &Node<ipc_threadsafe::Service>, rows: &mut Vec<Row>) -> Result<(), Failure> {
    let service = node
        .service_builder(&"sherwood/bench/samples".try_into()?)
        .publish_subscribe::<[u8]>()
        .create()?;
    let publisher = service
        .publisher_builder()
        .initial_max_slice_len(MIB)
        .create()?;
    let subscriber = service.subscriber_builder().create()?;
    let figure = batched(BUDGET, || {
        subscriber.receive().is_ok_and(|sample| sample.is_none())
    });
    rows.push(
        Row::new(
            "acquire",
            "subscriber: nothing new",
            WHO,
            Outcome::Time(figure),
        )
        .over("load", 1.0),
    );
    let (mut state, mut seen) = (vec![0_u8; MIB], 0_u8);
    let (writes, reads) = in_turn(
        BUDGET,
        2_000,
        || -> Result<(), Failure> {
            state[MIB / 2] = state[MIB / 2].wrapping_add(1);
            publisher
                .loan_slice_uninit(MIB)?
                .write_from_slice(&state)
                .send()?;
            Ok(())
        },
        || {
            let sample = subscriber.receive()?.ok_or("a sample was lost")?;
            seen = seen.wrapping_add(1);
            same(sample.payload()[MIB / 2], seen)
        },
    )?;
    rows.push(
        Row::new(
            "refresh",
            "subscriber: receive 1 MiB, touch one byte",
            WHO,
            Outcome::Time(reads),
        )
        .over("hop", 1.0)
        .detail("lent, not copied"),
    );
    rows.push(
        Row::new(
            "publish-all",
            "publisher: loan, copy in, send 1 MiB",
            WHO,
            Outcome::Time(writes),
        )
        .over("memcpy 1 MiB", 1.0),
    );
    Ok(())
}
