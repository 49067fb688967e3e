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
    let mut kind = kind;
    for line in causes(error) {
        say(kind, &line);
        kind = "  because";
    }
}

/// What an error says, and what its causes say, each once: some errors of others print their cause themselves.
fn causes(error: &dyn Error) -> Vec<String> {
    let mut lines = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if lines.last().is_none_or(|last| !last.ends_with(&said)) {
            lines.push(said);
        }
        cause = error.source();
    }
    lines
}

/// One line on stderr. A stderr that nobody reads is no reason to fail.
pub fn say(kind: &str, text: &str) {
    let _ = writeln!(io::stderr(), "{kind}: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_was_said_is_not_said_again() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot do it")]
        struct Outer(#[source] arrow_schema::ArrowError);
        let inner = arrow_schema::ArrowError::from_external_error(Box::new(io::Error::other("no")));
        assert_eq!(
            causes(&Outer(inner)),
            ["cannot do it", "External error: no"]
        );
    }
}
