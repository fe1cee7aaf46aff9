//! A small fleet on the real fold: releases, random hosts, and a planner whose actions take a while.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta};
use nixfleet_core::partition::PartitionState;
use nixfleet_plan::release::ChannelManifest;
use nixfleet_plan::{FleetView, PinnedSet, Release, plan};
use nixfleet_proto::fleet::{Fleet, ResolvedBudget, RolloutManifest, Selector};
use nixfleet_proto::host::ProbeDeclaration;
use nixfleet_proto::rollout::{PinnedHost, PinnedWave};
use nixfleet_proto::snapshot::{Cursor, PartitionSnapshot};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Actor, ActorKind, CommandOrigin, SignatureCheck};
use nixfleet_proto::{
    ChannelName, Decision, Entry, EntryBody, HostEvent, HostEventBody, HostRecord, HostState,
    Hostname, ManifestHash, Minutes, OnHealthFailure, OperatorCommand, Outcome, Pinned,
    PinnedManifest, PlanAction, Position, ProbeMode, ProbeStatus, Producer, StoredAt, Timestamp,
};
use serde_json::json;

/// Hosts that may be in flight at once.
pub const BUDGET: usize = 2;

const PARTITION: u16 = 0;
const EPOCH: u64 = 1;

pub struct SimulatedFleet {
    pub state: PartitionState,
    pub view: FleetView,
    pub now: Timestamp,
    pub history: Vec<String>,
    /// Published and not folded.
    pub in_log: VecDeque<(Position, PlanAction)>,
    pinned: PinnedSet,
    release: Release,
    releases: u32,
    next_seq: u64,
    refused: Vec<(PlanAction, Outcome)>,
}

fn partition() -> Partition {
    Partition::new(PARTITION)
}

/// Channel `edge` gates channel `stable`; `stable` has three waves, the middle one empty, one host in
/// none of them, and a host edge.
const HOSTS: [(&str, &str, u32, bool); 9] = [
    ("e1", "edge", 0, true),
    ("e2", "edge", 1, true),
    ("s1", "stable", 0, true),
    ("s2", "stable", 0, true),
    ("s3", "stable", 0, true),
    ("s4", "stable", 2, true),
    ("s5", "stable", 2, true),
    ("s6", "stable", 2, true),
    ("s7", "stable", 0, false),
];

impl SimulatedFleet {
    pub fn new() -> Self {
        let now = DateTime::from_timestamp(1_780_000_000, 0).unwrap();
        let (release, pinned) = release(1, now);
        let mut view = FleetView::new();
        view.set_release(release.clone());
        let mut simulated = Self {
            state: PartitionState::new(),
            view,
            now,
            history: Vec::new(),
            in_log: VecDeque::new(),
            pinned,
            release,
            releases: 1,
            next_seq: 1,
            refused: Vec::new(),
        };
        simulated.fold(EntryBody::Plan {
            epoch: EPOCH,
            action: PlanAction::Barrier {},
        });
        simulated
    }

    /// Lets one thing happen.
    pub fn step(&mut self, choice: u32) {
        self.now += TimeDelta::seconds(i64::from(choice % 7) * 20);
        match choice / 7 % 16 {
            0..=4 => self.publish_plan(),
            5..=7 => self.fold_next(),
            8..=13 => self.host_acts(choice / 112),
            14 => self.operator_acts(choice / 112),
            _ if (choice / 112).is_multiple_of(8) => self.release_again(),
            _ => self.fold_all(),
        }
    }

    /// Plans and folds until nothing is planned any more.
    pub fn settle(&mut self) {
        for _ in 0..10 {
            self.publish_plan();
            self.fold_all();
        }
    }

    pub fn publish_plan(&mut self) {
        for action in plan(&self.view, self.now).actions {
            self.publish(action);
        }
    }

    pub fn publish(&mut self, action: PlanAction) {
        let position = self.position();
        self.history.push(format!("+{}", action.name()));
        self.view
            .action_appended(partition(), position, action.clone());
        self.in_log.push_back((position, action));
    }

    pub fn fold_all(&mut self) {
        while !self.in_log.is_empty() {
            self.fold_next();
        }
    }

    fn fold_next(&mut self) {
        let Some((position, action)) = self.in_log.pop_front() else {
            return;
        };
        let body = EntryBody::Plan {
            epoch: EPOCH,
            action: action.clone(),
        };
        let outcome = self.fold_at(position, body);
        if matches!(outcome.decision, Decision::Rejected(_)) {
            self.refused.push((action, outcome));
        }
    }

    fn fold(&mut self, body: EntryBody) {
        let position = self.position();
        self.fold_at(position, body);
    }

    fn fold_at(&mut self, position: Position, body: EntryBody) -> Outcome {
        self.history
            .push(format!("{} {:?}", body.name(), body.hostname()));
        let entry = Entry::new(self.now, body);
        let stored_at = StoredAt::new(entry.received_at);
        let outcome = self.state.apply(position, stored_at, &entry, &self.pinned);
        self.view
            .apply_outcome(partition(), &outcome, &self.pinned)
            .unwrap();
        outcome
    }

    fn position(&mut self) -> Position {
        let seq = self.next_seq;
        self.next_seq += 1;
        Position { seq, index: 0 }
    }

    pub fn has_refusals(&self) -> bool {
        let fresh = self.now - TimeDelta::seconds(16);
        self.refused.iter().any(|(_, outcome)| outcome.at > fresh)
    }

    /// The view of a planner that starts now.
    pub fn fresh(&self) -> FleetView {
        let mut view = FleetView::new();
        view.load(partition(), self.snapshot(), &self.pinned)
            .unwrap();
        view.set_release(self.release.clone());
        for (action, outcome) in &self.refused {
            view.action_appended(partition(), outcome.position, action.clone());
            view.apply_outcome(partition(), outcome, &self.pinned)
                .unwrap();
        }
        for (position, action) in &self.in_log {
            view.action_appended(partition(), *position, action.clone());
        }
        view
    }

    /// A dispatch that the fold must refuse.
    pub fn dispatch_out_of_turn(&self) -> PlanAction {
        let rollout = self
            .state
            .rollouts()
            .values()
            .find(|r| r.hosts.len() > 2)
            .unwrap();
        let host = rollout.hosts.values().find(|host| host.wave > 1).unwrap();
        PlanAction::QueueDispatch {
            hostname: host.record.hostname.clone(),
            rollout_id: rollout.record.rollout_id.clone(),
            target_closure: host.record.target_closure.clone(),
            soak_minutes: host.record.soak_minutes,
        }
    }

    pub fn hosts_in_flight(&self) -> usize {
        let hosts: BTreeSet<_> = self
            .state
            .rollouts()
            .values()
            .flat_map(|r| r.hosts.keys())
            .collect();
        hosts
            .into_iter()
            .filter(|hostname| self.view.is_in_flight(hostname))
            .count()
    }

    fn release_again(&mut self) {
        self.releases += 1;
        let (release, pinned) = release(self.releases, self.now);
        self.pinned.extend(pinned);
        self.view.set_release(release.clone());
        self.release = release;
        self.history.push("release".to_owned());
    }

    fn operator_acts(&mut self, choice: u32) {
        let broken = |rollout: &nixfleet_core::partition::Rollout| {
            let failed = rollout
                .hosts
                .values()
                .find(|h| matches!(h.record.state, HostState::Failed | HostState::Reverted));
            failed.map(|h| (rollout.record.rollout_id.clone(), h.record.hostname.clone()))
        };
        let found = self.state.rollouts().values().rev().find_map(broken);
        let command = match (found, self.state.quarantines().iter().next()) {
            (Some((rollout_id, hostname)), _) if choice.is_multiple_of(2) => {
                OperatorCommand::OperatorClearance {
                    rollout_id,
                    reason: "repaired".into(),
                    waived_hosts: if choice.is_multiple_of(4) {
                        [hostname].into()
                    } else {
                        BTreeSet::new()
                    },
                }
            }
            (_, Some((channel, closures))) => OperatorCommand::ClearQuarantine {
                channel: channel.clone(),
                closure_hash: closures.keys().next().unwrap().clone(),
                reason: "false alarm".into(),
            },
            _ => return,
        };
        let origin = origin();
        self.fold(EntryBody::Operator { command, origin });
    }

    fn host_acts(&mut self, choice: u32) {
        let hosts: Vec<(Arc<HostRecord>, bool)> = self
            .state
            .rollouts()
            .values()
            .flat_map(|rollout| rollout.hosts.values())
            .map(|host| (host.record.clone(), host.is_queued()))
            .filter(|(record, queued)| {
                *queued || record.state != HostState::Pending || choice.is_multiple_of(5)
            })
            .collect();
        let Some((record, queued)) = hosts.get(choice as usize / 8 % hosts.len().max(1)).cloned()
        else {
            return;
        };
        let Some(body) = event(&record, queued, choice, self.now) else {
            self.fold(EntryBody::RecoveryCandidate {
                rollout_id: record.rollout_id.clone(),
                hostname: record.hostname.clone(),
                current_closure: record.target_closure.clone(),
            });
            return;
        };
        self.fold(EntryBody::HostEvent {
            rollout_id: record.rollout_id.clone(),
            hostname: record.hostname.clone(),
            producer: Producer::Agent,
            event: HostEvent {
                seq: record.last_event_seq + 1,
                body,
            },
        });
    }
}

fn event(record: &HostRecord, queued: bool, choice: u32, now: Timestamp) -> Option<HostEventBody> {
    let target = record.target_closure.clone();
    let completed = HostEventBody::ActivationCompleted {
        observed_current_closure: target.clone(),
        exit_code: 0,
        completed_at: now,
    };
    Some(match record.state {
        HostState::Pending if !queued => return None,
        HostState::Pending => HostEventBody::DispatchAck {
            current_closure_at_dispatch: "old".into(),
            received_at: now,
        },
        HostState::Activating if choice.is_multiple_of(11) => HostEventBody::ActivationFailed {
            exit_code: 1,
            stderr_tail: String::new(),
            failed_at: now,
        },
        HostState::Activating if choice.is_multiple_of(5) => HostEventBody::ActivationDeferred {
            component: "kernel".into(),
            deferred_at: now,
        },
        HostState::Activating | HostState::Deferred => completed,
        HostState::Failed => HostEventBody::RollbackComplete {
            reverted_to_closure: "old".into(),
            exit_code: 0,
            completed_at: now,
        },
        HostState::Soaking | HostState::Converged | HostState::Reverted => match choice % 8 {
            0 => HostEventBody::ProbeTopologyDeclared {
                probes: vec![ProbeDeclaration {
                    probe_name: "http".into(),
                    kind: "http".into(),
                    mode: ProbeMode::Enforce,
                }],
                declared_at: now,
            },
            1 if choice.is_multiple_of(3) => HostEventBody::Failed {
                failed_at: now,
                sustained_duration_secs: 60,
                failing_probes: vec!["http".into()],
                policy_applied: OnHealthFailure::RollbackAndHalt,
            },
            2 => HostEventBody::ProbeResult {
                probe_name: "http".into(),
                mode: ProbeMode::Enforce,
                status: ProbeStatus::Fail,
                observed_at: now,
                failure_reason: None,
                sub_results: None,
            },
            3..=5 => HostEventBody::ProbeResult {
                probe_name: "http".into(),
                mode: ProbeMode::Enforce,
                status: ProbeStatus::Pass,
                observed_at: now,
                failure_reason: None,
                sub_results: None,
            },
            _ => HostEventBody::Converged {
                converged_at: now,
                current_closure: target,
            },
        },
    })
}

impl SimulatedFleet {
    fn snapshot(&self) -> PartitionSnapshot {
        let cursor = Cursor::empty(Timestamp::UNIX_EPOCH);
        PartitionSnapshot {
            cursor: None,
            ..self.state.freeze().rows(cursor)
        }
    }
}

#[expect(clippy::too_many_lines, reason = "one literal of a whole release")]
fn release(number: u32, at: Timestamp) -> (Release, PinnedSet) {
    let commit = format!("{number:04x}");
    let meta = json!({"schemaVersion": 1, "signedAt": at, "ciCommit": commit});
    let channel = json!({"rolloutPolicy": "p", "reconcileIntervalMinutes": 1, "freshnessWindow": 600,
        "signingIntervalMinutes": 1});
    let closure = |hostname: &str| format!("{commit}-{hostname}");
    let hosts: BTreeMap<_, _> = HOSTS
        .iter()
        .map(|(hostname, channel, ..)| {
            let host = json!({"system": "s", "tags": [], "channel": channel,
                "closureHash": closure(hostname), "pubkey": null});
            (hostname, host)
        })
        .collect();
    let fleet: Fleet = serde_json::from_value(json!({
        "schemaVersion": 1, "hosts": hosts, "channels": {"edge": channel, "stable": channel},
        "waves": {}, "edges": [{"gated": "s1", "gates": "s2"}],
        "channelEdges": [{"gates": "edge", "gated": "stable"}], "meta": meta,
    }))
    .unwrap();
    let mut manifests = BTreeMap::new();
    let mut pinned = PinnedSet::new();
    for name in ["edge", "stable"] {
        let mine: Vec<_> = HOSTS
            .iter()
            .filter(|(_, channel, ..)| *channel == name)
            .collect();
        let host_set: Vec<_> = mine
            .iter()
            .map(|(hostname, _, wave, _)| {
                json!({"hostname": hostname, "waveIndex": wave,
                "targetClosure": closure(hostname)})
            })
            .collect();
        let manifest: RolloutManifest = serde_json::from_value(json!({
            "schemaVersion": 1, "displayName": name, "channel": name, "channelRef": commit,
            "fleetResolvedHash": "f", "hostSet": host_set, "meta": meta,
        }))
        .unwrap();
        let hash = ManifestHash::from(format!("{name}-{commit}"));
        let hosts = mine.iter().map(|(hostname, _, wave, staged)| PinnedHost {
            hostname: (*hostname).into(),
            wave_index: *wave,
            target_closure: closure(hostname).into(),
            staged: *staged,
        });
        let budget = ResolvedBudget {
            selector: Selector {
                all: true,
                ..Selector::default()
            },
            hosts: HOSTS
                .iter()
                .map(|(hostname, ..)| Hostname::from(*hostname))
                .collect(),
            max_in_flight: Some(BUDGET as u64),
            max_in_flight_pct: Some(90),
        };
        pinned.insert(
            hash.clone(),
            PinnedManifest {
                rollout_id: manifest.rollout_id(),
                pinned: Arc::new(Pinned {
                    on_health_failure: OnHealthFailure::RollbackAndHalt,
                    waves: vec![
                        PinnedWave {
                            soak_minutes: Minutes::from_minutes(1)
                        };
                        3
                    ],
                    host_set: hosts.collect(),
                    disruption_budgets: vec![budget],
                }),
            },
        );
        manifests.insert(
            ChannelName::from(name),
            ChannelManifest {
                manifest: Arc::new(manifest),
                hash,
            },
        );
    }
    (Release::new(Arc::new(fleet), manifests), pinned)
}

fn origin() -> Box<CommandOrigin> {
    Box::new(CommandOrigin {
        actor: Actor {
            kind: ActorKind::Certificate,
            issuer: "CN=people".to_owned(),
            subject: "ops".to_owned(),
        },
        idempotency_key: "k".to_owned(),
        signature: String::new(),
        check: SignatureCheck::Valid,
    })
}
