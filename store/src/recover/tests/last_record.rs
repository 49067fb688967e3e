//! The log's last record is damaged, and a checkpoint holds it (B3, L12).

use std::ops::Range;

use super::*;

/// Bytes of a record's header.
const HEADER: usize = 48;

/// Twenty entries, the last one in a checkpoint too; the newest segment and where the last record stands in it.
fn all_in_a_checkpoint() -> (Case, PathBuf, Range<usize>) {
    let mut case = Case::new(11);
    case.append(20);
    case.log = None;
    case.checkpoint(15);
    case.checkpoint(20);
    let segments = list(&case.dir()).unwrap().log.segments;
    let path = segments.last().unwrap().path.clone();
    let bytes = fs::read(&path).unwrap();
    let blocks = (0..bytes.len()).step_by(64);
    let begins = |at: &usize| bytes[*at..].starts_with(b"SREC");
    let from = blocks.rev().find(begins).unwrap();
    let long = u64::from_le_bytes(bytes[from + 8..from + 16].try_into().unwrap());
    let to = from + usize::try_from(long).unwrap();
    assert!(bytes[to..].iter().all(|&byte| byte == 0), "it is the last");
    (case, path, from..to)
}

#[test]
fn a_damaged_last_record_is_passed_over_if_a_checkpoint_holds_it_and_its_header_is_whole() {
    let (mut case, path, record) = all_in_a_checkpoint();
    let whole = fs::read(&path).unwrap();
    for at in record.clone() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, &bytes).unwrap();
        if at < record.start + HEADER {
            let error = case.error();
            let ends = matches!(
                error,
                RecoverError::Log(LogError::EndsBefore {
                    last: 19,
                    needed: 20
                })
            );
            assert!(ends, "byte {at}: {error:?}");
            continue;
        }
        let recovered = case.recover().unwrap();
        assert!(recovered.state == case.states[20], "byte {at}");
        assert_eq!(recovered.position, Case::at(20), "byte {at}");
        assert_eq!(recovered.torn, None, "byte {at}");
        let [warning] = recovered.warnings.as_slice() else {
            panic!("byte {at}: {:?}", recovered.warnings)
        };
        for part in ["20", "outcomes", "twice"] {
            assert!(warning.contains(part), "byte {at}: {part}: {warning}");
        }
    }
    // It goes on behind it, and what comes then is as safe as ever.
    let mut bytes = whole;
    bytes[record.end - 1] ^= 1;
    fs::write(&path, &bytes).unwrap();
    case.open_log(20);
    case.append(3);
    assert!(case.recover().unwrap().state == case.states[23]);
    case.log = None;
    case.open_log(20);
    case.append(3);
    assert!(case.recover().unwrap().state == case.states[26]);
}

#[test]
fn a_log_that_lacks_what_a_checkpoint_holds_is_an_error_that_a_restore_ends() {
    let (case, path, record) = all_in_a_checkpoint();
    let whole = fs::read(&path).unwrap();
    let ways: [(&str, Range<usize>, u8); 2] = [
        // As in an older copy.
        ("zeros", record.clone(), 0),
        ("rubbish", record.start..record.start + HEADER, 0xa5),
    ];
    for (way, range, byte) in ways {
        let mut bytes = whole.clone();
        bytes[range].fill(byte);
        fs::write(&path, &bytes).unwrap();
        let error = case.error();
        let ends = matches!(
            error,
            RecoverError::Log(LogError::EndsBefore {
                last: 19,
                needed: 20
            })
        );
        assert!(ends, "{way}: {error:?}");
        let text = error.to_string();
        for part in ["older copy", "behind 20", "sherwood recover restore --to"] {
            assert!(text.contains(part), "{way}: {part}: {text}");
        }
    }
    assert_eq!(restore(&case.dir(), 20).unwrap().position.sequence, 20);
    assert!(case.recover().unwrap().state == case.states[20]);
}
