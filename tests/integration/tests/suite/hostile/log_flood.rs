//! Hosts that fill a log: the room of planner, recovery and operators stays.

use futures::StreamExt as _;
use nixfleet_bus::AGENT_EVENTS_MAX_PERCENT;
use nixfleet_harness::{incompressible_text, shared_nats, wait_for};
use nixfleet_proto::OperatorCommand;
use serde_json::{Value, json};

use super::super::gateways::gateway_process::{Gateway, SOON, event};
use super::{EVENTS, serves};

/// An event of nearly the largest size that does not get smaller in the log.
fn bulky(seq: u64) -> Value {
    let mut event = event("web-1", seq);
    event["event"] = json!({
        "kind": "ActivationFailed", "seq": seq, "exitCode": 1,
        "stderrTail": incompressible_text(60 * 1024, seq), "failedAt": "2026-01-01T00:00:00Z",
    });
    event
}

#[tokio::test]
async fn a_flood_of_large_events_leaves_the_reserve_of_the_log_alone() {
    let limits = [
        "bus.input_max_bytes=16777216",
        "rates.requests_per_second=1000000",
        "rates.requests_burst=1000000",
    ];
    let gateway = Gateway::start("reserve", &limits).await;
    let agent = gateway.agent("web-1");
    let stream = gateway
        .bus
        .names()
        .input_stream(Gateway::partition("stable"));
    // More than the log holds, as fast as the gateway takes it.
    let sent = (1..=400).map(|seq| {
        let agent = &agent;
        async move { agent.post(EVENTS, &bulky(seq)).await }
    });
    let answers: Vec<_> = futures::stream::iter(sent)
        .buffer_unordered(16)
        .collect()
        .await;
    let refused = answers.iter().filter(|answer| answer.status != 204);
    let mut count = 0;
    for answer in refused {
        assert_eq!(answer.refusal(), (503, "log-full".to_owned()));
        assert_eq!(answer.json()["retryable"], true);
        count += 1;
    }
    assert!(count > 100, "{count} of 400 were refused");
    let usage = gateway.bus.log_usage(&stream).await.unwrap();
    assert!(usage.percent() <= AGENT_EVENTS_MAX_PERCENT, "{usage:?}");

    // Commands and plans still have room.
    for number in 0..100 {
        let command = OperatorCommand::ClearQuarantine {
            channel: "stable".into(),
            closure_hash: "c".into(),
            reason: format!("{number}"),
        };
        let entry =
            nixfleet_harness::console_key::signed("fleet", chrono::Utc::now(), command).unwrap();
        let input = gateway.bus.input();
        input
            .append(Gateway::partition("stable"), entry)
            .await
            .unwrap();
    }
    // Other partitions take events, and this one does again once it is trimmed.
    let other = gateway.agent("lab-1");
    wait_for("the other partition takes events", SOON, async || {
        let answer = other.post(EVENTS, &event("lab-1", 1)).await;
        Ok((answer.status == 204).then_some(()))
    })
    .await
    .unwrap();
    let nats = async_nats::connect(shared_nats().unwrap().url())
        .await
        .unwrap();
    let log = async_nats::jetstream::new(nats)
        .get_stream(&stream)
        .await
        .unwrap();
    log.purge().await.unwrap();
    wait_for("the host is heard again", SOON, async || {
        let answer = agent.post(EVENTS, &event("web-1", 1_000)).await;
        Ok((answer.status == 204).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn bytes_of_a_host_are_limited_like_its_requests() {
    let limits = [
        "rates.requests_per_second=10",
        "rates.requests_burst=200",
        "rates.bytes_per_request=1024",
    ];
    let gateway = Gateway::start("bytes", &limits).await;
    let (agent, honest) = (gateway.agent("web-1"), gateway.agent("lab-1"));
    let mut taken = 0;
    let refused = loop {
        let answer = agent.post(EVENTS, &bulky(taken + 1)).await;
        if answer.status != 204 {
            break answer;
        }
        taken += 1;
    };
    assert!(
        (2..=5).contains(&taken),
        "{taken} events of 60 KiB in a burst of 200 KiB"
    );
    assert_eq!(refused.refusal(), (429, "rate-limited".to_owned()));
    let pause: u64 = refused.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=7).contains(&pause), "{pause}");
    serves(&gateway, &honest, 1).await;
    // A small event still fits into what is left.
    assert_eq!(agent.post(EVENTS, &event("web-1", 100)).await.status, 204);
}
