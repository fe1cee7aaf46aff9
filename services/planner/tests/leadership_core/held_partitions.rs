//! Partitions that take no entries, fold none, or cannot be read: held, while the others are led.

use std::time::Duration;

use nixfleet_plan::FleetView;
use nixfleet_planner::HoldReason::{Refused, Unavailable, Unfolded, Unreadable};
use nixfleet_planner::{
    FENCE_TIMEOUT, HoldReason, LeadershipCore, LeadershipEnd, OUTCOME_TIMEOUT, Stage,
};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{EntryBody, PlanAction, Timestamp};

use super::{accepted, append_barriers, apply, at, fencing, leading, partitions, refused};

fn held(leader: &LeadershipCore) -> Vec<Partition> {
    leader.held().into_keys().collect()
}

/// Appends a barrier to the one partition that is tried again.
fn retry(leader: &mut LeadershipCore, partition: Partition, seq: u64) {
    let barriers = leader.fence_held(Timestamp::UNIX_EPOCH);
    assert_eq!(barriers, [(partition, vec![PlanAction::Barrier {}])].into());
    leader.barrier_appended(partition, at(seq));
}

/// Asserts that a leader which holds the first partition leads the second one.
fn check_second_is_led(leader: &LeadershipCore, reason: HoldReason) {
    assert_eq!(leader.stage(), Stage::Leading);
    assert_eq!(leader.held(), [(partitions()[0], reason)].into());
}

#[test]
fn a_partition_without_the_outcome_of_its_barrier_is_held_and_the_others_are_led() {
    let mut leader = fencing(5);
    apply(&mut leader, 0, 5, accepted(1)).unwrap();
    assert_eq!(leader.stage(), Stage::Fencing);
    leader.check_outcome_timeout(Duration::ZERO).unwrap();
    leader.check_outcome_timeout(FENCE_TIMEOUT).unwrap();
    assert_eq!(leader.stage(), Stage::Fencing);
    let later = FENCE_TIMEOUT + Duration::from_secs(1);
    leader.check_outcome_timeout(later).unwrap();
    assert_eq!(leader.stage(), Stage::Leading);
    assert_eq!(held(&leader), [partitions()[1]]);
    leader
        .check_outcome_timeout(later + OUTCOME_TIMEOUT * 2)
        .unwrap();
    apply(&mut leader, 1, 5, accepted(1)).unwrap();
    assert!(leader.held().is_empty());
}

#[test]
fn a_full_partition_is_held_until_it_accepts_a_barrier() {
    let mut leader = LeadershipCore::new(FleetView::new(), 2);
    let [first, second] = partitions()[..] else {
        panic!("two partitions");
    };
    leader.fence(Timestamp::UNIX_EPOCH);
    leader.hold(first, Refused).unwrap();
    leader.barrier_appended(second, at(5));
    assert_eq!(leader.stage(), Stage::Fencing);
    apply(&mut leader, 1, 5, accepted(1)).unwrap();
    assert_eq!(
        (leader.stage(), held(&leader)),
        (Stage::Leading, vec![first])
    );

    // Still full.
    let barriers = leader.fence_held(Timestamp::UNIX_EPOCH);
    assert_eq!(barriers, [(first, vec![PlanAction::Barrier {}])].into());
    leader.hold(first, Refused).unwrap();
    let barriers = leader.fence_held(Timestamp::UNIX_EPOCH);
    assert_eq!(barriers.len(), 1);
    // While its result is open there is no other one.
    assert!(leader.fence_held(Timestamp::UNIX_EPOCH).is_empty());
    leader.barrier_appended(first, at(9));
    assert_eq!(
        (leader.stage(), held(&leader)),
        (Stage::Leading, vec![first])
    );
    // Entries carry the epoch of the last barrier of their partition.
    let epoch_in = |leader: &LeadershipCore, partition| {
        let entry = leader.entry(partition, PlanAction::Barrier {}, Timestamp::UNIX_EPOCH);
        let EntryBody::Plan { epoch, .. } = entry.body else {
            panic!("{entry:?}");
        };
        epoch
    };
    assert_eq!([first, second].map(|it| epoch_in(&leader, it)), [3, 1]);
    apply(&mut leader, 0, 9, accepted(3)).unwrap();
    assert!(leader.held().is_empty());
    assert_eq!(leader.stage(), Stage::Leading);
    // Another leader in either partition is seen.
    apply(&mut leader, 1, 10, accepted(4)).unwrap_err();
}

#[test]
fn a_partition_that_fills_while_it_is_led_is_held_and_fenced_again() {
    let mut leader = leading();
    let first = partitions()[0];
    leader.hold(first, Refused).unwrap();
    assert_eq!(
        (leader.stage(), held(&leader)),
        (Stage::Leading, vec![first])
    );
    leader.fence_held(Timestamp::UNIX_EPOCH);
    leader.barrier_appended(first, at(9));
    // An earlier leader had a higher epoch.
    apply(&mut leader, 0, 9, refused()).unwrap();
    assert_eq!(
        (leader.stage(), held(&leader)),
        (Stage::Leading, vec![first])
    );
    leader.fence_held(Timestamp::UNIX_EPOCH);
    leader.barrier_appended(first, at(12));
    apply(&mut leader, 0, 12, accepted(3)).unwrap();
    assert!(leader.held().is_empty());
}

#[test]
fn a_partition_that_cannot_be_reached_is_held_until_it_accepts_a_barrier() {
    let first = partitions()[0];
    // From the first barrier on.
    let mut leader = LeadershipCore::new(FleetView::new(), 2);
    leader.fence(Timestamp::UNIX_EPOCH);
    leader.hold(first, Unavailable).unwrap();
    leader.barrier_appended(partitions()[1], at(5));
    apply(&mut leader, 1, 5, accepted(1)).unwrap();
    check_second_is_led(&leader, Unavailable);
    // And with an action.
    let mut leader = leading();
    leader.hold(first, Unavailable).unwrap();
    check_second_is_led(&leader, Unavailable);

    retry(&mut leader, first, 9);
    check_second_is_led(&leader, Unfolded);
    apply(&mut leader, 0, 9, accepted(2)).unwrap();
    assert!(leader.held().is_empty());
}

#[test]
fn a_leadership_ends_when_no_partition_can_be_written_or_read() {
    let [first, second] = [0, 1].map(|index| partitions()[index]);
    for reason in [Unavailable, Unreadable] {
        let mut leader = leading();
        leader.hold(first, reason).unwrap();
        assert_eq!(leader.hold(second, Unavailable), Err(LeadershipEnd::CutOff));
    }
    // A full log is trimmed, and a barrier may be folded, without another leader.
    let mut leader = leading();
    leader.hold(first, Refused).unwrap();
    leader.hold(second, Unavailable).unwrap();
    retry_both(&mut leader);
    leader.hold(second, Unavailable).unwrap();
}

fn retry_both(leader: &mut LeadershipCore) {
    let barriers = leader.fence_held(Timestamp::UNIX_EPOCH);
    assert_eq!(barriers.len(), 2);
    for partition in barriers.into_keys() {
        leader.barrier_appended(partition, at(20));
    }
}

#[test]
fn a_partition_that_cannot_be_read_is_held_until_the_view_is_loaded_again() {
    let first = partitions()[0];
    let mut leader = leading();
    leader.hold(first, Unreadable).unwrap();
    check_second_is_led(&leader, Unreadable);
    assert!(leader.fence_held(Timestamp::UNIX_EPOCH).is_empty());
    leader.hold(first, Unavailable).unwrap();
    check_second_is_led(&leader, Unreadable);
    // A barrier that was in flight changes nothing.
    leader.barrier_appended(first, at(9));
    apply(&mut leader, 0, 9, accepted(1)).unwrap();
    check_second_is_led(&leader, Unreadable);
    leader.check_outcome_timeout(OUTCOME_TIMEOUT * 2).unwrap();
}

#[test]
fn a_standby_that_cannot_read_a_partition_leads_the_others_later() {
    let [first, second] = [0, 1].map(|index| partitions()[index]);
    let mut leader = LeadershipCore::new(FleetView::new(), 2);
    leader.hold(first, Unreadable).unwrap();
    assert_eq!(leader.stage(), Stage::Unfenced);
    let barriers = leader.fence(Timestamp::UNIX_EPOCH);
    assert_eq!(barriers.into_keys().collect::<Vec<_>>(), [second]);
    leader.barrier_appended(second, at(5));
    apply(&mut leader, 1, 5, accepted(1)).unwrap();
    check_second_is_led(&leader, Unreadable);
}

#[test]
fn a_partition_that_becomes_unreadable_is_not_waited_for() {
    let mut leader = fencing(5);
    apply(&mut leader, 1, 5, accepted(1)).unwrap();
    assert_eq!(leader.stage(), Stage::Fencing);
    leader.hold(partitions()[0], Unreadable).unwrap();
    check_second_is_led(&leader, Unreadable);
}

/// A leader that holds the first partition, whose barrier at 5 has no outcome.
fn awaiting() -> LeadershipCore {
    let mut leader = fencing(5);
    apply(&mut leader, 1, 5, accepted(1)).expect("it goes on");
    leader
        .check_outcome_timeout(Duration::ZERO)
        .expect("it goes on");
    let later = FENCE_TIMEOUT + Duration::from_secs(1);
    leader.check_outcome_timeout(later).expect("it goes on");
    check_second_is_led(&leader, Unfolded);
    leader
}

#[test]
fn a_barrier_without_outcome_is_followed_by_one_with_a_higher_epoch() {
    let first = partitions()[0];
    let mut leader = awaiting();
    retry(&mut leader, first, 7);
    assert_eq!(leader.epoch(), 2);
    check_second_is_led(&leader, Unfolded);
    // The first one was lost, and another entry has its position.
    apply(&mut leader, 0, 5, refused()).unwrap();
    check_second_is_led(&leader, Unfolded);
    apply(&mut leader, 0, 7, accepted(2)).unwrap();
    assert!(leader.held().is_empty());
}

#[test]
fn only_the_newest_barrier_counts_because_another_leader_may_have_planned_before_it() {
    let first = partitions()[0];
    let mut leader = awaiting();
    retry(&mut leader, first, 9);
    apply(&mut leader, 0, 5, accepted(1)).unwrap();
    check_second_is_led(&leader, Unfolded);
    apply(&mut leader, 0, 9, accepted(2)).unwrap();
    assert!(leader.held().is_empty());
}

/// Rounds until the next barrier of a partition, with that one.
fn rounds_until_retry(leader: &mut LeadershipCore, partition: Partition) -> usize {
    let is_due = |leader: &mut LeadershipCore| !leader.fence_held(Timestamp::UNIX_EPOCH).is_empty();
    let rounds = (1..1_000).find(|_| is_due(leader)).expect("it is retried");
    leader.barrier_appended(partition, at(100));
    rounds
}

#[test]
fn pauses_between_barriers_without_outcome_double_so_that_a_slow_owner_answers_one() {
    let first = partitions()[0];
    let mut leader = awaiting();
    let rounds: Vec<_> = (0..11)
        .map(|_| rounds_until_retry(&mut leader, first))
        .collect();
    assert_eq!(rounds, [1, 2, 3, 5, 9, 17, 33, 65, 129, 151, 151]);
    // An outcome shows that the owner folds.
    apply(&mut leader, 0, 100, refused()).unwrap();
    assert_eq!(rounds_until_retry(&mut leader, first), 1);
    assert_eq!(rounds_until_retry(&mut leader, first), 1);
    // All partitions are fenced again by the next leadership.
    append_barriers(&mut leader, 130);
    assert!(leader.held().is_empty());
}
