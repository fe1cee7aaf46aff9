//! Peers that take their time.

use std::time::{Duration, Instant};

use nixfleet_harness::wait_for;
use reqwest::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::gateways::gateway_process::{Gateway, SOON};
use super::raw_connection::Raw;
use super::{EVENTS, serves};

const IMPATIENT: [&str; 4] = [
    "tls.handshake_timeout_seconds=1",
    "http.header_timeout_seconds=1",
    "http.body_timeout_seconds=1",
    "http.write_timeout_seconds=1",
];
/// Far below any default, with room for a busy machine.
const IN_TIME: Duration = Duration::from_secs(10);
const DRIP: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_connection_that_asks_nothing_is_closed() {
    let gateway = Gateway::start("silent", &IMPATIENT).await;
    let honest = gateway.agent("lab-1");
    // Before TLS, and in the middle of its first record.
    for begun in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut stream = TcpStream::connect(("127.0.0.1", gateway.port()))
            .await
            .unwrap();
        stream.write_all(begun).await.unwrap();
        let started = Instant::now();
        let mut bytes = Vec::new();
        let closed = tokio::time::timeout(SOON, stream.read_to_end(&mut bytes)).await;
        assert!(closed.is_ok() && started.elapsed() < IN_TIME);
    }
    // After it: nothing, the beginning of HTTP/2, the beginning of a header.
    for begun in ["", "PRI * HTTP/2.0\r\n\r\nSM", "POST /v1/ag"] {
        let mut raw = Raw::agent(&gateway, "web-1").await;
        raw.send(begun.as_bytes()).await;
        let took = raw.closed().await;
        assert!(took < IN_TIME, "{begun:?}: {took:?}");
    }
    assert!(gateway.hostile("no-request").await >= 2.0);
    serves(&gateway, &honest, 1).await;
    wait_for("only the honest host is connected", SOON, async || {
        let open = gateway.metric("nixfleet_connections_open").await;
        Ok((open == 1.0).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_peer_that_connects_and_leaves_is_not_hostile() {
    let gateway = Gateway::start("leaves", &[]).await;
    let honest = gateway.agent("lab-1");
    // As the health check of a load balancer does.
    for _ in 0..3 {
        drop(
            TcpStream::connect(("127.0.0.1", gateway.port()))
                .await
                .unwrap(),
        );
    }
    serves(&gateway, &honest, 1).await;
    wait_for("only the honest host is connected", SOON, async || {
        let open = gateway.metric("nixfleet_connections_open").await;
        Ok((open == 1.0).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(gateway.hostile("tls-connection").await, 0.0);
}

#[tokio::test]
async fn a_header_that_drips_is_cut_off() {
    let gateway = Gateway::start("drip", &IMPATIENT).await;
    let honest = gateway.agent("lab-1");
    let mut raw = Raw::agent(&gateway, "web-1").await;
    let header = format!(
        "POST {EVENTS} HTTP/1.1\r\nHost: localhost\r\nX-Slow: {}",
        "x".repeat(500)
    );
    let dripping = async {
        let started = Instant::now();
        assert!(!raw.drip(&header, DRIP).await, "all of it was taken");
        assert!(started.elapsed() < IN_TIME, "{:?}", started.elapsed());
    };
    let (((), ()), ()) = futures::join!(
        async { futures::join!(dripping, serves(&gateway, &honest, 1)) },
        serves(&gateway, &honest, 2)
    );
    assert_eq!(gateway.logged().await.len(), 2);
}

#[tokio::test]
async fn a_body_that_drips_is_answered_with_408() {
    let gateway = Gateway::start("body", &IMPATIENT).await;
    let honest = gateway.agent("lab-1");
    let mut raw = Raw::agent(&gateway, "web-1").await;
    let header =
        format!("POST {EVENTS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000\r\n\r\n");
    assert!(raw.send(header.as_bytes()).await);
    let started = Instant::now();
    raw.drip(&"{".repeat(6), DRIP).await;
    let answer = raw.answer().await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("body-timeout"), "{answer}");
    assert!(started.elapsed() < IN_TIME);
    // The same within a stream of HTTP/2.
    let agent = gateway.agent("web-1");
    let drops = futures::stream::unfold((), |()| async {
        tokio::time::sleep(DRIP).await;
        Some((Ok::<_, std::io::Error>("{"), ()))
    });
    let body = reqwest::Body::wrap_stream(drops);
    let request = agent.request(Method::POST, EVENTS);
    let request = request.header("content-type", "application/json");
    let (answer, ()) = futures::join!(agent.send(request.body(body)), serves(&gateway, &honest, 1));
    assert_eq!(answer.refusal(), (408, "body-timeout".to_owned()));
    assert_eq!(gateway.hostile("body-timeout").await, 2.0);
    assert_eq!(gateway.logged().await.len(), 1);
}

#[tokio::test]
async fn a_peer_that_reads_no_answer_is_given_up() {
    let gateway = Gateway::start("unread", &IMPATIENT).await;
    let honest = gateway.agent("lab-1");
    let mut raw = Raw::agent(&gateway, "web-1").await;
    // Answers of some 150 bytes each; the sockets hold some megabytes before they are full.
    let requests = "GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2_000);
    let before = gateway.resident_kib();
    let flooding = async {
        let started = Instant::now();
        while raw.send(requests.as_bytes()).await {
            assert!(started.elapsed() < SOON * 4, "it is never given up");
        }
    };
    let flooded = tokio::time::timeout(SOON * 4, flooding).await;
    assert!(flooded.is_ok(), "it is never given up");
    assert!(gateway.hostile("slow-reader").await >= 1.0);
    let grown = gateway.resident_kib().saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB more");
    serves(&gateway, &honest, 1).await;
}
