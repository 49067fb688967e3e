//! The change from one daemon's file to the next one's, as a model: W1, W8, R5, with a crash at any step.
//!
//! A few daemons come one after the other. Each makes its file aside, takes the path over, marks and wakes; each but
//! the last may be killed at any step. Readers must in the end stand at the last daemon's last generation, whether
//! they wait or poll, whatever happened on the way.
//!
//! # What is modelled
//!
//! - Taking the path over is `RENAME_EXCHANGE`: the old file gets the aside name and keeps it until it was marked and
//!   its waiters were woken. A daemon sweeps what it finds under aside names, its predecessors' too.
//! - A waiter checks the head, and only then calls `FUTEX_WAIT`, which compares the generation and not the mark: the
//!   mark lies in the head's other half (`shared/src/head/rule.rs`). Its timeout may come at any moment.
//! - A poller never waits. It sees its head word change, the mark included, and looks at the path only then.
//! - Whoever has seen a mark looks at the path until it is attached to another file.
//!
//! # What is not
//!
//! Leases and generations' bytes (`lease`), orderings (`head_loom.rs`), how long anything takes: a timeout is a step.
//!
//! # What is checked
//!
//! - **one writer**: no two daemons have a file of theirs in use at once;
//! - **forward**: a reader's generations never go back, over any change of files;
//! - **a successor**: the file at the path is never marked, so a mark is never followed to itself;
//! - **convergence**: where no daemon and nobody else has a step left, every reader, on its own, comes to the current
//!   file and generation.

mod tests;

use crate::explorer::{Model, Steps};

/// Daemons that come in turn. Two to leave things half done, one to be killed cleaning up, one to stay.
const DAEMONS: usize = 4;

/// Files that can be made, by all daemons together.
const FILES: usize = 7;

const READERS: usize = 2;

/// A file's number, from 1. 0 is no file.
type File = u8;

/// A set of files, one bit each.
type Files = u8;

/// How a reader learns of news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It sleeps on the head.
    Waiter,
    /// It looks at the head now and then.
    Poller,
}

/// When somebody may delete the file at the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletes {
    Never,
    /// Once a daemon serves that will be there at its next beat.
    UnderTheLast,
    Always,
}

/// One rule, to be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// W1: a daemon starts while another one lives.
    NoDaemonLock,
    /// W8: the old file is marked before the new one has its name.
    MarkBeforeRename,
    /// W8: the waiters are woken before the mark is there to be seen.
    WakeBeforeMark,
    /// W8: the rename takes the old file's name away, so that a crash before the mark leaves nobody who can.
    NoSweep,
    /// W8: the first generation of a new file is not above the last one's.
    GenerationsStartAgain,
    /// W8: nobody looks whether the file still has its name.
    NoBeat,
    /// R5: a wait ends only when it is woken.
    NoTimeout,
    /// A reader that looked at the path for a mark once, and found nothing, does not look again.
    MarkForgotten,
}

/// What happens around the daemons, and what is broken.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// What the two readers are.
    pub readers: [Kind; READERS],
    /// When somebody may delete the snapshot file, once.
    pub deletes: Deletes,
    /// The service manager removes the directory whenever a daemon ends (no `RuntimeDirectoryPreserve=yes`).
    pub directory_goes: bool,
    /// Pollers look at the path now and then, too.
    pub pollers_look: bool,
    /// The wait compares the mark too. It does not, but this is what R5's timeout stands in for.
    pub mark_in_futex_word: bool,
    /// What is broken, all of it.
    pub broken: &'static [Broken],
}

impl Variant {
    fn breaks(&self, rule: Broken) -> bool {
        self.broken.contains(&rule)
    }
}

/// Where a daemon stands, in the order of W8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum DaemonAt {
    NotStarted,
    /// W1 is done.
    Locked,
    /// Its file is made and has its first generation, under an aside name.
    Made,
    /// Its file has the path.
    Renamed,
    /// The old file it is at, marked (or woken, where that comes first).
    HalfSwept,
    /// The old file it is at, marked and woken; still with its aside name.
    Swept,
    Serving,
    /// A generation is stored, and nobody woken.
    Stored,
    Dead,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Daemon {
    at: DaemonAt,
    /// Its file.
    own: File,
    /// Old files that it has open without a name to find them by: its own former one, and with
    /// [`Broken::NoSweep`] the one that it replaced.
    open: Files,
    /// The old file it marks and wakes just now.
    sweeping: File,
    published: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ReaderAt {
    /// It runs, and looks at its head next.
    Runs,
    /// It has found nothing new in its head and is about to wait.
    AboutToWait,
    Asleep,
    /// It has found the mark in its head and looks at the path next.
    Looks,
    /// It has looked for a mark once and will not do it again ([`Broken::MarkForgotten`]).
    Content,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Reader {
    at: ReaderAt,
    attached: File,
    seen: u8,
}

/// The directory, the files and the processes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    /// The file at the path.
    path: File,
    /// The files with aside names.
    aside: Files,
    /// The files whose head has the mark.
    marked: Files,
    /// The generation in each file's head.
    heads: [u8; FILES + 1],
    made: u8,
    /// The log's generation: durable, the same for all daemons.
    log: u8,
    deleted: bool,
    daemons: [Daemon; DAEMONS],
    readers: [Reader; READERS],
}

impl State {
    fn is_marked(&self, file: File) -> bool {
        self.marked & 1 << file != 0
    }

    fn head(&self, file: File) -> u8 {
        self.heads[usize::from(file)]
    }

    fn publish(&mut self, file: File, generation: u8) {
        self.heads[usize::from(file)] = generation;
    }

    fn wake(&mut self, file: File) {
        for reader in &mut self.readers {
            if reader.attached == file && reader.at == ReaderAt::Asleep {
                reader.at = ReaderAt::Runs;
            }
        }
    }

    /// A live daemon holds the lock of W1.
    fn locked(&self) -> bool {
        let holds = |daemon: &Daemon| !matches!(daemon.at, DaemonAt::NotStarted | DaemonAt::Dead);
        self.daemons.iter().any(holds)
    }
}

/// The whole change in one variant.
pub struct Restart(pub Variant);

impl Model for Restart {
    type State = State;

    /// An empty directory.
    fn start(&self) -> State {
        State {
            path: 0,
            aside: 0,
            marked: 0,
            heads: [0; FILES + 1],
            made: 0,
            log: 0,
            deleted: false,
            daemons: [Daemon {
                at: DaemonAt::NotStarted,
                own: 0,
                open: 0,
                sweeping: 0,
                published: false,
            }; DAEMONS],
            readers: [Reader {
                at: ReaderAt::Looks,
                attached: 0,
                seen: 0,
            }; READERS],
        }
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        self.steps_of_others(state, steps);
        for reader in 0..READERS {
            let me = state.readers[reader];
            if let Some(next) = self.reader_step(state, reader) {
                let label = || {
                    let then = next.readers[reader];
                    format!(
                        "reader {reader}: {:?} at file {}, then {:?} at file {} with generation {}",
                        me.at, me.attached, then.at, then.attached, then.seen
                    )
                };
                if goes_back(me, next.readers[reader]) {
                    steps.wrong(label, format!("reader {reader} goes back"));
                } else {
                    steps.to(label, next);
                }
            }
        }
    }

    fn check(&self, state: &State) -> Result<(), String> {
        let writes = |daemon: &&Daemon| daemon.at >= DaemonAt::Made && daemon.at != DaemonAt::Dead;
        if state.daemons.iter().filter(writes).count() > 1 {
            return Err("two daemons write".into());
        }
        if state.path != 0 && state.is_marked(state.path) {
            return Err("the file at the path is marked as superseded".into());
        }
        let mut others = Steps::new();
        self.steps_of_others(state, &mut others);
        if others.targets().next().is_some() {
            return Ok(());
        }
        if state.path == 0 {
            return Err("ends without a file at the path".into());
        }
        (0..READERS).try_for_each(|reader| self.converges(*state, reader))
    }
}

/// Not only to a lower generation: the same one in another file is not the same state (F12).
fn goes_back(before: Reader, after: Reader) -> bool {
    let moves = before.attached != 0 && before.attached != after.attached;
    after.seen < before.seen || (moves && after.seen == before.seen)
}

impl Restart {
    /// Everything that daemons, the service manager and people can do.
    fn steps_of_others(&self, state: &State, steps: &mut Steps<State>) {
        for number in 0..DAEMONS {
            self.daemon_steps(state, number, steps);
        }
        let may_delete = match self.0.deletes {
            Deletes::Never => false,
            Deletes::UnderTheLast => state.daemons[DAEMONS - 1].at == DaemonAt::Serving,
            Deletes::Always => true,
        };
        if may_delete && !state.deleted && state.path != 0 {
            let mut next = *state;
            next.path = 0;
            next.deleted = true;
            steps.to(|| "somebody deletes the snapshot file".into(), next);
        }
    }

    fn daemon_steps(&self, state: &State, number: usize, steps: &mut Steps<State>) {
        let variant = &self.0;
        let me = state.daemons[number];
        let mut next = *state;
        let daemon = &mut next.daemons[number];
        match me.at {
            DaemonAt::NotStarted => {
                let in_turn = number == 0 || state.daemons[number - 1].at != DaemonAt::NotStarted;
                if in_turn && (!state.locked() || variant.breaks(Broken::NoDaemonLock)) {
                    daemon.at = DaemonAt::Locked;
                    steps.to(|| format!("daemon {number}: starts"), next);
                }
            }
            DaemonAt::Locked => self.make(state, number, steps),
            DaemonAt::Made => {
                if state.aside & 1 << me.own == 0 {
                    // The directory was emptied meanwhile: the rename finds nothing to rename.
                    daemon.at = DaemonAt::Locked;
                    steps.to(|| format!("daemon {number}: its file aside is gone"), next);
                    return;
                }
                let old = state.path;
                next.aside &= !(1 << me.own);
                if old != 0 {
                    if variant.breaks(Broken::NoSweep) {
                        next.daemons[number].open |= 1 << old;
                    } else {
                        next.aside |= 1 << old;
                    }
                }
                next.path = me.own;
                next.daemons[number].at = DaemonAt::Renamed;
                let label =
                    || format!("daemon {number}: file {} takes the path from {old}", me.own);
                steps.to(label, next);
            }
            DaemonAt::Renamed => {
                let left = state.aside | me.open;
                if let Some(old) = (1..).take(FILES).find(|file| left & 1 << file != 0) {
                    daemon.sweeping = old;
                    self.mark_or_wake(next, number, true, steps);
                } else {
                    daemon.at = DaemonAt::Serving;
                    steps.to(|| format!("daemon {number}: serves"), next);
                }
            }
            DaemonAt::HalfSwept => self.mark_or_wake(next, number, false, steps),
            DaemonAt::Swept => {
                daemon.open &= !(1 << me.sweeping);
                daemon.sweeping = 0;
                daemon.at = DaemonAt::Renamed;
                next.aside &= !(1 << me.sweeping);
                steps.to(
                    || format!("daemon {number}: unlinks file {}", me.sweeping),
                    next,
                );
            }
            DaemonAt::Serving => {
                if !me.published {
                    daemon.published = true;
                    daemon.at = DaemonAt::Stored;
                    next.log += 1;
                    next.publish(me.own, next.log);
                    steps.to(|| format!("daemon {number}: publishes {}", next.log), next);
                }
                if state.path != me.own && !variant.breaks(Broken::NoBeat) {
                    // W8 again. It still has its own file open, and marks that by hand.
                    let mut next = *state;
                    next.daemons[number].open |= 1 << me.own;
                    next.daemons[number].at = DaemonAt::Locked;
                    let label = || format!("daemon {number}: finds its file gone from the path");
                    steps.to(label, next);
                }
            }
            DaemonAt::Stored => {
                daemon.at = DaemonAt::Serving;
                next.wake(me.own);
                steps.to(|| format!("daemon {number}: wakes"), next);
            }
            DaemonAt::Dead => {}
        }
        let lives = !matches!(me.at, DaemonAt::NotStarted | DaemonAt::Dead);
        if lives && number + 1 < DAEMONS {
            let mut next = *state;
            next.daemons[number] = Daemon {
                at: DaemonAt::Dead,
                own: 0,
                open: 0,
                sweeping: 0,
                published: false,
            };
            if variant.directory_goes {
                next.path = 0;
                next.aside = 0;
            }
            steps.to(|| format!("daemon {number}: is killed"), next);
        }
    }

    /// W8: a new file, aside, with its first generation.
    fn make(&self, state: &State, number: usize, steps: &mut Steps<State>) {
        if usize::from(state.made) == FILES {
            return;
        }
        let mut next = *state;
        next.made += 1;
        let file = next.made;
        if self.0.breaks(Broken::GenerationsStartAgain) {
            next.publish(file, 1);
        } else {
            next.log += 1;
            next.publish(file, next.log);
        }
        next.aside |= 1 << file;
        next.daemons[number].own = file;
        next.daemons[number].at = DaemonAt::Made;
        if self.0.breaks(Broken::MarkBeforeRename) && state.path != 0 {
            next.marked |= 1 << state.path;
            next.wake(state.path);
        }
        let generation = next.head(file);
        steps.to(
            || format!("daemon {number}: makes file {file}, generation {generation}"),
            next,
        );
    }

    /// W8: the mark, and then the waiters.
    fn mark_or_wake(&self, mut next: State, number: usize, first: bool, steps: &mut Steps<State>) {
        let file = next.daemons[number].sweeping;
        let marks = first != self.0.breaks(Broken::WakeBeforeMark);
        if marks {
            next.marked |= 1 << file;
        } else {
            next.wake(file);
        }
        next.daemons[number].at = if first {
            DaemonAt::HalfSwept
        } else {
            DaemonAt::Swept
        };
        let does = if marks {
            "marks"
        } else {
            "wakes the waiters of"
        };
        steps.to(|| format!("daemon {number}: {does} file {file}"), next);
    }

    /// The one step that a reader has, if any.
    fn reader_step(&self, state: &State, reader: usize) -> Option<State> {
        let variant = &self.0;
        let kind = variant.readers[reader];
        let me = state.readers[reader];
        let marked = state.is_marked(me.attached);
        let mut next = *state;
        let then = &mut next.readers[reader];
        match me.at {
            ReaderAt::Runs if marked => then.at = ReaderAt::Looks,
            ReaderAt::Runs if state.head(me.attached) != me.seen => {
                then.seen = state.head(me.attached)
            }
            ReaderAt::Runs if kind == Kind::Waiter => then.at = ReaderAt::AboutToWait,
            ReaderAt::Runs if variant.pollers_look => return attach(state, reader),
            ReaderAt::Runs => return None,
            ReaderAt::AboutToWait => {
                let changed =
                    state.head(me.attached) != me.seen || (marked && variant.mark_in_futex_word);
                then.at = if changed {
                    ReaderAt::Runs
                } else {
                    ReaderAt::Asleep
                };
            }
            ReaderAt::Asleep if variant.breaks(Broken::NoTimeout) => return None,
            ReaderAt::Asleep => {
                return attach(state, reader).or_else(|| {
                    next.readers[reader].at = ReaderAt::Runs;
                    Some(next)
                });
            }
            ReaderAt::Looks => {
                return attach(state, reader).or_else(|| {
                    let forgets = variant.breaks(Broken::MarkForgotten) && me.attached != 0;
                    next.readers[reader].at = ReaderAt::Content;
                    forgets.then_some(next)
                });
            }
            ReaderAt::Content => return None,
        }
        Some(next)
    }

    /// Whether a reader, on its own, comes to the current file and generation.
    fn converges(&self, mut state: State, reader: usize) -> Result<(), String> {
        let current = state.path;
        // A wait, its timeout, a look at the head, at the path, at the new head.
        for _ in 0..8 {
            let me = state.readers[reader];
            if me.attached == current && me.seen == state.head(current) {
                return Ok(());
            }
            match self.reader_step(&state, reader) {
                Some(next) => state = next,
                None => break,
            }
        }
        let kind = self.0.readers[reader];
        let me = state.readers[reader];
        Err(format!(
            "{kind:?} {reader} stays for ever at generation {} of file {}, {:?}; current is {} of file {current}",
            me.seen,
            me.attached,
            me.at,
            state.head(current),
        ))
    }
}

/// A look at the path: attaches to the file there, if it is another one.
fn attach(state: &State, reader: usize) -> Option<State> {
    let me = state.readers[reader];
    if state.path == 0 || state.path == me.attached {
        return None;
    }
    let mut next = *state;
    next.readers[reader] = Reader {
        at: ReaderAt::Runs,
        attached: state.path,
        seen: state.head(state.path),
    };
    Some(next)
}
