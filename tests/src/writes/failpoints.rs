//! Death of a daemon at a named step, and which steps it comes to.
//!
//! `test_sherwoodd` calls [`hook`]. It looks at two variables, each the path of a file:
//!
//! - `TEST_DIE`: the file holds a step and a number, `publish: store the head\n3`; it is read and deleted at
//!   the start, and the daemon kills itself with SIGKILL when it comes to that step for the third time. Deleted, so
//!   that the next start lives.
//! - `TEST_STEPS`: the name of each step that the daemon comes to is appended, once; and where it dies,
//!   `died: publish: store the head`.

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

/// Before the name of a step that was died at.
const DIED: &str = "died: ";

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
            note(steps.as_deref(), &format!("{DIED}{step}"));
            let _dies_here = kill(Pid::this(), Signal::SIGKILL);
        }
        if let Ok(mut noted) = noted.lock()
            && noted.insert(step)
        {
            note(steps.as_deref(), step);
        }
    });
}

fn note(path: Option<&Path>, line: &str) {
    let Some(path) = path else { return };
    let file = OpenOptions::new().create(true).append(true).open(path);
    // A test that finds no steps fails by itself.
    let _ = file.and_then(|mut file| writeln!(file, "{line}"));
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
    let steps = text.lines().filter(|line| !line.starts_with(DIED));
    steps.map(str::to_owned).collect()
}

/// How often a daemon died at this step.
#[must_use]
pub fn deaths(file: &Path, step: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let died = text
        .lines()
        .filter(|line| line.strip_prefix(DIED) == Some(step));
    died.count() as u64
}

/// The steps that stand in the sources of a directory, as the text of a call.
///
/// # Panics
///
/// If they cannot be read.
#[must_use]
pub fn written(sources: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(sources).expect("a directory of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.append(&mut written(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source");
            let calls = text.split("pause::at(\"").skip(1);
            found.extend(calls.filter_map(|call| Some(call.split_once('"')?.0.to_owned())));
        }
    }
    found
}
