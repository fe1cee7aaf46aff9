//! What heartbeats prove, and what they are answered.

use nixfleet_core::heartbeat_recovery::{derive_entries, reply};
use nixfleet_core::partition::{PartitionState, PinnedSet};
use nixfleet_proto::wire::{HeartbeatRequest, OwnerHeartbeat};
use nixfleet_proto::{
    Decision, Entry, EntryBody, HostEventBody, HostState, OnHealthFailure, PlanAction, Position,
    StoredAt,
};

use crate::sample_records::{at, event, id, open, pinned, planned, set, told};

struct Owner {
    state: PartitionState,
    pinned: PinnedSet,
    seq: u64,
}

impl Owner {
    /// One host, `a`, in the rollout `stable@4f`, brought to a state.
    fn of(state: HostState) -> Self {
        let pinned = set(pinned(OnHealthFailure::RollbackAndHalt, &[("a", 0, true)]));
        let mut owner = Self {
            state: PartitionState::new(),
            pinned,
            seq: 0,
        };
        owner.fold(planned(0, 1, PlanAction::Barrier {}));
        owner.fold(planned(0, 1, open("stable@4f", "m1")));
        for (index, body) in story(state).into_iter().enumerate() {
            let seq = index as u64 + 1;
            // The soak is over by then.
            let is_claim = matches!(body, HostEventBody::Converged { .. });
            let minute = if is_claim { 40 } else { 1 };
            owner.fold(told(minute, "stable@4f", "a", event(seq, body)));
        }
        let record = &owner.state.rollouts()[&id("stable@4f")].hosts["a"].record;
        assert_eq!(record.state, state);
        owner
    }

    fn fold(&mut self, entry: Entry) {
        self.seq += 1;
        let position = Position {
            seq: self.seq,
            index: 0,
        };
        let outcome = self.state.apply(
            position,
            StoredAt::new(entry.received_at),
            &entry,
            &self.pinned,
        );
        assert!(
            matches!(outcome.decision, Decision::Accepted(_)),
            "{outcome:?}"
        );
    }

    /// Synthesises until nothing is left; returns the names of what was appended.
    fn recover(&mut self, closure: &str) -> Vec<String> {
        let heartbeat = heartbeat(Some(closure), None);
        let bodies = derive_entries(&self.state, &heartbeat);
        let names = bodies.iter().map(name).collect();
        for body in bodies {
            self.fold(Entry::new(at(50), body));
        }
        assert_eq!(
            derive_entries(&self.state, &heartbeat),
            [],
            "not idempotent"
        );
        names
    }

    fn host_state(&self) -> HostState {
        let rollout = &self.state.rollouts()[&id("stable@4f")];
        rollout.hosts["a"].record.state
    }
}

fn name(body: &EntryBody) -> String {
    match body {
        EntryBody::HostEvent { event, .. } => event.body.name().to_owned(),
        EntryBody::RecoveryCandidate { .. }
        | EntryBody::Plan { .. }
        | EntryBody::Operator { .. } => body.name().to_owned(),
    }
}

/// Events that bring a Pending host to a state.
fn story(state: HostState) -> Vec<HostEventBody> {
    let ack = HostEventBody::DispatchAck {
        current_closure_at_dispatch: "before".into(),
        received_at: at(1),
    };
    let completed = HostEventBody::ActivationCompleted {
        observed_current_closure: "target-a".into(),
        exit_code: 0,
        completed_at: at(1),
    };
    let failed = HostEventBody::ActivationFailed {
        exit_code: 1,
        stderr_tail: String::new(),
        failed_at: at(1),
    };
    let reverted = HostEventBody::RollbackComplete {
        reverted_to_closure: "before".into(),
        exit_code: 0,
        completed_at: at(1),
    };
    let deferred = HostEventBody::ActivationDeferred {
        component: "kernel".to_owned(),
        deferred_at: at(1),
    };
    let topology = HostEventBody::ProbeTopologyDeclared {
        probes: vec![],
        declared_at: at(1),
    };
    let converged = HostEventBody::Converged {
        converged_at: at(40),
        current_closure: "target-a".into(),
    };
    match state {
        HostState::Pending => vec![],
        HostState::Activating => vec![ack],
        HostState::Deferred => vec![ack, deferred],
        HostState::Soaking => vec![ack, completed],
        HostState::Converged => vec![ack, completed, topology, converged],
        HostState::Failed => vec![ack, failed],
        HostState::Reverted => vec![ack, failed, reverted],
    }
}

fn heartbeat(closure: Option<&str>, rollout: Option<&str>) -> OwnerHeartbeat {
    OwnerHeartbeat {
        channel: "stable".into(),
        received_at: at(50),
        request: HeartbeatRequest {
            hostname: "a".into(),
            rollout_id: rollout.map(id),
            current_closure: closure.map(Into::into),
            at: at(49),
        },
    }
}

#[test]
fn each_case_recovers_what_was_missed() {
    let cases: [(HostState, &str, &[&str], HostState); 13] = [
        (
            HostState::Activating,
            "target-a",
            &["ActivationCompleted"],
            HostState::Soaking,
        ),
        (HostState::Activating, "before", &[], HostState::Activating),
        (
            HostState::Deferred,
            "target-a",
            &["ActivationCompleted"],
            HostState::Soaking,
        ),
        (HostState::Deferred, "before", &[], HostState::Deferred),
        (
            HostState::Pending,
            "target-a",
            &["RecoveryCandidate"],
            HostState::Pending,
        ),
        (HostState::Pending, "before", &[], HostState::Pending),
        (
            HostState::Failed,
            "before",
            &["RollbackComplete"],
            HostState::Reverted,
        ),
        (HostState::Failed, "target-a", &[], HostState::Failed),
        (HostState::Failed, "elsewhere", &[], HostState::Failed),
        (HostState::Soaking, "target-a", &[], HostState::Soaking),
        (HostState::Soaking, "before", &[], HostState::Soaking),
        (HostState::Converged, "before", &[], HostState::Converged),
        (HostState::Reverted, "target-a", &[], HostState::Reverted),
    ];
    for (state, closure, appended, expected) in cases {
        let mut owner = Owner::of(state);
        assert_eq!(owner.recover(closure), appended, "{state:?} on {closure}");
        assert_eq!(owner.host_state(), expected, "{state:?} on {closure}");
    }
}

#[test]
fn a_recovered_event_takes_no_number_of_the_agent() {
    let mut owner = Owner::of(HostState::Activating);
    owner.recover("target-a");
    let record = &owner.state.rollouts()[&id("stable@4f")].hosts["a"].record;
    assert_eq!((record.last_event_seq, record.recovery_seq), (1, 1));
    assert_eq!(record.activation_completed_at, Some(at(49)));
}

#[test]
fn a_rollback_target_that_is_the_target_proves_nothing() {
    let mut owner = Owner::of(HostState::Pending);
    let ack = HostEventBody::DispatchAck {
        current_closure_at_dispatch: "target-a".into(),
        received_at: at(1),
    };
    let failed = story(HostState::Failed).remove(1);
    owner.fold(told(1, "stable@4f", "a", event(1, ack)));
    owner.fold(told(1, "stable@4f", "a", event(2, failed)));
    assert!(owner.recover("target-a").is_empty());
}

#[test]
fn a_heartbeat_from_before_proves_nothing_of_what_came_after_it() {
    let cases = [
        (HostState::Activating, "target-a"),
        (HostState::Deferred, "target-a"),
        (HostState::Failed, "before"),
    ];
    for (state, closure) in cases {
        let owner = Owner::of(state);
        let proven = |minutes| {
            let mut heartbeat = heartbeat(Some(closure), None);
            heartbeat.request.at = at(minutes);
            derive_entries(&owner.state, &heartbeat).len()
        };
        assert_eq!((proven(0), proven(1)), (0, 1), "{state:?}");
    }
}

#[test]
fn a_candidate_that_leaves_its_target_is_none() {
    let mut owner = Owner::of(HostState::Pending);
    assert_eq!(owner.recover("target-a"), ["RecoveryCandidate"]);
    assert_eq!(owner.recover("before"), ["RecoveryCandidate"]);
    let host = &owner.state.rollouts()[&id("stable@4f")].hosts["a"];
    assert_eq!(host.recovery_candidate(), None);
}

#[test]
fn closed_and_foreign_records_prove_nothing() {
    let mut owner = Owner::of(HostState::Pending);
    owner.fold(planned(2, 1, open("stable@5b", "m1")));
    let bodies = derive_entries(&owner.state, &heartbeat(Some("target-a"), None));
    let rollouts: Vec<_> = bodies.iter().map(EntryBody::rollout_id).collect();
    assert_eq!(rollouts, [Some(&id("stable@5b"))]);
    assert_eq!(derive_entries(&owner.state, &heartbeat(None, None)), []);
    let mut foreign = heartbeat(Some("target-a"), None);
    foreign.request.hostname = "nobody".into();
    assert_eq!(derive_entries(&owner.state, &foreign), []);
}

#[test]
fn a_heartbeat_without_a_rollout_gets_a_snapshot() {
    for state in HostState::ALL {
        let owner = Owner::of(state);
        let snapshots = reply(&owner.state, &heartbeat(None, None)).reply;
        let expected = usize::from(state.is_open());
        assert_eq!(snapshots.bootstrap_rollouts.len(), expected, "{state:?}");
        assert_eq!(snapshots.received_at, at(49));
        let named = reply(&owner.state, &heartbeat(None, Some("stable@4f")));
        assert!(named.reply.bootstrap_rollouts.is_empty());
    }
    let mut owner = Owner::of(HostState::Pending);
    owner.fold(planned(2, 1, open("stable@5b", "m1")));
    let snapshots = reply(&owner.state, &heartbeat(None, None)).reply;
    assert_eq!(snapshots.bootstrap_rollouts.len(), 1);
}

#[test]
fn a_replay_is_asked_for_when_the_closures_differ() {
    let owner = Owner::of(HostState::Soaking);
    let replay = |closure, rollout| {
        let heartbeat = heartbeat(closure, rollout);
        reply(&owner.state, &heartbeat).replay_from
    };
    assert_eq!(replay(Some("before"), Some("stable@4f")), Some(2));
    assert_eq!(replay(Some("target-a"), Some("stable@4f")), None);
    assert_eq!(replay(None, Some("stable@4f")), None);
    assert_eq!(replay(Some("before"), None), None);
    assert_eq!(replay(Some("before"), Some("stable@99")), None);
}
