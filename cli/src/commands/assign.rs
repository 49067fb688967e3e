//! `sherwood assign`: a node gets a task.

use sherwood_client::write::DomainOp;

use crate::args::AssignArgs;
use crate::commands::answer;
use crate::error::CliError;
use sherwood_client::find::Places;

/// Runs it.
pub fn run(places: &Places, args: &AssignArgs) -> Result<(), CliError> {
    let op = DomainOp::Assign {
        task: args.task.clone(),
        node: args.node.clone(),
    };
    answer::apply(places, &args.write, op)
}
