//! The commands that change a state.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as Group, Subcommand, ValueEnum};
use serde_json::Value;
use sherwood_client::write::Mode;

use super::{TableName, seconds};

#[derive(Debug, Subcommand)]
pub enum WriteCommand {
    /// Apply transactions, one JSON object a line, or the rows of an Arrow or Parquet file
    Apply(ApplyArgs),
    /// Make or replace rows of a table, from JSON, Arrow, Parquet or CSV
    Put(PutArgs),
    /// Set some columns of one row
    Patch(PatchArgs),
    /// Delete rows
    Delete(DeleteArgs),
    /// Give a pending task to a node that is online
    Assign(AssignArgs),
    /// Take the oldest pending task that fits a node, and print its id
    Claim(ClaimArgs),
    /// Say that an assigned task runs
    Start(TaskArgs),
    /// Say that a task is done, and what it made
    Complete(CompleteArgs),
    /// Say that a task went wrong, and why
    Fail(FailArgs),
    /// Put an assigned or running task back to pending
    Release(TaskArgs),
    /// Give up an open task
    Cancel(TaskArgs),
    /// Put a failed task back to pending
    Retry(TaskArgs),
    /// Put a whole state into the daemon, table by table: Parquet, JSON, or a directory of tables
    Import(ImportArgs),
    /// Show what a state directory can be recovered from, go back, or save what is left
    Recover(RecoverArgs),
}

/// How to write, and how to say what became of it.
#[derive(Clone, Debug, Group)]
#[command(next_help_heading = "How to write")]
pub struct WriteArgs {
    /// Name the change, so that running it again is harmless
    ///
    /// The daemon applies an id once and remembers at least the last 100,000: the same command with the same
    /// id again tells what became of the first. Default: an id that is made up.
    #[arg(long, value_name = "ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub id: Option<String>,
    /// How long to go on asking what became of it, before it is unknown [default: 30; 600 for Arrow and Parquet]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = seconds)]
    pub timeout: Option<Duration>,
    /// How to say it
    #[arg(short, long, value_enum, default_value_t = AnswerFormat::Text)]
    pub output: AnswerFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AnswerFormat {
    /// One line for people
    Text,
    /// One object: the answer, or of a file {"outcome", "generation", "rows", "transactions"}
    Json,
}

/// Where rows or transactions come from.
#[derive(Clone, Debug, Group)]
pub struct FileArgs {
    /// The file; - for standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
    /// What is in it [default: by its name, else by its first bytes; CSV if they are of nothing else]
    #[arg(long, value_enum)]
    pub format: Option<InputFormat>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InputFormat {
    /// Objects, one a line, or one array of them
    Json,
    /// An Arrow IPC file or stream
    Arrow,
    /// A table, one row a row
    Parquet,
    /// A header line, then rows; lists as JSON arrays
    Csv,
}

impl InputFormat {
    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::Arrow => "Arrow",
            Self::Parquet => "Parquet",
            Self::Csv => "CSV",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RowMode {
    /// Make or replace rows
    Put,
    /// Set the columns that the file has, in rows that are there
    Patch,
    /// Delete the rows with these keys
    Delete,
}

impl From<RowMode> for Mode {
    fn from(mode: RowMode) -> Self {
        match mode {
            RowMode::Put => Self::Put,
            RowMode::Patch => Self::Patch,
            RowMode::Delete => Self::Delete,
        }
    }
}

#[derive(Debug, Group)]
#[command(after_long_help = "\
A transaction is applied whole or not at all, if what it requires holds:
  {\"id\":\"x1\",
   \"if\":[{\"table\":\"tasks\",\"key\":\"t1\",\"column\":\"status\",\"equals\":\"pending\"},
         {\"table\":\"nodes\",\"key\":\"n1\",\"exists\":true}, {\"generation\":17}],
   \"ops\":[{\"put\":\"tasks\",\"row\":{\"id\":\"t2\"}},
          {\"patch\":\"tasks\",\"key\":\"t1\",\"set\":{\"status\":\"assigned\"}},
          {\"delete\":\"content\",\"key\":\"c1\"}]}
on one line; \"id\" and \"if\" may be left out. A line may also be a domain operation:
  {\"do\":\"assign\",\"task\":\"t1\",\"node\":\"n1\"}

One answer a line on stdout, in the order of the input, and as soon as it is known:
  {\"id\":\"x1\",\"outcome\":\"done\",\"generation\":18}

With --table the file holds rows, in any format, and is sent in pieces as sherwood put does: each a \
transaction, and one answer for all of them.

A line that is no transaction is answered as refused, with its number. A daemon that goes away, or answers that \
nobody reads, end it: what was sent before is still waited for. The exit code is 6 if any answer is unknown; else \
that of what ended it, 5 if any is refused, or 0.

Examples:
  sherwood apply -f changes.jsonl
  echo '{\"ops\":[{\"delete\":\"tasks\",\"key\":\"t1\"}]}' | sherwood apply -f -
  sherwood apply -f progress.parquet --table tasks --mode patch")]
pub struct ApplyArgs {
    #[command(flatten)]
    pub input: FileArgs,
    /// The file holds rows of this table
    #[arg(long, value_enum)]
    pub table: Option<TableName>,
    /// What to do with the rows
    #[arg(long, value_enum, requires = "table", default_value_t = RowMode::Put)]
    pub mode: RowMode,
    /// How long to go on asking what became of a transaction, before it is unknown [default: 30; 600 for Arrow and Parquet]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = seconds)]
    pub timeout: Option<Duration>,
}

#[derive(Debug, Group)]
#[command(after_long_help = "\
A row that is there is replaced: columns of the document that the file leaves out become null. Columns \
beyond the document are kept. In JSON and CSV a timestamp is milliseconds, or text as \
2026-01-02T03:04:05.678Z or 2026-01-02. A row that the table cannot hold refuses its piece (exit code 5), \
by its number in the file or by its key.

Large files are sent in pieces of up to 5,000 (JSON, CSV) or 100,000 rows (Arrow, Parquet), each of which is \
applied whole or not at all; the first that is not applied ends it. With --id the pieces are ID, ID-2, ID-3 \
and so on: the same file again with the same id goes on where it stopped. A corrected file needs another \
id, since refusals are remembered too.

Examples:
  sherwood put tasks -f tasks.jsonl
  echo '{\"id\":\"t1\",\"type\":\"build\",\"status\":\"pending\"}' | sherwood put tasks -f -
  sherwood put content -f content.parquet --id nightly-17")]
pub struct PutArgs {
    /// Of which table
    #[arg(value_enum)]
    pub table: TableName,
    #[command(flatten)]
    pub input: FileArgs,
    #[command(flatten)]
    pub write: WriteArgs,
}

/// A table, or the cluster's one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PatchTable {
    /// The hosts
    Nodes,
    /// The work
    Tasks,
    /// The content items
    Content,
    /// The cluster's one row, which has no KEY
    Cluster,
}

#[derive(Debug, Group)]
#[command(after_long_help = "\
VALUE is JSON where it is JSON (5, true, null, [\"a\"], {\"cpu_cores\":2}), else text: status=running. Text that \
looks like JSON is quoted twice: 'type=\"5\"'. A timestamp is milliseconds, or text as \
2026-01-02T03:04:05.678Z or 2026-01-02. A dot leads into a struct, whose other fields stay as they are.

The row has to be there; --if adds conditions on it, and may be given several times. All of it is applied, \
or nothing.

Examples:
  sherwood patch tasks task-1 status=running progress=0.5
  sherwood patch nodes node-1 resources.cpu_load=0.25 last_seen=2026-01-02T03:04:05Z
  sherwood patch tasks task-1 assigned_to=null status=pending --if status=running
  sherwood patch cluster master_id=node-2")]
pub struct PatchArgs {
    /// Of which table
    #[arg(value_enum)]
    pub table: PatchTable,
    /// Node id, task id or CID (not for cluster), then what to set
    #[arg(value_name = "KEY COL=VALUE", required = true, num_args = 1..)]
    pub words: Vec<String>,
    /// Only if this column has this value now
    #[arg(long = "if", value_name = "COL=VALUE", value_parser = assignment)]
    pub conditions: Vec<Assignment>,
    #[command(flatten)]
    pub write: WriteArgs,
}

#[derive(Debug, Group)]
#[command(after_long_help = "\
All of them in one transaction: one that is not there refuses the rest.

Example:
  sherwood delete tasks task-1 task-2")]
pub struct DeleteArgs {
    /// Of which table
    #[arg(value_enum)]
    pub table: TableName,
    /// Node ids, task ids or CIDs
    #[arg(value_name = "KEY", required = true)]
    pub keys: Vec<String>,
    #[command(flatten)]
    pub write: WriteArgs,
}

#[derive(Debug, Group)]
#[command(after_long_help = "\
Example:
  sherwood assign task-1 node-3 || echo 'not pending, or not online'")]
pub struct AssignArgs {
    /// The task's id
    pub task: String,
    /// The node's id
    pub node: String,
    #[command(flatten)]
    pub write: WriteArgs,
}

#[derive(Debug, Group)]
#[command(after_long_help = "\
The oldest pending task whose needs the node meets becomes assigned to the node; its id is printed. The exit \
code is 3 when there is none.

Examples:
  task=$(sherwood claim node-1 --type build test) && sherwood start \"$task\"
  sherwood claim --type build node-2
  sherwood get tasks \"$(sherwood claim node-1)\" -o json")]
pub struct ClaimArgs {
    /// The node's id
    // Optional to the parser only: see `subject`.
    #[arg(required_unless_present = "types")]
    pub node: Option<String>,
    /// Only tasks of these types
    #[arg(long = "type", value_name = "TYPE", num_args = 1..)]
    pub types: Vec<String>,
    #[command(flatten)]
    pub write: WriteArgs,
}

#[derive(Debug, Group)]
#[command(after_long_help = "\
A task goes from pending to assigned, running, and completed or failed. complete and fail also end an \
assigned one; release puts an assigned or running one back to pending; cancel ends any that is open; retry \
puts a failed one back to pending. Anything else is refused, and the reason names the task's status.

Example:
  sherwood start task-1")]
pub struct TaskArgs {
    /// The task's id
    pub task: String,
    #[command(flatten)]
    pub write: WriteArgs,
}

#[derive(Debug, Group)]
#[command(after_long_help = "\
Example:
  sherwood complete task-1 --output QmResult QmLog")]
pub struct CompleteArgs {
    /// The task's id
    // Optional to the parser only: see `subject`.
    #[arg(required_unless_present = "outputs")]
    pub task: Option<String>,
    /// CIDs of what it made
    // So the answer's format has another name here.
    #[arg(long = "output", value_name = "CID", num_args = 1..)]
    pub outputs: Vec<String>,
    #[command(flatten)]
    pub write: QuietWriteArgs,
}

/// [`WriteArgs`] where `--output` means something else.
#[derive(Clone, Debug, Group)]
#[command(next_help_heading = "How to write")]
pub struct QuietWriteArgs {
    /// Name the change, so that running it again is harmless
    #[arg(long, value_name = "ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub id: Option<String>,
    /// How long to go on asking what became of it, before it is unknown [default: 30; 600 for Arrow and Parquet]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = seconds)]
    pub timeout: Option<Duration>,
    /// How to say it
    #[arg(short = 'o', long = "answer", value_enum, default_value_t = AnswerFormat::Text)]
    pub output: AnswerFormat,
}

impl From<&QuietWriteArgs> for WriteArgs {
    fn from(args: &QuietWriteArgs) -> Self {
        Self {
            id: args.id.clone(),
            timeout: args.timeout,
            output: args.output,
        }
    }
}

#[derive(Debug, Group)]
#[command(after_long_help = "\
Example:
  sherwood fail task-1 --reason 'exit code 2'")]
pub struct FailArgs {
    /// The task's id
    pub task: String,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    #[command(flatten)]
    pub write: WriteArgs,
}

#[derive(Debug, Group)]
#[command(after_long_help = "\
FILE is what sherwood export writes of a whole state, a state_<cluster>.parquet, a JSON object \
{\"cluster\": {...}, \"nodes\": [...], \"tasks\": [...], \"content\": [...]}, or a directory with nodes, tasks \
and content as .arrow, .parquet, .jsonl, .json or .csv (sherwood snapshot writes one). Tables that it lacks \
are left alone.

Of the cluster's columns only master_id is imported; others that the file has are named in a warning. A column of a \
table that neither the schema nor the daemon's table has is refused, by its name. To bring columns along, replace \
state_<cluster>.parquet in the state directory instead: the daemon merges it with all that it has.

Rows are put: those that are there already are replaced, others stay. A task's updated_at becomes the time \
of the import.

An import is several transactions: one or more for each table (pieces of up to 100,000 rows, of JSON and \
CSV 5,000), and one for master_id. Each is applied whole or not at all, and is a generation of its own: \
readers may see some before others, and the first that is not applied ends the import. With --id the same \
import again goes on where it stopped.

Examples:
  sherwood import backup/state_default.parquet
  sherwood import /tmp/now --id restore-1
  sherwood --run-dir /run/a export -o jsonl - | sherwood --run-dir /run/b import -")]
pub struct ImportArgs {
    /// The file or directory; - for standard input
    pub file: PathBuf,
    /// Take the state even if it says that it is of another cluster
    #[arg(long)]
    pub any_cluster: bool,
    #[command(flatten)]
    pub write: WriteArgs,
}

#[derive(Debug, Group)]
#[command(after_long_help = "\
A daemon that cannot start says which of these helps. They work on the state directory (--state-dir), not \
through a daemon. Sequence numbers count the entries of the log; list shows them, and which of them restore \
reaches.

Examples:
  sherwood --state-dir /var/lib/sherwood recover list
  sherwood --state-dir /var/lib/sherwood recover restore --to 1041
  sherwood --state-dir /var/lib/sherwood recover salvage /tmp/saved.parquet")]
pub struct RecoverArgs {
    #[command(subcommand)]
    pub command: RecoverCommand,
}

#[derive(Debug, Subcommand)]
pub enum RecoverCommand {
    /// List checkpoints and log, their checksums checked; changes nothing
    List(RecoverLook),
    /// The same, and decode every checkpoint; exit with 1 if anything is wrong
    Verify(RecoverLook),
    /// Make the state after an entry of the log the newest; the daemon must not run
    ///
    /// What is replaced is moved to set-aside/<time>/ in the state directory, whole. A restore that was cut off is
    /// finished by the next.
    #[expect(
        rustdoc::invalid_html_tags,
        reason = "shown by --help as it stands, where <...> is what a user replaces"
    )]
    Restore {
        /// The last entry to keep
        #[arg(long, value_name = "SEQ")]
        to: u64,
    },
    /// Write everything that can still be read to a new Parquet file; changes nothing else
    Salvage {
        /// The file; must not exist
        out: PathBuf,
    },
}

/// How to show what there is.
#[derive(Debug, Group)]
pub struct RecoverLook {
    /// Format
    #[arg(short, long, value_enum, default_value_t = super::StatusFormat::Text)]
    pub output: super::StatusFormat,
}

/// The node or task that a command is about, and the words of its option that takes any number of them: said after
/// them, the subject is the last.
pub fn subject<'a>(
    subject: Option<&'a String>,
    words: &'a [String],
    what: &str,
) -> Result<(&'a str, &'a [String]), String> {
    match (subject, words) {
        (Some(subject), words) => Ok((subject, words)),
        (None, [words @ .., last]) if !words.is_empty() => Ok((last, words)),
        (None, _) => Err(format!("say which {what}: {}", what.to_uppercase())),
    }
}

/// A column and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    pub column: String,
    pub value: Value,
}

/// `COL=VALUE`: JSON where it is JSON, else text.
pub fn assignment(text: &str) -> Result<Assignment, String> {
    let (column, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} has no '='; say COL=VALUE"))?;
    if column.is_empty() || column.split('.').any(str::is_empty) {
        return Err(format!("{text:?} names no column; say COL=VALUE"));
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    Ok(Assignment {
        column: column.to_owned(),
        value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_value_is_json_where_it_is_json_and_text_otherwise() {
        for (text, column, value) in [
            ("status=running", "status", json!("running")),
            ("progress=0.5", "progress", json!(0.5)),
            ("a.b=null", "a.b", json!(null)),
            ("pinned=true", "pinned", json!(true)),
            ("type=\"5\"", "type", json!("5")),
            ("peers=[\"a\"]", "peers", json!(["a"])),
            ("error=a=b", "error", json!("a=b")),
            ("error=", "error", json!("")),
            ("error={oops", "error", json!("{oops")),
        ] {
            let expected = Assignment {
                column: column.to_owned(),
                value,
            };
            assert_eq!(assignment(text), Ok(expected), "{text}");
        }
        for bad in ["status", "=5", "a.=5", ".a=5", ""] {
            assert!(assignment(bad).is_err(), "{bad}");
        }
    }
}
