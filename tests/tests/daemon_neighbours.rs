//! Several daemons on one host: who may serve what, and who is told to go.

use std::fs;

use sherwood_client::Reader;
use sherwood_tests::daemon::{
    Daemon, Place, await_turn, command, counts, parquet, state_with_tasks,
};

#[test]
fn a_second_daemon_for_a_state_directory_names_the_first_and_goes() {
    let place = Place::with_tasks(5);
    let first = Daemon::start(&place);
    let generation = place.reader().snapshot().unwrap().generation();
    let elsewhere = place.root().join("elsewhere");
    for run_dir in [place.run_dir(), elsewhere] {
        let flags = ["--state-dir".into(), place.state_dir().into()];
        let flags = flags
            .into_iter()
            .chain(["--run-dir".into(), run_dir.into()]);
        let (status, log) = Daemon::spawn(command(flags)).end();
        assert_eq!(status.code(), Some(1), "{log}");
        for part in [
            format!("pid {}", first.pid()),
            place.state_dir().display().to_string(),
            place.run_dir().display().to_string(),
            "stop it first".to_owned(),
        ] {
            assert!(log.contains(&part), "no {part:?} in {log}");
        }
    }
    assert_eq!(place.reader().snapshot().unwrap().generation(), generation);
    assert!(!place.root().join("elsewhere").exists());
    first.stop();
    Daemon::start(&place).stop();
}

#[test]
fn a_second_daemon_for_a_snapshots_name_names_the_first_and_goes() {
    let place = Place::with_tasks(5);
    let first = Daemon::start(&place);
    let mut handle = place.reader().handle().unwrap();
    let other = Place::with_tasks(7);
    let flags = ["--state-dir".into(), other.state_dir().into()];
    let flags = flags
        .into_iter()
        .chain(["--run-dir".into(), place.run_dir().into()]);
    let (status, log) = Daemon::spawn(command(flags)).end();
    assert_eq!(status.code(), Some(1), "{log}");
    for part in [
        format!("pid {}", first.pid()),
        place.state_dir().display().to_string(),
        "c.lock".to_owned(),
    ] {
        assert!(log.contains(&part), "no {part:?} in {log}");
    }
    // The first goes on as if nothing had been.
    place.write(&parquet(&state_with_tasks("c", 5, 2)));
    await_turn(&mut handle, 2);
    assert_eq!(counts(handle.latest()), [3, 5, 2]);
    first.stop();
    // Its lock ends with it, however it ends.
    let flags = ["--state-dir".into(), other.state_dir().into()];
    let flags = flags
        .into_iter()
        .chain(["--run-dir".into(), place.run_dir().into()]);
    let second = Daemon::spawn(command(flags.clone())).ready();
    second.kill();
    Daemon::spawn(command(flags)).ready().stop();
}

#[test]
fn several_clusters_share_a_run_directory() {
    let places: Vec<Place> = ["a", "b", "a.b", "c d", "日本"]
        .into_iter()
        .enumerate()
        .map(|(number, cluster)| {
            let mut place = Place::new();
            cluster.clone_into(&mut place.cluster);
            place.write(&parquet(&state_with_tasks(cluster, 5 + number, 0)));
            place
        })
        .collect();
    let run_dir = places[0].run_dir();
    let daemons: Vec<Daemon> = places
        .iter()
        .map(|place| {
            let flags = ["--state-dir".into(), place.state_dir().into()];
            let flags = flags
                .into_iter()
                .chain(["--run-dir".into(), run_dir.clone().into()]);
            Daemon::spawn(command(flags)).ready()
        })
        .collect();
    for (number, place) in places.iter().enumerate() {
        let path = run_dir.join(format!("{}.arrow", place.cluster));
        let mut handle = Reader::open(path).unwrap().handle().unwrap();
        assert_eq!(handle.latest().cluster_id().unwrap(), place.cluster);
        assert_eq!(counts(handle.latest())[1], 5 + number as u64);
        place.write(&parquet(&state_with_tasks(&place.cluster, 5 + number, 1)));
        await_turn(&mut handle, 1);
        assert!(handle.latest().stands_for(&place.state_dir()));
    }
    for daemon in daemons {
        daemon.stop();
    }
    let left = fs::read_dir(&run_dir).unwrap().count();
    assert_eq!(left, places.len() * 2, "a snapshot and a lock for each");
}
