//! Test fleet of the gates: a channel `stable` that waits for a channel `edge`.
//!
//! `stable@b2` is current: `a` in wave 0, `b` in wave 1, `u` in no wave. `stable@a1` was superseded by
//! it. All hosts are Pending; `edge@b2` is Terminal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta};
use nixfleet_proto::host::NewHost;
use nixfleet_proto::snapshot::{
    Cause, HostRow, PartitionSnapshot, ProbeFailureRow, QuarantineRow, RolloutRow,
};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{
    ChannelName, Gate, HostRecord, HostState, ManifestHash, Minutes, Pinned, PinnedManifest,
    Position, RolloutId, RolloutRecord, RolloutState, Timestamp,
};
use serde_json::{Value, json};

use super::{Candidate, PlannedDispatches};
use crate::release::{ChannelManifest, Release};
use crate::view::{FleetView, PinnedSet};

pub(crate) const CURRENT: &str = "stable@b2";
pub(crate) const OLD: &str = "stable@a1";
const EDGE: &str = "edge@b2";
/// Enough for two channels in two of them.
pub(crate) const PARTITIONS: u16 = 64;

pub(crate) struct Fixture {
    pub now: Timestamp,
    fleet: Value,
    manifests: BTreeMap<&'static str, Value>,
    snapshot: PartitionSnapshot,
    budgets: Vec<Value>,
    held: BTreeSet<Partition>,
}

fn cause(seq: u64) -> Cause {
    Cause {
        position: position(seq),
        at: signed_at(),
    }
}

fn position(seq: u64) -> Position {
    Position { seq, index: 0 }
}

fn signed_at() -> Timestamp {
    DateTime::from_timestamp(1_780_000_000, 0).unwrap()
}

impl Fixture {
    pub fn new() -> Self {
        let meta = json!({"schemaVersion": 1, "signedAt": signed_at(), "ciCommit": "b2"});
        let host = |channel: &str| {
            json!({"system": "s", "tags": [], "channel": channel,
            "closureHash": "c", "pubkey": null})
        };
        let channel = json!({"rolloutPolicy": "p", "reconcileIntervalMinutes": 1,
            "freshnessWindow": 60, "signingIntervalMinutes": 1});
        let manifest = |channel: &str| {
            json!({"schemaVersion": 1, "displayName": channel,
            "channel": channel, "channelRef": "b2", "fleetResolvedHash": "f",
            "hostSet": [], "meta": meta})
        };
        let mut fixture = Self {
            now: signed_at() + TimeDelta::minutes(30),
            fleet: json!({
                "schemaVersion": 1,
                "hosts": {"a": host("stable"), "b": host("stable"), "u": host("stable"),
                    "e": host("edge")},
                "channels": {"edge": channel, "stable": channel, "empty": channel},
                "waves": {}, "edges": [], "channelEdges": [], "meta": meta,
            }),
            manifests: [("edge", manifest("edge")), ("stable", manifest("stable"))].into(),
            snapshot: PartitionSnapshot::default(),
            budgets: Vec::new(),
            held: BTreeSet::new(),
        };
        for (id, state, opened, hosts) in [
            (OLD, RolloutState::Superseded, -60, &["a", "b", "u"][..]),
            (CURRENT, RolloutState::Active, 0, &["a", "b", "u"]),
            (EDGE, RolloutState::Terminal, 0, &["e"]),
        ] {
            fixture.add(id, state, signed_at() + TimeDelta::minutes(opened), hosts);
        }
        fixture
    }

    fn add(&mut self, id: &str, state: RolloutState, opened_at: Timestamp, hosts: &[&str]) {
        let rollout_id: RolloutId = id.parse().unwrap();
        for hostname in hosts {
            let record = HostRecord::pending(NewHost {
                rollout_id: rollout_id.clone(),
                hostname: hostname.parse().unwrap(),
                channel: rollout_id.channel(),
                target_closure: format!("{hostname}-closure").into(),
                soak_minutes: Minutes::from_minutes(1),
                dispatched_at: opened_at,
            });
            self.snapshot.hosts.push(HostRow {
                record: record.into(),
                queued: None,
                recovery_candidate: None,
                position: position(7),
            });
        }
        self.snapshot.rollouts.push(RolloutRow {
            record: RolloutRecord {
                channel: rollout_id.channel(),
                target_ref: rollout_id.target_ref(),
                rollout_id,
                state,
                current_wave: 0,
                opened_at,
                terminal_at: None,
                superseded_at: None,
                superseded_by: None,
                waived_hosts: [].into(),
            },
            manifest_hash: ManifestHash::from(id),
            pinned: None,
            position: position(1),
        });
    }

    pub fn host(mut self, id: &str, hostname: &str, state: HostState) -> Self {
        std::sync::Arc::make_mut(&mut self.row(id, hostname).record).state = state;
        self
    }

    pub fn queued(mut self, id: &str, hostname: &str) -> Self {
        self.row(id, hostname).queued = Some(cause(7));
        self
    }

    fn row(&mut self, id: &str, hostname: &str) -> &mut HostRow {
        let mut rows = self.snapshot.hosts.iter_mut();
        rows.find(|row| {
            row.record.rollout_id.as_str() == id && row.record.hostname.as_str() == hostname
        })
        .unwrap()
    }

    pub fn rollout(mut self, id: &str, change: impl FnOnce(&mut RolloutRecord)) -> Self {
        let mut rows = self.snapshot.rollouts.iter_mut();
        let row = rows.find(|row| row.record.rollout_id.as_str() == id);
        change(&mut row.unwrap().record);
        self
    }

    pub fn quarantine(mut self, channel: &str, closure: &str) -> Self {
        self.snapshot.quarantines.push(QuarantineRow {
            channel: channel.into(),
            closure_hash: closure.into(),
            cause: cause(9),
        });
        self
    }

    pub fn failure(mut self, hostname: &str, control: Option<&str>) -> Self {
        self.snapshot.probe_failures.push(ProbeFailureRow {
            rollout_id: CURRENT.parse().unwrap(),
            hostname: hostname.parse().unwrap(),
            probe_name: "evidence".into(),
            control: nixfleet_proto::host::FailedControl {
                control_id: control.map(Into::into),
                framework: None,
            },
            cause: cause(8),
        });
        self
    }

    pub fn edge(mut self, gates: &str, gated: &str) -> Self {
        let edges = self.fleet["edges"].as_array_mut().unwrap();
        edges.push(json!({"gates": gates, "gated": gated}));
        self
    }

    pub fn channel_edge(mut self, gates: &str) -> Self {
        let edges = self.fleet["channelEdges"].as_array_mut().unwrap();
        edges.push(json!({"gates": gates, "gated": "stable"}));
        self
    }

    pub fn budget(mut self, hosts: &[&str], limits: (Option<u64>, Option<u64>)) -> Self {
        self.budgets
            .push(json!({"selector": {"tags": ["web"]}, "hosts": hosts,
            "maxInFlight": limits.0, "maxInFlightPct": limits.1}));
        self
    }

    pub fn without_manifest(mut self, channel: &str) -> Self {
        self.manifests.remove(channel);
        self
    }

    pub fn without_channel(mut self, channel: &str) -> Self {
        let channels = self.fleet["channels"].as_object_mut().unwrap();
        channels.remove(channel);
        self
    }

    pub fn at(mut self, minutes: i64, seconds: i64) -> Self {
        self.now = signed_at() + TimeDelta::minutes(minutes) + TimeDelta::seconds(seconds);
        self
    }

    pub fn view(&self) -> FleetView {
        let mut view = FleetView::new();
        let manifests = self.manifests.iter().map(|(channel, manifest)| {
            let of_channel = ChannelManifest {
                manifest: Arc::new(serde_json::from_value(manifest.clone()).unwrap()),
                hash: ManifestHash::from(*channel),
            };
            (ChannelName::from(*channel), of_channel)
        });
        let fleet = serde_json::from_value(self.fleet.clone()).unwrap();
        view.set_release(Release::new(Arc::new(fleet), manifests.collect()));
        let pinned = |hosts: Value| {
            let pinned = json!({"onHealthFailure": "halt",
                "waves": [{"soakMinutes": 1}, {"soakMinutes": 1}], "hostSet": hosts,
                "disruptionBudgets": self.budgets});
            Arc::new(serde_json::from_value::<Pinned>(pinned).unwrap())
        };
        let stable = json!([
            {"hostname": "a", "waveIndex": 0, "targetClosure": "a-closure"},
            {"hostname": "b", "waveIndex": 1, "targetClosure": "b-closure"},
            {"hostname": "u", "waveIndex": 0, "targetClosure": "u-closure", "staged": false},
        ]);
        let edge = json!([{"hostname": "e", "waveIndex": 0, "targetClosure": "e-closure"}]);
        let pins: PinnedSet = [
            (OLD, pinned(stable.clone())),
            (CURRENT, pinned(stable)),
            (EDGE, pinned(edge)),
        ]
        .map(|(id, pinned)| {
            let rollout_id = id.parse().unwrap();
            (id.into(), PinnedManifest { rollout_id, pinned })
        })
        .into();
        view.load(Partition::new(0), self.snapshot.clone(), &pins)
            .unwrap();
        view.set_held(self.held.clone(), PARTITIONS);
        view
    }

    /// A partition that takes no entries.
    pub fn held(mut self, partition: Partition) -> Self {
        self.held.insert(partition);
        self
    }

    /// The reason of a gate to hold a host of the current rollout.
    pub fn reason(&self, gate: Gate, hostname: &str) -> Option<String> {
        self.block(gate, hostname).map(|block| block.reason)
    }

    pub fn block(&self, gate: Gate, hostname: &str) -> Option<super::Block> {
        let view = self.view();
        let rollout = view.rollout(&CURRENT.parse().unwrap()).unwrap();
        let hostname = hostname.parse().unwrap();
        let candidate = Candidate {
            hostname: &hostname,
            host: &rollout.hosts()[&hostname],
            rollout,
            cursor: rollout.cursor(),
            planned_dispatches: &PlannedDispatches::default(),
            now: self.now,
        };
        super::check(gate, &view, &candidate).err()
    }

    pub fn position(seq: u64) -> Position {
        position(seq)
    }
}
