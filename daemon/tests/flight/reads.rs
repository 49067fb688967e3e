//! Tables over Flight.

use std::path::Path;

use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::{Criteria, FlightDescriptor, Ticket};
use arrow_schema::Schema;
use futures::{StreamExt, TryStreamExt};
use serde_json::json;
use sherwood_client::TableId;
use sherwood_daemon::publish::{self, Publisher};
use sherwood_shared::schema::table_schema;
use sherwood_shared::state::State;
use tonic::Code;

use crate::common::{Server, block_on};

fn publish(dir: &Path) -> Publisher {
    std::fs::remove_file(dir.join("c.arrow")).unwrap();
    let options = publish::Options {
        run_dir: dir.to_path_buf(),
        cluster_id: "c".to_owned(),
        state_dir: (1, 2),
        history: [7; 16],
        region_bytes: None,
        chunk_bytes: None,
        mode: 0o644,
    };
    Publisher::start(options, &State::empty("c"), 5).unwrap()
}

#[test]
fn all_tables_are_listed_described_and_read_with_their_generation() {
    block_on(async {
        let server = Server::start();
        let _publisher = publish(server.dir.path());
        let mut client = server.client().await;
        let infos = client
            .list_flights(Criteria::default())
            .await
            .unwrap()
            .into_inner();
        let infos: Vec<_> = infos.try_collect().await.unwrap();
        let names: Vec<String> = infos
            .iter()
            .map(|info| info.flight_descriptor.clone().unwrap().path.concat())
            .collect();
        assert_eq!(names, ["cluster", "nodes", "tasks", "content"]);
        for info in infos {
            let descriptor = info.flight_descriptor.clone().unwrap();
            let again = client
                .get_flight_info(descriptor.clone())
                .await
                .unwrap()
                .into_inner();
            assert_eq!(again, info);
            let schema = client.get_schema(descriptor).await.unwrap().into_inner();
            let schema = Schema::try_from(&schema).unwrap();
            assert_eq!(schema.metadata()["sherwood.generation"], "5");
            let ticket = info.endpoint[0].ticket.clone().unwrap();
            let rows = client.do_get(ticket).await.unwrap().into_inner();
            let mut rows = FlightRecordBatchStream::new_from_flight_data(rows.map_err(Into::into));
            let mut count = 0;
            while let Some(batch) = rows.next().await {
                count += batch.unwrap().num_rows();
            }
            assert_eq!(i64::try_from(count).unwrap(), info.total_records);
            assert_eq!(rows.schema().unwrap().fields(), schema.fields());
        }
        let tasks = FlightDescriptor::new_path(vec!["tasks".to_owned()]);
        let schema = client.get_schema(tasks).await.unwrap().into_inner();
        assert_eq!(
            Schema::try_from(&schema).unwrap().fields(),
            table_schema(TableId::Tasks).fields()
        );
    });
}

#[test]
fn what_is_no_table_and_a_snapshot_that_is_none_are_told_apart() {
    block_on(async {
        let server = Server::start();
        let mut client = server.client().await;
        let tasks = Ticket::new(json!({"table": "tasks"}).to_string());
        let status = client.do_get(tasks).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        let _publisher = publish(server.dir.path());
        for (ticket, code) in [
            ("{\"table\":\"cats\"}", Code::NotFound),
            ("{\"table\":7}", Code::InvalidArgument),
            ("tasks", Code::InvalidArgument),
            ("", Code::InvalidArgument),
            ("{\"table\":\"tasks\",\"x\":1}", Code::InvalidArgument),
        ] {
            let status = client.do_get(Ticket::new(ticket)).await.unwrap_err();
            assert_eq!(status.code(), code, "{ticket}: {status}");
        }
        for path in [
            vec![],
            vec!["cats".to_owned()],
            vec!["tasks".to_owned(), "x".to_owned()],
        ] {
            assert!(
                client
                    .get_flight_info(FlightDescriptor::new_path(path.clone()))
                    .await
                    .is_err(),
                "{path:?}"
            );
        }
    });
}
