//! Parquet states: what is written is read back, what is damaged is refused.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use common::{document, parquet, small_state};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use sherwood_client::import::{
    ImportError, VERSION_KEY, read_parquet, read_parquet_bytes, to_parquet_bytes, write_parquet,
    write_parquet_atomic,
};
use sherwood_shared::document::to_document;
use sherwood_shared::schema::{SCHEMA_VERSION, document_schema};
use sherwood_shared::state::{State, StateError};

fn read(bytes: Vec<u8>) -> Result<State, ImportError> {
    read_parquet_bytes(bytes, Path::new("state_c.parquet"), Some("c"))
}

/// An error and all its causes, as the edge prints them.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[test]
fn a_written_state_reads_back_equal_from_a_file_and_from_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state_c.parquet");
    for state in [State::empty("c"), small_state()] {
        write_parquet(&state, &path).unwrap();
        assert_eq!(read_parquet(&path, None).unwrap(), state);
        assert_eq!(read(to_parquet_bytes(&state).unwrap()).unwrap(), state);
        assert_eq!(
            to_parquet_bytes(&state).unwrap(),
            fs::read(&path).unwrap(),
            "equal states, equal bytes"
        );
    }
}

#[test]
fn an_atomic_write_replaces_the_file_and_leaves_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state_c.parquet");
    fs::write(&path, "something older").unwrap();
    write_parquet_atomic(&small_state(), &path).unwrap();
    assert_eq!(read_parquet(&path, Some("c")).unwrap(), small_state());
    let names: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["state_c.parquet"]);

    // A directory cannot be replaced by a file: the write fails and cleans up.
    let blocked = directory.path().join("blocked");
    fs::create_dir(&blocked).unwrap();
    let error = write_parquet_atomic(&small_state(), &blocked).unwrap_err();
    assert!(
        error.to_string().contains("cannot replace") && error.to_string().contains("blocked"),
        "{error}"
    );
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
}

#[test]
fn another_reader_of_arrow_sees_the_documents_schema() {
    let bytes = bytes::Bytes::from(to_parquet_bytes(&State::empty("c")).unwrap());
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    let schema = Schema::new(reader.schema().fields().clone());
    assert_eq!(without_names(&schema), without_names(&document_schema()));
    let names: Vec<String> = reader
        .parquet_schema()
        .columns()
        .iter()
        .map(|column| column.path().string())
        .collect();
    assert!(
        names.contains(&"nodes.list.element.peers.list.element".to_owned()),
        "{names:?}"
    );
}

/// List items are `item` in Arrow's world and `element` in Parquet's: the same type.
fn without_names(schema: &Schema) -> String {
    format!("{schema:?}")
        .replace("\"element\"", "\"item\"")
        .replace("name: \"item\", ", "")
}

#[test]
fn several_row_groups_and_pages_make_one_state() {
    let state = small_state();
    let document = to_document(&state).unwrap();
    let small = WriterProperties::builder()
        .set_data_page_size_limit(1)
        .set_write_batch_size(1)
        .set_dictionary_enabled(false)
        .build();
    let empty = document.slice(0, 0);
    for batches in [
        [&document, &empty, &empty],
        [&empty, &document, &empty],
        [&empty, &empty, &document],
    ] {
        let bytes = parquet(&batches, small.clone());
        assert_eq!(read(bytes).unwrap(), state);
    }
}

#[test]
fn a_state_cut_at_any_byte_is_an_error() {
    for (name, bytes) in files() {
        for length in 0..bytes.len() {
            let error = match read(bytes[..length].to_vec()) {
                Ok(_) => panic!("{name}: cut at byte {length} and yet a state"),
                Err(error) => error,
            };
            assert!(
                matches!(error, ImportError::CutShort { .. }),
                "{name}: cut at {length}: {error:?}"
            );
        }
    }
}

/// Of our own files none may be misread; others' have no checksum, and may only not bring us down.
#[test]
fn no_flipped_bit_is_misread_or_brings_the_reader_down() {
    std::panic::set_hook(Box::new(|_| {}));
    for (name, bytes) in files() {
        let whole = read(bytes.clone()).unwrap();
        let workers = 4;
        let try_every = &|first: usize| {
            let mut refused = 0;
            for bit in (first..bytes.len() * 8).step_by(workers) {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                match read(flipped) {
                    Ok(state) if name == "ours" => {
                        assert_eq!(state, whole, "bit {} of byte {}", bit % 8, bit / 8);
                    }
                    Ok(_) => {}
                    Err(_) => refused += 1,
                }
            }
            refused
        };
        let refused: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..workers)
                .map(|first| scope.spawn(move || try_every(first)))
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().expect("a flipped bit got through"))
                .sum()
        });
        let bits = bytes.len() * 8;
        assert!(
            refused > bits / 8,
            "{name}: only {refused} of {bits} were refused"
        );
    }
    drop(std::panic::take_hook());
}

/// The same state as we write it, and as other writers do: uncompressed, with dictionaries, with data pages 2.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let document = to_document(&small_state()).unwrap();
    // Without what can be left out, so that few bits are.
    let lean = || {
        WriterProperties::builder()
            .set_statistics_enabled(parquet::file::properties::EnabledStatistics::None)
            .set_offset_index_disabled(true)
    };
    let plain = lean().build();
    let snappy = lean()
        .set_compression(parquet::basic::Compression::SNAPPY)
        .set_writer_version(parquet::file::properties::WriterVersion::PARQUET_2_0)
        .build();
    vec![
        ("ours", to_parquet_bytes(&small_state()).unwrap()),
        ("plain", parquet(&[&document], plain)),
        ("snappy, pages 2", parquet(&[&document], snappy)),
    ]
}

/// Seeded noise, behind and between what makes a file look like Parquet.
#[test]
fn noise_is_an_error() {
    std::panic::set_hook(Box::new(|_| {}));
    let good = to_parquet_bytes(&small_state()).unwrap();
    let mut seed = 1_u64;
    let mut next = || {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap()
    };
    for round in 0..3_000 {
        let mut bytes = good.clone();
        match round % 3 {
            0 => {
                // A run of noise in a file without a seal.
                let start = next() % bytes.len();
                let end = (start + 1 + next() % 16).min(bytes.len());
                bytes[start..end].fill_with(|| next().to_le_bytes()[0]);
                let key = bytes.windows(8).position(|window| window == b"sherwood");
                bytes[key.unwrap_or(4)] = b'S';
            }
            1 => {
                bytes = (0..next() % 200).map(|_| next().to_le_bytes()[0]).collect();
            }
            _ => {
                // A footer of noise, of the right length.
                let length = next() % 100;
                bytes = b"PAR1".to_vec();
                bytes.extend((0..length).map(|_| next().to_le_bytes()[0]));
                bytes.extend(u32::try_from(length).unwrap().to_le_bytes());
                bytes.extend(b"PAR1");
            }
        }
        let result = read(bytes.clone());
        assert!(
            round % 3 == 0 || result.is_err(),
            "round {round}: {bytes:?} is a state"
        );
    }
    drop(std::panic::take_hook());
}

#[test]
fn every_refusal_names_the_file_the_place_and_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let good = to_parquet_bytes(&small_state()).unwrap();
    fs::write(path("empty"), "").unwrap();
    fs::write(path("text"), "hello, this is text").unwrap();
    fs::write(path("short"), &good[..good.len() / 2]).unwrap();
    let mut damaged = good.clone();
    damaged[100] ^= 1;
    fs::write(path("damaged"), &damaged).unwrap();
    fs::write(path("good"), &good).unwrap();
    let one = |name: &str, value: &str| {
        let column: ArrayRef = Arc::new(StringArray::from(vec![value]));
        RecordBatch::try_from_iter([(name, column)]).unwrap()
    };
    let default = || WriterProperties::builder().build();
    fs::write(path("other"), parquet(&[&one("a", "b")], default())).unwrap();
    fs::write(path("wrong"), parquet(&[&one("nodes", "b")], default())).unwrap();
    let document = document();
    fs::write(path("none"), parquet(&[&document.slice(0, 0)], default())).unwrap();
    fs::write(path("two"), parquet(&[&document, &document], default())).unwrap();
    for (name, version) in [
        ("newer", (SCHEMA_VERSION + 1).to_string()),
        ("odd", "one".to_owned()),
    ] {
        let pair = KeyValue::new(VERSION_KEY.to_owned(), version);
        let stamped = WriterProperties::builder()
            .set_key_value_metadata(Some(vec![pair]))
            .build();
        fs::write(path(name), parquet(&[&document], stamped)).unwrap();
    }

    let cases: Vec<(&str, &str, &[&str])> = vec![
        ("absent", "c", &["there is no file"]),
        (".", "c", &["not a regular file"]),
        ("good/x", "c", &["cannot read"]),
        ("empty", "c", &["cut short at byte 0", "try again"]),
        ("text", "c", &["not a Parquet file", "check the path"]),
        ("short", "c", &["cut short", "restore"]),
        ("damaged", "c", &["damaged", "checksum", "restore"]),
        ("good", "other", &["cluster \"c\"", "\"other\"", "check"]),
        ("other", "c", &["not a cluster state", "columns found: a"]),
        ("wrong", "c", &["column nodes", "Utf8", "a list of structs"]),
        ("none", "c", &["0 rows", "write one row"]),
        ("two", "c", &["2 rows"]),
        ("newer", "c", &["newer Sherwood", "version 3", "upgrade"]),
        ("odd", "c", &["sherwood.schema_version", "\"one\""]),
    ];
    for (name, cluster, words) in cases {
        let path = path(name);
        let error = read_parquet(&path, Some(cluster)).expect_err(name);
        let text = chain(&error);
        assert!(
            text.contains(path.file_name().map_or(".", |n| n.to_str().unwrap())),
            "{text}"
        );
        for word in words {
            assert!(
                text.contains(word),
                "{name}: {word:?} is missing in: {text}"
            );
        }
    }
}

#[test]
fn damage_that_only_the_pages_show_is_placed_in_its_column() {
    let document = document();
    let bytes = parquet(&[&document], WriterProperties::builder().build());
    // The first page of the first column: its header's first byte.
    let mut damaged = bytes;
    damaged[4] = 0xff;
    let error = read(damaged).unwrap_err();
    let text = chain(&error);
    assert!(text.contains("damaged in column cluster_id"), "{text}");
}

/// Tools that copy keys they do not know into files they rewrite must not have those condemned.
#[test]
fn a_checksum_that_another_writer_copied_does_not_count() {
    let pairs = vec![
        KeyValue::new(VERSION_KEY.to_owned(), "1".to_owned()),
        KeyValue::new("sherwood.crc32c".to_owned(), "12345678".to_owned()),
    ];
    let theirs = WriterProperties::builder()
        .set_created_by("parquet-cpp-arrow version 26.0.1".to_owned())
        .set_key_value_metadata(Some(pairs))
        .build();
    let bytes = parquet(&[&to_document(&small_state()).unwrap()], theirs);
    assert_eq!(read(bytes).unwrap(), small_state());
}

#[test]
fn a_footer_that_claims_the_impossible_is_not_believed() {
    // Nulls take next to no room in a file, so a list of them can claim more than any state of its size.
    let nulls: ArrayRef = arrow_array::new_null_array(&DataType::Boolean, 80_000_000);
    let item = Arc::new(Field::new("element", DataType::Boolean, true));
    let offsets = arrow_buffer::OffsetBuffer::from_lengths([nulls.len()]);
    let list = arrow_array::ListArray::new(item, offsets, nulls, None);
    let batch = RecordBatch::try_from_iter([("nodes", Arc::new(list) as ArrayRef)]).unwrap();
    let bytes = parquet(&[&batch], WriterProperties::builder().build());
    let error = read(bytes).unwrap_err();
    assert!(
        matches!(
            error,
            ImportError::Implausible {
                claimed: 80_000_000,
                unit: "values",
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn what_others_added_survives_a_file() {
    let state = small_state();
    let read = read(to_parquet_bytes(&state).unwrap()).unwrap();
    let region = read.cluster.column_by_name("region").unwrap();
    assert_eq!(region.as_string::<i32>().value(0), "north");
    let nodes = read.table(sherwood_shared::schema::TableId::Nodes);
    assert!(nodes.column_by_name("rack").unwrap().is_valid(0));
    assert_eq!(read, state);
}

#[test]
fn a_cluster_id_that_is_null_takes_the_expected_one() {
    let document = document();
    let mut columns = document.columns().to_vec();
    columns[0] = arrow_array::new_null_array(&DataType::Utf8, 1);
    let document = RecordBatch::try_new(document.schema(), columns).unwrap();
    let bytes = parquet(&[&document], WriterProperties::builder().build());
    assert_eq!(read(bytes.clone()).unwrap().cluster_id(), "c");
    let error = read_parquet_bytes(bytes, Path::new("f"), None).unwrap_err();
    let ImportError::State { source, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(*source, StateError::NoClusterId);
}
