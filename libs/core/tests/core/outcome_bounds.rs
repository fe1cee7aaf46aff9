//! What one outcome may hold, and what a state that knows less makes of it.

use nixfleet_core::partition::{ApplyOutcomeError, MAX_OUTCOME_BYTES, PartitionState, PinnedSet};
use nixfleet_proto::host::{ProbeDeclaration, ProbeMode};
use nixfleet_proto::{
    Decision, Effect, Entry, EntryBody, HostEventBody, HostState, Hostname, OnHealthFailure,
    OperatorCommand, Outcome, PlanAction, Position, Reason, RolloutState, StoredAt,
};

use crate::sample_records::{at, event, id, manifest_of, open, origin, pinned, planned, set, told};

struct Log {
    state: PartitionState,
    pinned: PinnedSet,
    outcomes: Vec<Outcome>,
}

impl Log {
    /// A log that opened one rollout with these hosts, all in one wave.
    fn of(hosts: &[&str]) -> Self {
        let hosts: Vec<_> = hosts.iter().map(|name| (*name, 0, true)).collect();
        let mut log = Self {
            state: PartitionState::new(),
            pinned: set(pinned(OnHealthFailure::RollbackAndHalt, &hosts)),
            outcomes: Vec::new(),
        };
        log.add(planned(0, 1, PlanAction::Barrier {}));
        log.add(planned(0, 1, open("stable@4f", "m1")));
        log
    }

    fn add(&mut self, entry: Entry) -> Decision {
        let seq = self.outcomes.len() as u64 + 1;
        let position = Position { seq, index: 0 };
        let mut json = b"before".to_vec();
        let outcome = self.state.apply(
            position,
            StoredAt::new(entry.received_at),
            &entry,
            &self.pinned,
        );
        nixfleet_core::partition::write_outcome(&outcome, &mut json);
        let written = json.strip_prefix(b"before").unwrap();
        assert_eq!(written, serde_json::to_vec(&outcome).unwrap());
        assert!(written.len() < MAX_OUTCOME_BYTES);
        self.outcomes.push(outcome.clone());
        outcome.decision
    }

    fn tell(&mut self, seq: u64, body: HostEventBody) -> Decision {
        self.add(told(1, "stable@4f", "a", event(seq, body)))
    }
}

fn reason(decision: &Decision) -> Option<Reason> {
    match decision {
        Decision::Accepted(_) => None,
        Decision::Rejected(rejection) => Some(rejection.reason),
    }
}

fn clearance(reason: &str, waived: &[String]) -> Entry {
    let command = OperatorCommand::OperatorClearance {
        rollout_id: id("stable@4f"),
        reason: reason.to_owned(),
        waived_hosts: waived.iter().map(|name| name.parse().unwrap()).collect(),
    };
    Entry::new(
        at(2),
        EntryBody::Operator {
            command,
            origin: origin(),
        },
    )
}

#[test]
fn a_rollout_is_opened_with_its_own_manifest_only() {
    let mut log = Log::of(&["a"]);
    let mut foreign = open("stable@5b", "m1");
    if let PlanAction::OpenRollout { manifest_hash, .. } = &mut foreign {
        *manifest_hash = manifest_of("edge@4f", "m1");
    }
    let decision = log.add(planned(1, 1, foreign));
    assert_eq!(reason(&decision), Some(Reason::Invariant));
    assert_eq!(
        reason(&log.add(planned(1, 1, open("stable@5b", "m1")))),
        None
    );
}

#[test]
fn the_names_of_excused_hosts_are_bounded_over_all_clearances() {
    let names: Vec<String> = (0..320)
        .map(|n| format!("{n:0>62}.{n:0>62}.{n:0>62}.{n:0>61}"))
        .collect();
    let hosts: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut log = Log::of(&hosts);
    assert_eq!(reason(&log.add(clearance("broken", &names[..240]))), None);
    let more = log.add(clearance("broken, too", &names[240..]));
    assert_eq!(reason(&more), Some(Reason::Invariant));
    // Those who are excused already take no room twice.
    assert_eq!(reason(&log.add(clearance("again", &names[..260]))), None);
}

#[test]
fn a_reason_has_the_length_of_a_text() {
    let mut log = Log::of(&["a"]);
    let long = "x".repeat(OperatorCommand::TEXT_BYTES_MAX + 1);
    let decision = log.add(clearance(&long, &[]));
    assert_eq!(reason(&decision), Some(Reason::Invariant));
    assert_eq!(reason(&log.add(clearance(&long[1..], &[]))), None);
}

/// The record would not fit into a frame: one host must not block the others by the size of its reports.
#[test]
fn what_no_frame_can_hold_is_a_rejection_and_changes_nothing() {
    let mut log = Log::of(&["a"]);
    log.tell(
        1,
        HostEventBody::DispatchAck {
            current_closure_at_dispatch: "before-a".into(),
            received_at: at(1),
        },
    );
    log.tell(
        2,
        HostEventBody::ActivationCompleted {
            observed_current_closure: "target-a".into(),
            exit_code: 0,
            completed_at: at(1),
        },
    );
    let declared = |count: usize| {
        let probes = (0..count).map(|number| ProbeDeclaration {
            probe_name: format!("{number:0>1000}").into(),
            kind: "exec".to_owned(),
            mode: ProbeMode::Enforce,
        });
        HostEventBody::ProbeTopologyDeclared {
            probes: probes.collect(),
            declared_at: at(1),
        }
    };
    let before = log.state.rollouts().clone();
    let decision = log.tell(3, declared(1_000));
    assert_eq!(reason(&decision), Some(Reason::Invariant));
    assert_eq!(*log.state.rollouts(), before);
    assert_eq!(reason(&log.tell(3, declared(100))), None);
}

#[test]
fn a_state_that_knows_less_takes_everything_but_what_it_does_not_know() {
    let mut log = Log::of(&["a", "b"]);
    log.tell(
        1,
        HostEventBody::DispatchAck {
            current_closure_at_dispatch: "before-a".into(),
            received_at: at(1),
        },
    );
    let failed = HostEventBody::ActivationFailed {
        exit_code: 1,
        stderr_tail: String::new(),
        failed_at: at(1),
    };
    log.tell(2, failed);
    let rolled_back = HostEventBody::RollbackComplete {
        reverted_to_closure: "before-a".into(),
        exit_code: 0,
        completed_at: at(1),
    };
    log.tell(3, rolled_back);
    let quarantined = |effect: &Effect| matches!(effect, Effect::InsertQuarantine { .. });
    let last = log.outcomes.last().unwrap();
    assert!(matches!(&last.decision, Decision::Accepted(a) if a.effects.iter().any(quarantined)));
    log.add(planned(3, 1, open("stable@5b", "m1")));
    assert_eq!(
        log.state.rollouts()[&id("stable@4f")].record.state,
        RolloutState::Superseded
    );

    let mut late = PartitionState::new();
    for outcome in &log.outcomes[2..] {
        late.apply_outcome_skipping_unknown(outcome, &log.pinned)
            .unwrap();
    }
    assert_eq!(late.quarantines(), log.state.quarantines());
    let newer = id("stable@5b");
    assert_eq!(late.rollouts().keys().collect::<Vec<_>>(), [&newer]);
    assert_eq!(late.rollouts()[&newer], log.state.rollouts()[&newer]);

    let mut strict = PartitionState::new();
    let refused = strict.apply_outcome(&log.outcomes[2], &log.pinned);
    assert_eq!(
        refused,
        Err(ApplyOutcomeError::UnknownRollout(id("stable@4f")))
    );
    let stranger = {
        let mut outcome = log.outcomes[2].clone();
        if let Decision::Accepted(accepted) = &mut outcome.decision {
            let host = std::sync::Arc::make_mut(&mut accepted.hosts[0]);
            host.rollout_id = newer.clone();
            host.hostname = Hostname::from("nobody");
            host.state = HostState::Pending;
        }
        outcome
    };
    assert!(
        late.apply_outcome_skipping_unknown(&stranger, &log.pinned)
            .is_err(),
        "a rollout that is known has all its hosts"
    );
}
