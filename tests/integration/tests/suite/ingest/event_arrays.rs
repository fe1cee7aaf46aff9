//! Arrays of events: answered item by item, each 204 durable, each rollout in its order.

use nixfleet_harness::incompressible_text;
use nixfleet_proto::{EntryBody, RolloutId, RolloutState};
use serde_json::{Value, json};

use super::super::gateways::gateway_process::{Answer, Gateway, event};

const EVENTS: &str = "/v1/agent/events";

fn of_rollout(rollout: &str, seq: u64) -> Value {
    let mut event = event("web-1", seq);
    event["rolloutId"] = rollout.into();
    event
}

/// Status of each item, with the code where it was refused.
fn answers(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200);
    let items = answer.json();
    let items = items.as_array().unwrap().iter();
    items
        .map(|item| match item["code"].as_str() {
            Some(code) => {
                assert!(item["message"].is_string() && item["retryable"].is_boolean());
                format!("{} {code}", item["status"])
            }
            None => {
                assert_eq!(item, &json!({ "status": 204 }));
                "204".to_owned()
            }
        })
        .collect()
}

/// Sequences in the log by rollout, in the order of the log.
async fn logged(gateway: &Gateway, rollout: &str) -> Vec<u64> {
    let rollout: RolloutId = rollout.parse().unwrap();
    let entries = gateway.logged().await.into_iter();
    entries
        .filter_map(|entry| match entry.body {
            EntryBody::HostEvent {
                rollout_id, event, ..
            } => (rollout_id == rollout).then_some(event.seq),
            EntryBody::RecoveryCandidate { .. }
            | EntryBody::Plan { .. }
            | EntryBody::Operator { .. } => None,
        })
        .collect()
}

#[tokio::test]
async fn an_array_is_answered_item_by_item_and_kept_in_order() {
    let gateway = Gateway::start("arrays", &[]).await;
    let agent = gateway.agent("web-1");
    // An older rollout of the host's channel, which is open.
    gateway
        .move_rollout("stable@77", RolloutState::Active)
        .await;
    gateway.wait_until_known(1).await;
    let mut wrong_time = of_rollout("stable@4f1c", 3);
    wrong_time["event"]["receivedAt"] = "1970-01-01T00:00:00Z".into();
    let items = json!([
        of_rollout("stable@4f1c", 1),
        of_rollout("stable@77", 1),
        { "hostname": "web-1" },
        event("web-2", 1),
        of_rollout("stable@4f1c", 2),
        wrong_time,
        7,
        of_rollout("stable@77", 2),
        of_rollout("stable@4f1c", 4),
        of_rollout("Stable@4F", 1),
        of_rollout("edge@4f1c", 1),
        of_rollout("stable@78", 1),
    ]);
    let answer = agent.post(EVENTS, &items).await;
    let expected = [
        "204",
        "204",
        "400 invalid-field",
        "403 hostname-mismatch",
        "204",
        "400 out-of-bounds",
        "400 invalid-field",
        "204",
        "204",
        "400 invalid-rollout-id",
        "404 unknown-host",
        "404 unknown-rollout",
    ];
    assert_eq!(answers(&answer), expected);
    assert_eq!(answer.json()[5]["field"], "event");
    assert_eq!(logged(&gateway, "stable@4f1c").await, [1, 2, 4]);
    assert_eq!(logged(&gateway, "stable@77").await, [1, 2]);
    assert_eq!(gateway.logged().await.len(), 5);
    for kind in ["hostname-mismatch", "out-of-bounds", "invalid-rollout-id"] {
        assert_eq!(gateway.hostile(kind).await, 1.0, "{kind}");
    }
    assert_eq!(gateway.hostile("invalid-field").await, 2.0);
}

#[tokio::test]
async fn a_hundred_events_are_one_frame_and_more_are_refused() {
    let gateway = Gateway::start("hundred", &[]).await;
    let agent = gateway.agent("web-1");
    let many = |count: u64| -> Vec<Value> { (1..=count).map(|seq| event("web-1", seq)).collect() };
    let too_many = agent.post(EVENTS, &json!(many(101))).await;
    assert_eq!(too_many.refusal(), (413, "too-many-events".to_owned()));
    let none = agent.post(EVENTS, &json!([])).await;
    assert_eq!(none.refusal(), (400, "invalid-field".to_owned()));
    let mut large = many(5);
    for event in &mut large {
        event["event"]["currentClosureAtDispatch"] = "x".repeat(60 * 1024).into();
    }
    let large = agent.post(EVENTS, &json!(large)).await;
    assert_eq!(large.refusal(), (413, "body-too-large".to_owned()));
    assert_eq!(gateway.logged().await, Vec::new());

    let answer = agent.post(EVENTS, &json!(many(100))).await;
    assert_eq!(answers(&answer), vec!["204"; 100]);
    let seqs: Vec<u64> = (1..=100).collect();
    assert_eq!(logged(&gateway, "stable@4f1c").await, seqs);
    let stream = gateway
        .bus
        .names()
        .input_stream(Gateway::partition("stable"));
    let identity = gateway.bus.stream_identity(&stream).await.unwrap();
    assert_eq!(identity.last_seq, 1, "one message");
}

#[tokio::test]
async fn an_array_over_several_frames_keeps_its_order_and_skips_what_fits_in_none() {
    let small = ["bus.frame_max_entries=7", "bus.frame_max_bytes=8192"];
    let gateway = Gateway::start("frames", &small).await;
    let agent = gateway.agent("web-1");
    let mut items: Vec<Value> = (1..=30).map(|seq| event("web-1", seq)).collect();
    items[11]["event"] = json!({
        "kind": "ActivationFailed", "seq": 12, "exitCode": 1, "stderrTail": "x".repeat(9_000),
        "failedAt": "2026-01-01T00:00:00Z",
    });
    let answer = agent.post(EVENTS, &json!(items)).await;
    let mut expected = vec!["204"; 30];
    expected[11] = "413 body-too-large";
    assert_eq!(answers(&answer), expected);
    let seqs: Vec<u64> = (1..=30).filter(|seq| *seq != 12).collect();
    assert_eq!(logged(&gateway, "stable@4f1c").await, seqs);
}

#[tokio::test]
async fn after_an_event_that_was_not_stored_none_of_its_rollout_is() {
    // One event to a frame, and a log with room for some thirty of these.
    let small = ["bus.frame_max_entries=1", "bus.input_max_bytes=2097152"];
    let gateway = Gateway::start("full", &small).await;
    let agent = gateway.agent("web-1");
    let bulky = |seq: u64| {
        let mut event = event("web-1", seq);
        event["event"] = json!({
            "kind": "ActivationFailed", "seq": seq, "exitCode": 1,
            "stderrTail": incompressible_text(60 * 1024, seq), "failedAt": "2026-01-01T00:00:00Z",
        });
        event
    };
    let mut told = Vec::new();
    for first in (1..=60).step_by(4) {
        let items: Vec<Value> = (first..first + 4).map(bulky).collect();
        let answer = agent.post(EVENTS, &json!(items)).await;
        let answers = answers(&answer);
        let stored = answers.iter().take_while(|status| *status == "204").count();
        told.extend(first..first + stored as u64);
        if stored < 4 {
            // From eight tenths on nothing of an agent is taken.
            assert_eq!(answers[stored..], vec!["503 log-full"; 4 - stored]);
            let retry_after = answer.headers["retry-after"].to_str().unwrap();
            assert!(["1", "10", "30"].contains(&retry_after), "{retry_after}");
            break;
        }
    }
    assert!((4..60).contains(&told.len()), "{told:?}");
    assert_eq!(logged(&gateway, "stable@4f1c").await, told);
}
