//! `sherwood claim`: a node takes a task.

use std::io::Write;

use sherwood_client::write::{DomainOp, Outcome};

use crate::args::{AnswerFormat, ClaimArgs};
use crate::commands::answer;
use crate::connect;
use crate::error::CliError;
use crate::find::Places;
use crate::output;

/// Runs it.
pub fn run(places: &Places, args: &ClaimArgs) -> Result<(), CliError> {
    let (writer, _) = connect::writer(places, args.write.timeout)?;
    let op = DomainOp::Claim {
        node: args.node.clone(),
        types: args.types.clone(),
    };
    let (id, outcome) = answer::one(&writer, &args.write, op)?;
    match outcome {
        Outcome::Done {
            task: Some(task), ..
        } if args.write.output == AnswerFormat::Text => {
            let mut out = output::stdout();
            writeln!(out, "{task}")?;
            Ok(out.flush()?)
        }
        Outcome::Done { task: None, .. } => {
            if args.write.output == AnswerFormat::Json {
                answer::say(&args.write, &id, outcome)?;
            }
            Err(CliError::NothingToClaim {
                node: args.node.clone(),
                types_wanted: args.types.clone(),
            })
        }
        outcome => answer::say(&args.write, &id, outcome),
    }
}
