//! Watching changes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_flight::{Action, Result as ActionResult};
use futures::StreamExt;
use serde_json::{Value, json};
use sherwood_daemon::flight::{Announced, ChangeError, ChangeSource, Changes, Options};
use sherwood_store::entry::{Effects, Entry};
use tokio::sync::watch;
use tonic::{Code, Status, Streaming};

use crate::common::{Client, Exchange, Server, block_on, wait_for};

/// A log in memory that reaches back to the generation `oldest`.
#[derive(Clone, Default)]
struct Log {
    entries: Arc<Mutex<Vec<Entry>>>,
    oldest: u64,
}

struct Cursor {
    log: Log,
    after: u64,
}

impl ChangeSource for Log {
    fn follow(&self, generation: u64) -> Result<Box<dyn Changes>, ChangeError> {
        if generation < self.oldest {
            return Err(ChangeError::Gone {
                oldest: self.oldest,
            });
        }
        Ok(Box::new(Cursor {
            log: self.clone(),
            after: generation,
        }))
    }
}

impl Changes for Cursor {
    fn next(&mut self, through: u64) -> Result<Option<Entry>, ChangeError> {
        let entries = self.log.entries.lock().unwrap();
        let next = entries
            .iter()
            .find(|entry| entry.generation > self.after && entry.sequence <= through);
        let next = next.cloned();
        self.after = next.as_ref().map_or(self.after, |entry| entry.generation);
        Ok(next)
    }
}

/// Two generations a commit, as if every other had come without a change.
fn entry(sequence: u64, rows: usize) -> Entry {
    let ids: ArrayRef = Arc::new(
        (0..rows)
            .map(|row| Some(format!("t{sequence}-{row:06}")))
            .collect::<StringArray>(),
    );
    let mut effects = Effects::default();
    effects.tables[1].upserts = vec![RecordBatch::try_from_iter([("id", ids)]).unwrap()];
    effects.tables[2].delete = vec![format!("c{sequence}")];
    Entry {
        sequence,
        generation: sequence * 2,
        committed_at_ms: 1000,
        effects,
        outcomes: Vec::new(),
    }
}

struct Setting {
    log: Log,
    announce: watch::Sender<Announced>,
    server: Server,
}

impl Setting {
    fn new(change: impl FnOnce(&mut Options, &mut Log)) -> Self {
        let (announce, announced) = watch::channel(Announced::default());
        let mut log = Log::default();
        let server = Server::with(|options| {
            change(options, &mut log);
            options.changes = Some(Arc::new(log.clone()));
            options.announced = announced;
        });
        Self {
            log,
            announce,
            server,
        }
    }

    fn commit(&self, entry: Entry) {
        let announced = Announced {
            sequence: entry.sequence,
            generation: entry.generation,
        };
        self.log.entries.lock().unwrap().push(entry);
        self.announce.send_replace(announced);
    }
}

async fn watch_from(client: &mut Client, body: Value) -> Result<Streaming<ActionResult>, Status> {
    let answers = client
        .do_action(Action::new("watch", body.to_string()))
        .await?;
    Ok(answers.into_inner())
}

async fn next(stream: &mut Streaming<ActionResult>) -> Option<Result<Value, Status>> {
    let result = stream.next().await?;
    Some(result.map(|result| serde_json::from_slice(&result.body).expect("a JSON line")))
}

#[test]
fn every_change_after_the_generation_comes_once_and_in_order_also_when_one_comes_back() {
    block_on(async {
        let setting = Setting::new(|_, _| {});
        for sequence in 1..=5 {
            setting.commit(entry(sequence, 1));
        }
        let mut client = setting.server.client().await;
        let mut seen = 0;
        for turn in 0..5 {
            let mut stream = watch_from(&mut client, json!({"from": seen}))
                .await
                .unwrap();
            setting.commit(entry(6 + turn, 1));
            for _ in 0..2 {
                let change = next(&mut stream).await.unwrap().unwrap();
                seen += 2;
                let sequence = seen / 2;
                let ops = json!([
                    {"put": "tasks", "row": {"id": format!("t{sequence}-000000")}},
                    {"delete": "content", "key": format!("c{sequence}")},
                ]);
                assert_eq!(change, json!({"generation": seen, "at": 1000, "ops": ops}));
            }
        }
    });
}

#[test]
fn what_is_not_announced_is_not_shown_and_without_a_generation_it_begins_now() {
    block_on(async {
        let setting = Setting::new(|_, _| {});
        setting.commit(entry(1, 1));
        let mut client = setting.server.client().await;
        let mut stream = watch_from(&mut client, json!({})).await.unwrap();
        // Logged, but not yet visible.
        setting.log.entries.lock().unwrap().push(entry(2, 1));
        setting.announce.send_replace(Announced {
            sequence: 1,
            generation: 2,
        });
        let early = tokio::time::timeout(Duration::from_millis(50), next(&mut stream)).await;
        assert!(early.is_err(), "{early:?}");
        setting.announce.send_replace(Announced {
            sequence: 2,
            generation: 4,
        });
        assert_eq!(next(&mut stream).await.unwrap().unwrap()["generation"], 4);
    });
}

#[test]
fn a_watcher_of_some_tables_sees_those_alone() {
    block_on(async {
        let setting = Setting::new(|_, _| {});
        let mut client = setting.server.client().await;
        let mut stream = watch_from(&mut client, json!({"from": 0, "tables": ["content"]}))
            .await
            .unwrap();
        let mut without = entry(1, 1);
        without.effects.tables[2].delete.clear();
        setting.commit(without);
        setting.commit(entry(2, 1));
        let change = next(&mut stream).await.unwrap().unwrap();
        assert_eq!(change["generation"], 4);
        assert_eq!(change["ops"], json!([{"delete": "content", "key": "c2"}]));
    });
}

#[test]
fn a_large_change_comes_in_messages_of_which_all_but_the_last_say_more() {
    block_on(async {
        let setting = Setting::new(|_, _| {});
        let mut client = setting.server.client().await;
        let mut stream = watch_from(&mut client, json!({"from": 0})).await.unwrap();
        setting.commit(entry(1, 20_000));
        let (mut keys, mut messages) = (Vec::new(), 0);
        loop {
            let change = next(&mut stream).await.unwrap().unwrap();
            messages += 1;
            for op in change["ops"].as_array().unwrap() {
                keys.extend(op["row"]["id"].as_str().map(str::to_owned));
            }
            if change["more"] != true {
                assert_eq!(
                    change["ops"].as_array().unwrap().last().unwrap()["delete"],
                    "content"
                );
                break;
            }
        }
        assert!(messages > 5, "{messages}");
        let expected: Vec<String> = (0..20_000).map(|row| format!("t1-{row:06}")).collect();
        assert_eq!(keys, expected);
        wait_for(|| setting.server.running.load().request_bytes == 0).await;
    });
}

#[test]
fn a_generation_that_cannot_be_followed_is_gone_and_names_where_to_begin() {
    block_on(async {
        let setting = Setting::new(|_, log| log.oldest = 6);
        for sequence in 3..=5 {
            setting.commit(entry(sequence, 1));
        }
        let mut client = setting.server.client().await;
        for (from, begin) in [(0, 6), (5, 6), (11, 10), (u64::MAX, 10)] {
            let status = watch_from(&mut client, json!({"from": from}))
                .await
                .unwrap_err();
            assert_eq!(status.code(), Code::OutOfRange, "{from}: {status}");
            assert!(
                status
                    .message()
                    .starts_with(&format!("gone, read from {begin}:")),
                "{from}: {status}"
            );
        }
        for body in [
            json!({"from": -1}),
            json!({"form": 1}),
            json!({"tables": ["cats"]}),
            json!(1),
        ] {
            let status = watch_from(&mut client, body.clone()).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{body}: {status}");
        }
    });
}

#[test]
fn a_watcher_that_takes_nothing_is_cut_off_and_told_what_it_has() {
    block_on(async {
        let setting =
            Setting::new(|options, _| options.limits.slow_watcher = Duration::from_millis(20));
        let mut client = setting.server.client().await;
        setting.commit(entry(1, 1));
        let mut stream = watch_from(&mut client, json!({"from": 0})).await.unwrap();
        assert_eq!(next(&mut stream).await.unwrap().unwrap()["generation"], 2);
        setting.commit(entry(2, 300_000));
        // It is not read: the watch ends by itself.
        wait_for(|| setting.server.running.load().watches == 0).await;
        let status = loop {
            match next(&mut stream).await.unwrap() {
                Ok(change) => assert_eq!(
                    (&change["generation"], &change["more"]),
                    (&json!(4), &json!(true))
                ),
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), Code::OutOfRange, "{status}");
        assert!(
            status.message().starts_with("gone, read from 2:"),
            "{status}"
        );
    });
}

#[test]
fn watches_end_with_the_server_and_with_their_client_and_are_limited() {
    block_on(async {
        let setting = Setting::new(|options, _| options.limits.watches = 9);
        let mut client = setting.server.client().await;
        let mut streams = Vec::new();
        for _ in 0..6 {
            streams.push(watch_from(&mut client, json!({})).await.unwrap());
        }
        let status = watch_from(&mut client, json!({})).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        streams.truncate(1);
        wait_for(|| setting.server.running.load().watches == 1).await;
        let Setting {
            server, announce, ..
        } = setting;
        let running = server.running;
        let stopped = tokio::task::spawn_blocking(move || running.stop(Duration::from_secs(60)));
        let status = next(&mut streams[0]).await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        stopped.await.unwrap();
        drop(announce);
    });
}

#[test]
fn a_commit_larger_than_a_users_share_of_memory_reaches_him_all_the_same() {
    block_on(async {
        let setting = Setting::new(|options, _| {
            options.limits.request_bytes = 1 << 20;
            options.limits.slow_watcher = Duration::from_secs(2);
        });
        let mut client = setting.server.client().await;
        // He holds something else, too.
        let mut exchange = Exchange::begin(&mut client, "{\"transactions\":1}")
            .await
            .unwrap();
        exchange.ask(json!({"do": "start", "task": "t", "id": "i"}).to_string());
        assert!(exchange.answer().await.unwrap().is_ok());
        let large = entry(1, 150_000);
        let bytes = large.effects.tables[1].upserts[0].get_array_memory_size();
        assert!(bytes > 2 << 20, "{bytes}");
        setting.commit(large);
        let mut stream = watch_from(&mut client, json!({"from": 0})).await.unwrap();
        let mut rows = 0;
        loop {
            let change = next(&mut stream).await.unwrap().unwrap();
            rows += change["ops"].as_array().unwrap().len();
            if change["more"] != true {
                break;
            }
        }
        assert_eq!(rows, 150_001);
    });
}

#[test]
fn watchers_that_wait_for_room_keep_no_other_watcher_waiting() {
    block_on(async {
        let setting = Setting::new(|options, _| options.limits.request_bytes = 3 << 20);
        let mut client = setting.server.client().await;
        let mut exchange = Exchange::begin(&mut client, "{\"transactions\":1}")
            .await
            .unwrap();
        let padding = " ".repeat(200 << 10);
        exchange.ask(format!(
            "{{\"do\":\"start\",\"task\":\"t\",\"id\":\"never\"{padding}}}"
        ));
        wait_for(|| setting.server.engine.kept() == 1).await;
        setting.commit(entry(1, 60_000));
        let mut waiting = Vec::new();
        for _ in 0..6 {
            let stream = watch_from(&mut client, json!({"from": 0})).await.unwrap();
            waiting.push(stream);
        }
        // Until each has tried.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut other = watch_from(&mut client, json!({"from": 2})).await.unwrap();
        setting.commit(entry(2, 1));
        let change = tokio::time::timeout(Duration::from_secs(10), next(&mut other)).await;
        let change = change.expect("it need not wait").unwrap().unwrap();
        assert_eq!(change["generation"], 4);
        setting.server.engine.release(1);
        assert!(exchange.answer().await.unwrap().is_ok());
        // At once: whoever is not read holds what room there is.
        let counts = futures::future::join_all(waiting.into_iter().map(async |mut stream| {
            let mut keys = 0;
            loop {
                let change = next(&mut stream).await.unwrap().unwrap();
                keys += change["ops"].as_array().unwrap().len();
                if change["generation"] == 4 {
                    return keys;
                }
            }
        }));
        assert_eq!(counts.await, [60_003; 6], "each once, over both commits");
    });
}

#[test]
fn a_watcher_of_some_tables_is_told_now_and_then_how_far_it_is() {
    block_on(async {
        let setting =
            Setting::new(|options, _| options.limits.watch_progress = Duration::from_millis(30));
        let mut client = setting.server.client().await;
        let mut stream = watch_from(&mut client, json!({"from": 0, "tables": ["nodes"]}))
            .await
            .unwrap();
        for last in [3, 6] {
            for sequence in last - 2..=last {
                setting.commit(entry(sequence, 1));
            }
            loop {
                let change = tokio::time::timeout(Duration::from_secs(10), next(&mut stream)).await;
                let change = change.expect("it is told").unwrap().unwrap();
                assert_eq!(change["ops"], json!([]), "{change}");
                if change["generation"] == last * 2 {
                    break;
                }
            }
        }
        // There is no news, so nothing more is said.
        let more = tokio::time::timeout(Duration::from_millis(100), next(&mut stream)).await;
        assert!(more.is_err(), "{more:?}");
    });
}
