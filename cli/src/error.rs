//! Why a command failed, and the exit code that says so.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use sherwood_client::filter::{FilterError, MaskError, ScanError};
use sherwood_client::find::{FindError, FindErrorKind};
use sherwood_client::import::ImportError;
use sherwood_client::json::{ExportError, JsonError};
use sherwood_client::locate::LocateError;
use sherwood_client::verify::VerifyError;
use sherwood_client::write::WriteError;
use sherwood_client::{OpenError, ReadError, TableId};
use sherwood_store::recover::RecoverError;
use thiserror::Error;

use crate::sample::SampleError;

/// Why a command failed.
#[derive(Debug, Error)]
pub enum CliError {
    /// There is no state, or it cannot be read.
    #[error(transparent)]
    Find(Box<FindError>),
    /// A snapshot that cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// `sample`.
    #[error(transparent)]
    Sample(Box<SampleError>),
    /// A file that could not even be looked at.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// Looked everywhere.
    #[error(
        "no cluster state found{}: say where it is with --state-dir or --run-dir; looked in {}",
        of(cluster),
        list(looked)
    )]
    NoState {
        /// The cluster asked for.
        cluster: Option<String>,
        /// Every place.
        looked: Vec<PathBuf>,
    },
    /// Nothing chooses between several snapshots.
    #[error(
        "several snapshots: {}; choose one with --cluster-id",
        list(candidates)
    )]
    SeveralSnapshots {
        /// All of them.
        candidates: Vec<PathBuf>,
    },
    /// The file given is another cluster's.
    #[error("{path:?} is the state of cluster {found:?}, not of {wanted:?}{advice}")]
    WrongCluster {
        /// The file.
        path: PathBuf,
        /// The cluster it is of.
        found: String,
        /// The cluster asked for.
        wanted: String,
        /// What would take it all the same, if anything does.
        advice: &'static str,
    },
    /// `get` with ids.
    #[error("no {} with {} {}", table.name(), table.key(), ids.join(", "))]
    NotFound {
        /// The table.
        table: TableId,
        /// The ids that no row has.
        ids: Vec<String>,
    },
    /// `--max-age`.
    #[error(
        "the state is {} old, and --max-age allows {}: {why}",
        age.map_or("of unknown age, maybe too".to_owned(), crate::text::duration),
        crate::text::duration(*allowed)
    )]
    Stale {
        /// How old, where known.
        age: Option<Duration>,
        /// What was asked for.
        allowed: Duration,
        /// What is with the daemon.
        why: String,
    },
    /// `watch` without a snapshot.
    #[error(
        "there is no snapshot to watch, only the Parquet file {path:?}: start sherwoodd on its directory"
    )]
    NothingToWatch {
        /// The file.
        path: PathBuf,
    },
    /// `watch`: the snapshot file at the path is now another state's.
    #[error("the snapshot {path:?} no longer stands for the state directory {state_dir:?}")]
    Usurped {
        /// The snapshot.
        path: PathBuf,
        /// The state directory that was watched.
        state_dir: PathBuf,
    },
    /// `watch` with `--count`.
    #[error("the time is over after {seen} of {wanted} generations")]
    TimeOver {
        /// Lines printed.
        seen: u64,
        /// Lines asked for.
        wanted: u64,
    },
    /// A state that only a Parquet file holds, where a change was wanted.
    #[error(
        "no daemon serves {path:?}, and only a daemon changes a state: start sherwoodd on its directory"
    )]
    NoDaemon {
        /// The file.
        path: PathBuf,
    },
    /// What became of a change, or why there is no daemon to ask.
    #[error(transparent)]
    Writer(Box<WriteError>),
    /// `recover`.
    #[error(transparent)]
    Recover(Box<RecoverError>),
    /// `claim`.
    #[error("no pending task{} fits {node:?}", types(types_wanted))]
    NothingToClaim {
        /// The node.
        node: String,
        /// The types asked for.
        types_wanted: Vec<String>,
    },
    /// `apply`: the answers were printed.
    #[error(
        "{refused} refused and {unknown} unknown, of {answers} transaction{}",
        if *answers == 1 { "" } else { "s" }
    )]
    NotAllDone {
        /// Answers printed.
        answers: u64,
        /// Refused.
        refused: u64,
        /// Unknown.
        unknown: u64,
    },
    /// `apply` into a pipe whose reader went away.
    #[error(
        "nobody reads the answers any more: {path:?} was sent up to line {lines}, and not beyond it"
    )]
    Unread {
        /// The file; `-` for standard input.
        path: PathBuf,
        /// Lines read and sent.
        lines: u64,
    },
    /// Words that the options cannot check.
    #[error("{0}")]
    Usage(String),
    /// A file of rows or transactions that cannot be read.
    #[error("cannot read {path:?}")]
    Input {
        /// The file; `-` for standard input.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A line or row of a file that is not what it should be. The pieces before it were sent.
    #[error("{path:?}, {place}: {why}")]
    InputAt {
        /// The file; `-` for standard input.
        path: PathBuf,
        /// Which line or row.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// A row of a file that its table cannot hold: refused as the daemon would, by who knows its place. The pieces before
    /// it were sent.
    #[error("refused: {path:?}, {place}: {why}")]
    Row {
        /// The file; `-` for standard input.
        path: PathBuf,
        /// Which row, counted from 1.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// An error of a file that nobody said the format of.
    #[error(
        "{path:?} was taken for {format}, {why}; say --format, or give it another name, if it is something else"
    )]
    TakenFor {
        /// The file; `-` for standard input.
        path: PathBuf,
        /// What it was taken for.
        format: &'static str,
        /// Why.
        why: &'static str,
        /// What is wrong with it as that.
        source: Box<CliError>,
    },
    /// `import` of rows of one table.
    #[error(
        "{path:?} is no whole state, but {what}: rows of one table go in with sherwood put TABLE -f FILE"
    )]
    OneTable {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// `verify`: everything was said already.
    #[error("the file is damaged")]
    Damaged,
    /// `--where` with something that is no filter of the table.
    #[error("cannot use this --where: {error}\n{}", indented(&error.pointer()))]
    Filter {
        /// What is wrong, and where. Said with it: it is not a cause.
        error: Box<FilterError>,
    },
    /// A filter that does not fit a batch of its own table.
    #[error(transparent)]
    Mask(Box<MaskError>),
    /// Bytes that a terminal would take for commands.
    #[error("{format} is not for terminals: redirect it to a file or a pipe")]
    Terminal {
        /// What they are.
        format: &'static str,
    },
    /// `export` to a file whose name does not say what it shall be, or to what holds something else.
    #[error("{why}")]
    NoFormat {
        /// What is missing, and what to do.
        why: String,
    },
    /// Rows that a format cannot hold.
    #[error("cannot write this as {format}")]
    Format {
        /// Its name.
        format: &'static str,
        /// What its writer said.
        #[source]
        source: arrow_schema::ArrowError,
    },
    /// A value that cannot be printed.
    #[error("cannot print column {column}")]
    Column {
        /// Its name.
        column: String,
        /// Why.
        #[source]
        source: arrow_schema::ArrowError,
    },
    /// `snapshot`: a table that Arrow does not write.
    #[error("cannot write {path:?}")]
    Encode {
        /// The file.
        path: PathBuf,
        /// What Arrow said.
        #[source]
        source: arrow_schema::ArrowError,
    },
    /// `snapshot`: a file that could not be written. Files of the same name are as they were.
    #[error("cannot write {path:?}")]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Standard output.
    #[error("cannot write to standard output")]
    Output(#[from] io::Error),
}

impl CliError {
    /// See [`crate::args`].
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Find(error) if matches!(**error, FindError::ClusterId { .. }) => 2,
            // Who reads us has read enough.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Usage(_)
            | Self::Filter { .. }
            | Self::Terminal { .. }
            | Self::OneTable { .. }
            | Self::NoFormat { .. } => 2,
            Self::NotFound { .. } | Self::NothingToClaim { .. } => 3,
            Self::NotAllDone { unknown, .. } if *unknown > 0 => 6,
            Self::NotAllDone { .. } | Self::Row { .. } => 5,
            Self::TakenFor { source, .. } => source.exit_code(),
            Self::Writer(error) => match &**error {
                WriteError::NotServed { .. }
                | WriteError::Connect { .. }
                | WriteError::Unreachable { .. } => 4,
                WriteError::Refused { .. } => 5,
                WriteError::Unknown { .. } => 6,
                _ => 1,
            },
            _ if self.is_unavailable() => 4,
            _ => 1,
        }
    }

    /// Is there no state to read, or none that is fresh enough? Waiting may help.
    fn is_unavailable(&self) -> bool {
        match self {
            Self::NoState { .. }
            | Self::Stale { .. }
            | Self::NothingToWatch { .. }
            | Self::NoDaemon { .. }
            | Self::TimeOver { .. } => true,
            Self::Find(error) => error.kind() == FindErrorKind::Missing,
            Self::Read(ReadError::Open(error)) => matches!(
                error,
                OpenError::Missing { .. } | OpenError::Unpublished { .. }
            ),
            _ => false,
        }
    }

    /// Is there nothing to add to what was printed?
    pub fn is_silent(&self) -> bool {
        match self {
            Self::Output(error) => error.kind() == io::ErrorKind::BrokenPipe,
            Self::Damaged => true,
            _ => false,
        }
    }
}

impl From<FindError> for CliError {
    fn from(error: FindError) -> Self {
        match error {
            // The options that help.
            FindError::Nowhere { cluster, looked } => Self::NoState { cluster, looked },
            FindError::SeveralSnapshots { candidates } => Self::SeveralSnapshots { candidates },
            FindError::Read(error) => Self::Read(error),
            error => Self::Find(Box::new(error)),
        }
    }
}

impl From<LocateError> for CliError {
    fn from(error: LocateError) -> Self {
        FindError::from(error).into()
    }
}

impl From<ImportError> for CliError {
    fn from(error: ImportError) -> Self {
        FindError::from(error).into()
    }
}

impl From<JsonError> for CliError {
    fn from(error: JsonError) -> Self {
        let JsonError { column, source } = error;
        Self::Column { column, source }
    }
}

impl From<ExportError> for CliError {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Read(error) => error.into(),
            ExportError::Json(error) => error.into(),
            ExportError::Write { path, source } => Self::Write { path, source },
            ExportError::Output(source) => Self::Output(source),
        }
    }
}

impl From<FilterError> for CliError {
    fn from(error: FilterError) -> Self {
        let error = Box::new(error);
        Self::Filter { error }
    }
}

impl From<ScanError> for CliError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Read(error) => Self::Read(error),
            ScanError::Mask(error) => Self::Mask(Box::new(error)),
        }
    }
}

impl From<MaskError> for CliError {
    fn from(error: MaskError) -> Self {
        Self::Mask(Box::new(error))
    }
}

impl From<SampleError> for CliError {
    fn from(error: SampleError) -> Self {
        Self::Sample(Box::new(error))
    }
}

/// Under the line that says what is wrong.
fn indented(lines: &str) -> String {
    format!("  {}", lines.replace('\n', "\n  "))
}

impl From<RecoverError> for CliError {
    fn from(error: RecoverError) -> Self {
        Self::Recover(Box::new(error))
    }
}

impl From<WriteError> for CliError {
    fn from(error: WriteError) -> Self {
        Self::Writer(Box::new(error))
    }
}

fn types(types: &[String]) -> String {
    match types {
        [] => String::new(),
        types => format!(" of type {}", types.join(" or ")),
    }
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(", ")
}

fn of(cluster: &Option<String>) -> String {
    cluster
        .as_ref()
        .map_or(String::new(), |id| format!(" of cluster {id:?}"))
}
