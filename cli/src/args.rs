//! What the command line says: every option, its help, and the exit codes.

mod write;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as Group, Parser, Subcommand, ValueEnum};
use sherwood_client::TableId;

pub use write::*;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  error: damaged or unreadable data, no permission, a disk that is full, ...
  2  wrong usage
  3  an ID was not found (those that were are printed), or there is no task to claim
  4  stale (older than --max-age) or unavailable (no state there, no daemon)
  5  refused: nothing of it was applied
  6  unknown: it may have been applied; run it again with the same --id";

const EXAMPLES: &str = "\
Examples:
  sherwood sample --nodes 20 --tasks 1000 --content 500 --out /tmp/demo
  sherwood --state-dir /tmp/demo status
  sherwood get nodes
  sherwood get tasks task-1 task-2 -o json
  sherwood get tasks -o jsonl | jq 'select(.status == \"failed\") | .id'
  sherwood get tasks --where \"status = 'pending' and resources.gpu_cores >= 2\"
  sherwood export --table tasks /tmp/tasks.parquet
  sherwood watch --count 1 --timeout 60
  sherwood patch tasks task-1 status=pending priority=5
  sherwood claim node-1 --type build
  sherwood apply -f changes.jsonl
  sherwood verify /run/sherwood/default.arrow

Results go to stdout, everything else to stderr.";

/// Look at the state of a cluster, its nodes, tasks and content, and change it.
///
/// With a running sherwoodd the state is read from its snapshot in shared memory; without
/// one, from the Parquet file in the state directory. Changes need the daemon.
#[derive(Debug, Parser)]
#[command(
    name = "sherwood",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = EXIT_CODES,
    after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"),
)]
pub struct Args {
    #[command(flatten)]
    pub places: PlaceArgs,
    #[command(subcommand)]
    pub command: Command,
}

/// Where the state is. One of these is enough; none at all means the usual places.
#[expect(
    rustdoc::invalid_html_tags,
    reason = "shown by --help as it stands, where <...> is what a user replaces"
)]
#[derive(Clone, Debug, Default, Group)]
#[command(next_help_heading = "Where the state is")]
pub struct PlaceArgs {
    /// Directory that holds state_metadata.json and state_<cluster>.parquet
    ///
    /// A running daemon's snapshot is read if it stands for exactly this directory (not for
    /// one that this is a copy of), else the Parquet file. Default: $SHERWOOD_STATE_DIR; where
    /// that is not set, the first of ~/.ipfs/cluster_state, ~/.ipfs_cluster_state,
    /// /var/lib/ipfs/cluster_state and /var/lib/sherwood that holds a state.
    #[arg(long, value_name = "DIR", global = true)]
    pub state_dir: Option<PathBuf>,

    /// Directory that holds the daemon's snapshot, <cluster>.arrow
    ///
    /// Enough by itself: its only snapshot is read, or that of --cluster-id. Default:
    /// $SHERWOOD_RUN_DIR; where no state directory is found either, $XDG_RUNTIME_DIR/sherwood,
    /// /run/sherwood and /dev/shm/sherwood.
    #[arg(long, value_name = "DIR", global = true)]
    pub run_dir: Option<PathBuf>,

    /// Which cluster, where there are several [default: $SHERWOOD_CLUSTER_ID]
    #[arg(long, value_name = "ID", global = true)]
    pub cluster_id: Option<String>,

    /// Read this snapshot file, whatever it stands for
    #[arg(long, value_name = "FILE", global = true, conflicts_with_all = ["state_dir", "run_dir"])]
    pub snapshot: Option<PathBuf>,

    /// The daemon's socket, <cluster>.sock: change its state through this, and read the snapshot beside it
    ///
    /// Enough for a change, also where this user may not read the state. Default: $SHERWOOD_SOCKET, where the command
    /// line says nothing else about where the state is.
    #[arg(long, value_name = "PATH", global = true, conflicts_with_all = ["state_dir", "run_dir", "snapshot"])]
    pub socket: Option<PathBuf>,

    /// Read this Parquet state file, whether or not a daemon serves it
    #[arg(long, value_name = "FILE", global = true, conflicts_with_all = ["state_dir", "run_dir", "snapshot", "socket"])]
    pub parquet: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say which state there is, how large, how old, and whether a daemon keeps it up to date
    Status(StatusArgs),
    /// Print nodes, tasks or content: all of them in key order, or those with the given IDs
    Get(GetArgs),
    /// Write the state, or rows of one table, as a Parquet, Arrow or JSON file
    Export(ExportArgs),
    /// Print one line for each new generation that a daemon publishes
    Watch(WatchArgs),
    /// Check a snapshot or a Parquet state file and say what is wrong with it
    Verify(VerifyArgs),
    /// Write each table as a plain Arrow IPC file, for tools that open files by path
    Snapshot(SnapshotArgs),
    /// Make up a plausible state of any size and write it as a state directory
    Sample(SampleArgs),
    #[command(flatten)]
    Write(WriteCommand),
}

/// How old a state may be.
#[derive(Clone, Copy, Debug, Group)]
pub struct AgeArgs {
    /// Exit with 4 if the state may be older than this
    ///
    /// A state that a live daemon publishes is current, however long ago it last changed. A
    /// dead daemon's snapshot is as old as its last publish, a Parquet file read without a
    /// daemon as old as its last modification. A daemon that does not show a sign of life
    /// within three seconds counts as dead.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = seconds)]
    pub max_age: Option<Duration>,
}

#[derive(Debug, Group)]
#[command(after_long_help = "\
With -o json exactly these keys, null where unknown:
  cluster_id, generation, age_seconds, stale, nodes, tasks, content (numbers of rows),
  state_path (the state directory), snapshot_path, daemon_pid, trouble

stale: a daemon served this state and is dead, or shows no sign of life. age_seconds: since the \
last publish, or since the Parquet file was modified; a quiet cluster grows old without being stale. \
trouble: what the daemon says is wrong with it, a text for each part of it, such as a state file that it \
refuses or a checkpoint that it cannot write; {} if all is well, null if it could not be asked. The exit \
code does not depend on it.

Example:
  sherwood --run-dir /run/sherwood status -o json | jq .stale")]
pub struct StatusArgs {
    /// Format
    #[arg(short, long, value_enum, default_value_t = StatusFormat::Text)]
    pub output: StatusFormat,
    #[command(flatten)]
    pub age: AgeArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StatusFormat {
    /// One fact a line
    Text,
    /// One object
    Json,
}

#[derive(Debug, Group)]
#[command(after_long_help = "\
Examples:
  sherwood get nodes
  sherwood get tasks task-17 task-4 -o json
  sherwood get content -o jsonl --max-age 10 | wc -l
  sherwood get tasks --where \"status = 'pending' and assigned_to = 'node-3'\"
  sherwood get nodes --where \"resources.gpu_count >= 2 and capabilities contains 'cuda'\" -o yaml
  sherwood get tasks --where \"id like 'train-%' and created_at >= '2026-01-02T00:00:00Z'\" -o csv
  sherwood get content --where \"pinned and not (size < 1000000)\" -o arrow > big.arrows
  python3 -c \"import pyarrow as pa; print(pa.ipc.open_stream('big.arrows').read_all())\"

A condition compares columns with values: = != < <= > >=, [not] in ('a', 'b'), [not] like 'a%' (% is \
any text, _ any character, \\ takes the meaning from either), [not] contains (an item of a list, a part \
of a text), is [not] null; and, or, not, parentheses. Text stands in single quotes, timestamps are \
text like '2026-01-02T03:04:05Z', fields of structs have dots, odd names double quotes. A comparison \
with null is neither true nor false, and selects nothing. docs/filter.md has all of it.

All formats but the table hold every column of the state, the table only the most asked-for. In csv \
fields of structs are columns with dotted names, lists are JSON, and nulls are empty. arrow is an IPC \
stream, and not for terminals. In json, jsonl and yaml timestamps are text in UTC (2026-01-02T03:04:05.678Z), structs are objects, lists are arrays, binary \
values are hexadecimal text, and numbers that JSON does not have (NaN, infinities) are null. In a \
table a null is \"-\".

With IDs, rows come in the order of the IDs, each once; if some are not found the others are printed \
and the exit code is 3. If the daemon that served the state is dead, the rows are printed all the \
same, with a warning: see --max-age.")]
pub struct GetArgs {
    /// What to print
    #[arg(value_enum)]
    pub table: TableName,
    /// Node ids, task ids or CIDs; none for all rows
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// Only rows for which this is true, as in "status = 'pending' and assigned_to = 'node-3'"
    #[arg(short, long, value_name = "EXPR")]
    pub r#where: Option<String>,
    /// Format
    #[arg(short, long, value_enum, default_value_t = RowFormat::Table)]
    pub output: RowFormat,
    #[command(flatten)]
    pub age: AgeArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TableName {
    /// The hosts
    Nodes,
    /// The work
    Tasks,
    /// The content items
    Content,
}

impl From<TableName> for TableId {
    fn from(name: TableName) -> Self {
        match name {
            TableName::Nodes => Self::Nodes,
            TableName::Tasks => Self::Tasks,
            TableName::Content => Self::Content,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RowFormat {
    /// Aligned columns for people
    Table,
    /// One array of objects
    Json,
    /// One object a line
    Jsonl,
    /// One list of objects
    Yaml,
    /// A line of names, then one line a row
    Csv,
    /// An Arrow IPC stream
    Arrow,
}

#[derive(Debug, Group)]
#[command(after_long_help = "\
Of the whole state, parquet is the document: one row, as in the state directory, which sherwoodd and \
the document's programs read. json is the document as one object; jsonl has transactions, a line for the \
cluster and one for each row, which puts it. sherwood import takes each of them. arrow is an IPC file and \
always of one table: of the whole state, sherwood snapshot writes a directory of them, which sherwood \
import takes too.

Of one table each format has a row for each row, which sherwood put takes.

A file appears whole or not at all, in place of one of the same name. With - the export goes to \
stdout, and --output says the format.

Examples:
  sherwood export backup.parquet
  sherwood export --table tasks --where \"status = 'failed'\" failed.arrow
  sherwood export --table nodes -o jsonl - | jq .id")]
pub struct ExportArgs {
    /// File to write, or - for stdout
    pub file: PathBuf,
    /// One table only
    #[arg(long, value_name = "TABLE", value_enum)]
    pub table: Option<TableName>,
    /// Only rows for which this is true: see sherwood get --help
    #[arg(short, long, value_name = "EXPR", requires = "table")]
    pub r#where: Option<String>,
    /// Format [default: by the file's name: .parquet, .arrow, .json, .jsonl]
    #[arg(short, long, value_enum)]
    pub output: Option<ExportFormat>,
    #[command(flatten)]
    pub age: AgeArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// Parquet, compressed with zstd
    Parquet,
    /// An Arrow IPC file, of one table
    Arrow,
    /// One object, or of one table one array
    Json,
    /// One transaction a line, or of one table one row a line
    Jsonl,
}

#[derive(Debug, Group)]
#[command(after_long_help = "\
A line has the generation, when it was published, the numbers of rows, and in parentheses by how \
much they changed since the line before. Generations that follow each other faster than they can be \
read are skipped, never shown in part.

The exit code is 0 when --count lines were printed, or the time is over and no --count was given; 4 \
when the time was over before that.

Examples:
  sherwood watch
  sherwood watch -o jsonl | jq .generation
  sherwood watch --count 1 --timeout 30 && echo changed")]
pub struct WatchArgs {
    /// Format
    #[arg(short, long, value_enum, default_value_t = WatchFormat::Text)]
    pub output: WatchFormat,
    /// Stop after so many lines
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Stop after so long
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = seconds)]
    pub timeout: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WatchFormat {
    /// One line for people
    Text,
    /// One object a line
    Jsonl,
}

#[derive(Debug, Group)]
#[command(after_long_help = "\
Every chunk, footer, index and key of the newest generation is looked at, in a copy, so a file of \
any origin can be given. Everything that is wrong is printed, one line each, with the byte offset \
where it stands. A value changed into another valid value can be told in Parquet files that Sherwood \
wrote, which carry a checksum, but not in a snapshot.

The exit code is 0 for a good file and 1 for a damaged one.

Examples:
  sherwood verify /run/sherwood/default.arrow
  sherwood verify /var/lib/sherwood/state_default.parquet")]
pub struct VerifyArgs {
    /// The snapshot or Parquet file, told apart by their first bytes
    pub file: PathBuf,
}

#[derive(Debug, Group)]
#[command(after_long_help = "\
Writes cluster.arrow, nodes.arrow, tasks.arrow and content.arrow, all of one generation. Each file is \
replaced as a whole, so that nobody sees half of one; the schema's metadata of each says of which \
cluster and generation it is (sherwood.cluster_id, sherwood.generation).

Example:
  sherwood snapshot /tmp/now
  python3 -c \"import pyarrow as pa; print(pa.ipc.open_file('/tmp/now/tasks.arrow').read_all())\"")]
pub struct SnapshotArgs {
    /// Directory for the four files; made if need be
    pub out_dir: PathBuf,
}

#[derive(Debug, Group)]
#[command(after_long_help = "\
The cluster is called \"sample\", or what --cluster-id says. The same options give the same state, byte \
for byte. A state of the same name in that directory is replaced.

Example:
  sherwood sample --nodes 20 --tasks 1000 --content 500 --out /tmp/demo
  sherwoodd --state-dir /tmp/demo --run-dir /dev/shm/demo &
  sherwood --state-dir /tmp/demo get nodes")]
pub struct SampleArgs {
    /// Number of nodes
    #[arg(long, value_name = "N")]
    pub nodes: usize,
    /// Number of tasks
    #[arg(long, value_name = "N")]
    pub tasks: usize,
    /// Number of content items
    #[arg(long, value_name = "N")]
    pub content: usize,
    /// State directory to write, made if need be
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Another seed, another state
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
}

/// A number of seconds, fractions allowed.
fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text
        .parse()
        .map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(number)
        .map_err(|_| "not a number of seconds that can pass".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_options_do_not_contradict_each_other() {
        Args::command().debug_assert();
    }

    /// A paragraph is one line, which clap breaks where the terminal ends: lines that were broken before are broken twice.
    /// What is indented is not to be broken.
    #[test]
    fn the_text_below_the_options_is_broken_by_nobody_but_the_terminal() {
        fn check(command: &clap::Command) {
            let text = command.get_after_long_help().map(ToString::to_string);
            let text = text.unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            let is_prose = |line: &str| !line.is_empty() && !line.starts_with(' ');
            for pair in lines.windows(2) {
                let is_broken = is_prose(pair[0]) && is_prose(pair[1]);
                assert!(!is_broken, "{}: {pair:?}", command.get_name());
            }
            for line in lines.iter().filter(|line| !is_prose(line)) {
                assert!(line.len() <= 100, "{}: {line}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Args::command());
    }

    #[test]
    fn seconds_are_finite_and_not_negative() {
        assert_eq!(seconds("0"), Ok(Duration::ZERO));
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        for bad in ["-1", "NaN", "inf", "1s", "", "1e300"] {
            assert!(seconds(bad).is_err(), "{bad:?}");
        }
    }
}
