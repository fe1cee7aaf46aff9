//! Streams that the test fills, their archives as processes, and a comparison of both.

use std::collections::BTreeSet;
use std::time::Duration;

use nixfleet_bus::{BusConfig, Message, decode_input, decode_output};
use nixfleet_harness::{
    Database, Service, TestNamespace, shared_nats, test_namespace, unique_prefix, wait_for,
};
use nixfleet_proto::subject::{Names, Partition};
use nixfleet_store::nul_escape;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::message_writer::{announce, write_garbage, write_large, write_round};
use crate::suite::service_testbed::service_process::{ServiceProcess, TIMEOUT};
use crate::suite::service_testbed::test_servers::TestServers;

const PARTITIONS: u16 = 2;

/// Streams with small limits, and a migrated database.
pub struct FilledStreams {
    pub servers: TestServers,
}

impl FilledStreams {
    /// On the shared servers.
    pub async fn start(name: &str) -> Self {
        let namespace = test_namespace(name).await.unwrap();
        Self::with(name, namespace).await
    }

    /// With another database.
    pub async fn with_database(name: &str, database: Database) -> Self {
        let namespace = TestNamespace {
            nats_url: shared_nats().unwrap().url(),
            prefix: unique_prefix(name),
            database,
        };
        Self::with(name, namespace).await
    }

    async fn with(name: &str, namespace: TestNamespace) -> Self {
        let config = BusConfig {
            partitions: PARTITIONS,
            input_max_bytes: 64 * 1024 * 1024,
            output_max_bytes: 64 * 1024 * 1024,
            dead_max_bytes: 2 * 1024 * 1024,
            ..BusConfig::default()
        };
        let servers = TestServers::with(name, namespace, config).await;
        servers.store.migrate().await.unwrap();
        Self { servers }
    }

    /// Starts an archive.
    pub fn eventlog(&self, instance: &str) -> ServiceProcess {
        let own = [
            ("archive.batch_messages", "16".to_owned()),
            ("archive.recheck_seconds", "1".to_owned()),
        ];
        self.servers
            .start_service(Service::Eventlog, instance, &own)
    }

    /// Fills every stream `rounds` times, with undecodable messages among them.
    pub fn write(&self, rounds: usize) -> JoinHandle<()> {
        let bus = self.servers.bus.clone();
        tokio::spawn(async move {
            for partition in Partition::all(PARTITIONS) {
                write_garbage(&bus, partition).await;
            }
            announce(&bus).await;
            for round in 0..rounds {
                for partition in Partition::all(PARTITIONS) {
                    write_round(&bus, partition, round).await;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    }

    /// Fills the output streams with frames of half a megabyte, with undecodable messages between
    /// them.
    pub async fn write_large(&self, frames: u64) {
        for partition in Partition::all(PARTITIONS) {
            for number in 0..frames {
                if number == frames / 2 {
                    write_garbage(&self.servers.bus, partition).await;
                }
                write_large(&self.servers.bus, partition, number).await;
            }
        }
    }

    /// Executes SQL statements.
    pub async fn execute(&self, statements: &str) {
        nixfleet_harness::postgres::execute(&self.servers.namespace.database.url, statements)
            .await
            .unwrap();
    }

    /// Waits for the archive and compares every row with the streams.
    pub async fn assert_archived(&self) {
        self.assert_streams_archived(|_| true).await;
        for partition in Partition::all(PARTITIONS) {
            self.assert_rows(&self.servers.bus.names().input_stream(partition))
                .await;
            self.assert_rows(&self.servers.bus.names().output_stream(partition))
                .await;
        }
        self.assert_rows(&self.servers.bus.names().manifest_stream())
            .await;
        self.assert_rows(&self.servers.bus.names().dead_stream())
            .await;
    }

    /// Waits until the cursors of some streams have reached their ends.
    pub async fn assert_streams_archived(&self, concerned: impl Fn(&str) -> bool) {
        for stream in streams(self.servers.bus.names()) {
            if !concerned(&stream) {
                continue;
            }
            let last = self
                .servers
                .bus
                .stream_identity(&stream)
                .await
                .unwrap()
                .last_seq;
            wait_for(
                &format!("{stream} archived up to {last}"),
                TIMEOUT,
                async || {
                    let mark = self.servers.store.archive_cursor(&stream).await?;
                    let archived = mark.map_or(0, |mark| mark.sequence);
                    anyhow::ensure!(archived >= last, "it is at {archived}");
                    Ok(Some(()))
                },
            )
            .await
            .unwrap();
        }
    }

    /// Sum of the cursors of all streams.
    pub async fn archived_total(&self) -> u64 {
        let mut total = 0;
        for stream in streams(self.servers.bus.names()) {
            let mark = self.servers.store.archive_cursor(&stream).await.unwrap();
            total += mark.map_or(0, |mark| mark.sequence);
        }
        total
    }

    /// Waits until more messages are archived than before.
    pub async fn wait_for_progress(&self, before: u64) {
        wait_for("the archive grows", TIMEOUT, async || {
            Ok((self.archived_total().await > before).then_some(()))
        })
        .await
        .unwrap();
    }

    /// Sequence and index of every row of a stream, in order.
    pub async fn rows(&self, stream: &str) -> Vec<(u64, i32)> {
        let rows = self.archived(stream).await;
        rows.into_iter().map(|row| (row.0, row.1)).collect()
    }

    async fn archived(&self, stream: &str) -> Vec<(u64, i32, String, Value)> {
        let (client, connection) =
            tokio_postgres::connect(&self.servers.namespace.database.url, tokio_postgres::NoTls)
                .await
                .unwrap();
        let connection = tokio::spawn(connection);
        let query = "SELECT sequence, index, kind, payload::text FROM nixfleet.archive_items \
                     WHERE stream = $1 ORDER BY sequence, index";
        let rows = client.query(query, &[&stream]).await.unwrap();
        connection.abort();
        rows.iter()
            .map(|row| {
                let payload = serde_json::from_str(&nul_escape::decode_json(row.get(3))).unwrap();
                (row.get::<_, i64>(0) as u64, row.get(1), row.get(2), payload)
            })
            .collect()
    }

    /// Asserts that the rows are those of the messages in the stream.
    async fn assert_rows(&self, stream: &str) {
        let identity = self.servers.bus.stream_identity(stream).await.unwrap();
        let mut reader = self.servers.bus.reader(stream, identity.first_seq);
        let mut expected = Vec::new();
        while reader.next_seq() <= identity.last_seq {
            for message in reader.next_batch(512).await.unwrap() {
                expected.extend(expected_rows(stream, &message));
            }
        }
        let archived = self.archived(stream).await;
        assert_eq!(archived.len(), expected.len(), "{stream}");
        for (found, wanted) in archived.into_iter().zip(expected) {
            assert_eq!((found.0, found.1), (wanted.0, wanted.1), "{stream}");
            match wanted.2 {
                Some(payload) => assert_eq!(found.3, payload, "{stream}"),
                None => assert_eq!(found.2, "undecodable", "{stream}"),
            }
        }
    }
}

fn streams(names: &Names) -> BTreeSet<String> {
    let partitions = Partition::all(PARTITIONS);
    partitions
        .flat_map(|partition| {
            [
                names.input_stream(partition),
                names.output_stream(partition),
            ]
        })
        .chain([names.manifest_stream(), names.dead_stream()])
        .collect()
}

/// Sequence, index and payload; no payload for an undecodable message.
fn expected_rows(stream: &str, message: &Message) -> Vec<(u64, i32, Option<Value>)> {
    let seq = message.seq;
    let undecodable = vec![(seq, 0, None)];
    let items = |key: &str, frame: &mut Value| {
        let items = frame.as_object_mut().unwrap().remove(key).unwrap();
        let items = items.as_array().unwrap().clone();
        (0..)
            .zip(items)
            .map(|(index, item)| (seq, index, Some(item)))
            .collect::<Vec<_>>()
    };
    let parsed = serde_json::from_slice::<Value>(&message.payload);
    if stream.contains("_IN_") {
        let (Ok(_), Ok(mut frame)) = (decode_input(message), parsed) else {
            return undecodable;
        };
        return items("entries", &mut frame);
    }
    if stream.contains("_OUT_") {
        if decode_output(message).is_err() {
            return undecodable;
        }
        let mut frame = parsed.unwrap();
        let outcomes = items("outcomes", &mut frame);
        let mut rows = vec![(seq, -1, Some(frame))];
        rows.extend(outcomes);
        return rows;
    }
    vec![(seq, 0, parsed.ok())]
}
