//! Cut, flipped, swapped and deleted: an exact prefix or a named error, never a panic, a hang or a wrong entry.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::samples::*;
use crate::log::{LogError, read, verify};
use crate::outcomes::Outcomes;

const ENTRIES: u64 = 35;

/// A log of three segments and a file of outcomes; its directory, its files and how much of each is used.
fn three_segments() -> (tempfile::TempDir, PathBuf, Vec<(PathBuf, Vec<u8>)>, u64) {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("log");
    let log = log_of(&dir, ENTRIES);
    let begins = log.release(15).unwrap();
    drop(log);
    let mut files: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|item| item.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_none_or(|extension| extension != "spare")
        })
        .map(|path| (path.clone(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    let names: Vec<_> = files.iter().map(|(path, _)| path).collect();
    assert!(files.len() >= 4, "{names:?}");
    (tmp, dir, files, begins)
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log")
}

fn last_segment(files: &[(PathBuf, Vec<u8>)]) -> &Path {
    let mut segments = files.iter().map(|(path, _)| path.as_path());
    segments.rfind(|path| is_segment(path)).unwrap()
}

/// What is true of any damage; gives whether entries are missing without an error.
fn check(dir: &Path, begins: u64, what: &str) -> (u64, Option<LogError>) {
    let (found, error) = entries(dir, begins);
    assert_samples(&found, begins, what);
    let _looked_at_all = verify(dir).unwrap();
    let _said_or_loaded = Outcomes::load(dir);
    (begins + found.len() as u64 - 1, error)
}

#[test]
fn every_cut_of_every_file_gives_a_named_error_or_everything() {
    let (_tmp, dir, files, begins) = three_segments();
    for (path, whole) in &files {
        let mut seen = ENTRIES;
        let file = fs::File::options().write(true).open(path).unwrap();
        for cut in (0..whole.len()).rev() {
            file.set_len(cut as u64).unwrap();
            let what = format!("{path:?} cut at {cut}");
            let (last, error) = check(&dir, begins, &what);
            if is_segment(path) && path == last_segment(&files) {
                assert!(error.is_some(), "{what}");
                assert!(last <= seen, "{what}: a shorter log has more entries");
                seen = last;
            } else if error.is_none() {
                assert_eq!(last, ENTRIES, "{what}");
            }
        }
        fs::write(path, whole).unwrap();
    }
    assert_eq!(check(&dir, begins, "whole").0, ENTRIES);
}

#[test]
fn every_flipped_bit_gives_a_named_error_or_everything_but_the_last_record() {
    let (_tmp, dir, files, begins) = three_segments();
    for (path, whole) in &files {
        let file = fs::File::options().write(true).open(path).unwrap();
        let used = whole.iter().rposition(|&byte| byte != 0).unwrap_or(0) + 130;
        for at in (0..whole.len()).filter(|at| *at < used || at % 61 == 0) {
            for bit in 0..8 {
                file.write_at(&[whole[at] ^ 1 << bit], at as u64).unwrap();
                let what = format!("{path:?}, byte {at}, bit {bit}");
                // All that reads, for one bit of each byte.
                let (last, error) = if bit == at % 8 {
                    check(&dir, begins, &what)
                } else {
                    let (found, error) = entries(&dir, begins);
                    assert_samples(&found, begins, &what);
                    (begins + found.len() as u64 - 1, error)
                };
                if error.is_some() || last == ENTRIES {
                    continue;
                }
                // Only the last record may look like one that was never finished, and then it is said.
                assert_eq!(path, last_segment(&files), "{what}");
                assert_eq!(last, ENTRIES - 1, "{what}");
                let mut all = read(&dir, begins).unwrap();
                assert!(all.by_ref().all(|entry| entry.is_ok()), "{what}");
                assert_eq!(all.torn().unwrap().sequence, ENTRIES, "{what}");
            }
            file.write_at(&[whole[at]], at as u64).unwrap();
        }
    }
}

#[test]
fn a_deleted_segment_is_missed_whichever_it_is() {
    let (_tmp, dir, files, begins) = three_segments();
    for (path, whole) in files.iter().filter(|(path, _)| is_segment(path)) {
        fs::remove_file(path).unwrap();
        let error = entries(&dir, begins).1;
        let what = format!("{path:?} deleted: {error:?}");
        assert!(
            matches!(
                error,
                Some(LogError::Missing { .. } | LogError::Swapped { .. })
            ),
            "{what}"
        );
        assert!(!verify(&dir).unwrap().problems.is_empty(), "{what}");
        fs::write(path, whole).unwrap();
    }
    let manifest = dir.join("manifest");
    fs::remove_file(manifest).unwrap();
    let error = entries(&dir, begins).1;
    assert!(
        matches!(error, Some(LogError::Manifest { .. })),
        "{error:?}"
    );
}

#[test]
fn a_segment_that_was_swapped_with_another_or_an_older_one_is_found() {
    let (_tmp, dir, files, begins) = three_segments();
    let other = tempfile::tempdir().unwrap();
    let other_dir = other.path().join("log");
    drop(log_of(&other_dir, ENTRIES));
    for (path, whole) in files.iter().filter(|(path, _)| is_segment(path)) {
        // Of another log, with the same name.
        fs::copy(other_dir.join(path.file_name().unwrap()), path).unwrap();
        let error = entries(&dir, begins).1;
        assert!(
            matches!(error, Some(LogError::Swapped { .. })),
            "{path:?}: {error:?}"
        );
        // Of the same log, under another name.
        for (_, bytes) in files.iter().filter(|(p, _)| is_segment(p) && p != path) {
            fs::write(path, bytes).unwrap();
            let error = entries(&dir, begins).1;
            assert!(
                matches!(error, Some(LogError::Swapped { .. })),
                "{path:?}: {error:?}"
            );
        }
        // As it was when it had fewer records.
        if path != last_segment(&files) {
            let mut older = whole.clone();
            let used = older.iter().rposition(|&byte| byte != 0).unwrap();
            older[used / 2 / 64 * 64..].fill(0);
            fs::write(path, &older).unwrap();
            let (_, error) = entries(&dir, begins);
            assert!(
                matches!(error, Some(LogError::Damaged { .. })),
                "{path:?}: {error:?}"
            );
        }
        fs::write(path, whole).unwrap();
    }
}
