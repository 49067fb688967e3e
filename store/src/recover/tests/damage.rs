//! Damage in the middle of the log (L12): what a start, a restore and a salvage make of it.

use super::*;

/// Ways to damage a segment.
const WAYS: [&str; 4] = ["deleted", "header", "record", "manifest"];

/// A log of 60 entries in small segments, checkpoints of 10 and 30, and damage to one of its segments, or to the manifest.
/// With the first sequence that is damaged and the first that is not any more.
fn damaged_log(way: &str, at: usize) -> Option<(Case, u64, u64)> {
    let mut case = Case::new(21);
    case.append(60);
    case.checkpoint(10);
    case.checkpoint(30);
    case.log = None;
    let dir = log::log_dir(case.path());
    let segments = list(&case.dir()).unwrap().log.segments;
    let segment = segments.get(at)?;
    let next = segments.get(at + 1).map_or(61, |next| next.first_sequence);
    let mut bytes = fs::read(&segment.path).unwrap();
    match way {
        "deleted" => fs::remove_file(&segment.path).unwrap(),
        "header" => {
            bytes[70] ^= 1;
            fs::write(&segment.path, bytes).unwrap();
        }
        "record" => {
            bytes[128 + 64 + 10] ^= 1;
            fs::write(&segment.path, bytes).unwrap();
            return Some((case, segment.first_sequence, segment.first_sequence + 1));
        }
        _ if at > 0 => return None,
        _ => {
            fs::write(dir.join("manifest"), "none").unwrap();
            return Some((case, 61, 61));
        }
    }
    Some((case, segment.first_sequence, next))
}

#[test]
fn damage_behind_the_newest_checkpoint_leaves_everything_before_it_to_a_restore_and_the_rest_to_a_salvage()
 {
    let mut seen = [0, 0];
    for way in WAYS {
        for at in 0.. {
            let Some((mut case, first, next)) = damaged_log(way, at) else {
                break;
            };
            let what = format!("{way}: segment {at}, entries {first} to {}", next - 1);
            let out = case.path().join("saved");
            let saved = salvage(&case.dir(), &out).unwrap();
            if way != "record" {
                let through = if next > 60 { first - 1 } else { 60 };
                assert_eq!(saved.through, through.max(30), "{what}: {saved:?}");
            }
            fs::remove_file(&out).unwrap();
            match case.recover() {
                // L12: the checkpoint holds it.
                Ok(recovered) => {
                    assert!(next <= 31, "{what}");
                    assert!(recovered.state == case.states[60], "{what}");
                    seen[0] += 1;
                    case.open_log(30);
                    case.append(3);
                    let again = case.recover().unwrap();
                    assert!(again.state == case.states[63], "{what}: after it went on");
                    let log = case.log.as_ref().unwrap();
                    log.release(30).unwrap();
                    let again = case.recover().unwrap();
                    assert!(again.state == case.states[63], "{what}: after a release");
                }
                Err(error) => {
                    assert!(next > 31 || way == "record", "{what}: {error}");
                    seen[1] += 1;
                    let text = error.to_string();
                    assert!(text.contains("sherwood recover restore"), "{what}: {text}");
                    // A segment that holds entries of both, with its schemas in the damaged record.
                    let to = match first <= 30 {
                        true => 30,
                        false => first - 1,
                    };
                    let restored = restore(&case.dir(), to);
                    let restored = restored.unwrap_or_else(|error| panic!("{what}: {error}"));
                    assert_eq!(restored.position.sequence, to, "{what}");
                    let at = usize::try_from(to).unwrap();
                    assert!(case.recover().unwrap().state == case.states[at], "{what}");
                }
            }
        }
    }
    assert!(seen[0] >= 3 && seen[1] >= 3, "{seen:?}");
}
