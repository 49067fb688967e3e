//! W9: a generation that is written whole and waits for the store of its head.

use std::sync::{Arc, Weak};

use super::Published;
use super::writer::Written;

/// A generation that is written and not yet published: [`Publisher::commit`](super::Publisher::commit)
/// it or [`Publisher::abandon`](super::Publisher::abandon) it.
///
/// While it lives its publisher refuses to write anything else. One that is dropped is abandoned
/// when the publisher is next asked to write.
#[derive(Debug)]
#[must_use = "nothing is published before it is committed"]
pub struct Staged {
    pub(super) written: Written,
    token: Arc<u64>,
}

impl Staged {
    /// The generation that committing it publishes.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.written.published.generation
    }

    /// What was written for it.
    #[must_use]
    pub fn written(&self) -> Published {
        self.written.published
    }
}

/// What a publisher remembers of a [`Staged`].
#[derive(Debug)]
pub(super) struct Pending(Weak<u64>);

impl Pending {
    pub(super) fn of(written: Written) -> (Self, Staged) {
        let token = Arc::new(written.published.generation);
        (Self(Arc::downgrade(&token)), Staged { written, token })
    }

    /// Its generation, if it was not dropped.
    pub(super) fn generation(&self) -> Option<u64> {
        self.0.upgrade().map(|generation| *generation)
    }

    pub(super) fn is(&self, staged: &Staged) -> bool {
        std::ptr::eq(self.0.as_ptr(), Arc::as_ptr(&staged.token))
    }
}
