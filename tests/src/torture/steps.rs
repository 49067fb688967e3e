//! What happens between two steps of the protocol: a random delay, or death.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use sherwood_shared::pause;

use super::args::Args;
use super::tally::{Count, Tally};

static DELAYS: AtomicU64 = AtomicU64::new(0);
static REUSES: AtomicU64 = AtomicU64::new(0);
static THREADS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static RNG: RefCell<Option<SmallRng>> = const { RefCell::new(None) };
}

/// Steps of a restart at which a daemon may be killed: those of W8, then those of its
/// publishes.
pub const OF_A_RESTART: [&str; 10] = [
    "start: lock the witness",
    "start: write the constants",
    "publish: store the head",
    "publish: drop regions",
    "start: rename",
    "start: sweep",
    "start: mark",
    "start: remove the old name",
    "publish: give up old generations",
    "publish: reuse a region",
];

/// Hooks this process: `delay=N` delays one step in N, `die=STEP` and `nth=N` kill it
/// with SIGKILL at the n-th time it comes to a step.
///
/// # Errors
///
/// The arguments are no good.
pub fn hook(args: &Args, seed: u64) -> Result<(), String> {
    let one_in: u32 = match args.text("delay") {
        Some(_) => args.get("delay")?,
        None => 0,
    };
    let die = args.text("die").map(str::to_owned);
    let nth: u64 = match &die {
        Some(_) => args.get("nth")?,
        None => 0,
    };
    let times = AtomicU64::new(0);
    pause::set_hook(move |step| {
        if step == "publish: reuse a region" {
            REUSES.fetch_add(1, Ordering::Relaxed);
        }
        if die.as_deref() == Some(step) && times.fetch_add(1, Ordering::Relaxed) + 1 == nth {
            let _ = kill(Pid::this(), Signal::SIGKILL);
        }
        if one_in > 0 {
            delay(one_in, seed);
        }
    });
    Ok(())
}

/// Moves what was counted at the steps into `tally`.
pub fn take_delays(tally: &mut Tally) {
    tally.add(Count::Delays, DELAYS.swap(0, Ordering::Relaxed));
    tally.add(Count::Reuses, REUSES.swap(0, Ordering::Relaxed));
}

fn delay(one_in: u32, seed: u64) {
    let sleep = RNG.with_borrow_mut(|rng| {
        let rng = rng.get_or_insert_with(|| {
            let thread = THREADS.fetch_add(1, Ordering::Relaxed);
            SmallRng::seed_from_u64(seed ^ (thread << 48))
        });
        if rng.random_range(0..one_in) > 0 {
            return None;
        }
        // Mostly a turn of the scheduler, sometimes many generations.
        Some(match rng.random_range(0..20) {
            0 => rng.random_range(1_000..4_000),
            1..6 => rng.random_range(1..300),
            _ => 0,
        })
    });
    if let Some(micros) = sleep {
        DELAYS.fetch_add(1, Ordering::Relaxed);
        if micros == 0 {
            std::thread::yield_now();
        } else {
            std::thread::sleep(Duration::from_micros(micros));
        }
    }
}
