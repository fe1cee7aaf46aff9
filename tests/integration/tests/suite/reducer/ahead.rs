//! What a rollout pins is read when it is announced, and not only when it opens.

use nixfleet_harness::wait_for;
use nixfleet_proto::HostState;

use super::fixture::{HOSTS, Log, SOON, count};

#[tokio::test]
async fn a_rollout_that_was_announced_opens_without_the_object_store() {
    let log = Log::new("reducer_ahead").await;
    let reducer = log.reducer(0);
    // Answered by an owner only.
    log.beat(0, "old").await;
    log.announce().await;
    let read = wait_for("the manifest is read ahead", SOON, async || {
        Ok(reducer.tail().contains("read ahead").then_some(()))
    });
    read.await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", reducer.tail()));
    log.lose_artifacts().await;
    log.open().await;
    let state = log.wait_folded(&reducer).await;
    assert_eq!(count(&log, &state, HostState::Pending), HOSTS as u64);
}
