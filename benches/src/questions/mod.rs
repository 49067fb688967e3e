//! The questions that Sherwood is asked, one module each.

use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use sherwood_client::Reader;
use sherwood_daemon::publish::{Options, Publisher};
use sherwood_shared::state::State;
use tempfile::TempDir;

use crate::goal::Line;
use crate::measure::Figure;
use crate::row::{Outcome, Row};
use crate::{Failure, Setting};

mod acquire;
mod attach;
mod lookup;
mod memory;
mod publish;
mod refresh;
pub mod wake;
pub mod write;
mod write_bulk;
mod write_checkpoint;
mod write_engine;
mod write_start;
mod write_transact;

/// The column "who".
const WHO: (&str, &str) = ("Sherwood", env!("CARGO_PKG_VERSION"));

/// For one figure.
const BUDGET: Duration = Duration::from_secs(1);

/// How a question hands its lines over.
type Say<'a> = &'a mut dyn FnMut(Line);
/// A question.
type Question = fn(&Setting, Say<'_>) -> Result<(), Failure>;

/// In the order they are asked; the second name is that of other lines that a
/// question gives.
const ALL: [(&str, &str, Question); 13] = [
    ("acquire", "acquire", acquire::ask),
    ("refresh", "refresh", refresh::ask),
    ("lookup", "lookup", lookup::ask),
    ("publish", "publish-all", publish::ask),
    ("wake", "wake", wake::ask),
    ("attach", "attach", attach::ask),
    ("memory", "memory", memory::ask),
    ("transact", "transact", write_transact::ask),
    ("transact", "transact", write_engine::ask),
    ("bulk", "bulk", write_bulk::ask),
    ("checkpoint", "checkpoint", write_checkpoint::ask),
    ("write-memory", "write-memory", write_checkpoint::ask_memory),
    ("start", "start", write_start::ask),
];

/// Asks all that were asked for. A question that fails gives a row that says
/// why, after those it had given.
pub fn ask(setting: &Setting) -> Vec<Line> {
    let mut lines = Vec::new();
    for (question, also, ask) in ALL {
        if !setting.asks(question) && !setting.asks(also) {
            continue;
        }
        let mut say = |line: Line| {
            eprintln!(
                "{}: {}: {}",
                line.row.question, line.row.peer, line.row.name
            );
            lines.push(line);
        };
        // One question that panics takes its own figures along, not the others'.
        let asked = catch_unwind(AssertUnwindSafe(|| ask(setting, &mut say)));
        if let Err(error) = asked.unwrap_or_else(|_| Err("it panicked: see stderr".into())) {
            say(Row::not_run(question, "the rest of the question", WHO, error).into());
        }
    }
    lines
}

/// One of our rows that shows a time.
fn time(question: &str, name: impl Into<String>, figure: Figure) -> Row {
    Row::new(question, name, WHO, Outcome::Time(figure))
}

/// One of our rows that shows how much larger one median is than another.
fn ratio(question: &str, name: impl Into<String>, over: &Figure, under: &Figure) -> Row {
    Row::new(
        question,
        name,
        WHO,
        Outcome::Number(over.median / under.median, "x".into()),
    )
}

/// A published state: its writer, in a directory that goes with it.
struct Published {
    publisher: Publisher,
    // After the publisher: fields are dropped in this order.
    _dir: TempDir,
}

impl Published {
    /// Publishes `state` into a directory of its own.
    fn new(setting: &Setting, state: &State) -> Result<Self, Failure> {
        let dir = tempfile::Builder::new()
            .prefix("sherwood-bench-")
            .tempdir_in(&setting.dir)?;
        let metadata = dir.path().metadata()?;
        let options = Options {
            run_dir: dir.path().to_owned(),
            cluster_id: "bench".into(),
            state_dir: (metadata.dev(), metadata.ino()),
            history: *b"sherwood-benches",
            region_bytes: None,
            chunk_bytes: None,
            mode: 0o600,
        };
        Ok(Self {
            publisher: Publisher::start(options, state, 1)?,
            _dir: dir,
        })
    }

    /// A reader of what is published, as another process would open it.
    fn reader(&self) -> Result<Reader, Failure> {
        Ok(Reader::open(self.publisher.path())?)
    }
}
