//! The head word under loom: the rule as it ships has no violation, and each part taken away is caught.
//!
//! `shared/src/head/rule.rs` is included here by path, beside a `sync` that is loom's: loom runs the very lines that
//! ship, without building every dependency for it. The rules cited are those of docs/design.md.
//!
//! Each scene is played by a [`Rule`]: the shipped one, or the shipped one with one function replaced by a version
//! that lacks one fence, or takes one wrong step. A scene that the shipped rule passes and a broken one fails shows
//! that the part is needed and that the scene would notice.
//!
//! Not shown here: that bytes stay while somebody holds them (`models/lease`), and that readers use nothing but
//! relaxed loads, which loom cannot know about.

use std::panic::{AssertUnwindSafe, catch_unwind};

use loom::sync::Arc;
use loom::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use loom::sync::atomic::{AtomicU64, fence};
use loom::thread;

use rule::HeadWord;

/// The shipped rule. It takes its atomics from the module above it, which is this one.
#[path = "../../shared/src/head/rule.rs"]
mod rule;

mod sync {
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering, fence};
}

/// The functions of the rule, so that one at a time can be replaced.
#[derive(Clone, Copy)]
struct Rule {
    publish: fn(&AtomicU64, HeadWord),
    observe: fn(&AtomicU64) -> HeadWord,
    mark: fn(&AtomicU64),
    give_up: fn(&AtomicU64, u64),
    copied_intact: fn(&AtomicU64, HeadWord, u64) -> bool,
}

const SHIPPED: Rule = Rule {
    publish: rule::publish,
    observe: rule::observe,
    mark: rule::mark,
    give_up: rule::give_up,
    copied_intact: rule::copied_intact,
};

/// The raw bit that `mark` sets, for the broken versions of it.
const MARK: u64 = HeadWord::EMPTY.superseded().raw();

/// A head whose root ends where its generation says, so that a torn word would be seen.
fn head_of(generation: u64) -> HeadWord {
    HeadWord::new(generation * 64, generation).expect("a small multiple of 64")
}

fn index(generation: u64) -> usize {
    usize::try_from(generation).expect("a few generations")
}

/// W4 and R2: a publisher writes one payload word and publishes, a few times; a reader looks twice. What it observes
/// must be whole, covered by its payload, and never older than what it saw before.
fn publisher_and_reader(rule: Rule) {
    const GENERATIONS: usize = 3;
    let payload: Arc<[AtomicU64; GENERATIONS + 1]> = Arc::new(Default::default());
    let word = Arc::new(AtomicU64::new(0));

    let publisher = thread::spawn({
        let (payload, word) = (Arc::clone(&payload), Arc::clone(&word));
        move || {
            for generation in (1..).take(GENERATIONS) {
                payload[index(generation)].store(generation, Relaxed);
                (rule.publish)(&word, head_of(generation));
            }
        }
    });

    let mut before = 0;
    for _ in 0..2 {
        let seen = (rule.observe)(&word);
        let generation = u64::from(seen.generation_low());
        assert_eq!(seen.end_bytes(), generation * 64, "a torn head");
        assert!(generation >= before, "the head went back");
        if !seen.is_empty() {
            let read = payload[index(generation)].load(Relaxed);
            assert_eq!(read, generation, "a payload that is not visible");
            if rule::unchanged(&word, seen) {
                let read = payload[index(generation)].load(Relaxed);
                assert_eq!(read, generation, "a payload that went away");
            }
        }
        before = generation;
    }
    publisher.join().expect("the publisher ends");
}

/// W8: a publisher publishes its last generation; its successor, another process that learned of its end from the
/// kernel alone, renames and marks. A reader that sees the mark must see the rename, and the last generation whole.
fn successor_and_reader(rule: Rule) {
    const LAST: u64 = 1;
    let payload = Arc::new(AtomicU64::new(0));
    let word = Arc::new(AtomicU64::new(0));
    let path = Arc::new(AtomicU64::new(0));

    let publisher = thread::spawn({
        let (payload, word) = (Arc::clone(&payload), Arc::clone(&word));
        move || {
            payload.store(LAST, Relaxed);
            (rule.publish)(&word, head_of(LAST));
        }
    });
    let successor = thread::spawn({
        let (word, path) = (Arc::clone(&word), Arc::clone(&path));
        move || {
            // W1: it starts only once the publisher is gone. Nothing but that is carried over, so no acquire.
            if word.load(Relaxed) == head_of(LAST).raw() {
                path.store(1, Relaxed);
                (rule.mark)(&word);
            }
        }
    });

    let seen = (rule.observe)(&word);
    if seen.is_superseded() {
        assert_eq!(path.load(Relaxed), 1, "the mark without the rename");
        assert_eq!(
            u64::from(seen.generation_low()),
            LAST,
            "the mark lost the generation"
        );
        assert_eq!(
            seen.end_bytes(),
            head_of(LAST).end_bytes(),
            "the mark lost the end"
        );
    }
    if !seen.is_empty() {
        let read = payload.load(Relaxed);
        assert_eq!(read, LAST, "a payload that is not visible");
    }
    publisher.join().expect("the publisher ends");
    successor.join().expect("the successor ends");
}

/// W8: a file that a crash left marked under its aside name is marked again by the next daemon's sweep. Here the two
/// marks even meet. The word ends with the mark, and with its end and generation.
fn two_marks(rule: Rule) {
    let word = Arc::new(AtomicU64::new(head_of(1).raw()));
    let marker = thread::spawn({
        let word = Arc::clone(&word);
        move || (rule.mark)(&word)
    });
    (rule.mark)(&word);
    marker.join().expect("the marker ends");
    let seen = (rule.observe)(&word);
    assert_eq!(
        seen,
        head_of(1).superseded(),
        "marking twice is marking once"
    );
}

/// W7: a writer reuses the region of generation 1 for generation 3, while a reader without leases copies through the
/// head of generation 1. A copy that passes the check is generation 1's, and nothing else.
fn reuse_and_copy(rule: Rule) {
    let region: Arc<[AtomicU64; 2]> = Arc::new([AtomicU64::new(1), AtomicU64::new(1)]);
    let intact_from = Arc::new(AtomicU64::new(0));

    let writer = thread::spawn({
        let (region, intact_from) = (Arc::clone(&region), Arc::clone(&intact_from));
        move || {
            // Generation 2 has dropped the region.
            (rule.give_up)(&intact_from, 2);
            region[0].store(3, Relaxed);
            region[1].store(3, Relaxed);
        }
    });

    // The root tells its own generation, and may be the new one's by now.
    let root = region[0].load(Relaxed);
    let chunk = region[1].load(Relaxed);
    if (rule.copied_intact)(&intact_from, head_of(1), root) {
        assert_eq!((root, chunk), (1, 1), "a copy of a reused region passed");
    }
    writer.join().expect("the writer ends");
}

type Scene = fn(Rule);

/// Plays every interleaving of a scene; the error is what the first bad one said.
fn play(scene: Scene, rule: Rule) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| loom::model(move || scene(rule)))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "a panic without a text".to_owned())
    })
}

#[test]
fn the_rule_as_shipped_has_no_violation() {
    let scenes: [(&str, Scene); 4] = [
        ("publisher and reader", publisher_and_reader),
        ("successor and reader", successor_and_reader),
        ("two marks", two_marks),
        ("reuse and copy", reuse_and_copy),
    ];
    for (name, scene) in scenes {
        assert_eq!(play(scene, SHIPPED), Ok(()), "scene: {name}");
    }
}

/// One thing taken away from the rule, where it must be noticed, and the words it is noticed with.
struct Broken {
    name: &'static str,
    scene: Scene,
    rule: Rule,
    notices: &'static str,
}

const INVISIBLE: &str = "a payload that is not visible";

fn broken_rules() -> Vec<Broken> {
    vec![
        Broken {
            name: "publish without its release fence",
            scene: publisher_and_reader,
            rule: Rule {
                publish: |word, value| word.store(value.raw(), Relaxed),
                ..SHIPPED
            },
            notices: INVISIBLE,
        },
        Broken {
            name: "publish with its fence after the store",
            scene: publisher_and_reader,
            rule: Rule {
                publish: |word, value| {
                    word.store(value.raw(), Relaxed);
                    fence(Release);
                },
                ..SHIPPED
            },
            notices: INVISIBLE,
        },
        Broken {
            name: "publish in two stores, the generation first",
            scene: publisher_and_reader,
            rule: Rule {
                publish: |word, value| {
                    fence(Release);
                    let low = u64::from(value.generation_low());
                    word.store(low, Relaxed);
                    word.store(value.raw(), Relaxed);
                },
                ..SHIPPED
            },
            notices: "a torn head",
        },
        Broken {
            name: "observe without its acquire fence",
            scene: publisher_and_reader,
            rule: Rule {
                observe: |word| HeadWord::from_raw(word.load(Relaxed)),
                ..SHIPPED
            },
            notices: INVISIBLE,
        },
        Broken {
            name: "observe with its fence before the load",
            scene: publisher_and_reader,
            rule: Rule {
                observe: |word| {
                    fence(Acquire);
                    HeadWord::from_raw(word.load(Relaxed))
                },
                ..SHIPPED
            },
            notices: INVISIBLE,
        },
        Broken {
            name: "mark without its release fence",
            scene: successor_and_reader,
            rule: Rule {
                mark: |word| {
                    word.fetch_or(MARK, Relaxed);
                },
                ..SHIPPED
            },
            notices: "the mark without the rename",
        },
        Broken {
            name: "mark by a load and a store",
            scene: successor_and_reader,
            rule: Rule {
                mark: |word| {
                    fence(Release);
                    word.store(word.load(Relaxed) | MARK, Relaxed);
                },
                ..SHIPPED
            },
            notices: INVISIBLE,
        },
        Broken {
            name: "mark that toggles",
            scene: two_marks,
            rule: Rule {
                mark: |word| {
                    word.fetch_xor(MARK, Relaxed);
                },
                ..SHIPPED
            },
            notices: "marking twice is marking once",
        },
        Broken {
            name: "give_up without its fence",
            scene: reuse_and_copy,
            rule: Rule {
                give_up: |intact_from, dropped_by| intact_from.store(dropped_by, Relaxed),
                ..SHIPPED
            },
            notices: "a copy of a reused region passed",
        },
        Broken {
            name: "give_up with its fence before the store",
            scene: reuse_and_copy,
            rule: Rule {
                give_up: |intact_from, dropped_by| {
                    fence(SeqCst);
                    intact_from.store(dropped_by, Relaxed);
                },
                ..SHIPPED
            },
            notices: "a copy of a reused region passed",
        },
        Broken {
            name: "copied_intact without its acquire fence",
            scene: reuse_and_copy,
            rule: Rule {
                copied_intact: |intact_from, seen, generation| {
                    generation == u64::from(seen.generation_low())
                        && generation >= intact_from.load(Relaxed)
                },
                ..SHIPPED
            },
            notices: "a copy of a reused region passed",
        },
        Broken {
            name: "copied_intact that believes the copied root's generation",
            scene: reuse_and_copy,
            rule: Rule {
                copied_intact: |intact_from, _seen, generation| {
                    fence(Acquire);
                    generation >= intact_from.load(Relaxed)
                },
                ..SHIPPED
            },
            notices: "a copy of a reused region passed",
        },
    ]
}

#[test]
fn every_part_of_the_rule_taken_away_is_caught() {
    for broken in broken_rules() {
        match play(broken.scene, broken.rule) {
            Ok(()) => panic!("loom finds nothing wrong with: {}", broken.name),
            Err(said) => assert!(
                said.contains(broken.notices),
                "{}: noticed for another reason than {:?}: {said}",
                broken.name,
                broken.notices,
            ),
        }
    }
}
