//! `sherwood start`: an assigned task runs.

use sherwood_client::write::DomainOp;

use crate::args::TaskArgs;
use crate::commands::answer;
use crate::error::CliError;
use sherwood_client::find::Places;

/// Runs it.
pub fn run(places: &Places, args: &TaskArgs) -> Result<(), CliError> {
    let task = args.task.clone();
    answer::apply(places, &args.write, DomainOp::Start { task })
}
