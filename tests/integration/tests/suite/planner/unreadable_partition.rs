//! A partition whose output log holds a message that is no frame: the planner leads the others.

use chrono::Utc;
use nixfleet_proto::subject::Partition;

use super::planner_fleet::{PARTITIONS, PlannerFleet, count, held};
use crate::suite::service_testbed::service_process::ServiceProcess;

fn another_partition(fleet: &PlannerFleet) -> Partition {
    let mut others = Partition::all(PARTITIONS).filter(|it| *it != fleet.partition);
    others.next().unwrap()
}

async fn check_the_other_is_led(
    fleet: &PlannerFleet,
    planner: &ServiceProcess,
    damaged: Partition,
) {
    planner.wait_metric(&held(damaged, 1)).await;
    fleet.release("aa01", Utc::now());
    fleet
        .wait_outcomes("the other partition goes on", |outcomes| {
            count(outcomes, "QueueDispatch") == 2
        })
        .await;
    let metrics = planner.metrics();
    for expected in ["nixfleet_planner_leading 1", &held(fleet.partition, 0)] {
        assert!(metrics.contains(expected), "{expected} is not in {metrics}");
    }
}

#[tokio::test]
async fn a_planner_leads_although_the_output_log_of_another_partition_is_unreadable() {
    let fleet = PlannerFleet::new("plannerunreadable").await;
    let _reducer = fleet.reducer();
    let damaged = another_partition(&fleet);
    fleet.damage_output_log(damaged).await;

    let mut planner = fleet.planner(0);
    check_the_other_is_led(&fleet, &planner, damaged).await;
    planner.stop();
}

#[tokio::test]
async fn a_leadership_goes_on_when_the_output_log_of_another_partition_becomes_unreadable() {
    let fleet = PlannerFleet::new("plannerdamaged").await;
    let _reducer = fleet.reducer();
    let damaged = another_partition(&fleet);
    let mut planner = fleet.planner(0);
    planner.wait_metric("nixfleet_planner_leading 1").await;
    planner.wait_metric(&held(damaged, 0)).await;

    fleet.damage_output_log(damaged).await;
    check_the_other_is_led(&fleet, &planner, damaged).await;
    planner.stop();
}
