//! One process of the whole-process tests: the first word says which, the others how.

// Forking is the one thing here that Rust cannot vouch for.
#![deny(unsafe_code)]

use std::process::ExitCode;

use nix::unistd::{ForkResult, fork};
use sherwood_tests::torture::args::{Args, die_with_parent};
use sherwood_tests::torture::reader::{self, Side};
use sherwood_tests::torture::tally::say;
use sherwood_tests::torture::{scenes, writer};

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let role = words.next().unwrap_or_default();
    let done = Args::parse(words).and_then(|args| {
        die_with_parent()?;
        let done = run(&role, &args);
        done.map_err(|what| format!("{role} {:?}: {what}", args.words().collect::<Vec<_>>()))
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            say(&format!("wrong {what}"));
            ExitCode::FAILURE
        }
    }
}

fn run(role: &str, args: &Args) -> Result<(), String> {
    match role {
        "writer" => writer::run(args),
        "reader" => reader::run(args),
        "forker" => reader::run_forking(args, fork_here),
        "holder" => scenes::hold(args),
        "resources" => scenes::resources(args),
        _ => Err("no such role".to_owned()),
    }
}

#[expect(
    unsafe_code,
    reason = "fork: a child that inherits mappings and leases"
)]
fn fork_here() -> Result<Side, String> {
    // SAFETY: the only caller is a process with one thread, so that no lock is held and
    // no memory is half changed in the child.
    match unsafe { fork() }.map_err(|errno| errno.to_string())? {
        ForkResult::Child => Ok(Side::Child),
        ForkResult::Parent { .. } => Ok(Side::Parent),
    }
}
