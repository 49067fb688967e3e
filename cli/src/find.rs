//! From the options to the state that is read: what is tried, and in which order, is [`sherwood_client::find`]'s.

use sherwood_client::find::{FindError, Found, Named, Places};
use sherwood_client::locate::ClusterId;

use crate::args::PlaceArgs;
use crate::error::CliError;
use crate::output;

/// Where the options say to look.
pub fn places(args: &PlaceArgs) -> Result<Places, CliError> {
    let args = args.clone();
    if let Some(id) = &args.cluster_id {
        ClusterId::new(id).map_err(|source| FindError::ClusterId {
            place: "--cluster-id",
            source,
        })?;
    }
    Ok(Places::new(&Named {
        cluster_id: args.cluster_id,
        state_dir: args.state_dir,
        run_dir: args.run_dir,
        snapshot: args.snapshot,
        parquet: args.parquet,
        socket: args.socket,
    })?)
}

/// Finds the state and reads it. What else was there and could not be read is said.
pub fn find(places: &Places) -> Result<Found, CliError> {
    let found = places.find()?;
    for warning in found.warnings.iter() {
        output::complain("warning", warning);
    }
    Ok(found)
}
