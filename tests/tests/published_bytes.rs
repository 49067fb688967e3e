//! What stands in the file after publishes, read by the byte tables and not by the client.

use std::fs;
use std::path::Path;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use sherwood_client::locate::{ClusterId, MAX_CLUSTER_ID_BYTES};
use sherwood_daemon::publish::{Options, Publisher};
use sherwood_shared::footer;
use sherwood_shared::head::rule::HeadWord;
use sherwood_shared::layout::{Constants, HEAD_AT};
use sherwood_shared::root::Root;
use sherwood_shared::state::State;
use sherwood_tests::rows::{Model, state};

const REGION: u64 = 32 << 10;

fn options(run_dir: &Path) -> Options {
    Options {
        run_dir: run_dir.to_owned(),
        cluster_id: "torture".to_owned(),
        state_dir: (1, 2),
        history: [7; 16],
        region_bytes: Some(REGION),
        chunk_bytes: Some(1024),
        mode: 0o644,
    }
}

fn root(file: &[u8]) -> Root {
    let head = file[HEAD_AT..HEAD_AT + 8].try_into().expect("eight bytes");
    let end = HeadWord::from_raw(u64::from_le_bytes(head)).end_bytes();
    Root::parse(&file[usize::try_from(end).expect("fits")..]).expect("a root")
}

/// Arrow C++ refuses a footer that lists a block behind itself, so this is what makes a
/// snapshot an Arrow file for everybody (F1).
#[test]
fn every_footer_stands_above_the_chunks_it_lists_however_often_regions_were_reused() {
    let run_dir = tempfile::tempdir().expect("a directory");
    let mut rng = SmallRng::seed_from_u64(11);
    let key = |number: u32| format!("cid-{number:05}");
    let mut model: Model = (0..1500).map(|number| (key(number), 0)).collect();
    let mut publisher =
        Publisher::start(options(run_dir.path()), &state(&model), 1).expect("starts");
    let mut held = None;
    let mut most_used = 0;
    for version in 1..=1500 {
        // Grows, shrinks and churns in turn.
        for _ in 0..rng.random_range(1..20) {
            let key = key(rng.random_range(0..3000));
            if rng.random_range(0..1500) < version {
                model.remove(&key);
            } else {
                model.insert(key, version);
            }
        }
        publisher.publish(&state(&model)).expect("publishes");
        publisher.housekeep().expect("keeps house");
        if version % 100 == 50 {
            held = Some(publisher.snapshot().clone());
        } else if version % 100 == 70 {
            held = None;
        }
        most_used = most_used.max(publisher.usage().used_bytes);
        let file = fs::read(publisher.path()).expect("reads");
        for table in root(&file).tables {
            for part in table.parts {
                let cut = &file[..usize::try_from(part.footer_end).expect("fits")];
                let footer = footer::parse(cut).expect("a footer");
                assert_eq!(
                    footer.blocks.len(),
                    usize::try_from(part.chunks).expect("fits")
                );
                for block in footer.blocks {
                    let end = block.end().expect("a block");
                    assert!(
                        end <= part.index_at,
                        "version {version}: a block ends at {end}, and its footer's index begins at {}",
                        part.index_at
                    );
                }
            }
        }
    }
    drop(held);
    let usage = publisher.usage();
    assert!(
        usage.file_bytes < 2 * most_used,
        "at most {most_used} bytes were in use: {usage:?}"
    );
}

/// A cut id would name another cluster, and one cut inside a character no cluster at all.
#[test]
fn the_longest_cluster_id_there_may_be_stands_whole_in_the_header() {
    let most = MAX_CLUSTER_ID_BYTES / "ü".len();
    let id = ClusterId::new(&"ü".repeat(most)).expect("a cluster id");
    let run_dir = tempfile::tempdir().expect("a directory");
    let options = Options {
        cluster_id: id.to_string(),
        ..options(run_dir.path())
    };
    let publisher = Publisher::start(options, &State::empty(id.as_str()), 1).expect("starts");
    let file = fs::read(publisher.path()).expect("reads");
    let constants = file.first_chunk().expect("a header");
    let constants = Constants::from_bytes(constants).expect("the constants");
    assert_eq!(constants.cluster_id, id.as_str());
}
