//! A host that reports without end.

use futures::StreamExt as _;
use nixfleet_harness::wait_for;
use nixfleet_proto::EntryBody;
use serde_json::{Value, json};

use super::super::gateways::gateway_process::{Gateway, SOON, event};
use super::{EVENTS, serves};

/// How many events of a host are in the log.
async fn logged(gateway: &Gateway, host: &str) -> usize {
    let entries = gateway.logged().await;
    let of_host = entries.iter().filter(|entry| match &entry.body {
        EntryBody::HostEvent { hostname, .. } => hostname.as_str() == host,
        EntryBody::RecoveryCandidate { .. }
        | EntryBody::Plan { .. }
        | EntryBody::Operator { .. } => false,
    });
    of_host.count()
}

#[tokio::test]
async fn a_flooding_host_is_held_to_its_rate_and_others_are_not() {
    let limits = ["rates.requests_per_second=2", "rates.requests_burst=100"];
    let gateway = Gateway::start("flood", &limits).await;
    let (agent, honest) = (gateway.agent("web-1"), gateway.agent("lab-1"));
    let flood = async {
        let sent = (1..=1_000).map(|seq| {
            let event = event("web-1", seq);
            let agent = &agent;
            async move { agent.post(EVENTS, &event).await }
        });
        let answers = futures::stream::iter(sent).buffer_unordered(16);
        answers.collect::<Vec<_>>().await
    };
    let others = async {
        for seq in 1..=10 {
            serves(&gateway, &honest, seq).await;
        }
    };
    let (answers, ()) = futures::join!(flood, others);
    let accepted = answers.iter().filter(|answer| answer.status == 204).count();
    assert!((100..500).contains(&accepted), "{accepted}");
    for answer in answers.iter().filter(|answer| answer.status != 204) {
        assert_eq!(answer.refusal(), (429, "rate-limited".to_owned()));
        assert_eq!(answer.json()["retryable"], true);
        assert_eq!(answer.headers["retry-after"], "1");
    }
    // What was answered 204 is in the log, and nothing else.
    assert_eq!(logged(&gateway, "web-1").await, accepted);
    assert_eq!(logged(&gateway, "lab-1").await, 10);
    assert_eq!(
        gateway.hostile("rate-limited").await as usize,
        1_000 - accepted
    );
    let after = wait_for("the host may speak again", SOON, async || {
        let answer = agent.post(EVENTS, &event("web-1", 1_001)).await;
        Ok((answer.status == 204).then_some(()))
    });
    after.await.unwrap();
}

#[tokio::test]
async fn every_event_of_an_array_counts() {
    let limits = ["rates.requests_per_second=1", "rates.requests_burst=150"];
    let gateway = Gateway::start("floodarrays", &limits).await;
    let agent = gateway.agent("web-1");
    let items: Vec<Value> = (1..=100).map(|seq| event("web-1", seq)).collect();
    assert_eq!(agent.post(EVENTS, &json!(items)).await.status, 200);
    let refused = agent.post(EVENTS, &json!(items)).await;
    assert_eq!(refused.refusal(), (429, "rate-limited".to_owned()));
    let pause: u64 = refused.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((30..=60).contains(&pause), "{pause}");
    assert_eq!(logged(&gateway, "web-1").await, 100);
    // A smaller one fits.
    assert_eq!(agent.post(EVENTS, &json!(items[..40])).await.status, 200);
}
