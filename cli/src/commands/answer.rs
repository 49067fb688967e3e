//! What a change's outcome is to who gave the command: a line, and an exit code.

use std::io::Write;

use sherwood_client::write::{Operation, Outcome, Writer};

use crate::args::{AnswerFormat, WriteArgs};
use crate::connect;
use crate::error::CliError;
use crate::output;
use sherwood_client::find::Places;

/// Applies one operation, and says what became of it.
pub fn apply(
    places: &Places,
    args: &WriteArgs,
    operation: impl Into<Operation>,
) -> Result<(), CliError> {
    let writer = connect::writer(places, args.timeout)?;
    let (id, outcome) = one(&writer, args, operation)?;
    say(args, &id, outcome)
}

/// Applies one operation under the id that was given, if one was. Returns the id it went under.
pub fn one(
    writer: &Writer,
    args: &WriteArgs,
    operation: impl Into<Operation>,
) -> Result<(String, Outcome), CliError> {
    let operation = match (operation.into(), &args.id) {
        (operation, None) => operation,
        (Operation::Transaction(transaction), Some(id)) => transaction.id(id).into(),
        (Operation::Domain { op, .. }, Some(id)) => Operation::Domain {
            id: Some(id.clone()),
            op,
        },
    };
    let pending = writer.submit(operation)?;
    let id = pending.id().to_owned();
    Ok((id, pending.wait()?))
}

/// Says it on stdout; what is not done is the command's error, too.
pub fn say(args: &WriteArgs, id: &str, outcome: Outcome) -> Result<(), CliError> {
    let mut out = output::stdout();
    match (&outcome, args.output) {
        (_, AnswerFormat::Json) => writeln!(out, "{}", outcome.to_answer(id).to_json())?,
        (Outcome::Done { generation, .. }, AnswerFormat::Text) => {
            writeln!(out, "done in generation {generation}")?;
        }
        (Outcome::Refused { .. } | Outcome::Unknown { .. }, AnswerFormat::Text) => {}
    }
    out.flush()?;
    outcome.done()?;
    Ok(())
}
