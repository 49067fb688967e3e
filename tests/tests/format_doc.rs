//! docs/format.md is the authority for the bytes: its tables and dumps, held against the code.
//!
//! Each table is parsed, must cover its bytes without a gap, and each field it names must stand where it says
//! in bytes that the code made of distinct values.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, TimeUnit};
use sherwood_shared::batch::BlockAt;
use sherwood_shared::file::FileId;
use sherwood_shared::head::rule::{END_ALIGNMENT, END_LIMIT, HeadWord};
use sherwood_shared::index::{self, ChunkEntry, fence};
use sherwood_shared::layout::{
    BEAT_AT, CLUSTER_ID_MAX_BYTES, CONSTANTS_BYTES, Constants, FORMAT_VERSION, HEAD_AT,
    HEADER_BYTES, INTACT_FROM_AT, WITNESS_AT,
};
use sherwood_shared::root::{PartRoot, ROOT_COLUMN, Root, TableRoot, root_batch};
use sherwood_shared::schema::{TableId, added_fields, document_schema};

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/format.md");
    fs::read_to_string(path).expect("docs/format.md")
}

/// The cells of the `nth` table behind the line that is `line`, its two head lines not included.
fn table(line: &str, nth: usize) -> Vec<Vec<String>> {
    let text = document();
    let mut lines = text.lines().skip_while(|found| *found != line).peekable();
    assert!(lines.peek().is_some(), "no line {line:?} in docs/format.md");
    let mut tables: Vec<Vec<Vec<String>>> = Vec::new();
    let mut inside = false;
    for found in lines {
        if found.starts_with('|') {
            if !inside {
                tables.push(Vec::new());
            }
            let cells = found.trim_matches('|').split('|');
            let cells = cells.map(|cell| cell.trim().replace('`', "")).collect();
            tables.last_mut().expect("just pushed").push(cells);
        }
        inside = found.starts_with('|');
    }
    let found = tables
        .get(nth)
        .unwrap_or_else(|| panic!("{} tables behind {line:?}", tables.len()));
    found[2..].to_vec()
}

/// The fenced block behind the comment `<!-- NAME -->`.
fn block(name: &str) -> String {
    let text = document();
    let marker = format!("<!-- {name} -->\n```text\n");
    let (_, behind) = text
        .split_once(&marker)
        .unwrap_or_else(|| panic!("no {marker:?}"));
    behind
        .split_once("```")
        .expect("a closing fence")
        .0
        .to_owned()
}

/// Holds rows of offset, bytes, type, field against `bytes`, of which they must cover all.
fn holds(rows: &[Vec<String>], bytes: &[u8], fields: &[(&str, &[u8])]) {
    let mut expected: BTreeMap<&str, &[u8]> = fields.iter().copied().collect();
    let mut at = 0;
    for row in rows {
        let [offset, len, kind, name, ..] = &row[..] else {
            panic!("{row:?} has too few cells");
        };
        let len: usize = len.parse().expect("a number of bytes");
        assert_eq!(offset.parse(), Ok(at), "the offset of {name}");
        let found = &bytes[at..at + len];
        if name == "reserved" {
            assert!(
                found.iter().all(|byte| *byte == 0),
                "reserved bytes at {at}: {found:?}"
            );
        } else {
            let wanted = expected
                .remove(&name[..])
                .unwrap_or_else(|| panic!("{name}: not in the code"));
            assert_eq!(found, wanted, "{name}");
            let width = BTreeMap::from([("u32", 4), ("u64", 8), ("bytes", len)]);
            assert_eq!(
                width.get(&kind[..]),
                Some(&len),
                "{name}: {kind} of {len} bytes"
            );
        }
        at += len;
    }
    assert_eq!(at, bytes.len(), "the table ends early");
    assert!(
        expected.is_empty(),
        "not in the table: {:?}",
        expected.keys()
    );
}

/// As `hexdump -C`, lines of zeros left out.
fn dump(bytes: &[u8]) -> String {
    let line = |(number, chunk): (usize, &[u8])| {
        if chunk.iter().all(|byte| *byte == 0) {
            return String::new();
        }
        let hex: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        let halves = hex.chunks(8).map(|half| half.join(" "));
        let hex = halves.collect::<Vec<_>>().join("  ");
        let visible = |byte: &u8| {
            if (0x20..0x7f).contains(byte) {
                char::from(*byte)
            } else {
                '.'
            }
        };
        let text: String = chunk.iter().map(visible).collect();
        format!("{:08x}  {hex:<48}  |{text}|\n", number * 16)
    };
    bytes.chunks(16).enumerate().map(line).collect()
}

fn sequence<const N: usize>(first: u8) -> [u8; N] {
    std::array::from_fn(|at| first + u8::try_from(at).expect("small"))
}

fn constants() -> Constants {
    Constants {
        data_start: 2 << 20,
        region_bytes: 4 << 20,
        file_id: sequence(0x10),
        history: sequence(0x40),
        created_at_ms: 1_767_225_600_000,
        writer_pid: 4242,
        cluster_id: "sample".to_owned(),
    }
}

#[test]
fn the_byte_table_matches_format_md() {
    let made = constants();
    let bytes = made.to_bytes();
    let mut id = [0; CLUSTER_ID_MAX_BYTES];
    id[..6].copy_from_slice(b"sample");
    holds(
        &table("### Constants", 0),
        &bytes,
        &[
            ("arrow_magic", b"ARROW1\0\0"),
            ("format_magic", b"SHERWOOD"),
            ("format_version", &FORMAT_VERSION.to_le_bytes()),
            ("data_start", &made.data_start.to_le_bytes()),
            ("region_bytes", &made.region_bytes.to_le_bytes()),
            ("file_id", &made.file_id),
            ("history", &made.history),
            ("created_at_ms", &made.created_at_ms.to_le_bytes()),
            ("writer_pid", &made.writer_pid.to_le_bytes()),
            ("cluster_id_bytes", &6_u32.to_le_bytes()),
            ("cluster_id", &id),
            (
                "checksum",
                &crc32c::crc32c(&bytes[..CONSTANTS_BYTES]).to_le_bytes(),
            ),
        ],
    );
    let words: Vec<_> = table("### Words", 0)
        .into_iter()
        .map(|row| (row[3].clone(), row[0].clone(), row[1].clone()))
        .collect();
    let word = |name: &str, at: usize| (name.to_owned(), at.to_string(), "8".to_owned());
    assert_eq!(
        words,
        [
            word("head", HEAD_AT),
            word("intact_from", INTACT_FROM_AT),
            word("beat", BEAT_AT)
        ]
    );
    assert!(document().contains(&format!("One page of {HEADER_BYTES} bytes")));
    assert_eq!(WITNESS_AT, 1 << 62);
    assert!(document().contains("| `[2^62, 2^62 + 1)` | the daemon"));
}

#[test]
fn the_heads_bits_are_those_of_the_table() {
    let rows = table("### Words", 1);
    let bits = |name: &str| {
        let row = rows
            .iter()
            .find(|row| row[1] == name)
            .expect("in the table");
        let mut ends = row[0]
            .split(" to ")
            .map(|bit| bit.parse::<u32>().expect("a bit"));
        let first = ends.next().expect("a bit");
        let last = ends.next().unwrap_or(first);
        (first..=last).fold(0_u64, |mask, bit| mask | 1 << bit)
    };
    assert_eq!(rows.len(), 3);
    assert_eq!(HeadWord::EMPTY.superseded().raw(), bits("superseded"));
    let most = HeadWord::new(END_LIMIT - END_ALIGNMENT, 0).expect("the last end");
    assert_eq!(most.raw(), bits("root_end"));
    let low = HeadWord::new(END_ALIGNMENT, u64::MAX).expect("the first end");
    assert_eq!(low.raw() & !bits("root_end"), bits("generation"));
    assert_eq!(END_ALIGNMENT, 64);
    assert_eq!(END_LIMIT, 128 << 30);
}

#[test]
fn the_example_header_is_what_the_code_writes() {
    let mut page = vec![0; HEADER_BYTES];
    let bytes = constants().to_bytes();
    page[..bytes.len()].copy_from_slice(&bytes);
    let head = HeadWord::new(0x18061 * 64, 7).expect("an end");
    let mut word = |at: usize, value: u64| page[at..at + 8].copy_from_slice(&value.to_le_bytes());
    word(HEAD_AT, head.raw());
    word(INTACT_FROM_AT, 5);
    word(BEAT_AT, 42);
    assert_eq!(block("example: header"), dump(&page), "\n{}", dump(&page));
}

fn part(footer_end: u64, rows: u64, chunks: u32, first_key: &str) -> PartRoot {
    PartRoot {
        footer_end,
        index_at: footer_end - 1024,
        rows,
        chunks,
        first_key: first_key.into(),
    }
}

fn root() -> Root {
    let table = |rows, schema_fingerprint, part| TableRoot {
        rows,
        schema_fingerprint,
        parts: vec![part],
    };
    Root {
        generation: 7,
        published_at_ms: 1_767_225_607_000,
        state_dir: FileId {
            device: 0x1a,
            inode: 0x2b3c,
        },
        schema_version: 2,
        arrow_at: 0x0060_0c00,
        live_bytes: 0x1000,
        regions: vec![0, 1],
        tables: [
            table(2, 7, part(0x0060_0400, 2, 1, "node-1")),
            table(0, 1, part(0x0060_0800, 0, 0, "")),
            table(0, 1, part(0x0060_0c00, 0, 0, "")),
        ],
    }
}

#[test]
fn the_root_records_tables_are_those_of_its_bytes() {
    let mut root = root();
    root.tables[1].parts.push(part(0x0060_1400, 9, 3, "task-é"));
    let mut bytes = Vec::new();
    root.append(&mut bytes);
    let mut unsealed = bytes.clone();
    unsealed[8..12].fill(0);
    let length = u32::try_from(bytes.len()).expect("small");
    let behind = "### The root record";
    holds(
        &table(behind, 0),
        &bytes[..80],
        &[
            ("magic", b"SWRT"),
            ("length", &length.to_le_bytes()),
            ("checksum", &crc32c::crc32c(&unsealed).to_le_bytes()),
            ("schema_version", &root.schema_version.to_le_bytes()),
            ("generation", &root.generation.to_le_bytes()),
            ("published_at_ms", &root.published_at_ms.to_le_bytes()),
            ("state_device", &root.state_dir.device.to_le_bytes()),
            ("state_inode", &root.state_dir.inode.to_le_bytes()),
            ("live_bytes", &root.live_bytes.to_le_bytes()),
            ("arrow_at", &root.arrow_at.to_le_bytes()),
            ("region_count", &2_u32.to_le_bytes()),
            ("table_count", &3_u32.to_le_bytes()),
        ],
    );
    let mut at = 80;
    for entry in &root.tables {
        let parts = u32::try_from(entry.parts.len()).expect("small");
        holds(
            &table(behind, 1),
            &bytes[at..at + 32],
            &[
                ("rows", &entry.rows.to_le_bytes()),
                (
                    "schema_fingerprint",
                    &entry.schema_fingerprint.to_le_bytes(),
                ),
                ("part_count", &parts.to_le_bytes()),
            ],
        );
        at += 32;
    }
    for part in root.tables.iter().flat_map(|table| &table.parts) {
        let key_bytes = u32::try_from(part.first_key.len()).expect("small");
        holds(
            &table(behind, 2),
            &bytes[at..at + 48],
            &[
                ("footer_end", &part.footer_end.to_le_bytes()),
                ("index_at", &part.index_at.to_le_bytes()),
                ("rows", &part.rows.to_le_bytes()),
                ("chunks", &part.chunks.to_le_bytes()),
                ("first_key_bytes", &key_bytes.to_le_bytes()),
            ],
        );
        at += 48;
    }
    let tail = [&[0, 0, 0, 0, 1, 0, 0, 0][..], "node-1task-é".as_bytes()].concat();
    assert_eq!(bytes[at..], tail);
}

/// So may a later writer, of the same version, add what an older reader need not know.
#[test]
fn bytes_behind_the_last_key_of_a_root_record_are_ignored() {
    let mut bytes = Vec::new();
    root().append(&mut bytes);
    bytes.extend_from_slice(b"something new");
    let length = u32::try_from(bytes.len()).expect("small");
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes[8..12].fill(0);
    let checksum = crc32c::crc32c(&bytes);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    assert_eq!(Root::parse(&bytes), Ok(root()));
}

#[test]
fn the_example_root_record_is_what_the_code_writes() {
    let mut bytes = Vec::new();
    root().append(&mut bytes);
    assert_eq!(
        block("example: root record"),
        dump(&bytes),
        "\n{}",
        dump(&bytes)
    );
}

#[test]
fn the_part_indexs_tables_are_those_of_its_bytes() {
    let keys = ["task-0001", "task-0450", "task-0450-and-more"];
    let chunks: Vec<ChunkEntry> = (1_u32..)
        .zip(keys)
        .map(|(number, key)| ChunkEntry {
            block: BlockAt {
                offset: u64::from(number) << 20,
                meta_bytes: 64 * number,
                body_bytes: 6400 * number,
            },
            rows: 10 * number,
            first_key: key.into(),
        })
        .collect();
    let mut bytes = Vec::new();
    index::append(&mut bytes, &chunks);
    let count = u32::try_from(chunks.len()).expect("small");
    holds(
        &table("## 5. The part index", 0),
        &bytes[..32],
        &[
            ("magic", b"SWIX"),
            ("chunks", &count.to_le_bytes()),
            ("prefix_bytes", &6_u32.to_le_bytes()),
        ],
    );
    let arrays = table("## 5. The part index", 1);
    // "32 + 24 n" of three chunks.
    let start = |name: &str| -> usize {
        let row = arrays
            .iter()
            .find(|row| row[3] == name)
            .expect("in the table");
        let terms = row[0]
            .split('+')
            .map(|term| match term.trim().strip_suffix(" n") {
                Some(factor) => factor.parse::<usize>().expect("a factor") * chunks.len(),
                None => term.trim().parse().expect("a number"),
            });
        terms.sum()
    };
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
    let mut rows = 0;
    for (number, chunk) in chunks.iter().enumerate() {
        rows += u64::from(chunk.rows);
        let key = &chunk.first_key.as_bytes()[6..];
        assert_eq!(
            u64_at(start("fence") + 8 * number),
            fence(key),
            "chunk {number}"
        );
        let block = start("block") + 16 * number;
        assert_eq!(u64_at(block), chunk.block.offset, "chunk {number}");
        assert_eq!(u32_at(block + 8), chunk.block.meta_bytes, "chunk {number}");
        assert_eq!(u32_at(block + 12), chunk.block.body_bytes, "chunk {number}");
        assert_eq!(
            u64_at(start("rows_until") + 8 * number),
            rows,
            "chunk {number}"
        );
    }
    assert_eq!(fence(b"0450"), u64::from_be_bytes(*b"0450\0\0\0\0"));
}

fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 => "string".to_owned(),
        DataType::UInt32 => "uint32".to_owned(),
        DataType::UInt64 => "uint64".to_owned(),
        DataType::Int32 => "int32".to_owned(),
        DataType::Int64 => "int64".to_owned(),
        DataType::Float32 => "float".to_owned(),
        DataType::Boolean => "bool".to_owned(),
        DataType::Timestamp(TimeUnit::Millisecond, None) => "timestamp[ms]".to_owned(),
        DataType::FixedSizeBinary(width) => format!("fixed_size_binary[{width}]"),
        DataType::Struct(_) => "struct".to_owned(),
        DataType::List(item) => match item.data_type() {
            DataType::Struct(_) => "list of struct".to_owned(),
            other => format!("list of {}", type_name(other)),
        },
        other => panic!("docs/format.md has no name for {other}"),
    }
}

/// Name and type of every field below `fields`, with the path to it.
fn flatten(fields: &[Arc<Field>], path: &str, out: &mut Vec<[String; 2]>) {
    for field in fields {
        let name = format!("{path}{}", field.name());
        out.push([name.clone(), type_name(field.data_type())]);
        match field.data_type() {
            DataType::Struct(inner) => flatten(inner, &format!("{name}."), out),
            DataType::List(item) => {
                if let DataType::Struct(inner) = item.data_type() {
                    flatten(inner, &format!("{name}."), out);
                }
            }
            _ => {}
        }
    }
}

#[test]
fn the_arrow_root_has_the_fields_of_the_table() {
    let id: ArrayRef = Arc::new(StringArray::from(vec!["sample"]));
    let cluster = RecordBatch::try_from_iter([("cluster_id", id)]).expect("one column");
    let batch = root_batch(&root(), [3; 16], &cluster).expect("builds");
    let column = batch.column_by_name(ROOT_COLUMN).expect("the struct");
    let DataType::Struct(fields) = column.data_type() else {
        panic!("{:?} is no struct", column.data_type());
    };
    let mut found = Vec::new();
    flatten(fields, "", &mut found);
    let rows = table("### The Arrow root", 0).into_iter();
    let expected: Vec<_> = rows.map(|row| [row[0].clone(), row[1].clone()]).collect();
    assert_eq!(found, expected);
}

#[test]
fn the_schemas_of_section_9_and_8_are_those_of_the_code() {
    let mut text = String::new();
    let mut write = |depth: usize, name: &str, kind: String| {
        let kind = match kind.strip_prefix("list of ") {
            Some(item) => format!("list<{item}>"),
            None => kind,
        };
        text.push_str(&format!("{}{name}: {kind}\n", "  ".repeat(depth)));
    };
    let mut found = Vec::new();
    flatten(document_schema().fields(), "", &mut found);
    for [path, kind] in found {
        let name = path.rsplit('.').next().unwrap_or_default();
        write(path.matches('.').count(), name, kind);
    }
    assert_eq!(block("schema: document"), text);

    let rows = table(
        "`schema_version` counts the columns of the tables, and each version holds all columns of the one before:",
        0,
    );
    let second = rows.iter().find(|row| row[0] == "2").expect("version 2");
    let words: Vec<&str> = second[1]
        .split([' ', ',', ';', ':'])
        .filter(|word| !word.is_empty())
        .collect();
    let mut expected = Vec::new();
    for table in [TableId::Nodes, TableId::Tasks] {
        expected.push(table.name().to_owned());
        let fields = added_fields(table);
        for (at, field) in fields.iter().enumerate() {
            expected.push(field.name().clone());
            // Neighbours of one type are written with it once.
            let next = fields.get(at + 1).map(Field::data_type);
            if next != Some(field.data_type()) {
                expected.push(type_name(field.data_type()));
            }
        }
    }
    let words: Vec<String> = words
        .into_iter()
        .map(|word| word.replace("float32", "float"))
        .collect();
    assert_eq!(words, expected);
}
