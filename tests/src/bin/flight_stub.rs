//! The daemon's way in, in front of an engine that only tells what it is asked: for tests in other languages.
//!
//! ```text
//! flight_stub DIR
//! ```
//!
//! Publishes three tasks as `DIR/c.arrow`, generation 5, and serves `DIR/c.sock`. Prints the socket's path, then a line
//! of JSON for each request, which is done as generation 6; a transaction whose id is "no" is refused. Ends with its input.

#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde_json::{Value, json};
use sherwood_daemon::engine::{Bulk, Request, Submission};
use sherwood_daemon::flight::{Access, Announced, Limits, Options, serve};
use sherwood_daemon::publish::{self, Publisher};
use sherwood_shared::schema::table_schema;
use sherwood_shared::state::fit;
use sherwood_shared::transaction::Answer;
use sherwood_tests::daemon::state_with_tasks;
use sherwood_tests::json::row;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = PathBuf::from(std::env::args().nth(1).ok_or("usage: flight_stub DIR")?);
    let published = publish::Options {
        run_dir: dir.clone(),
        cluster_id: "c".to_owned(),
        state_dir: (1, 2),
        history: [7; 16],
        region_bytes: None,
        chunk_bytes: None,
        mode: 0o644,
    };
    let _publisher = Publisher::start(published, &state_with_tasks("c", 3, 0), 5)?;
    let options = Options {
        socket: dir.join("c.sock"),
        snapshot: dir.join("c.arrow"),
        snapshot_mode: 0o644,
        access: Access::resolve(&[], &[]).0,
        limits: Limits::default(),
        outcome: Box::new(|id, reply| {
            reply(Answer::unknown(Some(id.to_owned()), "not remembered"))
        }),
        status: Box::new(|| json!({"generation": 5})),
        changes: None,
        announced: Announced::never(),
    };
    let server = serve(options, |Submission { mut request, reply }| {
        // As the engine does it: what does not fit is refused by row.
        if let Request::Bulk(bulk) = &mut request {
            match fit(bulk.table, &bulk.rows, table_schema(bulk.table).fields()) {
                Ok(rows) => bulk.rows = rows,
                Err(error) => {
                    return reply(Answer::refused(bulk.id.take(), Some(5), error.to_string()));
                }
            }
        }
        let (id, told) = tell(&request);
        println!("{told}");
        reply(if id.as_deref() == Some("no") {
            Answer::refused(id, Some(5), "it says no")
        } else {
            Answer::done(id, 6)
        });
    })?;
    println!("{}", server.path().display());
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn tell(request: &Request) -> (Option<String>, Value) {
    match request {
        Request::Transaction(transaction) => (
            transaction.id.clone(),
            json!({"ops": transaction.ops.len()}),
        ),
        Request::Domain { id, op } => (id.clone(), json!({"action": op.action()})),
        Request::Bulk(Bulk {
            id,
            table,
            mode,
            rows,
        }) => {
            let shown: Vec<_> = (0..rows.num_rows().min(2))
                .map(|number| row(rows, number).unwrap_or_else(Value::from))
                .collect();
            let mode = format!("{mode:?}").to_lowercase();
            (
                id.clone(),
                json!({"table": table.name(), "mode": mode, "count": rows.num_rows(), "first": shown}),
            )
        }
        Request::Merge { .. } => (None, json!({"merge": true})),
    }
}
