//! The manifest of a rollout is read when it is announced, and not only when it opens.

use nixfleet_harness::wait_for;
use nixfleet_proto::HostState;

use super::partition_log::{PartitionLog, count};
use crate::suite::service_testbed::service_process::TIMEOUT;
use crate::suite::service_testbed::signed_release::HOSTS;

#[tokio::test]
async fn a_rollout_that_was_announced_opens_without_the_object_store() {
    let log = PartitionLog::new("reducer_ahead").await;
    let reducer = log.reducer(0);
    // Only an owner answers.
    log.heartbeat(0, "old").await;
    log.announce().await;
    let read = wait_for("the manifest is prefetched", TIMEOUT, async || {
        Ok(reducer.tail().contains("manifest prefetched").then_some(()))
    });
    read.await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", reducer.tail()));
    log.delete_artifacts().await;
    log.open().await;
    let state = log.wait_folded(&reducer).await;
    assert_eq!(count(&log, &state, HostState::Pending), HOSTS as u64);
}
