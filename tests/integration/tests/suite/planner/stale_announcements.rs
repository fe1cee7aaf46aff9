//! Announcements that the planner must not follow.

use chrono::{TimeDelta, Utc};

use nixfleet_bus::{Bus, BusConfig};
use nixfleet_harness::wait_for;

use super::planner_fleet::{Objects, PlannerFleet, count, wait_refusal};
use crate::suite::service_testbed::service_process::TIMEOUT;

#[tokio::test]
async fn an_earlier_release_that_is_announced_again_is_not_planned() {
    let fleet = PlannerFleet::new("plannerearlier").await;
    let _reducer = fleet.reducer();
    let mut planner = fleet.planner(0);
    planner.wait_metric("nixfleet_planner_leading 1").await;
    let now = Utc::now();
    fleet.announce("aa01", now - TimeDelta::minutes(10)).await;
    let opened = |number: usize| {
        fleet.wait_outcomes("rollouts opened", move |outcomes| {
            count(outcomes, "OpenRollout") == number
        })
    };
    opened(1).await;
    fleet.announce("bb02", now).await;
    opened(2).await;
    fleet.announce("aa01", now - TimeDelta::minutes(10)).await;
    wait_refusal(&planner, "older").await;

    // A planner without a memory of the later one: its rollouts superseded the earlier ones.
    planner.stop();
    let mut next = fleet.planner(1);
    next.wait_metric("nixfleet_planner_leading 1").await;
    wait_refusal(&next, "superseded").await;
    fleet.announce("cc03", Utc::now()).await;
    let outcomes = opened(3).await;
    assert_eq!(count(&outcomes, "OpenRollout"), 3);
    next.stop();
}

#[tokio::test]
async fn a_poll_passes_over_an_announcement_that_cannot_be_read() {
    let fleet = PlannerFleet::new("plannergarbage").await;
    let _reducer = fleet.reducer();
    let mut planner = fleet.planner(0);
    fleet.release("aa01", Utc::now());
    fleet.wait_announced("aa01").await;
    fleet.announce_garbage().await;
    wait_refusal(&planner, "unreadable").await;
    fleet.release("bb02", Utc::now());
    fleet.wait_announced("bb02").await;
    planner.stop();
    // The same for a leadership that begins with it.
    fleet.announce_garbage().await;
    let mut next = fleet.planner(1);
    next.wait_metric("nixfleet_planner_leading 1").await;
    fleet.release("cc03", Utc::now());
    fleet.wait_announced("cc03").await;
    next.stop();
}

#[tokio::test]
async fn the_release_before_one_without_objects_is_planned_and_polls_go_on() {
    let fleet = PlannerFleet::new("plannerobjects").await;
    let _reducer = fleet.reducer();
    let opened = |number: usize| {
        fleet.wait_outcomes("rollouts opened", move |outcomes| {
            count(outcomes, "OpenRollout") == number
        })
    };
    let signed_at = Utc::now();
    fleet
        .announce("aa01", signed_at - TimeDelta::minutes(10))
        .await;
    fleet
        .announce_with("bb02", signed_at, Objects::Missing)
        .await;
    let mut planner = fleet.planner(0);
    opened(1).await;
    wait_refusal(&planner, "ObjectUnusable").await;
    // Nobody verified the time of signing of the refused one, so that it keeps no other out.
    fleet.release("cc03", signed_at - TimeDelta::minutes(5));
    fleet.wait_announced("cc03").await;
    opened(2).await;
    // While it leads, too.
    fleet
        .announce_with("dd04", signed_at, Objects::Missing)
        .await;
    fleet.release("ee05", signed_at - TimeDelta::minutes(1));
    fleet.wait_announced("ee05").await;
    opened(3).await;
    planner.stop();
}

#[tokio::test]
async fn an_unreadable_announcement_is_one_dead_letter_after_polls_and_restarts() {
    let config = BusConfig {
        append_deadline_ms: 5_000,
        duplicate_window_seconds: 11,
        ..BusConfig::default()
    };
    let fleet = PlannerFleet::with_bus("plannerletter", config).await;
    let mut planner = fleet.planner(0);
    fleet.release("aa01", Utc::now());
    fleet.wait_announced("aa01").await;
    fleet.announce_garbage().await;
    wait_refusal(&planner, "unreadable").await;
    let polls = "nixfleet_manifest_polls_total";
    let polled = planner.metric(polls);
    wait_for("more polls", TIMEOUT, async || {
        Ok((planner.metric(polls) > polled + 3.0).then_some(()))
    })
    .await
    .unwrap();
    wait_ids_forgotten(&fleet.servers.bus).await;
    planner.stop();

    let mut next = fleet.planner(1);
    wait_refusal(&next, "unreadable").await;
    // A poll waits for the follower, which stores dead letters before it takes a release.
    fleet.release("bb02", Utc::now());
    fleet.wait_announced("bb02").await;
    assert_eq!(dead_letters(&fleet.servers.bus, "planner").await, 1);
    next.stop();
}

/// Waits until the server has forgotten the ids of the messages that were stored before.
async fn wait_ids_forgotten(bus: &Bus) {
    let client = async_nats::connect(bus.config().url.as_str()).await;
    let context = async_nats::jetstream::new(client.unwrap());
    let mut probes = 0;
    wait_for("the ids are forgotten", TIMEOUT, async || {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", "probe");
        let subject = bus.names().dead("probe", "S", 1);
        let sent = context.publish_with_headers(subject, headers, "{}".into());
        let stored = sent.await?.await?;
        probes += u32::from(!stored.duplicate);
        Ok((probes == 2).then_some(()))
    })
    .await
    .unwrap();
}

async fn dead_letters(bus: &Bus, service: &str) -> usize {
    let stream = bus.names().dead_stream();
    let last = bus.stream_identity(&stream).await.unwrap().last_seq;
    let mut reader = bus.reader(&stream, 1);
    let mut letters = Vec::new();
    while reader.next_seq() <= last {
        letters.extend(reader.next_batch(64).await.unwrap());
    }
    let prefix = bus.names().dead_of(service).replace(".>", "");
    let of_service = letters
        .iter()
        .filter(|letter| letter.subject.starts_with(&prefix));
    of_service.count()
}
