//! What a test needs of the machine it runs on, and what happens where it is not there.
//!
//! A test that cannot run here says so in one line on stderr, past the harness, which keeps the output of tests that
//! pass to itself:
//!
//! ```text
//! NOT RUN: <name>: <why>
//! ```
//!
//! With `SHERWOOD_REQUIRE_ALL=1` in the environment, as in CI, it fails instead.

use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::geteuid;

/// Counts `name` as not run, because of `why`.
///
/// # Panics
///
/// If everything is required to run.
pub fn not_run(name: &str, why: impl Display) {
    tell(format_args!("NOT RUN: {name}: {why}"));
    assert!(
        std::env::var_os("SHERWOOD_REQUIRE_ALL").is_none_or(|value| value != "1"),
        "{name} was not run ({why}), and SHERWOOD_REQUIRE_ALL=1 requires it"
    );
}

/// One line to whoever runs the tests, whether this one passes or not.
pub fn tell(line: impl Display) {
    let _nobody_listens = writeln!(std::io::stderr(), "{line}");
}

/// Is this root? If not, `name` counts as not run.
#[must_use]
pub fn root(name: &str) -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        not_run(name, "needs root");
    }
    is_root
}

/// A program's path.
///
/// # Panics
///
/// If it is not installed: tests that need it are not optional where it can be.
#[must_use]
pub fn program(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed: apt-get install {package}"))
}

/// A small tmpfs, unmounted when dropped.
#[derive(Debug)]
pub struct SmallTmpfs {
    path: PathBuf,
}

impl SmallTmpfs {
    /// Mounts one on `path`, which is made. Root only.
    ///
    /// # Panics
    ///
    /// If the kernel refuses.
    #[must_use]
    pub fn mount(path: &Path, bytes: u64) -> Self {
        std::fs::create_dir(path).expect("a place to mount on");
        let options = format!("size={bytes},mode=0755");
        run(
            "mount",
            &["-t", "tmpfs", "-o", &options, "sherwood-test"],
            path,
        );
        Self {
            path: path.to_owned(),
        }
    }

    /// Gives it another size.
    ///
    /// # Panics
    ///
    /// If the kernel refuses.
    pub fn resize(&self, bytes: u64) {
        run(
            "mount",
            &["-o", &format!("remount,size={bytes}")],
            &self.path,
        );
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills what is left of it with a file. Dropping the file's path is the caller's.
    ///
    /// # Panics
    ///
    /// If it cannot be filled.
    pub fn fill(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        let mut file = std::fs::File::create(&path).expect("a file that fills");
        let block = vec![0xA5; 64 << 10];
        let full = loop {
            if let Err(error) = file.write_all(&block) {
                break error;
            }
        };
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
        path
    }
}

impl Drop for SmallTmpfs {
    fn drop(&mut self) {
        // Lazily: a reader in this process may still have the snapshot mapped.
        let status = Command::new("umount").arg("-l").arg(&self.path).status();
        if !status.is_ok_and(|status| status.success()) {
            tell(format_args!("{:?} could not be unmounted", self.path));
        }
    }
}

fn run(program: &str, arguments: &[&str], path: &Path) {
    let output = Command::new(program).args(arguments).arg(path).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {arguments:?} {path:?}: {said}"
    );
}
