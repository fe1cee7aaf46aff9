//! Heartbeats that prove transitions which the log lacks.

use nixfleet_proto::{EntryBody, HostEvent, HostEventBody, HostState, Producer};

use super::partition_log::{PartitionLog, count};
use crate::suite::service_testbed::signed_release::{acknowledged, closure, hostname};

#[tokio::test]
async fn a_heartbeat_recovers_an_activation_before_it_is_answered() {
    let log = PartitionLog::new("reducer_case1").await;
    let reducer = log.reducer(0);
    log.open().await;
    log.report(1, acknowledged).await;
    log.wait_folded(&reducer).await;
    let reply = log.heartbeat(0, &closure(0)).await;
    let [snapshot] = &reply.reply.bootstrap_rollouts[..] else {
        panic!("{reply:?}");
    };
    assert_eq!(snapshot.state, HostState::Soaking);
    assert_eq!(snapshot.last_event_seq, 1);
    // A repeated heartbeat changes nothing.
    log.heartbeat(0, &closure(0)).await;
    let state = log.wait_folded(&reducer).await;
    assert_eq!(count(&log, &state, HostState::Soaking), 1);
    let record = &state.rollout(&log.release.rollout).unwrap().hosts[hostname(0).as_str()].record;
    assert_eq!(record.recovery_seq, 1);
}

#[tokio::test]
async fn a_heartbeat_recovers_a_rollback_and_a_candidate() {
    let log = PartitionLog::new("reducer_case34").await;
    let reducer = log.reducer(0);
    log.open().await;
    log.wait_folded(&reducer).await;
    // The planner decides about a Pending host on its target; the reducer keeps its state.
    let reply = log.heartbeat(1, &closure(1)).await;
    assert_eq!(reply.reply.bootstrap_rollouts[0].state, HostState::Pending);
    log.report(1, acknowledged).await;
    let failed = HostEventBody::ActivationFailed {
        exit_code: 1,
        stderr_tail: String::new(),
        failed_at: chrono::Utc::now(),
    };
    log.append(vec![EntryBody::HostEvent {
        rollout_id: log.release.rollout.clone(),
        hostname: hostname(0).parse().unwrap(),
        producer: Producer::Agent,
        event: HostEvent {
            seq: 2,
            body: failed,
        },
    }])
    .await;
    log.wait_folded(&reducer).await;
    let reply = log.heartbeat(0, "old").await;
    assert!(reply.reply.bootstrap_rollouts.is_empty(), "{reply:?}");
    let state = log.wait_folded(&reducer).await;
    assert_eq!(count(&log, &state, HostState::Reverted), 1);
    assert!(state.is_quarantined(&"stable".into(), &closure(0).into()));
}

#[tokio::test]
async fn a_heartbeat_without_news_appends_nothing() {
    let log = PartitionLog::new("reducer_quiet").await;
    let reducer = log.reducer(0);
    log.open().await;
    log.wait_folded(&reducer).await;
    let stream = log.servers.bus.names().input_stream(log.partition);
    let before = log
        .servers
        .bus
        .stream_identity(&stream)
        .await
        .unwrap()
        .last_seq;
    for _ in 0..3 {
        let reply = log.heartbeat(0, "old").await;
        assert_eq!(reply.reply.bootstrap_rollouts.len(), 1);
    }
    let after = log
        .servers
        .bus
        .stream_identity(&stream)
        .await
        .unwrap()
        .last_seq;
    assert_eq!(after, before);
}
