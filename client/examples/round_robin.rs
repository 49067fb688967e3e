//! A helper of one's own: spreads the pending tasks over the workers that are online, one after the other.
//!
//! ```text
//! cargo run -p sherwood-client --example round_robin -- /run/sherwood/default.arrow
//! ```

use std::error::Error;

use sherwood_client::{ReadError, Reader, Snapshot};

/// Which node each pending task should go to. Empty without workers: there is nobody to give anything to.
fn find_optimal_task_distribution(snapshot: &Snapshot) -> Result<Vec<(&str, &str)>, ReadError> {
    let mut workers = Vec::new();
    for node in snapshot.find_nodes_by_role("worker") {
        let node = node?;
        if node.status() == Some("online") {
            workers.push(node.id());
        }
    }
    // `cycle` of nothing ends at once, where a remainder of nothing would be a division by zero.
    let workers = workers.iter().copied().cycle();
    snapshot
        .find_tasks_by_status("pending")
        .zip(workers)
        .map(|(task, node)| Ok((task?.id(), node)))
        .collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os()
        .nth(1)
        .ok_or("usage: round_robin SNAPSHOT")?;
    let snapshot = Reader::open(path)?.snapshot()?;
    for (task, node) in find_optimal_task_distribution(&snapshot)? {
        println!("{task} -> {node}");
    }
    Ok(())
}
