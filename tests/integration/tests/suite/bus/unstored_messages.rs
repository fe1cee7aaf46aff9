//! Heartbeats and liveness reports, which no stream keeps.

use std::time::Duration;

use chrono::Utc;
use nixfleet_bus::HeartbeatError;
use nixfleet_proto::wire::{
    HeartbeatReply, HeartbeatRequest, LivenessReport, OwnerHeartbeat, OwnerReply,
};

use super::{SOON, bus, p0, second};

#[tokio::test]
async fn heartbeats_are_answered_by_the_owner_only() {
    let one = bus("heartbeat").await;
    let two = second(&one).await;
    let at = Utc::now();
    let heartbeat = OwnerHeartbeat {
        channel: "stable".into(),
        received_at: at,
        request: HeartbeatRequest {
            hostname: "h".into(),
            rollout_id: None,
            current_closure: None,
            at,
        },
    };
    let patience = Duration::from_secs(2);
    let nobody = one.request_heartbeat(p0(), &heartbeat, patience).await;
    assert_eq!(nobody, Err(HeartbeatError::NoOwner(p0())));

    let mut served = two.serve_heartbeats(p0()).await.unwrap();
    let reply = OwnerReply {
        reply: HeartbeatReply {
            received_at: at,
            bootstrap_rollouts: Vec::new(),
        },
        replay_from: Some(3),
    };
    let owner = {
        let reply = reply.clone();
        tokio::spawn(async move {
            let (asked, responder) = served.next().await.unwrap();
            responder.reply(&reply).await.unwrap();
            (asked, served)
        })
    };
    let client = async_nats::connect(&one.config().url).await.unwrap();
    // Hostile requests are passed over.
    let subject = one.names().heartbeat(p0());
    client
        .publish_with_reply(subject, "nowhere", "{".into())
        .await
        .unwrap();
    client.flush().await.unwrap();
    let answer = one.request_heartbeat(p0(), &heartbeat, patience).await;
    assert_eq!(answer, Ok(reply));
    let (asked, _served) = owner.await.unwrap();
    assert_eq!(asked, heartbeat);
    // Subscribed, but no request is handled.
    let silence = one.request_heartbeat(p0(), &heartbeat, patience).await;
    assert_eq!(silence, Err(HeartbeatError::TimedOut(p0())));
    one.close().await;
    two.close().await;
}

#[tokio::test]
async fn liveness_reaches_one_member_of_the_group() {
    let one = bus("liveness").await;
    let mut first = one.subscribe_liveness("applier").await.unwrap();
    let mut second = one.subscribe_liveness("applier").await.unwrap();
    let hosts: Vec<_> = (0..2_500)
        .map(|number| LivenessReport {
            hostname: format!("h{number}").parse().unwrap(),
            channel: "stable".into(),
            last_seen_at: Utc::now(),
            current_closure: None,
        })
        .collect();
    one.publish_liveness(&hosts).await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < hosts.len() {
        let flush = tokio::time::timeout(SOON, async {
            tokio::select! {
                flush = first.next() => flush,
                flush = second.next() => flush,
            }
        });
        for report in flush.await.unwrap().unwrap().hosts {
            assert!(seen.insert(report.hostname), "each host once");
        }
    }
    one.close().await;
}
