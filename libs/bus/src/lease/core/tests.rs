mod simulated_cluster;

use self::simulated_cluster::{MS, SimulatedCluster};
use super::*;
use crate::lease::key_machine::Loss;

const TTL: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(60);

fn cluster(seed: u64, keys: usize, names: &[&str]) -> SimulatedCluster {
    let mut cluster = SimulatedCluster::new(seed, keys);
    for name in names {
        cluster.start(name);
    }
    assert!(cluster.run(LONG, |cluster| is_balanced(cluster, names.len())));
    cluster
}

fn is_balanced(cluster: &SimulatedCluster, members: usize) -> bool {
    let loads = cluster.loads();
    let (low, high) = (
        cluster.keys.len() / members,
        cluster.keys.len().div_ceil(members),
    );
    let fits = loads.len() == members && loads.iter().all(|load| (low..=high).contains(load));
    fits && cluster.assigned().is_some()
}

fn moved(before: &BTreeMap<String, usize>, after: &BTreeMap<String, usize>) -> Vec<String> {
    let differs = |key: &&String| before.get(*key) != after.get(*key);
    after.keys().filter(differs).cloned().collect()
}

#[test]
fn a_single_instance_acquires_every_key_at_once() {
    let mut cluster = SimulatedCluster::new(1, 8);
    cluster.start("a");
    assert!(cluster.run(100 * MS, |cluster| is_balanced(cluster, 1)));
}

#[test]
fn a_fourth_instance_acquires_only_its_share() {
    for seed in 0..10 {
        let mut cluster = cluster(seed, 8, &["a", "b", "c"]);
        let before = cluster.assigned().unwrap();
        let new = cluster.start("d");
        assert!(cluster.run(LONG, |cluster| is_balanced(cluster, 4)));
        let after = cluster.assigned().unwrap();
        let moved = moved(&before, &after);
        assert_eq!(moved.len(), 2, "seed {seed}: {before:?} {after:?}");
        assert!(moved.iter().all(|key| after[key] == new));
    }
}

#[test]
fn a_stopped_instance_hands_over_when_its_work_ends() {
    for seed in 0..10 {
        let mut cluster = cluster(seed, 8, &["a", "b", "c"]);
        let before = cluster.assigned().unwrap();
        let from = cluster.now;
        cluster.stop(0);
        assert!(cluster.run(LONG, |cluster| cluster.nodes[0].core.is_ended()
            && is_balanced(cluster, 2)));
        assert!(
            cluster.now - from < cluster.drain + 100 * MS,
            "seed {seed}: {:?}",
            cluster.now - from
        );
        let after = cluster.assigned().unwrap();
        assert!(moved(&before, &after).iter().all(|key| before[key] == 0));
        assert_eq!(cluster.members().len(), 2);
    }
}

#[test]
fn a_killed_instance_is_replaced_within_the_time_to_live() {
    for seed in 0..10 {
        let mut cluster = cluster(seed, 8, &["a", "b", "c"]);
        let wait = Duration::from_millis(cluster.random.below(5_000));
        cluster.run(wait, |_| false);
        let before = cluster.assigned().unwrap();
        let from = cluster.now;
        cluster.kill(1);
        assert!(cluster.run(LONG, |cluster| is_balanced(cluster, 2)));
        assert!(
            cluster.now - from < TTL + 100 * MS,
            "seed {seed}: {:?}",
            cluster.now - from
        );
        let after = cluster.assigned().unwrap();
        assert!(moved(&before, &after).iter().all(|key| before[key] == 1));
    }
}

#[test]
fn a_paused_instance_stops_before_another_starts_and_rejoins() {
    let mut cluster = cluster(3, 8, &["a", "b"]);
    cluster.pause(0, 3 * TTL);
    // Every step of the cluster checks that no other instance starts before.
    assert!(cluster.run(TTL + 200 * MS, |cluster| cluster.nodes[1].alive
        && cluster.loads()[1] == 8));
    let lost = |signal: &&Signal| matches!(signal, Signal::Lost(..));
    assert!(cluster.run(LONG, |cluster| is_balanced(cluster, 2)));
    assert_eq!(cluster.nodes[0].signals.iter().filter(lost).count(), 4);
}

#[test]
fn overdue_work_loses_its_key() {
    let mut cluster = cluster(4, 2, &["a"]);
    cluster.drain = Duration::from_secs(3_600);
    let from = cluster.now;
    cluster.start("b");
    assert!(cluster.run(LONG, |cluster| is_balanced(cluster, 2)));
    assert!(cluster.now - from > Duration::from_secs(20));
    let overdue = |signal: &Signal| matches!(signal, Signal::Lost(_, Loss::Overdue));
    assert!(cluster.nodes[0].signals.iter().any(overdue));
}

#[test]
fn a_second_process_with_the_same_name_is_refused_until_the_first_is_gone() {
    let mut cluster = cluster(5, 4, &["a"]);
    let second = cluster.start("a");
    cluster.run(LONG, |_| false);
    let is_refusal = |signal: &Signal| matches!(signal, Signal::NameTaken(Some(other)) if other.process == "a/0");
    assert!(cluster.nodes[second].signals.iter().any(is_refusal));
    assert_eq!(cluster.loads(), [4, 0]);
    cluster.stop(0);
    assert!(cluster.run(200 * MS, |cluster| cluster.loads() == [4]));
}

#[test]
fn a_failing_key_moves_away_and_returns_after_the_backoff() {
    let mut cluster = cluster(6, 4, &["a", "b"]);
    let key = cluster
        .keys
        .iter()
        .find(|key| cluster.holders(key) == [0])
        .unwrap()
        .clone();
    cluster.give_up(0, &key);
    assert!(cluster.run(1_000 * MS, |cluster| cluster.holders(&key) == [1]));
    // The keys are balanced again when the instance accepts the key; other keys do not move.
    assert!(cluster.run(LONG, |cluster| is_balanced(cluster, 2)));
    // A single instance has nobody to go first.
    cluster.kill(1);
    assert!(cluster.run(LONG, |cluster| cluster.loads() == [4]));
    cluster.give_up(0, &key);
    assert!(cluster.run(1_500 * MS, |cluster| cluster.holders(&key) == [0]));
}

#[test]
fn stale_records_do_not_block_keys() {
    for seed in 0..10 {
        let mut cluster = cluster(seed, 8, &["a", "b", "c"]);
        cluster.kill(1);
        cluster.forget_ends(1);
        assert!(
            cluster.run(LONG, |cluster| is_balanced(cluster, 2)),
            "seed {seed}"
        );
        // An instance that reads the bucket for the first time no longer finds it.
        assert!(cluster.run(TTL, |cluster| cluster.members().len() == 2));
        cluster.start("d");
        let shared = cluster.run(Duration::from_secs(1), |cluster| is_balanced(cluster, 3));
        assert!(shared, "seed {seed}");
    }
}

#[test]
fn leases_of_a_lost_bucket_are_acquired_again() {
    let mut cluster = cluster(7, 8, &["a", "b", "c"]);
    cluster.lose_bucket();
    cluster.run(TTL, |_| false);
    assert!(cluster.run(LONG, |cluster| is_balanced(cluster, 3)));
    assert_eq!(cluster.members().len(), 3);
}

/// Injects faults everywhere while every step checks that a key has one holder. Afterwards every key is
/// soon held and balanced.
#[test]
fn faults_never_cause_two_holders_and_keys_recover() {
    for seed in 0..30 {
        let mut cluster = cluster(seed, 8, &["a", "b", "c"]);
        cluster.faults = 5 + cluster.random.below(40);
        for round in 0..25 {
            flap(&mut cluster, round);
            let time = Duration::from_millis(cluster.random.below(6_000));
            cluster.run(time, |_| false);
        }
        cluster.faults = 0;
        // Late messages, pauses and backoffs may last that long.
        cluster.run(2 * TTL, |_| false);
        let members = cluster.loads().len();
        let healed = cluster.run(LONG, |cluster| is_balanced(cluster, members));
        assert!(
            healed,
            "seed {seed}: {:?} of {:?}",
            cluster.loads(),
            cluster.members()
        );
        assert!(cluster.run(TTL, |cluster| cluster.members().len() == members));
    }
}

fn flap(cluster: &mut SimulatedCluster, round: u64) {
    let living: Vec<usize> = (0..cluster.nodes.len())
        .filter(|node| cluster.nodes[*node].alive && !cluster.nodes[*node].core.is_ended())
        .collect();
    if living.is_empty() {
        cluster.start(&format!("n{round}"));
        return;
    }
    let one = living[cluster.random.below(living.len() as u64) as usize];
    let key = cluster.keys[cluster.random.below(cluster.keys.len() as u64) as usize].clone();
    match cluster.random.below(7) {
        0 if living.len() > 1 => cluster.kill(one),
        1 if living.len() > 1 => cluster.stop(one),
        2 if living.len() < 5 => {
            cluster.start(&format!("n{round}"));
        }
        3 => {
            let time = Duration::from_millis(cluster.random.below(20_000));
            cluster.pause(one, time);
        }
        4 => cluster.give_up(one, &key),
        _ => {}
    }
}
