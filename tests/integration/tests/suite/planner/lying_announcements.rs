//! Announcements that the planner must not follow.

use chrono::{TimeDelta, Utc};

use super::planner_fleet::{PlannerFleet, count, wait_refusal};

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
