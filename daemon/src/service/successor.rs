//! Another directory in the place of the one that is served.
//!
//! To find out whether it can be served it has to be recovered, on the loop's own thread, and a large one holds up commits. So one that
//! was refused is tried again when something in it changed, and else once a minute.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sherwood_store::checkpoint::DIRECTORY;
use sherwood_store::lock::STATE_LOCK;
use sherwood_store::log::log_dir;
use tracing::warn;

use super::aside::left_aside;
use super::files::Files;
use super::{Announced, Service, requests};
use crate::ends::Ends;
use crate::engine::Stage;
use crate::generation::GENERATION_FILE;
use crate::log::chain;
use crate::observe::FileId;
use crate::served::{self, StartError};

/// How soon one is tried again that did not change.
const AGAIN: Duration = Duration::from_mins(1);

/// What a start reads, as far as the inodes tell: the directory's own files, and those of its log and its checkpoints.
#[derive(Debug, PartialEq, Eq)]
struct Seen(BTreeMap<PathBuf, FileId>);

impl Seen {
    fn of(dir: &Path) -> Self {
        let mut seen = BTreeMap::new();
        for dir in [dir.to_path_buf(), log_dir(dir), dir.join(DIRECTORY)] {
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                let path = entry.path();
                let id = FileId::of(&path).ok().filter(|_| !is_touched(&path));
                seen.extend(id.map(|id| (path, id)));
            }
        }
        Self(seen)
    }
}

/// Does an attempt itself change it? A directory is what is in it.
fn is_touched(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name == STATE_LOCK || name == GENERATION_FILE || path.is_dir()
}

/// A directory that was not served.
pub(super) struct Refused {
    seen: Seen,
    at: Instant,
}

impl Refused {
    fn is_due(&self, seen: &Seen, now: Instant) -> bool {
        self.seen != *seen || now >= self.at + AGAIN
    }
}

/// Is it for what is in the directory that it is not served? Other reasons cost little to find again, and may go without a trace there.
fn is_of_its_files(error: &StartError) -> bool {
    matches!(
        error,
        StartError::Recover(_) | StartError::Owner { .. } | StartError::Log(_)
    )
}

impl<E: Ends> Service<E> {
    /// Another directory stands where ours stood: serve that one, if it is good, under the name
    /// the readers know. Until then the old one's snapshot stays.
    pub(super) fn move_to_successor(&mut self) -> Result<(), StartError> {
        // Before it is read: what changes meanwhile is a change.
        let (seen, now) = (Seen::of(&self.config.state_dir), Instant::now());
        let refused = self.refused_successor.as_ref();
        if refused.is_some_and(|refused| !refused.is_due(&seen, now)) {
            return Ok(());
        }
        let before = self.engine.publisher().before();
        let begun = match served::begin(self.ends.as_ref(), &self.config, Some(before)) {
            Ok(begun) => begun,
            Err(error) => {
                let text = format!(
                    "the state directory was replaced by another, which is not served: {}",
                    chain(&error)
                );
                self.refuse(&text);
                self.refused_successor =
                    is_of_its_files(&error).then_some(Refused { seen, at: now });
                return Ok(());
            }
        };
        warn!(
            state_dir = %self.config.state_dir.display(),
            "the state directory was replaced by another; that one is served now"
        );
        self.refused_successor = None;
        let replayed = begun.replayed > 0;
        self.epoch += 1;
        self.engine = begun.engine;
        self.checkpoints = begun.checkpoints;
        self.log_keeper = requests::start_log_keeper(&mut self.engine, &self.events, self.epoch)?;
        self.is_segment_asked = true;
        self.files = Files::begin(
            &mut self.engine,
            &self.checkpoints,
            &self.events,
            (begun.checkpoint, begun.position.sequence - begun.replayed),
            begun.public_is_stale,
            replayed,
            self.epoch,
        )?;
        let now = Instant::now();
        let left = left_aside(self.checkpoints.public_path(), now);
        self.looks.begin_anew((begun.merged, left), now);
        self.looks.adopted(begun.adopted, now);
        self.watch = None;
        self.state_is_good();
        self.start_watch();
        // Watchers follow the new directory's log, and find that it does not reach back to what they saw.
        self.announced.send_replace(Announced {
            sequence: begun.position.sequence,
            generation: self.engine.publisher().generation(),
        });
        self.flight = None;
        self.open_socket()?;
        self.look();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_directory_is_tried_again_when_something_in_it_changed_or_a_minute_later() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path();
        for name in ["log", DIRECTORY] {
            fs::create_dir(dir.join(name)).unwrap();
        }
        let now = Instant::now();
        let refused = |at| Refused {
            seen: Seen::of(dir),
            at,
        };
        // An attempt does so.
        fs::write(dir.join(STATE_LOCK), "").unwrap();
        let before = refused(now);
        fs::write(dir.join(STATE_LOCK), "a holder").unwrap();
        fs::write(dir.join(GENERATION_FILE), "a ceiling").unwrap();
        assert!(!before.is_due(&Seen::of(dir), now + AGAIN / 2));
        assert!(before.is_due(&Seen::of(dir), now + AGAIN));
        // Appears, grows, is replaced by the same, goes.
        for name in [
            "state_c.parquet",
            "log/manifest",
            "log/00000000000000000001.log",
            "checkpoints/00000000000000000007.parquet",
        ] {
            let path = dir.join(name);
            let changes: [&dyn Fn(); 4] = [
                &|| fs::write(&path, "a").unwrap(),
                &|| fs::write(&path, "ab").unwrap(),
                &|| {
                    fs::copy(&path, dir.join("other")).unwrap();
                    fs::rename(dir.join("other"), &path).unwrap();
                },
                &|| fs::remove_file(&path).unwrap(),
            ];
            for (number, change) in changes.iter().enumerate() {
                let before = refused(now);
                assert!(!before.is_due(&Seen::of(dir), now), "{name}");
                change();
                assert!(
                    before.is_due(&Seen::of(dir), now),
                    "{name}, change {number}"
                );
            }
        }
    }
}
