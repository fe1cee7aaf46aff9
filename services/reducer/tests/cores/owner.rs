//! Work of an owner.

use nixfleet_bus::PublishError;
use nixfleet_reducer::{LogBytes, ManifestFetch, Owner, OwnerConfig, OwnershipEnd};

use crate::simulated_partition::{CONFIG, SimulatedPartition, acknowledged, fetched, opening};

fn partition() -> SimulatedPartition {
    SimulatedPartition::of([opening("stable@4f"), acknowledged("stable@4f", "a")])
}

#[test]
fn one_frame_is_in_flight_and_the_next_follows_it() {
    let mut partition = partition();
    let mut owner = Owner::new(partition.take_over().unwrap(), LogBytes::default(), CONFIG);
    assert!(owner.may_read());
    let barrier = partition.item(1, partition.input[0].clone());
    owner.take(vec![barrier], 1);
    assert!(owner.may_fold() && !owner.may_read());
    owner.fold().unwrap();
    assert!(
        owner.publish_queue().publish().is_none(),
        "no frame is built"
    );
    owner.write();
    let first = owner.publish_queue().publish().unwrap();
    assert_eq!(first.expected, 1);

    let opening = partition.item(2, partition.input[1].clone());
    owner.take(vec![opening], 1);
    assert!(!owner.may_fold(), "its manifest is not fetched");
    let hash = owner.missing_manifest().unwrap().clone();
    owner.add_manifest(hash.clone(), fetched(&hash)).unwrap();
    owner.fold().unwrap();
    owner.write();
    assert!(owner.publish_queue().publish().is_none(), "one at a time");
    owner.publish_queue().published(Ok(2)).unwrap();
    assert_eq!(owner.publish_queue().publish().unwrap().expected, 2);
    assert!(owner.publish_queue().is_publishing());
}

#[test]
fn a_full_publish_queue_stops_the_fold_and_keeps_the_order() {
    let input = (1..=6).map(|seq| acknowledged("stable@4f", &format!("h{seq}")));
    let mut partition = SimulatedPartition::of([opening("stable@4f")].into_iter().chain(input));
    let mut owner = Owner::new(partition.take_over().unwrap(), LogBytes::default(), CONFIG);
    let fold = |owner: &mut Owner, seq: u64| {
        let entry = partition.input[seq as usize - 1].clone();
        owner.take(vec![partition.item(seq, entry)], 1);
        while let Some(hash) = owner.missing_manifest().cloned() {
            owner.add_manifest(hash.clone(), fetched(&hash)).unwrap();
        }
        owner.fold().is_some()
    };
    assert!(fold(&mut owner, 1));
    assert!(!fold(&mut owner, 2), "a frame waits to be built");
    owner.write();
    assert!(owner.fold().is_some());
    for seq in 3..=5 {
        owner.write();
        assert!(fold(&mut owner, seq));
    }
    assert!(
        owner.take_frame_builder().is_none(),
        "the publish queue is full"
    );
    let mut sent = Vec::new();
    while let Some(publish) = owner.publish_queue().publish() {
        sent.push(publish.built.frame.first_input.unwrap().seq);
        owner
            .publish_queue()
            .published(Ok(publish.expected + 1))
            .unwrap();
        owner.write();
    }
    assert_eq!(sent, [1, 2, 3, 4, 5]);
}

#[test]
fn a_frame_that_is_not_stored_ends_the_ownership() {
    let ended = |error| {
        let mut partition = partition();
        let mut owner = Owner::new(partition.take_over().unwrap(), LogBytes::default(), CONFIG);
        let item = partition.item(1, partition.input[0].clone());
        owner.take(vec![item], 1);
        owner.fold().unwrap();
        owner.write();
        owner.publish_queue().publish().unwrap();
        owner.publish_queue().published(Err(error)).unwrap_err()
    };
    let fenced = ended(PublishError::Fenced {
        expected: 1,
        last: 2,
    });
    assert!(matches!(fenced, OwnershipEnd::Fenced));
    let unknown = ended(PublishError::Unavailable("no answer".to_owned()));
    assert!(matches!(unknown, OwnershipEnd::Failed(_)));
    let large = ended(PublishError::TooLarge { bytes: 2, max: 1 });
    assert!(matches!(large, OwnershipEnd::Halted(_)));
}

#[test]
fn an_entry_with_a_missing_manifest_halts_the_partition() {
    let mut partition = partition();
    let mut owner = Owner::new(partition.take_over().unwrap(), LogBytes::default(), CONFIG);
    let items = (1..).zip(&partition.input);
    let items = items.map(|(seq, entry)| partition.item(seq, entry.clone()));
    owner.take(items.collect(), 1);
    let hash = owner.missing_manifest().unwrap().clone();
    let ended = owner.add_manifest(hash.clone(), ManifestFetch::Missing(hash));
    assert!(matches!(ended, Err(OwnershipEnd::Halted(_))));
}

#[test]
fn a_hash_is_due_after_the_configured_entries_and_matches_its_frame() {
    let mut partition = partition();
    let config = OwnerConfig {
        hash_every_entries: 2,
        ..CONFIG
    };
    let mut owner = Owner::new(partition.take_over().unwrap(), LogBytes::default(), config);
    let mut hashed = Vec::new();
    for seq in 1..=3 {
        let item = partition.item(seq, partition.input[seq as usize - 1].clone());
        owner.take(vec![item], 1);
        while let Some(hash) = owner.missing_manifest().cloned() {
            owner.add_manifest(hash.clone(), fetched(&hash)).unwrap();
        }
        owner.fold().unwrap();
        owner.add_hash();
        owner.write();
        let publish = owner.publish_queue().publish().unwrap();
        if let Some(hash) = &publish.built.frame.state_hash {
            assert_eq!(*hash, owner.state().hash());
            hashed.push(seq);
        }
        let published = partition.publish(&publish.built.frame, publish.expected);
        owner.publish_queue().published(published).unwrap();
    }
    assert_eq!(hashed, [2]);
}
