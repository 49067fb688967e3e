//! Recovery against the states that the entries make one by one, and every way in which files may be missing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::{Field, Schema};
use sherwood_client::Snapshot;
use sherwood_client::import::{read_parquet, to_parquet_bytes, write_parquet_atomic};
use sherwood_client::locate::{ClusterId, StateDir};
use sherwood_shared::schema::TableId;
use sherwood_shared::state::State;

use super::tools::{list, restore, salvage, verify};
use super::*;
use crate::apply::apply;
use crate::checkpoint::{CheckpointError, Free};
use crate::entry::{Effects, Entry, Outcome, Verdict};
use crate::log::{Log, LogError, Options, RealDisk};
use crate::outcomes::Outcomes;

mod damage;
mod last_record;
mod listing;
mod public;
mod restore;
mod salvage;
mod start;

/// A state directory, and the state after each entry in it.
struct Case {
    tmp: tempfile::TempDir,
    /// By sequence; the first is what the log began with.
    states: Vec<State>,
    log: Option<Log>,
    seed: u64,
}

impl Case {
    /// With a log and a checkpoint of position 0.
    fn new(seed: u64) -> Self {
        let mut case = Self {
            tmp: tempfile::tempdir().unwrap(),
            states: vec![crate::checkpoint::tests::state(0)],
            log: None,
            seed,
        };
        case.open_log(0);
        case.checkpoint(0);
        case
    }
    fn path(&self) -> &Path {
        self.tmp.path()
    }
    fn dir(&self) -> StateDir {
        StateDir::open(self.path()).unwrap()
    }
    fn open_log(&mut self, position: u64) {
        let options = Options {
            position,
            segment_bytes: 4096,
            ..Options::default()
        };
        let (log, _) = Log::open(&log::log_dir(self.path()), options, Arc::new(RealDisk)).unwrap();
        self.log = Some(log);
    }
    fn checkpoints(&self) -> Checkpoints {
        Checkpoints::open(&self.dir(), &ClusterId::new("c").unwrap(), 0o644).unwrap()
    }
    fn at(sequence: usize) -> Position {
        let sequence = sequence as u64;
        Position {
            sequence,
            generation: if sequence == 0 { 0 } else { 100 + 2 * sequence },
        }
    }
    /// When an entry was committed.
    fn time(sequence: usize) -> i64 {
        1000 * i64::try_from(sequence).unwrap()
    }
    /// A private checkpoint of the state after entry `sequence`, made public.
    fn checkpoint(&self, sequence: usize) -> PathBuf {
        let checkpoints = self.checkpoints();
        let snapshot = Snapshot::from_state(&self.states[sequence]).unwrap();
        let written = checkpoints
            .write(&snapshot, Self::at(sequence), &mut Free)
            .unwrap();
        checkpoints.publish(&written.path, &mut Free).unwrap();
        checkpoints.prune(&mut Free).unwrap();
        written.path
    }
    fn below(&mut self, end: u64) -> u64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % end
    }
    /// Logs some more entries.
    fn append(&mut self, count: usize) {
        for _ in 0..count {
            let effects = self.effects();
            self.append_effects(effects);
        }
    }
    fn append_effects(&mut self, effects: Effects) {
        let position = Self::at(self.states.len());
        let entry = Entry {
            sequence: position.sequence,
            generation: position.generation,
            committed_at_ms: Self::time(self.states.len()),
            effects,
            outcomes: vec![Outcome {
                id: Arc::from(format!("id-{}", position.sequence)),
                verdict: Verdict::Done { task: None },
                generation: position.generation,
            }],
        };
        let mut next = self.states.last().unwrap().clone();
        apply(&entry.effects, &mut next).unwrap();
        self.states.push(next);
        self.log.as_mut().unwrap().append(&entry).unwrap();
    }
    /// Random upserts of a few columns, new ones among them, and deletions.
    fn effects(&mut self) -> Effects {
        let mut effects = Effects::default();
        let mut rows: BTreeMap<String, Option<bool>> = BTreeMap::new();
        for _ in 0..1 + self.below(3) {
            let key = format!("t{:03}", self.below(60));
            let change = (self.below(4) > 0).then(|| self.below(2) == 0);
            rows.insert(key, change);
        }
        for wide in [false, true] {
            let keys = rows
                .iter()
                .filter(|(_, change)| **change == Some(wide))
                .map(|(key, _)| key.as_str());
            let keys: Vec<&str> = keys.collect();
            if keys.is_empty() {
                continue;
            }
            let number = i64::try_from(self.below(1000)).unwrap();
            let text =
                |text: String| -> ArrayRef { Arc::new(StringArray::from(vec![text; keys.len()])) };
            let mut columns = vec![("status", text(format!("s{number}")))];
            if wide {
                columns.push(("assigned_to", text(format!("n{number}"))));
                columns.push((
                    "theirs",
                    Arc::new(Int64Array::from(vec![number; keys.len()])),
                ));
            }
            let mut fields = vec![Field::new("id", arrow_schema::DataType::Utf8, false)];
            fields.extend(
                columns
                    .iter()
                    .map(|(name, column)| Field::new(*name, column.data_type().clone(), true)),
            );
            let mut arrays: Vec<ArrayRef> = vec![Arc::new(StringArray::from(keys.clone()))];
            arrays.extend(columns.into_iter().map(|(_, column)| column));
            let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
            effects.tables[TableId::Tasks as usize].upserts.push(batch);
        }
        let gone = rows.iter().filter(|(_, change)| change.is_none());
        effects.tables[TableId::Tasks as usize].delete = gone.map(|(key, _)| key.clone()).collect();
        effects
    }
    fn recover(&self) -> Result<Recovered, RecoverError> {
        let before = contents(self.path());
        let recovered = recover(&self.dir(), None);
        assert!(
            before == contents(self.path()),
            "B1: recovery changed a file"
        );
        recovered
    }
    fn error(&self) -> RecoverError {
        match self.recover() {
            Err(error) => error,
            Ok(recovered) => panic!("recovered the state after {:?}", recovered.position),
        }
    }
}

/// Every file below a directory.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(contents(&path)),
            false => drop(found.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    found
}

fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    // A new file: the old one may have other names.
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}
