//! From the state that the options lead to, to its daemon.

use std::time::Duration;

use sherwood_client::write::{Address, Options, Writer};

use crate::error::CliError;
use crate::find::{Found, Origin, Places};

/// A writer of the state that `places` lead to, and the state as it is now.
pub fn writer(places: &Places, timeout: Option<Duration>) -> Result<(Writer, Found), CliError> {
    let found = places.find()?;
    let address = match &found.origin {
        Origin::Shared { reader } => Address::Snapshot(reader.path().to_owned()),
        Origin::Parquet { path, .. } => return Err(CliError::NoDaemon { path: path.clone() }),
    };
    let mut options = Options::default();
    if let Some(timeout) = timeout {
        options = options.deadline(timeout).bulk_deadline(timeout);
    }
    Ok((Writer::connect_with(address, options)?, found))
}
