//! Going back (T1 to T3).

use super::*;

#[test]
fn any_state_that_is_still_in_reach_can_be_restored_and_nothing_is_deleted() {
    for to in 0..12 {
        let mut case = Case::new(5);
        case.append(11);
        case.checkpoint(3);
        case.checkpoint(7);
        case.log = None;
        fs::write(case.path().join("sherwood.generation"), "{}").unwrap();
        let before = contents(case.path());
        let done = restore(&case.dir(), to);
        if to < 3 {
            let error = done.expect_err("before the oldest checkpoint");
            assert!(
                matches!(error, RecoverError::Unreachable { .. }),
                "{to}: {error:?}"
            );
            continue;
        }
        let restored = done.unwrap();
        let to = usize::try_from(to).unwrap();
        assert_eq!(restored.position, Case::at(to));
        let recovered = case.recover().unwrap();
        assert!(recovered.state == case.states[to], "restored to {to}");
        assert_eq!(recovered.position, Case::at(to));
        assert!(!case.path().join("sherwood.generation").exists());
        assert!(
            read_parquet(&case.path().join("state_c.parquet"), None).unwrap() == case.states[to]
        );
        assert!(restored.missing.is_empty(), "{restored:?}");
        let outcomes = Outcomes::load(&log::log_dir(case.path())).unwrap();
        for id in 1..12 {
            let is_known = outcomes.get(&format!("id-{id}")).is_some();
            assert_eq!(is_known, id <= to, "id-{id}, restored to {to}");
        }
        let kept = contents(&restored.set_aside);
        for (path, bytes) in &before {
            let name = path.strip_prefix(case.path()).unwrap();
            if name != Path::new("sherwood.lock") {
                assert_eq!(
                    kept.get(&restored.set_aside.join(name)),
                    Some(bytes),
                    "{name:?}"
                );
            }
        }
        // The new log goes on from there.
        case.states.truncate(to + 1);
        case.open_log(to as u64);
        case.append(2);
        assert!(case.recover().unwrap().state == case.states[to + 2]);
    }
    let case = Case::new(5);
    let error = restore(&case.dir(), 9).expect_err("beyond the log");
    assert!(error.to_string().contains("ends with entry 0"), "{error}");
}

#[test]
fn a_restore_that_was_cut_off_after_any_move_is_finished_by_the_next_one() {
    for done in 0.. {
        let mut case = Case::new(9);
        case.append(6);
        case.checkpoint(4);
        case.log = None;
        fs::write(case.path().join("sherwood.generation"), "{}").unwrap();
        let moves = tools::cut_off(&case.dir(), 5, done).unwrap();
        let error = case.error();
        assert!(matches!(error, RecoverError::Restoring { .. }), "{error:?}");
        let restored = restore(&case.dir(), 3).unwrap();
        assert_eq!(restored.position, Case::at(5), "{done} of {moves} moves");
        assert!(
            case.recover().unwrap().state == case.states[5],
            "{done} of {moves} moves"
        );
        assert_eq!(fs::read_dir(restored.set_aside).unwrap().count(), 4);
        if done == moves {
            break;
        }
    }
}

#[test]
fn a_restore_and_a_running_daemon_exclude_each_other() {
    let case = Case::new(1);
    let holder = crate::lock::Holder::this_process(case.path(), Path::new("/run"));
    let _held =
        crate::lock::Lock::acquire(&case.path().join(crate::lock::STATE_LOCK), &holder).unwrap();
    assert!(matches!(
        restore(&case.dir(), 0),
        Err(RecoverError::Lock(_))
    ));
}
