//! `sherwood fail`: a task went wrong.

use sherwood_client::write::DomainOp;

use crate::args::FailArgs;
use crate::commands::answer;
use crate::error::CliError;
use sherwood_client::find::Places;

/// Runs it.
pub fn run(places: &Places, args: &FailArgs) -> Result<(), CliError> {
    let op = DomainOp::Fail {
        task: args.task.clone(),
        reason: args.reason.clone(),
    };
    answer::apply(places, &args.write, op)
}
