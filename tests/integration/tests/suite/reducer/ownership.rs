//! Every entry once, whoever owns the partition and whatever is killed.

use std::time::Duration;

use nixfleet_bus::PublishError;
use nixfleet_harness::wait_for;
use nixfleet_proto::{HostState, OutputFrame};
use rustix::process::Signal;

use super::fixture::{Log, SOON, acknowledged, completed, count};

#[tokio::test]
async fn a_takeover_fences_the_older_owner_out() {
    let log = Log::new("reducer_fence").await;
    let output = log.bus.output(log.partition);
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
async fn an_owner_that_was_shut_out_drops_its_state_and_starts_over() {
    let log = Log::new("reducer_out").await;
    let reducer = log.reducer(0);
    log.open().await;
    log.wait_folded(&reducer).await;
    let output = log.bus.output(log.partition);
    let last = output.last().await.unwrap().unwrap();
    let barrier = OutputFrame {
        epoch: last.frame.epoch + 1,
        first_input: None,
        state_hash: None,
        outcomes: Vec::new(),
        ..last.frame
    };
    output.publish(&barrier, last.seq).await.unwrap();
    log.tell(1, acknowledged).await;
    let state = log.wait_folded(&reducer).await;
    assert_eq!(count(&log, &state, HostState::Activating), 6);
    let last = output.last().await.unwrap().unwrap();
    assert_eq!(last.frame.epoch, barrier.epoch + 1);
}

#[tokio::test]
async fn rows_and_frames_give_the_state_of_the_fold() {
    let log = Log::new("reducer_hydrate").await;
    let mut reducer = log.reducer(0);
    let mut applier = log.applier();
    log.open().await;
    log.tell(1, acknowledged).await;
    log.wait_folded(&reducer).await;
    let covered = log.frames().await.last().unwrap().0;
    let applied = wait_for("the rows cover the frames", SOON, async || {
        let cursor = log.store.cursor(log.partition).await?;
        Ok(cursor.filter(|cursor| cursor.out_seq >= covered))
    });
    applied.await.unwrap();
    applier.kill().unwrap();
    log.tell(2, completed).await;
    log.wait_folded(&reducer).await;
    reducer.kill().unwrap();
    // The rows are behind the frames, the frames behind the log.
    log.tell(3, completed).await;
    let mut reducer = log.reducer(1);
    let state = log.wait_folded(&reducer).await;
    assert_eq!(count(&log, &state, HostState::Soaking), 6);
    assert!(log.frames().await.last().unwrap().1.state_hash.is_some());
    let status = reducer.stop(Signal::TERM, Duration::from_secs(30)).unwrap();
    assert!(status.success(), "{}", reducer.tail());
}

#[tokio::test]
async fn a_standby_takes_over_and_folds_nothing_twice() {
    let log = Log::new("reducer_standby").await;
    let mut first = log.reducer(0);
    log.open().await;
    log.wait_folded(&first).await;
    let second = log.reducer(1);
    log.tell(1, acknowledged).await;
    first.kill().unwrap();
    log.tell(2, completed).await;
    let state = log.wait_folded(&second).await;
    assert_eq!(count(&log, &state, HostState::Soaking), 6);
}

#[tokio::test]
async fn a_message_nobody_can_read_is_set_aside_and_passed_over() {
    let log = Log::new("reducer_dead").await;
    let reducer = log.reducer(0);
    let stream = log.bus.names().input_stream(log.partition);
    let seq = log.append_raw(b"{\"v\":1,\"entries\":7}".to_vec()).await;
    log.open().await;
    log.wait_folded(&reducer).await;
    let dead = log.bus.names().dead_stream();
    let letter = log.bus.last_message(&dead).await.unwrap().unwrap();
    let letter: nixfleet_bus::DeadLetterRecord = serde_json::from_slice(&letter.payload).unwrap();
    assert_eq!((letter.stream, letter.sequence), (stream, seq));
    assert!(letter.reason.contains("malformed"), "{}", letter.reason);

    let seq = log.append_raw(b"\x82stored".to_vec()).await;
    log.tell(1, acknowledged).await;
    log.wait_folded(&reducer).await;
    let letter = log.bus.last_message(&dead).await.unwrap().unwrap();
    let letter: nixfleet_bus::DeadLetterRecord = serde_json::from_slice(&letter.payload).unwrap();
    assert_eq!(letter.sequence, seq);
    assert!(letter.reason.contains("upgrade"), "{}", letter.reason);
}

#[tokio::test]
async fn plain_frames_are_folded_beside_compressed_ones() {
    let log = Log::new("reducer_plain").await;
    let reducer = log.reducer(0);
    log.open().await;
    log.tell_plain(1, acknowledged).await;
    log.tell(2, completed).await;
    let state = log.wait_folded(&reducer).await;
    assert_eq!(count(&log, &state, HostState::Soaking), 6);
}
