//! Named places between two steps of the protocol, for tests that delay or kill there.
//!
//! Without the feature `pauses`, which only the tests crate turns on, [`at`] is nothing.

/// Says that the step called `step` comes next.
#[cfg(not(feature = "pauses"))]
#[inline(always)]
pub fn at(_step: &'static str) {}

#[cfg(feature = "pauses")]
pub use hooked::{at, set_hook};

#[cfg(feature = "pauses")]
mod hooked {
    use std::sync::OnceLock;

    type Hook = Box<dyn Fn(&'static str) + Send + Sync>;

    static HOOK: OnceLock<Hook> = OnceLock::new();

    /// Says that the step called `step` comes next.
    pub fn at(step: &'static str) {
        if let Some(hook) = HOOK.get() {
            hook(step);
        }
    }

    /// What happens at each step from now on in this process. The first hook stays.
    pub fn set_hook(hook: impl Fn(&'static str) + Send + Sync + 'static) {
        let _ = HOOK.set(Box::new(hook));
    }
}
