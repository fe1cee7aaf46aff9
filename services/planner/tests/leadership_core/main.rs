//! Stages of a leadership, and the reasons for its end.

mod held_partitions;

use std::time::Duration;

use nixfleet_plan::{FleetView, PinnedSet};
use nixfleet_planner::{AppliedOutcome, LeadershipCore, LeadershipEnd, OUTCOME_TIMEOUT, Stage};
use nixfleet_proto::outcome::OutcomeSubject;
use nixfleet_proto::snapshot::Origin;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{
    Accepted, Decision, Effect, EntryBody, Outcome, OutputFrame, PlanAction, Position, Reason,
    Rejection, Timestamp,
};

const PARTITIONS: u16 = 2;

fn partitions() -> Vec<Partition> {
    Partition::all(PARTITIONS).collect()
}

fn at(seq: u64) -> Position {
    Position { seq, index: 0 }
}

fn outcome(seq: u64, decision: Decision) -> Outcome {
    Outcome {
        position: at(seq),
        at: Timestamp::UNIX_EPOCH,
        subject: OutcomeSubject {
            entry: "Barrier".into(),
            event: None,
            producer: None,
            rollout_id: None,
            hostname: None,
            actor: None,
        },
        traceparent: None,
        decision,
    }
}

fn accepted(epoch: u64) -> Decision {
    Decision::Accepted(Box::new(Accepted {
        leader_epoch: Some(epoch),
        ..Accepted::default()
    }))
}

fn refused() -> Decision {
    Decision::Rejected(Rejection::new(Reason::Fenced, "a newer leader took over"))
}

/// A leader whose barriers were appended at `seq` of every partition.
fn fencing(seq: u64) -> LeadershipCore {
    let mut leader = LeadershipCore::new(FleetView::new(), PARTITIONS);
    append_barriers(&mut leader, seq);
    leader
}

fn append_barriers(leader: &mut LeadershipCore, seq: u64) {
    let barriers = leader.fence(Timestamp::UNIX_EPOCH);
    assert_eq!(barriers.keys().copied().collect::<Vec<_>>(), partitions());
    for (partition, actions) in barriers {
        assert_eq!(actions, [PlanAction::Barrier {}]);
        leader.barrier_appended(partition, at(seq));
    }
}

fn apply(
    leader: &mut LeadershipCore,
    partition: usize,
    seq: u64,
    decision: Decision,
) -> Result<AppliedOutcome, LeadershipEnd> {
    let partition = partitions()[partition];
    leader.apply_outcome(partition, &outcome(seq, decision), &PinnedSet::new())
}

fn leading() -> LeadershipCore {
    let mut leader = fencing(5);
    apply(&mut leader, 0, 5, accepted(1)).expect("the barrier is accepted");
    apply(&mut leader, 1, 5, accepted(1)).expect("the barrier is accepted");
    assert_eq!(leader.stage(), Stage::Leading);
    leader
}

#[test]
fn a_leader_leads_once_every_partition_accepted_its_barrier() {
    let mut leader = fencing(5);
    assert_eq!((leader.stage(), leader.epoch()), (Stage::Fencing, 1));
    apply(&mut leader, 0, 5, accepted(1)).unwrap();
    assert_eq!(leader.stage(), Stage::Fencing);
    assert!(leader.plan(Timestamp::UNIX_EPOCH).appends.is_empty());
    apply(&mut leader, 1, 5, accepted(1)).unwrap();
    assert_eq!(leader.stage(), Stage::Leading);
}

#[test]
fn the_barrier_of_another_leader_with_the_same_epoch_is_not_its_own() {
    let mut leader = fencing(5);
    apply(&mut leader, 0, 4, accepted(1)).unwrap();
    apply(&mut leader, 0, 5, refused()).unwrap();
    assert_eq!(leader.stage(), Stage::Fencing);
    apply(&mut leader, 1, 5, accepted(1)).unwrap();
    assert_eq!(leader.stage(), Stage::Unfenced);
    append_barriers(&mut leader, 9);
    assert_eq!((leader.stage(), leader.epoch()), (Stage::Fencing, 2));
}

#[test]
fn a_refused_barrier_is_followed_by_one_above_the_highest_epoch() {
    let mut leader = fencing(5);
    apply(&mut leader, 0, 3, accepted(7)).unwrap();
    apply(&mut leader, 0, 5, refused()).unwrap();
    apply(&mut leader, 1, 5, accepted(1)).unwrap();
    append_barriers(&mut leader, 9);
    assert_eq!(leader.epoch(), 8);
    apply(&mut leader, 0, 9, accepted(8)).unwrap();
    apply(&mut leader, 1, 9, accepted(8)).unwrap();
    assert_eq!(leader.stage(), Stage::Leading);
}

#[test]
fn a_barrier_replaced_by_another_entry_is_appended_again() {
    let mut leader = fencing(5);
    let host_event = Decision::Accepted(Box::default());
    apply(&mut leader, 0, 5, host_event).unwrap();
    apply(&mut leader, 1, 5, accepted(1)).unwrap();
    assert_eq!(leader.stage(), Stage::Unfenced);
}

#[test]
fn an_epoch_is_the_current_millisecond_unless_the_clock_is_behind() {
    let mut leader = LeadershipCore::new(FleetView::new(), PARTITIONS);
    leader.fence(Timestamp::from_timestamp_millis(1_777_000_000_000).unwrap());
    assert_eq!(leader.epoch(), 1_777_000_000_000);
    leader.fence(Timestamp::from_timestamp_millis(-5).unwrap());
    assert_eq!(leader.epoch(), 1_777_000_000_001);
}

#[test]
fn a_newer_leader_ends_the_leadership() {
    let mut leader = leading();
    let ended = apply(&mut leader, 1, 8, accepted(2)).unwrap_err();
    let expected = LeadershipEnd::Outranked {
        partition: partitions()[1],
        highest: 2,
        epoch: 1,
    };
    assert_eq!(ended, expected);
}

#[test]
fn an_action_that_was_fenced_ends_the_leadership() {
    let mut leader = leading();
    let partition = partitions()[0];
    let action = PlanAction::RetentionExpired {
        rollout_id: "stable@4f".parse().unwrap(),
    };
    leader.appended(partition, at(6), action);
    let ended = apply(&mut leader, 0, 6, refused()).unwrap_err();
    assert_eq!(ended, LeadershipEnd::Fenced(partition));
}

#[test]
fn an_entry_with_a_wrong_time_ends_the_leadership() {
    let message = "the clock was 95 s ahead of the broker's";
    let misdated = || Decision::Rejected(Rejection::new(Reason::Clock, message));
    let partition = partitions()[0];
    let expected = LeadershipEnd::Clock {
        partition,
        message: message.to_owned(),
    };
    let mut leader = fencing(5);
    assert_eq!(apply(&mut leader, 0, 5, misdated()), Err(expected.clone()));
    let mut leader = leading();
    let action = PlanAction::RetentionExpired {
        rollout_id: "stable@4f".parse().unwrap(),
    };
    leader.appended(partition, at(6), action);
    assert_eq!(apply(&mut leader, 0, 6, misdated()), Err(expected));
    // Entries of others do not concern it.
    let mut leader = leading();
    assert!(apply(&mut leader, 0, 6, misdated()).is_ok());
}

#[test]
fn an_action_without_outcome_ends_the_leadership_after_a_timeout() {
    let mut leader = leading();
    let second = Duration::from_secs(1);
    let retention = |commit: &str| PlanAction::RetentionExpired {
        rollout_id: format!("stable@{commit}").parse().unwrap(),
    };
    let partition = partitions()[0];
    leader.appended(partition, at(6), retention("4f"));
    leader.appended(partition, at(7), retention("50"));
    leader.check_outcome_timeout(second).unwrap();
    leader.check_outcome_timeout(OUTCOME_TIMEOUT).unwrap();
    apply(&mut leader, 0, 6, accepted(1)).unwrap();
    // From here on the next action is the first without outcome.
    leader
        .check_outcome_timeout(OUTCOME_TIMEOUT + second * 2)
        .unwrap();
    leader
        .check_outcome_timeout(OUTCOME_TIMEOUT * 2 + second * 2)
        .unwrap();
    let ended = leader
        .check_outcome_timeout(OUTCOME_TIMEOUT * 2 + second * 3)
        .unwrap_err();
    let position = at(7);
    assert_eq!(
        ended,
        LeadershipEnd::OutcomeTimeout {
            partition,
            position
        }
    );
}

#[test]
fn a_leadership_survives_the_rejection_of_an_action() {
    let mut leader = leading();
    let action = PlanAction::RetentionExpired {
        rollout_id: "stable@4f".parse().unwrap(),
    };
    leader.appended(partitions()[0], at(6), action);
    let decision = Decision::Rejected(Rejection::new(Reason::Illegal, "not superseded"));
    let applied = apply(&mut leader, 0, 6, decision).unwrap();
    assert!(applied.is_ours && !applied.opens);
    assert_eq!(leader.stage(), Stage::Leading);
}

#[test]
fn entries_carry_the_epoch_of_their_leader() {
    let leader = leading();
    let entry = leader.entry(
        partitions()[0],
        PlanAction::Barrier {},
        Timestamp::UNIX_EPOCH,
    );
    let EntryBody::Plan { epoch, .. } = entry.body else {
        panic!("an action is a plan entry");
    };
    assert_eq!(epoch, 1);
}

/// The outcome of a rollout whose opening was trimmed.
fn of_an_unknown_rollout(seq: u64) -> Outcome {
    let effect = Effect::CancelDispatches {
        rollout_id: "stable@4f".parse().expect("a rollout id"),
    };
    let accepted = Accepted {
        effects: vec![effect],
        ..Accepted::default()
    };
    outcome(seq, Decision::Accepted(Box::new(accepted)))
}

#[test]
fn unknown_rollouts_are_skipped_only_while_the_origin_is_partial() {
    let partition = partitions()[0];
    let pinned = PinnedSet::new();
    let mut leader = LeadershipCore::new(FleetView::new(), PARTITIONS);
    leader.set_origin(partition, Origin::of_log(5));
    let mut frame = OutputFrame {
        outcomes: vec![of_an_unknown_rollout(1)],
        ..OutputFrame::new(1)
    };
    leader.begin_frame(partition, &frame).unwrap();
    leader
        .apply_outcome(partition, &frame.outcomes[0], &pinned)
        .unwrap();

    frame.rebuilt_from = Some(5);
    leader.begin_frame(partition, &frame).unwrap();
    let ended = leader.apply_outcome(partition, &frame.outcomes[0], &pinned);
    assert!(
        matches!(ended, Err(LeadershipEnd::View { .. })),
        "{ended:?}"
    );

    frame.rebuilt_from = Some(9);
    let ended = leader.begin_frame(partition, &frame);
    assert!(
        matches!(ended, Err(LeadershipEnd::Origin { .. })),
        "{ended:?}"
    );
}
