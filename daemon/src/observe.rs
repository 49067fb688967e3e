//! Looking at the state directory: has the state changed, and is it good?
//!
//! One look ([`observe`]) answers with exactly one [`Sight`]. It never blames a file for being
//! written at that moment: whatever is wrong is reported as what it is now, and looked at again
//! when it changes.
//!
//! A file is known by device, inode, size, mtime and ctime. Two different contents can share all of
//! these only if both were written within one tick of the kernel's coarse clock (10 ms at most), so
//! a look that began sooner than [`TICK`] after the file's ctime is not *conclusive*: the next look
//! reads the file again.

use std::error::Error;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sherwood_client::locate::{ClusterId, LocateError, StateDir, StateFile};
use sherwood_shared::state::State;

use crate::ends::Ends;
use crate::log::chain;

/// The kernel's coarsest tick: two changes further apart have different ctimes.
pub const TICK: Duration = Duration::from_millis(10);

/// After this long, a second look that finds the same times is conclusive whatever they say: a
/// server's clock may run ahead of ours.
const CLOCK_SKEW_LIMIT: Duration = Duration::from_millis(900);

/// A file's content, as far as its inode tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl FileId {
    /// Of the file `path`, links followed.
    pub fn of(path: &Path) -> io::Result<Self> {
        let found = fs::metadata(path)?;
        Ok(Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            mtime: (found.mtime(), found.mtime_nsec()),
            ctime: (found.ctime(), found.ctime_nsec()),
        })
    }

    /// Would a write from `now` on change the ctime?
    fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let ctime = i128::from(self.ctime.0) * 1_000_000_000 + i128::from(self.ctime.1);
        i128::try_from(now.as_nanos()).is_ok_and(|now| now >= ctime + nanos(TICK))
    }
}

fn nanos(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX)
}

/// The file that was last tried, good or not.
#[derive(Clone, Debug)]
pub struct Tried {
    path: PathBuf,
    id: FileId,
    at: Instant,
    conclusive: bool,
    /// What was wrong with it; `None`: it was good.
    refusal: Option<String>,
}

impl Tried {
    /// May the next look trust the file's times? If not, it should come soon.
    pub fn is_conclusive(&self) -> bool {
        self.conclusive
    }
}

/// What to look at.
#[derive(Clone, Debug)]
pub struct Request {
    /// The directory that is served, by its path.
    pub dir: StateDir,
    /// The cluster that is served.
    pub cluster: ClusterId,
    /// From the look before.
    pub tried: Option<Tried>,
}

/// What a look found.
#[derive(Debug)]
pub enum Sight {
    /// The file tried last is still the state and was good.
    Unchanged,
    /// A state, to be published.
    State {
        /// The state.
        state: Box<State>,
        /// Where it was read.
        file: PathBuf,
        /// For the next look.
        tried: Tried,
    },
    /// There is no state, or not a good one.
    Refused {
        /// What is wrong, with its causes.
        what: String,
        /// For the next look, if a file was tried.
        tried: Option<Tried>,
    },
    /// The state file was being replaced or written during the look. It has to be looked at
    /// again soon; whether it is good is not known.
    Changing {
        /// The file.
        file: PathBuf,
    },
    /// The path leads to another directory than the one that is served.
    Replaced,
}

/// Looks once.
pub fn observe(ends: &impl Ends, request: &Request) -> Sight {
    let refused = |error: &(dyn Error + 'static)| Sight::Refused {
        what: chain(error),
        tried: None,
    };
    match StateDir::open(request.dir.path()) {
        Ok(dir) if dir.identity() != request.dir.identity() => return Sight::Replaced,
        Ok(_) => {}
        Err(error) => return refused(&error),
    }
    let file = match request.dir.state_file(Some(&request.cluster)) {
        Ok(file) => file,
        Err(error) => return refused(&error),
    };
    let id = match FileId::of(&file.path) {
        Ok(id) => id,
        Err(source) => {
            return refused(&LocateError::Inspect {
                path: file.path,
                source,
            });
        }
    };
    let same = request
        .tried
        .as_ref()
        .filter(|tried| tried.path == file.path && tried.id == id);
    if let Some(tried) = same.filter(|tried| tried.conclusive) {
        return match &tried.refusal {
            None => Sight::Unchanged,
            Some(what) => Sight::Refused {
                what: what.clone(),
                tried: Some(tried.clone()),
            },
        };
    }
    match try_file(ends, &file, id, same.map(|tried| tried.at)) {
        Attempt::Good(state, tried) => Sight::State {
            state: Box::new(state),
            file: file.path,
            tried,
        },
        Attempt::Bad(tried, what) => Sight::Refused {
            what,
            tried: Some(tried),
        },
        Attempt::Changed => Sight::Changing { file: file.path },
    }
}

/// What came of reading a state file.
#[derive(Debug)]
pub enum Attempt {
    /// A state.
    Good(State, Tried),
    /// The reason to refuse it, with its causes.
    Bad(Tried, String),
    /// The file is not the same after reading as before.
    Changed,
}

/// Reads the state in `file`, which was `id` just now, and seen as that before at `seen_at`.
pub fn try_file(
    ends: &impl Ends,
    file: &StateFile,
    id: FileId,
    seen_at: Option<Instant>,
) -> Attempt {
    let at = Instant::now();
    let seen_before = seen_at.is_some_and(|seen| at >= seen + CLOCK_SKEW_LIMIT);
    let conclusive = seen_before || id.is_settled(SystemTime::now());
    let result = load(ends, file);
    if !FileId::of(&file.path).is_ok_and(|after| after == id) {
        return Attempt::Changed;
    }
    let tried = Tried {
        path: file.path.clone(),
        id,
        at,
        conclusive,
        refusal: result.as_ref().err().cloned(),
    };
    match result {
        Ok(state) => Attempt::Good(state, tried),
        Err(what) => Attempt::Bad(tried, what),
    }
}

/// A decoder that panics on damaged bytes has refused them.
fn load(ends: &impl Ends, file: &StateFile) -> Result<State, String> {
    let expected = file.expected_cluster.as_ref().map(ClusterId::as_str);
    let attempt = AssertUnwindSafe(|| ends.load(&file.path, expected));
    match catch_unwind(attempt) {
        Ok(result) => result.map_err(|error| chain(error.as_ref())),
        Err(_) => Err(format!(
            "{:?} made the decoder fail in a way that is a mistake in it (its message is on stderr); the file is refused",
            file.path
        )),
    }
}
