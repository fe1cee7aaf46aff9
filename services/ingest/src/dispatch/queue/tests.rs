use nixfleet_proto::effects_frame::AcceptedEffects;

use super::*;

const P: fn() -> Partition = || Partition::new(3);

fn at(minute: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000 + minute * 60, 0).unwrap()
}

fn row(host: &str, rollout: &str, minute: i64) -> QueuedDispatch {
    QueuedDispatch {
        rollout_id: rollout.parse().unwrap(),
        hostname: host.parse().unwrap(),
        target_closure: "closure".into(),
        soak_minutes: Minutes::from_minutes(5),
        enqueued_at: at(minute),
    }
}

fn outcome(minute: i64, effects: Vec<Effect>) -> OutcomeEffects {
    OutcomeEffects {
        at: at(minute),
        accepted: AcceptedEffects { effects },
    }
}

fn insert(host: &str, rollout: &str) -> Effect {
    Effect::InsertDispatch {
        rollout_id: rollout.parse().unwrap(),
        hostname: host.parse().unwrap(),
        target_closure: "closure".into(),
        soak_minutes: Minutes::from_minutes(5),
    }
}

#[test]
fn an_accepted_dispatch_is_offered_to_its_host_only() {
    let (mut queue, now) = (DispatchQueue::default(), Instant::now());
    let queued = outcome(7, vec![insert("a", "stable@1")]);
    let wake = queue.follow(P(), &queued, now);
    assert_eq!(wake, [Hostname::from("a")]);
    assert_eq!(queue.fetch(&"b".into(), now), Offer::Nothing);
    let offer = queue.fetch(&"a".into(), now);
    assert_eq!(offer, Offer::Now(row("a", "stable@1", 7)));
}

#[test]
fn the_same_row_comes_again_after_a_pause_that_doubles_to_ten_minutes() {
    let (mut queue, mut now) = (DispatchQueue::default(), Instant::now());
    queue.load(P(), vec![row("a", "stable@1", 0)], now);
    for pause in [60, 120, 240, 480, 600, 600] {
        assert!(matches!(queue.fetch(&"a".into(), now), Offer::Now(_)));
        let due = now + Duration::from_secs(pause);
        assert_eq!(queue.fetch(&"a".into(), now), Offer::At(due));
        now = due;
    }
}

#[test]
fn the_newest_dispatch_of_a_host_comes_first() {
    let (mut queue, now) = (DispatchQueue::default(), Instant::now());
    let rows = vec![row("a", "stable@1", 0), row("a", "stable@2", 1)];
    queue.load(P(), rows, now);
    let offer = queue.fetch(&"a".into(), now);
    assert_eq!(offer, Offer::Now(row("a", "stable@2", 1)));
}

#[test]
fn rows_go_when_the_host_leaves_pending_or_the_rollout_ends() {
    let (mut queue, now) = (DispatchQueue::default(), Instant::now());
    let rows = ["a", "b", "c"].map(|host| row(host, "stable@1", 0));
    queue.load(P(), rows.to_vec(), now);
    let left = Effect::RemoveDispatch {
        rollout_id: "stable@1".parse().unwrap(),
        hostname: "a".into(),
    };
    queue.follow(P(), &outcome(1, vec![left]), now);
    assert_eq!(queue.fetch(&"a".into(), now), Offer::Nothing);
    assert_eq!(queue.len(), 2);
    let over = Effect::CancelDispatches {
        rollout_id: "stable@1".parse().unwrap(),
    };
    queue.follow(P(), &outcome(2, vec![over]), now);
    assert_eq!(queue.fetch(&"b".into(), now), Offer::Nothing);
    assert_eq!(queue.len(), 0);
}

#[test]
fn loading_again_replaces_one_partition_and_keeps_the_pauses() {
    let (mut queue, now) = (DispatchQueue::default(), Instant::now());
    let other = Partition::new(4);
    queue.load(
        P(),
        vec![row("a", "stable@1", 0), row("b", "stable@1", 0)],
        now,
    );
    queue.load(other, vec![row("c", "edge@1", 0)], now);
    assert!(matches!(queue.fetch(&"a".into(), now), Offer::Now(_)));
    queue.load(P(), vec![row("a", "stable@1", 0)], now);
    assert!(matches!(queue.fetch(&"a".into(), now), Offer::At(_)));
    assert_eq!(queue.fetch(&"b".into(), now), Offer::Nothing);
    assert!(matches!(queue.fetch(&"c".into(), now), Offer::Now(_)));
}
