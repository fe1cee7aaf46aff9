//! Planner processes with a real reducer.

mod full_partition;
mod planner_fleet;
mod stale_announcements;
mod unreadable_partition;

use chrono::{TimeDelta, Utc};
use nixfleet_harness::TestClock;
use nixfleet_harness::proxy::ProxyMode;
use nixfleet_proto::{Decision, Entry, EntryBody, PlanAction, Reason};

use planner_fleet::{PlannerFleet, count, leader_epoch, states_hold, wait_refusal};

#[tokio::test]
async fn a_release_opens_rollouts_and_dispatches_under_its_budget() {
    let fleet = PlannerFleet::new("planneropens").await;
    let _reducer = fleet.reducer();
    let mut planner = fleet.planner(0);
    fleet.release("aa01", Utc::now());
    let outcomes = fleet
        .wait_outcomes("two dispatches", |outcomes| {
            count(outcomes, "QueueDispatch") == 2
        })
        .await;
    assert_eq!(count(&outcomes, "OpenRollout"), 1);
    fleet
        .wait_outcomes("a budget holds the third host", |outcomes| {
            states_hold(outcomes, "disruption-budget: 2/2 in flight (all)")
        })
        .await;
    let metrics = planner.metrics();
    assert!(
        metrics.contains("nixfleet_gate_blocks{gate=\"disruption-budget\"} 1"),
        "{metrics}"
    );
    planner.stop();
}

#[tokio::test]
async fn refused_releases_leave_the_last_accepted_one() {
    let fleet = PlannerFleet::new("plannerrefuses").await;
    let _reducer = fleet.reducer();
    let mut planner = fleet.planner(0);
    let now = Utc::now();
    fleet.release("bb02", now);
    let accepted = fleet.wait_announced("bb02").await;

    fleet.release("aa01", now - TimeDelta::minutes(5));
    wait_refusal(&planner, "older").await;

    fleet.release("cc03", now - TimeDelta::days(3));
    wait_refusal(&planner, "Stale").await;

    fleet.release("cc03", now + TimeDelta::minutes(5));
    wait_refusal(&planner, "FutureDated").await;

    fleet.release("dd04", now);
    fleet.remove_signature();
    wait_refusal(&planner, "BadSignature").await;

    fleet.truncate_fleet();
    wait_refusal(&planner, "Parse").await;

    assert_eq!(
        fleet.announced().await,
        Some(accepted),
        "nothing was announced"
    );
    fleet.release("ee05", Utc::now());
    fleet.wait_announced("ee05").await;
    planner.stop();
}

#[tokio::test]
async fn one_planner_leads_and_a_takeover_fences_the_older_one() {
    let fleet = PlannerFleet::new("plannerleads").await;
    let _reducer = fleet.reducer();
    let planners = [fleet.planner(0), fleet.planner(1)];
    let (mut leader, mut standby) = fleet.wait_leader(planners).await;
    fleet.release("aa01", Utc::now());
    let outcomes = fleet
        .wait_outcomes("dispatches", |outcomes| {
            count(outcomes, "QueueDispatch") == 2
        })
        .await;
    let old_epoch = leader_epoch(&outcomes);

    leader.kill();
    let outcomes = fleet
        .wait_outcomes("a barrier with a higher epoch", |outcomes| {
            leader_epoch(outcomes) > old_epoch
        })
        .await;
    assert_eq!(
        count(&outcomes, "QueueDispatch"),
        2,
        "the new leader counts the dispatches of the old one"
    );

    let stale = EntryBody::Plan {
        epoch: old_epoch,
        action: PlanAction::RetentionExpired {
            rollout_id: "stable@aa01".parse().unwrap(),
        },
    };
    let input = fleet.servers.bus.input();
    let entry = Entry::new(Utc::now(), stale);
    let position = input.append(fleet.partition, entry).await.unwrap();
    let outcomes = fleet
        .wait_outcomes("the stale action's outcome", |outcomes| {
            outcomes.iter().any(|outcome| outcome.position == position)
        })
        .await;
    let mut outcomes = outcomes.into_iter();
    let outcome = outcomes.find(|outcome| outcome.position == position);
    match outcome.unwrap().decision {
        Decision::Rejected(rejection) => assert_eq!(rejection.reason, Reason::Fenced),
        Decision::Accepted(accepted) => panic!("accepted: {accepted:?}"),
    }
    standby.wait_metric("nixfleet_planner_leading 1").await;
    standby.stop();
}

/// A hand-over does not wait for the database, however long the history is.
#[tokio::test]
async fn a_standby_follows_and_leads_without_the_database() {
    let fleet = PlannerFleet::new("plannerstandby").await;
    let _reducer = fleet.reducer();
    let (proxy, url) = fleet.database_proxy().await;
    let planners = [0, 1].map(|number| fleet.planner_with_database(number, url.clone()));
    let (mut leader, mut standby) = fleet.wait_leader(planners).await;
    fleet.release("aa01", Utc::now());
    let outcomes = fleet
        .wait_outcomes("dispatches", |outcomes| {
            count(outcomes, "QueueDispatch") == 2
        })
        .await;
    standby
        .wait_metric("nixfleet_partition_lag_messages{")
        .await;

    proxy.set(ProxyMode::Cut);
    leader.stop();
    standby.wait_metric("nixfleet_planner_leading 1").await;
    let old_epoch = leader_epoch(&outcomes);
    let outcomes = fleet
        .wait_outcomes("a barrier with a higher epoch", |outcomes| {
            leader_epoch(outcomes) > old_epoch
        })
        .await;
    assert_eq!(count(&outcomes, "QueueDispatch"), 2);
    standby.stop();
}

/// A planner whose clock is years ahead is not ready and leaves the fleet to one whose clock is right.
#[tokio::test]
async fn a_planner_with_a_wrong_clock_does_not_lead() {
    let fleet = PlannerFleet::new("plannerclock").await;
    let _reducer = fleet.reducer();
    let clock = TestClock::new("planner").unwrap();
    let mut first = fleet.planner_with_clock(0, &clock);
    first.wait_metric("nixfleet_planner_leading 1").await;
    clock.step(TimeDelta::days(1_400)).unwrap();
    first
        .wait_not_ready("clock", "s ahead of the broker's")
        .await;
    let mut second = fleet.planner(1);
    second.wait_metric("nixfleet_planner_leading 1").await;
    first.wait_metric("nixfleet_planner_leading 0").await;
    fleet.release("aa01", Utc::now());
    let outcomes = fleet
        .wait_outcomes("two dispatches", |outcomes| {
            count(outcomes, "QueueDispatch") == 2
        })
        .await;
    let latest = outcomes.iter().map(|outcome| outcome.at).max().unwrap();
    assert!(latest < Utc::now() + TimeDelta::seconds(60), "{latest}");
    clock.step(TimeDelta::zero()).unwrap();
    first.wait_ready().await;
    first.stop();
    second.stop();
}
