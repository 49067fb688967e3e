//! From the state that the options lead to, to its daemon.
//!
//! A socket that is named is enough: who may write need not be allowed to read.

use std::time::Duration;

use sherwood_client::write::{Address, Options, Writer};

use crate::error::CliError;
use crate::find::find;
use sherwood_client::find::{Origin, Places};

/// A writer of the state that `places` lead to.
pub fn writer(places: &Places, timeout: Option<Duration>) -> Result<Writer, CliError> {
    let address = match places.socket() {
        Some(socket) => Address::Socket(socket.to_owned()),
        None => match find(places)?.origin {
            Origin::Shared { reader } => Address::Snapshot(reader.path().to_owned()),
            Origin::Parquet { path, .. } => return Err(CliError::NoDaemon { path }),
        },
    };
    let mut options = Options::default();
    if let Some(timeout) = timeout {
        options = options.deadline(timeout).bulk_deadline(timeout);
    }
    Ok(Writer::connect_with(address, options)?)
}

/// The cluster that `writer` changes, as its daemon says.
pub fn cluster_of(writer: &Writer) -> Result<Option<String>, CliError> {
    let status = writer.status()?;
    Ok(status["cluster_id"].as_str().map(str::to_owned))
}
