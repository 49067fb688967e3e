//! Many transactions through one call.

use std::time::Duration;

use serde_json::json;
use tonic::Code;

use crate::common::{Exchange, Server, act, block_on, wait_for};

const BEGIN: &str = "{\"transactions\":1}";

fn start(id: &str) -> String {
    json!({"do": "start", "id": id, "task": "t"}).to_string()
}

#[test]
fn answers_come_in_the_order_of_their_requests_and_a_refused_one_ends_nothing() {
    block_on(async {
        let server = Server::start();
        let mut exchange = Exchange::begin(&mut server.client().await, BEGIN)
            .await
            .unwrap();
        for number in 0..1000 {
            match number % 4 {
                0 => exchange.ask(start(&format!("i{number}"))),
                1 => exchange.ask("{\"do\":"),
                2 => exchange.ask(json!({"do": "explode", "id": format!("i{number}")}).to_string()),
                _ => exchange.ask(
                    json!({"do": "transaction", "id": format!("i{number}"), "ops": []}).to_string(),
                ),
            }
        }
        exchange.send = None;
        for number in 0..1000 {
            let answer = exchange.answer().await.unwrap().unwrap();
            let done = number % 4 == 0 || number % 4 == 3;
            assert_eq!(
                answer["outcome"],
                if done { "done" } else { "refused" },
                "{number}: {answer}"
            );
            if number % 4 != 1 {
                assert_eq!(answer["id"], format!("i{number}"));
            }
        }
        assert!(exchange.answer().await.is_none());
        assert_eq!(server.engine.seen(), 500);
        assert_eq!(server.running.load().request_bytes, 0);
    });
}

#[test]
fn a_request_that_is_too_large_is_refused_in_its_turn_and_the_next_is_served() {
    block_on(async {
        let server = Server::start();
        let mut client = server.client().await;
        for mebibytes in [5, 10, 20] {
            let large = format!("{{\"do\":\"{}\"}}", "x".repeat(mebibytes << 20));
            let mut exchange = Exchange::begin(&mut client, BEGIN).await.unwrap();
            exchange.ask(start("before"));
            exchange.ask(large.clone());
            exchange.ask(start("behind"));
            exchange.send = None;
            for (id, outcome) in [
                (json!("before"), "done"),
                (json!(null), "refused"),
                (json!("behind"), "done"),
            ] {
                let answer = exchange.answer().await.unwrap().unwrap();
                assert_eq!(
                    (&answer["id"], &answer["outcome"]),
                    (&id, &json!(outcome)),
                    "{mebibytes}: {answer}"
                );
            }
            assert!(exchange.answer().await.is_none());
            let answer = act(&mut client, "transaction", large).await.unwrap();
            assert_eq!(answer["outcome"], "refused", "{mebibytes}: {answer}");
            let reason = answer["reason"].as_str().unwrap();
            assert!(reason.contains("4194304 are the most"), "{reason}");
        }
    });
}

#[test]
fn no_more_than_the_limit_is_under_way_and_the_rest_waits() {
    block_on(async {
        let server = Server::with(|options| options.limits.pipelined = 3);
        let mut exchange = Exchange::begin(&mut server.client().await, BEGIN)
            .await
            .unwrap();
        for number in 0..10 {
            exchange.ask(start(if number < 8 { "never" } else { "i" }));
        }
        exchange.send = None;
        wait_for(|| server.engine.kept() == 3).await;
        for number in 0..8 {
            server.engine.release(number);
            let answer = exchange.answer().await.unwrap().unwrap();
            assert_eq!(answer["generation"], number, "{answer}");
        }
        for _ in 0..2 {
            assert_eq!(exchange.answer().await.unwrap().unwrap()["id"], "i");
        }
        assert!(exchange.answer().await.is_none());
    });
}

#[test]
fn a_request_that_the_engine_drops_is_unknown_and_keeps_its_id() {
    block_on(async {
        let server = Server::start();
        let mut exchange = Exchange::begin(&mut server.client().await, BEGIN)
            .await
            .unwrap();
        exchange.ask(start("dropped"));
        let answer = exchange.answer().await.unwrap().unwrap();
        assert_eq!(
            (&answer["id"], &answer["outcome"]),
            (&json!("dropped"), &json!("unknown"))
        );
    });
}

#[test]
fn an_exchange_that_does_not_say_what_it_is_ends_at_once() {
    block_on(async {
        let server = Server::start();
        for command in [
            "",
            "{}",
            "{\"transactions\":2}",
            "{\"transactions\":1,\"x\":1}",
            "\u{1}",
        ] {
            let mut exchange = Exchange::begin(&mut server.client().await, command)
                .await
                .unwrap();
            exchange.ask(start("i"));
            let status = exchange.answer().await.unwrap().unwrap_err();
            assert_eq!(
                status.code(),
                Code::InvalidArgument,
                "{command:?}: {status}"
            );
        }
        assert_eq!(server.engine.seen(), 0);
    });
}

#[test]
fn a_client_that_vanishes_loses_its_answers_and_leaves_nothing_behind() {
    block_on(async {
        let server = Server::start();
        for _ in 0..10 {
            let exchange = Exchange::begin(&mut server.client().await, BEGIN)
                .await
                .unwrap();
            exchange.ask(start("never"));
            let before = server.engine.kept();
            wait_for(|| server.engine.kept() > before).await;
            drop(exchange);
        }
        wait_for(|| server.running.load().connections == 0).await;
        // What was submitted is the engine's, and it answers to nobody.
        for number in 0..10 {
            server.engine.release(number);
        }
        assert_eq!(server.running.load().request_bytes, 0);
    });
}

#[test]
fn a_stop_answers_what_is_under_way_and_then_closes() {
    block_on(async {
        let server = Server::start();
        let mut exchange = Exchange::begin(&mut server.client().await, BEGIN)
            .await
            .unwrap();
        exchange.ask(start("never"));
        wait_for(|| server.engine.kept() == 1).await;
        let Server {
            running,
            engine,
            dir,
        } = server;
        let socket = running.path().to_path_buf();
        let stopped = tokio::task::spawn_blocking(move || running.stop(Duration::from_secs(60)));
        wait_for(|| !socket.exists()).await;
        engine.release(7);
        assert_eq!(exchange.answer().await.unwrap().unwrap()["generation"], 7);
        assert!(
            exchange.answer().await.is_none(),
            "the stream ends by itself"
        );
        stopped.await.unwrap();
        drop(dir);
    });
}
