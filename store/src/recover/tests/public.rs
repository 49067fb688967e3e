//! The public file: what a first start adopts (B4), and what no later one needs.

use super::*;

#[test]
fn a_directory_without_checkpoints_is_adopted_as_other_programs_left_it() {
    let state = crate::checkpoint::tests::state(3);
    let tmp = tempfile::tempdir().unwrap();
    let dir = StateDir::open(tmp.path()).unwrap();
    let cluster = ClusterId::new("c").unwrap();
    assert!(matches!(
        recover(&dir, None),
        Err(RecoverError::NoCluster { .. })
    ));
    let empty = recover(&dir, Some(&cluster)).unwrap();
    assert_eq!(
        (empty.state, empty.position, empty.checkpoint),
        (State::empty("c"), Position::default(), None)
    );
    fs::write(tmp.path().join("x.parquet"), "").unwrap();
    assert!(matches!(
        recover(&dir, Some(&cluster)),
        Err(RecoverError::NotEmpty { .. })
    ));
    fs::remove_file(tmp.path().join("x.parquet")).unwrap();

    let path = tmp.path().join("state_c.parquet");
    fs::write(&path, "PAR1 cut").unwrap();
    assert!(matches!(
        recover(&dir, None),
        Err(RecoverError::Load { .. })
    ));
    write_parquet_atomic(&state, &path).unwrap();
    for wanted in [None, Some(&cluster)] {
        let adopted = recover(&dir, wanted).unwrap();
        assert_eq!(adopted.state, state);
        assert_eq!(
            (
                adopted.adopted.map(|adopted| adopted.path),
                adopted.cluster,
                adopted.public_is_stale
            ),
            (
                Some(dir.path().join("state_c.parquet")),
                cluster.clone(),
                false
            )
        );
    }
    let other = ClusterId::new("d").unwrap();
    assert!(matches!(
        recover(&dir, Some(&other)),
        Err(RecoverError::Locate(_))
    ));
    // A crash between the first log and the first checkpoint.
    drop(
        Log::open(
            &log::log_dir(tmp.path()),
            Options::default(),
            Arc::new(RealDisk),
        )
        .unwrap(),
    );
    assert_eq!(recover(&dir, None).unwrap().state, state);
}

#[test]
fn the_public_file_may_be_gone_stale_or_anothers_and_the_state_is_the_same() {
    let mut case = Case::new(1);
    case.append(4);
    let old = fs::read(case.checkpoint(2)).unwrap();
    case.checkpoint(4);
    let public = case.path().join("state_c.parquet");
    let foreign = to_parquet_bytes(&crate::checkpoint::tests::state(77)).unwrap();
    let look = |case: &Case| {
        let recovered = case.recover().unwrap();
        assert!(recovered.state == case.states[4]);
        (recovered.public_is_stale, recovered.foreign.is_some())
    };
    assert_eq!(look(&case), (false, false));
    fs::write(&public, &old).unwrap();
    assert_eq!(look(&case), (true, false));
    fs::write(&public, &foreign).unwrap();
    assert_eq!(look(&case), (false, true));
    case.checkpoints().set_base(&foreign).unwrap();
    assert_eq!(look(&case), (true, false));
    fs::write(&public, "no state at all").unwrap();
    assert_eq!(look(&case), (false, true));
    fs::remove_file(&public).unwrap();
    assert_eq!(look(&case), (true, false));
    // What a full disk left there: the base, of which no private checkpoint is any more (C7).
    fs::remove_file(
        case.path()
            .join("checkpoints")
            .join(crate::checkpoint::file_name(2)),
    )
    .unwrap();
    case.checkpoints().set_base(&old).unwrap();
    fs::write(&public, &old).unwrap();
    assert_eq!(look(&case), (true, false));
    // Entries behind the checkpoint bring it there.
    case.append(1);
    let recovered = case.recover().unwrap();
    assert_eq!(
        (recovered.public_is_stale, recovered.foreign),
        (false, None)
    );
    let other = ClusterId::new("d").unwrap();
    let error = recover(&case.dir(), Some(&other)).expect_err("another cluster");
    assert!(
        matches!(error, RecoverError::WrongCluster { .. }),
        "{error:?}"
    );
}

#[test]
fn whatever_stands_at_the_public_name_does_not_keep_a_state_from_coming_back() {
    let mut case = Case::new(7);
    case.append(6);
    case.checkpoint(4);
    let public = case.path().join("state_c.parquet");
    for what in ["a FIFO", "a directory", "a link to itself"] {
        let _ = fs::remove_file(&public);
        let _ = fs::remove_dir(&public);
        match what {
            "a FIFO" => nix::unistd::mkfifo(&public, nix::sys::stat::Mode::S_IRWXU).unwrap(),
            "a directory" => fs::create_dir(&public).unwrap(),
            _ => std::os::unix::fs::symlink(&public, &public).unwrap(),
        }
        let recovered = recover(&case.dir(), None).unwrap();
        assert!(recovered.state == case.states[6], "{what}");
        assert!(recovered.foreign.is_some(), "{what}");
        let is_said = recovered.warnings.iter().any(|w| w.contains("state_c"));
        assert_eq!(is_said, what == "a link to itself", "{what}");
        assert_eq!(
            case.checkpoints().public().unwrap(),
            Public::Foreign,
            "{what}"
        );
    }
}

#[test]
fn the_only_checkpoint_is_the_base_where_a_first_start_was_cut_off_before_it() {
    let mut case = Case::new(7);
    case.append(1);
    let base = case.checkpoints().base();
    fs::remove_file(&base).unwrap();
    fs::remove_file(case.path().join("state_c.parquet")).unwrap();
    let listed = case.checkpoints().list().unwrap();
    assert_eq!(fs::read(&base).unwrap(), fs::read(&listed[0].path).unwrap());
}
