//! Requests that say two things about where they end.
//!
//! The gateway ends TLS itself and a connection has one certificate, so there is nobody to smuggle
//! past and nobody to smuggle to. What remains to be shown: an ambiguous request is refused or read
//! in the one way the standard prescribes, and whatever follows it is that client's own request.

use super::super::gateways::gateway_process::{Gateway, event};
use super::raw_connection::Raw;
use super::{EVENTS, serves};

/// Sends a head and a body; gives everything that comes back until the connection closes or a second
/// request, sent behind it, is answered.
async fn exchange(gateway: &Gateway, head: &str, body: &str) -> String {
    let mut raw = Raw::agent(gateway, "web-1").await;
    raw.send(format!("{head}\r\n\r\n{body}").as_bytes()).await;
    raw.answer().await
}

fn post(headers: &str) -> String {
    format!("POST {EVENTS} HTTP/1.1\r\nHost: localhost\r\n{headers}")
}

#[tokio::test]
async fn requests_without_one_clear_length_are_refused() {
    let gateway = Gateway::start("lengths", &[]).await;
    let honest = gateway.agent("lab-1");
    let body = event("web-1", 1).to_string();
    let length = body.len();
    let ambiguous = [
        post(&format!(
            "Content-Length: {length}\r\nContent-Length: {}",
            length - 1
        )),
        post(&format!("Content-Length: {length}, {}", length - 1)),
        post(&format!("Content-Length: +{length}")),
        post(&format!("Content-Length: -{length}")),
        post(&format!("Content-Length: 0x{length:x}")),
        post("Content-Length: 99999999999999999999999"),
        post("Transfer-Encoding: gzip"),
        post("Transfer-Encoding: chunked, identity"),
        post("Transfer-Encoding: xchunked"),
        post(&format!("Content-Length : {length}")),
        post(&format!("Content-Length: {length}\r\n X-Folded: x")),
        format!("POST {EVENTS} HTTP/1.1\nHost: localhost\r\nContent-Length\x00: {length}"),
        format!("POST {EVENTS} HTTP/9.1\r\nHost: localhost"),
    ];
    for head in ambiguous {
        let answer = exchange(&gateway, &head, &body).await;
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
        assert!(refused, "{head:?} was answered {answer:?}");
    }
    serves(&gateway, &honest, 1).await;
    assert_eq!(
        gateway.logged().await.len(),
        1,
        "nothing of it is in the log"
    );
}

#[tokio::test]
async fn a_smuggled_request_is_that_clients_own() {
    let gateway = Gateway::start("smuggled", &[]).await;
    let honest = gateway.agent("lab-1");
    // By the length the rest is body, by the chunks it is a second request: a command that only
    // operators may give.
    let command = "{\"reason\":\"smuggled\"}";
    let smuggled = format!(
        "POST /v1/rollouts/stable@4f1c/clearance HTTP/1.1\r\nHost: localhost\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{command}",
        command.len()
    );
    let body = format!("0\r\n\r\n{smuggled}");
    let head = post(&format!(
        "Content-Length: {}\r\nTransfer-Encoding: chunked",
        body.len()
    ));
    let mut raw = Raw::agent(&gateway, "web-1").await;
    raw.send(format!("{head}\r\n\r\n{body}").as_bytes()).await;
    let first = raw.answer().await;
    assert!(first.starts_with("HTTP/1.1 400"), "{first}");
    let rest = if first.matches("HTTP/1.1 ").count() > 1 {
        first
    } else {
        raw.answer().await
    };
    assert!(!rest.contains("HTTP/1.1 2"), "{rest}");
    if rest.contains("HTTP/1.1") {
        assert!(rest.contains("role-not-allowed"), "{rest}");
    }
    serves(&gateway, &honest, 1).await;
    assert_eq!(gateway.logged().await.len(), 1, "no command");
}
