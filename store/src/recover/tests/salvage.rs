//! Saving what is left.

use super::*;

#[test]
fn a_salvage_saves_what_can_be_read_and_says_what_is_missing() {
    let mut case = Case::new(11);
    case.append(8);
    case.checkpoint(3);
    let newest = case.checkpoint(6);
    let out = case.path().join("salvaged");
    let salvaged = |case: &Case| {
        let _ = fs::remove_file(&out);
        let done = salvage(&case.dir(), &out).unwrap();
        (read_parquet(&out, None).unwrap(), done)
    };
    let (state, done) = salvaged(&case);
    assert!(
        state == case.states[8] && done.missing.is_empty(),
        "{done:?}"
    );
    assert!(matches!(
        salvage(&case.dir(), &out),
        Err(RecoverError::Exists { .. })
    ));
    damage(&newest);
    let (state, done) = salvaged(&case);
    assert!(
        state == case.states[8] && done.missing.len() == 2,
        "{done:?}"
    );
    damage(&newest.with_file_name(crate::checkpoint::file_name(3)));
    let (state, done) = salvaged(&case);
    assert!(
        state == case.states[8] && done.missing.len() == 2,
        "{done:?}"
    );
    fs::remove_dir_all(log::log_dir(case.path())).unwrap();
    let (state, done) = salvaged(&case);
    assert!(
        state == case.states[6] && done.missing.last().unwrap().contains("after entry 6"),
        "{done:?}"
    );
}

/// Eight entries, checkpoints of 3 and 6 that are damaged, and no copies of them. Where the salvaged file goes.
fn without_checkpoints() -> (Case, PathBuf) {
    let mut case = Case::new(11);
    case.append(8);
    let old = case.checkpoint(3);
    let newest = case.checkpoint(6);
    fs::remove_dir_all(case.path().join("checkpoints/bases")).unwrap();
    fs::remove_file(case.checkpoints().base()).unwrap();
    damage(&old);
    damage(&newest);
    let out = case.path().join("salvaged");
    (case, out)
}

/// Another program's state: one of ours whose every status is theirs, with this time.
fn theirs(state: &State, time: Option<i64>) -> State {
    let mut state = state.clone();
    let with = |rows: &RecordBatch, name: &str, column: ArrayRef| {
        let at = rows.schema().index_of(name).unwrap();
        let mut columns = rows.columns().to_vec();
        columns[at] = column;
        RecordBatch::try_new(rows.schema(), columns).unwrap()
    };
    let time = arrow_array::TimestampMillisecondArray::from(vec![time]);
    state.cluster = with(&state.cluster, "updated_at", Arc::new(time));
    let tasks = &mut state.tables[TableId::Tasks as usize];
    let status = StringArray::from(vec!["theirs"; tasks.num_rows()]);
    *tasks = with(tasks, "status", Arc::new(status));
    state
}

/// The file with the entries behind one applied.
fn with_entries_behind(case: &Case, sequence: u64, file: &State) -> State {
    let mut state = file.clone();
    for entry in log::read(&log::log_dir(case.path()), sequence + 1).unwrap() {
        apply(&entry.unwrap().effects, &mut state).unwrap();
    }
    state
}

#[test]
fn a_salvage_applies_to_anothers_file_only_entries_that_it_cannot_hold_and_names_those_that_it_may()
{
    let (case, out) = without_checkpoints();
    let public = case.path().join("state_c.parquet");
    let none: &[&str] = &[];
    for (made_from, time, behind, said) in [
        (5, Some(Case::time(5)), 5, none),
        (
            5,
            Some(Case::time(5) + 1),
            5,
            &["entries 1 to 5 cannot be known"][..],
        ),
        (2, Some(Case::time(6)), 6, none),
        (0, Some(Case::time(1) - 1), 0, none),
        (
            8,
            Some(Case::time(9)),
            8,
            &["entries 1 to 8 cannot be known"][..],
        ),
        // By when the file was written.
        (8, None, 8, &["entries 1 to 8 cannot be known"][..]),
    ] {
        let what = format!("made from {made_from}, of {time:?}");
        let file = theirs(&case.states[made_from], time);
        fs::write(&public, to_parquet_bytes(&file).unwrap()).unwrap();
        let done = salvage(&case.dir(), &out).unwrap();
        assert_eq!(
            done.base.as_deref(),
            Some(public.canonicalize().unwrap().as_path())
        );
        assert_eq!(done.through, 8, "{what}");
        let saved = read_parquet(&out, None).unwrap();
        assert!(
            saved == with_entries_behind(&case, behind, &file),
            "{what}: {done:?}"
        );
        // Beside the two checkpoints and the file itself.
        assert_eq!(done.missing.len(), 3 + said.len(), "{what}: {done:?}");
        for said in said {
            assert!(
                done.missing.iter().any(|m| m.contains(said)),
                "{what}: {done:?}"
            );
        }
        fs::remove_file(&out).unwrap();
    }
}

#[test]
fn a_copy_of_a_checkpoint_that_the_log_continues_is_better_than_anothers_file_or_an_older_checkpoint()
 {
    for public_is_ours in [true, false] {
        let mut case = Case::new(11);
        case.append(8);
        case.checkpoint(3);
        damage(&case.checkpoint(6));
        // Without the entries that the older one would need.
        fs::remove_dir_all(log::log_dir(case.path())).unwrap();
        let public = case.path().join("state_c.parquet");
        match public_is_ours {
            true => fs::remove_file(case.checkpoints().base()).unwrap(),
            false => {
                let file = theirs(&case.states[8], Some(Case::time(8)));
                fs::write(&public, to_parquet_bytes(&file).unwrap()).unwrap();
            }
        }
        let out = case.path().join("salvaged");
        let done = salvage(&case.dir(), &out).unwrap();
        assert_eq!(done.through, 6, "{done:?}");
        assert!(
            read_parquet(&out, None).unwrap() == case.states[6],
            "{done:?}"
        );
        assert!(
            done.missing
                .iter()
                .any(|m| m.contains("a copy of the checkpoint of entry 6")),
            "{done:?}"
        );
        assert!(
            done.missing.iter().any(|m| m.contains("after entry 6")),
            "{done:?}"
        );
    }
}

#[test]
fn a_salvage_without_any_good_file_saves_what_the_log_has_and_says_so() {
    let (case, out) = without_checkpoints();
    let public = case.path().join("state_c.parquet");
    for is_there in [true, false] {
        match is_there {
            true => damage(&public),
            false => fs::remove_file(&public).unwrap(),
        }
        fs::write(
            case.path().join("state_metadata.json"),
            r#"{"cluster_id":"c"}"#,
        )
        .unwrap();
        let done = salvage(&case.dir(), &out).unwrap();
        assert_eq!((&done.base, done.through), (&None, 8), "{done:?}");
        let saved = read_parquet(&out, None).unwrap();
        assert!(
            saved == with_entries_behind(&case, 0, &State::empty("c")),
            "{done:?}"
        );
        assert!(
            done.missing
                .iter()
                .any(|m| m.contains("no state to begin with")),
            "{done:?}"
        );
        fs::remove_file(&out).unwrap();
    }
    fs::remove_dir_all(log::log_dir(case.path())).unwrap();
    let error = salvage(&case.dir(), &out).expect_err("nothing is left");
    assert!(matches!(error, RecoverError::Locate(_)), "{error:?}");
}

#[test]
fn a_salvage_says_that_the_log_ends_before_what_its_base_holds() {
    let mut case = Case::new(11);
    case.append(3);
    case.log = None;
    let short = contents(&log::log_dir(case.path()));
    case.open_log(0);
    case.append(5);
    case.checkpoint(6);
    short
        .iter()
        .for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    let out = case.path().join("salvaged");
    let done = salvage(&case.dir(), &out).unwrap();
    assert!(read_parquet(&out, None).unwrap() == case.states[6]);
    assert!(
        done.missing
            .iter()
            .any(|m| m.contains("ends with entry 3, before entry 6")),
        "{done:?}"
    );
}
