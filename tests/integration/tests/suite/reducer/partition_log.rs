//! One partition: an input log that the test writes, reducers as processes, and the pure fold that
//! their output is compared with.

use std::time::Duration;

use anyhow::{Result, ensure};
use chrono::Utc;
use nixfleet_bus::{decode_input, decode_output};
use nixfleet_core::partition::PartitionState;
use nixfleet_harness::{Service, wait_for};
use nixfleet_proto::fleet::{ArtifactRef, ReleaseAnnouncement, RolloutAnnouncement};
use nixfleet_proto::record_deduplication::drop_repeated_records;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::wire::{HeartbeatRequest, OwnerHeartbeat, OwnerReply};
use nixfleet_proto::{
    Entry, EntryBody, HostEvent, HostEventBody, HostState, InputFrame, LAYOUT_VERSION,
    ManifestHash, Outcome, OutputFrame, Position, Producer, StoredAt,
};

use crate::suite::service_testbed::service_process::{ServiceProcess, TIMEOUT};
use crate::suite::service_testbed::signed_release::{HOSTS, StoredRelease, channel, hostname};
use crate::suite::service_testbed::test_servers::TestServers;

/// An entry of the input log with the broker's time.
struct LoggedEntry {
    position: Position,
    stored_at: StoredAt,
    entry: Entry,
}

/// One partition and its release, without a reducer.
pub struct PartitionLog {
    pub servers: TestServers,
    pub partition: Partition,
    pub release: StoredRelease,
}

impl PartitionLog {
    /// An empty log; the release of one channel is in the object store.
    pub async fn new(name: &str) -> Self {
        let servers = TestServers::start(name, 1).await;
        servers.store.migrate().await.unwrap();
        Self {
            partition: Partition::of(&channel(), 1),
            release: StoredRelease::store(&servers.bus, "rollback-and-halt").await,
            servers,
        }
    }

    /// Starts a reducer that hashes its state after every frame.
    pub fn reducer(&self, number: usize) -> ServiceProcess {
        let own = [("fold.hash_every_entries", "1".to_owned())];
        let servers = &self.servers;
        servers.start_service(Service::Reducer, &number.to_string(), &own)
    }

    /// Starts an applier.
    pub fn applier(&self) -> ServiceProcess {
        let owner = self.servers.namespace.database.url.clone();
        let check = "1".to_owned();
        let own = [("turn.check_seconds", check), ("database.owner_url", owner)];
        self.servers.start_service(Service::Applier, "0", &own)
    }

    /// Appends entries to the input log.
    pub async fn append(&self, bodies: Vec<EntryBody>) -> Vec<Position> {
        let entries = bodies
            .into_iter()
            .map(|body| Entry::new(Utc::now(), body))
            .collect();
        let input = self.servers.bus.input();
        input.append_all(self.partition, entries).await.unwrap()
    }

    /// Opens the rollout and dispatches every host.
    pub async fn open(&self) {
        let open = std::iter::once(self.release.open());
        self.append(open.chain(self.release.dispatches()).collect())
            .await;
    }

    /// Announces the release.
    pub async fn announce(&self) {
        let artifact = |hash: &ManifestHash| ArtifactRef {
            hash: hash.clone(),
            signature: String::new(),
            signed_at: Utc::now(),
        };
        let rollout = RolloutAnnouncement {
            v: LAYOUT_VERSION,
            rollout_id: self.release.rollout.clone(),
            artifact: artifact(&self.release.manifest),
        };
        let release = ReleaseAnnouncement {
            v: LAYOUT_VERSION,
            fleet: artifact(&self.release.fleet),
            rollouts: [(self.release.rollout.channel(), rollout)].into(),
        };
        self.servers
            .bus
            .manifests()
            .announce(&release, 0)
            .await
            .unwrap();
    }

    /// Deletes the artifacts from the object store.
    pub async fn delete_artifacts(&self) {
        let client = async_nats::connect(&self.servers.namespace.nats_url)
            .await
            .unwrap();
        let bucket = self.servers.bus.names().manifest_bucket();
        let context = async_nats::jetstream::new(client);
        let store = context.get_object_store(bucket).await.unwrap();
        for hash in [&self.release.fleet, &self.release.manifest] {
            store.delete(hash.as_str()).await.unwrap();
        }
    }

    /// Every host reports the same body as event `seq`.
    pub async fn report(&self, seq: u64, body: impl Fn(usize) -> HostEventBody) {
        self.append(self.events(seq, body)).await;
    }

    /// Reports in a frame without compression, as earlier releases stored it.
    pub async fn report_plain(&self, seq: u64, body: impl Fn(usize) -> HostEventBody) {
        let events = self.events(seq, body).into_iter();
        let frame = InputFrame {
            v: LAYOUT_VERSION,
            entries: events.map(|body| Entry::new(Utc::now(), body)).collect(),
        };
        self.append_raw("event", serde_json::to_vec(&frame).unwrap())
            .await;
    }

    /// Stores a payload in the input log and returns its sequence.
    pub async fn append_raw(&self, class: &str, payload: Vec<u8>) -> u64 {
        let client = async_nats::connect(&self.servers.namespace.nats_url)
            .await
            .unwrap();
        let context = async_nats::jetstream::new(client);
        let subject = format!(
            "{}.in.{}.{class}.stable.4f1c",
            self.servers.namespace.prefix, self.partition
        );
        let stored = context.publish(subject, payload.into()).await;
        stored.unwrap().await.unwrap().sequence
    }

    fn events(&self, seq: u64, body: impl Fn(usize) -> HostEventBody) -> Vec<EntryBody> {
        let events = (0..HOSTS).map(|number| EntryBody::HostEvent {
            rollout_id: self.release.rollout.clone(),
            hostname: hostname(number).parse().unwrap(),
            producer: Producer::Agent,
            event: HostEvent {
                seq,
                body: body(number),
            },
        });
        events.collect()
    }

    /// All output frames, which must form one chain.
    pub async fn frames(&self) -> Vec<(u64, OutputFrame)> {
        let stream = self.servers.bus.names().output_stream(self.partition);
        let last = self
            .servers
            .bus
            .stream_identity(&stream)
            .await
            .unwrap()
            .last_seq;
        let mut reader = self.servers.bus.reader(&stream, 1);
        let mut frames = Vec::new();
        while reader.next_seq() <= last {
            for message in reader.next_batch(64).await.unwrap() {
                frames.push((message.seq, decode_output(&message).unwrap()));
            }
        }
        frames
    }

    /// The whole input log; an undecodable message has no entries.
    async fn inputs(&self) -> Vec<LoggedEntry> {
        let stream = self.servers.bus.names().input_stream(self.partition);
        let last = self
            .servers
            .bus
            .stream_identity(&stream)
            .await
            .unwrap()
            .last_seq;
        let mut reader = self.servers.bus.reader(&stream, 1);
        let mut inputs = Vec::new();
        while reader.next_seq() <= last {
            for message in reader.next_batch(64).await.unwrap() {
                let entries = decode_input(&message).map(|frame| frame.entries);
                let (seq, stored_at) = (message.seq, StoredAt::new(message.time));
                let entries = (0..).zip(entries.unwrap_or_default());
                inputs.extend(entries.map(|(index, entry)| LoggedEntry {
                    position: Position { seq, index },
                    stored_at,
                    entry,
                }));
            }
        }
        inputs
    }

    /// Waits until the log is folded, compares each outcome and state hash with the pure fold of the
    /// same log, and returns the state.
    pub async fn wait_folded(&self, reducer: &ServiceProcess) -> PartitionState {
        let folded = wait_for("the log is folded", TIMEOUT, async || {
            let (inputs, frames) = (self.inputs().await, self.frames().await);
            self.compare(&inputs, &frames).map(Some)
        });
        let folded = folded.await;
        folded.unwrap_or_else(|error| panic!("{error:#}\n{}", reducer.tail()))
    }

    fn compare(
        &self,
        inputs: &[LoggedEntry],
        frames: &[(u64, OutputFrame)],
    ) -> Result<PartitionState> {
        let mut state = PartitionState::new();
        let mut inputs = inputs.iter();
        for (seq, frame) in frames {
            let expected = inputs.by_ref().take(frame.outcomes.len());
            let expected = expected.map(|logged| {
                let (position, stored_at) = (logged.position, logged.stored_at);
                state.apply(position, stored_at, &logged.entry, &self.release.pinned)
            });
            let mut expected: Vec<Outcome> = expected.collect();
            drop_repeated_records(&mut expected);
            ensure!(
                frame.outcomes == expected,
                "{:#?}\n{expected:#?}",
                frame.outcomes
            );
            if let Some(hash) = &frame.state_hash {
                ensure!(*hash == state.hash(), "the hash of frame {seq} differs");
            }
        }
        ensure!(inputs.next().is_none(), "an entry has no outcome");
        Ok(state)
    }

    /// Sends a heartbeat to the owner, and waits for an owner.
    pub async fn heartbeat(&self, number: usize, current_closure: &str) -> OwnerReply {
        let heartbeat = OwnerHeartbeat {
            channel: self.release.rollout.channel(),
            received_at: Utc::now(),
            request: HeartbeatRequest {
                hostname: hostname(number).parse().unwrap(),
                rollout_id: None,
                current_closure: Some(current_closure.into()),
                at: Utc::now(),
            },
        };
        let deadline = Duration::from_secs(5);
        wait_for("the owner answers", TIMEOUT, async || {
            let asked = self
                .servers
                .bus
                .request_heartbeat(self.partition, &heartbeat, deadline);
            Ok(Some(asked.await?))
        })
        .await
        .unwrap()
    }
}

/// Hosts by state in the one rollout of the log.
pub fn count(log: &PartitionLog, state: &PartitionState, wanted: HostState) -> u64 {
    let rollout = state.rollout(&log.release.rollout).unwrap();
    rollout.counters.in_state(wanted)
}
