//! What many users share, so that nobody takes all of it.
//!
//! - **FQ1** No more is given out than there is.
//! - **FQ2** A user may hold at most twice what is then still free. So one user alone gets two thirds, two get
//!   two fifths each, and whoever comes next always finds something, without a share set aside for him.
//! - **FQ3** What was given comes back when its [`Held`] is dropped, however that happens.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// So much of something, for all users together.
#[derive(Debug)]
pub(super) struct Quota {
    total: usize,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    all: usize,
    by_user: HashMap<u32, usize>,
}

impl Quota {
    pub(super) fn new(total: usize) -> Arc<Self> {
        Arc::new(Self {
            total,
            used: Mutex::default(),
        })
    }

    /// Takes `amount` for the user `uid`; `None`: there is not enough for him now (FQ1, FQ2).
    pub(super) fn take(self: &Arc<Self>, uid: u32, amount: usize) -> Option<Held> {
        let mut held = Held {
            quota: Arc::clone(self),
            uid,
            amount: 0,
        };
        held.grow(amount).then_some(held)
    }

    /// How much one user alone gets (FQ2).
    pub(super) fn share(&self) -> usize {
        self.total / 3 * 2
    }

    /// How much is given out.
    pub(super) fn used(&self) -> usize {
        self.lock().all
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        // Numbers are whole between any two statements that could panic: there are none.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part of a quota, until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    quota: Arc<Quota>,
    uid: u32,
    amount: usize,
}

impl Held {
    /// Takes `more`; `false`: there is not enough, and nothing changed.
    pub(super) fn grow(&mut self, more: usize) -> bool {
        let mut used = self.quota.lock();
        let user = used.by_user.get(&self.uid).copied().unwrap_or(0);
        let fits = used
            .all
            .checked_add(more)
            .and_then(|all| self.quota.total.checked_sub(all))
            .is_some_and(|free| user.saturating_add(more) <= free.saturating_mul(2));
        if fits {
            used.all += more;
            used.by_user.insert(self.uid, user + more);
            drop(used);
            self.amount += more;
        }
        fits
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut used = self.quota.lock();
        used.all = used.all.saturating_sub(self.amount);
        if let Some(user) = used.by_user.get_mut(&self.uid) {
            *user = user.saturating_sub(self.amount);
            if *user == 0 {
                used.by_user.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_gets_two_thirds_and_the_next_still_two_thirds_of_the_rest() {
        let quota = Quota::new(900);
        let take_all = |uid| -> Vec<Held> { std::iter::from_fn(|| quota.take(uid, 1)).collect() };
        let first = take_all(1);
        assert_eq!(first.len(), quota.share());
        let second = take_all(2);
        assert_eq!(second.len(), 200);
        assert!(quota.take(3, 60).is_some());
        assert!(quota.take(1, 1).is_none());
        drop(first);
        assert_eq!(quota.used(), 200);
        assert_eq!(take_all(1).len(), 466);
        drop(second);
        assert_eq!(quota.used(), 0);
        assert!(quota.lock().by_user.is_empty());
    }

    #[test]
    fn an_absurd_amount_is_not_there() {
        let quota = Quota::new(900);
        let mut held = quota.take(1, 10).unwrap();
        assert!(!held.grow(usize::MAX));
        assert!(quota.take(2, usize::MAX).is_none());
        assert_eq!(quota.used(), 10);
    }
}
