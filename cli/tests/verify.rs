//! Damage of every kind to files of either kind, and what `verify` says of it.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Host, publisher, state_in, with_tasks};
use sherwood_client::import::read_parquet;
use sherwood_client::verify::{Kind, Report, verify};
use sherwood_client::{Reader, TableId};
use sherwood_shared::footer;
use sherwood_shared::head::rule::HeadWord;
use sherwood_shared::layout::{CONSTANTS_BYTES, Constants, HEAD_AT};
use sherwood_shared::root::Root;
use sherwood_shared::state::State;

/// A snapshot file of several chunks a table and several parts of the file's history, whose
/// daemon is gone, and its state.
fn dead_snapshot(host: &Host) -> (PathBuf, State) {
    let state_dir = host.sample("state");
    let state = state_in(&state_dir);
    let mut daemon = publisher(&state_dir, &host.run_dir("run"), &state, Some(32768));
    for tasks in [10, 30, 20, 40] {
        daemon
            .publish(&with_tasks(&state, tasks))
            .expect("publishes");
    }
    (daemon.path().to_owned(), state)
}

/// The Arrow crate panics on some damaged schemas. That is caught; here it is kept quiet.
fn quiet_arrow() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let arrow = |place: &Location<'_>| place.file().contains("/arrow-");
            if !info.location().is_some_and(arrow) {
                usual(info);
            }
        }));
    });
}

fn checked(path: &Path, what: &str) -> Report {
    quiet_arrow();
    verify(path).unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// What the newest generation consists of.
struct Live {
    /// The header's constants and head, the root record, footers and indexes.
    structure: Vec<(u64, u64)>,
    /// Where each chunk begins, and the Arrow root's batch; where its values begin; its end.
    batches: Vec<(u64, u64, u64)>,
}

fn live(bytes: &[u8]) -> Live {
    let at = |offset: u64| usize::try_from(offset).expect("small");
    let word = |offset: usize| {
        u64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("eight bytes"))
    };
    let end = HeadWord::from_raw(word(HEAD_AT)).end_bytes();
    let root = Root::parse(&bytes[at(end)..]).expect("a root");
    let record = u64::from(u32::from_le_bytes(
        bytes[at(end) + 4..at(end) + 8]
            .try_into()
            .expect("four bytes"),
    ));
    let mut live = Live {
        structure: vec![
            (0, CONSTANTS_BYTES as u64 + 4),
            (HEAD_AT as u64, HEAD_AT as u64 + 8),
            (end, end + record),
        ],
        batches: Vec::new(),
    };
    let mut part = |start: u64, end: u64| {
        let footer = footer::parse(&bytes[at(start)..at(end)]).expect("a footer");
        let batches = footer.blocks.iter().map(|block| {
            let values = block.offset + u64::from(block.meta_bytes);
            (block.offset, values, block.end().expect("small"))
        });
        live.batches.extend(batches);
        live.batches.last().map_or(start, |last| last.2)
    };
    let root_footer = part(root.arrow_at, end);
    live.structure.push((root_footer, end));
    for of_table in root.tables.iter().flat_map(|table| &table.parts) {
        part(of_table.index_at, of_table.footer_end);
        live.structure
            .push((of_table.index_at, of_table.footer_end));
    }
    live
}

/// Calls `see` for one changed bit in each `step`th byte of `ranges`, changed back after.
fn flips(path: &Path, ranges: &[(u64, u64)], step: usize, mut see: impl FnMut(u64, &str)) {
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("is there");
    let mut random = 88_172_645_463_325_252_u64;
    for offset in ranges
        .iter()
        .flat_map(|&(start, end)| start..end)
        .step_by(step)
    {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).expect("read");
        let flipped = byte[0] ^ 1 << (random % 8);
        file.write_all_at(&[flipped], offset).expect("written");
        see(offset, &format!("bit {} of byte {offset}", random % 8));
        file.write_all_at(&byte, offset).expect("written");
    }
}

/// What a reader gets, or `None`: an error, which is as good.
fn read_back(path: &Path) -> Option<(State, u64)> {
    let read = || {
        let reader = Reader::open(path).ok()?;
        let snapshot = reader.snapshot().ok()?;
        for table in TableId::ALL {
            for batch in snapshot.table(table).batches() {
                batch.ok()?;
            }
        }
        Some((snapshot.to_state().ok()?, snapshot.generation()))
    };
    std::panic::catch_unwind(read).unwrap_or_default()
}

#[test]
fn a_good_file_is_good_alive_dead_and_in_the_hands_of_others() {
    let host = Host::new();
    let (path, _) = dead_snapshot(&host);
    let report = checked(&path, "dead");
    assert_eq!(report.findings, [], "{report:?}");
    assert_eq!(report.kind, Kind::Snapshot);
    assert_eq!(report.cluster_id.as_deref(), Some("sample"));
    assert_eq!((report.generation, report.rows), (Some(5), [5, 40, 20]));
    assert!(
        report.chunks > 4 && report.regions > 1,
        "not much of a test: {report:?}"
    );
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("set");
    assert_eq!(checked(&path, "writable").findings, []);
    let link = host.path("link");
    std::os::unix::fs::symlink(&path, &link).expect("made");
    assert_eq!(checked(&link, "a link").findings, []);

    let state_dir = host.path("state");
    let state = state_in(&state_dir);
    let daemon = publisher(&state_dir, &host.run_dir("live"), &state, None);
    assert_eq!(checked(daemon.path(), "live").findings, []);
    let parquet = checked(&state_dir.join("state_sample.parquet"), "parquet");
    assert_eq!((parquet.kind, parquet.rows), (Kind::Parquet, [5, 40, 20]));
    assert_eq!(parquet.findings, []);
    let nothing = State::empty("void");
    let daemon = publisher(&state_dir, &host.run_dir("live"), &nothing, None);
    assert_eq!(checked(daemon.path(), "empty").findings, []);
}

#[test]
fn a_flip_of_structure_is_found_or_changes_nothing_that_is_read() {
    let host = Host::new();
    let (path, state) = dead_snapshot(&host);
    let live = live(&fs::read(&path).expect("read"));
    let (mut found, mut harmless) = (0, 0);
    flips(&path, &live.structure, 11, |_, what| {
        if !checked(&path, what).is_good() {
            found += 1;
            return;
        }
        harmless += 1;
        let read = read_back(&path);
        assert!(
            read == Some((state.clone(), 5)),
            "{what} was not found, and reads {read:?}"
        );
    });
    assert!(found > harmless, "{found} found, {harmless} harmless");
    assert_eq!(checked(&path, "changed back").findings, []);
}

#[test]
fn a_flip_in_a_batch_is_found_or_leaves_a_valid_state() {
    let host = Host::new();
    let (path, _) = dead_snapshot(&host);
    let live = live(&fs::read(&path).expect("read"));
    let ranges: Vec<_> = live
        .batches
        .iter()
        .map(|&(start, _, end)| (start, end))
        .collect();
    let mut found = 0;
    flips(&path, &ranges, 41, |_, what| {
        if !checked(&path, what).is_good() {
            found += 1;
            return;
        }
        let (state, _) = read_back(&path).unwrap_or_else(|| panic!("{what}: good, not readable"));
        // Sorts and checks: what was good already is not changed.
        let again = State::new(state.cluster.clone(), state.tables.clone());
        assert_eq!(again.as_ref().ok(), Some(&state), "{what}");
    });
    assert!(found > 0, "keys and offsets were flipped as well");
}

#[test]
fn a_flip_of_what_is_not_live_is_harmless() {
    let host = Host::new();
    let (path, _) = dead_snapshot(&host);
    let bytes = fs::read(&path).expect("read");
    let mut used = live(&bytes);
    let batches = used.batches.iter().map(|&(start, _, end)| (start, end));
    used.structure.extend(batches);
    used.structure.push((640, 648)); // intact_from
    used.structure.sort_unstable();
    let mut free = Vec::new();
    let mut at = 0;
    for (start, end) in used.structure {
        free.push((at, start.max(at)));
        at = at.max(end);
    }
    let sparse: Vec<_> = free
        .iter()
        .flat_map(|&(start, end)| (start..end).step_by(97))
        .map(|at| (at, at + 1))
        .collect();
    assert!(sparse.len() > 100, "{sparse:?}");
    flips(&path, &sparse, 1, |_, what| {
        assert_eq!(checked(&path, what).findings, [], "{what}");
    });
}

#[test]
fn a_file_cut_anywhere_is_found() {
    let host = Host::new();
    let (path, _) = dead_snapshot(&host);
    let bytes = fs::read(&path).expect("read");
    let cut_path = host.path("cut");
    for cut in (0..300).chain((300..bytes.len()).step_by(509)) {
        fs::write(&cut_path, &bytes[..cut]).expect("written");
        let report = checked(&cut_path, &format!("cut at {cut}"));
        let newest = read_back(&cut_path);
        assert!(!report.is_good() || newest.is_some(), "cut at byte {cut}");
        // Behind the newest root may stand regions that nothing needs.
        if cut % 4096 != 0 {
            assert!(!report.is_good(), "cut at byte {cut}");
        }
    }
}

#[test]
fn a_parquet_file_flipped_or_cut_anywhere_is_found_or_reads_the_same() {
    let host = Host::new();
    let path = host.sample("state").join("state_sample.parquet");
    let bytes = fs::read(&path).expect("read");
    let len = bytes.len() as u64;
    let state = state_in(&host.path("state"));
    flips(&path, &[(0, len)], 17, |_, what| {
        // Whoever breaks the name of the seal leaves a file without one.
        if checked(&path, what).is_good() {
            assert_eq!(
                read_parquet(&path, None).ok(),
                Some(state.clone()),
                "{what}"
            );
        }
    });
    for cut in (0..bytes.len()).step_by(61) {
        fs::write(&path, &bytes[..cut]).expect("written");
        assert!(!checked(&path, "cut").is_good(), "cut at byte {cut}");
    }
}

/// What the daemon writes meanwhile is no damage: one generation is looked at.
#[test]
fn a_file_that_a_daemon_publishes_into_is_good_each_time() {
    let host = Host::new();
    let state_dir = host.sample_of("state", "sample", 400);
    let state = state_in(&state_dir);
    let mut daemon = publisher(&state_dir, &host.run_dir("run"), &state, Some(65536));
    let path = daemon.path().to_owned();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut tasks = 0;
            while !stop.load(Ordering::Relaxed) {
                tasks = (tasks + 37) % 400;
                daemon
                    .publish(&with_tasks(&state, tasks))
                    .expect("publishes");
                daemon.housekeep().expect("keeps house");
            }
        });
        // Also when a check fails, or the other thread would never end.
        let _stop = Stop(&stop);
        let mut generations = BTreeSet::new();
        while generations.len() < 40 {
            let report = checked(&path, "live");
            assert_eq!(report.findings, [], "generation {:?}", report.generation);
            generations.extend(report.generation);
        }
    });
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn the_program_prints_every_finding_with_its_place() {
    let host = Host::new();
    let (path, _) = dead_snapshot(&host);
    let name = path.to_str().expect("UTF-8");
    let good = host.run(&["verify", name]).ended(0);
    assert!(
        good.stdout
            .contains("good snapshot of cluster sample, generation 5"),
        "{good:?}"
    );
    assert_eq!(good.stderr, "");
    let live = live(&fs::read(&path).expect("read"));
    let file = fs::File::options()
        .write(true)
        .open(&path)
        .expect("is there");
    for &(_, values, _) in &live.batches[1..3] {
        // Offsets of the keys, among others.
        file.write_all_at(&[0xff; 256], values).expect("written");
    }
    let damaged = host.run(&["verify", name]).ended(1);
    assert_eq!(damaged.stderr, "", "{damaged:?}");
    for (start, _, _) in &live.batches[1..3] {
        let place = format!("byte {start}: ");
        assert!(damaged.stdout.contains(&place), "{place} in {damaged:?}");
    }
    assert!(damaged.stdout.ends_with("findings\n"), "{damaged:?}");
    fs::write(&path, "something else entirely").expect("written");
    host.run(&["verify", name]).ended(1);
    fs::write(&path, "").expect("written");
    let empty = host.run(&["verify", name]).ended(1);
    assert!(empty.stdout.contains("empty"), "{empty:?}");
}

#[test]
fn every_bit_of_the_constants_counts() {
    let host = Host::new();
    let (path, _) = dead_snapshot(&host);
    let mut bytes = fs::read(&path).expect("read");
    let constants = bytes.first_chunk().expect("long enough");
    assert!(Constants::from_bytes(constants).is_ok());
    for bit in 0..(CONSTANTS_BYTES + 4) * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bytes).expect("written");
        assert!(!checked(&path, "flipped").is_good(), "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

/// A wrong fact in the newest root, and what is to be said of it.
type Lie = (&'static str, fn(&mut Root), &'static str);

/// Each under a good checksum, so that only the check of that fact can find it.
#[test]
fn a_root_that_lies_about_one_thing_is_found_out() {
    const LIES: &[Lie] = &[
        (
            "generation",
            |root| root.generation += 1,
            "the head is of a generation that ends in 5",
        ),
        (
            "generation, high half",
            |root| root.generation += 1 << 32,
            "does not say what the root",
        ),
        (
            "published_at_ms",
            |root| root.published_at_ms += 1,
            "does not say what the root",
        ),
        (
            "state_dir",
            |root| root.state_dir.inode += 1,
            "does not say what the root",
        ),
        (
            "schema_version",
            |root| root.schema_version = 99,
            "schema version 99",
        ),
        ("arrow_at", |root| root.arrow_at -= 64, "batch at byte"),
        (
            "arrow_at, askew",
            |root| root.arrow_at += 1,
            "multiple of 64",
        ),
        (
            "regions, order",
            |root| root.regions.reverse(),
            "do not ascend",
        ),
        (
            "regions, one twice",
            |root| root.regions[1] = root.regions[0],
            "does not name",
        ),
        (
            "regions, outside",
            |root| *root.regions.last_mut().expect("one") = 9999,
            "region 9999",
        ),
        ("live_bytes", |root| root.live_bytes += 64, "live bytes"),
        (
            "rows of a table",
            |root| root.tables[1].rows += 1,
            "and the table 41",
        ),
        (
            "rows of a part",
            |root| root.tables[1].parts[0].rows += 1,
            "and the root says 41",
        ),
        (
            "chunks",
            |root| root.tables[1].parts[0].chunks -= 1,
            "the footer of part 0 of tasks names",
        ),
        (
            "first_key",
            |root| root.tables[1].parts[0].first_key = "task-000000000~".into(),
            "and the root says",
        ),
        (
            "footer_end",
            |root| root.tables[1].parts[0].footer_end -= 64,
            "no footer of part 0 of tasks",
        ),
        (
            "index_at",
            |root| root.tables[1].parts[0].index_at += 64,
            "chunk index of part 0 of tasks",
        ),
        (
            "index_at, behind",
            |root| root.tables[1].parts[0].index_at += 1 << 40,
            "ends before it begins",
        ),
        (
            "the same part twice",
            |root| root.tables[0].parts = root.tables[1].parts.clone(),
            "overlap",
        ),
    ];
    let host = Host::new();
    let (path, _) = dead_snapshot(&host);
    let good = fs::read(&path).expect("read");
    let head: [u8; 8] = good[HEAD_AT..HEAD_AT + 8].try_into().expect("eight bytes");
    let end = HeadWord::from_raw(u64::from_le_bytes(head)).end_bytes();
    let end = usize::try_from(end).expect("small");
    for (what, lie, said) in LIES {
        let mut root = Root::parse(&good[end..]).expect("a root");
        lie(&mut root);
        let mut record = Vec::new();
        root.append(&mut record);
        let mut bytes = good.clone();
        bytes[end..end + record.len()].copy_from_slice(&record);
        fs::write(&path, &bytes).expect("written");
        let findings = checked(&path, what).findings;
        let found = findings.iter().any(|finding| finding.what.contains(said));
        assert!(found, "{what}: {findings:?}");
    }
}

/// A daemon that publishes rows in the wrong order writes a file whose every part is whole.
#[test]
fn keys_out_of_order_are_found_within_chunks_and_between_them() {
    let host = Host::new();
    let state_dir = host.sample("state");
    let good = state_in(&state_dir);
    for order in [vec![0, 2, 1, 3], vec![0, 1, 1, 2]] {
        for chunk_bytes in [None, Some(32768)] {
            let mut state = good.clone();
            let rows: Vec<_> = order
                .iter()
                .map(|&row| state.tables[2].slice(row, 1))
                .collect();
            let schema = state.tables[2].schema();
            state.tables[2] = arrow_select::concat::concat_batches(&schema, &rows).expect("fits");
            let daemon = publisher(&state_dir, &host.run_dir("run"), &state, chunk_bytes);
            let findings = checked(daemon.path(), "out of order").findings;
            let said = ["comes after", "repeats the cid"];
            let found = findings
                .iter()
                .any(|finding| said.iter().any(|s| finding.what.contains(s)));
            assert!(found, "{order:?} {chunk_bytes:?}: {findings:?}");
        }
    }
}
