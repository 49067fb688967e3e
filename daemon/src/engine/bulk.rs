//! Many rows in Arrow form.

use sherwood_store::Effects;

use super::overlay::Overlay;
use super::refusal::Refusal;
use super::request::Bulk;

/// What the rows change, cluster included.
pub(super) fn effects(_overlay: &mut Overlay<'_>, bulk: &Bulk) -> Result<Effects, Refusal> {
    Err(Refusal::NoRow {
        table: bulk.table.name(),
        key: String::new(),
    })
}
