//! How a process is told what to be: a role and `name=value` words.

use std::path::PathBuf;
use std::str::FromStr;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;

/// The words behind the role.
#[derive(Clone, Debug, Default)]
pub struct Args {
    words: Vec<(String, String)>,
}

impl Args {
    /// Without any.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.words.push((name.to_owned(), value.to_string()));
        self
    }

    /// What stands on the command line.
    pub fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let pair = |word: String| match word.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(format!("{word:?} is not name=value")),
        };
        let words = words.map(pair).collect::<Result<_, _>>()?;
        Ok(Self { words })
    }

    /// The command line's words.
    pub fn words(&self) -> impl Iterator<Item = String> + '_ {
        self.words
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
    }

    /// The value of `name`, if it was given.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        let found = self.words.iter().rev().find(|(word, _)| word == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The same as another type.
    ///
    /// # Errors
    ///
    /// It is missing, or no such value.
    pub fn get<T: FromStr>(&self, name: &str) -> Result<T, String> {
        let text = self
            .text(name)
            .ok_or_else(|| format!("{name}=... is missing"))?;
        text.parse()
            .map_err(|_| format!("{name}={text} is no good"))
    }

    /// The directory of the snapshot.
    pub fn run_dir(&self) -> Result<PathBuf, String> {
        self.get("run")
    }

    /// The snapshot file.
    pub fn path(&self) -> Result<PathBuf, String> {
        Ok(self.run_dir()?.join(format!("{}.arrow", super::CLUSTER)))
    }
}

/// Makes this process die with its parent, whatever ends that.
///
/// # Errors
///
/// The parent is gone already, or the kernel refuses.
pub fn die_with_parent() -> Result<(), String> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|errno| errno.to_string())?;
    // It may have died before that: then its pipe is closed.
    if is_told_to_end() {
        return Err("the parent is gone".to_owned());
    }
    Ok(())
}

/// Did the parent close our standard input?
#[must_use]
pub fn is_told_to_end() -> bool {
    let stdin = std::io::stdin();
    let mut watched = [PollFd::new(
        std::os::fd::AsFd::as_fd(&stdin),
        PollFlags::POLLIN,
    )];
    poll(&mut watched, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}
