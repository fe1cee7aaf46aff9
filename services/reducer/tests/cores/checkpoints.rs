//! Checkpoints: written by an owner, read by the next one when the rows are gone.

use nixfleet_bus::LogUsage;
use nixfleet_proto::Timestamp;
use nixfleet_reducer::{CheckpointLimits, Ended, LogBytes, Owner, OwnerConfig};

use crate::world::{CONFIG, World, acknowledged, known, opening};

/// A log with a rollout, a host that moved, and a second rollout behind it.
fn world() -> World {
    World::of([
        opening("stable@4f"),
        acknowledged("stable@4f", "a"),
        opening("stable@5b"),
        acknowledged("stable@5b", "b"),
    ])
}

/// The state that a fold of the whole log has.
fn expected() -> String {
    world().work().state().hash()
}

/// A world whose owner has stored a checkpoint behind its second entry and one behind its fourth.
fn two_checkpoints() -> World {
    let mut world = world();
    let rest = world.input.split_off(3);
    let mut owner = world.work();
    world.checkpoint(&mut owner);
    let last = rest.len() - 1;
    for (place, entry) in rest.into_iter().enumerate() {
        if place == last {
            world.checkpoint(&mut owner);
        }
        world.input.push(entry);
        world.go_on(&mut owner);
    }
    world
}

#[test]
fn a_takeover_without_rows_goes_on_from_the_newest_checkpoint() {
    let mut world = two_checkpoints();
    let announced = |frame: &nixfleet_proto::OutputFrame| frame.checkpoints.clone();
    let announced = world.output.iter().rev().find_map(announced).unwrap();
    let previous = announced.previous.unwrap();
    world.trim(previous.next_output());
    let taken = world.take_over().unwrap();
    assert_eq!(taken.state.hash(), expected());
    assert_eq!(known(&taken.state), ["stable@4f", "stable@5b"]);
    assert_eq!(taken.origin.own, 1, "nothing is missing");
    assert!(taken.refused.is_empty());
    assert_eq!(taken.checkpoints.previous, Some(previous));
    assert_eq!(
        world.needs[..4],
        ["cursor", "last frame", "announcement", "checkpoint"]
    );
    // The next one knows as much from the barrier alone.
    let again = world.take_over().unwrap();
    assert_eq!(again.announced_at, taken.announced_at);
    assert_eq!(again.state.hash(), expected());
}

#[test]
fn a_checkpoint_that_does_not_match_is_refused_and_the_one_before_it_is_used() {
    for damage in ["missing", "changed", "swapped"] {
        let mut world = two_checkpoints();
        let announced = world
            .output
            .iter()
            .rev()
            .find_map(|f| f.checkpoints.clone());
        let announced = announced.unwrap();
        let (last, previous) = (announced.last.unwrap(), announced.previous.unwrap());
        match damage {
            "missing" => {
                world.objects.remove(&last.hash);
            }
            "changed" => world.objects.get_mut(&last.hash).unwrap()[40] ^= 1,
            _ => {
                let other = world.objects[&previous.hash].clone();
                world.objects.insert(last.hash.clone(), other);
            }
        }
        world.trim(previous.next_output());
        let taken = world.take_over().unwrap();
        assert_eq!(taken.state.hash(), expected(), "{damage}");
        assert_eq!(taken.refused.len(), 1, "{damage}: {:?}", taken.refused);
        assert!(taken.refused[0].contains(&last.hash));
    }
}

#[test]
fn without_any_usable_checkpoint_a_trimmed_log_halts_before_anything_is_published() {
    let mut world = two_checkpoints();
    world.objects.clear();
    let whole = world.take_over().unwrap();
    assert_eq!(whole.state.hash(), expected(), "the log is whole");
    world.trim(3);
    let before = world.output.len();
    let ended = world.take_over().unwrap_err();
    assert!(matches!(ended, Ended::Halted(_)));
    let text = format!("{ended:#}");
    assert!(text.contains("no checkpoint can be used"), "{text}");
    assert_eq!(world.output.len(), before);
}

#[test]
fn a_checkpoint_of_streams_that_are_gone_is_refused() {
    let mut world = two_checkpoints();
    world.created = crate::world::at(99);
    world.trim(4);
    let ended = world.take_over().unwrap_err();
    assert!(
        format!("{ended:#}").contains("created at other times"),
        "{ended:#}"
    );
}

#[test]
fn rows_are_preferred_and_checkpoints_stay_known() {
    let mut world = two_checkpoints();
    world.apply(world.out_seq());
    let taken = world.take_over().unwrap();
    assert!(!world.needs.contains(&"checkpoint"));
    assert_eq!(taken.state.hash(), expected());
    assert!(taken.announced_at.is_some());
}

#[test]
fn a_log_that_cannot_be_restored_from_gets_a_checkpoint_at_once() {
    for (first_seq, are_stored, is_due) in [(1, true, false), (5, true, true), (1, false, true)] {
        let mut world = world();
        let far = CheckpointLimits {
            min_log_bytes: u64::MAX,
            max_log_bytes: u64::MAX,
        };
        let config = OwnerConfig {
            checkpoints: far,
            ..CONFIG
        };
        let mut owner = Owner::new(world.take_over().unwrap(), LogBytes::default(), config);
        owner.take(vec![world.item(1, world.input[0].clone())], 1);
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
        owner.look(&output, are_stored);
        assert_eq!(
            owner.is_checkpoint_due(),
            is_due,
            "{first_seq} {are_stored}"
        );
    }
}

#[test]
fn growth_makes_a_checkpoint_due_once_everything_folded_is_written() {
    let mut world = world();
    let mut owner = Owner::new(world.take_over().unwrap(), LogBytes::default(), CONFIG);
    assert!(!owner.is_checkpoint_due(), "nothing is covered");
    owner.take(vec![world.item(1, world.input[0].clone())], 1);
    owner.fold().unwrap();
    assert!(!owner.is_checkpoint_due(), "what is folded is not written");
    owner.write();
    assert!(owner.is_checkpoint_due());
    let stored = world.store_checkpoint(&mut owner);
    assert!(!owner.is_checkpoint_due(), "one at a time");
    // Its position is that of a frame which is on its way.
    assert_eq!(stored.out_seq, 2);
    owner.checkpoint_failed();
    assert!(owner.is_checkpoint_due());
    let stored = world.store_checkpoint(&mut owner);
    owner.checkpoint_stored(stored.clone());
    while let Some(publish) = owner.outbox().publish() {
        let published = world.publish(&publish.folded.frame, publish.expected);
        owner.outbox().published(published).unwrap();
    }
    let announcement = world.output.last().unwrap();
    let announced = announcement.checkpoints.clone().unwrap();
    assert_eq!((announced.last, announced.previous), (Some(stored), None));
    assert!(announcement.outcomes.is_empty());
}

#[test]
fn two_owners_that_disagree_about_a_checkpoint_leave_one_history() {
    let mut world = world();
    let mut first = world.work();
    let stored = world.store_checkpoint(&mut first);
    // Another owner takes over before the first one can announce.
    let mut second = Owner::new(world.take_over().unwrap(), LogBytes::default(), CONFIG);
    first.checkpoint_stored(stored);
    let publish = first.outbox().publish().unwrap();
    let published = world.publish(&publish.folded.frame, publish.expected);
    assert!(matches!(
        first.outbox().published(published),
        Err(Ended::Fenced)
    ));
    second.appended(9);
    let own = world.checkpoint(&mut second);
    let taken = world.take_over().unwrap();
    assert_eq!(taken.checkpoints.last, Some(own));
    assert_eq!(taken.state.hash(), expected());
}
