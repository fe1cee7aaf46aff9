use nixfleet_proto::HostEventBody;

use super::*;

const LIMITS: RequestLimits = RequestLimits {
    events: 3,
    bytes: 4_000,
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(seconds, 0).unwrap()
}

fn event(seq: u64) -> WireEvent {
    WireEvent {
        seq,
        body: HostEventBody::ActivationDeferred {
            component: "kernel".to_owned(),
            deferred_at: at(0),
        },
    }
}

fn failed(seq: u64, bytes: usize) -> WireEvent {
    WireEvent {
        seq,
        body: HostEventBody::ActivationFailed {
            exit_code: 1,
            stderr_tail: "x".repeat(bytes),
            failed_at: at(0),
        },
    }
}

fn filled(seqs: std::ops::RangeInclusive<u64>) -> Outbox {
    let mut outbox = Outbox::default();
    for seq in seqs {
        outbox.push(event(seq), true, 10);
    }
    outbox
}

fn take(outbox: &mut Outbox, seconds: i64) -> Vec<u64> {
    let events = outbox.take_next(at(seconds), LIMITS);
    events.iter().map(|event| event.seq).collect()
}

/// Acknowledges all events of the next request.
fn deliver(outbox: &mut Outbox) -> Vec<u64> {
    let seqs = take(outbox, 0);
    for seq in &seqs {
        assert!(outbox.take_answered(*seq).is_some());
    }
    assert_eq!(outbox.finish_request(), RequestEnd::Settled);
    seqs
}

#[test]
fn one_request_is_in_flight_and_order_is_kept() {
    let mut outbox = filled(1..=4);
    assert_eq!(take(&mut outbox, 0), [1, 2, 3]);
    assert!(take(&mut outbox, 0).is_empty());
    assert_eq!(outbox.take_answered(4), None, "not in flight");
    for seq in 1..=3 {
        assert!(outbox.take_answered(seq).is_some());
    }
    assert_eq!(outbox.finish_request(), RequestEnd::Settled);
    assert_eq!(take(&mut outbox, 0), [4]);
}

#[test]
fn unsettled_events_are_sent_again_when_due() {
    let mut outbox = filled(1..=3);
    take(&mut outbox, 0);
    assert!(outbox.take_answered(1).is_some());
    assert_eq!(
        outbox.finish_request(),
        RequestEnd::Unsettled { attempts: 1 }
    );
    outbox.wait_until(at(5));
    assert!(take(&mut outbox, 4).is_empty());
    assert_eq!(outbox.next_due(), Some(at(5)));
    assert_eq!(take(&mut outbox, 5), [2, 3]);
    assert_eq!(
        outbox.finish_request(),
        RequestEnd::Unsettled { attempts: 2 }
    );
}

#[test]
fn a_request_is_bounded_in_bytes_but_never_empty() {
    let mut outbox = Outbox::default();
    for seq in 1..=2 {
        outbox.push(failed(seq, 100_000), true, 10);
    }
    for seq in 3..=4 {
        outbox.push(failed(seq, 700), true, 10);
    }
    assert_eq!(deliver(&mut outbox), [1]);
    assert_eq!(deliver(&mut outbox), [2]);
    assert_eq!(deliver(&mut outbox), [3, 4]);
}

#[test]
fn events_of_a_refused_array_are_sent_one_by_one() {
    let mut outbox = filled(1..=4);
    assert_eq!(take(&mut outbox, 0), [1, 2, 3]);
    assert!(outbox.send_one_by_one());
    for seq in 1..=3 {
        assert_eq!(deliver(&mut outbox), [seq]);
    }
    outbox.push(event(5), true, 10);
    assert_eq!(take(&mut outbox, 0), [4, 5]);
}

#[test]
fn a_single_event_cannot_be_split() {
    let mut outbox = filled(1..=1);
    take(&mut outbox, 0);
    assert!(!outbox.send_one_by_one());
    assert!(outbox.is_in_flight(1));
}

#[test]
fn a_full_queue_drops_only_undurable_events() {
    let mut outbox = Outbox::default();
    assert_eq!(outbox.push(event(1), true, 1), None);
    assert_eq!(outbox.push(event(2), true, 1), None);
    assert_eq!(outbox.push(event(3), false, 1), Some(3));
    assert_eq!(outbox.len(), 2);
}

#[test]
fn events_in_flight_are_not_dropped() {
    let mut outbox = Outbox::default();
    for seq in 1..=3 {
        outbox.push(event(seq), false, 10);
    }
    assert_eq!(take(&mut outbox, 0), [1, 2, 3]);
    assert_eq!(outbox.push(event(4), false, 3), Some(4));
    assert_eq!(outbox.push(event(5), true, 3), None);
    assert_eq!(outbox.len(), 4);
}

#[test]
fn a_replay_sends_everything_above_the_value_in_order() {
    let mut outbox = Outbox::default();
    for seq in 1..=4 {
        outbox.push(event(seq), true, 10);
        assert_eq!(deliver(&mut outbox), [seq]);
        outbox.retain_for_replay(event(seq), 10);
    }
    outbox.push(event(5), true, 10);
    outbox.replay(2);
    assert_eq!(deliver(&mut outbox), [3, 4, 5]);
}

#[test]
fn a_replay_leaves_the_events_in_flight_alone() {
    let mut outbox = Outbox::default();
    for seq in 1..=2 {
        outbox.push(event(seq), true, 10);
        deliver(&mut outbox);
        outbox.retain_for_replay(event(seq), 10);
    }
    outbox.push(event(3), true, 10);
    outbox.push(event(4), true, 10);
    assert_eq!(take(&mut outbox, 0), [3, 4]);
    outbox.replay(0);
    assert!(outbox.take_answered(3).is_some());
    assert!(outbox.take_answered(4).is_some());
    assert_eq!(outbox.finish_request(), RequestEnd::Settled);
    assert_eq!(take(&mut outbox, 0), [1, 2]);
}

#[test]
fn events_of_a_failed_request_follow_replayed_ones() {
    let mut outbox = Outbox::default();
    outbox.push(event(1), true, 10);
    deliver(&mut outbox);
    outbox.retain_for_replay(event(1), 10);
    outbox.push(event(2), true, 10);
    outbox.push(event(3), true, 10);
    assert_eq!(take(&mut outbox, 0), [2, 3]);
    outbox.replay(0);
    assert_eq!(
        outbox.finish_request(),
        RequestEnd::Unsettled { attempts: 1 }
    );
    assert_eq!(take(&mut outbox, 0), [1, 2, 3]);
}

#[test]
fn events_are_sorted_after_a_restart_and_a_replay() {
    let mut outbox = Outbox::restored(vec![event(4), event(2)], vec![event(1), event(3)]);
    outbox.replay(1);
    assert_eq!(take(&mut outbox, 0), [2, 3, 4]);
}

#[test]
fn a_new_walk_waits_for_the_last_request_of_the_walk_before() {
    let mut earlier = filled(1..=2);
    assert_eq!(take(&mut earlier, 0), [1, 2]);
    let mut outbox = Outbox::after(&earlier);
    outbox.push(event(3), true, 10);
    assert!(take(&mut outbox, 0).is_empty());
    assert_eq!(outbox.next_due(), None);
    outbox.finish_earlier_request();
    assert_eq!(take(&mut outbox, 0), [3]);
}
