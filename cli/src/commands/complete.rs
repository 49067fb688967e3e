//! `sherwood complete`: a task is done.

use sherwood_client::write::DomainOp;

use crate::args::CompleteArgs;
use crate::commands::answer;
use crate::error::CliError;
use crate::find::Places;

/// Runs it.
pub fn run(places: &Places, args: &CompleteArgs) -> Result<(), CliError> {
    let op = DomainOp::Complete {
        task: args.task.clone(),
        outputs: args.outputs.clone(),
    };
    answer::apply(places, &(&args.write).into(), op)
}
