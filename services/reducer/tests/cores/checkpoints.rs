//! Checkpoints: written by an owner, read by the next one when the rows are gone.

use nixfleet_bus::LogUsage;
use nixfleet_proto::Timestamp;
use nixfleet_reducer::{CheckpointLimits, LogBytes, Owner, OwnerConfig, OwnershipEnd};

use crate::simulated_partition::{CONFIG, SimulatedPartition, acknowledged, known, opening};

/// A log with a rollout, an event of a host, and a second rollout.
fn partition() -> SimulatedPartition {
    SimulatedPartition::of([
        opening("stable@4f"),
        acknowledged("stable@4f", "a"),
        opening("stable@5b"),
        acknowledged("stable@5b", "b"),
    ])
}

/// State hash of a fold of the whole log.
fn expected() -> String {
    partition().work().state().hash()
}

/// A partition whose owner stored a checkpoint behind its second entry and one behind its fourth.
fn two_checkpoints() -> SimulatedPartition {
    let mut partition = partition();
    let rest = partition.input.split_off(3);
    let mut owner = partition.work();
    partition.checkpoint(&mut owner);
    let last = rest.len() - 1;
    for (place, entry) in rest.into_iter().enumerate() {
        if place == last {
            partition.checkpoint(&mut owner);
        }
        partition.input.push(entry);
        partition.go_on(&mut owner);
    }
    partition
}

#[test]
fn a_takeover_without_rows_starts_at_the_newest_checkpoint() {
    let mut partition = two_checkpoints();
    let announced = |frame: &nixfleet_proto::OutputFrame| frame.checkpoints.clone();
    let announced = partition.output.iter().rev().find_map(announced).unwrap();
    let previous = announced.previous.unwrap();
    partition.trim(previous.next_output());
    let taken = partition.take_over().unwrap();
    assert_eq!(taken.state.hash(), expected());
    assert_eq!(known(&taken.state), ["stable@4f", "stable@5b"]);
    assert_eq!(taken.origin.own, 1, "nothing is missing");
    assert!(taken.refused.is_empty());
    assert_eq!(taken.checkpoints.previous, Some(previous));
    assert_eq!(
        partition.requests[..4],
        ["cursor", "last frame", "announcement", "checkpoint"]
    );
    // The next takeover learns the same from the barrier alone.
    let again = partition.take_over().unwrap();
    assert_eq!(again.announced_at, taken.announced_at);
    assert_eq!(again.state.hash(), expected());
}

#[test]
fn an_unusable_checkpoint_is_refused_and_the_previous_one_is_used() {
    for damage in ["missing", "changed", "swapped"] {
        let mut partition = two_checkpoints();
        let announced = partition
            .output
            .iter()
            .rev()
            .find_map(|f| f.checkpoints.clone());
        let announced = announced.unwrap();
        let (last, previous) = (announced.last.unwrap(), announced.previous.unwrap());
        match damage {
            "missing" => {
                partition.objects.remove(&last.hash);
            }
            "changed" => partition.objects.get_mut(&last.hash).unwrap()[40] ^= 1,
            _ => {
                let other = partition.objects[&previous.hash].clone();
                partition.objects.insert(last.hash.clone(), other);
            }
        }
        partition.trim(previous.next_output());
        let taken = partition.take_over().unwrap();
        assert_eq!(taken.state.hash(), expected(), "{damage}");
        assert_eq!(taken.refused.len(), 1, "{damage}: {:?}", taken.refused);
        assert!(taken.refused[0].contains(&last.hash));
    }
}

#[test]
fn a_trimmed_log_without_a_usable_checkpoint_halts_before_the_barrier() {
    let mut partition = two_checkpoints();
    partition.objects.clear();
    let complete = partition.take_over().unwrap();
    assert_eq!(complete.state.hash(), expected(), "the log is complete");
    partition.trim(3);
    let before = partition.output.len();
    let ended = partition.take_over().unwrap_err();
    assert!(matches!(ended, OwnershipEnd::Halted(_)));
    let text = format!("{ended:#}");
    assert!(text.contains("no checkpoint can be used"), "{text}");
    assert_eq!(partition.output.len(), before);
}

#[test]
fn a_checkpoint_of_replaced_streams_is_refused() {
    let mut partition = two_checkpoints();
    partition.created = crate::simulated_partition::at(99);
    partition.trim(4);
    let ended = partition.take_over().unwrap_err();
    assert!(
        format!("{ended:#}").contains("created at other times"),
        "{ended:#}"
    );
}

#[test]
fn rows_are_preferred_and_checkpoints_stay_known() {
    let mut partition = two_checkpoints();
    partition.apply(partition.out_seq());
    let taken = partition.take_over().unwrap();
    assert!(!partition.requests.contains(&"checkpoint"));
    assert_eq!(taken.state.hash(), expected());
    assert!(taken.announced_at.is_some());
}

#[test]
fn a_log_without_a_usable_checkpoint_makes_one_due_at_once() {
    for (first_seq, are_stored, is_due) in [(1, true, false), (5, true, true), (1, false, true)] {
        let mut partition = partition();
        let far = CheckpointLimits {
            min_log_bytes: u64::MAX,
            max_log_bytes: u64::MAX,
        };
        let config = OwnerConfig {
            checkpoints: far,
            ..CONFIG
        };
        let mut owner = Owner::new(partition.take_over().unwrap(), LogBytes::default(), config);
        owner.take(vec![partition.item(1, partition.input[0].clone())], 1);
        owner.fold().unwrap();
        owner.write();
        let output = LogUsage {
            created: Timestamp::UNIX_EPOCH,
            first_seq,
            last_seq: 9,
            messages: 10 - first_seq,
            bytes: 100,
            max_bytes: 0,
        };
        owner.observe_log(&output, are_stored);
        assert_eq!(
            owner.is_checkpoint_due(),
            is_due,
            "{first_seq} {are_stored}"
        );
    }
}

#[test]
fn growth_makes_a_checkpoint_due_once_all_outcomes_are_in_frames() {
    let mut partition = partition();
    let mut owner = Owner::new(partition.take_over().unwrap(), LogBytes::default(), CONFIG);
    assert!(!owner.is_checkpoint_due(), "no input is covered");
    owner.take(vec![partition.item(1, partition.input[0].clone())], 1);
    owner.fold().unwrap();
    assert!(
        !owner.is_checkpoint_due(),
        "the folded outcomes are in no frame"
    );
    owner.write();
    assert!(owner.is_checkpoint_due());
    let stored = partition.store_checkpoint(&mut owner);
    assert!(!owner.is_checkpoint_due(), "one at a time");
    // Its sequence is that of a frame in flight.
    assert_eq!(stored.out_seq, 2);
    owner.checkpoint_failed();
    assert!(owner.is_checkpoint_due());
    let stored = partition.store_checkpoint(&mut owner);
    owner.checkpoint_stored(stored.clone());
    while let Some(publish) = owner.publish_queue().publish() {
        let published = partition.publish(&publish.built.frame, publish.expected);
        owner.publish_queue().published(published).unwrap();
    }
    let announcement = partition.output.last().unwrap();
    let announced = announcement.checkpoints.clone().unwrap();
    assert_eq!((announced.last, announced.previous), (Some(stored), None));
    assert!(announcement.outcomes.is_empty());
}

#[test]
fn a_fenced_owner_does_not_announce_its_checkpoint() {
    let mut partition = partition();
    let mut first = partition.work();
    let stored = partition.store_checkpoint(&mut first);
    // Another owner takes over before the announcement of the first.
    let mut second = Owner::new(partition.take_over().unwrap(), LogBytes::default(), CONFIG);
    first.checkpoint_stored(stored);
    let publish = first.publish_queue().publish().unwrap();
    let published = partition.publish(&publish.built.frame, publish.expected);
    assert!(matches!(
        first.publish_queue().published(published),
        Err(OwnershipEnd::Fenced)
    ));
    second.appended(9);
    let own = partition.checkpoint(&mut second);
    let taken = partition.take_over().unwrap();
    assert_eq!(taken.checkpoints.last, Some(own));
    assert_eq!(taken.state.hash(), expected());
}
