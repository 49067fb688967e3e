//! Rows by the thousand: one stream, one transaction.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{
    ArrayRef, Float64Array, Int32Array, Int64Array, LargeStringArray, NullArray, RecordBatch,
    StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::{FlightData, FlightDescriptor};
use arrow_schema::{DataType, Field, TimeUnit};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use sherwood_daemon::engine::{BulkMode, Request};
use tonic::{Code, Status};

use crate::common::{Client, Exchange, Server, block_on, wait_for};

fn rows(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

fn ids(from: i32, to: i32) -> RecordBatch {
    let ids: StringArray = (from..to)
        .map(|number| Some(format!("t{number}")))
        .collect();
    rows(vec![("id", Arc::new(ids))])
}

async fn encoded(command: &str, batches: Vec<RecordBatch>) -> Vec<FlightData> {
    FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(FlightDescriptor::new_cmd(command.to_owned())))
        .build(stream::iter(batches.into_iter().map(Ok)))
        .try_collect()
        .await
        .unwrap()
}

/// The answer, and how the stream ends.
async fn put(
    client: &mut Client,
    messages: Vec<FlightData>,
) -> (Option<Value>, Result<(), Status>) {
    let mut answers = match client.do_put(stream::iter(messages)).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return (None, Err(status)),
    };
    let mut answer = None;
    while let Some(result) = answers.next().await {
        match result {
            Ok(result) => answer = Some(serde_json::from_slice(&result.app_metadata).unwrap()),
            Err(status) => return (answer, Err(status)),
        }
    }
    (answer, Ok(()))
}

#[test]
fn batches_of_one_stream_are_one_request_as_they_were_sent() {
    block_on(async {
        let server = Server::start();
        let mut client = server.client().await;
        let batch = |at: i64| {
            let resources = StructArray::from(vec![(
                Arc::new(Field::new("cpu_cores", DataType::Int64, true)),
                Arc::new(Int64Array::from(vec![4])) as ArrayRef,
            )]);
            rows(vec![
                ("status", Arc::new(NullArray::new(1))),
                (
                    "id",
                    Arc::new(LargeStringArray::from(vec![format!("t{at}")])),
                ),
                (
                    "created_at",
                    Arc::new(TimestampMicrosecondArray::from(vec![at * 1000])),
                ),
                ("progress", Arc::new(Float64Array::from(vec![0.5]))),
                ("resources", Arc::new(resources)),
            ])
        };
        let messages = encoded("{\"put\":\"tasks\",\"id\":\"i\"}", vec![batch(1), batch(2)]).await;
        let (answer, ended) = put(&mut client, messages).await;
        ended.unwrap();
        assert_eq!(
            answer.unwrap(),
            json!({"id": "i", "outcome": "done", "generation": 1})
        );
        let seen = server.engine.seen.lock().unwrap();
        let [Request::Bulk(bulk)] = &seen[..] else {
            panic!("{seen:?}");
        };
        assert_eq!((bulk.mode, bulk.rows.num_rows()), (BulkMode::Put, 2));
        let types: Vec<&DataType> = bulk
            .rows
            .schema_ref()
            .fields()
            .iter()
            .map(|field| field.data_type())
            .collect();
        let cores = Field::new("cpu_cores", DataType::Int64, true);
        // What no cast has touched yet, the engine can judge by row.
        assert_eq!(
            types,
            [
                &DataType::Null,
                &DataType::LargeUtf8,
                &DataType::Timestamp(TimeUnit::Microsecond, None),
                &DataType::Float64,
                &DataType::Struct(vec![cores].into()),
            ]
        );
        assert_eq!(bulk.rows.column(1).as_string::<i64>().value(1), "t2");
    });
}

#[test]
fn patch_and_delete_are_told_apart_and_an_empty_stream_is_a_transaction_too() {
    block_on(async {
        let server = Server::start();
        let mut client = server.client().await;
        for (command, expected) in [("patch", BulkMode::Patch), ("delete", BulkMode::Delete)] {
            let command = json!({command: "tasks"}).to_string();
            let (answer, ended) = put(&mut client, encoded(&command, vec![ids(0, 3)]).await).await;
            ended.unwrap();
            assert_eq!(answer.unwrap()["outcome"], "done");
            let seen = server.engine.seen.lock().unwrap();
            assert!(
                matches!(seen.last(), Some(Request::Bulk(bulk)) if bulk.mode == expected && bulk.rows.num_rows() == 3)
            );
        }
        let (answer, _) = put(
            &mut client,
            encoded("{\"put\":\"tasks\"}", vec![ids(0, 0)]).await,
        )
        .await;
        assert_eq!(answer.unwrap()["outcome"], "done");
    });
}

#[test]
fn what_cannot_fit_is_refused_with_the_first_message_by_name() {
    block_on(async {
        let server = Server::start();
        let mut client = server.client().await;
        let text = |values: Vec<&str>| Arc::new(StringArray::from(values)) as ArrayRef;
        let number = || Arc::new(Int32Array::from(vec![1])) as ArrayRef;
        for (command, batch, told) in [
            ("{\"put\":\"cats\"}", ids(0, 1), "\"cats\""),
            ("{\"put\":\"cluster\"}", ids(0, 1), "\"cluster\""),
            (
                "{\"put\":\"tasks\",\"patch\":\"tasks\"}",
                ids(0, 1),
                "one of",
            ),
            ("{}", ids(0, 1), "one of"),
            ("{\"put\":\"tasks\",\"id\":\"\"}", ids(0, 1), "256 bytes"),
            ("put tasks", ids(0, 1), "not as it should be"),
            (
                "{\"put\":\"tasks\"}",
                rows(vec![("status", text(vec!["x"]))]),
                "\"id\"",
            ),
            (
                "{\"put\":\"tasks\"}",
                rows(vec![("id", number())]),
                "tasks.id is Utf8",
            ),
            (
                "{\"put\":\"tasks\"}",
                rows(vec![("id", text(vec!["x"])), ("priority", text(vec!["x"]))]),
                "priority",
            ),
            (
                "{\"put\":\"tasks\"}",
                rows(vec![("id", text(vec!["x"])), ("colour", number())]),
                "\"colour\"",
            ),
            (
                "{\"put\":\"tasks\"}",
                rows(vec![("id", text(vec!["x"])), ("id", text(vec!["x"]))]),
                "twice",
            ),
            (
                "{\"delete\":\"tasks\"}",
                rows(vec![("id", text(vec!["x"])), ("priority", number())]),
                "\"priority\"",
            ),
        ] {
            let (answer, ended) = put(&mut client, encoded(command, vec![batch]).await).await;
            let status = ended.expect_err(command);
            assert_eq!(status.code(), Code::InvalidArgument, "{command}: {status}");
            assert!(status.message().contains(told), "{command}: {status}");
            assert_eq!(answer, None);
        }
        assert_eq!(server.engine.seen(), 0);
        assert_eq!(server.running.load().request_bytes, 0);
    });
}

#[test]
fn columns_that_grow_in_the_tables_types_are_charged_before_the_engine_gets_them() {
    block_on(async {
        let server = Server::with(|options| options.limits.request_bytes = 3 << 20);
        let mut client = server.client().await;
        let nulls = |rows: usize| {
            let ids: StringArray = (0..rows).map(|row| Some(row.to_string())).collect();
            let null = || Arc::new(NullArray::new(rows)) as ArrayRef;
            self::rows(vec![
                ("id", Arc::new(ids)),
                ("priority", null()),
                ("created_at", null()),
                ("resources", null()),
            ])
        };
        let messages = encoded("{\"put\":\"tasks\"}", vec![nulls(100_000)]).await;
        let (_, ended) = put(&mut client, messages).await;
        let status = ended.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains("request_bytes"), "{status}");
        assert_eq!(server.engine.seen(), 0);
        let messages = encoded("{\"put\":\"tasks\"}", vec![nulls(1000)]).await;
        put(&mut client, messages).await.1.unwrap();
        assert_eq!(server.engine.seen(), 1);
        wait_for(|| server.running.load().request_bytes == 0).await;
    });
}

#[test]
fn a_put_as_large_as_may_be_finds_room_in_whatever_batches_and_columns_it_comes() {
    block_on(async {
        let server = Server::start();
        let mut client = server.client().await;
        let columns = ["id", "type", "status", "assigned_to"];
        let wide = |rows: usize| {
            let column = |name: &'static str| {
                let text: StringArray = (0..rows)
                    .map(|row| Some(format!("{name}-{row:090}")))
                    .collect();
                (name, Arc::new(text) as ArrayRef)
            };
            self::rows(columns.into_iter().map(column).collect())
        };
        for (batches, rows) in [(1, 58_000), (7, 8_000)] {
            // An idle exchange goes on holding its last message.
            let mut exchange = Exchange::begin(&mut client, "{\"transactions\":1}")
                .await
                .unwrap();
            exchange.ask("{\"do\":\"start\",\"task\":\"t\"}");
            assert!(exchange.answer().await.unwrap().is_ok());
            let batches = vec![wide(rows); batches];
            let messages: Vec<FlightData> = FlightDataEncoderBuilder::new()
                .with_max_flight_data_size(usize::MAX)
                .with_flight_descriptor(Some(FlightDescriptor::new_cmd("{\"put\":\"tasks\"}")))
                .build(stream::iter(batches.into_iter().map(Ok)))
                .try_collect()
                .await
                .unwrap();
            let bytes: usize = messages
                .iter()
                .map(|message| message.data_header.len() + message.data_body.len())
                .sum();
            assert!((21 << 20..24 << 20).contains(&bytes), "{bytes}");
            let (answer, ended) = put(&mut client, messages).await;
            ended.unwrap();
            assert_eq!(answer.unwrap()["outcome"], "done");
        }
    });
}

#[test]
fn more_rows_or_bytes_than_the_limits_are_refused_and_nothing_stays_charged() {
    block_on(async {
        let server = Server::with(|options| {
            options.limits.bulk_rows = 100;
            options.limits.bulk_bytes = 64 << 10;
        });
        let mut client = server.client().await;
        for (batches, told) in [
            (vec![ids(0, 60), ids(0, 60)], "100 rows"),
            (vec![ids(0, 20_000)], "65536 bytes"),
        ] {
            let (_, ended) = put(&mut client, encoded("{\"put\":\"tasks\"}", batches).await).await;
            let status = ended.unwrap_err();
            assert!(status.message().contains(told), "{status}");
        }
        let (answer, _) = put(
            &mut client,
            encoded("{\"put\":\"tasks\"}", vec![ids(0, 100)]).await,
        )
        .await;
        assert_eq!(answer.unwrap()["outcome"], "done");
        wait_for(|| server.running.load().request_bytes == 0).await;
    });
}

#[test]
fn damaged_messages_are_refused_and_nothing_is_done() {
    block_on(async {
        let server = Server::start();
        let mut client = server.client().await;
        let good = encoded("{\"put\":\"tasks\"}", vec![ids(0, 5)]).await;
        assert_eq!(good.len(), 2);
        for (at, cut) in [(0, true), (1, true), (0, false), (1, false)] {
            let mut messages = good.clone();
            let header = &mut messages[at].data_header;
            *header = if cut {
                header.slice(..header.len() / 2)
            } else {
                header.iter().map(|byte| !byte).collect::<Vec<u8>>().into()
            };
            let (_, ended) = put(&mut client, messages).await;
            assert_eq!(
                ended.unwrap_err().code(),
                Code::InvalidArgument,
                "{at} {cut}"
            );
        }
        let mut messages = good.clone();
        messages[1].data_body = messages[1].data_body.slice(..8);
        assert!(put(&mut client, messages).await.1.is_err());
        let mut without_descriptor = good.clone();
        without_descriptor[0].flight_descriptor = None;
        assert!(put(&mut client, without_descriptor).await.1.is_err());
        assert!(put(&mut client, vec![]).await.1.is_err());
        assert_eq!(server.engine.seen(), 0);
    });
}

#[test]
fn a_stream_that_breaks_off_changes_nothing() {
    block_on(async {
        let server = Server::start();
        let mut client = server.client().await;
        let messages = encoded("{\"put\":\"tasks\"}", vec![ids(0, 5), ids(5, 9)]).await;
        let endless = stream::iter(messages).chain(stream::pending());
        let call = tokio::spawn(async move { client.do_put(endless).await.map(drop) });
        wait_for(|| server.running.load().request_bytes > 1024).await;
        call.abort();
        wait_for(|| server.running.load().connections == 0).await;
        wait_for(|| server.running.load().request_bytes == 0).await;
        assert_eq!(server.engine.seen(), 0);
    });
}
