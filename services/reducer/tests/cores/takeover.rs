//! Takeovers of a partition.

use nixfleet_proto::Position;
use nixfleet_reducer::{ManifestFetch, OwnershipEnd, Takeover, TakeoverRequest, TakeoverResponse};

use crate::simulated_partition::{SimulatedPartition, acknowledged, at, known, opening};

fn partition() -> SimulatedPartition {
    SimulatedPartition::of([
        opening("stable@4f"),
        acknowledged("stable@4f", "a"),
        acknowledged("stable@4f", "b"),
    ])
}

#[test]
fn the_barrier_follows_the_log_check_and_precedes_the_rows() {
    let mut partition = partition();
    let owner = partition.work();
    assert_eq!(owner.next().seq, 5);
    partition.apply(2);
    let taken = partition.take_over().unwrap();
    let order = [
        "cursor",
        "last frame",
        "logs",
        "barrier",
        "snapshot",
        "logs",
        "frames",
    ];
    assert_eq!(partition.requests[..7], order);
    let barrier = partition.output.last().unwrap();
    assert_eq!((barrier.epoch, taken.epoch), (2, 2));
    assert_eq!(barrier.last_input_id.as_deref(), Some("0/4"));
    assert_eq!(taken.out_seq, partition.out_seq());
    // The fold continues behind the last frame, independent of the rows.
    assert_eq!(taken.start.next, Position { seq: 5, index: 0 });
    assert_eq!(taken.state, *owner.state());
}

#[test]
fn a_takeover_is_fenced_by_an_owner_that_published_meanwhile() {
    let mut partition = partition();
    let mut slow = Takeover::new();
    slow.give(TakeoverResponse::Cursor(None)).unwrap();
    slow.give(TakeoverResponse::LastFrame(None)).unwrap();
    let TakeoverRequest::Logs(_) = slow.next_request() else {
        panic!("{:?}", slow.next_request());
    };
    let logs = nixfleet_reducer::PartitionLogs {
        input: identity(),
        output: identity(),
        ids: Default::default(),
    };
    slow.give(TakeoverResponse::Logs(logs)).unwrap();
    let TakeoverRequest::Barrier { frame, expected } = slow.next_request() else {
        panic!("{:?}", slow.next_request());
    };
    partition.work();
    let published = partition.publish(&frame, expected);
    let ended = slow.give(TakeoverResponse::Barrier(published)).unwrap_err();
    assert!(matches!(ended, OwnershipEnd::Fenced), "{ended}");
}

/// A takeover at its barrier whose next request satisfies `wanted`.
fn at_barrier(
    partition: &mut SimulatedPartition,
    wanted: fn(&TakeoverRequest) -> bool,
) -> Takeover {
    let mut takeover = Takeover::new();
    while !wanted(&takeover.next_request()) {
        let answer = partition.answer(takeover.next_request());
        takeover.give(answer).unwrap();
    }
    takeover
}

#[test]
fn frames_behind_the_barrier_fence_the_takeover() {
    let mut partition = partition();
    partition.work();
    partition.apply(1);
    let mut slow = at_barrier(&mut partition, |request| {
        matches!(request, TakeoverRequest::Frames { .. })
    });
    partition.work();
    // A reader returns every frame of the log.
    let to = partition.out_seq();
    let ended = loop {
        let mut request = slow.next_request();
        if let TakeoverRequest::Frames { from, .. } = request {
            request = TakeoverRequest::Frames { from, to };
        }
        let answer = partition.answer(request);
        if let Err(ended) = slow.give(answer) {
            break ended;
        }
    };
    assert!(matches!(ended, OwnershipEnd::Fenced), "{ended}");
}

#[test]
fn rows_behind_the_barrier_fence_the_takeover() {
    let mut partition = partition();
    let mut slow = at_barrier(&mut partition, |request| {
        matches!(request, TakeoverRequest::Snapshot)
    });
    partition.work();
    partition.apply(partition.out_seq());
    let rows = partition.answer(slow.next_request());
    slow.give(rows).unwrap();
    let logs = partition.answer(slow.next_request());
    let ended = slow.give(logs).unwrap_err();
    assert!(matches!(ended, OwnershipEnd::Fenced), "{ended}");
}

fn identity() -> nixfleet_bus::StreamIdentity {
    nixfleet_bus::StreamIdentity {
        created: at(0),
        first_seq: 1,
        last_seq: 0,
    }
}

/// Barriers on a log that lost its end would fill the gap that shows the loss.
#[test]
fn nothing_is_published_on_a_log_that_lost_its_end() {
    let mut partition = partition();
    partition.work();
    partition.apply(partition.out_seq());
    partition.output.truncate(2);
    for _ in 0..10 {
        let ended = partition.take_over().unwrap_err();
        assert!(matches!(ended, OwnershipEnd::Halted(_)), "{ended}");
    }
    assert_eq!(partition.output.len(), 2);
}

/// The rows are behind the fold, and other entries have the sequences of lost ones.
#[test]
fn replaced_entries_are_detected_when_the_rows_are_behind() {
    let mut partition = partition();
    partition.work();
    partition.apply(2);
    partition.generation = 1;
    let ended = partition.take_over().unwrap_err();
    assert!(ended.to_string().contains("another message"), "{ended}");
    partition.generation = 0;
    partition.input.truncate(2);
    let ended = partition.take_over().unwrap_err();
    assert!(ended.to_string().contains("lost its end"), "{ended}");
}

/// Every owner continues logs that were recreated above the cursors, even if no owner before it
/// folded an entry.
#[test]
fn every_owner_continues_a_recreated_log() {
    let mut partition = partition();
    partition.work();
    partition.apply(partition.out_seq());
    (partition.input_first, partition.output_first) = (1_000_004, 1_000_005);
    partition.created = at(60);
    partition.input.clear();
    partition.output.clear();
    for _ in 0..3 {
        let taken = partition.take_over().unwrap();
        assert_eq!(taken.start.next.seq, 1_000_004);
        assert_eq!(known(&taken.state), ["stable@4f"]);
        assert_eq!(partition.output.last().unwrap().rebuilt_from, None);
        partition.apply(partition.out_seq());
    }
    let epochs: Vec<_> = partition.output.iter().map(|frame| frame.epoch).collect();
    assert_eq!(epochs, [2, 3, 4]);
}

/// The rows were lost too, before any frame was published behind them.
#[test]
fn without_rows_a_recreated_log_is_folded_from_its_beginning() {
    let mut partition = partition();
    (partition.input_first, partition.output_first) = (1_000_004, 1_000_005);
    partition.input.clear();
    partition.output.clear();
    partition.rows = Default::default();
    for _ in 0..2 {
        let taken = partition.take_over().unwrap();
        assert_eq!(taken.start.next.seq, 1_000_004);
        assert_eq!(known(&taken.state), [""; 0]);
    }
}

/// The remaining frames name a rollout whose opening was trimmed.
#[test]
fn an_empty_database_is_rebuilt_from_a_trimmed_log() {
    let mut partition = partition();
    let mut owner = partition.work();
    partition.input.push(opening("stable@5b"));
    partition.go_on(&mut owner);
    partition.output.drain(..3);
    partition.output_first = 4;
    let complete = owner.state().clone();

    // An applier wrote the rows of the trimmed log already.
    partition.apply(5);
    let taken = partition.take_over().unwrap();
    assert_eq!(partition.output.last().unwrap().rebuilt_from, Some(4));
    assert_eq!(known(&taken.state), ["stable@5b"]);
    assert_ne!(taken.state.hash(), complete.hash());

    // Without rows the result is the same, and later hashes are compared again.
    partition.rows = Default::default();
    let taken = partition.take_over().unwrap();
    assert_eq!(partition.output.last().unwrap().rebuilt_from, Some(4));
    let mut owner = nixfleet_reducer::Owner::new(
        taken,
        Default::default(),
        crate::simulated_partition::CONFIG,
    );
    partition.input.push(acknowledged("stable@5b", "a"));
    partition.go_on(&mut owner);
    assert!(partition.output.last().unwrap().state_hash.is_some());
    partition.apply(partition.out_seq());
    let taken = partition.take_over().unwrap();
    assert_eq!(taken.state, *owner.state());
}

/// A restored backup of the rows has a rollout that the owner does not know.
#[test]
fn rows_with_an_unknown_rollout_halt_the_partition() {
    let mut partition = partition();
    partition.work();
    partition.apply(partition.out_seq());
    let backup = std::mem::take(&mut partition.rows);
    partition.output.drain(..4);
    partition.output_first = 5;
    let mut owner = nixfleet_reducer::Owner::new(
        partition.take_over().unwrap(),
        Default::default(),
        crate::simulated_partition::CONFIG,
    );
    assert_eq!(known(owner.state()), [""; 0]);
    partition.input.push(acknowledged("stable@4f", "a"));
    partition.go_on(&mut owner);
    partition.rows = backup;
    let ended = partition.take_over().unwrap_err();
    assert!(ended.to_string().contains("absorbing frame"), "{ended}");
    assert!(matches!(ended, OwnershipEnd::Halted(_)));
}

#[test]
fn a_different_state_hash_halts_the_partition() {
    let mut partition = partition();
    partition.work();
    partition.apply(3);
    std::sync::Arc::make_mut(&mut partition.rows.hosts[1].record).recovery_seq += 1;
    let ended = partition.take_over().unwrap_err();
    assert!(matches!(ended, OwnershipEnd::Halted(_)), "{ended}");
}

#[test]
fn manifests_are_fetched_for_rows_without_pinned_content() {
    let mut partition = partition();
    partition.work();
    partition.apply(partition.out_seq());
    partition.take_over().unwrap();
    assert!(!partition.requests.contains(&"manifest"));
    partition.rows.rollouts[0].pinned = None;
    partition.take_over().unwrap();
    assert!(partition.requests.contains(&"manifest"));
}

#[test]
fn missing_manifests_halt_the_partition_and_invalid_ones_do_not() {
    let mut pinned = nixfleet_reducer::PinnedManifests::new();
    assert!(pinned.is_missing(&"m".into()));
    pinned.add("m".into(), ManifestFetch::Invalid).unwrap();
    assert!(!pinned.is_missing(&"m".into()));
    let ended = pinned.add("n".into(), ManifestFetch::Missing("f".into()));
    assert!(matches!(ended, Err(OwnershipEnd::Halted(_))));
}

#[test]
fn an_unrequested_response_ends_the_takeover() {
    let mut takeover = Takeover::new();
    let ended = takeover.give(TakeoverResponse::Barrier(Ok(1))).unwrap_err();
    assert!(matches!(ended, OwnershipEnd::Failed(_)), "{ended}");
}
