//! Actions, one call each.

use arrow_flight::{FlightDescriptor, Ticket};
use serde_json::json;
use sherwood_daemon::engine::Request;
use tonic::Code;

use crate::common::{Server, act, block_on};

#[test]
fn a_transaction_and_a_domain_operation_reach_the_engine_and_its_answer_comes_back() {
    block_on(async {
        let server = Server::start();
        let mut client = server.client().await;
        let body = r#"{"id":"i1","ops":[{"delete":"content","key":"c1"}]}"#;
        let answer = act(&mut client, "transaction", body).await.unwrap();
        assert_eq!(
            answer,
            json!({"id": "i1", "outcome": "done", "generation": 1})
        );
        let answer = act(&mut client, "start", r#"{"task":"t1"}"#).await.unwrap();
        assert_eq!(answer, json!({"outcome": "done", "generation": 2}));
        let seen = server.engine.seen.lock().unwrap();
        assert!(
            matches!(&seen[..], [Request::Transaction(_), Request::Domain { .. }]),
            "{seen:?}"
        );
    });
}

#[test]
fn what_is_not_of_the_form_is_refused_with_its_id_and_reaches_nobody() {
    block_on(async {
        let server = Server::start();
        let mut client = server.client().await;
        for (action, body, told) in [
            (
                "transaction",
                &b"{\"id\":\"i\xff\"}"[..],
                "not a JSON object",
            ),
            ("transaction", b"", "not a JSON object"),
            ("transaction", b"[]", "not a JSON object"),
            ("transaction", b"{\"ops\":[],\"ops\":[]}", "twice"),
            (
                "transaction",
                b"{\"ops\":[{\"put\":\"cats\",\"row\":{}}]}",
                "cats",
            ),
            ("assign", b"{\"task\":\"t\"}", "\"node\""),
        ] {
            let answer = act(&mut client, action, body).await.unwrap();
            assert_eq!(answer["outcome"], "refused", "{action} {body:?}: {answer}");
            assert!(
                answer["reason"].as_str().unwrap().contains(told),
                "{action} {body:?}: {answer}"
            );
        }
        let answer = act(&mut client, "start", r#"{"id":"i7","tusk":"t1"}"#)
            .await
            .unwrap();
        assert_eq!(answer["id"], "i7");
        let unknown = act(&mut client, "explode", "{}").await.unwrap_err();
        assert_eq!(unknown.code(), Code::Unimplemented);
        assert!(unknown.message().contains("\"explode\""), "{unknown}");
        assert_eq!(server.engine.seen(), 0);
    });
}

#[test]
fn questions_are_short_and_so_are_ids() {
    block_on(async {
        let server = Server::start();
        std::fs::write(server.dir.path().join("c.arrow"), "").unwrap();
        let mut client = server.client().await;
        let long = " ".repeat(64 << 10);
        let id = |bytes: usize| json!({"id": "i".repeat(bytes)}).to_string();
        for (action, body, told) in [
            ("watch", format!("{{}}{long}"), "65536 bytes"),
            ("status", format!("{{}}{long}"), "65536 bytes"),
            ("outcome", format!("{{\"id\":\"i\"}}{long}"), "65536 bytes"),
            ("outcome", id(257), "1 to 256 bytes"),
            ("outcome", id(0), "1 to 256 bytes"),
        ] {
            let status = act(&mut client, action, body).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{action}: {status}");
            assert!(status.message().contains(told), "{action}: {status}");
        }
        let answer = act(&mut client, "outcome", id(256)).await.unwrap();
        assert_eq!(answer["outcome"], "unknown");
        let ticket = Ticket::new(format!("{{\"table\":\"tasks\"}}{long}"));
        let status = client.do_get(ticket).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        // Whoever says much is not answered at length.
        let name = "x".repeat(100_000);
        let status = act(&mut client, &name, "{}").await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{status}");
        assert!(status.message().len() < 1000, "{}", status.message().len());
        let descriptor = FlightDescriptor::new_path(vec![name]);
        let status = client.get_schema(descriptor).await.unwrap_err();
        assert!(status.message().len() < 1000, "{}", status.message().len());
    });
}
