//! `sherwood claim`: a node takes a task.

use std::io::Write;

use sherwood_client::write::{DomainOp, Outcome};

use crate::args::{AnswerFormat, ClaimArgs, subject};
use crate::commands::answer;
use crate::connect;
use crate::error::CliError;
use crate::output;
use sherwood_client::find::Places;

/// Runs it.
pub fn run(places: &Places, args: &ClaimArgs) -> Result<(), CliError> {
    let (node, types) =
        subject(args.node.as_ref(), &args.types, "node").map_err(CliError::Usage)?;
    let writer = connect::writer(places, args.write.timeout)?;
    let op = DomainOp::Claim {
        node: node.to_owned(),
        types: types.to_owned(),
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
                node: node.to_owned(),
                types_wanted: types.to_owned(),
            })
        }
        outcome => answer::say(&args.write, &id, outcome),
    }
}
