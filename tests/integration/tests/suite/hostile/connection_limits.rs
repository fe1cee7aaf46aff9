//! More connections, requests and header bytes than anyone may have.

use nixfleet_harness::wait_for;
use reqwest::Method;

use super::super::gateways::gateway_process::{Gateway, SOON, UNKNOWN_ROLLOUT};
use super::super::gateways::test_authority::Validity;
use super::raw_connection::Raw;
use super::{EVENTS, serves};

async fn is_open(gateway: &Gateway, host: Option<&str>) -> Option<Raw> {
    let issued = host.map(|host| {
        let name = format!("agent-{host}.fleet.test");
        gateway.authority.client(&name, None, Validity::Now)
    });
    let mut raw = Raw::open(gateway, issued.as_ref(), b"http/1.1")
        .await
        .ok()?;
    // With TLS 1.3 the client learns of a refusal only from what it reads.
    let request = "GET /v1/rollouts/none HTTP/1.1\r\nHost: localhost\r\n\r\n";
    raw.send(request.as_bytes()).await;
    let answer = raw.answer().await;
    answer.starts_with("HTTP/1.1 ").then_some(raw)
}

#[tokio::test]
async fn connections_are_bounded_in_all_and_per_client() {
    let limits = [
        "limits.connections=6",
        "limits.connections_per_client=2",
        "limits.connections_anonymous=1",
    ];
    let gateway = Gateway::start("connections", &limits).await;
    let refused = async |bound: &str| {
        let name = format!("nixfleet_connections_refused_total{{bound=\"{bound}\"}}");
        gateway.metric(&name).await
    };
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(is_open(&gateway, Some("web-1")).await.expect("has room"));
    }
    assert!(is_open(&gateway, Some("web-1")).await.is_none());
    assert_eq!(refused("client").await, 1.0);
    held.push(is_open(&gateway, None).await.expect("is told to bring one"));
    assert!(is_open(&gateway, None).await.is_none());
    assert_eq!(refused("anonymous").await, 1.0);
    for host in ["web-2", "web-3", "web-4"] {
        held.push(is_open(&gateway, Some(host)).await.expect("has room"));
    }
    assert!(is_open(&gateway, Some("web-5")).await.is_none());
    assert_eq!(refused("all").await, 1.0);
    assert_eq!(gateway.metric("nixfleet_connections_open").await, 6.0);
    drop(held);
    wait_for("there is room again", SOON, async || {
        Ok(is_open(&gateway, Some("web-1")).await.map(drop))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn one_client_cannot_take_the_room_for_requests() {
    let limits = [
        "limits.requests_per_client=3",
        "http.body_timeout_seconds=20",
    ];
    let gateway = Gateway::start("room", &limits).await;
    let (agent, honest) = (gateway.agent("web-1"), gateway.agent("lab-1"));
    // Three requests whose bodies do not come.
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut raw = Raw::agent(&gateway, "web-1").await;
        let head =
            format!("POST {EVENTS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n");
        assert!(raw.send(head.as_bytes()).await);
        open.push(raw);
    }
    let refusal = wait_for("there is no room", SOON, async || {
        let answer = agent.get(UNKNOWN_ROLLOUT).await;
        Ok((answer.status != 200).then_some(answer))
    });
    let refusal = refusal.await.unwrap();
    assert_eq!(refusal.refusal(), (429, "too-many-requests".to_owned()));
    assert_eq!(refusal.headers["retry-after"], "1");
    assert!(gateway.hostile("too-many-requests").await >= 1.0);
    serves(&gateway, &honest, 1).await;
    drop(open);
    wait_for("there is room again", SOON, async || {
        Ok((agent.get(UNKNOWN_ROLLOUT).await.status == 404).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn headers_over_the_limit_are_refused() {
    let gateway = Gateway::start("headers", &["limits.header_bytes=8192"]).await;
    let (agent, honest) = (gateway.agent("web-1"), gateway.agent("lab-1"));
    let large = "x".repeat(64 * 1024);
    let mut raw = Raw::agent(&gateway, "web-1").await;
    let request =
        format!("GET /v1/rollouts/none HTTP/1.1\r\nHost: localhost\r\nX-Large: {large}\r\n\r\n");
    raw.send(request.as_bytes()).await;
    let answer = raw.answer().await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
    let mut raw = Raw::agent(&gateway, "web-1").await;
    let many = "X-Many: x\r\n".repeat(400);
    let request = format!("GET /v1/rollouts/none HTTP/1.1\r\nHost: localhost\r\n{many}\r\n");
    raw.send(request.as_bytes()).await;
    let answer = raw.answer().await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    // HTTP/2 refuses the stream or the connection.
    let request = agent.request(Method::GET, UNKNOWN_ROLLOUT);
    match request.header("x-large", &large).send().await {
        Ok(response) => assert_eq!(response.status(), 431),
        Err(error) => assert!(error.is_request(), "{error:?}"),
    }
    assert_eq!(agent.get(UNKNOWN_ROLLOUT).await.status, 404);
    serves(&gateway, &honest, 1).await;
}
