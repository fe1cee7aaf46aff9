//! Leases change hands at once when given back, and in time when their holder is gone.

use std::time::{Duration, Instant};

use nixfleet_bus::{Bus, BusConfig, LeaseConfig};
use nixfleet_harness::shared_nats;

use super::proxy::{Mode, Proxy};
use super::{SOON, bus, second};

const CONFIG: LeaseConfig = LeaseConfig {
    ttl_seconds: 5,
    renew_seconds: 1,
};

#[tokio::test]
async fn a_lease_given_back_is_taken_at_once() {
    let one = bus("release").await;
    let two = second(&one).await;
    let held = one.leases("reducer", "one", CONFIG).acquire("00").await;
    assert!(held.is_held());
    let waiting = {
        let leases = two.leases("reducer", "two", CONFIG);
        tokio::spawn(async move { (leases.acquire("00").await, Instant::now()) })
    };
    // Held through more than a time to live, so renewals work.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(held.is_held() && !waiting.is_finished());
    // Another key and another service are not concerned.
    let other = two.leases("reducer", "two", CONFIG).acquire("01").await;
    let applier = two.leases("applier", "two", CONFIG).acquire("00").await;
    let released = Instant::now();
    held.release().await;
    let (taken, at) = waiting.await.unwrap();
    assert!(
        at - released < Duration::from_millis(900),
        "{:?}",
        at - released
    );
    assert!(taken.is_held() && other.is_held() && applier.is_held());
    one.close().await;
    two.close().await;
}

#[tokio::test]
async fn a_dropped_lease_and_a_closed_bus_give_back() {
    let one = bus("dropped").await;
    let two = second(&one).await;
    drop(one.leases("planner", "one", CONFIG).acquire("leader").await);
    let start = Instant::now();
    let held = two.leases("planner", "two", CONFIG).acquire("leader").await;
    two.close().await;
    held.lost().await;
    one.leases("planner", "one", CONFIG).acquire("leader").await;
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "no expiry was waited for"
    );
    one.close().await;
}

#[tokio::test]
async fn a_holder_that_is_cut_off_stops_before_another_starts() {
    let direct = bus("cutoff").await;
    let proxy = Proxy::start(&shared_nats().unwrap().url()).await;
    let through = BusConfig {
        url: proxy.url(),
        ..direct.config().clone()
    };
    let holder = Bus::connect(through, "test/holder").await.unwrap();
    let held = holder.leases("reducer", "one", CONFIG).acquire("00").await;
    proxy.set(Mode::Cut);
    let cut = Instant::now();
    let stopped = tokio::spawn(async move {
        held.lost().await;
        Instant::now()
    });
    let leases = direct.leases("reducer", "two", CONFIG);
    let taken = tokio::time::timeout(SOON, leases.acquire("00"))
        .await
        .unwrap();
    let taken_at = Instant::now();
    let stopped = stopped.await.unwrap();
    assert!(stopped < taken_at, "one holder at a time");
    assert!(
        taken_at - cut < Duration::from_secs(8),
        "{:?}",
        taken_at - cut
    );
    assert!(taken.is_held());
    drop(proxy);
    direct.close().await;
}

#[tokio::test]
async fn a_short_interruption_does_not_cost_the_lease() {
    let direct = bus("blip").await;
    let proxy = Proxy::start(&shared_nats().unwrap().url()).await;
    let through = BusConfig {
        url: proxy.url(),
        ..direct.config().clone()
    };
    let holder = Bus::connect(through, "test/holder").await.unwrap();
    let config = LeaseConfig {
        ttl_seconds: 10,
        renew_seconds: 1,
    };
    let held = holder.leases("reducer", "one", config).acquire("00").await;
    // A renewal is stored and its acknowledgement lost.
    proxy.set(Mode::Deaf);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    proxy.set(Mode::Cut);
    proxy.set(Mode::Pass);
    let lost = tokio::time::timeout(Duration::from_secs(11), held.lost()).await;
    assert!(lost.is_err(), "still held after a whole time to live");
    holder.close().await;
    direct.close().await;
}
