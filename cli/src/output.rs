//! Standard output and standard error.

use std::error::Error;
use std::io::{self, BufWriter, IsTerminal as _, StdoutLock, Write as _};

use crate::error::CliError;

/// Buffered standard output. Flush it at the end: what is lost when it is dropped is lost
/// silently.
pub fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::with_capacity(1 << 16, io::stdout().lock())
}

/// Fails if stdout is a terminal: `format` is bytes that it would take for commands.
pub fn refuse_terminal(format: &'static str) -> Result<(), CliError> {
    if io::stdout().is_terminal() {
        return Err(CliError::Terminal { format });
    }
    Ok(())
}

/// Says on stderr what is wrong, and why, one cause a line.
pub fn complain(kind: &str, error: &dyn Error) {
    say(kind, &error.to_string());
    let mut cause = error.source();
    while let Some(error) = cause {
        say("  because", &error.to_string());
        cause = error.source();
    }
}

/// One line on stderr. A stderr that nobody reads is no reason to fail.
pub fn say(kind: &str, text: &str) {
    let _ = writeln!(io::stderr(), "{kind}: {text}");
}
