//! One record per state and one event per kind.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::TimeDelta;
use nixfleet_core::host::{HostInput, StepCtx};
use nixfleet_core::partition::PinnedSet;
use nixfleet_proto::host::{NewHost, ProbeDeclaration, ProbeRecord};
use nixfleet_proto::rollout::{PinnedHost, PinnedWave, Rollback};
use nixfleet_proto::{Actor, ActorKind, CommandOrigin, SignatureCheck};
use nixfleet_proto::{
    ClosureHash, Entry, EntryBody, HostEvent, HostEventBody, HostRecord, HostState, ManifestHash,
    Minutes, OnHealthFailure, Pinned, PinnedManifest, PlanAction, ProbeMode, ProbeName,
    ProbeStatus, Producer, RollbackFault, RolloutEvent, RolloutId, RolloutRecord, RolloutState,
    Timestamp,
};

/// `minutes` after the start of the tests' time.
pub fn at(minutes: i64) -> Timestamp {
    "2026-05-01T10:00:00Z".parse::<Timestamp>().unwrap() + TimeDelta::minutes(minutes)
}

pub fn id(text: &str) -> RolloutId {
    text.parse().unwrap()
}

pub fn target() -> ClosureHash {
    ClosureHash::from("target-web-01")
}

pub fn before() -> ClosureHash {
    ClosureHash::from("before-web-01")
}

/// A record as the machine leaves it in `state`, with sequence 10.
pub fn record(state: HostState) -> HostRecord {
    let mut record = HostRecord::pending(NewHost {
        rollout_id: id("stable@4f"),
        hostname: "web-01".into(),
        channel: "stable".into(),
        target_closure: target(),
        soak_minutes: Minutes::from_minutes(30),
        dispatched_at: at(0),
    });
    record.state = state;
    record.last_event_seq = 10;
    record.recovery_seq = 2;
    if state != HostState::Pending {
        record.current_closure_at_dispatch = Some(before());
        record.dispatch_acked_at = Some(at(1));
    }
    if matches!(state, HostState::Soaking | HostState::Converged) {
        record.current_closure = Some(target());
        record.activation_completed_at = Some(at(5));
        record.soak_due_at = Some(at(35));
        record.declared_probes = Some([].into());
    }
    if state == HostState::Converged {
        record.converged_at = Some(at(36));
    }
    if matches!(state, HostState::Failed | HostState::Reverted) {
        record.failed_at = Some(at(20));
        record.policy_applied = Some(OnHealthFailure::RollbackAndHalt);
    }
    if state == HostState::Reverted {
        record.reverted_at = Some(at(22));
        record.reverted_to = Some(before());
        record.current_closure = Some(before());
    }
    record
}

/// One event of each kind, at minute 40, that changes the state where it can.
pub fn events() -> Vec<HostEventBody> {
    use HostEventBody as E;
    let probe_name = ProbeName::from("http");
    let mode = ProbeMode::Enforce;
    let now = at(40);
    vec![
        E::DispatchAck {
            current_closure_at_dispatch: before(),
            received_at: now,
        },
        E::ActivationStarted {
            started_at: now,
            switch_method: "switch".to_owned(),
        },
        E::ActivationCompleted {
            observed_current_closure: target(),
            exit_code: 0,
            completed_at: now,
        },
        E::ActivationDeferred {
            component: "kernel".to_owned(),
            deferred_at: now,
        },
        E::ActivationFailed {
            exit_code: 1,
            stderr_tail: "boom".to_owned(),
            failed_at: now,
        },
        E::ProbeTopologyDeclared {
            probes: vec![declared("http", ProbeMode::Enforce)],
            declared_at: now,
        },
        E::ProbeObservedFirst {
            probe_name: probe_name.clone(),
            mode,
            observed_at: now,
        },
        E::ProbeResult {
            probe_name: probe_name.clone(),
            mode,
            status: ProbeStatus::Fail,
            observed_at: now,
            failure_reason: Some("503".to_owned()),
            sub_results: None,
        },
        E::ProbeFailureFirst {
            probe_name: probe_name.clone(),
            mode,
            first_failed_at: now,
        },
        E::Failed {
            failed_at: now,
            sustained_duration_secs: 120,
            failing_probes: vec![probe_name],
            policy_applied: OnHealthFailure::RollbackAndHalt,
        },
        E::RollbackComplete {
            reverted_to_closure: before(),
            exit_code: 0,
            completed_at: now,
        },
        E::RollbackFailed {
            reason: RollbackFault::Impossible,
            detail: "no".to_owned(),
            failed_at: now,
        },
        E::Converged {
            converged_at: now,
            current_closure: target(),
        },
    ]
}

pub fn declared(name: &str, mode: ProbeMode) -> ProbeDeclaration {
    ProbeDeclaration {
        probe_name: name.into(),
        kind: "http".to_owned(),
        mode,
    }
}

pub fn probe(status: ProbeStatus, mode: ProbeMode) -> ProbeRecord {
    ProbeRecord {
        status,
        mode,
        last_observed_at: at(10),
        last_pass_at: None,
        failure_reason: None,
        failing_controls: None,
    }
}

pub fn ctx(on_health_failure: OnHealthFailure) -> StepCtx {
    StepCtx {
        on_health_failure,
        rollout_state: RolloutState::Active,
        received_at: at(40),
    }
}

pub fn event(seq: u64, body: HostEventBody) -> HostEvent {
    HostEvent { seq, body }
}

pub fn agent_input(event: &HostEvent) -> HostInput<'_> {
    HostInput::Event {
        producer: Producer::Agent,
        event,
    }
}

/// A rollout record as the machine leaves it in `state`.
pub fn rollout_record(state: RolloutState) -> RolloutRecord {
    let over = matches!(state, RolloutState::Superseded | RolloutState::Pruned);
    RolloutRecord {
        rollout_id: id("stable@4f"),
        channel: "stable".into(),
        target_ref: "4f".into(),
        state,
        current_wave: 0,
        opened_at: at(0),
        terminal_at: (state == RolloutState::Terminal).then(|| at(30)),
        superseded_at: over.then(|| at(30)),
        superseded_by: over.then(|| id("stable@3e")),
        waived_hosts: BTreeSet::new(),
    }
}

pub fn host_changed(to: HostState, rollback: Option<Rollback>) -> RolloutEvent {
    RolloutEvent::HostStateChanged {
        rollout_id: id("stable@4f"),
        hostname: "web-01".into(),
        from: HostState::Soaking,
        to,
        rollback,
        at: at(40),
    }
}

pub fn wave_advanced(from_wave: u32, to_wave: u32) -> RolloutEvent {
    RolloutEvent::WaveAdvanced {
        rollout_id: id("stable@4f"),
        from_wave,
        to_wave,
        at: at(40),
    }
}

pub fn clearance(hosts: &[&str]) -> RolloutEvent {
    RolloutEvent::OperatorClearance {
        rollout_id: id("stable@4f"),
        operator: "ops".to_owned(),
        reason: "repaired".to_owned(),
        waived_hosts: hosts.iter().map(|name| name.parse().unwrap()).collect(),
        at: at(40),
    }
}

/// One event of each kind, with every variant that the table tells apart.
pub fn rollout_events() -> Vec<(&'static str, RolloutEvent)> {
    use RolloutEvent as E;
    let rollout_id = id("stable@4f");
    let now = at(40);
    vec![
        (
            "RolloutOpened",
            E::RolloutOpened {
                rollout_id: rollout_id.clone(),
                channel: "stable".into(),
                target_ref: "4f".into(),
                at: now,
            },
        ),
        (
            "HostJoined",
            E::HostJoined {
                rollout_id: rollout_id.clone(),
                at: now,
            },
        ),
        (
            "HostStateChanged to Soaking",
            host_changed(HostState::Soaking, None),
        ),
        (
            "HostStateChanged to Failed, rollback expected",
            host_changed(HostState::Failed, Some(Rollback::Expected)),
        ),
        (
            "HostStateChanged to Failed, no rollback",
            host_changed(HostState::Failed, Some(Rollback::None)),
        ),
        (
            "HostStateChanged to Reverted",
            host_changed(HostState::Reverted, None),
        ),
        ("WaveAdvanced n to n", wave_advanced(0, 0)),
        ("WaveAdvanced n to m", wave_advanced(0, 2)),
        (
            "RolloutTerminal",
            E::RolloutTerminal {
                rollout_id: rollout_id.clone(),
                at: now,
            },
        ),
        (
            "SuccessorOpened",
            E::SuccessorOpened {
                superseded_rollout_id: rollout_id.clone(),
                successor_rollout_id: id("stable@5b"),
                at: now,
            },
        ),
        (
            "RetentionExpired",
            E::RetentionExpired {
                rollout_id,
                at: now,
            },
        ),
        ("OperatorClearance", clearance(&["web-02"])),
    ]
}

/// Hosts as (name, wave, staged).
pub fn pinned(policy: OnHealthFailure, hosts: &[(&str, u32, bool)]) -> Arc<Pinned> {
    let waves = hosts.iter().map(|(_, wave, _)| wave + 1).max().unwrap_or(0);
    Arc::new(Pinned {
        on_health_failure: policy,
        waves: (0..waves)
            .map(|_| PinnedWave {
                soak_minutes: Minutes::from_minutes(30),
            })
            .collect(),
        host_set: hosts
            .iter()
            .map(|(name, wave, staged)| PinnedHost {
                hostname: name.parse().unwrap(),
                wave_index: *wave,
                target_closure: format!("target-{name}").into(),
                staged: *staged,
            })
            .collect(),
        disruption_budgets: vec![],
    })
}

/// Rollouts that have manifests.
pub const ROLLOUTS: [&str; 5] = [
    "stable@4f",
    "stable@5b",
    "stable@6c",
    "edge@4f",
    "stable-2@5b",
];

/// What the manifests called `m1` pin: each rollout has its own.
pub fn set(pinned: Arc<Pinned>) -> PinnedSet {
    let mut set = PinnedSet::new();
    add(&mut set, "m1", pinned);
    set
}

/// Adds what the manifests of a name pin.
pub fn add(set: &mut PinnedSet, name: &str, pinned: Arc<Pinned>) {
    for rollout in ROLLOUTS {
        let manifest = PinnedManifest {
            rollout_id: id(rollout),
            pinned: Arc::clone(&pinned),
        };
        set.insert(manifest_of(rollout, name), manifest);
    }
}

/// The manifest of a name for a rollout.
pub fn manifest_of(rollout: &str, name: &str) -> ManifestHash {
    ManifestHash::from(format!("{name} of {rollout}"))
}

pub fn open(rollout: &str, manifest: &str) -> PlanAction {
    let rollout_id = id(rollout);
    PlanAction::OpenRollout {
        channel: rollout_id.channel(),
        target_ref: rollout_id.target_ref(),
        rollout_id,
        manifest_hash: manifest_of(rollout, manifest),
    }
}

pub fn planned(minutes: i64, epoch: u64, action: PlanAction) -> Entry {
    Entry::new(at(minutes), EntryBody::Plan { epoch, action })
}

pub fn told(minutes: i64, rollout: &str, host: &str, event: HostEvent) -> Entry {
    Entry::new(
        at(minutes),
        EntryBody::HostEvent {
            rollout_id: id(rollout),
            hostname: host.parse().unwrap(),
            producer: Producer::Agent,
            event,
        },
    )
}

/// The origin of a command that a console signed.
pub fn origin() -> Box<CommandOrigin> {
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
