//! How large regions and chunks are, by the state's size (F4, F7).

use sherwood_shared::schema::TableId;
use sherwood_shared::state::State;

use super::cut::{self, body_bytes};
use super::{Options, chunk_body_bytes};

/// Above this, regions take 16 MiB each.
const MIDDLE_STATE_BYTES: u64 = 64 << 20;
/// Up to this, chunks take 16 KiB each.
const SMALL_STATE_BYTES: u64 = 16 << 20;
/// Up to this, 64 KiB.
const LARGE_STATE_BYTES: u64 = 64 << 20;
/// Up to this, 96 KiB.
const LARGER_STATE_BYTES: u64 = 256 << 20;
/// Up to this, 128 KiB; above it 256.
const HUGE_STATE_BYTES: u64 = 1 << 30;
/// Regions are at least this many times the largest row.
pub(super) const ROWS_PER_REGION: u64 = 4;

/// Region and chunk size for a state (F4, F7).
pub(super) fn sizes(options: &Options, state: &State) -> (u64, usize) {
    let total: u64 = TableId::ALL
        .map(|id| chunk_body_bytes(state.table(id)) as u64)
        .iter()
        .sum();
    let region_bytes = region_bytes(options, total);
    // The root holds the cluster's row, and twice the first key of each part.
    let largest = TableId::ALL.map(|id| largest_row(state, id, region_bytes / ROWS_PER_REGION));
    let largest = largest.into_iter().max().unwrap_or(0);
    let largest = largest.max(chunk_body_bytes(&state.cluster) as u64 * 2);
    sizes_for(options, total, largest)
}

fn region_bytes(options: &Options, total: u64) -> u64 {
    let by_size = if total > MIDDLE_STATE_BYTES {
        16 << 20
    } else {
        4 << 20
    };
    options.region_bytes.unwrap_or(by_size)
}

/// The same by the bytes of all chunks and of the largest row.
pub(super) fn sizes_for(options: &Options, total: u64, largest: u64) -> (u64, usize) {
    let region_bytes = region_bytes(options, total);
    let enough = (largest * ROWS_PER_REGION).max(4096);
    let region_bytes = region_bytes.max(enough).next_power_of_two();
    (region_bytes, chunk_bytes(options, region_bytes, total))
}

/// The size of a chunk while all chunks take so many bytes. A commit writes each chunk anew that a row of it falls into: small
/// chunks make it cheap, until there are so many that their entries in the index cost more.
pub(super) fn chunk_bytes(options: &Options, region_bytes: u64, total: u64) -> usize {
    let by_size = if total <= SMALL_STATE_BYTES {
        16 << 10
    } else if total <= LARGE_STATE_BYTES {
        64 << 10
    } else if total <= LARGER_STATE_BYTES {
        96 << 10
    } else if total <= HUGE_STATE_BYTES {
        128 << 10
    } else {
        256 << 10
    };
    let most = usize::try_from(region_bytes / ROWS_PER_REGION).unwrap_or(usize::MAX);
    options.chunk_bytes.unwrap_or(by_size).min(most)
}

/// Bytes of the largest row, if any is larger than `fits`; else 0.
fn largest_row(state: &State, id: TableId, fits: u64) -> u64 {
    let rows = state.table(id);
    let fits = usize::try_from(fits).unwrap_or(usize::MAX);
    let pieces = cut::cut(rows, fits);
    let single = pieces.iter().filter(|piece| piece.len() == 1);
    let bytes = single.map(|piece| body_bytes(rows, piece.start, 1));
    bytes.max().filter(|&bytes| bytes > fits).unwrap_or(0) as u64
}
