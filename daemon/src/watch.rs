//! Being told that something in the state directory may have changed.
//!
//! Two sources, one conclusion: *look*. inotify tells at once, but only of changes made through
//! this kernel, and only while its limits last; a clock tells eventually, everywhere. What has
//! changed is decided by looking ([`crate::observe`]), never by what an event says, so a lost,
//! doubled or reordered event costs time and nothing else.
//!
//! [`Settle`] makes one look out of a burst: it waits until nothing has happened for
//! [`QUIET`], but not longer than [`PATIENCE`].

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::statfs::{FsType, statfs};
use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Config, Event, EventKind, INotifyWatcher, RecursiveMode, Watcher};

use sherwood_store::durable::OUR_PREFIX;

/// A burst is over when nothing happened for this long. Also longer than a tick of the
/// kernel's coarse clock, so that a write after a look always shows in the file's times.
pub const QUIET: Duration = Duration::from_millis(10);

/// A burst that does not end is looked at after this long all the same.
pub const PATIENCE: Duration = Duration::from_millis(30);

/// How often to look although inotify reports changes: some writers keep the file open, and
/// some file systems change behind the kernel's back.
pub const SAFETY_INTERVAL: Duration = Duration::from_secs(3);

/// What the watch has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// A file was closed after writing, renamed, or removed: look.
    Changed,
    /// Somebody is writing: a look that is due may wait a little longer.
    Writing,
    /// The directory itself was removed or renamed: no more hints will come.
    Gone,
}

/// Why changes are looked for by the clock.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Blind {
    /// The kernel does not see what other hosts change on this file system.
    #[error("{path:?} is on {file_system}, where changes by other hosts are not reported")]
    FileSystem {
        /// The state directory.
        path: PathBuf,
        /// Its kind.
        file_system: &'static str,
    },
    /// inotify could not be set up.
    #[error(
        "inotify cannot watch {path:?}; if its limits are used up, raise fs.inotify.max_user_watches and max_user_instances"
    )]
    Inotify {
        /// The state directory.
        path: PathBuf,
        /// What inotify said.
        #[source]
        source: notify::Error,
    },
}

/// A running watch; ends when dropped.
pub struct Watch {
    inotify: Option<INotifyWatcher>,
}

impl Watch {
    /// Watches `dir` and gives each hint to `sink`, from a thread of its own. The second value
    /// says why the clock is needed besides; hints may come even so.
    pub fn start(dir: &Path, sink: impl Fn(Hint) + Send + 'static) -> (Self, Option<Blind>) {
        let root = dir.to_path_buf();
        let handler = move |event: notify::Result<Event>| {
            if let Some(hint) = hint(&root, &event) {
                sink(hint);
            }
        };
        let config = Config::default().with_follow_symlinks(false);
        let started = INotifyWatcher::new(handler, config).and_then(|mut watcher| {
            watcher.watch(dir, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        match started {
            Ok(inotify) => {
                let blind = remote_file_system(dir).map(|file_system| Blind::FileSystem {
                    path: dir.to_path_buf(),
                    file_system,
                });
                let inotify = Some(inotify);
                (Self { inotify }, blind)
            }
            Err(source) => {
                let path = dir.to_path_buf();
                (
                    Self { inotify: None },
                    Some(Blind::Inotify { path, source }),
                )
            }
        }
    }

    /// Is inotify set up?
    pub fn has_inotify(&self) -> bool {
        self.inotify.is_some()
    }
}

fn hint(root: &Path, event: &notify::Result<Event>) -> Option<Hint> {
    // An error or an overflow means events were lost: look.
    let Ok(event) = event else {
        return Some(Hint::Changed);
    };
    if event.need_rescan() {
        return Some(Hint::Changed);
    }
    let of_root = event.paths.iter().any(|path| path == root);
    let hint = match event.kind {
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) if of_root => Hint::Gone,
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Remove(_)
        | EventKind::Modify(ModifyKind::Name(_)) => Hint::Changed,
        EventKind::Create(_) | EventKind::Modify(ModifyKind::Data(_)) => Hint::Writing,
        _ => return None,
    };
    let ours = |path: &PathBuf| {
        path.file_name()
            .and_then(OsStr::to_str)
            .is_some_and(|name| name.starts_with(OUR_PREFIX))
    };
    // Our own temporary files say nothing about the state; a rename onto the metadata's name
    // comes as an event of its own.
    (hint == Hint::Gone || !event.paths.iter().all(ours)).then_some(hint)
}

/// The name of a file system that others can change without this kernel's knowledge.
fn remote_file_system(dir: &Path) -> Option<&'static str> {
    const REMOTE: [(u32, &str); 10] = [
        (0x6969, "NFS"),
        (0xff53_4d42, "CIFS"),
        (0xfe53_4d42, "SMB"),
        (0x517b, "SMB"),
        (0x0102_1997, "9P"),
        (0x00c3_6400, "Ceph"),
        (0x5346_414f, "AFS"),
        (0x6573_5546, "FUSE"),
        (0x0bd0_0bd0, "Lustre"),
        (0x4750_4653, "GPFS"),
    ];
    let FsType(magic) = statfs(dir).ok()?.filesystem_type();
    // The kernel's magic numbers have 32 bits; the type that holds them differs by platform.
    let is = |known: u32| i128::from(magic) & 0xffff_ffff == i128::from(known);
    REMOTE
        .into_iter()
        .find(|(known, _)| is(*known))
        .map(|(_, name)| name)
}

/// Makes one look out of a burst of hints.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settle {
    burst: Option<(Instant, Instant)>,
}

impl Settle {
    /// Something happened at `now`. Writing alone does not begin a burst: a file that is still
    /// open is half a file.
    pub fn note(&mut self, hint: Hint, now: Instant) {
        self.burst = match (self.burst, hint) {
            (None, Hint::Writing) => None,
            (None, _) => Some((now, now)),
            (Some((first, _)), _) => Some((first, now)),
        };
    }

    /// When to look; `None`: nothing happened.
    pub fn due(&self) -> Option<Instant> {
        self.burst
            .map(|(first, last)| (last + QUIET).min(first + PATIENCE))
    }

    /// Is it time? Ends the burst if so.
    pub fn take(&mut self, now: Instant) -> bool {
        let ready = self.due().is_some_and(|due| due <= now);
        if ready {
            self.burst = None;
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc;

    use super::*;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn a_burst_is_one_look_after_it_is_over() {
        let start = Instant::now();
        let mut settle = Settle::default();
        for ms in [0, 5, 9, 15] {
            settle.note(Hint::Changed, at(start, ms));
            assert!(!settle.take(at(start, ms)));
        }
        assert!(!settle.take(at(start, 24)));
        assert!(settle.take(at(start, 25)));
        assert_eq!(settle.due(), None);
    }

    #[test]
    fn a_burst_that_never_ends_is_looked_at_within_the_patience() {
        let start = Instant::now();
        let mut settle = Settle::default();
        let mut looks = Vec::new();
        for ms in 0..100 {
            settle.note(Hint::Changed, at(start, ms));
            if settle.take(at(start, ms)) {
                looks.push(ms);
            }
        }
        assert_eq!(looks, [30, 61, 92]);
    }

    #[test]
    fn writing_alone_is_no_reason_to_look_but_puts_a_look_off() {
        let start = Instant::now();
        let mut settle = Settle::default();
        settle.note(Hint::Writing, start);
        assert_eq!(settle.due(), None);
        settle.note(Hint::Changed, at(start, 1));
        settle.note(Hint::Writing, at(start, 8));
        assert_eq!(settle.due(), Some(at(start, 18)));
    }

    /// The hints up to the change of a file that marks the end.
    fn hints_of(act: impl FnOnce(&Path)) -> Vec<Hint> {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().canonicalize().unwrap();
        fs::write(dir.join("old"), "x").unwrap();
        let (tx, rx) = mpsc::channel();
        let (watch, _blind) = Watch::start(&dir, move |hint| {
            let _receiver_gone = tx.send(hint);
        });
        assert!(watch.has_inotify());
        act(&dir);
        // Removing the directory marks the end.
        fs::remove_dir_all(&dir).unwrap();
        let mut hints = Vec::new();
        loop {
            match rx.recv_timeout(Duration::from_secs(20)).expect("a hint") {
                Hint::Gone => return hints,
                hint => hints.push(hint),
            }
        }
    }

    #[test]
    fn a_rename_a_close_and_a_removal_are_hints_and_our_own_files_are_not() {
        // The removal of what is left, at the end, is one hint per file.
        let quiet = hints_of(|_| {});
        assert_eq!(quiet, [Hint::Changed]);
        let ours = hints_of(|dir| {
            fs::write(dir.join("sherwood.x.tmp"), "x").unwrap();
            fs::remove_file(dir.join("sherwood.x.tmp")).unwrap();
            let _read = fs::read(dir.join("old")).unwrap();
        });
        assert_eq!(ours, quiet);
        let written = hints_of(|dir| fs::write(dir.join("old"), "y").unwrap());
        assert!(written.contains(&Hint::Writing), "{written:?}");
        assert_eq!(written.iter().filter(|h| **h == Hint::Changed).count(), 2);
        let renamed = hints_of(|dir| fs::rename(dir.join("old"), dir.join("new")).unwrap());
        assert!(renamed.iter().filter(|h| **h == Hint::Changed).count() >= 2);
    }

    #[test]
    fn a_directory_that_is_not_there_is_watched_by_the_clock() {
        let (watch, blind) = Watch::start(Path::new("/nonexistent/sherwood"), |_| {});
        assert!(!watch.has_inotify());
        assert!(matches!(blind, Some(Blind::Inotify { .. })));
    }
}
