//! What a foreign state changed: [`sherwood_store::merge`] says what of it still holds.

use sherwood_shared::schema::TableId;
use sherwood_store::Effects;
use sherwood_store::merge::{Diff, resolve};

use super::ends::chain;
use super::overlay::{Overlay, cluster_row};
use super::refusal::Refusal;

/// What is to be applied. Rows keep the times that their writer gave them. So does the cluster, unless its writer left
/// `updated_at` as it was.
pub(super) fn effects(overlay: &mut Overlay<'_>, diff: &Diff) -> Result<Effects, Refusal> {
    let refused = |reason| Refusal::Merge { reason };
    let mut effects = resolve(diff, overlay.snapshot).map_err(|error| refused(chain(&error)))?;
    if effects.is_empty() {
        return Ok(effects);
    }
    overlay.index_effects(&effects.tables[TableId::Tasks as usize])?;
    let ours = overlay.base_of_cluster();
    let time = ours.column_by_name("updated_at");
    let theirs = effects.cluster.as_ref().unwrap_or(ours);
    if theirs.column_by_name("updated_at") == time {
        let made = cluster_row(theirs, &overlay.layouts.cluster, &[], overlay.now_ms);
        effects.cluster = Some(made.map_err(|error| refused(chain(&error)))?);
    }
    Ok(effects)
}
