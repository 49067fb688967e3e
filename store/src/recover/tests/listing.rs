//! What is there, and what is wrong with it.

use super::*;

#[test]
fn a_listing_tells_the_good_from_the_bad() {
    let mut case = Case::new(2);
    case.append(5);
    case.checkpoint(2);
    let newest = case.checkpoint(4);
    for listing in [list(&case.dir()).unwrap(), verify(&case.dir()).unwrap()] {
        let sequences: Vec<u64> = listing
            .checkpoints
            .iter()
            .map(|line| line.sequence)
            .collect();
        assert_eq!(sequences, [4, 2]);
        assert!(
            listing
                .checkpoints
                .iter()
                .all(|line| line.problem.is_none() && line.generation.is_some()),
            "{listing:?}"
        );
        let log = &listing.log;
        assert_eq!(
            (log.first, log.last, log.problem.as_deref()),
            (Some(Case::at(1)), Some(Case::at(5)), None)
        );
        assert!(!log.segments.is_empty());
    }
    damage(&newest);
    for listing in [list(&case.dir()).unwrap(), verify(&case.dir()).unwrap()] {
        let bad: Vec<bool> = listing
            .checkpoints
            .iter()
            .map(|line| line.problem.is_some())
            .collect();
        assert_eq!(bad, [true, false]);
    }
}

/// Entries that set the status of a task, and one that deletes another: all but that need the schema that the first has.
fn one_schema() -> Case {
    let mut case = Case::new(2);
    for number in 1..=6 {
        let mut effects = Effects::default();
        let tasks = &mut effects.tables[TableId::Tasks as usize];
        match number {
            3 => tasks.delete = vec!["t001".to_owned()],
            _ => {
                let text = |text: String| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
                let fields = ["id", "status"].map(|name| (name, text(format!("{name}{number}"))));
                tasks.upserts = vec![RecordBatch::try_from_iter(fields).unwrap()];
            }
        }
        case.append_effects(effects);
    }
    case.log = None;
    case
}

#[test]
fn damage_names_the_entries_that_need_what_was_damaged_too() {
    let case = one_schema();
    let segments = list(&case.dir()).unwrap().log.segments;
    let [segment] = segments.as_slice() else {
        panic!("{segments:?}")
    };
    let mut bytes = fs::read(&segment.path).unwrap();
    bytes[128 + 64 + 10] ^= 1;
    fs::write(&segment.path, bytes).unwrap();
    let error = case.error().to_string();
    assert!(
        error.contains("sequences 1 to 1 are affected, and behind them 2 and 4 to 6"),
        "{error}"
    );
    for listing in [list(&case.dir()).unwrap(), verify(&case.dir()).unwrap()] {
        let problem = listing.log.problem.unwrap();
        assert!(
            problem.ends_with("these entries cannot be read: 1 to 2 and 4 to 6"),
            "{problem}"
        );
    }
    let lost = log::unreadable(&log::log_dir(case.path())).unwrap();
    assert_eq!(lost.ranges(), [(1, 2), (4, 6)]);
}

#[test]
fn the_entries_of_every_damaged_segment_are_named_and_not_only_those_of_the_first() {
    let mut case = Case::new(21);
    case.append(200);
    case.log = None;
    let segments = list(&case.dir()).unwrap().log.segments;
    let first = |at: usize| segments[at].first_sequence;
    assert!(segments.len() >= 5, "{segments:?}");
    for at in [1, 3] {
        fs::remove_file(&segments[at].path).unwrap();
    }
    let problem = verify(&case.dir()).unwrap().log.problem.unwrap();
    let said = format!(
        "{} to {} and {} to {}",
        first(1),
        first(2) - 1,
        first(3),
        first(4) - 1
    );
    assert!(problem.contains(&said), "{said}: {problem}");
}
