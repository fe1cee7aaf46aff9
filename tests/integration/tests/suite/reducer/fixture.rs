//! An input log written by the test, reducers as processes, and the pure fold to hold them against.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use chrono::Utc;
use nixfleet_bus::{Bus, BusConfig, SequenceFloors, decode_input, decode_output};
use nixfleet_core::partition::{PartitionState, PinnedSet};
use nixfleet_harness::process::{Process, ProcessSpec};
use nixfleet_harness::release::Signer;
use nixfleet_harness::{Service, TestNamespace, binaries, ports, scratch, wait_for};
use nixfleet_proto::fleet::{ArtifactRef, ReleaseAnnouncement, RolloutAnnouncement};
use nixfleet_proto::record_deduplication::drop_repeated_records;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::wire::{HeartbeatRequest, OwnerHeartbeat, OwnerReply};
use nixfleet_proto::{
    ChannelName, Entry, EntryBody, HostEvent, HostEventBody, HostState, InputFrame, LAYOUT_VERSION,
    ManifestHash, Outcome, OutputFrame, PlanAction, Position, Producer, RolloutId,
};
use nixfleet_store::{DatabaseConfig, Store};
use serde_json::{Value, json};

/// Long enough for a lease to expire and a process to start on a busy machine.
pub const SOON: Duration = Duration::from_secs(60);
pub const HOSTS: usize = 6;

/// One partition with everything but a reducer.
pub struct Log {
    pub scope: TestNamespace,
    pub bus: Bus,
    pub store: Store,
    pub partition: Partition,
    pub rollout: RolloutId,
    pub pinned: PinnedSet,
    fleet: ManifestHash,
    manifest: ManifestHash,
    dir: PathBuf,
}

impl Log {
    /// An empty log; the release of one channel is in the object store.
    pub async fn new(name: &str) -> Self {
        let scope = nixfleet_harness::test_namespace(name).await.unwrap();
        let config = BusConfig {
            url: scope.nats_url.clone(),
            prefix: scope.prefix.clone(),
            partitions: 1,
            ..BusConfig::default()
        };
        let bus = Bus::connect(config, "test").await.unwrap();
        bus.ensure_layout(&SequenceFloors::default()).await.unwrap();
        let store = Store::connect(&DatabaseConfig {
            url: scope.database.url.clone(),
            pool_size: 2,
            ..DatabaseConfig::default()
        })
        .unwrap();
        store.migrate().await.unwrap();
        let channel = ChannelName::from("stable");
        let signer = Signer::development().unwrap();
        let release = signer.release(&fleet(), "4f1c", Utc::now()).unwrap();
        let (fleet, rollout) = (&release.bundle.fleet, &release.bundle.rollouts[&channel]);
        let hash = |bytes: &[u8]| nixfleet_trust::canonical_hash(bytes).unwrap();
        let manifest = hash(&rollout.bytes);
        for signed in [fleet, rollout] {
            let bytes = Bytes::from(signed.bytes.clone());
            let stored = bus.manifests().put(&hash(&signed.bytes), bytes).await;
            stored.unwrap();
        }
        let pinned = nixfleet_trust::pin(&rollout.bytes, &fleet.bytes, &manifest).unwrap();
        Self {
            partition: Partition::of(&channel, 1),
            rollout: release.rollouts[&channel].clone(),
            pinned: PinnedSet::from([(manifest.clone(), pinned)]),
            dir: scratch::dir(name).unwrap(),
            fleet: hash(&fleet.bytes),
            manifest,
            store,
            scope,
            bus,
        }
    }

    /// Starts a reducer that hashes its state after every frame.
    pub fn reducer(&self, number: usize) -> Process {
        self.service("reducer", number, &[("FOLD__HASH_EVERY_ENTRIES", "1")])
    }

    /// Starts an applier.
    pub fn applier(&self) -> Process {
        let owner = &self.scope.database.url;
        let own = [("TURN__CHECK_SECONDS", "1"), ("DATABASE__OWNER_URL", owner)];
        self.service("applier", 0, &own)
    }

    fn service(&self, service: &str, number: usize, own: &[(&str, &str)]) -> Process {
        let name = format!("{service}-{number}");
        let program = binaries::workspace_binary(&format!("nixfleet-{service}")).unwrap();
        let mut spec = ProcessSpec::new(&name, program, self.dir.join(format!("{name}.log")));
        let listen = format!("127.0.0.1:{}", ports::free().unwrap());
        let user: Service = service.parse().unwrap();
        let url = self.scope.database.url_of(user);
        let settings = [
            ("INSTANCE", name.as_str()),
            ("BUS__URL", &self.scope.nats_url),
            ("BUS__PREFIX", &self.scope.prefix),
            ("BUS__PARTITIONS", "1"),
            ("DATABASE__URL", &url),
            ("DATABASE__POOL_SIZE", "3"),
            ("ADMIN__LISTEN", &listen),
            ("LEASE__TTL_SECONDS", "4"),
            ("LEASE__RENEW_SECONDS", "1"),
        ];
        let prefix = format!("NIXFLEET_{}__", service.to_ascii_uppercase());
        for (key, value) in settings.iter().chain(own) {
            spec.env
                .insert(format!("{prefix}{key}"), (*value).to_owned());
        }
        Process::start(spec).unwrap()
    }

    pub async fn append(&self, bodies: Vec<EntryBody>) -> Vec<Position> {
        let entries = bodies
            .into_iter()
            .map(|body| Entry::new(Utc::now(), body))
            .collect();
        let input = self.bus.input();
        input.append_all(self.partition, entries).await.unwrap()
    }

    pub async fn open(&self) {
        let open = PlanAction::OpenRollout {
            channel: self.rollout.channel(),
            target_ref: self.rollout.target_ref(),
            rollout_id: self.rollout.clone(),
            manifest_hash: self.manifest.clone(),
        };
        let queue = (0..HOSTS).map(|number| PlanAction::QueueDispatch {
            hostname: host(number).into(),
            rollout_id: self.rollout.clone(),
            target_closure: closure(number).into(),
            soak_minutes: Default::default(),
        });
        let actions = std::iter::once(open).chain(queue);
        let plan = |action| EntryBody::Plan { epoch: 0, action };
        self.append(actions.map(plan).collect()).await;
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
            rollout_id: self.rollout.clone(),
            artifact: artifact(&self.manifest),
        };
        let release = ReleaseAnnouncement {
            v: LAYOUT_VERSION,
            fleet: artifact(&self.fleet),
            rollouts: [(self.rollout.channel(), rollout)].into(),
        };
        self.bus.manifests().announce(&release, 0).await.unwrap();
    }

    /// Deletes what the object store holds.
    pub async fn lose_artifacts(&self) {
        let client = async_nats::connect(&self.scope.nats_url).await.unwrap();
        let bucket = self.bus.names().manifest_bucket();
        let context = async_nats::jetstream::new(client);
        let store = context.get_object_store(bucket).await.unwrap();
        for hash in [&self.fleet, &self.manifest] {
            store.delete(hash.as_str()).await.unwrap();
        }
    }

    /// Every host tells the same, as event `seq`.
    pub async fn tell(&self, seq: u64, body: impl Fn(usize) -> HostEventBody) {
        self.append(self.events(seq, body)).await;
    }

    /// The same in a frame of a release that stored plain JSON.
    pub async fn tell_plain(&self, seq: u64, body: impl Fn(usize) -> HostEventBody) {
        let events = self.events(seq, body).into_iter();
        let frame = InputFrame {
            v: LAYOUT_VERSION,
            entries: events.map(|body| Entry::new(Utc::now(), body)).collect(),
        };
        self.append_raw(serde_json::to_vec(&frame).unwrap()).await;
    }

    /// Stores any payload in the input log and returns its sequence.
    pub async fn append_raw(&self, payload: Vec<u8>) -> u64 {
        let client = async_nats::connect(&self.scope.nats_url).await.unwrap();
        let context = async_nats::jetstream::new(client);
        let subject = format!(
            "{}.in.{}.event.stable.4f1c",
            self.scope.prefix, self.partition
        );
        let stored = context.publish(subject, payload.into()).await;
        stored.unwrap().await.unwrap().sequence
    }

    fn events(&self, seq: u64, body: impl Fn(usize) -> HostEventBody) -> Vec<EntryBody> {
        let events = (0..HOSTS).map(|number| EntryBody::HostEvent {
            rollout_id: self.rollout.clone(),
            hostname: host(number).into(),
            producer: Producer::Agent,
            event: HostEvent {
                seq,
                body: body(number),
            },
        });
        events.collect()
    }

    /// Everything the outputs say so far, held to be one unbroken chain.
    pub async fn frames(&self) -> Vec<(u64, OutputFrame)> {
        let stream = self.bus.names().output_stream(self.partition);
        let last = self.bus.stream_identity(&stream).await.unwrap().last_seq;
        let mut reader = self.bus.reader(&stream, 1);
        let mut frames = Vec::new();
        while reader.next_seq() <= last {
            for message in reader.next_batch(64).await.unwrap() {
                frames.push((message.seq, decode_output(&message).unwrap()));
            }
        }
        frames
    }

    /// The whole input log; a message that cannot be read has no entries.
    async fn inputs(&self) -> Vec<(Position, Entry)> {
        let stream = self.bus.names().input_stream(self.partition);
        let last = self.bus.stream_identity(&stream).await.unwrap().last_seq;
        let mut reader = self.bus.reader(&stream, 1);
        let mut inputs = Vec::new();
        while reader.next_seq() <= last {
            for message in reader.next_batch(64).await.unwrap() {
                let entries = decode_input(&message).map(|frame| frame.entries);
                let seq = message.seq;
                let entries = (0..).zip(entries.unwrap_or_default());
                inputs.extend(entries.map(|(index, entry)| (Position { seq, index }, entry)));
            }
        }
        inputs
    }

    /// Waits until everything appended is folded, and holds each outcome and state hash against the
    /// pure fold of the same log. Returns the state.
    pub async fn wait_folded(&self, reducer: &Process) -> PartitionState {
        let folded = wait_for("the log is folded", SOON, async || {
            let (inputs, frames) = (self.inputs().await, self.frames().await);
            self.compare(&inputs, &frames).map(Some)
        });
        let folded = folded.await;
        folded.unwrap_or_else(|error| panic!("{error:#}\n{}", reducer.tail()))
    }

    fn compare(
        &self,
        inputs: &[(Position, Entry)],
        frames: &[(u64, OutputFrame)],
    ) -> Result<PartitionState> {
        let mut state = PartitionState::new();
        let mut inputs = inputs.iter();
        for (seq, frame) in frames {
            let expected = inputs.by_ref().take(frame.outcomes.len());
            let expected =
                expected.map(|(position, entry)| state.apply(*position, entry, &self.pinned));
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

    /// Asks the owner, until there is one.
    pub async fn beat(&self, number: usize, current_closure: &str) -> OwnerReply {
        let heartbeat = OwnerHeartbeat {
            channel: self.rollout.channel(),
            received_at: Utc::now(),
            request: HeartbeatRequest {
                hostname: host(number).into(),
                rollout_id: None,
                current_closure: Some(current_closure.into()),
                at: Utc::now(),
            },
        };
        let deadline = Duration::from_secs(5);
        wait_for("the owner answers", SOON, async || {
            let asked = self
                .bus
                .request_heartbeat(self.partition, &heartbeat, deadline);
            Ok(Some(asked.await?))
        })
        .await
        .unwrap()
    }
}

pub fn host(number: usize) -> String {
    format!("web-{number}")
}

pub fn closure(number: usize) -> String {
    format!("new-web-{number}")
}

pub fn acknowledged(_: usize) -> HostEventBody {
    HostEventBody::DispatchAck {
        current_closure_at_dispatch: "old".into(),
        received_at: Utc::now(),
    }
}

pub fn completed(number: usize) -> HostEventBody {
    HostEventBody::ActivationCompleted {
        observed_current_closure: closure(number).into(),
        exit_code: 0,
        completed_at: Utc::now(),
    }
}

/// Hosts by state in the one rollout of the log.
pub fn count(log: &Log, state: &PartitionState, wanted: HostState) -> u64 {
    let rollout = state.rollout(&log.rollout).unwrap();
    rollout.counters.in_state(wanted)
}

fn fleet() -> Value {
    let hosts: serde_json::Map<String, Value> = (0..HOSTS)
        .map(|number| {
            let host = json!({ "system": "x86_64-linux", "tags": [], "channel": "stable",
                               "closureHash": closure(number), "pubkey": null });
            (self::host(number), host)
        })
        .collect();
    json!({
        "schemaVersion": 1,
        "hosts": hosts,
        "channels": { "stable": { "rolloutPolicy": "all", "reconcileIntervalMinutes": 30,
                                  "freshnessWindow": 1440, "signingIntervalMinutes": 30 } },
        "rolloutPolicies": { "all": { "strategy": "all-at-once",
                                      "onHealthFailure": "rollback-and-halt" } },
    })
}
