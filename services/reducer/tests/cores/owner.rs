//! Being the owner.

use nixfleet_bus::PublishError;
use nixfleet_reducer::{Ended, Fetched, LogBytes, Owner, OwnerConfig};

use crate::world::{CONFIG, World, acknowledged, fetched, opening};

fn world() -> World {
    World::of([opening("stable@4f"), acknowledged("stable@4f", "a")])
}

#[test]
fn one_frame_is_in_flight_and_the_next_follows_it() {
    let mut world = world();
    let mut owner = Owner::new(world.take_over().unwrap(), LogBytes::default(), CONFIG);
    assert!(owner.may_read());
    let barrier = world.item(1, world.input[0].clone());
    owner.take(vec![barrier], 1);
    assert!(owner.may_fold() && !owner.may_read());
    owner.fold().unwrap();
    assert!(owner.outbox().publish().is_none(), "it is not written");
    owner.write();
    let first = owner.outbox().publish().unwrap();
    assert_eq!(first.expected, 1);

    let opening = world.item(2, world.input[1].clone());
    owner.take(vec![opening], 1);
    assert!(!owner.may_fold(), "what it opens is not at hand");
    let hash = owner.lacking().unwrap().clone();
    owner.give(hash.clone(), fetched(&hash)).unwrap();
    owner.fold().unwrap();
    owner.write();
    assert!(owner.outbox().publish().is_none(), "one at a time");
    owner.outbox().published(Ok(2)).unwrap();
    assert_eq!(owner.outbox().publish().unwrap().expected, 2);
    assert!(owner.outbox().is_publishing());
}

#[test]
fn no_more_is_folded_than_may_wait_to_be_sent_and_frames_keep_their_order() {
    let input = (1..=6).map(|seq| acknowledged("stable@4f", &format!("h{seq}")));
    let mut world = World::of([opening("stable@4f")].into_iter().chain(input));
    let mut owner = Owner::new(world.take_over().unwrap(), LogBytes::default(), CONFIG);
    let fold = |owner: &mut Owner, seq: u64| {
        let entry = world.input[seq as usize - 1].clone();
        owner.take(vec![world.item(seq, entry)], 1);
        while let Some(hash) = owner.lacking().cloned() {
            owner.give(hash.clone(), fetched(&hash)).unwrap();
        }
        owner.fold().is_some()
    };
    assert!(fold(&mut owner, 1));
    assert!(!fold(&mut owner, 2), "one waits to be written");
    owner.write();
    assert!(owner.fold().is_some());
    for seq in 3..=5 {
        owner.write();
        assert!(fold(&mut owner, seq));
    }
    assert!(owner.to_write().is_none(), "enough waits to be sent");
    let mut sent = Vec::new();
    while let Some(publish) = owner.outbox().publish() {
        sent.push(publish.folded.frame.first_input.unwrap().seq);
        owner.outbox().published(Ok(publish.expected + 1)).unwrap();
        owner.write();
    }
    assert_eq!(sent, [1, 2, 3, 4, 5]);
}

#[test]
fn whatever_is_not_stored_ends_the_ownership() {
    let ended = |error| {
        let mut world = world();
        let mut owner = Owner::new(world.take_over().unwrap(), LogBytes::default(), CONFIG);
        let item = world.item(1, world.input[0].clone());
        owner.take(vec![item], 1);
        owner.fold().unwrap();
        owner.write();
        owner.outbox().publish().unwrap();
        owner.outbox().published(Err(error)).unwrap_err()
    };
    let fenced = ended(PublishError::Fenced {
        expected: 1,
        last: 2,
    });
    assert!(matches!(fenced, Ended::Fenced));
    let unknown = ended(PublishError::Unavailable("no answer".to_owned()));
    assert!(matches!(unknown, Ended::Failed(_)));
    let large = ended(PublishError::TooLarge { bytes: 2, max: 1 });
    assert!(matches!(large, Ended::Halted(_)));
}

#[test]
fn an_entry_whose_manifest_is_lost_stops_the_partition() {
    let mut world = world();
    let mut owner = Owner::new(world.take_over().unwrap(), LogBytes::default(), CONFIG);
    let items = (1..).zip(&world.input);
    let items = items.map(|(seq, entry)| world.item(seq, entry.clone()));
    owner.take(items.collect(), 1);
    let hash = owner.lacking().unwrap().clone();
    let ended = owner.give(hash.clone(), Fetched::Missing(hash));
    assert!(matches!(ended, Err(Ended::Halted(_))));
}

#[test]
fn a_hash_is_due_after_so_many_entries_and_fits_its_frame() {
    let mut world = world();
    let config = OwnerConfig {
        hash_every_entries: 2,
        ..CONFIG
    };
    let mut owner = Owner::new(world.take_over().unwrap(), LogBytes::default(), config);
    let mut hashed = Vec::new();
    for seq in 1..=3 {
        let item = world.item(seq, world.input[seq as usize - 1].clone());
        owner.take(vec![item], 1);
        while let Some(hash) = owner.lacking().cloned() {
            owner.give(hash.clone(), fetched(&hash)).unwrap();
        }
        owner.fold().unwrap();
        owner.add_hash();
        owner.write();
        let publish = owner.outbox().publish().unwrap();
        if let Some(hash) = &publish.folded.frame.state_hash {
            assert_eq!(*hash, owner.state().hash());
            hashed.push(seq);
        }
        let published = world.publish(&publish.folded.frame, publish.expected);
        owner.outbox().published(published).unwrap();
    }
    assert_eq!(hashed, [2]);
}
