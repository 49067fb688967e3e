//! The head: how one word tells every process which snapshot is the latest.

pub mod rule;

/// The atomics that [`rule`] is written against. `tests/tests/head_loom.rs` includes the same file beside loom's.
mod sync {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering, fence};
}
