//! Incremental cleaning (F7): with each publish a few live chunks move out of the
//! emptiest region, so that it can be dropped whole.

use std::sync::Arc;

use super::error::PublishError;
use super::space::{Space, Stream};
use super::tables::TableMap;

/// Regions that are allowed above the bound: one open for each stream, and the one
/// that is being emptied.
const SLACK_REGIONS: u64 = 4;
/// Bytes that one publish may move for each byte that it wrote afresh.
const MOVED_PER_FRESH: u64 = 3;
/// Bytes that a publish may move however little it wrote, in chunks.
const LEAST_CHUNKS: u64 = 4;

/// What cleaning did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cleaned {
    pub(super) chunks: usize,
    pub(super) bytes: u64,
}

/// The most bytes that one publish moves.
pub(super) fn budget(fresh_bytes: u64, chunk_bytes: u64) -> u64 {
    (fresh_bytes * MOVED_PER_FRESH).max(chunk_bytes * LEAST_CHUNKS)
}

/// Is more in use than the bound over live bytes allows?
///
/// Half as much again in small regions, twice as much in large ones: what each size
/// was simulated best with (F7).
pub(super) fn is_needed(space: &Space) -> bool {
    let size = space.constants().region_bytes;
    let live = space.live_bytes();
    let bound = if size < 16 << 20 {
        live + live / 2
    } else {
        live * 2
    };
    space.used_bytes() > bound + SLACK_REGIONS * size
}

/// Moves up to `budget` bytes, as long as more is in use than is good, or `anyway`; chunks
/// of parts that are to be written anew first.
///
/// A luxury: where there is no room for it, it moves nothing.
pub(super) fn clean(
    space: &mut Space,
    tables: &mut [TableMap; 3],
    budget: u64,
    anyway: bool,
) -> Result<Cleaned, PublishError> {
    let mut cleaned = Cleaned::default();
    match move_out(space, tables, budget, anyway, &mut cleaned) {
        Ok(()) | Err(PublishError::Full { .. } | PublishError::Limit { .. }) => Ok(cleaned),
        Err(error) => Err(error),
    }
}

fn move_out(
    space: &mut Space,
    tables: &mut [TableMap; 3],
    budget: u64,
    anyway: bool,
    cleaned: &mut Cleaned,
) -> Result<(), PublishError> {
    while (anyway || is_needed(space)) && cleaned.bytes < budget {
        let Some(victim) = space.emptiest() else {
            break;
        };
        let before = cleaned.bytes;
        for to_be_written in [true, false] {
            for table in tables.iter_mut() {
                empty(space, table, victim, to_be_written, budget, cleaned)?;
            }
        }
        if cleaned.bytes == before {
            break;
        }
    }
    Ok(())
}

/// Moves what stands in `victim` out of it, of the parts that are (or are not) to be
/// written.
fn empty(
    space: &mut Space,
    table: &mut TableMap,
    victim: u32,
    to_be_written: bool,
    budget: u64,
    cleaned: &mut Cleaned,
) -> Result<(), PublishError> {
    let start = space.constants().region_start(victim);
    let inside = start..start + space.constants().region_bytes;
    for part in &mut table.parts {
        if part.placed.is_none() != to_be_written || cleaned.bytes >= budget {
            continue;
        }
        let footer = part
            .placed
            .filter(|placed| inside.contains(&placed.index_at));
        let holds = |part: &super::tables::Part| {
            part.chunks
                .iter()
                .any(|chunk| inside.contains(&chunk.block.offset))
        };
        if footer.is_none() && !holds(part) {
            continue;
        }
        let part = Arc::make_mut(part);
        if let Some(placed) = part.placed.take() {
            // To be written anew, elsewhere: moved, too.
            space.dead(placed.index_at, placed.bytes());
            cleaned.bytes += placed.bytes();
        }
        for chunk in &mut part.chunks {
            if !inside.contains(&chunk.block.offset) || cleaned.bytes >= budget {
                continue;
            }
            let bytes = chunk.block.bytes();
            let to = space.place(Stream::Moved, bytes)?;
            space.copy(chunk.block.offset, to, bytes)?;
            space.dead(chunk.block.offset, bytes);
            space.live(to, bytes);
            chunk.block.offset = to;
            cleaned.chunks += 1;
            cleaned.bytes += bytes;
        }
    }
    Ok(())
}
