//! Says what became of the tasks whenever the state changes, without a system call while it does not.
//!
//! ```text
//! cargo run -p sherwood-client --example watcher -- /run/sherwood/default.arrow 10
//! ```
//!
//! The number is how many changes to see; without it, it goes on.

use std::error::Error;
use std::time::Duration;

use sherwood_client::{ReadError, Reader, Snapshot};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: watcher SNAPSHOT [CHANGES]")?;
    let changes = args.next().map_or(Ok(u64::MAX), |text| text.parse())?;
    let reader = Reader::open(path)?;
    let mut handle = reader.handle()?;
    say(handle.latest())?;
    let mut seen = 0;
    while seen < changes {
        // A long wait costs nothing. At its end it is worth asking whether there is anybody to wait for.
        match handle.wait(Duration::from_secs(10))? {
            Some(snapshot) => {
                say(snapshot)?;
                seen += 1;
            }
            None if !reader.liveness()?.alive => {
                eprintln!("the daemon gives no sign of life; this is what it last knew");
            }
            None => {}
        }
    }
    Ok(())
}

fn say(snapshot: &Snapshot) -> Result<(), ReadError> {
    print!("generation {}:", snapshot.generation());
    for (status, tasks) in snapshot
        .get_cluster_status_summary()?
        .tasks
        .by_status
        .iter()
    {
        print!(" {tasks} {status}");
    }
    println!();
    Ok(())
}
