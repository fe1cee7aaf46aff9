//! A partition whose input log is full: the planner leads the others, and takes it in once it can be written.

use std::time::Duration;

use chrono::Utc;
use nixfleet_bus::AppendError;
use nixfleet_harness::{incompressible_text, shared_nats, wait_for};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Entry, EntryBody, OperatorCommand, PlanAction};

use super::planner_fleet::{PARTITIONS, PlannerFleet, count, held};

const LOG_BYTES: u64 = 2 << 20;

/// Fills an input log until it refuses a barrier, its smallest entry.
async fn fill(fleet: &PlannerFleet, partition: Partition) {
    for bytes in [60 * 1024, 4 * 1024, 256] {
        append_until_full(fleet, partition, |seed| {
            let command = OperatorCommand::ClearQuarantine {
                channel: "c".into(),
                closure_hash: "c".into(),
                reason: incompressible_text(bytes, seed),
            };
            nixfleet_harness::console_key::signed("fleet", Utc::now(), command).unwrap()
        })
        .await;
    }
    append_until_full(fleet, partition, |_| {
        let (epoch, action) = (0, PlanAction::Barrier {});
        Entry::new(Utc::now(), EntryBody::Plan { epoch, action })
    })
    .await;
}

async fn append_until_full(
    fleet: &PlannerFleet,
    partition: Partition,
    entry: impl Fn(u64) -> Entry,
) {
    let input = fleet.servers.bus.input();
    for seed in 0.. {
        match input.append(partition, entry(seed)).await {
            Ok(_) => assert!(seed < 20_000),
            Err(AppendError::Full(_)) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// What trimming does, all at once.
async fn empty(fleet: &PlannerFleet, partition: Partition) {
    let stream = fleet.servers.bus.names().input_stream(partition);
    let nats = async_nats::connect(shared_nats().unwrap().url())
        .await
        .unwrap();
    let log = async_nats::jetstream::new(nats)
        .get_stream(&stream)
        .await
        .unwrap();
    log.purge().await.unwrap();
}

#[tokio::test]
async fn a_planner_leads_although_the_log_of_another_partition_is_full() {
    let fleet = PlannerFleet::with_input_log("plannerfull", LOG_BYTES).await;
    let _reducer = fleet.reducer();
    let mut others = Partition::all(PARTITIONS).filter(|it| *it != fleet.partition);
    let full = others.next().unwrap();
    fill(&fleet, full).await;

    let mut planner = fleet.planner(0);
    planner.wait_metric("nixfleet_planner_leading 1").await;
    planner.wait_metric(&held(full, 1)).await;
    planner.wait_metric(&held(fleet.partition, 0)).await;
    fleet.release("aa01", Utc::now());
    fleet
        .wait_outcomes("the other partition goes on", |outcomes| {
            count(outcomes, "QueueDispatch") == 2
        })
        .await;
    // The record is written with the next renewal of the lease.
    wait_for(
        "the lease names the held partition",
        Duration::from_secs(30),
        async || {
            let leases = format!("{:?}", fleet.servers.bus.lease_records().await?);
            let is_named = leases.contains(&format!("held: {{\"{full}\"}}"));
            Ok(is_named.then_some(()))
        },
    )
    .await
    .unwrap();

    empty(&fleet, full).await;
    planner.wait_metric(&held(full, 0)).await;
    planner.stop();
}

#[tokio::test]
async fn a_partition_that_fills_is_held_and_its_channels_go_on_afterwards() {
    let fleet = PlannerFleet::with_input_log("plannerfills", LOG_BYTES).await;
    let _reducer = fleet.reducer();
    let mut planner = fleet.planner(0);
    planner.wait_metric("nixfleet_planner_leading 1").await;
    planner.wait_metric(&held(fleet.partition, 0)).await;
    fill(&fleet, fleet.partition).await;
    fleet.release("aa01", Utc::now());
    planner.wait_metric(&held(fleet.partition, 1)).await;
    assert!(planner.metrics().contains("nixfleet_planner_leading 1"));

    empty(&fleet, fleet.partition).await;
    fleet
        .wait_outcomes("the channel goes on", |outcomes| {
            count(outcomes, "QueueDispatch") == 2
        })
        .await;
    planner.wait_metric(&held(fleet.partition, 0)).await;
    planner.stop();
}
