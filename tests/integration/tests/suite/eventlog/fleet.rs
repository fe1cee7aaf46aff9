//! A fleet's streams and database, with somebody who fills them and archives beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::Utc;
use nixfleet_bus::{
    Bus, BusConfig, Message, SequenceFloors, UndecodableMessage, decode_input, decode_output,
};
use nixfleet_harness::process::{Process, ProcessSpec};
use nixfleet_harness::{
    Database, Service, binaries, monitoring, ports, scratch, shared_nats, test_namespace, wait_for,
};
use nixfleet_proto::fleet::{ArtifactRef, ReleaseAnnouncement};
use nixfleet_proto::outcome::{Decision, Outcome, OutcomeSubject};
use nixfleet_proto::subject::{Names, Partition};
use nixfleet_proto::{Entry, EntryBody, OutputFrame, Position, Reason, Rejection, RolloutId};
use nixfleet_store::{DatabaseConfig, Store, escape};
use rustix::process::Signal;
use serde_json::Value;
use tokio::task::JoinHandle;

/// Patience of everything that should happen soon.
pub const SOON: Duration = Duration::from_secs(60);

const PARTITIONS: u16 = 2;

/// Streams and a database.
pub struct Fleet {
    pub bus: Bus,
    pub store: Store,
    database: Database,
}

/// One running archive.
pub struct Eventlog {
    process: Process,
    admin: u16,
}

impl Fleet {
    /// On the shared servers.
    pub async fn start(name: &str) -> Self {
        let scope = test_namespace(name).await.unwrap();
        Self::on(name, scope.database).await
    }

    /// On another database.
    pub async fn on(name: &str, database: Database) -> Self {
        let config = BusConfig {
            url: shared_nats().unwrap().url(),
            prefix: nixfleet_harness::unique_prefix(name),
            partitions: PARTITIONS,
            input_max_bytes: 64 * 1024 * 1024,
            output_max_bytes: 64 * 1024 * 1024,
            dead_max_bytes: 2 * 1024 * 1024,
            ..BusConfig::default()
        };
        let bus = Bus::connect(config, "test/eventlog").await.unwrap();
        bus.ensure_layout(&SequenceFloors::default()).await.unwrap();
        let config = DatabaseConfig {
            url: database.url.clone(),
            ..DatabaseConfig::default()
        };
        let store = Store::connect(&config).unwrap();
        store.migrate().await.unwrap();
        Self {
            bus,
            store,
            database,
        }
    }

    /// Starts an archive.
    pub fn eventlog(&self, name: &str) -> Eventlog {
        let dir = scratch::dir(&format!("eventlog-{}-{name}", self.bus.config().prefix)).unwrap();
        let admin = ports::free().unwrap();
        let config = self.bus.config();
        let settings = [
            format!("instance={name}"),
            format!("admin.listen=\"127.0.0.1:{admin}\""),
            format!("bus.url={}", config.url),
            format!("bus.prefix={}", config.prefix),
            format!("bus.partitions={PARTITIONS}"),
            format!("bus.input_max_bytes={}", config.input_max_bytes),
            format!("bus.output_max_bytes={}", config.output_max_bytes),
            format!("bus.dead_max_bytes={}", config.dead_max_bytes),
            "lease.ttl_seconds=4".to_owned(),
            "lease.renew_seconds=1".to_owned(),
            "archive.batch_messages=16".to_owned(),
            "archive.recheck_seconds=1".to_owned(),
        ];
        let program = binaries::workspace_binary("nixfleet-eventlog").unwrap();
        let mut spec = ProcessSpec::new("eventlog", program, dir.join("eventlog.log"));
        spec.args = settings
            .into_iter()
            .flat_map(|pair| ["--set".to_owned(), pair])
            .collect();
        let url = self.database.url_of(Service::Eventlog);
        spec.env = BTreeMap::from([("NIXFLEET_EVENTLOG__DATABASE__URL".to_owned(), url)]);
        Eventlog {
            process: Process::start(spec).unwrap(),
            admin,
        }
    }

    /// Fills every stream, `rounds` times, with some messages nobody can read.
    pub fn write(&self, rounds: usize) -> JoinHandle<()> {
        let bus = self.bus.clone();
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

    /// Fills the streams of outcomes with so many frames of half a megabyte, and what nobody can read
    /// between them.
    pub async fn write_large(&self, frames: u64) {
        for partition in Partition::all(PARTITIONS) {
            for number in 0..frames {
                if number == frames / 2 {
                    write_garbage(&self.bus, partition).await;
                }
                write_large(&self.bus, partition, number).await;
            }
        }
    }

    /// Runs statements.
    pub async fn execute(&self, statements: &str) {
        nixfleet_harness::postgres::execute(&self.database.url, statements)
            .await
            .unwrap();
    }

    /// Waits for the archive and holds every row against the streams.
    pub async fn assert_archived(&self) {
        self.assert_streams_archived(|_| true).await;
        for partition in Partition::all(PARTITIONS) {
            self.assert_rows(&self.bus.names().input_stream(partition))
                .await;
            self.assert_rows(&self.bus.names().output_stream(partition))
                .await;
        }
        self.assert_rows(&self.bus.names().manifest_stream()).await;
        self.assert_rows(&self.bus.names().dead_stream()).await;
    }

    /// Waits until the cursors of some streams have reached their ends.
    pub async fn assert_streams_archived(&self, concerned: impl Fn(&str) -> bool) {
        for stream in streams(self.bus.names()) {
            if !concerned(&stream) {
                continue;
            }
            let last = self.bus.stream_identity(&stream).await.unwrap().last_seq;
            wait_for(
                &format!("{stream} archived up to {last}"),
                SOON,
                async || {
                    let mark = self.store.archive_cursor(&stream).await?;
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
        for stream in streams(self.bus.names()) {
            let mark = self.store.archive_cursor(&stream).await.unwrap();
            total += mark.map_or(0, |mark| mark.sequence);
        }
        total
    }

    /// Waits until some more is archived.
    pub async fn wait_for_progress(&self, before: u64) {
        wait_for("the archive grows", SOON, async || {
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
            tokio_postgres::connect(&self.database.url, tokio_postgres::NoTls)
                .await
                .unwrap();
        let connection = tokio::spawn(connection);
        let query = "SELECT sequence, index, kind, payload::text FROM nixfleet.archive_items \
                     WHERE stream = $1 ORDER BY sequence, index";
        let rows = client.query(query, &[&stream]).await.unwrap();
        connection.abort();
        rows.iter()
            .map(|row| {
                let payload = serde_json::from_str(&escape::decode_json(row.get(3))).unwrap();
                (row.get::<_, i64>(0) as u64, row.get(1), row.get(2), payload)
            })
            .collect()
    }

    /// Every message of the stream has its rows, and nothing else has one.
    async fn assert_rows(&self, stream: &str) {
        let identity = self.bus.stream_identity(stream).await.unwrap();
        let mut reader = self.bus.reader(stream, identity.first_seq);
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

/// Sequence, index and payload; no payload for what cannot be read.
fn expected_rows(stream: &str, message: &Message) -> Vec<(u64, i32, Option<Value>)> {
    let seq = message.seq;
    let unreadable = vec![(seq, 0, None)];
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
            return unreadable;
        };
        return items("entries", &mut frame);
    }
    if stream.contains("_OUT_") {
        if decode_output(message).is_err() {
            return unreadable;
        }
        let mut frame = parsed.unwrap();
        let outcomes = items("outcomes", &mut frame);
        let mut rows = vec![(seq, -1, Some(frame))];
        rows.extend(outcomes);
        return rows;
    }
    vec![(seq, 0, parsed.ok())]
}

fn rollout() -> RolloutId {
    "stable@4f".parse().unwrap()
}

async fn write_round(bus: &Bus, partition: Partition, round: usize) {
    let entry = |host: usize| {
        let body = EntryBody::RecoveryCandidate {
            rollout_id: rollout(),
            // Hostile hosts send NUL, and names longer than an index takes.
            hostname: match host {
                0 => "nul\0name".into(),
                1 if round == 0 => "h".repeat(5_000).into(),
                _ => format!("host-{host}").into(),
            },
            current_closure: format!("closure-{round}").into(),
        };
        Entry::new(Utc::now(), body)
    };
    let entries = (0..1 + round % 4).map(entry).collect();
    let positions = bus.input().append_all(partition, entries).await.unwrap();
    let frame = OutputFrame {
        first_input: positions.first().copied(),
        outcomes: positions.into_iter().map(outcome).collect(),
        ..OutputFrame::new(round as u64)
    };
    publish(bus, partition, &frame).await;
}

async fn publish(bus: &Bus, partition: Partition, frame: &OutputFrame) {
    let log = bus.output(partition);
    let last = bus.last_message(log.stream()).await.unwrap();
    log.publish(frame, last.map_or(0, |last| last.seq))
        .await
        .unwrap();
}

async fn write_large(bus: &Bus, partition: Partition, epoch: u64) {
    let long = |index| Outcome {
        decision: Decision::Rejected(Rejection::new(Reason::Unknown, "x".repeat(100 * 1024))),
        ..outcome(Position { seq: 1, index })
    };
    let frame = OutputFrame {
        outcomes: (0..5).map(long).collect(),
        ..OutputFrame::new(epoch)
    };
    publish(bus, partition, &frame).await;
}

fn outcome(position: Position) -> Outcome {
    Outcome {
        position,
        at: Utc::now(),
        subject: OutcomeSubject {
            entry: "RecoveryCandidate".into(),
            event: None,
            producer: None,
            rollout_id: Some(rollout()),
            hostname: Some("h".into()),
        },
        traceparent: None,
        decision: Decision::Rejected(Rejection::new(Reason::Unknown, "no such rollout")),
    }
}

/// What only a broken or hostile writer would send.
async fn write_garbage(bus: &Bus, partition: Partition) {
    let client = async_nats::connect(&bus.config().url).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let names = bus.names();
    let input = format!("{}.in.{partition}.event.stable.4f", names.prefix());
    for payload in [
        &b"{\"v\":1,\"entries\":[7]}"[..],
        b"",
        b"\xff\x00",
        b"{\"v\":9}",
        br#"{"v":1,"epoch":2,"outcomes":[{]}"#,
        br#"{"v":1,"epoch":2,"outcomes":[],"later":[7]}"#,
        // A stored form of a later release, and one that is torn.
        b"\x82later",
        b"\x81\x28\xb5\x2f\xfd",
    ] {
        for subject in [input.clone(), names.output(partition, "garbage")] {
            let sent = context.publish(subject, payload.to_vec().into()).await;
            sent.unwrap().await.unwrap();
        }
    }
    for (subject, payload) in [
        (input.clone(), too_deep()),
        (names.output(partition, "later"), of_a_later_release()),
    ] {
        let sent = context.publish(subject, payload.into()).await;
        sent.unwrap().await.unwrap();
    }
    let sent = context.publish(names.dead("test"), "not JSON".into()).await;
    sent.unwrap().await.unwrap();
    let letter = UndecodableMessage {
        stream: names.input_stream(partition),
        seq: 1,
        subject: input,
        reason: "the payload is malformed".to_owned(),
        payload: bytes::Bytes::from_static(b"\xff\x00"),
    };
    bus.store_dead_letter("reducer", letter).await.unwrap();
}

/// An entry with a field that this release does not know and the database refuses.
fn too_deep() -> String {
    let body = EntryBody::RecoveryCandidate {
        rollout_id: rollout(),
        hostname: "h".into(),
        current_closure: "c".into(),
    };
    let entry = serde_json::to_string(&Entry::new(Utc::now(), body)).unwrap();
    let levels = 100_000;
    let (open, close) = ("[".repeat(levels), "]".repeat(levels));
    let entry = entry.replacen('{', &format!(r#"{{"later":{open}{close},"#), 1);
    format!(r#"{{"v":1,"entries":[{entry}]}}"#)
}

/// An output frame with a field behind its outcomes, which looks as if they were all.
fn of_a_later_release() -> String {
    let outcome = serde_json::to_string(&outcome(Position { seq: 1, index: 0 })).unwrap();
    format!(r#"{{"v":1,"epoch":2,"outcomes":[{outcome}],"later":[{{}}]}}"#)
}

async fn announce(bus: &Bus) {
    let current = bus.manifests().current().await.unwrap();
    let release = ReleaseAnnouncement {
        v: 1,
        fleet: ArtifactRef {
            hash: "0a".into(),
            signature: "c2ln".to_owned(),
            signed_at: Utc::now(),
        },
        rollouts: BTreeMap::new(),
    };
    let expected = current.map_or(0, |(seq, _)| seq);
    bus.manifests().announce(&release, expected).await.unwrap();
}

impl Eventlog {
    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
    }

    /// An orderly stop, which must be clean.
    pub fn stop(&mut self) {
        let status = self.process.stop(Signal::TERM, SOON).unwrap();
        assert!(status.success(), "{status}\n{}", self.process.tail());
    }

    /// Starts it again as it was.
    pub fn restart(&mut self) {
        self.process = Process::start(self.process.spec().clone()).unwrap();
    }

    /// What `/readyz` says.
    pub fn ready(&self) -> anyhow::Result<Value> {
        let answer = monitoring::get(self.admin, "/readyz")?;
        Ok(serde_json::from_str(&answer.body)?)
    }

    pub async fn wait_ready(&self) {
        let up = wait_for("the archive is ready", SOON, async || {
            let ready = self.ready()?;
            Ok((ready["ready"] == true).then_some(()))
        });
        if let Err(error) = up.await {
            panic!("{error:#}\n{}", self.process.tail());
        }
    }

    /// The value of a metric; 0 when there is none.
    pub fn metric(&self, name: &str) -> f64 {
        let text = monitoring::get(self.admin, "/metrics").unwrap().body;
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                line.strip_prefix(name)?
                    .split_whitespace()
                    .last()?
                    .parse::<f64>()
                    .ok()
            })
            .sum()
    }
}
