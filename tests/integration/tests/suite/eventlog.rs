//! The archive as a process of its own, against real servers.

// Helpers of tests may panic like the tests themselves.
#![cfg(test)]

mod fleet;

use nixfleet_bus::UndecodableMessage;
use nixfleet_harness::{Postgres, wait_for};

use fleet::{Fleet, SOON};

#[tokio::test(flavor = "multi_thread")]
async fn every_message_is_archived_once_whatever_dies() {
    let fleet = Fleet::start("eventlog_kill").await;
    let mut instances = [fleet.eventlog("one"), fleet.eventlog("two")];
    for round in 0..4 {
        let before = fleet.archived_total().await;
        let writing = fleet.write(80);
        // In the middle of the work, and whoever of the two does it.
        fleet.wait_for_progress(before).await;
        let victim = round % 2;
        instances[victim].kill();
        if round < 2 {
            instances[victim].restart();
        }
        writing.await.unwrap();
    }
    // Both are dead now, and what they left behind is taken up by a third.
    let third = fleet.eventlog("three");
    fleet.assert_archived().await;
    drop(third);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_that_is_copied_ahead_is_archived_once_with_all_that_is_wrong_in_it() {
    let fleet = Fleet::start("eventlog_backlog").await;
    fleet.write_large(60).await;
    let mut one = fleet.eventlog("one");
    fleet.wait_for_progress(0).await;
    one.kill();
    one.restart();
    let _two = fleet.eventlog("two");
    fleet.assert_archived().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_instance_stands_by_and_takes_over_from_one_that_stops() {
    let fleet = Fleet::start("eventlog_standby").await;
    let mut one = fleet.eventlog("one");
    fleet.write(20).await.unwrap();
    fleet.assert_archived().await;
    let two = fleet.eventlog("two");
    two.wait_ready().await;
    assert_eq!(two.metric("nixfleet_archived_rows_total"), 0.0);
    one.stop();
    fleet.write(20).await.unwrap();
    fleet.assert_archived().await;
    assert!(two.metric("nixfleet_archived_rows_total") > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_restarts_is_waited_for() {
    let mut postgres = Postgres::start("eventlog").unwrap();
    let database = postgres.create_database("eventlog").await.unwrap();
    let fleet = Fleet::on("eventlog_database", database).await;
    let _one = fleet.eventlog("one");
    let writing = fleet.write(150);
    fleet.wait_for_progress(0).await;
    postgres.kill().unwrap();
    // Its children may hold the shared memory a moment longer than their parent lived.
    wait_for("postgres is back", SOON, || {
        let restarted = postgres.restart();
        async { restarted.map(Some) }
    })
    .await
    .unwrap();
    writing.await.unwrap();
    fleet.assert_archived().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_schema_is_filled_again_from_the_streams() {
    let fleet = Fleet::start("eventlog_wiped").await;
    let _one = fleet.eventlog("one");
    fleet.write(20).await.unwrap();
    fleet.assert_archived().await;
    fleet.execute("DROP SCHEMA nixfleet CASCADE").await;
    fleet.store.migrate().await.unwrap();
    fleet.write(20).await.unwrap();
    fleet.assert_archived().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_before_it_was_archived_stops_nothing() {
    let fleet = Fleet::start("eventlog_hole").await;
    let mut one = fleet.eventlog("one");
    fleet.write(5).await.unwrap();
    fleet.assert_archived().await;
    one.stop();
    // The stream of dead letters keeps 2 MiB, the oldest go.
    for seq in 0..20 {
        let letter = UndecodableMessage {
            stream: "ELSEWHERE".to_owned(),
            seq,
            subject: "s".to_owned(),
            reason: "test".to_owned(),
            payload: vec![7; 150 * 1024].into(),
        };
        fleet.bus.store_dead_letter("flood", letter).await.unwrap();
    }
    let stream = fleet.bus.names().dead_stream();
    let first = fleet.bus.stream_identity(&stream).await.unwrap().first_seq;
    one.restart();
    fleet.write(5).await.unwrap();
    fleet.assert_streams_archived(|_| true).await;
    let rows = fleet.rows(&stream).await;
    assert!(rows.iter().any(|(seq, _)| *seq == first));
}
