//! Becoming the owner.

use nixfleet_proto::Position;
use nixfleet_reducer::{Answer, Ended, Fetched, Need, Takeover};

use crate::world::{World, acknowledged, at, known, opening};

fn world() -> World {
    World::of([
        opening("stable@4f"),
        acknowledged("stable@4f", "a"),
        acknowledged("stable@4f", "b"),
    ])
}

#[test]
fn the_barrier_comes_after_the_guard_and_before_the_rows() {
    let mut world = world();
    let owner = world.work();
    assert_eq!(owner.next().seq, 5);
    world.apply(2);
    let taken = world.take_over().unwrap();
    let order = [
        "cursor",
        "last frame",
        "logs",
        "barrier",
        "snapshot",
        "logs",
        "frames",
    ];
    assert_eq!(world.needs[..7], order);
    let barrier = world.output.last().unwrap();
    assert_eq!((barrier.epoch, taken.epoch), (2, 2));
    assert_eq!(barrier.last_input_id.as_deref(), Some("0/4"));
    assert_eq!(taken.out_seq, world.out_seq());
    // Behind the last frame, wherever the rows are.
    assert_eq!(taken.start.next, Position { seq: 5, index: 0 });
    assert_eq!(taken.state, *owner.state());
}

#[test]
fn an_owner_that_published_meanwhile_wins() {
    let mut world = world();
    let mut slow = Takeover::new();
    slow.give(Answer::Cursor(None)).unwrap();
    slow.give(Answer::LastFrame(None)).unwrap();
    let Need::Logs(_) = slow.need() else {
        panic!("{:?}", slow.need());
    };
    let logs = nixfleet_reducer::Logs {
        input: identity(),
        output: identity(),
        ids: Default::default(),
    };
    slow.give(Answer::Logs(logs)).unwrap();
    let Need::Barrier { frame, expected } = slow.need() else {
        panic!("{:?}", slow.need());
    };
    world.work();
    let published = world.publish(&frame, expected);
    let ended = slow.give(Answer::Barrier(published)).unwrap_err();
    assert!(matches!(ended, Ended::Fenced), "{ended}");
}

/// A takeover that is at its barrier and waits for what `wanted` names.
fn at_barrier(world: &mut World, wanted: fn(&Need) -> bool) -> Takeover {
    let mut takeover = Takeover::new();
    while !wanted(&takeover.need()) {
        let answer = world.answer(takeover.need());
        takeover.give(answer).unwrap();
    }
    takeover
}

#[test]
fn frames_behind_the_barrier_are_another_owners() {
    let mut world = world();
    world.work();
    world.apply(1);
    let mut slow = at_barrier(&mut world, |need| matches!(need, Need::Frames { .. }));
    world.work();
    // A reader gives whatever is there.
    let to = world.out_seq();
    let ended = loop {
        let mut need = slow.need();
        if let Need::Frames { from, .. } = need {
            need = Need::Frames { from, to };
        }
        let answer = world.answer(need);
        if let Err(ended) = slow.give(answer) {
            break ended;
        }
    };
    assert!(matches!(ended, Ended::Fenced), "{ended}");
}

#[test]
fn rows_behind_the_barrier_are_another_owners() {
    let mut world = world();
    let mut slow = at_barrier(&mut world, |need| matches!(need, Need::Snapshot));
    world.work();
    world.apply(world.out_seq());
    let rows = world.answer(slow.need());
    slow.give(rows).unwrap();
    let logs = world.answer(slow.need());
    let ended = slow.give(logs).unwrap_err();
    assert!(matches!(ended, Ended::Fenced), "{ended}");
}

fn identity() -> nixfleet_bus::StreamIdentity {
    nixfleet_bus::StreamIdentity {
        created: at(0),
        first_seq: 1,
        last_seq: 0,
    }
}

/// Barriers on a log that lost its end would fill the gap by which the loss is seen.
#[test]
fn nothing_is_published_on_a_log_that_lost_its_end() {
    let mut world = world();
    world.work();
    world.apply(world.out_seq());
    world.output.truncate(2);
    for _ in 0..10 {
        let ended = world.take_over().unwrap_err();
        assert!(matches!(ended, Ended::Halted(_)), "{ended}");
    }
    assert_eq!(world.output.len(), 2);
}

/// The rows are behind what was folded, and other entries took the lost ones' places.
#[test]
fn entries_in_the_place_of_lost_ones_are_seen_although_the_rows_are_behind() {
    let mut world = world();
    world.work();
    world.apply(2);
    world.generation = 1;
    let ended = world.take_over().unwrap_err();
    assert!(ended.to_string().contains("another message"), "{ended}");
    world.generation = 0;
    world.input.truncate(2);
    let ended = world.take_over().unwrap_err();
    assert!(ended.to_string().contains("lost its end"), "{ended}");
}

/// Logs created anew above the cursors are gone on with, by every owner that comes, also when none
/// of those before folded anything.
#[test]
fn a_log_created_anew_is_gone_on_with_by_one_owner_after_the_other() {
    let mut world = world();
    world.work();
    world.apply(world.out_seq());
    (world.input_first, world.output_first) = (1_000_004, 1_000_005);
    world.created = at(60);
    world.input.clear();
    world.output.clear();
    for _ in 0..3 {
        let taken = world.take_over().unwrap();
        assert_eq!(taken.start.next.seq, 1_000_004);
        assert_eq!(known(&taken.state), ["stable@4f"]);
        assert_eq!(world.output.last().unwrap().rebuilt_from, None);
        world.apply(world.out_seq());
    }
    let epochs: Vec<_> = world.output.iter().map(|frame| frame.epoch).collect();
    assert_eq!(epochs, [2, 3, 4]);
}

/// The rows were lost as well before anybody had published behind them.
#[test]
fn logs_that_begin_high_are_taken_up_where_they_begin_when_nobody_knows_more() {
    let mut world = world();
    (world.input_first, world.output_first) = (1_000_004, 1_000_005);
    world.input.clear();
    world.output.clear();
    world.rows = Default::default();
    for _ in 0..2 {
        let taken = world.take_over().unwrap();
        assert_eq!(taken.start.next.seq, 1_000_004);
        assert_eq!(known(&taken.state), [""; 0]);
    }
}

/// The frames that are left speak of a rollout whose opening is gone.
#[test]
fn an_empty_database_is_rebuilt_from_what_a_trimmed_log_holds() {
    let mut world = world();
    let mut owner = world.work();
    world.input.push(opening("stable@5b"));
    world.go_on(&mut owner);
    world.output.drain(..3);
    world.output_first = 4;
    let whole = owner.state().clone();

    // An applier was faster: its rows are as little as the log.
    world.apply(5);
    let taken = world.take_over().unwrap();
    assert_eq!(world.output.last().unwrap().rebuilt_from, Some(4));
    assert_eq!(known(&taken.state), ["stable@5b"]);
    assert_ne!(taken.state.hash(), whole.hash());

    // From nothing the same comes out, and goes on: hashes are compared again.
    world.rows = Default::default();
    let taken = world.take_over().unwrap();
    assert_eq!(world.output.last().unwrap().rebuilt_from, Some(4));
    let mut owner = nixfleet_reducer::Owner::new(taken, Default::default(), crate::world::CONFIG);
    world.input.push(acknowledged("stable@5b", "a"));
    world.go_on(&mut owner);
    assert!(world.output.last().unwrap().state_hash.is_some());
    world.apply(world.out_seq());
    let taken = world.take_over().unwrap();
    assert_eq!(taken.state, *owner.state());
}

/// A backup of the rows comes back: it knows a rollout that the owner has forgotten.
#[test]
fn rows_that_know_more_than_the_owner_stop_the_partition() {
    let mut world = world();
    world.work();
    world.apply(world.out_seq());
    let backup = std::mem::take(&mut world.rows);
    world.output.drain(..4);
    world.output_first = 5;
    let mut owner = nixfleet_reducer::Owner::new(
        world.take_over().unwrap(),
        Default::default(),
        crate::world::CONFIG,
    );
    assert_eq!(known(owner.state()), [""; 0]);
    world.input.push(acknowledged("stable@4f", "a"));
    world.go_on(&mut owner);
    world.rows = backup;
    let ended = world.take_over().unwrap_err();
    assert!(ended.to_string().contains("absorbing frame"), "{ended}");
    assert!(matches!(ended, Ended::Halted(_)));
}

#[test]
fn a_state_that_is_not_its_owners_stops_the_partition() {
    let mut world = world();
    world.work();
    world.apply(3);
    std::sync::Arc::make_mut(&mut world.rows.hosts[1].record).recovery_seq += 1;
    let ended = world.take_over().unwrap_err();
    assert!(matches!(ended, Ended::Halted(_)), "{ended}");
}

#[test]
fn rows_hold_what_their_manifests_pinned_and_old_ones_ask_for_it() {
    let mut world = world();
    world.work();
    world.apply(world.out_seq());
    world.take_over().unwrap();
    assert!(!world.needs.contains(&"manifest"));
    world.rows.rollouts[0].pinned = None;
    world.take_over().unwrap();
    assert!(world.needs.contains(&"manifest"));
}

#[test]
fn missing_bytes_stop_the_partition_and_useless_ones_do_not() {
    let mut pins = nixfleet_reducer::Pins::new();
    assert!(pins.lacks(&"m".into()));
    pins.give("m".into(), Fetched::Useless).unwrap();
    assert!(!pins.lacks(&"m".into()));
    let ended = pins.give("n".into(), Fetched::Missing("f".into()));
    assert!(matches!(ended, Err(Ended::Halted(_))));
}

#[test]
fn an_answer_nobody_asked_for_ends_the_takeover() {
    let mut takeover = Takeover::new();
    let ended = takeover.give(Answer::Barrier(Ok(1))).unwrap_err();
    assert!(matches!(ended, Ended::Failed(_)), "{ended}");
}
