//! `sherwood delete`: rows go.

use sherwood_client::write::{Key, Transaction};

use crate::args::DeleteArgs;
use crate::commands::answer;
use crate::error::CliError;
use sherwood_client::find::Places;

/// Runs it.
pub fn run(places: &Places, args: &DeleteArgs) -> Result<(), CliError> {
    let mut transaction = Transaction::new();
    for key in &args.keys {
        transaction = transaction.delete(Key::of(args.table.into(), key));
    }
    answer::apply(places, &args.write, transaction)
}
