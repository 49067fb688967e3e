//! A file system whose plug can be pulled.
//!
//! It lies in an image file, mounted through a loop device. Pulling the plug is the file system's own shutdown without
//! flushing its journal (`GOINGDOWN`, 0x8004587d with argument 2, which XFS and ext4 share; `xfs_io` does it). From then on every write
//! fails; mounted again, what was not synced is gone, as after a power cut: 10 to 20 ms for a cycle. Both file
//! systems, since each hides what the other shows: ext4 forgives a rename without a sync, XFS leaves an empty file.
//!
//! Not the same as a power cut: the disk below keeps what it was given. That a disk lies about its cache is not tested.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::needs;

/// Which file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// XFS.
    Xfs,
    /// ext4.
    Ext4,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Xfs, Self::Ext4];

    /// As `mount` calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Xfs => "xfs",
            Self::Ext4 => "ext4",
        }
    }
}

/// The file system, unmounted and removed when dropped.
#[derive(Debug)]
pub struct Disk {
    root: TempDir,
    mounted: bool,
}

impl Disk {
    /// Makes and mounts one. Where that cannot be, `test` counts as not run.
    ///
    /// # Panics
    ///
    /// If there is no place for an image.
    #[must_use]
    pub fn new(test: &str, kind: Kind, bytes: u64) -> Option<Self> {
        if !needs::root(test) {
            return None;
        }
        let root = tempfile::tempdir().expect("a temporary directory");
        let mut disk = Self {
            root,
            mounted: false,
        };
        fs::create_dir(disk.path()).expect("a place to mount on");
        let image = fs::File::create(disk.image()).expect("an image");
        image.set_len(bytes).expect("a sparse image");
        let (program, force) = match kind {
            Kind::Xfs => ("mkfs.xfs", "-f"),
            Kind::Ext4 => ("mkfs.ext4", "-F"),
        };
        let made = run(Command::new(program).args(["-q", force]).arg(disk.image()));
        if let Err(why) = made.and_then(|()| disk.replug_once()) {
            needs::not_run(test, why);
            return None;
        }
        Some(disk)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.root.path().join("mounted")
    }

    fn image(&self) -> PathBuf {
        self.root.path().join("image")
    }

    /// Everything that is not synced is lost; writes fail until [`Self::replug`].
    ///
    /// # Errors
    ///
    /// The file system refuses, or `xfs_io` is not there.
    pub fn pull_the_plug(&self) -> Result<(), String> {
        // `-x`: the expert mode, which also does it to file systems other than XFS.
        run(Command::new("xfs_io")
            .args(["-x", "-c", "shutdown"])
            .arg(self.path()))
    }

    /// Mounts it again, as a machine does that has power again. All processes must have closed their files there.
    ///
    /// # Errors
    ///
    /// Somebody still has a file open, or the journal cannot be replayed.
    pub fn replug(&mut self) -> Result<(), String> {
        self.unmount(&[])?;
        self.replug_once()
    }

    fn replug_once(&mut self) -> Result<(), String> {
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(self.image())
            .arg(self.path()))?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self, how: &[&str]) -> Result<(), String> {
        // A process that was killed closes its files in its own time.
        let begun = Instant::now();
        loop {
            match run(Command::new("umount").args(how).arg(self.path())) {
                Ok(()) => break,
                Err(why) if begun.elapsed() > Duration::from_secs(10) => return Err(why),
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        self.mounted = false;
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted
            && let Err(why) = self.unmount(&["-l"])
        {
            needs::tell(why);
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{command:?}: {}", said.trim()))
    }
}

/// Is this directory on a file system of its own, apart from its parent's?
#[must_use]
pub fn is_mounted(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| path.metadata().map(|metadata| metadata.dev()).ok();
    device(path) != path.parent().and_then(device)
}
