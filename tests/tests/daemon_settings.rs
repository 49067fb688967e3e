//! The daemon as a process: its settings, its signals, its log, its exit codes.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;
use sherwood_tests::daemon::{
    Daemon, Place, await_turn, command, parquet, state_with_tasks, wait_for,
};

fn with_environment(mut command: Command, pairs: &[(&str, &Path)]) -> Command {
    for (name, value) in pairs {
        command.env(name, value);
    }
    command
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let place = Place::with_tasks(5);
    let root = place.root();
    let [from_file, from_environment, from_flag] =
        ["by-file", "by-environment", "by-flag"].map(|name| root.join(name));
    let config = root.join("sherwoodd.toml");
    let text = format!(
        "state_dir = {:?}\nrun_dir = {from_file:?}\ncluster_id = \"c\"\n",
        place.state_dir()
    );
    fs::write(&config, text).unwrap();
    let by_file: Vec<OsString> = vec!["--config".into(), config.clone().into()];
    let mut by_flag = by_file.clone();
    by_flag.extend(["--run-dir".into(), from_flag.clone().into()]);
    let environment = [("SHERWOOD_RUN_DIR", from_environment.as_path())];
    let cases = [
        ("file", command(by_file.clone()), &from_file),
        (
            "environment over file",
            with_environment(command(by_file), &environment),
            &from_environment,
        ),
        (
            "flag over environment and file",
            with_environment(command(by_flag), &environment),
            &from_flag,
        ),
        (
            "all from the environment",
            with_environment(
                command([]),
                &[
                    ("SHERWOOD_STATE_DIR", &place.state_dir()),
                    ("SHERWOOD_RUN_DIR", &from_environment),
                    ("SHERWOOD_CLUSTER_ID", Path::new("c")),
                ],
            ),
            &from_environment,
        ),
        (
            "the file itself from the environment",
            with_environment(command([]), &[("SHERWOOD_CONFIG", &config)]),
            &from_file,
        ),
    ];
    for (name, command, run_dir) in cases {
        Daemon::spawn(command).ready().stop();
        let made = [&from_file, &from_environment, &from_flag]
            .into_iter()
            .filter(|dir| dir.join("c.arrow").exists())
            .collect::<Vec<_>>();
        assert_eq!(made, [run_dir], "{name}");
        fs::remove_dir_all(run_dir).unwrap();
    }
}

#[test]
fn wrong_settings_are_told_with_their_place_and_nothing_is_touched() {
    let place = Place::with_tasks(5);
    let config = place.root().join("sherwoodd.toml");
    let flags = |more: &[&str]| -> Vec<OsString> {
        let more = more.iter().map(OsString::from);
        place.flags().into_iter().chain(more).collect()
    };
    let by_file: Vec<OsString> = vec!["--config".into(), config.clone().into()];
    let place_of_file = |line: &str| format!("{}:{line}", config.display());
    let cases: Vec<(&str, Vec<OsString>, Vec<String>)> = vec![
        (
            "state_dir = '/x'\nrun_dri = '/y'\n",
            by_file.clone(),
            vec![
                place_of_file("2"),
                "`run_dri`".into(),
                "did you mean `run_dir`".into(),
            ],
        ),
        (
            "[daemon]\nrun_dir = '/y'\n",
            by_file.clone(),
            vec![place_of_file("1"), "`daemon`".into(), "the keys are".into()],
        ),
        (
            "state_dir = '/x\n",
            by_file.clone(),
            vec![place_of_file("1"), "not TOML".into()],
        ),
        (
            "poll_interval_ms = 'soon'\n",
            by_file.clone(),
            vec![place_of_file("1"), "soon".into(), "milliseconds".into()],
        ),
        (
            "snapshot_mode = '0666'\n",
            by_file.clone(),
            vec![
                place_of_file("1"),
                "0666".into(),
                "writable by nobody else".into(),
            ],
        ),
        (
            "",
            by_file,
            vec!["`state_dir` is not set".into(), "SHERWOOD_STATE_DIR".into()],
        ),
        ("", flags(&["--bogus"]), vec!["--bogus".into()]),
        (
            "",
            flags(&["--cluster-id", "a/b"]),
            vec!["--cluster-id".into(), "a/b".into()],
        ),
        (
            "",
            flags(&["--cluster-id", ".."]),
            vec!["--cluster-id".into(), "..".into()],
        ),
        (
            "",
            vec!["--config".into(), "/nonexistent/x.toml".into()],
            vec!["/nonexistent/x.toml".into(), "No such file".into()],
        ),
    ];
    for (text, flags, said) in cases {
        fs::write(&config, text).unwrap();
        let (status, log) = Daemon::spawn(command(flags.clone())).end();
        assert_eq!(status.code(), Some(2), "{text:?} {flags:?}: {log}");
        for part in said {
            assert!(
                log.contains(&part),
                "{text:?} {flags:?}: no {part:?} in {log}"
            );
        }
        assert!(!place.run_dir().exists(), "{text:?} {flags:?}");
        let left: Vec<_> = fs::read_dir(place.state_dir()).unwrap().collect();
        assert_eq!(left.len(), 1, "{text:?} {flags:?}: {left:?}");
    }
}

#[test]
fn a_variable_that_looks_like_ours_misspelt_is_remarked_on() {
    let place = Place::with_tasks(5);
    let mut command = command(place.flags());
    command.env("SHERWOOD_STATE_DIRS", "/x");
    let mut daemon = Daemon::spawn(command);
    daemon.await_line("a remark", |line| {
        line["level"] == "WARN"
            && line["message"].as_str().is_some_and(|said| {
                said.contains("SHERWOOD_STATE_DIRS") && said.contains("SHERWOOD_STATE_DIR?")
            })
    });
    daemon.ready().stop();
}

#[test]
fn it_stops_cleanly_when_asked_and_the_snapshot_stays() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let place = Place::with_tasks(5);
        let daemon = Daemon::start(&place);
        daemon.signal(signal);
        let (status, log) = daemon.end();
        assert_eq!(status.code(), Some(0), "{signal}: {log}");
        assert!(log.contains("stopping"), "{signal}: {log}");
        let snapshot = place.reader().snapshot().unwrap();
        assert_eq!(sherwood_tests::daemon::counts(&snapshot), [3, 5, 2]);
        assert!(!place.reader().liveness().unwrap().alive, "{signal}");
        let left: Vec<_> = fs::read_dir(place.run_dir()).unwrap().flatten().collect();
        assert_eq!(left.len(), 2, "the snapshot and its lock: {left:?}");
    }
}

#[test]
fn a_hangup_reloads_what_can_be_reloaded() {
    let place = Place::with_tasks(5);
    let config = place.root().join("sherwoodd.toml");
    fs::write(&config, "log_level = 'info'\n").unwrap();
    let mut flags = place.flags();
    flags.extend(["--config".into(), config.clone().into()]);
    let mut command = command(flags);
    command.env_remove("SHERWOOD_LOG_LEVEL");
    let mut daemon = Daemon::spawn(command).ready();
    let mut handle = place.reader().handle().unwrap();
    // Debug lines come after the level was lowered, and not before.
    daemon.signal(Signal::SIGHUP);
    daemon.await_message("the configuration was reloaded; the state is read again");
    fs::write(&config, "log_level = 'debug'\nsnapshot_mode = '0600'\n").unwrap();
    daemon.signal(Signal::SIGHUP);
    let warning = daemon.await_line("a warning", |line| line["level"] == "WARN");
    assert_eq!(warning["settings"], "snapshot_mode", "{warning}");
    daemon.await_message("read again: nothing differs");
    // What is wrong does not stop it, and the old settings stay.
    fs::write(&config, "log_levle = 'debug'\n").unwrap();
    daemon.signal(Signal::SIGHUP);
    let error = daemon.await_line("an error", |line| line["level"] == "ERROR");
    for part in ["log_levle", "log_level", "sherwoodd.toml:1"] {
        assert!(error["error"].as_str().unwrap().contains(part), "{error}");
    }
    place.write(&parquet(&state_with_tasks("c", 5, 9)));
    await_turn(&mut handle, 9);
    daemon.stop();
}

#[test]
fn a_json_log_is_one_object_a_line_and_a_text_log_is_for_people() {
    let place = Place::with_tasks(5);
    let mut daemon = Daemon::start_with(&place, &["--log-format", "json"]);
    fs::write(place.file(), "not \"parquet\"\n\u{1b}[31m at all").unwrap();
    daemon.await_line("a refusal", |line| line["level"] == "WARN");
    for line in daemon.lines() {
        let object: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line}: {e}"));
        for key in ["timestamp", "level", "message", "target"] {
            assert!(object[key].is_string(), "{key} in {line}");
        }
    }
    daemon.stop();
    let place = Place::with_tasks(5);
    let text = place
        .flags()
        .into_iter()
        .chain(["--log-format".into(), "text".into()]);
    let daemon = Daemon::spawn(command(text));
    wait_for("it to be ready", || {
        daemon.lines().iter().any(|line| line.contains("ready"))
    });
    for line in daemon.lines() {
        assert!(serde_json::from_str::<Value>(&line).is_err(), "{line}");
        assert!(!line.contains('\u{1b}'), "no colours into a pipe: {line}");
    }
    daemon.stop();
}

#[test]
fn help_and_version_go_to_stdout_and_are_no_errors() {
    for flag in ["--help", "--version"] {
        let mut command = command([flag.into()]);
        let output = command
            .stdout(std::process::Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{flag}");
        assert!(
            !output.stdout.is_empty() && output.stderr.is_empty(),
            "{flag}"
        );
    }
}
