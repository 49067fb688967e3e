//! Looking at the state directory: has the state changed, and is it good?
//!
//! One look ([`observe`]) answers with exactly one [`Sight`]. It never blames a file for being
//! written at that moment: whatever is wrong is reported as what it is now, and looked at again
//! when it changes.
//!
//! A file is known by device, inode, size, owner, mtime and ctime. Two different contents can share all of
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

use bytes::Bytes;
use sherwood_client::locate::{ClusterId, LocateError, StateDir, StateFile};
use sherwood_store::merge::Diff;

use crate::ends::Ends;
use crate::foreign::{Comparer, Comparison, Content, Loaded};
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
    owner: u32,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl FileId {
    /// The file's owner.
    #[must_use]
    pub fn owner(&self) -> u32 {
        self.owner
    }

    /// Of the file `path`, links followed.
    pub fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|found| Self::from(&found))
    }

    /// Is it the same content under another name? A rename changes the ctime.
    #[must_use]
    pub fn is_renamed(&self, other: Self) -> bool {
        let ctime = self.ctime;
        *self == Self { ctime, ..other }
    }

    /// Would a write from `now` on change the ctime?
    #[must_use]
    pub fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let ctime = i128::from(self.ctime.0) * 1_000_000_000 + i128::from(self.ctime.1);
        i128::try_from(now.as_nanos()).is_ok_and(|now| now >= ctime + nanos(TICK))
    }
}

impl From<&fs::Metadata> for FileId {
    fn from(found: &fs::Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            owner: found.uid(),
            mtime: (found.mtime(), found.mtime_nsec()),
            ctime: (found.ctime(), found.ctime_nsec()),
        }
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
    /// A file that is read from now on and was `id` just now, and seen as that before at `seen_at`.
    #[must_use]
    pub fn of(path: &Path, id: FileId, seen_at: Option<Instant>) -> Self {
        let at = Instant::now();
        let seen_before = seen_at.is_some_and(|seen| at >= seen + CLOCK_SKEW_LIMIT);
        Self {
            path: path.to_path_buf(),
            id,
            at,
            conclusive: seen_before || id.is_settled(SystemTime::now()),
            refusal: None,
        }
    }

    /// A file that we wrote ourselves.
    #[must_use]
    pub fn ours(path: PathBuf, id: FileId) -> Self {
        Self {
            path,
            id,
            at: Instant::now(),
            conclusive: true,
            refusal: None,
        }
    }

    /// The same file, refused after all.
    #[must_use]
    pub fn refused(self, what: String) -> Self {
        Self {
            refusal: Some(what),
            ..self
        }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's content, as it was tried.
    #[must_use]
    pub fn id(&self) -> FileId {
        self.id
    }

    /// What was wrong with it.
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

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
    /// The cluster is empty and never had a state file: none is what there should be.
    pub without_file: bool,
    /// From the look before, or what we have written ourselves since.
    pub tried: Option<Tried>,
    /// What a file is compared with.
    pub comparer: Comparer,
    /// Look at this file, that was moved aside, and not at the state file.
    pub aside: Option<PathBuf>,
}

/// What a look found.
#[derive(Debug)]
pub enum Sight {
    /// There is nothing in the file that we do not have; or there is still none, and none was expected.
    Unchanged {
        /// For the next look, if the file had to be read.
        tried: Option<Tried>,
    },
    /// A foreign program replaced the state.
    Foreign {
        /// What it changed.
        changes: Box<Diff>,
        /// The file's bytes.
        bytes: Bytes,
        /// The same, short.
        content: Content,
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
    let state_file = match &request.aside {
        Some(path) => Ok(StateFile {
            path: path.clone(),
            expected_cluster: Some(request.cluster.clone()),
            cluster_in_name: None,
        }),
        None => request.dir.state_file(Some(&request.cluster)),
    };
    let file = match state_file {
        Ok(file) => file,
        Err(LocateError::Nothing { .. }) if request.without_file => {
            return Sight::Unchanged { tried: None };
        }
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
            None => Sight::Unchanged { tried: None },
            Some(what) => Sight::Refused {
                what: what.clone(),
                tried: Some(tried.clone()),
            },
        };
    }
    let seen_at = same.map(|tried| tried.at);
    // Without reading a state to compare it with another, which takes both.
    let tried = Tried::of(&file.path, id, seen_at);
    if request.aside.is_none() && request.comparer.stands_at(&file.path) {
        return match FileId::of(&file.path).is_ok_and(|after| after == id) {
            true => Sight::Unchanged { tried: Some(tried) },
            false => Sight::Changing { file: file.path },
        };
    }
    match try_file(ends, &file, id, seen_at) {
        Attempt::Good(loaded, mut tried) => {
            match request.comparer.compare(&file.path, tried.id, &loaded) {
                Ok(Comparison::Known) => Sight::Unchanged { tried: Some(tried) },
                Ok(Comparison::Changes(changes)) => Sight::Foreign {
                    changes,
                    content: Content::of(&loaded.bytes),
                    bytes: loaded.bytes,
                    file: file.path,
                    tried,
                },
                Err(what) => {
                    tried.refusal = Some(what.clone());
                    Sight::Refused {
                        what,
                        tried: Some(tried),
                    }
                }
            }
        }
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
    Good(Box<Loaded>, Tried),
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
    let tried = Tried::of(&file.path, id, seen_at);
    let result = load(ends, file);
    if !FileId::of(&file.path).is_ok_and(|after| after == id) {
        return Attempt::Changed;
    }
    match result {
        Ok(loaded) => Attempt::Good(Box::new(loaded), tried),
        Err(what) => Attempt::Bad(tried.refused(what.clone()), what),
    }
}

/// A decoder that panics on damaged bytes has refused them.
fn load(ends: &impl Ends, file: &StateFile) -> Result<Loaded, String> {
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use std::sync::Arc;

    use sherwood_client::{ReadError, Snapshot};
    use sherwood_shared::state::State;
    use sherwood_store::Effects;
    use sherwood_store::checkpoint::Checkpoints;
    use sherwood_store::merge::Theirs;

    use super::*;
    use crate::ends::{BoxError, Publish};
    use crate::flight::Access;
    use crate::publish::{Options, PublishError, Published};

    /// Counts loads; what a file holds decides how one goes.
    #[derive(Default)]
    struct Counting {
        loads: AtomicUsize,
    }

    /// Nobody publishes here.
    enum Unused {}

    impl Publish for Unused {
        type Staged = ();
        fn stage(&mut self, _: &Effects) -> Result<Option<()>, PublishError> {
            match *self {}
        }
        fn staged_generation((): &()) -> u64 {
            0
        }
        fn commit(&mut self, (): ()) -> Published {
            match *self {}
        }
        fn abandon(&mut self, (): ()) {
            match *self {}
        }
        fn housekeep(&mut self) -> Result<(), PublishError> {
            match *self {}
        }
        fn pulse(&mut self) {
            match *self {}
        }
        fn beat(&mut self) -> Result<bool, PublishError> {
            match *self {}
        }
        fn snapshot(&mut self) -> Result<Snapshot, ReadError> {
            match *self {}
        }
        fn generation(&self) -> u64 {
            match *self {}
        }
        fn path(&self) -> &Path {
            match *self {}
        }
    }

    fn loaded() -> Loaded {
        let columns = sherwood_client::import::FileColumns {
            cluster: arrow_schema::Fields::empty(),
            tables: [None, None, None],
        };
        let state = State::empty("c");
        Loaded {
            theirs: Theirs { state, columns },
            bytes: Bytes::new(),
        }
    }

    impl Ends for Counting {
        type Publisher = Unused;
        fn load(&self, path: &Path, _: Option<&str>) -> Result<Loaded, BoxError> {
            self.loads.fetch_add(1, Ordering::SeqCst);
            match fs::read_to_string(path)?.as_str() {
                "good" => Ok(loaded()),
                "growing" => {
                    fs::write(path, "longer than before")?;
                    Ok(loaded())
                }
                "vanishing" => {
                    fs::remove_file(path)?;
                    Err("it is gone".into())
                }
                "panic" => panic!("a decoder's mistake"),
                _ => Err("bad".into()),
            }
        }
        fn start(&self, _: Options, _: &State, _: u64) -> Result<Unused, PublishError> {
            unreachable!("nobody publishes here")
        }
    }

    fn request(dir: &Path) -> Request {
        let dir = StateDir::open(dir).unwrap();
        let cluster = ClusterId::new("c").unwrap();
        Request {
            comparer: Comparer {
                checkpoints: Arc::new(Checkpoints::open(&dir, &cluster, 0o644).unwrap()),
                access: Arc::new(Access::resolve(&[], &[]).0),
                cluster: cluster.clone(),
                merged: None,
            },
            dir,
            cluster,
            without_file: false,
            tried: None,
            aside: None,
        }
    }

    fn case(content: &str) -> (tempfile::TempDir, Request) {
        let tmp = tempfile::tempdir().unwrap();
        fs::write(tmp.path().join("state_c.parquet"), content).unwrap();
        let request = request(tmp.path());
        (tmp, request)
    }

    #[test]
    fn a_file_is_read_again_until_a_look_at_it_was_conclusive() {
        for content in ["good", "bad"] {
            let (_tmp, mut request) = case(content);
            let ends = Counting::default();
            let look = |request: &Request| match observe(&ends, request) {
                Sight::Unchanged { tried } => tried,
                Sight::Refused { what, tried } => {
                    assert!(what.contains("bad"), "{what}");
                    tried
                }
                other => panic!("{content}: {other:?}"),
            };
            for loads in 1..4 {
                let mut tried = look(&request).unwrap();
                assert_eq!(ends.loads.load(Ordering::SeqCst), loads, "{content}");
                tried.conclusive = false;
                request.tried = Some(tried);
            }
            request.tried.as_mut().unwrap().conclusive = true;
            match (content, observe(&ends, &request)) {
                ("good", Sight::Unchanged { tried: None }) | ("bad", Sight::Refused { .. }) => {}
                (_, other) => panic!("{content}: {other:?}"),
            }
            assert_eq!(ends.loads.load(Ordering::SeqCst), 3, "{content}");
        }
    }

    #[test]
    fn a_file_is_settled_one_tick_after_its_ctime() {
        let id = |seconds, nanos| FileId {
            device: 0,
            inode: 0,
            size: 0,
            owner: 0,
            mtime: (0, 0),
            ctime: (seconds, nanos),
        };
        let now = UNIX_EPOCH + Duration::new(1000, 5_000_000);
        for (ctime, settled) in [
            ((999, 995_000_000), true),
            ((999, 995_000_001), false),
            ((1000, 5_000_000), false),
            ((2000, 0), false),
            ((-5, 0), true),
        ] {
            assert_eq!(id(ctime.0, ctime.1).is_settled(now), settled, "{ctime:?}");
        }
    }

    /// A server's clock may be ahead for ever.
    #[test]
    fn the_same_times_seen_twice_with_a_pause_are_conclusive() {
        let (_tmp, request) = case("good");
        let path = request.dir.path().join("state_c.parquet");
        let file = request.dir.state_file(None).unwrap();
        let id = FileId::of(&path).unwrap();
        let long_ago = Instant::now().checked_sub(CLOCK_SKEW_LIMIT);
        match try_file(&Counting::default(), &file, id, long_ago) {
            Attempt::Good(_, tried) => assert!(tried.conclusive),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_neither_good_nor_refused() {
        for content in ["growing", "vanishing"] {
            let (_tmp, request) = case(content);
            match observe(&Counting::default(), &request) {
                Sight::Changing { .. } => {}
                other => panic!("{content}: {other:?}"),
            }
        }
    }

    #[test]
    fn no_file_is_as_it_should_be_for_an_empty_cluster_only() {
        let (tmp, mut request) = case("good");
        fs::remove_file(tmp.path().join("state_c.parquet")).unwrap();
        for without_file in [true, false] {
            request.without_file = without_file;
            let sight = observe(&Counting::default(), &request);
            assert_eq!(
                matches!(sight, Sight::Unchanged { .. }),
                without_file,
                "{sight:?}"
            );
        }
    }

    #[test]
    fn a_decoder_that_panics_has_refused_the_file() {
        let (_tmp, request) = case("panic");
        match observe(&Counting::default(), &request) {
            Sight::Refused { what, .. } => assert!(what.contains("state_c.parquet"), "{what}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn another_directory_at_the_path_is_told_from_a_missing_one() {
        let (tmp, _) = case("good");
        let dir = tmp.path().join("dir");
        fs::create_dir(&dir).unwrap();
        let request = request(&dir);
        fs::rename(&dir, tmp.path().join("kept")).unwrap();
        let missing = observe(&Counting::default(), &request);
        assert!(matches!(missing, Sight::Refused { .. }), "{missing:?}");
        fs::create_dir(&dir).unwrap();
        let replaced = observe(&Counting::default(), &request);
        assert!(matches!(replaced, Sight::Replaced), "{replaced:?}");
    }
}
