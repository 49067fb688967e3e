//! Death of a daemon at a named step, and which steps it comes to.
//!
//! `test_sherwoodd` calls [`hook`]. It looks at two variables, each the path of a file:
//!
//! - `TEST_DIE`: the file holds a step and a number, `publish: store the head\n3`; it is read and deleted at
//!   the start, and the daemon kills itself with SIGKILL when it comes to that step for the third time. Deleted, so
//!   that the next start lives.
//! - `TEST_STEPS`: the name of each step that the daemon comes to is appended, once.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sherwood_shared::pause;

/// The variable with the path of the file that says where to die.
pub const DIE: &str = "TEST_DIE";
/// The variable with the path of the file that steps are noted in.
pub const STEPS: &str = "TEST_STEPS";

/// Arms this process as its environment says.
pub fn hook() {
    let file = |name: &str| std::env::var_os(name).map(std::path::PathBuf::from);
    let die = file(DIE).and_then(|path| {
        let text = fs::read_to_string(&path).ok()?;
        let _gone_already = fs::remove_file(&path);
        let (step, nth) = text.split_once('\n')?;
        Some((step.to_owned(), nth.trim().parse::<u64>().ok()?))
    });
    let steps = file(STEPS);
    if die.is_none() && steps.is_none() {
        return;
    }
    let times = AtomicU64::new(0);
    let noted = Mutex::new(BTreeSet::new());
    pause::set_hook(move |step| {
        if let Some((wanted, nth)) = &die
            && wanted == step
            && times.fetch_add(1, Ordering::Relaxed) + 1 == *nth
        {
            let _dies_here = kill(Pid::this(), Signal::SIGKILL);
        }
        if let (Some(path), Ok(mut noted)) = (&steps, noted.lock())
            && noted.insert(step)
        {
            let file = OpenOptions::new().create(true).append(true).open(path);
            // A test that finds no steps fails by itself.
            let _ = file.and_then(|mut file| writeln!(file, "{step}"));
        }
    });
}

/// Says where the next daemon that starts dies.
///
/// # Panics
///
/// If the file cannot be written.
pub fn arm(file: &Path, step: &str, nth: u64) {
    fs::write(file, format!("{step}\n{nth}")).expect("writes where to die");
}

/// The steps that were noted.
#[must_use]
pub fn noted(file: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
