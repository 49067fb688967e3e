//! Foreign files that were moved aside: each is looked at for a while, in case its writer finishes it there. One whose content the state
//! has goes.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chrono::{NaiveDateTime, TimeDelta, Utc};
use sherwood_store::checkpoint::REJECTED;
use tracing::{debug, warn};

use super::Service;
use super::looks::Looks;
use crate::ends::Ends;
use crate::observe::FileId;

/// For how long.
const ASIDE_FOR: Duration = Duration::from_mins(10);

/// How the names in `rejected/` begin.
const STAMP: &str = "%Y%m%dT%H%M%S%.3fZ";

/// A file that was moved aside.
pub(super) struct Aside {
    path: PathBuf,
    reason: PathBuf,
    /// As it was looked at last; `None`: not yet.
    pub(super) seen: Option<FileId>,
    until: Instant,
}

/// What an earlier daemon moved aside from `public` so lately that it would still look at it, if it lived. By the time in its name: what
/// a backup brought back is not new.
pub(super) fn left_aside(public: &Path, now: Instant) -> Vec<Aside> {
    let dir = public.with_file_name(REJECTED);
    let ending = format!(
        "-{}",
        public.file_name().unwrap_or_default().to_string_lossy()
    );
    let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
    let found = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let (stamp, _) = name.strip_suffix(&ending)?.split_at_checked(20)?;
        let moved = NaiveDateTime::parse_from_str(stamp, STAMP).ok()?;
        let age = Utc::now().naive_utc() - moved;
        let left = ASIDE_FOR.checked_sub(age.max(TimeDelta::zero()).to_std().ok()?)?;
        Some(Aside {
            path: entry.path(),
            reason: dir.join(format!("{name}.reason.txt")),
            seen: None,
            until: now + left,
        })
    });
    let mut found: Vec<Aside> = found.collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

impl Looks {
    pub(super) fn moved_aside(&mut self, path: PathBuf, reason: PathBuf, now: Instant) {
        self.aside.push(Aside {
            path,
            reason,
            seen: None,
            until: now + ASIDE_FOR,
        });
        self.poll_at(now);
    }

    pub(super) fn is_aside(&self, path: &Path) -> bool {
        self.aside.iter().any(|aside| aside.path == path)
    }
}

impl<E: Ends> Service<E> {
    /// Looks at one file that was moved aside, if it changed since.
    pub(super) fn look_aside(&mut self, now: Instant) {
        self.looks
            .aside
            .retain(|aside| aside.until > now && aside.path.exists());
        let next = self.looks.aside.iter_mut().find_map(|aside| {
            let id = FileId::of(&aside.path).ok()?;
            let is_new = aside.seen.replace(id) != Some(id);
            is_new.then(|| aside.path.clone())
        });
        if let Some(path) = next {
            debug!(file = %path.display(), "a file that was moved aside is read");
            let request = self.request(None, Some(path));
            self.ask(request);
        }
    }

    /// It is no state, or not yet. That is told once: the text beside it remembers it over restarts.
    pub(super) fn refuse_aside(&self, path: &Path, what: &str) {
        let aside = self.looks.aside.iter().find(|aside| aside.path == path);
        let Some(aside) = aside else { return };
        if is_told(&aside.reason, path, self.checkpoints.public_path(), what) {
            debug!(file = %path.display(), reason = what, "still no state");
            return;
        }
        warn!(
            file = %path.display(),
            reason = what,
            "a file that was moved aside is refused; it is read again when it changes"
        );
        let said = fs::File::options().append(true).open(&aside.reason);
        if let Err(error) = said.and_then(|mut file| writeln!(file, "{what}")) {
            debug!(path = %aside.reason.display(), %error, "a reason is not kept");
        }
    }

    /// Its writer finished it, and its changes are in the state.
    pub(super) fn finished_aside(&mut self, path: &Path) {
        let at = self.looks.aside.iter().position(|aside| aside.path == path);
        if let Some(aside) = at.map(|at| self.looks.aside.swap_remove(at)) {
            for path in [&aside.path, &aside.reason] {
                if let Err(error) = fs::remove_file(path) {
                    debug!(path = %path.display(), %error, "a merged file stays aside");
                }
            }
        }
    }
}

/// Does `reason` say `what` of the file `path` already, under this name or the public one that it had?
fn is_told(reason: &Path, path: &Path, public: &Path, what: &str) -> bool {
    let told = fs::read_to_string(reason).unwrap_or_default();
    let named = |path: &Path| format!("{path:?}");
    let before = what.replace(&named(path), &named(public));
    [what, &before].iter().any(|what| told.contains(*what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_is_refused_for_is_told_once_by_either_of_its_names() {
        let tmp = tempfile::tempdir().unwrap();
        let reason = tmp.path().join("x.reason.txt");
        let (path, public) = (Path::new("/s/rejected/x"), Path::new("/s/state_c.parquet"));
        let what = |path: &Path| format!("{path:?} has no end");
        assert!(!is_told(&reason, path, public, &what(path)));
        for told in [path, public] {
            fs::write(&reason, format!("{}\n", what(told))).unwrap();
            assert!(is_told(&reason, path, public, &what(path)), "{told:?}");
        }
        let other = what(Path::new("/s/rejected/y"));
        assert!(!is_told(&reason, path, public, &other));
    }

    #[test]
    fn of_what_was_moved_aside_only_the_public_file_of_the_last_minutes_is_looked_at() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join(REJECTED);
        fs::create_dir(&dir).unwrap();
        let stamp = |minutes: i64| {
            let then = Utc::now() - TimeDelta::minutes(minutes);
            then.format(STAMP).to_string()
        };
        let (young, older) = (
            format!("{}-state_c.parquet", stamp(1)),
            format!("{}-2-state_c.parquet", stamp(9)),
        );
        let others = [
            format!("{}-state_c.parquet", stamp(11)),
            format!("{}-state_cc.parquet", stamp(1)),
            format!("{young}.reason.txt"),
            "notes-state_c.parquet".to_owned(),
            "state_c.parquet".to_owned(),
        ];
        for name in others.iter().chain([&young, &older]) {
            fs::write(dir.join(name), "").unwrap();
        }
        let now = Instant::now();
        let found = left_aside(&tmp.path().join("state_c.parquet"), now);
        let paths: Vec<_> = found.iter().map(|aside| aside.path.clone()).collect();
        assert_eq!(paths, [dir.join(&older), dir.join(&young)]);
        let reason = dir.join(format!("{older}.reason.txt"));
        assert_eq!(found.first().map(|aside| &aside.reason), Some(&reason));
        let left = found.iter().map(|aside| aside.until - now);
        let minutes: Vec<u64> = left.map(|left| left.as_secs().div_ceil(60)).collect();
        assert_eq!(minutes, [1, 9]);
        assert!(left_aside(Path::new("/nowhere/state_c.parquet"), now).is_empty());
    }
}
