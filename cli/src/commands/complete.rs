//! `sherwood complete`: a task is done.

use sherwood_client::write::DomainOp;

use crate::args::{CompleteArgs, subject};
use crate::commands::answer;
use crate::error::CliError;
use sherwood_client::find::Places;

/// Runs it.
pub fn run(places: &Places, args: &CompleteArgs) -> Result<(), CliError> {
    let (task, outputs) =
        subject(args.task.as_ref(), &args.outputs, "task").map_err(CliError::Usage)?;
    let op = DomainOp::Complete {
        task: task.to_owned(),
        outputs: outputs.to_owned(),
    };
    answer::apply(places, &(&args.write).into(), op)
}
