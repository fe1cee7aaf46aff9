//! What agents get: durable events, heartbeats answered by the owner, dispatches until they act.

use std::time::{Duration, Instant};

use chrono::Utc;
use nixfleet_harness::{Postgres, Service, wait_for};
use nixfleet_proto::outcome::Effect;
use nixfleet_proto::wire::{HeartbeatReply, OwnerReply};
use nixfleet_proto::{EntryBody, Minutes, Producer};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;

use super::super::gateways::gateway_process::{Gateway, SOON, event};
use super::super::gateways::test_releases::queued;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test]
async fn a_204_means_that_the_event_is_in_the_log() {
    let gateway = Gateway::start("events", &[]).await;
    let agent = gateway.agent("web-1");
    let before = Utc::now();
    let request = agent.request(Method::POST, "/v1/agent/events");
    let request = request
        .header("traceparent", PARENT)
        .json(&event("web-1", 1));
    assert_eq!(agent.send(request).await.status, 204);
    let logged = gateway.logged().await;
    let [entry] = &logged[..] else {
        panic!("{logged:?}");
    };
    assert!(before <= entry.received_at && entry.received_at <= Utc::now());
    let parent = entry.traceparent.as_deref();
    assert_eq!(parent, Some(PARENT), "no collector: passed on as it came");
    let EntryBody::HostEvent {
        rollout_id,
        hostname,
        producer,
        event: reported,
    } = &entry.body
    else {
        panic!("{entry:?}");
    };
    assert_eq!(rollout_id.as_str(), "stable@4f1c");
    assert_eq!(hostname.as_str(), "web-1");
    assert_eq!(*producer, Producer::Agent);
    assert_eq!((reported.seq, reported.body.name()), (1, "DispatchAck"));
    // Regressed sequences are for the fold to reject, with reason, in the log.
    assert_eq!(
        agent
            .post("/v1/agent/events", &event("web-1", 1))
            .await
            .status,
        204
    );
    assert_eq!(gateway.logged().await.len(), 2);
}

#[tokio::test]
async fn many_events_at_once_are_all_in_the_log() {
    let gateway = Gateway::start("burst", &["limits.requests_per_client=400"]).await;
    let agent = gateway.agent("web-1");
    let sent =
        (1..=400).map(async |seq| agent.post("/v1/agent/events", &event("web-1", seq)).await);
    let answers = futures::future::join_all(sent).await;
    assert!(answers.iter().all(|answer| answer.status == 204));
    let mut seqs: Vec<u64> = gateway
        .logged()
        .await
        .iter()
        .filter_map(|entry| match &entry.body {
            EntryBody::HostEvent { event, .. } => Some(event.seq),
            EntryBody::RecoveryCandidate { .. }
            | EntryBody::Plan { .. }
            | EntryBody::Operator { .. } => None,
        })
        .collect();
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=400).collect::<Vec<u64>>());
}

#[tokio::test]
async fn heartbeats_are_answered_by_the_owner_of_the_hosts_channel() {
    let gateway =
        Gateway::start_without_release("heartbeat", &["agents.heartbeat_timeout_seconds=10"]).await;
    let agent = gateway.agent("web-1");
    let heartbeat = json!({ "hostname": "web-1", "current_closure": "old", "at": Utc::now() });
    let beat = async || agent.post("/v1/agent/heartbeat", &heartbeat).await;
    assert_eq!(beat().await.refusal(), (503, "not-ready".to_owned()));
    gateway.publish("4f1c").await;
    assert_eq!(
        beat().await.refusal(),
        (503, "owner-unavailable".to_owned())
    );

    let mut owner = gateway
        .bus
        .serve_heartbeats(Gateway::partition("stable"))
        .await
        .unwrap();
    let answer = async {
        let asked = tokio::time::timeout(SOON, owner.next()).await;
        let (heartbeat, responder) = asked.expect("the owner is asked").unwrap();
        assert_eq!(heartbeat.channel.as_str(), "stable");
        assert_eq!(heartbeat.request.hostname.as_str(), "web-1");
        let reply = HeartbeatReply {
            received_at: heartbeat.request.at,
            bootstrap_rollouts: Vec::new(),
        };
        let reply = OwnerReply {
            reply,
            replay_from: Some(17),
        };
        responder.reply(&reply).await.unwrap();
    };
    let (answered, ()) = futures::join!(beat(), answer);
    assert_eq!(answered.status, 200);
    assert_eq!(answered.headers["x-nixfleet-replay-from"], "17");
    assert_eq!(answered.json(), json!({ "received_at": heartbeat["at"] }));

    let stranger = gateway.agent("unknown-1");
    let body = json!({ "hostname": "unknown-1", "at": Utc::now() });
    let answer = stranger.post("/v1/agent/heartbeat", &body).await;
    assert_eq!(answer.refusal(), (404, "unknown-host".to_owned()));
}

#[tokio::test]
async fn a_dispatch_wakes_its_host_and_stays_until_the_host_acts() {
    let gateway = Gateway::start("dispatch", &[]).await;
    let (agent, other) = (gateway.agent("web-1"), gateway.agent("web-2"));
    assert_eq!(agent.get("/v1/agent/dispatch?wait=0").await.status, 204);
    let bad = agent.get("/v1/agent/dispatch?wait=soon").await;
    assert_eq!(bad.refusal(), (400, "invalid-parameter".to_owned()));

    let log = gateway.bus.output(Gateway::partition("stable"));
    let dispatch = Effect::InsertDispatch {
        rollout_id: "stable@4f1c".parse().unwrap(),
        hostname: "web-1".into(),
        target_closure: "new-web-1".into(),
        soak_minutes: Minutes::from_minutes(5),
    };
    let start = Instant::now();
    let queue = async {
        gateway.wait_for_polls(1, SOON).await;
        log.publish(&queued(1, vec![dispatch]), 0).await.unwrap()
    };
    let waits = agent.get("/v1/agent/dispatch?wait=20");
    let (delivered, sequence) = futures::join!(waits, queue);
    assert_eq!(delivered.status, 200);
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "woken, not timed out"
    );
    let body = delivered.json();
    assert_eq!(body["hostname"], "web-1");
    assert_eq!(body["rollout_id"], "stable@4f1c");
    assert_eq!(body["target_closure"], "new-web-1");
    assert_eq!(body["soak_minutes"], 5);
    assert!(body["soak_due_at"].is_string() && body["enqueued_at"].is_string());
    assert_eq!(other.get("/v1/agent/dispatch?wait=0").await.status, 204);
    // Not again at once, but not lost either: another gateway still has it.
    assert_eq!(agent.get("/v1/agent/dispatch?wait=0").await.status, 204);

    let acted = Effect::RemoveDispatch {
        rollout_id: "stable@4f1c".parse().unwrap(),
        hostname: "web-1".into(),
    };
    log.publish(&queued(2, vec![acted]), sequence)
        .await
        .unwrap();
    wait_for("the dispatch is gone", SOON, async || {
        Ok((gateway.metric("nixfleet_dispatches_queued").await == 0.0).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_stopping_gateway_lets_waiting_agents_go_and_ends_clean() {
    let mut gateway = Gateway::start("stop", &[]).await;
    let agent = gateway.agent("web-1");
    let start = Instant::now();
    let waits = tokio::spawn(async move { agent.get("/v1/agent/dispatch?wait=60").await.status });
    gateway.wait_for_polls(1, SOON).await;
    let status = gateway.process.stop(Signal::TERM, SOON).unwrap();
    assert!(status.success(), "{status}\n{}", gateway.process.tail());
    assert_eq!(waits.await.unwrap(), 204);
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn events_and_dispatches_do_not_need_the_database() {
    let mut postgres = Postgres::start("ingest").unwrap();
    let database = postgres.create_database("ingest").await.unwrap();
    let wait = ["database.wait_timeout_ms=1000"];
    let gateway = Gateway::start_on(Service::Ingest, database, "nodb", &wait).await;
    gateway.publish("4f1c").await;
    let console = gateway.other(&wait).await;
    let (agent, operator) = (gateway.agent("web-1"), console.operator());
    assert_eq!(operator.get("/v1/hosts").await.status, 200);
    postgres.kill().unwrap();
    let answer = agent.post("/v1/agent/events", &event("web-1", 1)).await;
    assert_eq!(answer.status, 204);
    assert_eq!(gateway.logged().await.len(), 1);
    assert_eq!(agent.get("/v1/agent/dispatch?wait=0").await.status, 204);
    let hosts = operator.get("/v1/hosts").await;
    assert_eq!(hosts.refusal(), (503, "database-unavailable".to_owned()));
    assert_eq!(hosts.headers["retry-after"], "5");
    postgres.restart().unwrap();
    wait_for("reads are back", SOON, async || {
        Ok((operator.get("/v1/hosts").await.status == 200).then_some(()))
    })
    .await
    .unwrap();
}
