//! Ten thousand hosts that wait for something to do.

use nixfleet_harness::wait_for;
use nixfleet_proto::outcome::Effect;
use nixfleet_proto::{Minutes, OutputFrame};
use tokio::task::JoinSet;

use super::super::gateways::gateway_process::{Client, Gateway, SOON, UNKNOWN_ROLLOUT};
use super::super::gateways::test_releases::queued;
use super::serves;

/// Connections, one host each. Handshakes are what costs here, so each carries many polls.
const CONNECTIONS: usize = 160;
const POLLS_PER_CONNECTION: usize = 63;
const POLLS: usize = CONNECTIONS * POLLS_PER_CONNECTION;
/// Most memory of a waiting request.
const KIB_PER_POLL: u64 = 16;

fn dispatch_of(host: &str) -> OutputFrame {
    let effect = Effect::InsertDispatch {
        rollout_id: "stable@4f1c".parse().unwrap(),
        hostname: host.parse().unwrap(),
        target_closure: "new".into(),
        soak_minutes: Minutes::from_minutes(5),
    };
    queued(1, vec![effect])
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_polls_take_little_memory_and_delay_nobody() {
    let limits = ["limits.polls_per_client=63"];
    let gateway = Gateway::start("polls", &limits).await;
    let honest = gateway.agent("lab-1");
    let waiting = "nixfleet_dispatch_polls_open";
    let agents: Vec<Client> = (0..CONNECTIONS)
        .map(|number| gateway.agent(&format!("idle-{number}")))
        .collect();
    for agent in &agents {
        assert_eq!(agent.get(UNKNOWN_ROLLOUT).await.status, 404);
    }
    let before = gateway.resident_kib();
    let mut polls = JoinSet::new();
    for agent in &agents {
        for _ in 0..POLLS_PER_CONNECTION {
            let request = agent.request(reqwest::Method::GET, "/v1/agent/dispatch?wait=60");
            // The gateway ends a poll, not its client.
            let request = request.timeout(SOON * 3);
            polls.spawn(async move { request.send().await.map(|answer| answer.status()) });
        }
    }
    gateway.wait_for_polls(POLLS, SOON * 2).await;
    let grown = gateway.resident_kib().saturating_sub(before);
    println!("{POLLS} polls on {CONNECTIONS} connections: {grown} KiB more");
    assert!(grown < POLLS as u64 * KIB_PER_POLL, "{grown} KiB");
    serves(&gateway, &honest, 1).await;
    // Each host has its share and no more.
    let refusal = agents[7].get("/v1/agent/dispatch?wait=60").await;
    assert_eq!(refusal.refusal(), (429, "too-many-requests".to_owned()));
    // One of them gets something to do, the others go on waiting.
    let log = gateway.bus.output(Gateway::partition("stable"));
    log.publish(&dispatch_of("idle-7"), 0).await.unwrap();
    let first = polls.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(first, 200);
    drop((polls, agents));
    wait_for("nobody waits any more", SOON, async || {
        Ok((gateway.metric(waiting).await == 0.0).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn polls_are_bounded_in_all() {
    let gateway = Gateway::start("pollsall", &["limits.polls=2"]).await;
    let agents = ["a", "b", "c"].map(|host| gateway.agent(host));
    let [first, second, third] = &agents;
    // The third may have been there first for a moment.
    let hold =
        async |agent: &Client| while agent.get("/v1/agent/dispatch?wait=60").await.status == 503 {};
    let held = async {
        futures::future::select_all([Box::pin(hold(first)), Box::pin(hold(second))]).await
    };
    let refused = async {
        wait_for("the third is refused", SOON, async || {
            let answer = third.get("/v1/agent/dispatch?wait=0").await;
            Ok((answer.status != 204).then_some(answer))
        })
        .await
        .unwrap()
    };
    tokio::select! {
        _ = held => panic!("a poll ended"),
        refusal = refused => {
            assert_eq!(refusal.refusal(), (503, "too-busy".to_owned()));
            assert_eq!(refusal.headers["retry-after"], "1");
        }
    }
}
