//! Replays the corpus of every fuzz target: its seeds, and whatever fuzzing found.

use std::fs;
use std::path::{Path, PathBuf};

use sherwood_tests::fuzzing::{TARGETS, seeds};

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target)
}

#[test]
fn every_file_of_the_corpus_is_refused_or_read_without_a_panic() {
    for (target, run) in TARGETS {
        let mut files: Vec<PathBuf> = fs::read_dir(corpus(target))
            .unwrap_or_else(|error| panic!("the corpus of {target}: {error}"))
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        assert!(files.len() >= 6, "{target} has {} files", files.len());
        for file in files {
            println!("{}", file.display());
            run(&fs::read(&file).unwrap());
        }
    }
}

/// Not in the corpus alone: the seeds as this code makes them, and every cut of each.
#[test]
fn every_cut_of_every_seed_is_refused_or_read_without_a_panic() {
    for (target, run) in TARGETS {
        for (name, seed) in seeds(target) {
            println!("{target}/{name}");
            let step = (seed.len() / 200).max(1);
            (0..=seed.len())
                .step_by(step)
                .for_each(|cut| run(&seed[..cut]));
        }
    }
}

/// Writes the seeds anew when a format has changed:
/// `SHERWOOD_WRITE_CORPUS=1 cargo test -p sherwood-tests --test corpus`.
#[test]
fn every_target_has_its_seeds() {
    if std::env::var_os("SHERWOOD_WRITE_CORPUS").is_some() {
        write_the_seeds();
    }
    for (target, _) in TARGETS {
        for (name, _) in seeds(target) {
            let path = corpus(target).join(format!("seed-{name}"));
            assert!(path.is_file(), "{} is missing", path.display());
        }
    }
}

fn write_the_seeds() {
    for (target, _) in TARGETS {
        fs::create_dir_all(corpus(target)).unwrap();
        for (name, bytes) in seeds(target) {
            fs::write(corpus(target).join(format!("seed-{name}")), bytes).unwrap();
        }
    }
}
