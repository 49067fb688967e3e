//! `sherwood patch`: some columns of a row.

use sherwood_client::TableId;
use sherwood_client::write::{Column, Key, Patch, Transaction, cluster};

use crate::args::{PatchArgs, PatchTable, assignment};
use crate::commands::answer;
use crate::error::CliError;
use sherwood_client::find::Places;

/// Runs it.
pub fn run(places: &Places, args: &PatchArgs) -> Result<(), CliError> {
    let (row, words) = Row::of(args)?;
    if words.is_empty() {
        let usage = "nothing to set: say COL=VALUE after the key".to_owned();
        return Err(CliError::Usage(usage));
    }
    let mut patch = row.patch();
    for word in words {
        let assignment = assignment(word).map_err(CliError::Usage)?;
        patch = patch.set(assignment.column, assignment.value);
    }
    let mut transaction = Transaction::new().patch(patch);
    for condition in &args.conditions {
        let column = row.column(&condition.column);
        transaction = transaction.require(column.equals(condition.value.clone()));
    }
    answer::apply(places, &args.write, transaction)
}

/// The row of a table, or the cluster's.
struct Row(Option<Key>);

impl Row {
    /// The row, and the words after its key.
    fn of(args: &PatchArgs) -> Result<(Self, &[String]), CliError> {
        let table = match args.table {
            PatchTable::Cluster => {
                return match args.words.first() {
                    Some(word) if !word.contains('=') => Err(CliError::Usage(format!(
                        "{word:?} is no COL=VALUE, and cluster has one row and no KEY"
                    ))),
                    _ => Ok((Self(None), &args.words)),
                };
            }
            PatchTable::Nodes => TableId::Nodes,
            PatchTable::Tasks => TableId::Tasks,
            PatchTable::Content => TableId::Content,
        };
        match args.words.split_first() {
            Some((key, words)) => Ok((Self(Some(Key::of(table, key))), words)),
            None => Err(CliError::Usage("say which row: KEY".to_owned())),
        }
    }

    fn patch(&self) -> Patch {
        match &self.0 {
            Some(key) => key.clone().patch(),
            None => cluster().patch(),
        }
    }

    fn column(&self, column: &str) -> Column {
        match &self.0 {
            Some(key) => key.clone().column(column),
            None => cluster().column(column),
        }
    }
}
