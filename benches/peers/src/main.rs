//! Measures what the machine takes at least, and what others take for the work
//! that Sherwood does: one JSON object a line on stdout.
//!
//! `peers [--large] [NAME...]` runs all of it, or only the groups named:
//! `floors`, `mmap-sync`, `lmdb`, `iceoryx2`, `refile`, `floors-again`, and of what is durable `disk`,
//! `sqlite`, `redb`, `etcd`. Files go to `/dev/shm` (or `--dir DIR`), what is durable to `target` (or
//! `--disk DIR`). A group that fails gives a line with `not_run` and the
//! reason; the others go on. Takes some four minutes, `--large` aside.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

mod durable;
mod etcd;
mod floors;
mod futex;
mod iceoryx;
mod lmdb;
mod mmap_sync;
mod redb;
mod refile;
mod sqlite;

#[path = "../../src/cores.rs"]
mod cores;
#[path = "../../src/keys.rs"]
mod keys;
#[path = "../../src/measure.rs"]
mod measure;
#[path = "../../src/row.rs"]
mod row;

use row::Row;

/// Why a measurement has no figure.
type Failure = Box<dyn Error + Send + Sync>;

/// What a group is given.
struct Setting<'a> {
    /// An empty directory of its own, on a tmpfs.
    dir: &'a Path,
    /// Another one, on the file system that has to keep what is durable.
    disk: &'a Path,
    /// Also what takes gigabytes and minutes.
    large: bool,
}

/// A group: its name, who it measures, and how; it hands each line out as soon as it has it.
type Group = (
    &'static str,
    (&'static str, &'static str),
    fn(&Setting<'_>, &mut dyn FnMut(Row)) -> Result<(), Failure>,
);

const GROUPS: [Group; 10] = [
    ("floors", floors::WHO, floors::run),
    ("mmap-sync", mmap_sync::WHO, mmap_sync::run),
    ("lmdb", lmdb::WHO, lmdb::run),
    ("iceoryx2", iceoryx::WHO, iceoryx::run),
    ("refile", refile::WHO, refile::run),
    ("disk", durable::WHO, durable::run),
    ("sqlite", sqlite::WHO, sqlite::run),
    ("redb", redb::WHO, redb::run),
    ("etcd", etcd::WHO, etcd::run),
    ("floors-again", floors::WHO, floors::again),
];

fn main() -> ExitCode {
    match edge() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Reads the arguments and runs the groups they name.
fn edge() -> Result<(), Failure> {
    let (mut large, mut parent, mut only) = (false, PathBuf::from("/dev/shm"), Vec::new());
    let mut disk_parent = PathBuf::from("target");
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            // Hidden: the waiting half of the futex floor.
            "futex-child" => {
                return futex::child(Path::new(&args.next().ok_or("futex-child needs a file")?));
            }
            "--large" => large = true,
            "--dir" => parent = args.next().ok_or("--dir needs a directory")?.into(),
            "--disk" => disk_parent = args.next().ok_or("--disk needs a directory")?.into(),
            name if GROUPS.iter().any(|group| group.0 == name) => only.push(arg),
            other => {
                return Err(format!(
                    "{other:?} is neither an option nor a group: see the top of main.rs"
                )
                .into());
            }
        }
    }
    for (name, who, run) in GROUPS {
        if !only.is_empty() && !only.iter().any(|wanted| wanted == name) {
            continue;
        }
        let dir = tempfile::Builder::new()
            .prefix("peers-")
            .tempdir_in(&parent)?;
        let disk = tempfile::Builder::new()
            .prefix("peers-")
            .tempdir_in(&disk_parent)?;
        let setting = Setting {
            dir: dir.path(),
            disk: disk.path(),
            large,
        };
        let mut print = |row: Row| println!("{}", row.to_json());
        if let Err(error) = run(&setting, &mut print) {
            print(Row::not_run(
                question_of(name),
                "the rest of the group",
                who,
                error,
            ));
        }
    }
    Ok(())
}

/// Where the table shows that a group broke off.
fn question_of(group: &str) -> &'static str {
    match group {
        "floors" | "floors-again" | "disk" => "floor",
        "sqlite" | "redb" | "etcd" => durable::QUESTION,
        _ => "acquire",
    }
}
