//! Which rows of a table a command is about: all, those with some ids, or those that a filter accepts.

use std::collections::HashSet;

use arrow_array::RecordBatch;
use sherwood_client::filter::{BoundFilter, Filter};
use sherwood_client::rows::{RowRef, Rows};
use sherwood_client::{Snapshot, Table, TableId};

use crate::encode::Batches;
use crate::error::CliError;

/// Rows of one table.
#[derive(Debug)]
pub enum Selection<'a> {
    /// Every row, in key order.
    All,
    /// The rows with these ids, in this order. Each is there.
    Ids(Vec<&'a str>),
    /// The rows that it accepts, in key order.
    Where(BoundFilter),
}

/// What the command line asks for.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Of ids each once, in the order asked, and those only that the filter accepts.
    pub selection: Selection<'a>,
    /// Ids that no row has.
    pub missing: Vec<String>,
}

impl<'a> Wanted<'a> {
    /// Without ids, all rows; `condition`: the text of a filter.
    pub fn new(
        snapshot: &Snapshot,
        table: TableId,
        ids: &'a [String],
        condition: Option<&str>,
    ) -> Result<Self, CliError> {
        let rows = snapshot.table(table);
        let filter = match condition {
            Some(text) => Some(Filter::parse(text)?.bind(&*rows.schema()?)?),
            None => None,
        };
        let mut missing = Vec::new();
        if ids.is_empty() {
            let selection = filter.map_or(Selection::All, Selection::Where);
            return Ok(Self { selection, missing });
        }
        let mut seen = HashSet::new();
        let mut found = Vec::new();
        for id in ids.iter().filter(|&id| seen.insert(id)) {
            match (rows.find(id)?, &filter) {
                (None, _) => missing.push(id.clone()),
                (Some((batch, row)), Some(filter)) => {
                    if filter.mask(&batch.slice(row, 1))?.has_true() {
                        found.push(id.as_str());
                    }
                }
                (Some(_), None) => found.push(id.as_str()),
            }
        }
        let selection = Selection::Ids(found);
        Ok(Self { selection, missing })
    }
}

impl Selection<'_> {
    /// The rows as batches of the table's schema.
    pub fn batches<'s>(&'s self, table: &'s Table) -> Box<Batches<'s>> {
        match self {
            Self::All => Box::new(table.batches().map(|batch| Ok(batch?))),
            Self::Ids(ids) => Box::new(ids.iter().filter_map(|id| one(table, id).transpose())),
            Self::Where(filter) => Box::new(table.filter(filter).map(|batch| Ok(batch?))),
        }
    }

    /// Shows each row to `see`.
    pub fn each<'s, R: RowRef<'s> + 's>(
        &'s self,
        rows: &Rows<'s, R>,
        mut see: impl FnMut(&R) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        match self {
            Self::All => rows.iter().try_for_each(|row| see(&row?)),
            Self::Ids(ids) => ids.iter().try_for_each(|id| match rows.get(id)? {
                Some(row) => see(&row),
                None => Ok(()),
            }),
            Self::Where(filter) => rows.filter(filter).try_for_each(|row| see(&row?)),
        }
    }
}

fn one(table: &Table, id: &str) -> Result<Option<RecordBatch>, CliError> {
    let found = table.find(id)?;
    Ok(found.map(|(batch, row)| batch.slice(row, 1)))
}
