//! The protocols of docs/design.md as models, every interleaving of them: safe as designed, caught when broken.
//!
//! The models are `tests/models/lease` and `tests/models/restart`, each with its tests beside it; the explorer of both
//! is `tests/models/explorer.rs`. With `--nocapture` each variant prints its number of states and each broken rule its
//! trace. With `SHERWOOD_TORTURE=1` the variants of the lease protocol are also combined, which takes minutes and
//! about 1 GiB.

#[path = "../models/explorer.rs"]
mod explorer;
#[path = "../models/lease/mod.rs"]
mod lease;
#[path = "../models/restart/mod.rs"]
mod restart;

use std::time::Instant;

use explorer::{Model, Outcome, explore};

/// Far above what any variant here needs, and within 4 GiB.
const LIMIT: usize = 30_000_000;

fn run(name: &str, model: &impl Model) -> Outcome {
    let begun = Instant::now();
    let outcome = explore(model, LIMIT);
    let seconds = begun.elapsed().as_secs_f64();
    println!("{name} ({seconds:.1} s): {outcome}");
    outcome
}

/// Every state of the model is good.
fn assert_safe(name: &str, model: &impl Model) {
    let outcome = run(name, model);
    assert!(matches!(outcome, Outcome::Safe { .. }), "{name}: {outcome}");
}

/// The model is violated, and in the way that is expected.
fn assert_caught(name: &str, model: &impl Model, expected: &str) {
    let outcome = run(name, model);
    let caught = matches!(&outcome, Outcome::Violated { why, .. } if why.contains(expected));
    assert!(caught, "{name} should be caught: {expected}; {outcome}");
}
