//! Leases on a real server: even shares, fast takeover, never two holders.

mod test_member;

use std::time::{Duration, Instant};

use nixfleet_harness::proxy::ProxyMode;

use self::test_member::{Board, CONFIG, Member, Observer, TTL};
use super::{SOON, bus, connect_through_proxy};

/// Limit of a takeover without an expiry: a record just before its renewal remains valid for four more
/// seconds.
const AT_ONCE: Duration = Duration::from_secs(2);
/// A takeover that waits for one expiry, not for two.
const AFTER_EXPIRY: Duration = Duration::from_secs(TTL.as_secs() + 4);

#[tokio::test(flavor = "multi_thread")]
async fn members_share_evenly_and_a_fourth_takes_only_its_share() {
    let base = bus("shares").await;
    let board = Board::new(8);
    let config = base.config();
    let mut members = Vec::new();
    for name in ["a", "b", "c"] {
        members.push(Member::join(config, name, &board));
    }
    let before = board.balanced(3, SOON).await;
    members.push(Member::join(config, "d", &board));
    let after = board.balanced(4, SOON).await;
    let moved: Vec<_> = after
        .iter()
        .filter(|(key, who)| before[*key] != **who)
        .collect();
    assert_eq!(moved.len(), 2, "{before:?} {after:?}");
    assert!(moved.iter().all(|(_, who)| *who == "d"), "{moved:?}");
    board.assert_no_violation();
    drop(members);
    base.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_stop_releases_leases_immediately() {
    let base = bus("stop").await;
    let board = Board::new(8);
    let stopping = Member::join(base.config(), "a", &board);
    let _staying = Member::join(base.config(), "b", &board);
    let before = board.balanced(2, SOON).await;
    let stopped = Instant::now();
    let closing = stopping.stop();
    let after = board.balanced(1, AT_ONCE).await;
    assert!(stopped.elapsed() < AT_ONCE, "{:?}", stopped.elapsed());
    let moved = after.iter().filter(|(key, who)| before[*key] != **who);
    assert_eq!(moved.count(), 4);
    closing.join().unwrap();
    board.assert_no_violation();
    base.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_member_is_replaced_within_the_lease_ttl() {
    let base = bus("kill").await;
    let board = Board::new(8);
    let killed = Member::join(base.config(), "a", &board);
    let _staying = Member::join(base.config(), "b", &board);
    board.balanced(2, SOON).await;
    killed.kill();
    let from = Instant::now();
    board.forget("a");
    board.balanced(1, AFTER_EXPIRY).await;
    assert!(from.elapsed() > AT_ONCE, "its records were still there");
    board.assert_no_violation();
    base.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_member_stops_before_another_starts_and_rejoins() {
    let base = bus("stall").await;
    let (through, proxy) = connect_through_proxy(base.config()).await;
    let board = Board::new(4);
    let _stalled = Member::join(&through, "a", &board);
    let _other = Member::join(base.config(), "b", &board);
    board.balanced(2, SOON).await;
    proxy.set(ProxyMode::Stalled);
    let from = Instant::now();
    board
        .until(SOON, |held| held.values().all(|who| who != "a"))
        .await;
    assert!(
        from.elapsed() < TTL - Duration::from_secs(1),
        "{:?}",
        from.elapsed()
    );
    board.balanced(1, AFTER_EXPIRY).await;
    proxy.reconnect();
    board.balanced(2, SOON).await;
    board.assert_no_violation();
    drop(proxy);
    base.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_acknowledgement_keeps_the_lease() {
    let base = bus("blip").await;
    let (through, proxy) = connect_through_proxy(base.config()).await;
    let board = Board::new(4);
    let _member = Member::join(&through, "a", &board);
    board.balanced(1, SOON).await;
    let taken = board.taken();
    let mut observer = Observer::start(base.config()).await;
    observer.renewals(4).await;
    // Renewals are stored and their acknowledgements lost: those just observed, or the next. They are not
    // repeated before a reply.
    proxy.set(ProxyMode::HoldReplies);
    tokio::time::sleep(Duration::from_millis(CONFIG.renew_seconds * 1_500)).await;
    proxy.reconnect();
    // Longer than the lease TTL.
    observer.forget();
    observer.renewals(4 * 6).await;
    assert_eq!(board.taken(), taken, "nothing was taken again");
    drop(proxy);
    base.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_with_the_same_name_is_refused_with_an_error() {
    let base = bus("name").await;
    let board = Board::new(4);
    let first = Member::join(base.config(), "a", &board);
    board.balanced(1, SOON).await;
    let second = Member::join(base.config(), "a", &board);
    let reason = second.refusal().await;
    assert!(reason.contains("the instance name a is taken"), "{reason}");
    board.assert_no_violation();
    let closing = first.stop();
    second.accepted().await;
    board.balanced(1, AT_ONCE).await;
    closing.join().unwrap();
    base.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_leader_is_succeeded_immediately() {
    let base = bus("leader").await;
    let board = Board::with_keys(["leader".to_owned()]);
    let first = Member::join(base.config(), "a", &board);
    board.until(SOON, |held| held.values().eq(["a"])).await;
    let _second = Member::join(base.config(), "b", &board);
    let _third = Member::join(base.config(), "c", &board);
    let mut observer = Observer::start(base.config()).await;
    observer.renewals(6).await;
    assert_eq!(
        board.taken(),
        1,
        "newcomers do not move a leader that works"
    );
    let closing = first.stop();
    board
        .until(AT_ONCE, |held| held.len() == 1 && held["leader"] != "a")
        .await;
    closing.join().unwrap();
    board.assert_no_violation();
    base.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_work_moves_to_another_member() {
    let base = bus("fails").await;
    let board = Board::with_keys(["leader".to_owned()]);
    let failing = Member::join(base.config(), "a", &board);
    board.until(SOON, |held| held.values().eq(["a"])).await;
    let _other = Member::join(base.config(), "b", &board);
    failing.fail_from_now_on();
    board.until(SOON, |held| held.values().eq(["b"])).await;
    let mut observer = Observer::start(base.config()).await;
    observer.renewals(6).await;
    board.until(AT_ONCE, |held| held.values().eq(["b"])).await;
    board.assert_no_violation();
    base.close().await;
}

/// With connections that stall, break and lose replies, and members that are killed, stopped and started,
/// workers and bucket show at most one holder at any time; afterwards the shares are even.
#[tokio::test(flavor = "multi_thread")]
async fn flapping_members_never_hold_a_key_together() {
    let base = bus("flaps").await;
    let board = Board::new(6);
    let observer = Observer::start(base.config()).await;
    let mut members = Vec::new();
    let mut dice = test_member::Dice(20_260_501);
    for number in 0..24 {
        if members.len() < 2 || (members.len() < 4 && dice.below(3) == 0) {
            let (through, proxy) = connect_through_proxy(base.config()).await;
            members.push((Member::join(&through, &format!("m{number}"), &board), proxy));
        }
        let one = dice.below(members.len() as u64) as usize;
        match dice.below(6) {
            0 if members.len() > 2 => {
                let (member, _proxy) = members.swap_remove(one);
                let name = member.kill();
                board.forget(&name);
            }
            1 if members.len() > 2 => {
                let (member, _proxy) = members.swap_remove(one);
                member.stop().join().unwrap();
            }
            2 => members[one].1.set(ProxyMode::Stalled),
            3 => members[one].1.set(ProxyMode::HoldReplies),
            4 => members[one].1.set(ProxyMode::Cut),
            _ => {}
        }
        let pause = Duration::from_millis(300 + dice.below(3_000));
        board.until_or_else(pause, |_| false).await;
        for (_, proxy) in &members {
            if dice.below(2) == 0 {
                proxy.reconnect();
            }
        }
    }
    for (_, proxy) in &members {
        proxy.reconnect();
    }
    board.balanced(members.len(), SOON).await;
    board.assert_no_violation();
    assert!(board.taken() > 12, "keys changed hands: {}", board.taken());
    observer.assert_no_violation();
    drop(members);
    base.close().await;
}

#[test]
fn the_lease_times_of_these_tests_are_valid() {
    assert_eq!(CONFIG.faults(), Vec::new());
}
