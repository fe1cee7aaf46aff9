//! Which events get into the log: of hosts and rollouts that the release names or the fold knows.

use nixfleet_harness::{Service, test_namespace, wait_for};
use nixfleet_proto::RolloutState;
use nixfleet_store::{DatabaseConfig, Store};
use serde_json::{Value, json};

use super::super::gateways::gateway_process::{Answer, Client, Gateway, SOON, event};
use super::super::store::sample_rollouts::{cursor, hostname, opening, rollout_id};

const EVENTS: &str = "/v1/agent/events";

fn about(host: &str, rollout: &str, seq: u64) -> Value {
    let mut event = event(host, seq);
    event["rolloutId"] = rollout.into();
    event
}

/// Status and code of a refusal that no retry changes.
fn refused_for_good(answer: &Answer) -> (u16, String) {
    assert_eq!(answer.json()["retryable"], false, "{:?}", answer.json());
    answer.refusal()
}

/// Posts until the follower of the output log is where the test is.
async fn post_until(client: &Client, body: &Value, status: u16) {
    wait_for("the answer changes", SOON, async || {
        let answer = client.post(EVENTS, body).await;
        Ok((answer.status == status).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn without_a_verified_release_no_event_is_taken() {
    let gateway = Gateway::start_without_release("norelease", &[]).await;
    let agent = gateway.agent("web-1");
    let answer = agent.post(EVENTS, &event("web-1", 1)).await;
    assert_eq!(answer.refusal(), (503, "not-ready".to_owned()));
    assert_eq!(answer.json()["retryable"], true);
    assert_eq!(answer.headers["retry-after"], "30");
    gateway.publish("4f1c").await;
    assert_eq!(agent.post(EVENTS, &event("web-1", 1)).await.status, 204);
}

#[tokio::test]
async fn only_hosts_of_the_release_report_and_only_about_its_rollouts() {
    let gateway = Gateway::start("admits", &[]).await;
    let (ghost, agent) = (gateway.agent("ghost-1"), gateway.agent("web-1"));
    let answer = ghost.post(EVENTS, &event("ghost-1", 1)).await;
    assert_eq!(refused_for_good(&answer), (404, "unknown-host".to_owned()));
    for (rollout, code) in [
        ("edge@4f1c", "unknown-host"),
        ("stable@0000", "unknown-rollout"),
        ("nowhere@4f1c", "unknown-rollout"),
    ] {
        let answer = agent.post(EVENTS, &about("web-1", rollout, 1)).await;
        assert_eq!(
            refused_for_good(&answer),
            (404, code.to_owned()),
            "{rollout}"
        );
    }
    assert_eq!(gateway.logged().await, Vec::new());
    assert_eq!(gateway.hostile("unknown-rollout").await, 2.0);
    assert_eq!(agent.post(EVENTS, &event("web-1", 1)).await.status, 204);
}

#[tokio::test]
async fn a_superseded_rollout_is_heard_until_its_retention_ends() {
    let gateway = Gateway::start("retained", &[]).await;
    let agent = gateway.agent("web-1");
    let old = about("web-1", "stable@01d", 1);
    gateway
        .move_rollout("stable@01d", RolloutState::Active)
        .await;
    post_until(&agent, &old, 204).await;
    let superseded = RolloutState::Superseded;
    gateway.move_rollout("stable@01d", superseded).await;
    assert_eq!(agent.post(EVENTS, &old).await.status, 204);
    gateway
        .move_rollout("stable@01d", RolloutState::Pruned)
        .await;
    post_until(&agent, &old, 404).await;
}

/// A restarted gateway has what it admits from the rows.
#[tokio::test]
async fn hosts_that_left_the_release_are_heard_while_a_rollout_has_their_record() {
    let name = "leftover";
    let database = test_namespace(name).await.unwrap().database;
    let config = DatabaseConfig {
        url: database.url.clone(),
        ..DatabaseConfig::default()
    };
    let store = Store::connect(&config).unwrap();
    store.migrate().await.unwrap();
    let id = rollout_id("stable@01");
    let partition = Gateway::partition("stable");
    let rows = opening(&id, 2);
    store
        .apply_turn(partition, 0, &rows, &cursor(1))
        .await
        .unwrap();
    let gateway = Gateway::start_on(Service::Ingest, database, name, &[]).await;
    gateway.publish("4f1c").await;

    let post = async |host: &str| {
        let event = about(host, "stable@01", 1);
        gateway.agent(host).post(EVENTS, &event).await
    };
    let answer = post(hostname(1).as_str()).await;
    assert_eq!(answer.status, 204, "{}", gateway.process.tail());
    let refused = refused_for_good(&post(hostname(2).as_str()).await);
    assert_eq!(refused, (404, "unknown-host".to_owned()));
    // The release has the host on the channel, whatever rollout of it.
    let agent = gateway.agent("web-1");
    let answer = agent.post(EVENTS, &about("web-1", "stable@01", 1)).await;
    assert_eq!(answer.status, 204);
    assert_eq!(gateway.logged().await.len(), 2);
}

/// Another gateway may have dispatched a host for a release that this one cannot verify yet.
#[tokio::test]
async fn an_announced_rollout_that_is_not_known_here_is_to_be_retried() {
    let gateway = Gateway::start("behind", &[]).await;
    let agent = gateway.agent("web-1");
    gateway.announce_unverifiable("beef").await;
    let answer = agent.post(EVENTS, &about("web-1", "stable@beef", 1)).await;
    assert_eq!(answer.refusal(), (503, "not-ready".to_owned()));
    assert_eq!(answer.json()["retryable"], true);
    // The others go on.
    let both = json!([about("web-1", "stable@beef", 1), event("web-1", 1)]);
    let answer = agent.post(EVENTS, &both).await.json();
    assert_eq!(
        (&answer[0]["status"], &answer[1]["status"]),
        (&json!(503), &json!(204))
    );
    assert_eq!(gateway.logged().await.len(), 1);
}

#[tokio::test]
async fn questions_about_unknown_rollouts_cost_the_host_that_asks() {
    let limits = ["rates.requests_per_second=1", "rates.requests_burst=100"];
    let gateway = Gateway::start("asks", &limits).await;
    let agent = gateway.agent("web-1");
    let mut answered = 0;
    for seq in 1..=100 {
        let answer = agent
            .post(EVENTS, &about("web-1", "stable@0000", seq))
            .await;
        if answer.refusal() == (429, "rate-limited".to_owned()) {
            break;
        }
        answered += 1;
    }
    assert!((5..=12).contains(&answered), "{answered}");
}
