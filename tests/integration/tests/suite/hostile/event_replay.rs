//! Events that were sent before, and events out of order: the log takes them, the fold does not.

use std::time::Duration;

use nixfleet_harness::pki::Pki;
use nixfleet_harness::wait_for;
use serde_json::{Value, json};

use super::super::e2e::testbed::Testbed;
use super::super::gateways::gateway_process::Answer;
use super::EVENTS;

const TIMEOUT: Duration = Duration::from_secs(120);
const ROLLOUT: &str = "edge@aa01";
const HOST: &str = "edge-03";

/// What the control plane says of a host, without what every heartbeat changes.
async fn records(testbed: &Testbed) -> Value {
    let host = testbed
        .operator
        .get(&format!("/v1/hosts/{HOST}"))
        .await
        .unwrap();
    host["records"].clone()
}

/// The events of the host with what became of them, once all have an outcome.
async fn events(testbed: &Testbed, at_least: usize) -> Vec<Value> {
    let path = format!("/v1/rollouts/{ROLLOUT}/events?limit=10000");
    let archived = wait_for("every event has its outcome", TIMEOUT, async || {
        let page = testbed.operator.get(&path).await?;
        let events = page["events"].as_array().cloned().unwrap_or_default();
        let own: Vec<Value> = events
            .into_iter()
            .filter(|event| {
                event["host"] == HOST && event["payload"]["body"]["entry"] == "HostEvent"
            })
            .collect();
        let done = own.iter().all(|event| !event["outcome"].is_null());
        Ok((done && own.len() >= at_least).then_some(own))
    });
    archived.await.unwrap()
}

/// An archived event as its agent sent it.
fn as_sent(event: &Value) -> Value {
    let body = &event["payload"]["body"];
    let mut wire = body["event"]["body"].clone();
    wire["seq"] = body["event"]["seq"].clone();
    json!({ "hostname": body["hostname"], "rolloutId": body["rolloutId"], "event": wire })
}

struct Attacker {
    http: reqwest::Client,
    url: String,
}

impl Attacker {
    /// Someone who has a certificate and key of the host.
    fn new(testbed: &Testbed) -> Self {
        let config = testbed.stack.config();
        let files = Pki::open(&config.authority).unwrap().agent(HOST).unwrap();
        let read = |path| std::fs::read(path).unwrap();
        let identity = [read(files.cert), read(files.key)].concat();
        let root = reqwest::Certificate::from_pem(&read(config.authority.cert.clone())).unwrap();
        let http = reqwest::Client::builder()
            .tls_certs_only([root])
            .identity(reqwest::Identity::from_pem(&identity).unwrap())
            .timeout(TIMEOUT)
            .build();
        Self {
            http: http.unwrap(),
            url: testbed.stack.url(0).unwrap(),
        }
    }

    async fn post(&self, body: &Value) -> Answer {
        let request = self.http.post(format!("{}{EVENTS}", self.url)).json(body);
        let response = request.send().await.unwrap();
        Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            bytes: response.bytes().await.unwrap().to_vec(),
        }
    }
}

#[tokio::test]
async fn replayed_and_reordered_events_change_nothing() {
    let mut testbed = Testbed::shared("replay", 1).await;
    testbed.publish("aa01").await;
    testbed.start_swarm(&json!({}));
    testbed.wait_until_terminal("aa01").await;
    testbed.check_agreement("aa01").await;
    let honest = events(&testbed, 5).await;
    let before = records(&testbed).await;
    let attacker = Attacker::new(&testbed);

    // Once as they were, once backwards, once together.
    let mut replayed: Vec<Value> = honest.iter().map(as_sent).collect();
    for event in &replayed {
        assert_eq!(attacker.post(event).await.status, 204, "{event}");
    }
    replayed.reverse();
    for event in &replayed {
        assert_eq!(attacker.post(event).await.status, 204, "{event}");
    }
    assert_eq!(attacker.post(&json!(replayed)).await.status, 200);
    // Later than everything, but from the past of the rollout.
    let highest = replayed
        .iter()
        .filter_map(|event| event["event"]["seq"].as_u64());
    let mut late = replayed.clone();
    for (event, seq) in late.iter_mut().zip(highest.max().unwrap() + 1_000..) {
        event["event"]["seq"] = seq.into();
    }
    late.retain(|event| {
        let kind = event["event"]["kind"].as_str().unwrap();
        !kind.starts_with("Probe")
    });
    for event in &late {
        assert_eq!(attacker.post(event).await.status, 204, "{event}");
    }

    let attacks = 3 * honest.len() + late.len();
    let all = events(&testbed, honest.len() + attacks).await;
    let rejected: Vec<&str> = all
        .iter()
        .filter_map(|event| event["outcome"]["rejected"]["reason"].as_str())
        .collect();
    assert_eq!(rejected.len(), attacks);
    let of = |reason: &str| rejected.iter().filter(|known| **known == reason).count();
    assert_eq!(of("stale"), 3 * honest.len());
    assert_eq!(of("illegal"), late.len());
    assert_eq!(records(&testbed).await, before);
    testbed.stop();
}
