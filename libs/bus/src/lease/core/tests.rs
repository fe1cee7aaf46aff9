mod world;

use self::world::{MS, World};
use super::*;
use crate::lease::holding::Loss;

const TTL: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(60);

fn world(seed: u64, keys: usize, names: &[&str]) -> World {
    let mut world = World::new(seed, keys);
    for name in names {
        world.start(name);
    }
    assert!(world.run(LONG, |world| is_balanced(world, names.len())));
    world
}

fn is_balanced(world: &World, members: usize) -> bool {
    let loads = world.loads();
    let (low, high) = (
        world.keys.len() / members,
        world.keys.len().div_ceil(members),
    );
    let fits = loads.len() == members && loads.iter().all(|load| (low..=high).contains(load));
    fits && world.placed().is_some()
}

fn moved(before: &BTreeMap<String, usize>, after: &BTreeMap<String, usize>) -> Vec<String> {
    let differs = |key: &&String| before.get(*key) != after.get(*key);
    after.keys().filter(differs).cloned().collect()
}

#[test]
fn one_instance_takes_everything_at_once() {
    let mut world = World::new(1, 8);
    world.start("a");
    assert!(world.run(100 * MS, |world| is_balanced(world, 1)));
}

#[test]
fn three_share_and_a_fourth_takes_only_its_share() {
    for seed in 0..10 {
        let mut world = world(seed, 8, &["a", "b", "c"]);
        let before = world.placed().unwrap();
        let new = world.start("d");
        assert!(world.run(LONG, |world| is_balanced(world, 4)));
        let after = world.placed().unwrap();
        let moved = moved(&before, &after);
        assert_eq!(moved.len(), 2, "seed {seed}: {before:?} {after:?}");
        assert!(moved.iter().all(|key| after[key] == new));
    }
}

#[test]
fn a_stopped_instance_hands_over_as_fast_as_its_work_ends() {
    for seed in 0..10 {
        let mut world = world(seed, 8, &["a", "b", "c"]);
        let before = world.placed().unwrap();
        let from = world.now;
        world.stop(0);
        assert!(world.run(LONG, |world| world.nodes[0].core.is_ended()
            && is_balanced(world, 2)));
        assert!(
            world.now - from < world.drain + 100 * MS,
            "seed {seed}: {:?}",
            world.now - from
        );
        let after = world.placed().unwrap();
        assert!(moved(&before, &after).iter().all(|key| before[key] == 0));
        assert_eq!(world.members().len(), 2);
    }
}

#[test]
fn a_killed_instance_is_replaced_within_the_time_to_live() {
    for seed in 0..10 {
        let mut world = world(seed, 8, &["a", "b", "c"]);
        let wait = Duration::from_millis(world.dice.below(5_000));
        world.run(wait, |_| false);
        let before = world.placed().unwrap();
        let from = world.now;
        world.kill(1);
        assert!(world.run(LONG, |world| is_balanced(world, 2)));
        assert!(
            world.now - from < TTL + 100 * MS,
            "seed {seed}: {:?}",
            world.now - from
        );
        let after = world.placed().unwrap();
        assert!(moved(&before, &after).iter().all(|key| before[key] == 1));
    }
}

#[test]
fn a_paused_instance_stops_before_another_starts_and_comes_back() {
    let mut world = world(3, 8, &["a", "b"]);
    world.pause(0, 3 * TTL);
    // That nobody else starts before is checked at every step of the world.
    assert!(world.run(TTL + 200 * MS, |world| world.nodes[1].alive
        && world.loads()[1] == 8));
    let lost = |signal: &&Signal| matches!(signal, Signal::Lost(..));
    assert!(world.run(LONG, |world| is_balanced(world, 2)));
    assert_eq!(world.nodes[0].signals.iter().filter(lost).count(), 4);
}

#[test]
fn work_that_does_not_end_loses_its_key() {
    let mut world = world(4, 2, &["a"]);
    world.drain = Duration::from_secs(3_600);
    let from = world.now;
    world.start("b");
    assert!(world.run(LONG, |world| is_balanced(world, 2)));
    assert!(world.now - from > Duration::from_secs(20));
    let overdue = |signal: &Signal| matches!(signal, Signal::Lost(_, Loss::Overdue));
    assert!(world.nodes[0].signals.iter().any(overdue));
}

#[test]
fn a_second_process_with_the_same_name_is_refused_until_the_first_is_gone() {
    let mut world = world(5, 4, &["a"]);
    let second = world.start("a");
    world.run(LONG, |_| false);
    let is_refusal =
        |signal: &Signal| matches!(signal, Signal::Refused(Some(other)) if other.process == "a/0");
    assert!(world.nodes[second].signals.iter().any(is_refusal));
    assert_eq!(world.loads(), [4, 0]);
    world.stop(0);
    assert!(world.run(200 * MS, |world| world.loads() == [4]));
}

#[test]
fn a_key_that_fails_here_goes_elsewhere_and_comes_back_later() {
    let mut world = world(6, 4, &["a", "b"]);
    let key = world
        .keys
        .iter()
        .find(|key| world.holders(key) == [0])
        .unwrap()
        .clone();
    world.give_up(0, &key);
    assert!(world.run(1_000 * MS, |world| world.holders(&key) == [1]));
    // Evened out again when the instance wants it once more; the other keys are not disturbed.
    assert!(world.run(LONG, |world| is_balanced(world, 2)));
    // Alone there is nobody to go first.
    world.kill(1);
    assert!(world.run(LONG, |world| world.loads() == [4]));
    world.give_up(0, &key);
    assert!(world.run(1_500 * MS, |world| world.holders(&key) == [0]));
}

#[test]
fn records_that_outlive_their_time_hold_nothing_up() {
    for seed in 0..10 {
        let mut world = world(seed, 8, &["a", "b", "c"]);
        world.kill(1);
        world.forget_ends(1);
        assert!(
            world.run(LONG, |world| is_balanced(world, 2)),
            "seed {seed}"
        );
        // Whoever looks at the bucket for the first time does not find it any more.
        assert!(world.run(TTL, |world| world.members().len() == 2));
        world.start("d");
        let shared = world.run(Duration::from_secs(1), |world| is_balanced(world, 3));
        assert!(shared, "seed {seed}");
    }
}

#[test]
fn a_lost_bucket_loses_the_leases_and_they_are_taken_again() {
    let mut world = world(7, 8, &["a", "b", "c"]);
    world.lose_bucket();
    world.run(TTL, |_| false);
    assert!(world.run(LONG, |world| is_balanced(world, 3)));
    assert_eq!(world.members().len(), 3);
}

/// Faults everywhere; one holder at a time is checked at every step. Then they end, and everything
/// is held and even soon.
#[test]
fn flaps_and_lost_messages_never_make_two_holders_and_everything_heals() {
    for seed in 0..30 {
        let mut world = world(seed, 8, &["a", "b", "c"]);
        world.faults = 5 + world.dice.below(40);
        for round in 0..25 {
            flap(&mut world, round);
            let time = Duration::from_millis(world.dice.below(6_000));
            world.run(time, |_| false);
        }
        world.faults = 0;
        // Late messages, pauses and time spent standing behind may last that long.
        world.run(2 * TTL, |_| false);
        let members = world.loads().len();
        let healed = world.run(LONG, |world| is_balanced(world, members));
        assert!(
            healed,
            "seed {seed}: {:?} of {:?}",
            world.loads(),
            world.members()
        );
        assert!(world.run(TTL, |world| world.members().len() == members));
    }
}

fn flap(world: &mut World, round: u64) {
    let living: Vec<usize> = (0..world.nodes.len())
        .filter(|node| world.nodes[*node].alive && !world.nodes[*node].core.is_ended())
        .collect();
    if living.is_empty() {
        world.start(&format!("n{round}"));
        return;
    }
    let one = living[world.dice.below(living.len() as u64) as usize];
    let key = world.keys[world.dice.below(world.keys.len() as u64) as usize].clone();
    match world.dice.below(7) {
        0 if living.len() > 1 => world.kill(one),
        1 if living.len() > 1 => world.stop(one),
        2 if living.len() < 5 => {
            world.start(&format!("n{round}"));
        }
        3 => {
            let time = Duration::from_millis(world.dice.below(20_000));
            world.pause(one, time);
        }
        4 => world.give_up(one, &key),
        _ => {}
    }
}
