//! Recovery of transitions that heartbeats prove.

use nixfleet_proto::wire::{HeartbeatRequest, OwnerHeartbeat};
use nixfleet_proto::{Entry, EntryBody, HostState, Position};
use nixfleet_reducer::{HeartbeatDecision, Owner, Recovery, RecoveryStep, StepResult};

use crate::simulated_partition::{SimulatedPartition, acknowledged, at, id, opening};

/// A heartbeat of a host that runs its target without a reported activation.
fn beat(host: &str) -> OwnerHeartbeat {
    OwnerHeartbeat {
        request: HeartbeatRequest {
            hostname: host.parse().unwrap(),
            at: at(9),
            rollout_id: None,
            current_closure: Some(format!("target-{host}").into()),
        },
        channel: "stable".into(),
        received_at: at(9),
    }
}

fn partition() -> (SimulatedPartition, Owner) {
    let mut partition =
        SimulatedPartition::of([opening("stable@4f"), acknowledged("stable@4f", "a")]);
    let owner = partition.work();
    (partition, owner)
}

#[test]
fn two_heartbeats_of_a_host_recover_once_and_are_answered_after_the_fold() {
    let (mut partition, mut owner) = partition();
    let mut recovery = Recovery::new(10, owner.next());
    for waiter in [1, 2] {
        let decision = recovery.receive(owner.state(), beat("a"), waiter);
        assert_eq!(decision, HeartbeatDecision::Queued);
    }
    assert_eq!(recovery.step(), Some(RecoveryStep::ReadTail));
    assert_eq!(recovery.step(), None);
    assert!(recovery.advance(owner.state(), owner.next()).is_empty());
    // Entries in the log are folded first.
    recovery.step_done(StepResult::Tail(4));
    assert!(recovery.advance(owner.state(), owner.next()).is_empty());
    assert_eq!(recovery.step(), None);
    partition.input.push(acknowledged("stable@4f", "b"));
    partition.go_on(&mut owner);
    assert!(recovery.advance(owner.state(), owner.next()).is_empty());

    // Only the first heartbeat belongs to this round.
    let Some(RecoveryStep::Append(entries)) = recovery.step() else {
        panic!("nothing to append");
    };
    assert_eq!(entries.len(), 1);
    assert!(matches!(&entries[0], EntryBody::HostEvent { event, .. } if event.seq == 1));
    recovery.step_done(StepResult::Appended(vec![Position { seq: 5, index: 0 }]));
    assert!(recovery.advance(owner.state(), owner.next()).is_empty());
    let stamped = entries
        .into_iter()
        .map(|body| Entry::new(beat("a").received_at, body));
    partition.input.extend(stamped);
    partition.go_on(&mut owner);
    let hosts = &owner.state().rollouts()[&id("stable@4f")].hosts;
    assert_eq!(hosts["a"].record.state, HostState::Soaking);
    let answers = recovery.advance(owner.state(), owner.next());
    assert_eq!(answers.iter().map(|(_, w)| *w).collect::<Vec<_>>(), [1]);

    // The round of the second heartbeat finds no missed transition.
    assert_eq!(recovery.step(), Some(RecoveryStep::ReadTail));
    recovery.step_done(StepResult::Tail(5));
    let answers = recovery.advance(owner.state(), owner.next());
    assert_eq!(answers.iter().map(|(_, w)| *w).collect::<Vec<_>>(), [2]);
    assert_eq!(recovery.step(), None);
}

#[test]
fn heartbeats_of_one_host_in_one_round_append_once() {
    let (_, owner) = partition();
    let mut recovery = Recovery::new(10, owner.next());
    let _ = recovery.receive(owner.state(), beat("a"), 0);
    // Two more arrive while the first round reads the tail.
    let _ = recovery.receive(owner.state(), beat("a"), 1);
    let _ = recovery.receive(owner.state(), beat("a"), 2);
    assert_eq!(recovery.step(), Some(RecoveryStep::ReadTail));
    assert_eq!(recovery.step_done(StepResult::Failed), [0]);
    assert_eq!(recovery.step(), Some(RecoveryStep::ReadTail));
    recovery.step_done(StepResult::Tail(3));
    recovery.advance(owner.state(), owner.next());
    let Some(RecoveryStep::Append(entries)) = recovery.step() else {
        panic!("nothing to append");
    };
    assert_eq!(entries.len(), 1);
    assert_eq!(recovery.step_done(StepResult::Failed), [1, 2]);
}

#[test]
fn a_heartbeat_without_news_is_answered_at_once_and_a_full_queue_drops() {
    let (_, owner) = partition();
    let mut recovery = Recovery::new(1, owner.next());
    let calm = OwnerHeartbeat {
        request: HeartbeatRequest {
            current_closure: Some("before".into()),
            ..beat("a").request
        },
        ..beat("a")
    };
    let decision = recovery.receive(owner.state(), calm, 0);
    assert!(
        matches!(decision, HeartbeatDecision::Answer(_, 0)),
        "{decision:?}"
    );
    let _ = recovery.receive(owner.state(), beat("a"), 1);
    assert_eq!(
        recovery.receive(owner.state(), beat("a"), 2),
        HeartbeatDecision::Queued
    );
    assert_eq!(
        recovery.receive(owner.state(), beat("a"), 3),
        HeartbeatDecision::QueueFull(3)
    );
}

#[test]
fn nothing_is_recovered_in_a_log_that_ends_before_the_fold() {
    let (_, owner) = partition();
    let mut recovery = Recovery::new(10, owner.next());
    let folded = owner.next().seq - 1;
    for (tail, given_up) in [(folded - 1, 1), (folded, 0)] {
        let decision = recovery.receive(owner.state(), beat("a"), 0);
        assert_eq!(decision, HeartbeatDecision::Queued);
        assert_eq!(recovery.step(), Some(RecoveryStep::ReadTail));
        assert_eq!(recovery.step_done(StepResult::Tail(tail)).len(), given_up);
        recovery.advance(owner.state(), owner.next());
        let appends = matches!(recovery.step(), Some(RecoveryStep::Append(_)));
        assert_eq!(appends, given_up == 0);
    }
}
