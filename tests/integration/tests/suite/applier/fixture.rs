//! A partition folded in the test, and appliers as processes.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use chrono::Utc;
use nixfleet_bus::{Bus, BusConfig, SequenceFloors};
use nixfleet_core::partition::{PartitionState, PinnedSet};
use nixfleet_harness::process::{Process, ProcessSpec};
use nixfleet_harness::release::Signer;
use nixfleet_harness::{Database, Service, TestNamespace, binaries, ports, scratch, wait_for};
use nixfleet_proto::event::{HostEvent, HostEventBody};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{
    ChannelName, Entry, EntryBody, Hostname, InputMark, ManifestHash, Outcome, OutputFrame,
    PlanAction, Producer, RolloutId,
};
use nixfleet_store::{DatabaseConfig, Store};
use serde_json::{Value, json};

/// Long enough for a lease to expire and a process to start on a busy machine.
pub const SOON: Duration = Duration::from_secs(60);
const HOSTS: usize = 6;

/// The fold of one partition, published as a reducer does.
pub struct Fold {
    pub scope: TestNamespace,
    pub bus: Bus,
    pub store: Store,
    pub partition: Partition,
    pub state: PartitionState,
    pinned: PinnedSet,
    manifest: ManifestHash,
    rollout: RolloutId,
    out_seq: u64,
    event_seq: u64,
    dir: PathBuf,
}

impl Fold {
    /// A fleet of one channel whose release is in the object store.
    pub async fn new(name: &str) -> Self {
        let scope = nixfleet_harness::test_namespace(name).await.unwrap();
        let config = BusConfig {
            url: scope.nats_url.clone(),
            prefix: scope.prefix.clone(),
            partitions: 2,
            ..BusConfig::default()
        };
        let bus = Bus::connect(config, "test").await.unwrap();
        bus.ensure_layout(&SequenceFloors::default()).await.unwrap();
        let store = Store::connect(&DatabaseConfig {
            url: scope.database.url.clone(),
            pool_size: 2,
            ..DatabaseConfig::default()
        });
        let channel = ChannelName::from("stable");
        let signer = Signer::development().unwrap();
        let release = signer.release(&fleet(), "4f1c", Utc::now()).unwrap();
        let (fleet, rollout) = (&release.bundle.fleet, &release.bundle.rollouts[&channel]);
        let hash = |bytes: &[u8]| nixfleet_trust::canonical_hash(bytes).unwrap();
        let manifest = hash(&rollout.bytes);
        for signed in [fleet, rollout] {
            let bytes = Bytes::from(signed.bytes.clone());
            bus.manifests()
                .put(&hash(&signed.bytes), bytes)
                .await
                .unwrap();
        }
        let pinned = nixfleet_trust::pin(&rollout.bytes, &fleet.bytes, &manifest).unwrap();
        Self {
            partition: Partition::of(&channel, 2),
            state: PartitionState::new(),
            pinned: PinnedSet::from([(manifest.clone(), pinned)]),
            rollout: release.rollouts[&channel].clone(),
            store: store.unwrap(),
            dir: scratch::dir(name).unwrap(),
            manifest,
            out_seq: 0,
            event_seq: 0,
            scope,
            bus,
        }
    }

    pub fn database(&self) -> &Database {
        &self.scope.database
    }

    /// The turn that opens the rollout and dispatches every host.
    pub async fn open(&mut self) {
        let rollout_id = self.rollout.clone();
        let open = PlanAction::OpenRollout {
            channel: rollout_id.channel(),
            target_ref: rollout_id.target_ref(),
            rollout_id: rollout_id.clone(),
            manifest_hash: self.manifest.clone(),
        };
        self.turn(vec![plan(open)]).await;
        let dispatches = (0..HOSTS).map(|number| {
            plan(PlanAction::QueueDispatch {
                hostname: hostname(number),
                rollout_id: rollout_id.clone(),
                target_closure: closure(number).as_str().into(),
                soak_minutes: Default::default(),
            })
        });
        self.turn(dispatches.collect()).await;
    }

    /// A turn in which every host reports; later turns are mostly refused, which is a result, too.
    pub async fn report(&mut self) {
        self.event_seq += 1;
        let (seq, at) = (self.event_seq, Utc::now());
        let entries = (0..HOSTS).map(|number| {
            let body = match seq % 4 {
                1 => HostEventBody::DispatchAck {
                    current_closure_at_dispatch: "old".into(),
                    received_at: at,
                },
                2 => HostEventBody::ActivationStarted {
                    started_at: at,
                    switch_method: "switch".to_owned(),
                },
                3 => HostEventBody::ActivationCompleted {
                    observed_current_closure: closure(number).as_str().into(),
                    exit_code: 0,
                    completed_at: at,
                },
                _ => HostEventBody::ProbeResult {
                    probe_name: "http".into(),
                    mode: Default::default(),
                    status: nixfleet_proto::ProbeStatus::Fail,
                    observed_at: at,
                    failure_reason: Some("a\0b".to_owned()),
                    sub_results: None,
                },
            };
            EntryBody::HostEvent {
                rollout_id: self.rollout.clone(),
                hostname: hostname(number),
                producer: Producer::Agent,
                event: HostEvent { seq, body },
            }
        });
        let entries = entries.collect();
        self.turn(entries).await;
    }

    async fn turn(&mut self, bodies: Vec<EntryBody>) {
        let mut outcomes: Vec<Outcome> = Vec::new();
        let input = self.bus.input();
        let entries: Vec<Entry> = bodies
            .into_iter()
            .map(|body| Entry::new(Utc::now(), body))
            .collect();
        let positions = input
            .append_all(self.partition, entries.clone())
            .await
            .unwrap();
        for (position, entry) in positions.iter().zip(&entries) {
            outcomes.push(self.state.apply(*position, entry, &self.pinned));
        }
        let last = positions.last().unwrap();
        let frame = OutputFrame {
            first_input: positions.first().copied(),
            last_input: Some(InputMark {
                seq: last.seq,
                index: last.index,
                of: last.index + 1,
            }),
            outcomes,
            ..OutputFrame::new(1)
        };
        let output = self.bus.output(self.partition);
        // Every other frame is one of a release that stored plain JSON.
        let json = Bytes::from(serde_json::to_vec(&frame).unwrap());
        let published = if self.out_seq.is_multiple_of(2) {
            output.publish_payload(json, self.out_seq, None).await
        } else {
            output.publish_stored(json, self.out_seq, None).await
        };
        self.out_seq = published.unwrap().seq;
    }

    /// Starts an applier.
    pub fn applier(&self, number: usize) -> Process {
        let name = format!("applier-{number}");
        let program = binaries::workspace_binary("nixfleet-applier").unwrap();
        let mut spec = ProcessSpec::new(&name, program, self.dir.join(format!("{name}.log")));
        let port = ports::free().unwrap();
        for (key, value) in [
            ("INSTANCE", name),
            ("BUS__URL", self.scope.nats_url.clone()),
            ("BUS__PREFIX", self.scope.prefix.clone()),
            ("BUS__PARTITIONS", "2".to_owned()),
            ("DATABASE__URL", self.database().url_of(Service::Applier)),
            ("DATABASE__OWNER_URL", self.database().url.clone()),
            ("DATABASE__POOL_SIZE", "3".to_owned()),
            ("ADMIN__LISTEN", format!("127.0.0.1:{port}")),
            ("LEASE__TTL_SECONDS", "4".to_owned()),
            ("LEASE__RENEW_SECONDS", "1".to_owned()),
            ("TURN__CHECK_SECONDS", "1".to_owned()),
        ] {
            spec.env.insert(format!("NIXFLEET_APPLIER__{key}"), value);
        }
        Process::start(spec).unwrap()
    }

    /// Waits until the tables restore to the state of the fold.
    pub async fn wait_applied(&self, applier: &Process) {
        let applied = wait_for("the tables equal the fold", SOON, async || {
            self.compare().await
        });
        if let Err(error) = applied.await {
            panic!("{error:#}\n{}", applier.tail());
        }
    }

    async fn compare(&self) -> Result<Option<()>> {
        let snapshot = self.store.load_partition(self.partition).await?;
        let covered = snapshot.cursor.as_ref().map(|cursor| cursor.out_seq);
        if covered != Some(self.out_seq) {
            anyhow::bail!("the cursor is at {covered:?}, the log at {}", self.out_seq);
        }
        let restored = PartitionState::restore(snapshot, &self.pinned).context("restoring")?;
        anyhow::ensure!(
            restored.hash() == self.state.hash(),
            "{restored:#?}\n{:#?}",
            self.state
        );
        anyhow::ensure!(restored == self.state, "positions differ");
        Ok(Some(()))
    }
}

fn plan(action: PlanAction) -> EntryBody {
    EntryBody::Plan { epoch: 0, action }
}

fn hostname(number: usize) -> Hostname {
    Hostname::from(format!("web-{number}"))
}

fn closure(number: usize) -> String {
    format!("new-web-{number}")
}

fn fleet() -> Value {
    let hosts: serde_json::Map<String, Value> = (0..HOSTS)
        .map(|number| {
            let host = json!({ "system": "x86_64-linux", "tags": [], "channel": "stable",
                               "closureHash": closure(number), "pubkey": null });
            (hostname(number).to_string(), host)
        })
        .collect();
    json!({
        "schemaVersion": 1,
        "hosts": hosts,
        "channels": { "stable": { "rolloutPolicy": "all", "reconcileIntervalMinutes": 30,
                                  "freshnessWindow": 1440, "signingIntervalMinutes": 30 } },
        "rolloutPolicies": { "all": { "strategy": "all-at-once", "onHealthFailure": "halt" } },
    })
}
