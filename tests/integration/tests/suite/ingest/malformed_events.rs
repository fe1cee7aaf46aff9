//! Hostile input: each gets the documented answer, changes nothing and is counted.

use nixfleet_proto::{EntryBody, HostEventBody};
use reqwest::Method;
use serde_json::{Value, json};

use super::super::gateways::gateway_process::{Answer, Client, Gateway, UNKNOWN_ROLLOUT, event};
use super::super::gateways::test_authority::{Authority, Validity};

const EVENTS: &str = "/v1/agent/events";

async fn post_text(client: &Client, text: String) -> Answer {
    let request = client.request(Method::POST, EVENTS);
    let request = request.header("content-type", "application/json");
    client.send(request.body(text)).await
}

#[tokio::test]
async fn malformed_events_change_nothing_and_are_counted() {
    let gateway = Gateway::start("hostile", &[]).await;
    let agent = gateway.agent("web-1");
    let changed = |pointer: &str, value: Value| {
        let mut event = event("web-1", 1);
        *event.pointer_mut(pointer).unwrap() = value;
        event
    };
    let cases = [
        (event("web-2", 1), 403, "hostname-mismatch"),
        (
            changed("/event/kind", json!("Exploded")),
            400,
            "unknown-event-kind",
        ),
        (changed("/event/seq", json!("1")), 400, "invalid-field"),
        (changed("/event/seq", json!(0)), 400, "out-of-bounds"),
        (changed("/rolloutId", json!("stable")), 400, "invalid-field"),
        (
            changed("/rolloutId", json!("Stable@4F")),
            400,
            "invalid-rollout-id",
        ),
        (
            changed("/event/receivedAt", json!("1970-01-01T00:00:00Z")),
            400,
            "out-of-bounds",
        ),
        (
            changed("/event/currentClosureAtDispatch", json!("a\u{0}b")),
            400,
            "out-of-bounds",
        ),
        (json!({}), 400, "invalid-field"),
    ];
    for (body, status, code) in cases {
        let answer = agent.post(EVENTS, &body).await;
        assert_eq!(answer.refusal(), (status, code.to_owned()), "{body}");
        assert!(gateway.hostile(code).await >= 1.0, "{code}");
    }
    let answer = post_text(&agent, "{\"hostname\":".to_owned()).await;
    assert_eq!(answer.refusal(), (400, "invalid-json".to_owned()));
    let request = agent
        .request(Method::POST, EVENTS)
        .header("content-type", "text/plain");
    let answer = agent.send(request.body("{}")).await;
    assert_eq!(answer.refusal(), (415, "unsupported-media-type".to_owned()));
    let request = agent
        .request(Method::POST, EVENTS)
        .header("content-type", "application/json")
        .header("content-encoding", "gzip");
    let answer = agent.send(request.body("\u{1f}\u{8b}")).await;
    assert_eq!(answer.refusal(), (415, "unsupported-media-type".to_owned()));
    assert!(answer.json()["message"].as_str().unwrap().contains("gzip"));
    assert_eq!(gateway.logged().await, Vec::new());
}

#[tokio::test]
async fn a_report_with_too_many_words_is_cut_and_stored() {
    let gateway = Gateway::start("words", &[]).await;
    let agent = gateway.agent("web-1");
    let mut failed = event("web-1", 1);
    failed["event"] = json!({
        "kind": "ActivationFailed", "seq": 1, "exitCode": 1, "failedAt": "2026-01-01T00:00:00Z",
        "stderrTail": format!("{}\u{0}the error", "x".repeat(70 * 1024)),
    });
    assert_eq!(agent.post(EVENTS, &failed).await.status, 204);
    let stored = gateway.logged().await;
    let EntryBody::HostEvent { event, .. } = &stored[0].body else {
        panic!("{stored:?}");
    };
    let HostEventBody::ActivationFailed { stderr_tail, .. } = &event.body else {
        panic!("{event:?}");
    };
    assert!(stderr_tail.starts_with("[the first of 71692 bytes are cut] "));
    assert!(stderr_tail.ends_with("\u{fffd}the error"));
    assert!(stderr_tail.len() <= 64 * 1024);
}

#[tokio::test]
async fn a_body_of_ten_mebibytes_is_answered_with_413() {
    let gateway = Gateway::start("large", &[]).await;
    let agent = gateway.agent("web-1");
    let mut huge = event("web-1", 1);
    huge["event"]["currentClosureAtDispatch"] = "x".repeat(10 * 1024 * 1024).into();
    let answer = agent.post(EVENTS, &huge).await;
    assert_eq!(answer.refusal(), (413, "body-too-large".to_owned()));
    // The same without a declared length.
    let chunk = |_| Ok::<_, std::io::Error>(vec![b' '; 64 * 1024]);
    let body = reqwest::Body::wrap_stream(futures::stream::iter((0..160).map(chunk)));
    let request = agent
        .request(Method::POST, EVENTS)
        .header("content-type", "application/json");
    let answer = agent.send(request.body(body)).await;
    assert_eq!(answer.refusal(), (413, "body-too-large".to_owned()));
    assert_eq!(gateway.hostile("body-too-large").await, 2.0);
    assert_eq!(gateway.logged().await, Vec::new());
    // The connection and the gateway are as good as before.
    assert_eq!(agent.post(EVENTS, &event("web-1", 1)).await.status, 204);
}

#[tokio::test]
async fn only_certificates_of_the_authority_get_an_answer() {
    let gateway = Gateway::start("strangers", &[]).await;
    let nobody = gateway.client_with(None);
    for path in ["/v1/fleet.resolved", UNKNOWN_ROLLOUT, "/nonsense"] {
        let answer = nobody.get(path).await;
        assert_eq!(
            answer.refusal(),
            (401, "client-certificate-required".to_owned())
        );
    }
    assert_eq!(gateway.hostile("client-certificate-required").await, 3.0);
    let foreign =
        Authority::new("someone else").client("agent-web-1.fleet.test", None, Validity::Now);
    gateway
        .client_with(Some(&foreign))
        .refused("/v1/fleet.resolved")
        .await;
    assert_eq!(gateway.hostile("client-certificate-foreign").await, 1.0);
    let expired = gateway
        .authority
        .client("agent-web-1.fleet.test", None, Validity::Over);
    gateway
        .client_with(Some(&expired))
        .refused("/v1/fleet.resolved")
        .await;
    assert_eq!(gateway.hostile("client-certificate-expired").await, 1.0);
}

#[tokio::test]
async fn the_protocol_header_has_one_value() {
    let gateway = Gateway::start_without_release("protocol", &["http.strict_protocol=true"]).await;
    let agent = gateway.agent("web-1");
    let with = async |value: Option<&str>| {
        let mut request = agent.request(Method::GET, UNKNOWN_ROLLOUT);
        if let Some(value) = value {
            request = request.header("X-Nixfleet-Protocol", value);
        }
        agent.send(request).await
    };
    assert_eq!(with(Some("1")).await.status, 404);
    let refusal = async |value| with(value).await.refusal();
    let unsupported = (426, "protocol-version-unsupported".to_owned());
    assert_eq!(refusal(Some("2")).await, unsupported);
    let invalid = (400, "protocol-version-invalid".to_owned());
    assert_eq!(refusal(Some("one")).await, invalid);
    let required = (400, "protocol-version-required".to_owned());
    assert_eq!(refusal(None).await, required);
}

#[tokio::test]
async fn unknown_paths_and_methods_have_error_bodies() {
    let gateway = Gateway::start("paths", &[]).await;
    let agent = gateway.agent("web-1");
    let unknown = (404, "unknown-path".to_owned());
    assert_eq!(agent.get("/v2/nothing").await.refusal(), unknown);
    let method = (405, "method-not-allowed".to_owned());
    assert_eq!(
        agent.post(UNKNOWN_ROLLOUT, &json!({})).await.refusal(),
        method
    );
    let events = agent.get("/v1/agent/events").await;
    assert_eq!(events.refusal(), method);
}
