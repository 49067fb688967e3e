//! `sherwood sample`: a made-up state to try things on.

use sherwood_client::TableId;
use sherwood_client::find::FindError;
use sherwood_client::locate::ClusterId;

use crate::args::{PlaceArgs, SampleArgs};
use crate::error::CliError;
use crate::output;
use crate::sample::{self, Options};

/// What a sample is called unless `--cluster-id` says otherwise. The environment does not: it
/// names the cluster that one works with, and a sample is not that.
const CLUSTER_ID: &str = "sample";

/// Runs it.
pub fn run(args: &SampleArgs, places: &PlaceArgs) -> Result<(), CliError> {
    let cluster_id = places.cluster_id.as_deref().unwrap_or(CLUSTER_ID);
    let cluster_id = ClusterId::new(cluster_id).map_err(|source| FindError::ClusterId {
        place: "--cluster-id",
        source,
    })?;
    let options = Options {
        nodes: args.nodes,
        tasks: args.tasks,
        content: args.content,
        cluster_id: cluster_id.to_string(),
        seed: args.seed,
    };
    let state = sample::generate(&options)?;
    let path = sample::write(&state, &args.out)?;
    let rows = TableId::ALL.map(|table| {
        let rows = state.table(table).num_rows();
        format!("{rows} {}", table.name())
    });
    output::say(
        "written",
        &format!("{} ({})", path.display(), rows.join(", ")),
    );
    Ok(())
}
