//! Each entry is folded once, across takeovers and kills.

use nixfleet_bus::PublishError;
use nixfleet_harness::wait_for;
use nixfleet_proto::{HostState, OutputFrame};

use super::partition_log::{PartitionLog, count};
use crate::suite::service_testbed::service_process::TIMEOUT;
use crate::suite::service_testbed::signed_release::{acknowledged, completed};

#[tokio::test]
async fn a_takeover_fences_the_older_owner() {
    let log = PartitionLog::new("reducer_fence").await;
    let output = log.servers.bus.output(log.partition);
    let old = OutputFrame::new;
    let mine = output.publish(&old(1), 0).await.unwrap();
    let reducer = log.reducer(0);
    log.open().await;
    log.wait_folded(&reducer).await;
    let late = output.publish(&old(1), mine).await;
    assert!(matches!(late, Err(PublishError::Fenced { .. })), "{late:?}");
    let frames = log.frames().await;
    assert_eq!(frames[1].1.epoch, 2);
    assert_eq!(frames[1].1.outcomes, []);
}

#[tokio::test]
async fn a_fenced_owner_drops_its_state_and_starts_over() {
    let log = PartitionLog::new("reducer_out").await;
    let reducer = log.reducer(0);
    log.open().await;
    log.wait_folded(&reducer).await;
    let output = log.servers.bus.output(log.partition);
    let last = output.last().await.unwrap().unwrap();
    let barrier = OutputFrame {
        epoch: last.frame.epoch + 1,
        first_input: None,
        state_hash: None,
        outcomes: Vec::new(),
        ..last.frame
    };
    output.publish(&barrier, last.seq).await.unwrap();
    log.report(1, acknowledged).await;
    let state = log.wait_folded(&reducer).await;
    assert_eq!(count(&log, &state, HostState::Activating), 6);
    let last = output.last().await.unwrap().unwrap();
    assert_eq!(last.frame.epoch, barrier.epoch + 1);
}

#[tokio::test]
async fn rows_and_frames_give_the_state_of_the_fold() {
    let log = PartitionLog::new("reducer_hydrate").await;
    let mut reducer = log.reducer(0);
    let mut applier = log.applier();
    log.open().await;
    log.report(1, acknowledged).await;
    log.wait_folded(&reducer).await;
    let covered = log.frames().await.last().unwrap().0;
    let applied = wait_for("the rows cover the frames", TIMEOUT, async || {
        let cursor = log.servers.store.cursor(log.partition).await?;
        Ok(cursor.filter(|cursor| cursor.out_seq >= covered))
    });
    applied.await.unwrap();
    applier.kill();
    log.report(2, completed).await;
    log.wait_folded(&reducer).await;
    reducer.kill();
    // The rows are behind the frames, the frames behind the log.
    log.report(3, completed).await;
    let mut reducer = log.reducer(1);
    let state = log.wait_folded(&reducer).await;
    assert_eq!(count(&log, &state, HostState::Soaking), 6);
    assert!(log.frames().await.last().unwrap().1.state_hash.is_some());
    reducer.stop();
}

#[tokio::test]
async fn a_standby_takes_over_and_folds_each_entry_once() {
    let log = PartitionLog::new("reducer_standby").await;
    let mut first = log.reducer(0);
    log.open().await;
    log.wait_folded(&first).await;
    let second = log.reducer(1);
    log.report(1, acknowledged).await;
    first.kill();
    log.report(2, completed).await;
    let state = log.wait_folded(&second).await;
    assert_eq!(count(&log, &state, HostState::Soaking), 6);
}

#[tokio::test]
async fn an_undecodable_message_becomes_a_dead_letter_and_is_covered() {
    let log = PartitionLog::new("reducer_dead").await;
    let reducer = log.reducer(0);
    let stream = log.servers.bus.names().input_stream(log.partition);
    let seq = log
        .append_raw("event", b"{\"v\":1,\"entries\":7}".to_vec())
        .await;
    log.open().await;
    log.wait_folded(&reducer).await;
    let dead = log.servers.bus.names().dead_stream();
    let letter = log.servers.bus.last_message(&dead).await.unwrap().unwrap();
    let letter: nixfleet_bus::DeadLetterRecord = serde_json::from_slice(&letter.payload).unwrap();
    assert_eq!((letter.stream, letter.sequence), (stream, seq));
    assert!(letter.reason.contains("malformed"), "{}", letter.reason);

    let seq = log.append_raw("event", b"\x82stored".to_vec()).await;
    log.report(1, acknowledged).await;
    log.wait_folded(&reducer).await;
    let letter = log.servers.bus.last_message(&dead).await.unwrap().unwrap();
    let letter: nixfleet_bus::DeadLetterRecord = serde_json::from_slice(&letter.payload).unwrap();
    assert_eq!(letter.sequence, seq);
    assert!(letter.reason.contains("upgrade"), "{}", letter.reason);
}

#[tokio::test]
async fn plain_frames_are_folded_beside_compressed_ones() {
    let log = PartitionLog::new("reducer_plain").await;
    let reducer = log.reducer(0);
    log.open().await;
    log.report_plain(1, acknowledged).await;
    log.report(2, completed).await;
    let state = log.wait_folded(&reducer).await;
    assert_eq!(count(&log, &state, HostState::Soaking), 6);
}
