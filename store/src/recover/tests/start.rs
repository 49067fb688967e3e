//! Which checkpoint and which entries make the state of a start (B2, B3).

use super::*;

#[test]
fn recovery_after_any_prefix_of_the_log_is_the_state_that_the_entries_made_one_by_one() {
    for seed in 0..3 {
        let mut case = Case::new(seed);
        for sequence in 0..40 {
            let recovered = case.recover().unwrap();
            assert_eq!(recovered.position, Case::at(sequence), "seed {seed}");
            assert!(
                recovered.state == case.states[sequence],
                "seed {seed}, after entry {sequence}"
            );
            assert_eq!(
                (
                    recovered.warnings.len(),
                    recovered.foreign,
                    recovered.adopted.map(|adopted| adopted.path)
                ),
                (0, None, None)
            );
            if sequence % 7 == 6 {
                case.checkpoint(sequence);
                let recovered = case.recover().unwrap();
                assert_eq!(recovered.checkpoint.unwrap().sequence, sequence as u64);
                assert!(
                    recovered.state == case.states[sequence],
                    "seed {seed}, at checkpoint {sequence}"
                );
            }
            case.append(1);
        }
    }
}

#[test]
fn a_damaged_newest_checkpoint_is_replaced_by_the_older_one_and_the_log_with_a_warning() {
    let mut case = Case::new(7);
    case.append(10);
    case.checkpoint(4);
    let newest = case.checkpoint(9);
    let good = fs::read(&newest).unwrap();
    let at = good.len() / 3;
    for bad in [
        Vec::new(),
        good[..at].to_vec(),
        b"PAR1 and nothing else".to_vec(),
        vec![0; at],
        {
            let mut flipped = good.clone();
            flipped[at] ^= 1;
            flipped
        },
    ] {
        fs::remove_file(&newest).unwrap();
        fs::write(&newest, &bad).unwrap();
        let recovered = case.recover().unwrap();
        assert!(recovered.state == case.states[10], "{} bytes", bad.len());
        assert_eq!(recovered.checkpoint.unwrap().sequence, 4);
        assert!(
            recovered.warnings[0].contains("00009.parquet"),
            "{:?}",
            recovered.warnings
        );
    }
    // Swapped for the older one: it says what it holds.
    let older = newest.with_file_name(crate::checkpoint::file_name(4));
    fs::copy(&older, &newest).unwrap();
    let recovered = case.recover().unwrap();
    assert!(recovered.state == case.states[10]);
    assert!(
        recovered.warnings[0].contains("after entry 4"),
        "{:?}",
        recovered.warnings
    );
    damage(&older);
    let error = case.error();
    assert!(
        matches!(&error, RecoverError::Checkpoints { bad, .. } if bad.len() == 2),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("sherwood recover salvage"),
        "{error}"
    );
}

#[test]
fn a_checkpoint_and_a_log_that_do_not_belong_together_are_named_errors() {
    let mut case = Case::new(3);
    case.append(3);
    let log_dir = log::log_dir(case.path());
    let short = contents(&log_dir);
    case.append(6);
    case.checkpoint(5);
    case.checkpoint(8);
    // An older copy of the log.
    let whole = contents(&log_dir);
    let put = |files: &BTreeMap<PathBuf, Vec<u8>>| {
        fs::remove_dir_all(&log_dir).unwrap();
        fs::create_dir(&log_dir).unwrap();
        files
            .iter()
            .for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    };
    put(&short);
    let error = case.error();
    assert!(
        matches!(
            error,
            RecoverError::Log(LogError::EndsBefore { last: 3, needed: 8 })
        ),
        "{error:?}"
    );
    assert!(error.to_string().contains("sherwood recover"), "{error}");
    put(&whole);
    assert!(case.recover().unwrap().state == case.states[9]);
    // No log at all, or an empty directory of it.
    for empty in [true, false] {
        fs::remove_dir_all(&log_dir).unwrap();
        if empty {
            fs::create_dir(&log_dir).unwrap();
        }
        let error = case.error();
        assert!(
            matches!(error, RecoverError::NoLog { sequence: 8, .. }),
            "{error:?}"
        );
        assert!(
            error
                .to_string()
                .contains("sherwood recover restore --to 8"),
            "{error}"
        );
        fs::create_dir_all(&log_dir).unwrap();
    }
    put(&whole);
    // A log, and no checkpoint.
    fs::rename(
        case.path().join("checkpoints"),
        case.path().join("elsewhere"),
    )
    .unwrap();
    let error = case.error();
    assert!(
        matches!(error, RecoverError::NoCheckpoint { .. }),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("sherwood recover salvage"),
        "{error}"
    );
}

#[test]
fn a_checkpoint_that_cannot_be_listed_is_said_with_its_path() {
    let case = Case::new(2);
    fs::remove_dir_all(case.path().join("checkpoints")).unwrap();
    fs::write(case.path().join("checkpoints"), "a file").unwrap();
    let error = case.error();
    assert!(
        matches!(error, RecoverError::Checkpoint(CheckpointError::Io { .. })),
        "{error:?}"
    );
}

#[test]
fn a_damaged_checkpoint_that_was_set_aside_is_none_of_the_two_that_are_kept() {
    let mut case = Case::new(7);
    case.append(10);
    case.checkpoint(4);
    let newest = case.checkpoint(9);
    damage(&newest);
    let recovered = case.recover().unwrap();
    assert_eq!(recovered.damaged, std::slice::from_ref(&newest));
    case.checkpoints()
        .set_damaged_aside(&recovered.damaged)
        .unwrap();
    assert!(newest.with_extension("parquet.damaged").exists());
    assert_eq!(case.checkpoints().oldest_kept().unwrap(), 0);
    case.checkpoint(10);
    let kept = case.checkpoints().list().unwrap();
    let kept: Vec<u64> = kept.iter().map(|listed| listed.sequence).collect();
    assert_eq!(kept, [10, 4]);
}
