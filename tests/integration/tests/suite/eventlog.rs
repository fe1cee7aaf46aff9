//! Eventlog processes on real servers.

// Helpers of tests may panic like the tests themselves.
#![cfg(test)]

mod filled_streams;
mod message_writer;

use nixfleet_bus::UndecodableMessage;
use nixfleet_harness::{Postgres, wait_for};

use filled_streams::FilledStreams;

use crate::suite::service_testbed::service_process::TIMEOUT;

#[tokio::test(flavor = "multi_thread")]
async fn every_message_is_archived_once_across_kills() {
    let streams = FilledStreams::start("eventlog_kill").await;
    let mut instances = [streams.eventlog("one"), streams.eventlog("two")];
    for round in 0..4 {
        let before = streams.archived_total().await;
        let writing = streams.write(80);
        // Kills one of the two while they work.
        streams.wait_for_progress(before).await;
        let victim = round % 2;
        instances[victim].kill();
        if round < 2 {
            instances[victim].restart();
        }
        writing.await.unwrap();
    }
    // A third takes over from both.
    let third = streams.eventlog("three");
    streams.assert_archived().await;
    drop(third);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_with_undecodable_messages_is_archived_once() {
    let streams = FilledStreams::start("eventlog_backlog").await;
    streams.write_large(60).await;
    let mut one = streams.eventlog("one");
    streams.wait_for_progress(0).await;
    one.kill();
    one.restart();
    let _two = streams.eventlog("two");
    streams.assert_archived().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_instance_stands_by_and_takes_over_from_one_that_stops() {
    let streams = FilledStreams::start("eventlog_standby").await;
    let mut one = streams.eventlog("one");
    streams.write(20).await.unwrap();
    streams.assert_archived().await;
    let two = streams.eventlog("two");
    two.wait_ready().await;
    assert_eq!(two.metric("nixfleet_archived_rows_total"), 0.0);
    one.stop();
    streams.write(20).await.unwrap();
    streams.assert_archived().await;
    assert!(two.metric("nixfleet_archived_rows_total") > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_restarts_is_waited_for() {
    let mut postgres = Postgres::start("eventlog").unwrap();
    let database = postgres.create_database("eventlog").await.unwrap();
    let streams = FilledStreams::with_database("eventlog_database", database).await;
    let _one = streams.eventlog("one");
    let writing = streams.write(150);
    streams.wait_for_progress(0).await;
    postgres.kill().unwrap();
    // Child processes may hold the shared memory a little longer than their parent.
    wait_for("postgres is back", TIMEOUT, || {
        let restarted = postgres.restart();
        async { restarted.map(Some) }
    })
    .await
    .unwrap();
    writing.await.unwrap();
    streams.assert_archived().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_schema_is_filled_again_from_the_streams() {
    let streams = FilledStreams::start("eventlog_wiped").await;
    let _one = streams.eventlog("one");
    streams.write(20).await.unwrap();
    streams.assert_archived().await;
    streams.execute("DROP SCHEMA nixfleet CASCADE").await;
    streams.servers.store.migrate().await.unwrap();
    streams.write(20).await.unwrap();
    streams.assert_archived().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_removed_before_they_were_archived_do_not_stop_the_archive() {
    let streams = FilledStreams::start("eventlog_hole").await;
    let mut one = streams.eventlog("one");
    streams.write(5).await.unwrap();
    streams.assert_archived().await;
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
        streams
            .servers
            .bus
            .store_dead_letter("flood", letter)
            .await
            .unwrap();
    }
    let stream = streams.servers.bus.names().dead_stream();
    let first = streams
        .servers
        .bus
        .stream_identity(&stream)
        .await
        .unwrap()
        .first_seq;
    one.restart();
    streams.write(5).await.unwrap();
    streams.assert_streams_archived(|_| true).await;
    let rows = streams.rows(&stream).await;
    assert!(rows.iter().any(|(seq, _)| *seq == first));
}
