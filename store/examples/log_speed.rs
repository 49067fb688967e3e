//! What the log costs on this machine: bytes and times of single-row entries, and an append beside a bare sync.
//!
//!     cargo run --release -p sherwood-store --example log_speed -- DIRECTORY

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use arrow_array::{ArrayRef, RecordBatch, StringArray, TimestampMillisecondArray, new_null_array};
use arrow_schema::Schema;
use sherwood_shared::schema::{TableId, table_schema};
use sherwood_store::log::faults::NoSync;
use sherwood_store::log::{Log, Options, read};
use sherwood_store::{Effects, Entry, Outcome, TableEffects, Verdict};

fn put(key: &str) -> RecordBatch {
    let schema = table_schema(TableId::Tasks);
    let column = |field: &arrow_schema::FieldRef| -> ArrayRef {
        match field.name().as_str() {
            "id" => Arc::new(StringArray::from(vec![key])),
            "type" => Arc::new(StringArray::from(vec!["transcode"])),
            "status" => Arc::new(StringArray::from(vec!["pending"])),
            "input_cid" => Arc::new(StringArray::from(vec![
                "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi",
            ])),
            "created_at" | "updated_at" => {
                Arc::new(TimestampMillisecondArray::from(vec![1_767_225_600_000]))
            }
            _ => new_null_array(field.data_type(), 1),
        }
    };
    let columns = schema.fields().iter().map(column).collect();
    RecordBatch::try_new(Arc::clone(&schema), columns).expect("the schema's columns")
}

fn patch(key: &str) -> RecordBatch {
    let schema = table_schema(TableId::Tasks);
    let fields = vec![schema.field(0).clone(), schema.field(2).clone()];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![key])),
        Arc::new(StringArray::from(vec!["running"])),
    ];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("two columns")
}

fn entry(sequence: u64, rows: fn(&str) -> RecordBatch) -> Entry {
    let tasks = TableEffects {
        upserts: vec![rows(&format!("task-{:07}", sequence % 10_000))],
        delete: vec![],
    };
    Entry {
        sequence,
        generation: sequence,
        committed_at_ms: 1_767_225_600_000,
        effects: Effects {
            cluster: None,
            tables: [TableEffects::default(), tasks, TableEffects::default()],
        },
        outcomes: vec![Outcome {
            id: Arc::from(format!("4b1f5d0e-8a7c-4a53-9b6e-{sequence:012}")),
            verdict: Verdict::Done { task: None },
            generation: sequence,
        }],
    }
}

fn main() {
    let dir = std::env::args()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    for (name, rows) in [("put", put as fn(&str) -> RecordBatch), ("patch", patch)] {
        let log_dir = dir.join(format!("sherwood-log-speed-{name}"));
        let _there_or_not = std::fs::remove_dir_all(&log_dir);
        let count = 100_000_u64;
        let disk = Arc::new(NoSync);
        let (mut log, _) = Log::open(&log_dir, Options::default(), disk).expect("opens");
        let entries: Vec<Entry> = (1..=count).map(|sequence| entry(sequence, rows)).collect();
        let begun = Instant::now();
        for entry in &entries {
            log.append(entry).expect("appends");
        }
        let appended = begun.elapsed();
        let report = sherwood_store::log::verify(&log_dir).expect("lists");
        let used: u64 = report
            .segments
            .iter()
            .map(|segment| segment.used_bytes)
            .sum();
        let begun = Instant::now();
        let found = read(&log_dir, 1)
            .expect("reads")
            .filter(Result::is_ok)
            .count();
        let decoded = begun.elapsed();
        println!(
            "{name}: {} bytes each; encode and write {:.2} us; read and decode {:.2} us, {found} in {:.3} s",
            used / count,
            appended.as_secs_f64() * 1e6 / count as f64,
            decoded.as_secs_f64() * 1e6 / count as f64,
            decoded.as_secs_f64(),
        );
        std::fs::remove_dir_all(&log_dir).expect("goes");
    }
    let log_dir = dir.join("sherwood-log-speed-sync");
    let _there_or_not = std::fs::remove_dir_all(&log_dir);
    let (mut log, _) = Log::open_real(&log_dir, Options::default()).expect("opens");
    let path = dir.join("sherwood-log-speed-bare");
    std::fs::write(&path, vec![0; 1 << 20]).expect("writes");
    let bare = File::options().write(true).open(&path).expect("opens");
    bare.sync_all().expect("syncs");
    let (mut appends, mut syncs) = (Vec::new(), Vec::new());
    for sequence in 1..=500 {
        let entry = entry(sequence, put);
        let begun = Instant::now();
        log.append(&entry).expect("appends");
        appends.push(begun.elapsed());
        let begun = Instant::now();
        bare.write_at(&[7; 512], sequence * 512).expect("writes");
        bare.sync_data().expect("syncs");
        syncs.push(begun.elapsed());
    }
    appends.sort();
    syncs.sort();
    println!(
        "append {:?}, bare overwrite of 512 bytes and fdatasync {:?} (medians of 500, in turn)",
        appends[250], syncs[250]
    );
    std::fs::remove_dir_all(&log_dir).expect("goes");
    std::fs::remove_file(&path).expect("goes");
}
