//! The engine with the ends that it has in the daemon: what was answered is what comes back.

use std::collections::BTreeMap;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::Value;
use sherwood_client::locate::{ClusterId, StateDir};
use sherwood_shared::state::State;
use sherwood_shared::transaction::OutcomeKind;
use sherwood_store::checkpoint::{Checkpoints, Free, Position};
use sherwood_store::log::{Log, Options, log_dir};
use sherwood_store::recover::recover;
use sherwood_store::{Outcomes, Verdict};

use super::super::*;
use super::doubles::*;
use super::model::{Model, NOW, TABLES, a_transaction};
use crate::publish::Publisher;

type RealEngine = Engine<Publisher, Log, Outcomes>;

fn engine_in(dir: &StateDir, run_dir: &std::path::Path, state: &State) -> RealEngine {
    let (log, opened) = Log::open_real(&log_dir(dir.path()), Options::default()).expect("opens");
    let options = crate::publish::Options {
        run_dir: run_dir.to_owned(),
        cluster_id: "c".to_owned(),
        state_dir: dir.identity(),
        history: [0; 16],
        region_bytes: None,
        chunk_bytes: None,
        mode: 0o600,
    };
    let publisher = Publisher::start(options, state, 1).expect("starts");
    Engine::new(publisher, log, opened.outcomes, Arc::new(|| NOW))
}

fn position(engine: &mut RealEngine) -> Position {
    Position {
        sequence: engine.journal().next_sequence() - 1,
        generation: engine.publisher().generation(),
    }
}

#[test]
fn what_a_thousand_random_transactions_did_comes_back_from_the_log() {
    for with_checkpoint in [false, true] {
        let temp = tempfile::tempdir().expect("a directory");
        let run_dir = tempfile::tempdir().expect("a directory");
        let dir = StateDir::open(temp.path()).expect("opens");
        let cluster = ClusterId::new("c").expect("an id");
        let mut engine = engine_in(&dir, run_dir.path(), &with_strange_columns());
        let checkpoints = Checkpoints::open(&dir, &cluster, 0o600).expect("opens");
        let snapshot = Stage::snapshot(engine.publisher()).unwrap();
        let first = position(&mut engine);
        checkpoints
            .write(&snapshot, first, &mut Free)
            .expect("a checkpoint");
        let mut model = Model::default();
        let mut runner = TestRunner::deterministic();
        let transactions = a_transaction();
        let mut asked = 0;
        while asked < 1_000 {
            let group: Vec<Value> = (0..1 + asked % 17)
                .map(|_| transactions.new_tree(&mut runner).expect("one").current())
                .collect();
            let answers =
                submit(&mut engine, group.iter().map(transaction).collect()).expect("not fatal");
            for (one, answer) in group.iter().zip(&answers) {
                let is_done = answer.outcome == OutcomeKind::Done;
                assert_eq!(is_done, model.transact(one), "{one}: {answer:?}");
            }
            if with_checkpoint && asked < 500 && asked + group.len() >= 500 {
                let snapshot = Stage::snapshot(engine.publisher()).unwrap();
                let here = position(&mut engine);
                checkpoints
                    .write(&snapshot, here, &mut Free)
                    .expect("a checkpoint");
            }
            asked += group.len();
        }
        let last = position(&mut engine);
        let published = Stage::snapshot(engine.publisher())
            .unwrap()
            .to_state()
            .expect("reads");
        drop(engine);

        let recovered = recover(&dir, Some(&cluster)).expect("recovers");
        assert_eq!(recovered.position, last);
        for table in TABLES {
            let expected = model.rows(table).iter();
            let expected = expected.map(|(key, row)| (key.clone(), Value::Object(row.clone())));
            let expected: BTreeMap<_, _> = expected.collect();
            assert_eq!(rows_of(&published, table), expected, "published");
            assert_eq!(rows_of(&recovered.state, table), expected, "recovered");
        }
        assert_eq!(recovered.state.cluster, published.cluster);
        let outcomes = Outcomes::load(&log_dir(dir.path())).expect("reads");
        assert_eq!(outcomes.len(), model.ids.len());
        for (id, done) in &model.ids {
            let found = outcomes.get(id).expect("remembered");
            let is_done = matches!(found.verdict, Verdict::Done { .. });
            assert_eq!(is_done, *done, "{id}: {found:?}");
        }
    }
}
