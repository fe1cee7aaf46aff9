//! The planner as a process, beside a real reducer.

mod fixture;

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use nixfleet_harness::proxy::ProxyMode;
use nixfleet_proto::{Decision, Entry, EntryBody, PlanAction, Reason};

use fixture::Fleet;

#[tokio::test]
async fn a_release_opens_rollouts_and_dispatches_under_its_budget() {
    let fleet = Fleet::new("planneropens").await;
    let _reducer = fleet.reducer();
    let planner = fleet.planner(0);
    fleet.release("aa01", Utc::now());
    let outcomes = fleet
        .wait_outcomes("two dispatches", |outcomes| {
            fixture::count(outcomes, "QueueDispatch") == 2
        })
        .await;
    assert_eq!(fixture::count(&outcomes, "OpenRollout"), 1);
    fleet
        .wait_outcomes("the third host is held by the budget", |outcomes| {
            fixture::states_hold(outcomes, "disruption-budget: 2/2 in flight (all)")
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
async fn what_must_not_be_believed_leaves_the_last_good_release() {
    let fleet = Fleet::new("plannerrefuses").await;
    let _reducer = fleet.reducer();
    let planner = fleet.planner(0);
    let now = Utc::now();
    fleet.release("bb02", now);
    let good = fleet.wait_announced("bb02").await;

    fleet.release("aa01", now - TimeDelta::minutes(5));
    planner.wait_refusal("older").await;

    fleet.release("cc03", now - TimeDelta::days(3));
    planner.wait_refusal("Stale").await;

    fleet.release("cc03", now + TimeDelta::minutes(5));
    planner.wait_refusal("FutureDated").await;

    fleet.release("dd04", now);
    fleet.remove_signature();
    planner.wait_refusal("BadSignature").await;

    fleet.truncate_fleet();
    planner.wait_refusal("Parse").await;

    assert_eq!(fleet.announced().await, Some(good), "nothing was announced");
    fleet.release("ee05", Utc::now());
    fleet.wait_announced("ee05").await;
    planner.stop();
}

#[tokio::test]
async fn one_planner_leads_and_a_takeover_fences_the_older_one() {
    let fleet = Fleet::new("plannerleads").await;
    let _reducer = fleet.reducer();
    let planners = [fleet.planner(0), fleet.planner(1)];
    let (leader, standby) = fleet.wait_leader(planners).await;
    fleet.release("aa01", Utc::now());
    let outcomes = fleet
        .wait_outcomes("dispatches", |outcomes| {
            fixture::count(outcomes, "QueueDispatch") == 2
        })
        .await;
    let old_epoch = fixture::leader_epoch(&outcomes);

    leader.kill();
    let outcomes = fleet
        .wait_outcomes("a barrier with a higher epoch", |outcomes| {
            fixture::leader_epoch(outcomes) > old_epoch
        })
        .await;
    assert_eq!(
        fixture::count(&outcomes, "QueueDispatch"),
        2,
        "the new leader counts what the old one queued"
    );

    let stale = EntryBody::Plan {
        epoch: old_epoch,
        action: PlanAction::RetentionExpired {
            rollout_id: "stable@aa01".parse().unwrap(),
        },
    };
    let input = fleet.bus.input();
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

/// What a hand-over would otherwise wait for, however long the history is.
#[tokio::test]
async fn a_standby_follows_and_leads_without_asking_the_database() {
    let fleet = Fleet::new("plannerstandby").await;
    let _reducer = fleet.reducer();
    let (way, url) = fleet.way_to_database().await;
    let planners = [0, 1].map(|number| fleet.planner_on(number, url.clone()));
    let (leader, standby) = fleet.wait_leader(planners).await;
    fleet.release("aa01", Utc::now());
    let outcomes = fleet
        .wait_outcomes("dispatches", |outcomes| {
            fixture::count(outcomes, "QueueDispatch") == 2
        })
        .await;
    standby
        .wait_metric("nixfleet_partition_lag_messages{")
        .await;

    way.set(ProxyMode::Cut);
    leader.stop();
    standby.wait_metric("nixfleet_planner_leading 1").await;
    let old_epoch = fixture::leader_epoch(&outcomes);
    let outcomes = fleet
        .wait_outcomes("a barrier with a higher epoch", |outcomes| {
            fixture::leader_epoch(outcomes) > old_epoch
        })
        .await;
    assert_eq!(fixture::count(&outcomes, "QueueDispatch"), 2);
    standby.stop();
}

/// Longer than a lease, short enough for a test.
const SOON: Duration = Duration::from_secs(90);
