//! What the commands that change a state send, print and end with.

mod common;
mod served;
#[path = "../../client/tests/stub/mod.rs"]
mod stub;

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use common::Host;
use serde_json::{Value, json};
use served::Served;
use stub::Act;

#[test]
fn each_command_sends_its_operation_and_says_in_which_generation_it_is_done() {
    let served = Served::new();
    let patch = json!({"patch": "tasks", "key": "t", "set": {"status": "running", "progress": 0.5,
        "resources": {"cpu_cores": 2}}});
    let condition = json!({"table": "tasks", "key": "t", "column": "status", "equals": "assigned"});
    let cases: [(&[&str], Value); 11] = [
        (
            &[
                "patch",
                "tasks",
                "t",
                "status=running",
                "progress=0.5",
                "resources.cpu_cores=2",
                "--if",
                "status=assigned",
            ],
            json!({"do": "transaction", "if": [condition], "ops": [patch]}),
        ),
        (
            &["patch", "cluster", "master_id=n2"],
            json!({"do": "transaction", "ops": [{"patch": "cluster", "set": {"master_id": "n2"}}]}),
        ),
        (
            &["delete", "content", "a", "b", "--id", "mine"],
            json!({"do": "transaction", "id": "mine",
                   "ops": [{"delete": "content", "key": "a"}, {"delete": "content", "key": "b"}]}),
        ),
        (
            &["assign", "t", "n"],
            json!({"do": "assign", "task": "t", "node": "n"}),
        ),
        (&["start", "t"], json!({"do": "start", "task": "t"})),
        (
            &["complete", "t", "--output", "a", "b"],
            json!({"do": "complete", "task": "t", "outputs": ["a", "b"]}),
        ),
        (
            &["fail", "t", "--reason", "why"],
            json!({"do": "fail", "task": "t", "reason": "why"}),
        ),
        (&["release", "t"], json!({"do": "release", "task": "t"})),
        (
            &["cancel", "t", "--id", "mine too"],
            json!({"do": "cancel", "id": "mine too", "task": "t"}),
        ),
        (&["retry", "t"], json!({"do": "retry", "task": "t"})),
        (
            &["start", "t", "-o", "text"],
            json!({"do": "start", "task": "t"}),
        ),
    ];
    for (number, (args, expected)) in (1..).zip(cases) {
        let ran = served.run(args).ended(0);
        assert_eq!(
            ran.stdout,
            format!("done in generation {number}\n"),
            "{args:?}"
        );
        assert_eq!(ran.stderr, "", "{args:?}");
        assert_eq!(served.request(), expected, "{args:?}");
    }
}

#[test]
fn a_claim_prints_the_task_and_ends_with_3_where_there_is_none() {
    let served = Served::new();
    let ran = served.run(&["claim", "n", "--type", "a", "b"]).ended(0);
    assert_eq!(ran.stdout, "task-1\n");
    assert_eq!(
        served.request(),
        json!({"do": "claim", "node": "n", "types": ["a", "b"]})
    );
    let ran = served.run(&["claim", "idle", "--type", "a"]).ended(3);
    assert_eq!(ran.stdout, "");
    assert_eq!(
        ran.stderr,
        "error: no pending task of type a fits \"idle\"\n"
    );
}

#[test]
fn a_refusal_ends_with_5_and_what_is_not_known_with_6_and_its_id() {
    let served = Served::new();
    served.stub.will(&[Act::Refuse]);
    let ran = served.run(&["start", "t1"]).ended(5);
    assert_eq!(ran.stdout, "");
    assert_eq!(ran.stderr, "error: refused: tasks: no row with id \"t1\"\n");
    served.stub.will(&[Act::Refuse]);
    let ran = served
        .run(&["start", "t1", "-o", "json", "--id", "x"])
        .ended(5);
    let expected = json!({"id": "x", "outcome": "refused", "generation": 7,
                          "reason": "tasks: no row with id \"t1\""});
    assert_eq!(ran.json(), expected);
    served.stub.will(&[Act::Silence]);
    let ran = served
        .run(&["start", "t1", "--id", "x", "--timeout", "1"])
        .ended(6);
    assert_eq!(
        ran.stderr,
        "error: it is not known whether \"x\" was applied: the daemon did not answer within the deadline; \
         send it again with the same id\n"
    );
    let ran = served.run(&["start", "t1", "--id", "x"]).ended(0);
    assert_eq!(ran.stdout, "done in generation 1\n");
}

#[test]
fn without_a_daemon_nothing_is_changed_and_the_exit_code_is_4() {
    let host = Host::new();
    host.sample("state");
    let ran = host.run(&["--state-dir", "state", "start", "t"]).ended(4);
    assert!(
        ran.stderr.contains("only a daemon changes a state"),
        "{ran:?}"
    );
    let served = Served::new();
    std::fs::remove_file(served.stub.path()).expect("removes");
    let ran = served.run(&["start", "t"]).ended(4);
    assert!(ran.stderr.contains("is sherwoodd running"), "{ran:?}");
}

#[test]
fn words_that_mean_nothing_are_wrong_usage() {
    let served = Served::new();
    for (args, told) in [
        (&["patch", "tasks", "t"][..], "nothing to set"),
        (&["patch", "tasks", "t", "status"], "COL=VALUE"),
        (&["patch", "tasks", "t", "=5"], "COL=VALUE"),
        (
            &["patch", "cluster", "c", "a=5"],
            "\"c\" is no COL=VALUE, and cluster has one row and no KEY",
        ),
        (&["patch", "nothing", "t", "a=5"], "invalid value"),
        (&["put", "tasks"], "--file"),
        (&["apply", "-f", "x", "--mode", "patch"], "--table"),
        (&["start", "t", "--id", ""], "--id"),
    ] {
        let ran = served.run(args).ended(2);
        assert!(ran.stderr.contains(told), "{args:?}: {ran:?}");
    }
    assert!(served.stub.seen().requests.is_empty());
}

#[test]
fn apply_answers_line_by_line_and_its_exit_code_is_that_of_the_worst_answer() {
    let served = Served::new();
    let lines = "{\"id\":\"a\",\"ops\":[{\"delete\":\"tasks\",\"key\":\"t\"}]}\n\n\
                 {\"do\":\"start\",\"id\":\"b\",\"task\":\"t\"}\n{\"id\":\"c\",\"ops\":[]}\n";
    std::fs::write(served.host.path("lines.jsonl"), lines).expect("writes");
    let apply = &["apply", "-f", "lines.jsonl", "--timeout", "1"];
    let outcomes = |ran: &common::Ran| -> Vec<String> {
        let answer = |line: &&str| serde_json::from_str::<Value>(line).expect("an answer");
        let text =
            |answer: Value| format!("{} {}", answer["id"], answer["outcome"]).replace('"', "");
        ran.lines().iter().map(answer).map(text).collect()
    };
    served.stub.will(&[Act::Serve, Act::Refuse]);
    let ran = served.run(apply).ended(5);
    assert_eq!(outcomes(&ran), ["a done", "b refused", "c done"]);
    assert_eq!(
        ran.stderr,
        "error: 1 refused and 0 unknown, of 3 transactions\n"
    );
    let ran = served.run(apply).ended(0);
    assert_eq!(outcomes(&ran), ["a done", "b done", "c done"]);
    // What is no transaction is answered in its turn, and those behind it are applied.
    let lines = "{\"id\":\"d\",\"ops\":[]}\n\n{\"id\":\"e\",\"ops\":5}\nno line\n{\"id\":\"f\",\"ops\":[]}\n";
    std::fs::write(served.host.path("lines.jsonl"), lines).expect("writes");
    let ran = served.run(apply).ended(5);
    assert_eq!(
        outcomes(&ran),
        ["d done", "e refused", "null refused", "f done"]
    );
    for (answer, told) in ran.lines()[1..3].iter().zip(["line 3: ", "line 4: "]) {
        assert!(answer.contains(told), "{told}: {ran:?}");
    }
    assert_eq!(
        ran.stderr,
        "error: 2 refused and 0 unknown, of 4 transactions\n"
    );
}

/// What may have been applied is told, whatever else went wrong, and every answer that is under way is waited for.
#[test]
fn apply_ends_with_6_if_anything_is_unknown_however_it_ended() {
    let served = Served::new();
    let file = served.host.path("lines.jsonl");
    let line = |id: &str| format!("{{\"id\":\"{id}\",\"ops\":[]}}\n");
    let apply = &["apply", "-f", "lines.jsonl", "--timeout", "1"];
    std::fs::write(&file, line("a") + &line("b") + &line("c") + "no line\n").expect("writes");
    served.stub.will(&[Act::Unknown; 1000]);
    let ran = served.run(apply).ended(6);
    assert_eq!(ran.lines().len(), 4, "{ran:?}");
    assert!(
        ran.stderr
            .contains("1 refused and 3 unknown, of 4 transactions"),
        "{ran:?}"
    );
    served.stub.seen().acts.clear();
    // Nobody reads the answers: they still count, and how far it came is told.
    let into_nothing = || -> common::Ran {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = served
            .host
            .command(&[&["--run-dir", "run"][..], apply].concat());
        command
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .expect("runs")
            .wait_with_output()
            .expect("ends")
            .into()
    };
    std::fs::write(&file, line("d") + &line("e")).expect("writes");
    served.stub.will(&[Act::Silence, Act::Serve]);
    let ran = into_nothing().ended(6);
    // Whether the second line was under way when the first answer came is not said.
    for told in ["nobody reads the answers", " unknown, of "] {
        assert!(ran.stderr.contains(told), "{told}: {ran:?}");
    }
    served.stub.seen().acts.clear();
    std::fs::write(&file, line("f")).expect("writes");
    let ran = into_nothing().ended(1);
    assert!(ran.stderr.contains("up to line 1,"), "{ran:?}");
}

#[test]
fn a_socket_that_is_named_is_enough_to_write() {
    let served = Served::new();
    // A user who may not read the state: there is none to be found.
    let elsewhere = served.host.path("elsewhere");
    std::fs::create_dir(&elsewhere).expect("a directory");
    let socket = elsewhere.join("sample.sock");
    std::os::unix::fs::symlink(served.stub.path(), &socket).expect("a link");
    let socket = socket.to_str().expect("a plain path");
    let ran = served
        .host
        .run(&["--socket", socket, "start", "t"])
        .ended(0);
    assert_eq!(ran.stdout, "done in generation 1\n");
    let by_environment = |args: &[&str]| -> common::Ran {
        let mut command = served.host.command(args);
        command.env("SHERWOOD_SOCKET", socket);
        command.output().expect("runs").into()
    };
    let ran = by_environment(&["start", "t"]).ended(0);
    assert_eq!(ran.stdout, "done in generation 2\n");
    // The command line wins, and a place that it names is the only one.
    let ran = by_environment(&["--run-dir", "nowhere", "start", "t"]).ended(4);
    assert!(ran.stderr.contains("nowhere"), "{ran:?}");
    served
        .host
        .run(&["--socket", socket, "--run-dir", "run", "start", "t"])
        .ended(2);
    // What is read is the snapshot beside it.
    served
        .host
        .run(&["--socket", socket, "get", "tasks"])
        .ended(4);
    let beside = served.stub.path().to_str().expect("a plain path");
    let ran = served
        .host
        .run(&["--socket", beside, "get", "tasks", "-o", "jsonl"])
        .ended(0);
    assert_eq!(ran.lines().len(), 40);
    // The state of another cluster is not taken, and the daemon says which is its own.
    let import = ["--socket", socket, "import", "state/state_sample.parquet"];
    served.stub.seen().cluster = Some("other".to_owned());
    let ran = served.host.run(&import).ended(1);
    let told = "is the state of cluster \"sample\", not of \"other\"; --any-cluster takes it all the same\n";
    assert!(ran.stderr.ends_with(told), "{ran:?}");
    served.stub.seen().cluster = Some("sample".to_owned());
    served.host.run(&import).ended(0);
}

/// An option that takes any number of words does not swallow the word that the command is about.
#[test]
fn the_node_or_task_may_stand_behind_the_words_of_an_option() {
    let served = Served::new();
    for args in [
        &["claim", "n", "--type", "a", "b"][..],
        &["claim", "--type", "a", "b", "n"],
        &["claim", "--type", "a", "--type", "b", "n"],
        &["claim", "--type", "a", "b", "--", "n"],
    ] {
        served.run(args).ended(0);
        let expected = json!({"do": "claim", "node": "n", "types": ["a", "b"]});
        assert_eq!(served.request(), expected, "{args:?}");
    }
    for args in [
        &["complete", "t", "--output", "a", "b"][..],
        &["complete", "--output", "a", "b", "t"],
    ] {
        served.run(args).ended(0);
        let expected = json!({"do": "complete", "task": "t", "outputs": ["a", "b"]});
        assert_eq!(served.request(), expected, "{args:?}");
    }
    for args in [
        &["claim", "--type", "a"][..],
        &["claim"],
        &["complete", "--output", "a"],
    ] {
        served.run(args).ended(2);
    }
    assert!(served.stub.seen().requests.is_empty());
}

#[test]
fn apply_answers_a_program_that_waits_for_each_answer() {
    let served = Served::new();
    let mut child = served
        .host
        .command(&["--run-dir", "run", "apply", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs");
    let mut lines = child.stdin.take().expect("a pipe");
    let mut answers = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    for number in 1..=5 {
        writeln!(lines, "{{\"do\":\"start\",\"task\":\"t{number}\"}}").expect("writes");
        let answer = answers.next().expect("an answer").expect("reads");
        let answer: Value = serde_json::from_str(&answer).expect("an answer");
        assert_eq!(answer["generation"], json!(number), "{answer}");
    }
    drop(lines);
    assert_eq!(child.wait().expect("ends").code(), Some(0));
}

#[test]
fn what_the_daemon_says_of_itself_stands_in_the_status() {
    let served = Served::new();
    let status = |format: &str| served.run(&["status", "-o", format]).ended(0);
    assert_eq!(status("json").json()["trouble"], json!({}));
    assert!(!status("text").stdout.contains("trouble"));
    let trouble = ("checkpoint".to_owned(), "the disk\nis full".to_owned());
    served.stub.seen().trouble.extend([trouble]);
    assert_eq!(
        status("json").json()["trouble"],
        json!({"checkpoint": "the disk\nis full"})
    );
    let told = status("text").stdout;
    assert!(
        told.ends_with("trouble     checkpoint: the disk\\nis full\n"),
        "{told}"
    );
    // Nobody listens: it is not known.
    std::fs::remove_file(served.stub.path()).expect("removes");
    std::fs::write(served.stub.path(), "").expect("writes");
    assert_eq!(status("json").json()["trouble"], json!(null));
    let told = status("text").stdout;
    assert!(
        told.contains("trouble     not known: cannot connect"),
        "{told}"
    );
}

#[test]
fn what_the_daemon_says_of_a_user_who_may_not_write_is_said_once() {
    let served = Served::new();
    served
        .stub
        .will(&[Act::Status(tonic::Code::PermissionDenied)]);
    let ran = served.run(&["start", "t"]).ended(1);
    assert_eq!(
        ran.stderr,
        "error: the daemon does not allow it: so it is said\n"
    );
}

#[test]
fn every_command_has_examples_and_the_exit_codes_stand_in_the_help() {
    let host = Host::new();
    let help = host.run(&["--help"]).ended(0).stdout;
    for told in [
        "5  refused: nothing of it was applied",
        "6  unknown: it may have been applied",
    ] {
        assert!(help.contains(told), "{help}");
    }
    for command in [
        "apply", "put", "patch", "delete", "assign", "claim", "start", "complete", "fail",
        "release", "cancel", "retry", "import", "recover",
    ] {
        assert!(
            help.contains(&format!("\n  {command} ")),
            "{command}: {help}"
        );
        let help = host.run(&[command, "--help"]).ended(0).stdout;
        assert!(help.contains("Example"), "{command}: {help}");
        assert!(help.contains("sherwood "), "{command}: {help}");
    }
}

#[test]
fn recover_shows_what_there_is_saves_it_and_does_not_go_where_nothing_leads() {
    let host = Host::new();
    host.sample("state");
    let recover = |args: &[&str]| host.run(&[&["--state-dir", "state", "recover"], args].concat());
    let ran = recover(&["list"]).ended(0);
    assert_eq!(
        ran.stdout,
        "no checkpoint\nlog without entries, in 0 segments\nrestore --to reaches no entry: it begins with a \
         checkpoint, and there is no good one\n"
    );
    let listing = recover(&["verify", "-o", "json"]).ended(0).json();
    assert_eq!(listing["checkpoints"], json!([]));
    assert_eq!(listing["log"]["problem"], json!(null));
    let ran = recover(&["salvage", "saved.parquet"]).ended(0);
    assert!(
        ran.stdout.contains("5 nodes, 40 tasks, 20 content"),
        "{ran:?}"
    );
    let saved = host
        .run(&["--parquet", "saved.parquet", "get", "tasks"])
        .ended(0);
    let before = host.run(&["--state-dir", "state", "get", "tasks"]).ended(0);
    assert_eq!(saved.stdout, before.stdout);
    let ran = recover(&["salvage", "saved.parquet"]).ended(1);
    assert!(ran.stderr.contains("saved.parquet"), "{ran:?}");
    let ran = recover(&["restore", "--to", "5"]).ended(1);
    assert!(ran.stderr.contains('5'), "{ran:?}");
    recover(&["restore"]).ended(2);
}
