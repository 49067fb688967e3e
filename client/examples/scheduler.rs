//! A scheduler: gives every pending task to the node that suits it best, and does so again when the state changes.
//!
//! ```text
//! cargo run -p sherwood-client --features write --example scheduler -- /run/sherwood/default.arrow
//! ```
//!
//! It reads through the snapshot and writes through the socket beside it. Any number of schedulers may run: the daemon decides
//! who was first, and the others are refused. With `once` behind the path it ends after the first round.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use sherwood_client::write::{Outcome, Writer};
use sherwood_client::{Reader, Snapshot};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let path = args.next().ok_or("usage: scheduler SNAPSHOT [once]")?;
    let path = PathBuf::from(path);
    let only_once = args.next().is_some_and(|word| word == "once");
    let writer = Writer::connect(path.with_extension("sock"))?;
    let reader = Reader::open(&path)?;
    let mut handle = reader.handle()?;
    loop {
        // What was assigned is visible when it is acknowledged, so the next look does not see it as pending.
        while assign_all(handle.latest(), &writer)? > 0 {}
        if only_once {
            return Ok(());
        }
        handle.wait(Duration::from_secs(10))?;
    }
}

/// Assigns what can be assigned in one state. Returns how many tasks that were.
fn assign_all(snapshot: &Snapshot, writer: &Writer) -> Result<u64, Box<dyn Error>> {
    let mut assigned = 0;
    for task in snapshot.find_tasks_by_status("pending") {
        let task = task?.id();
        let Some(node) = snapshot.find_available_node_for_task(task)? else {
            continue; // nothing fits now
        };
        match writer.assign(task, node.id())? {
            Outcome::Done { .. } => {
                assigned += 1;
                println!("{task} -> {}", node.id());
            }
            Outcome::Refused { reason, .. } => eprintln!("{task}: {reason}"),
            Outcome::Unknown { reason, .. } => eprintln!("{task}: not known yet: {reason}"),
        }
    }
    Ok(assigned)
}
